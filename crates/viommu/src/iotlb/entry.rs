//! What the tables hold: sources, translations and hits, and their tags.

use super::{Habits, SMALLEST};
use iopf::{Access, Gpa, Iova, Pasid};

/// Which tables an address went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// First-stage tables only.
    First,
    /// Second-stage tables only, the legacy ones included.
    Second,
    /// First stage, then second.
    Nested,
}

/// An address space as the IOTLB knows it: a domain, a PASID where the first stage translates, and
/// the stages.
///
/// 40 bits: domain in 15:0, PASID in 35:16, "has a PASID" in 36, stages in 38:37, "global" in 39 with its
/// set in 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub(super) u64);

impl Tag {
    const PASID: u64 = 1 << 36;
    const GLOBAL: u64 = 1 << 39;
    const SET: u64 = 1 << 16;

    /// The tag of `domain`, `pasid` and `stage`.
    ///
    /// Second-stage entries are shared by every PASID of their domain, so theirs is dropped. With a
    /// first stage, pass the PASID that requests without one use (RID_PASID) for those.
    #[must_use]
    pub const fn new(domain: u16, pasid: Option<Pasid>, stage: Stage) -> Self {
        let pasid = match (pasid, stage) {
            (Some(pasid), Stage::First | Stage::Nested) => (pasid.get() as u64) << 16 | Self::PASID,
            _ => 0,
        };
        let stage = match stage {
            Stage::First => 0,
            Stage::Second => 1,
            Stage::Nested => 2,
        };
        Self(domain as u64 | pasid | stage << 37)
    }

    /// The tag of what every PASID of `domain` shares: one of two sets (Arm: those of the address spaces
    /// that are shared with processors, and those that are not).
    #[must_use]
    pub const fn global(domain: u16, set: bool, stage: Stage) -> Self {
        let set = if set { Self::SET } else { 0 };
        Self(Self::new(domain, None, stage).0 | Self::GLOBAL | set)
    }

    /// The domain.
    #[must_use]
    pub const fn domain(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The PASID, where the first stage translates.
    #[must_use]
    pub const fn pasid(self) -> Option<Pasid> {
        if self.0 & Self::PASID == 0 {
            return None;
        }
        Pasid::new((self.0 >> 16 & 0xf_ffff) as u32)
    }

    /// Whether every PASID of the domain shares it.
    #[must_use]
    pub const fn is_global(self) -> bool {
        self.0 & Self::GLOBAL != 0
    }

    /// The stages.
    #[must_use]
    pub const fn stage(self) -> Stage {
        match self.0 >> 37 & 3 {
            0 => Stage::First,
            1 => Stage::Second,
            _ => Stage::Nested,
        }
    }
}

/// What the context and PASID caches say of a requester and PASID, as far as a hit needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address space whose translations serve it.
    pub tag: Tag,
    /// What the configuration leaves of the rights of user-mode requests, of [`Access::READ`],
    /// [`Access::WRITE`] and [`Access::EXEC`].
    pub user: Access,
    /// What it leaves to privileged requests, of the same three.
    pub supervisor: Access,
    /// How requests are looked at.
    pub habits: Habits,
}

impl Source {
    /// As the cache holds it: rights in 5:0, tag in 45:6, habits in 63:56.
    pub(super) fn word(&self) -> u64 {
        let habits = u64::from(self.habits.bits()) << 56;
        habits | self.tag.0 << 6 | rights(self.user, self.supervisor)
    }

    /// From what [`Self::word`] says.
    pub(super) const fn of(word: u64) -> Self {
        let [.., habits] = word.to_le_bytes();
        Self {
            tag: Tag(word >> 6 & TAG),
            user: Access::from_bits_truncate((word & 7) as u8),
            supervisor: Access::from_bits_truncate((word >> 3 & 7) as u8),
            habits: Habits::from_bits_retain(habits),
        }
    }

    /// What its configuration leaves of a translation, for a request as it comes.
    #[must_use]
    pub fn leaves(&self, hit: Hit) -> Hit {
        Hit(self.habits.seen(hit).0 & (!RIGHTS | rights(self.user, self.supervisor)))
    }
}

/// The bits of a tag.
const TAG: u64 = (1 << 40) - 1;

/// A translation of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address of the page in the output space.
    pub page: Gpa,
    /// Size of the page as a power of two: 12–43.
    pub page_shift: u8,
    /// Rights of user-mode requests, of [`Access::READ`], [`Access::WRITE`], [`Access::EXEC`].
    pub user: Access,
    /// Rights of privileged requests, of the same three.
    pub supervisor: Access,
    /// Writes need nothing more: dirty bits are set already, or not kept. Accessed bits are always
    /// set before an entry gets here.
    pub dirty: bool,
}

/// The access rights that an entry keeps for each mode.
pub(super) const RWX: Access = Access::READ.union(Access::WRITE).union(Access::EXEC);

/// User rights in bits 2:0, supervisor rights in 5:3.
pub(super) fn rights(user: Access, supervisor: Access) -> u64 {
    u64::from(user.intersection(RWX).bits()) | u64::from(supervisor.intersection(RWX).bits()) << 3
}

const DIRTY: u64 = 1 << 6;
pub(super) const RIGHTS: u64 = 0x3f;

impl Mapping {
    /// The 4 KiB frame that `iova` falls into, as a hit.
    pub(super) fn frame(&self, iova: Iova) -> Hit {
        let mask = (1 << self.page_shift) - 1;
        let code = u64::from(self.page_shift - SMALLEST) & 31;
        let dirty = if self.dirty { DIRTY } else { 0 };
        Hit((self.page.0 & !mask | iova.0 & mask) & ADDRESS
            | rights(self.user, self.supervisor)
            | dirty
            | code << 7)
    }
}

/// What a request needs of an entry. Worked out from the request alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need(u64);

impl Need {
    /// Any entry will do.
    pub const NOTHING: Self = Self(0);

    /// The need of `access`.
    #[inline]
    #[must_use]
    pub const fn new(access: Access) -> Self {
        let rights = access.intersection(RWX).bits() as u64;
        let rights = if access.contains(Access::PRIV) {
            rights << 3
        } else {
            rights
        };
        let dirty = if access.contains(Access::WRITE) {
            DIRTY
        } else {
            0
        };
        Self(rights | dirty)
    }
}

/// A translation found: of the page around the address that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit(
    // 4 KiB frame in 51:12, size in 11:7 (4 KiB is 0), dirty in 6, supervisor and user rights in 5:3, 2:0.
    pub(super) u64,
);

impl Hit {
    /// Whether the entry alone serves `access`. Where it does not, the walk decides: it may find
    /// more rights, set a dirty bit, or fault.
    #[inline]
    #[must_use]
    pub const fn serves(self, access: Access) -> bool {
        self.meets(Need::new(access))
    }

    /// The same for a need that is worked out already.
    #[inline]
    #[must_use]
    pub const fn meets(self, need: Need) -> bool {
        need.0 & !self.0 == 0
    }

    /// Where `iova`, the address that was looked up, lies in the output space.
    #[inline]
    #[must_use]
    pub const fn output(self, iova: Iova) -> Gpa {
        Gpa(self.0 & ADDRESS | iova.0 & 0xfff)
    }

    /// Size of the page as a power of two.
    #[inline]
    #[must_use]
    pub const fn page_shift(self) -> u8 {
        SMALLEST + (self.0 >> 7 & 31) as u8
    }

    /// The translation of the whole page.
    #[must_use]
    pub const fn mapping(self) -> Mapping {
        Mapping {
            page: Gpa(self.0 & ADDRESS & !((1 << self.page_shift()) - 1)),
            page_shift: self.page_shift(),
            user: Access::from_bits_truncate((self.0 & 7) as u8),
            supervisor: Access::from_bits_truncate((self.0 >> 3 & 7) as u8),
            dirty: self.0 & DIRTY != 0,
        }
    }
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
