//! The IOTLB: a bounded cache of translations, read without a lock and without a shared write.
//!
//! Entries carry what the architectures tag theirs with: a domain, a PASID where the first stage is
//! involved, and the page at its own size (Intel VT-d, "IOTLB"). A requester is not part of the
//! tag: [`Sources`] says which tag a requester and PASID use, so two devices of one domain share
//! entries, and a guest that changes a context entry but forgets the IOTLB invalidation meets its
//! stale entry here as it would in hardware.
//!
//! # The order of things
//! A fill takes the [`Epoch`] first, then reads contexts and tables, then inserts. An invalidation
//! moves the epoch first, then removes. An insertion whose epoch is older than an invalidation that
//! covers it is refused, so no invalidation is lost however the two interleave. The memory-model
//! argument stands in `iotlb/table.rs`.

mod epoch;
mod sources;
mod table;

#[cfg(test)]
mod tests;

pub use epoch::Epoch;
pub use sources::{Source, Sources};

use epoch::History;
use iopf::{Access, Gpa, Iova, Pasid};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use table::{Key, Table};

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
/// 39 bits: domain in 15:0, PASID in 35:16, "has a PASID" in 36, stages in 38:37.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u64);

impl Tag {
    const PASID: u64 = 1 << 36;

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

    /// The stages.
    #[must_use]
    pub const fn stage(self) -> Stage {
        match self.0 >> 37 {
            0 => Stage::First,
            1 => Stage::Second,
            _ => Stage::Nested,
        }
    }
}

/// A cached translation of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address of the page in the output space.
    pub page: Gpa,
    /// Size of the page as a power of two: 12, 21 or 30.
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
const RWX: Access = Access::READ.union(Access::WRITE).union(Access::EXEC);

impl Mapping {
    /// Whether the entry alone serves `access`. Where it does not, the walk decides: it may find
    /// more rights, set a dirty bit, or fault.
    #[inline]
    #[must_use]
    pub fn serves(&self, access: Access) -> bool {
        let rights = if access.contains(Access::PRIV) {
            self.supervisor
        } else {
            self.user
        };
        rights.contains(access.intersection(RWX)) && (self.dirty || !access.contains(Access::WRITE))
    }

    /// Where `iova`, an address in the page, lies in the output space.
    #[inline]
    #[must_use]
    pub const fn output(&self, iova: Iova) -> Gpa {
        Gpa(self.page.0 | iova.0 & ((1 << self.page_shift) - 1))
    }

    // Address in 51:12, then dirty, supervisor and user rights of three bits each from bit 0 on.
    // The page size is in the key.
    fn pack(&self) -> u64 {
        self.page.0 & ADDRESS
            | u64::from(self.user.intersection(RWX).bits())
            | u64::from(self.supervisor.intersection(RWX).bits()) << 3
            | u64::from(self.dirty) << 6
    }

    fn unpack(word: u64, page_shift: u8) -> Self {
        let rights = |bits: u64| Access::from_bits_truncate((bits & 7) as u8);
        Self {
            page: Gpa(word & ADDRESS),
            page_shift,
            user: rights(word),
            supervisor: rights(word >> 3),
            dirty: word >> 6 & 1 != 0,
        }
    }
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page sizes that are cached, with the code each has in a key. Any other is not cached.
const SIZES: [(u64, u8); 3] = [(0, 12), (1, 21), (2, 30)];

/// A naturally aligned range of input addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// An address in the range; the bits below its size do not matter.
    pub addr: Iova,
    /// Size in bytes as a power of two; 64 and more is every address.
    pub size_shift: u8,
}

impl Pages {
    fn first(self) -> u64 {
        let mask = u64::MAX.checked_shl(u32::from(self.size_shift));
        self.addr.0 & mask.unwrap_or(0)
    }

    fn touches(self, key: Key) -> bool {
        let (page, shift) = unkey(key);
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

/// What an invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every entry.
    Global,
    /// Every entry of a domain.
    Domain(u16),
    /// Entries of a domain by second-stage input address: its second-stage entries in the range,
    /// and all its nested entries, whose second-stage input is not known any more.
    DomainPages(u16, Pages),
    /// Entries of a PASID in a domain, through the first stage.
    Pasid(u16, Pasid),
    /// Those of them in a range.
    PasidPages(u16, Pasid, Pages),
}

impl Scope {
    const EVERY_DOMAIN: u64 = 1 << 16;

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
    const fn covered(self) -> u64 {
        match self.domain() {
            Some(domain) => domain as u64,
            None => Self::EVERY_DOMAIN,
        }
    }

    fn covers(self, key: Key) -> bool {
        let tag = Tag(key.0);
        if self.domain().is_some_and(|domain| domain != tag.domain()) {
            return false;
        }
        match self {
            Self::Global | Self::Domain(_) => true,
            Self::DomainPages(_, pages) => match tag.stage() {
                Stage::First => false,
                Stage::Second => pages.touches(key),
                Stage::Nested => true,
            },
            Self::Pasid(_, pasid) => tag.pasid() == Some(pasid),
            Self::PasidPages(_, pasid, pages) => tag.pasid() == Some(pasid) && pages.touches(key),
        }
    }
}

/// The cache.
///
/// Any number of threads look up, fill and invalidate at once. A look-up neither waits nor writes.
#[derive(Debug)]
pub struct Iotlb {
    table: Table,
    // Bits 2:0: page sizes that were ever inserted; bits 6:4: stages. Grows, and is read-mostly.
    present: AtomicU64,
    history: History,
}

impl Iotlb {
    /// A cache for at least `entries` translations (24 to 128 bytes each; at most some five million).
    #[must_use]
    pub fn new(entries: usize) -> Self {
        Self {
            table: Table::new(entries),
            present: AtomicU64::new(0),
            history: History::new(),
        }
    }

    /// The page around `iova` in the address space of `tag`.
    ///
    /// A page size costs a probe only once a page of that size was cached; small pages come first.
    #[inline]
    #[must_use]
    pub fn lookup(&self, tag: Tag, iova: Iova) -> Option<Mapping> {
        let present = self.present.load(Relaxed);
        for (code, shift) in SIZES {
            if present >> code & 1 != 0
                && let Some(word) = self.table.get(key(tag, iova, code, shift))
            {
                return Some(Mapping::unpack(word, shift));
            }
        }
        None
    }

    /// The point in history to hand to [`Self::insert`]. Take it before the contexts and tables that
    /// a walk depends on are read.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.history.now()
    }

    /// Caches `mapping` for the page around `iova`, unless an invalidation of its domain came after
    /// `epoch`, another writer is in the way, or the page size is none that is cached. Says whether
    /// it did; either way the caller may use the translation within the session that made it.
    pub fn insert(&self, epoch: Epoch, tag: Tag, iova: Iova, mapping: &Mapping) -> bool {
        let size = SIZES.iter().find(|(_, shift)| *shift == mapping.page_shift);
        let Some(&(code, shift)) = size else {
            return false;
        };
        let bits = 1 << code | 1 << 4 << (tag.0 >> 37);
        // Before the epoch is compared: an invalidation either sees the bits or refuses the entry.
        if self.present.load(SeqCst) & bits != bits {
            self.present.fetch_or(bits, SeqCst);
        }
        let domain = u64::from(tag.domain());
        let covers = |covered| covered == domain || covered == Scope::EVERY_DOMAIN;
        self.table
            .insert(key(tag, iova, code, shift), mapping.pack(), || {
                self.history.unchanged(epoch, covers)
            })
    }

    /// Forgets what `scope` covers. On return no look-up that starts finds any of it, and no fill
    /// whose epoch was taken earlier brings it back.
    ///
    /// A page-selective scope costs a few probes a page; past that, and for every other scope, each
    /// set of the table is looked at once.
    pub fn invalidate(&self, scope: Scope) {
        let _open = self.history.open(scope.covered());
        let present = self.present.load(SeqCst);
        let nested = present >> 4 & 1 << 2 != 0;
        match scope {
            Scope::DomainPages(domain, pages) if !nested => {
                self.remove_pages(
                    scope,
                    &[Tag::new(domain, None, Stage::Second)],
                    pages,
                    present,
                );
            }
            Scope::PasidPages(domain, pasid, pages) => {
                let tags =
                    [Stage::First, Stage::Nested].map(|stage| Tag::new(domain, Some(pasid), stage));
                let tags = if nested { &tags[..] } else { &tags[..1] };
                self.remove_pages(scope, tags, pages, present);
            }
            _ => self.table.remove_if(|key| scope.covers(key)),
        }
    }

    fn remove_pages(&self, scope: Scope, tags: &[Tag], pages: Pages, present: u64) {
        let sizes = SIZES.iter().filter(|(code, _)| present >> code & 1 != 0);
        // Pages of one size in the range, as a power of two.
        let order = |shift: u8| u32::from(pages.size_shift.saturating_sub(shift));
        let probes = sizes
            .clone()
            .map(|(_, shift)| 1u64.checked_shl(order(*shift)).unwrap_or(u64::MAX))
            .fold(0, u64::saturating_add);
        // A probe is some four times the work of looking at the next set.
        if probes.saturating_mul(4 * tags.len() as u64) > self.table.sets() as u64 {
            return self.table.remove_if(|key| scope.covers(key));
        }
        for &(code, shift) in sizes {
            for page in 0..1u64 << order(shift) {
                let at = Iova(pages.first().wrapping_add(page << shift));
                for &tag in tags {
                    self.table.remove(key(tag, at, code, shift));
                }
            }
        }
    }
}

fn key(tag: Tag, iova: Iova, code: u64, shift: u8) -> Key {
    Key(tag.0, iova.0 >> shift << 2 | code)
}

/// First address and size of the page that a key names.
fn unkey(key: Key) -> (u64, u8) {
    let shift = SIZES
        .iter()
        .find(|(code, _)| *code == key.1 & 3)
        .map_or(0, |(_, shift)| *shift);
    ((key.1 >> 2) << shift, shift)
}
