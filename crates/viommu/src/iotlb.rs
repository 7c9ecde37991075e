//! The IOTLB: a bounded cache of translations, read without a lock and without a shared write.
//!
//! Translations carry what the architectures tag theirs with: a domain, a PASID where the first
//! stage is involved, and the page at its own size (Intel VT-d, "IOTLB"). The requester is not part
//! of the tag: a [`Source`] says which tag a requester and PASID use, so two devices of one domain
//! share translations, and a guest that changes a context entry but forgets the IOTLB invalidation
//! meets its stale translation here as it would in hardware.
//!
//! Three bounded tables:
//! - *translations*, by tag and page: the architectural IOTLB;
//! - *sources*, by requester and PASID: the quick side of the model's context and PASID caches;
//! - *hits*, by requester, PASID and 4 KiB page: the join of the two, so that a hit is one hash and
//!   one cache line, whatever the page's size. It is stamped with the count of invalidations, so
//!   any invalidation empties it, and it fills again from the other two.
//!
//! # The order of things
//! A fill takes the [`Epoch`] first, then reads contexts and tables, then inserts. An invalidation
//! moves the epoch first, then removes. The locking of a set (a fill's first step, a removal's
//! last) and the epoch (a fill's last, a removal's first) are sequentially consistent, so at least
//! one of a fill and an invalidation that meet sees the other: the fill is refused if the
//! invalidation covers its domain, or the removal finds what it inserted. No invalidation is lost.
//! A hit is inserted only if no invalidation was under way from before its look-up of source and
//! translation until after the insertion locked its set.

mod epoch;
mod table;

#[cfg(test)]
mod tests;

pub use epoch::Epoch;

use epoch::History;
use iopf::{Access, Gpa, Iova, Pasid, Rid};
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
}

/// A translation of one page.
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

/// User rights in bits 2:0, supervisor rights in 5:3.
fn rights(user: Access, supervisor: Access) -> u64 {
    u64::from(user.intersection(RWX).bits()) | u64::from(supervisor.intersection(RWX).bits()) << 3
}

const DIRTY: u64 = 1 << 6;
const RIGHTS: u64 = 0x3f;

impl Mapping {
    /// The 4 KiB frame that `iova` falls into, as a hit.
    fn frame(&self, iova: Iova) -> Hit {
        let mask = (1 << self.page_shift) - 1;
        let code = match self.page_shift {
            12 => 0,
            21 => 1,
            _ => 2,
        };
        let dirty = if self.dirty { DIRTY } else { 0 };
        Hit((self.page.0 & !mask | iova.0 & mask) & ADDRESS
            | rights(self.user, self.supervisor)
            | dirty
            | code << 7)
    }
}

/// A translation found: of the page around the address that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit(
    // 4 KiB frame in 51:12, size code in 8:7, dirty in 6, supervisor and user rights in 5:3, 2:0.
    u64,
);

impl Hit {
    /// Whether the entry alone serves `access`. Where it does not, the walk decides: it may find
    /// more rights, set a dirty bit, or fault.
    #[inline]
    #[must_use]
    pub const fn serves(self, access: Access) -> bool {
        let rights = if access.contains(Access::PRIV) {
            self.0 >> 3
        } else {
            self.0
        };
        let wanted = access.intersection(RWX).bits() as u64;
        wanted & !rights == 0 && (!access.contains(Access::WRITE) || self.0 & DIRTY != 0)
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
        match self.0 >> 7 & 3 {
            0 => 12,
            1 => 21,
            _ => 30,
        }
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
const EVERY_DOMAIN: u64 = 1 << 16;
const SOURCES: u64 = 1 << 17;

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
            None => EVERY_DOMAIN,
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
/// Any number of threads look up, fill and invalidate at once.
#[derive(Debug)]
pub struct Iotlb {
    hits: Table,
    translations: Table,
    sources: Table,
    // Bits 2:0: page sizes that were ever inserted; bits 6:4: stages. Grows, and is read-mostly.
    present: AtomicU64,
    history: History,
}

impl Iotlb {
    /// A cache for at least `entries` translations and a quarter as many requesters and PASIDs.
    /// Takes 60 to 120 bytes an entry.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        Self {
            hits: Table::new(entries),
            translations: Table::new(entries),
            sources: Table::new(entries / 4),
            present: AtomicU64::new(0),
            history: History::new(),
        }
    }

    /// The page around `iova`, as requests of `requester` and `pasid` see it, if both their source
    /// and the translation are cached.
    ///
    /// Waits for nothing. Writes nothing either, but for the first time after an invalidation that a
    /// page is found.
    #[inline]
    #[must_use]
    pub fn lookup(&self, requester: Rid, pasid: Option<Pasid>, iova: Iova) -> Option<Hit> {
        let now = self.history.now();
        let (at, key) = hit_key(now, source_key(requester, pasid), iova);
        match self.hits.get(at, key) {
            Some(word) => Some(Hit(word)),
            None => self.join(now, requester, pasid, iova),
        }
    }

    #[inline(never)]
    fn join(&self, now: Epoch, requester: Rid, pasid: Option<Pasid>, iova: Iova) -> Option<Hit> {
        let of = source_key(requester, pasid);
        let word = self.sources.get(of.hash(), of)?;
        let translation = self.lookup_tag(Tag(word >> 6), iova)?;
        let hit = Hit(translation.0 & (!RIGHTS | word));
        if now.count() & 1 == 0 {
            let (at, key) = hit_key(now, of, iova);
            self.hits
                .insert(at, key, hit.0, || self.history.now() == now);
        }
        Some(hit)
    }

    /// The page around `iova` in the address space of `tag`.
    #[must_use]
    pub fn lookup_tag(&self, tag: Tag, iova: Iova) -> Option<Hit> {
        let present = self.present.load(Relaxed);
        SIZES.iter().find_map(|&(code, shift)| {
            // A page size costs a probe only once a page of that size was cached.
            if present >> code & 1 == 0 {
                return None;
            }
            let key = page_key(tag, iova, code, shift);
            let word = self.translations.get(key.hash(), key)?;
            Some(Hit(word).mapping().frame(iova))
        })
    }

    /// The point in history to hand to the insertions. Take it before the contexts and tables that
    /// they depend on are read, from wherever they are read, caches included.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.history.now()
    }

    /// Caches what the contexts say of `requester` and `pasid`, unless sources were cleared after
    /// `epoch` or another writer is in the way. Says whether it did.
    pub fn insert_source(
        &self,
        epoch: Epoch,
        requester: Rid,
        pasid: Option<Pasid>,
        source: &Source,
    ) -> bool {
        let key = source_key(requester, pasid);
        let word = source.tag.0 << 6 | rights(source.user, source.supervisor);
        self.sources.insert(key.hash(), key, word, || {
            self.history.unchanged(epoch, |covered| covered == SOURCES)
        })
    }

    /// Forgets every source. The model calls this whenever an entry leaves its context or PASID
    /// cache; what is still there comes back by [`Self::insert_source`]. Translations stay.
    pub fn clear_sources(&self) {
        let open = self.history.open(SOURCES);
        self.retire_stamps(open.before);
        self.sources.remove_if(|_| true);
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
        let covers = |covered| covered == domain || covered == EVERY_DOMAIN;
        let key = page_key(tag, iova, code, shift);
        // Of the page as a whole, wherever in it the address lies.
        let word = mapping.frame(Iova(0)).0;
        self.translations.insert(key.hash(), key, word, || {
            self.history.unchanged(epoch, covers)
        })
    }

    /// Forgets the translations that `scope` covers. On return no look-up that starts finds any of
    /// them, and no fill whose epoch was taken earlier brings one back.
    ///
    /// A page-selective scope costs a few probes a page; past that, and for every other scope, each
    /// set of the table is looked at once.
    pub fn invalidate(&self, scope: Scope) {
        let open = self.history.open(scope.covered());
        self.retire_stamps(open.before);
        let present = self.present.load(SeqCst);
        let nested = present >> 4 & 1 << 2 != 0;
        match scope {
            Scope::DomainPages(domain, pages) if !nested => {
                let tags = [Tag::new(domain, None, Stage::Second)];
                self.remove_pages(scope, &tags, pages, present);
            }
            Scope::PasidPages(domain, pasid, pages) => {
                let tags =
                    [Stage::First, Stage::Nested].map(|stage| Tag::new(domain, Some(pasid), stage));
                let tags = if nested { &tags[..] } else { &tags[..1] };
                self.remove_pages(scope, tags, pages, present);
            }
            _ => self.translations.remove_if(|key| scope.covers(key)),
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
        if probes.saturating_mul(4 * tags.len() as u64) > self.translations.sets() as u64 {
            return self.translations.remove_if(|key| scope.covers(key));
        }
        for &(code, shift) in sizes {
            for page in 0..1u64 << order(shift) {
                let at = Iova(pages.first().wrapping_add(page << shift));
                for &tag in tags {
                    let key = page_key(tag, at, code, shift);
                    self.translations.remove(key.hash(), key);
                }
            }
        }
    }

    /// Stamps of hits come round: before one does, hits that bear an old one must be gone.
    fn retire_stamps(&self, count: u64) {
        if count.is_multiple_of(1 << (STAMP_BITS - 1)) {
            self.hits.remove_if(|_| true);
        }
    }
}

/// Bits of the count of invalidations that a hit is stamped with.
const STAMP_BITS: u32 = 64 - STAMP_SHIFT;
const STAMP_SHIFT: u32 = 37;

/// PASID in 19:0, "has a PASID" in 20, requester in 36:21.
#[inline]
fn source_key(requester: Rid, pasid: Option<Pasid>) -> Key {
    let pasid = pasid.map_or(0, |pasid| 1 << 20 | u64::from(pasid.get()));
    Key(pasid | u64::from(requester.0) << 21, 0)
}

/// The key of a hit, and where it hashes to. The stamp stays out of the hash, which need not wait
/// for it.
#[inline]
fn hit_key(now: Epoch, source: Key, iova: Iova) -> (u64, Key) {
    let plain = Key(source.0, iova.0 >> 12);
    let stamped = Key(plain.0 | now.count() << STAMP_SHIFT, plain.1);
    (plain.hash(), stamped)
}

fn page_key(tag: Tag, iova: Iova, code: u64, shift: u8) -> Key {
    Key(tag.0, iova.0 >> shift << 2 | code)
}

/// First address and size of the page that a key of a translation names.
fn page_of(key: Key) -> (u64, u8) {
    let shift = SIZES
        .iter()
        .find(|(code, _)| *code == key.1 & 3)
        .map_or(0, |(_, shift)| *shift);
    ((key.1 >> 2) << shift, shift)
}
