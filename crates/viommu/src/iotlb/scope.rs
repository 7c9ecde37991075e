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

    fn touches(self, key: Key) -> bool {
        let (page, shift) = page_of(key);
        let wider = self.size_shift.max(shift);
        Self {
            addr: Iova(page),
            size_shift: wider,
        }
        .first()
            == Self {
                addr: self.addr,
                size_shift: wider,
            }
            .first()
    }
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
}

impl Scope {
    const fn domain(self) -> Option<u16> {
        match self {
            Self::Global => None,
            Self::Domain(domain)
            | Self::DomainPages(domain, _)
            | Self::Pasid(domain, _)
            | Self::PasidPages(domain, ..) => Some(domain),
        }
    }

    /// What the history keeps of it: the domain.
    pub(super) const fn covered(self) -> u64 {
        match self.domain() {
            Some(domain) => domain as u64,
            None => EVERY_DOMAIN,
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
        }
    }
}
