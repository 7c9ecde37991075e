//! The addresses that a CMD_TLBI_* names.
//!
//! Source: IHI 0070, "Range-based invalidation and level hint".

/// TG: the granule of the tables whose translations are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granule {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl Granule {
    /// Its size in bytes as a power of two: 12, 14, 16.
    #[must_use]
    pub const fn shift(self) -> u8 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    pub(super) const fn decode(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::K4),
            2 => Some(Self::K16),
            3 => Some(Self::K64),
            _ => None,
        }
    }

    pub(super) const fn encode(self) -> u8 {
        match self {
            Self::K4 => 1,
            Self::K16 => 2,
            Self::K64 => 3,
        }
    }
}

/// TTL: the level that the leaf descriptors lie at, 1–3; 0 is any. A hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level(pub u8);

impl Level {
    /// No level is named.
    pub const ANY: Self = Self(0);
}

/// TG is not zero: a range of granules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// TG.
    pub granule: Granule,
    /// NUM, 0–31: one less than the granules, in units of SCALE.
    pub num: u8,
    /// SCALE, 0–63: the unit is `2^scale` granules.
    pub scale: u8,
    /// TTL.
    pub level: Level,
}

impl Span {
    /// Bytes: `(num + 1) << scale` granules; `None` where they are 2^64 or more.
    #[must_use]
    pub const fn bytes(&self) -> Option<u64> {
        let shift = self.scale as u32 + self.granule.shift() as u32;
        let granules = self.num as u64 + 1;
        if shift > granules.leading_zeros() {
            None
        } else {
            Some(granules << shift)
        }
    }
}

/// Addresses of a CMD_TLBI_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// Address `[63:12]`: the first, or, without a span, any of a page. An input address, or an
    /// intermediate one.
    pub first: u64,
    /// Leaf: not what is cached of the tables on the way.
    pub leaf: bool,
    /// NUM, SCALE, TG, TTL; `None`: whatever page holds the address.
    pub span: Option<Span>,
}

impl Addresses {
    /// The last address, all of the page or of the span; a span does not wrap.
    #[must_use]
    pub const fn last(&self) -> u64 {
        let bytes = match &self.span {
            None => Some(1 << 12),
            Some(span) => span.bytes(),
        };
        match bytes {
            Some(bytes) => self.first.saturating_add(bytes - 1),
            None => u64::MAX,
        }
    }
}
