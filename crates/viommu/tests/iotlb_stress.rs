//! The promise of an invalidation, under threads that do their best to break it: once the wait has
//! ended, nobody uses what was withdrawn, neither from the caches nor from a walk that began before.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use iopf::{Access, Gpa, Iova, Pasid, Rid};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use viommu::iotlb::{Habits, Iotlb, Mapping, Pages, Scope, Source, Stage, Tag};
use viommu::session::Sessions;

const NIC: Rid = Rid(0x0300);
const PAGES: usize = 8;
const DOMAINS: usize = 4;

/// The time a test may take; enough for some hundred thousand invalidations.
const BUDGET: Duration = Duration::from_millis(if cfg!(miri) { 200 } else { 1200 });

static ALONE: Mutex<()> = Mutex::new(());

/// A guest's "tables": which domain the device is in, and what each page of each domain maps to.
/// Mapping and domain only ever count up, so "older than" is a comparison.
#[derive(Default)]
struct Guest {
    context: AtomicU64,
    tables: [[AtomicU64; PAGES]; DOMAINS],
    // What the guest may rely on: nothing below these is in use any more.
    settled_context: AtomicU64,
    settled: [[AtomicU64; PAGES]; DOMAINS],
}

/// What a translation leads to, spelled out in the address: context, page, version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    context: u64,
    page: usize,
    version: u64,
}

impl Frame {
    fn address(self) -> Gpa {
        Gpa((self.context % DOMAINS as u64) << 48 | (self.page as u64) << 44 | self.version << 12)
    }
}

struct Rig {
    guest: Guest,
    tlb: Iotlb,
    sessions: Sessions,
    stop: AtomicBool,
}

impl Rig {
    fn new(entries: usize) -> Self {
        Self {
            guest: Guest::default(),
            tlb: Iotlb::new(entries),
            sessions: Sessions::new(),
            stop: AtomicBool::new(false),
        }
    }

    fn tag(context: u64) -> Tag {
        let domain = u16::try_from(context % DOMAINS as u64).unwrap();
        Tag::new(domain, Pasid::new(7), Stage::First)
    }

    /// One access of a device, as a model makes it.
    fn access(&self, page: usize) {
        let iova = Iova((page as u64) << 12);
        let settled_context = self.guest.settled_context.load(SeqCst);
        let before: Vec<u64> = (0..DOMAINS)
            .map(|domain| self.guest.settled[domain][page].load(SeqCst))
            .collect();
        self.sessions.run(|_| {
            let (pa, seen_context) = match self.tlb.lookup(NIC, None, iova) {
                Some(hit) => {
                    assert!(hit.serves(Access::RW));
                    (hit.output(iova), None)
                }
                None => {
                    let epoch = self.tlb.epoch();
                    let context = self.guest.context.load(SeqCst);
                    let domain = usize::try_from(context).unwrap() % DOMAINS;
                    let version = self.guest.tables[domain][page].load(SeqCst);
                    let frame = Frame {
                        context,
                        page,
                        version,
                    };
                    let source = Source {
                        tag: Self::tag(context),
                        user: Access::RW,
                        supervisor: Access::empty(),
                        habits: Habits::empty(),
                    };
                    let mapping = Mapping {
                        page: frame.address(),
                        page_shift: 12,
                        user: Access::RW,
                        supervisor: Access::RW,
                        dirty: true,
                    };
                    // A walk takes its time, and invalidations happen meanwhile.
                    for _ in 0..version % 512 {
                        std::hint::spin_loop();
                    }
                    self.tlb.insert_source(epoch, NIC, None, &source);
                    self.tlb.insert(epoch, source.tag, iova, &mapping);
                    (frame.address(), Some(context))
                }
            };
            let domain = usize::try_from(pa.0 >> 48).unwrap();
            let version = pa.0 >> 12 & 0xffff_ffff;
            assert_eq!(pa.0 >> 44 & 0xf, page as u64, "the page's own frame");
            // A translation from before the session began is never met.
            assert!(version >= before[domain], "stale: {version} < {before:?}");
            if let Some(context) = seen_context {
                assert!(context >= settled_context);
            }
            for _ in 0..version % 64 {
                std::hint::spin_loop();
            }
            // Nor does the invalidation that withdraws the translation end while it is in use.
            let now = self.guest.settled[domain][page].load(SeqCst);
            assert!(version >= now, "in use after the wait: {version} < {now}");
            // The device left a domain for good only when nobody used it through the old context.
            let context = self.guest.settled_context.load(SeqCst);
            let lag = (context + DOMAINS as u64 - domain as u64) % DOMAINS as u64;
            assert!(
                lag == 0 || lag == DOMAINS as u64 - 1,
                "domain {domain} in use in context {context}"
            );
        });
    }

    /// A change of one page of the current domain, and its invalidation.
    fn remap(&self, turn: u64, page: usize) {
        let context = self.guest.context.load(SeqCst);
        let domain = usize::try_from(context).unwrap() % DOMAINS;
        let version = self.guest.tables[domain][page].fetch_add(1, SeqCst) + 1;
        let (id, pasid) = (u16::try_from(domain).unwrap(), Pasid::truncate(7));
        let pages = Pages {
            addr: Iova((page as u64) << 12),
            size_shift: 12,
        };
        self.tlb.invalidate(match turn % 5 {
            0 => Scope::Global,
            1 => Scope::Domain(id),
            2 => Scope::Pasid(id, pasid),
            _ => Scope::PasidPages(id, pasid, pages),
        });
        self.sessions.quiesce().unwrap();
        self.guest.settled[domain][page].store(version, SeqCst);
    }

    /// A move of the device to the next domain, and its invalidation.
    fn switch(&self) {
        let context = self.guest.context.fetch_add(1, SeqCst) + 1;
        self.tlb.clear_sources();
        self.sessions.quiesce().unwrap();
        self.guest.settled_context.store(context, SeqCst);
    }

    /// Runs as many readers as there are processors to spare, and `more`.
    fn run(&self, more: usize, mut change: impl FnMut(u64)) -> u64 {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        let readers = processors.clamp(2, 5) - 1 + more;
        // The tests of this file would take each other's processors.
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turns = 0;
        thread::scope(|scope| {
            for reader in 0..readers {
                scope.spawn(move || {
                    let _stop = StopOnPanic(&self.stop);
                    let mut n = reader;
                    while !self.stop.load(SeqCst) {
                        n = n.wrapping_mul(5).wrapping_add(1);
                        self.access(n >> 3 & (PAGES - 1));
                    }
                });
            }
            let _stop = StopOnPanic(&self.stop);
            let until = Instant::now() + BUDGET;
            while Instant::now() < until && !self.stop.load(SeqCst) {
                change(turns);
                turns += 1;
            }
        });
        turns
    }
}

/// A thread that fails ends the test instead of hanging it.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn no_access_uses_a_page_after_the_wait_for_its_invalidation() {
    let rig = Rig::new(64);
    let turns = rig.run(0, |turn| {
        let page = usize::try_from(turn).unwrap() % PAGES;
        rig.remap(turn, page);
    });
    assert!(turns > 10, "{turns}");
}

#[test]
fn no_access_uses_an_old_domain_after_the_wait_for_the_context_invalidation() {
    let rig = Rig::new(64);
    let turns = rig.run(0, |turn| {
        if turn % 3 == 0 {
            rig.switch();
        }
        rig.remap(turn, usize::try_from(turn / 7).unwrap() % PAGES);
    });
    assert!(turns > 10, "{turns}");
}

#[test]
fn a_cache_under_pressure_keeps_the_promise_too() {
    // Ten entries for the 32 pages: replacement and invalidation meet in the same sets.
    let rig = Rig::new(2);
    rig.run(1, |turn| {
        if turn % 50 == 0 {
            rig.switch();
        }
        rig.remap(3, usize::try_from(turn).unwrap() % PAGES);
    });
}
