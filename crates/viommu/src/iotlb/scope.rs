//! What an invalidation covers.

use super::{Stage, Tag, page_of, table::Key};
use iopf::{Iova, Pasid};

/// A naturally aligned range of input addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// An address in the range; the bits below its size do not matter.
    pub addr: Iova,
    /// Size in bytes as a power of two; 64 and more is every address.
    pub size_shift: u8,
}

impl Pages {
    pub(super) fn first(self) -> u64 {
        let mask = u64::MAX.checked_shl(u32::from(self.size_shift));
        self.addr.0 & mask.unwrap_or(0)
    }

    /// The same as first and last address.
    pub(super) fn span(self) -> Span {
        let rest = u64::MAX.checked_shl(u32::from(self.size_shift));
        Span {
            first: self.first(),
            last: self.first() | !rest.unwrap_or(0),
        }
    }

    fn touches(self, key: Key) -> bool {
        self.span().touches(key)
    }
}

/// A range of input addresses, of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first address.
    pub first: u64,
    /// Its last.
    pub last: u64,
}

impl Span {
    /// Every address.
    pub const ALL: Self = Self {
        first: 0,
        last: u64::MAX,
    };

    /// How many pages of a size, a power of two, it touches.
    pub(super) const fn pages(self, shift: u8) -> u64 {
        if self.last < self.first {
            return 0;
        }
        ((self.last >> shift) - (self.first >> shift)).saturating_add(1)
    }

    /// The same up to the bounds of pages of this size, a power of two below 64.
    const fn whole_pages(self, shift: u8) -> Self {
        let within = !(u64::MAX << (shift & 63));
        Self {
            first: self.first & !within,
            last: self.last | within,
        }
    }

    fn touches(self, key: Key) -> bool {
        let (page, shift) = page_of(key);
        page <= self.last && self.first <= page | ((1 << shift) - 1)
    }
}

/// Which address spaces of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Every PASID's, and what is global.
    All,
    /// One PASID's, without what is global.
    Pasid(Pasid),
    /// One PASID's, and what is global.
    PasidAndGlobal(Pasid),
}

/// What the history says of an invalidation: its domain, every domain, or the sources.
pub(super) const EVERY_DOMAIN: u64 = 1 << 16;
pub(super) const SOURCES: u64 = 1 << 17;

/// What an invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every entry.
    Global,
    /// Every entry of a domain.
    Domain(u16),
    /// Entries of a domain by second-stage input address: its second-stage entries in the range,
    /// and every first-stage and nested entry of the domain, whose second-stage input is not known
    /// any more (Intel VT-d, "IOTLB Invalidate Descriptor", page-selective-within-domain).
    DomainPages(u16, Pages),
    /// Entries of a PASID in a domain, and every second-stage and pass-through entry of the domain,
    /// which is not tagged with its PASID here (Intel VT-d, "PASID-based-IOTLB Invalidation").
    Pasid(u16, Pasid),
    /// Entries of a PASID in a domain through the first stage, in a range.
    PasidPages(u16, Pasid, Pages),
    /// Entries of a domain through the first stage, nested ones included, in a range (Arm: CMD_TLBI_NH_*).
    FirstStage(u16, Whose, Span),
    /// Entries of a domain through the second stage alone, in a range (Arm: CMD_TLBI_S2_IPA).
    SecondStage(u16, Span),
}

impl Scope {
    const fn domain(self) -> Option<u16> {
        match self {
            Self::Global => None,
            Self::Domain(domain)
            | Self::DomainPages(domain, _)
            | Self::Pasid(domain, _)
            | Self::PasidPages(domain, ..)
            | Self::FirstStage(domain, ..)
            | Self::SecondStage(domain, _) => Some(domain),
        }
    }

    /// What the history keeps of it: the domain.
    pub(super) const fn covered(self) -> u64 {
        match self.domain() {
            Some(domain) => domain as u64,
            None => EVERY_DOMAIN,
        }
    }

    /// The same where what is in the cache may be a part of a first-stage page of up to this size, a power of
    /// two. Of second-stage pages there are no parts.
    pub(super) const fn with_whole_pages(self, shift: u8) -> Self {
        match self {
            Self::FirstStage(domain, whose, span) => {
                Self::FirstStage(domain, whose, span.whole_pages(shift))
            }
            other => other,
        }
    }

    pub(super) fn covers(self, key: Key) -> bool {
        let tag = Tag(key.0);
        if self.domain().is_some_and(|domain| domain != tag.domain()) {
            return false;
        }
        match self {
            Self::Global | Self::Domain(_) => true,
            Self::DomainPages(_, pages) => match tag.stage() {
                Stage::Second => pages.touches(key),
                Stage::First | Stage::Nested => true,
            },
            Self::Pasid(_, pasid) => tag.stage() == Stage::Second || tag.pasid() == Some(pasid),
            Self::PasidPages(_, pasid, pages) => tag.pasid() == Some(pasid) && pages.touches(key),
            Self::FirstStage(_, whose, span) => {
                let its = match whose {
                    Whose::All => true,
                    Whose::Pasid(pasid) => tag.pasid() == Some(pasid),
                    Whose::PasidAndGlobal(pasid) => tag.pasid() == Some(pasid) || tag.is_global(),
                };
                tag.stage() != Stage::Second && its && span.touches(key)
            }
            Self::SecondStage(_, span) => tag.stage() == Stage::Second && span.touches(key),
        }
    }
}
