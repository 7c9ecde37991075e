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
//!
//! A hit bears the count that was read before its source and translation were looked up. The count
//! changes at the start of an invalidation and again at its end, so a hit joined before or during
//! one is not found after it.

mod entry;
mod epoch;
mod habits;
mod scope;
mod table;

#[cfg(test)]
mod tests;

pub use entry::{Hit, Mapping, Need, Source, Stage, Tag};
pub use epoch::Epoch;
pub use habits::Habits;
pub use scope::{Pages, Scope, Span, Whose};

use epoch::History;
use iopf::{Iova, Pasid, Rid};
use scope::{EVERY_DOMAIN, SOURCES};
use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use table::{Key, Set, Table};

/// Pages larger than 2 to the power of this are not cached: in a key and in an entry, a size takes five
/// bits.
const LARGEST: u8 = SMALLEST + 31;
/// The size of the smallest page, as a power of two.
const SMALLEST: u8 = 12;

/// The page sizes of a set of them, as powers of two.
fn shifts(mut sizes: u32) -> impl Iterator<Item = u8> + Clone {
    std::iter::from_fn(move || {
        let lowest = sizes.trailing_zeros();
        sizes &= sizes.wrapping_sub(1);
        // At most 32: none.
        u8::try_from(lowest).ok().filter(|lowest| *lowest < 32)
    })
    .map(|code| SMALLEST + code)
}

/// The cache.
///
/// Any number of threads look up, fill and invalidate at once.
#[derive(Debug)]
pub struct Iotlb {
    hits: Table,
    translations: Table,
    sources: Table,
    // Page sizes that were ever inserted, 4 KiB in bit 0. Grows, and is read-mostly.
    sizes: AtomicU32,
    // The largest page, as a power of two, of which parts were ever inserted; 0: none. Grows.
    cut: AtomicU8,
    // Domains that ever had a first-stage or nested entry, 64 classes of them.
    first_stage_domains: AtomicU64,
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
            sizes: AtomicU32::new(0),
            cut: AtomicU8::new(0),
            first_stage_domains: AtomicU64::new(0),
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
        self.aim(requester, pasid, iova).look()
    }

    /// What of [`Self::lookup`] depends on the request alone: do it before the session is opened,
    /// whose fence holds up all that comes after.
    #[inline(always)]
    #[must_use]
    pub fn aim(&self, requester: Rid, pasid: Option<Pasid>, iova: Iova) -> Aim<'_> {
        let of = source_key(requester, pasid);
        let key = Key(of.0, iova.0 >> 12);
        Aim {
            iotlb: self,
            set: self.hits.set(key.hash()),
            of,
            iova,
        }
    }

    #[inline(never)]
    fn join(&self, now: Epoch, of: Key, iova: Iova) -> Option<Hit> {
        let source = Source::of(self.sources.get(of.hash(), of)?);
        let hit = source.leaves(self.lookup_source(&source, iova)?);
        let key = Key(of.0, iova.0 >> 12);
        self.hits.insert(key.hash(), stamped(now, key), hit.0, || {
            self.history.now() == now
        });
        Some(hit)
    }

    /// The page around `iova` as `source` finds it, before its rights are weighed.
    #[must_use]
    pub fn lookup_source(&self, source: &Source, iova: Iova) -> Option<Hit> {
        let place = source.habits.place(iova);
        self.lookup_tag(source.tag, place)
            .or_else(|| self.lookup_tag(source.global()?, place))
    }

    /// The page around `iova` in the address space of `tag`.
    #[must_use]
    pub fn lookup_tag(&self, tag: Tag, iova: Iova) -> Option<Hit> {
        // A page size costs a probe only once a page of that size was cached.
        shifts(self.sizes.load(Relaxed)).find_map(|shift| {
            let key = page_key(tag, iova, shift);
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

    /// Whether `source` is what [`Self::insert_source`] cached last for `requester` and `pasid`.
    #[inline]
    pub fn knows(&self, requester: Rid, pasid: Option<Pasid>, source: &Source) -> bool {
        let key = source_key(requester, pasid);
        self.sources.get(key.hash(), key) == Some(source.word())
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
        self.sources.insert(key.hash(), key, source.word(), || {
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
    /// `epoch`, another writer is in the way, the page size is none that is cached, or the page lies
    /// beyond 52 bits, where no entry of a table can point. Says whether it did; either way the caller
    /// may use the translation within the session that made it.
    pub fn insert(&self, epoch: Epoch, tag: Tag, iova: Iova, mapping: &Mapping) -> bool {
        let shift = mapping.page_shift;
        if !(SMALLEST..=LARGEST).contains(&shift) || mapping.page.0 >> 52 != 0 {
            return false;
        }
        // Before the epoch is compared: an invalidation either sees the bits or refuses the entry.
        let size = 1 << (shift - SMALLEST);
        if self.sizes.load(SeqCst) & size == 0 {
            self.sizes.fetch_or(size, SeqCst);
        }
        if tag.stage() != Stage::Second {
            note(&self.first_stage_domains, class(tag.domain()));
        }
        let domain = u64::from(tag.domain());
        let covers = |covered| covered == domain || covered == EVERY_DOMAIN;
        let key = page_key(tag, iova, shift);
        // Of the page as a whole, wherever in it the address lies.
        let word = mapping.frame(Iova(0)).0;
        self.translations.insert(key.hash(), key, word, || {
            self.history.unchanged(epoch, covers)
        })
    }

    /// Takes note that a page is about to be inserted that is a part of a first-stage page of this size, a
    /// power of two: an invalidation of one address of that is one of all its parts.
    #[cold]
    pub fn cut(&self, shift: u8) {
        // As for the sizes in `insert`.
        if self.cut.load(SeqCst) < shift {
            self.cut.fetch_max(shift, SeqCst);
        }
    }

    /// Forgets the translations that `scope` covers. On return no look-up that starts finds any of
    /// them, and no fill whose epoch was taken earlier brings one back.
    ///
    /// A page-selective scope costs a few probes a page; past that, and for every other scope, each
    /// set of the table is looked at once.
    pub fn invalidate(&self, scope: Scope) {
        let open = self.history.open(scope.covered());
        self.retire_stamps(open.before);
        let scope = scope.with_whole_pages(self.cut.load(SeqCst));
        let first_stage = self.first_stage_domains.load(SeqCst);
        let involved = [Stage::First, Stage::Nested];
        match scope {
            Scope::DomainPages(domain, pages) if first_stage & class(domain) == 0 => {
                let tags = [Tag::new(domain, None, Stage::Second)];
                self.remove_pages(scope, &tags, pages.span());
            }
            Scope::PasidPages(domain, pasid, pages) => {
                let tags = involved.map(|stage| Tag::new(domain, Some(pasid), stage));
                self.remove_pages(scope, &tags, pages.span());
            }
            Scope::FirstStage(domain, Whose::Pasid(pasid), span) => {
                let tags = involved.map(|stage| Tag::new(domain, Some(pasid), stage));
                self.remove_pages(scope, &tags, span);
            }
            Scope::FirstStage(domain, Whose::PasidAndGlobal(pasid), span) => {
                let [[a, b, c], [d, e, f]] = involved.map(|stage| {
                    [
                        Tag::new(domain, Some(pasid), stage),
                        Tag::global(domain, false, stage),
                        Tag::global(domain, true, stage),
                    ]
                });
                self.remove_pages(scope, &[a, b, c, d, e, f], span);
            }
            Scope::SecondStage(domain, span) => {
                let tags = [Tag::new(domain, None, Stage::Second)];
                self.remove_pages(scope, &tags, span);
            }
            _ => self.translations.remove_if(|key| scope.covers(key)),
        }
    }

    fn remove_pages(&self, scope: Scope, tags: &[Tag], span: Span) {
        let sizes = shifts(self.sizes.load(SeqCst));
        let probes = sizes
            .clone()
            .map(|shift| span.pages(shift))
            .fold(0, u64::saturating_add);
        // A probe is some four times the work of looking at the next set.
        if probes.saturating_mul(4 * tags.len() as u64) > self.translations.sets() as u64 {
            return self.translations.remove_if(|key| scope.covers(key));
        }
        for shift in sizes {
            for page in 0..span.pages(shift) {
                let at = Iova(span.first.wrapping_add(page << shift));
                for &tag in tags {
                    let key = page_key(tag, at, shift);
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

/// Where a page will be looked for; see [`Iotlb::aim`].
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    iotlb: &'a Iotlb,
    set: Option<&'a Set>,
    of: Key,
    iova: Iova,
}

impl Aim<'_> {
    /// Looks the page up, as [`Iotlb::lookup`] does.
    #[inline]
    #[must_use]
    pub fn look(&self) -> Option<Hit> {
        self.look_for(Need::NOTHING)
    }

    /// Looks the page up for a request that needs `need`. `None`: only a walk can serve it.
    ///
    /// A hit that lacks something is joined again, for a walk may have brought more since: a dirty
    /// bit, or a right that the guest added, for which it need not invalidate anything.
    #[inline(always)]
    #[must_use]
    pub fn look_for(&self, need: Need) -> Option<Hit> {
        let now = self.iotlb.history.now();
        let key = stamped(now, Key(self.of.0, self.iova.0 >> 12));
        if let Some(word) = self.set.and_then(|set| set.get(key))
            && Hit(word).meets(need)
        {
            return Some(Hit(word));
        }
        let hit = self.iotlb.join(now, self.of, self.iova)?;
        hit.meets(need).then_some(hit)
    }
}

/// Sets bits that are mostly set.
fn note(word: &AtomicU64, bits: u64) {
    if word.load(SeqCst) & bits != bits {
        word.fetch_or(bits, SeqCst);
    }
}

const fn class(domain: u16) -> u64 {
    1 << (domain % 64)
}

/// Bits of the count of invalidations that a hit is stamped with.
///
/// Few, since a requester ID takes 32 bits; once in 512 invalidations every hit is looked at.
const STAMP_BITS: u32 = 64 - STAMP_SHIFT;
const STAMP_SHIFT: u32 = 53;

/// PASID in 19:0, "has a PASID" in 20, requester in 52:21.
#[inline]
fn source_key(requester: Rid, pasid: Option<Pasid>) -> Key {
    let pasid = pasid.map_or(0, |pasid| 1 << 20 | u64::from(pasid.get()));
    Key(pasid | u64::from(requester.0) << 21, 0)
}

/// The key of a hit that was joined at `now`. The stamp stays out of the hash, which need not wait
/// for it.
#[inline]
const fn stamped(now: Epoch, key: Key) -> Key {
    Key(key.0 | now.count() << STAMP_SHIFT, key.1)
}

fn page_key(tag: Tag, iova: Iova, shift: u8) -> Key {
    Key(tag.0, iova.0 >> shift << 5 | u64::from(shift - SMALLEST))
}

/// First address and size of the page that a key of a translation names.
fn page_of(key: Key) -> (u64, u8) {
    let [low, ..] = key.1.to_le_bytes();
    let shift = SMALLEST + (low & 31);
    (key.1 >> 5 << shift, shift)
}
