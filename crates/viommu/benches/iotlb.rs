//! What does a cached translation cost, with the synchronisation it needs?
//!
//! | bench | question | target |
//! |---|---|---|
//! | `hit` | one look-up and the check of its rights, 64 pages in turn | ≤ 5 ns: a FxHash hit on (u32, u32, u64) takes 4–5 |
//! | `hit in a session` | the same inside a session of its own, as a device does it | ≤ 10 ns |
//! | `session` | what of that is the session: one store and one full fence | as the fence alone |
//! | `fence` | a store and a full fence: what this machine asks for ordering a store before a load | – |
//! | `hit in a session, two threads` | one IOMMU, two requesters; time of each thread | ≤ 1.1 × one thread |
//! | `insert` | fill a page that an invalidation took away | ≤ 50 ns |
//! | `invalidate a page` | page-selective, with the entry there | ≤ 100 ns |
//! | `invalidate a domain` | every set of 4096 entries is looked at | ≤ 5 µs |
//! | `wait` | for no open session | ≤ 100 ns |
//!
//! The two threads start together and each is timed by itself, so a processor that another program
//! takes away shows as noise, not as contention: take the lower bound of the interval, and run it on
//! a machine with two idle processors.

use criterion::{Criterion, criterion_group, criterion_main};
use iopf::{Access, Gpa, Iova, Rid};
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};
use viommu::iotlb::{Aim, Habits, Iotlb, Mapping, Need, Pages, Scope, Source, Stage, Tag};
use viommu::session::Sessions;

const DEVICES: [Rid; 2] = [Rid(0x0100), Rid(0x0208)];
const PAGES: u64 = 64;

fn tag() -> Tag {
    Tag::new(5, None, Stage::Second)
}

fn at(turn: u64) -> Iova {
    Iova((turn % PAGES) << 12 | 0x10)
}

fn fill(tlb: &Iotlb, turn: u64) -> bool {
    let mapping = Mapping {
        page: Gpa(0x1_0000_0000 + (turn % PAGES) * 0x1000),
        page_shift: 12,
        user: Access::RW,
        supervisor: Access::RW,
        dirty: true,
    };
    tlb.insert(tlb.epoch(), tag(), at(turn), &mapping)
}

struct Rig {
    tlb: Iotlb,
    sessions: Sessions,
}

impl Rig {
    fn new() -> Self {
        let tlb = Iotlb::new(4096);
        let source = Source {
            tag: tag(),
            user: Access::RW,
            supervisor: Access::RW,
            habits: Habits::empty(),
        };
        for device in DEVICES {
            assert!(tlb.insert_source(tlb.epoch(), device, None, &source));
        }
        assert!((0..PAGES).all(|turn| fill(&tlb, turn)));
        Self {
            tlb,
            sessions: Sessions::new(),
        }
    }

    fn hit(&self, device: Rid, turn: u64) {
        let aim = self.aim(device, turn);
        self.fire(aim);
    }

    fn aim(&self, device: Rid, turn: u64) -> (Aim<'_>, Iova) {
        let iova = black_box(at(turn));
        (self.tlb.aim(black_box(device), None, iova), iova)
    }

    fn fire(&self, (aim, iova): (Aim<'_>, Iova)) {
        let hit = aim.look_for(Need::new(black_box(Access::READ)));
        black_box(hit.map(|hit| hit.output(iova)));
    }

    fn hits(&self, device: Rid, turns: u64) -> Duration {
        let start = Instant::now();
        for turn in 0..turns {
            // In the order in which the model does it.
            let aim = self.aim(device, turn);
            self.sessions.run(|_| self.fire(aim));
        }
        start.elapsed()
    }

    /// The slower of two threads.
    fn two_threads(&self, turns: u64) -> Duration {
        let together = Barrier::new(2);
        thread::scope(|scope| {
            let started = DEVICES.map(|device| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    self.hits(device, turns)
                })
            });
            let times = started.map(|thread| thread.join().unwrap_or_default());
            times.into_iter().max().unwrap_or_default()
        })
    }
}

fn hits(c: &mut Criterion) {
    let rig = Rig::new();
    let mut turn = 0u64;
    c.bench_function("hit", |b| {
        b.iter(|| {
            turn += 1;
            rig.hit(DEVICES[0], turn);
        });
    });
    c.bench_function("hit in a session", |b| {
        b.iter_custom(|turns| rig.hits(DEVICES[0], turns));
    });
    c.bench_function("hit in a session, two threads", |b| {
        b.iter_custom(|turns| rig.two_threads(turns));
    });
    c.bench_function("session", |b| {
        b.iter(|| rig.sessions.run(|_| black_box(())));
    });
    let word = AtomicU64::new(0);
    c.bench_function("fence", |b| {
        b.iter(|| {
            word.store(black_box(1), Ordering::Relaxed);
            fence(Ordering::SeqCst);
        });
    });
}

fn changes(c: &mut Criterion) {
    let rig = Rig::new();
    let page = |turn| {
        let pages = Pages {
            addr: at(turn),
            size_shift: 12,
        };
        rig.tlb.invalidate(Scope::DomainPages(5, pages));
    };
    // Pages go and come in bulk, so that the clock is read once for many.
    c.bench_function("insert", |b| {
        b.iter_custom(|turns| {
            let mut time = Duration::ZERO;
            for _ in 0..turns.div_ceil(PAGES) {
                rig.tlb.invalidate(Scope::Domain(5));
                let start = Instant::now();
                (0..PAGES).for_each(|turn| {
                    black_box(fill(&rig.tlb, turn));
                });
                time += start.elapsed();
            }
            time.mul_f64(turns as f64 / turns.next_multiple_of(PAGES) as f64)
        });
    });
    c.bench_function("invalidate a page", |b| {
        b.iter_custom(|turns| {
            let mut time = Duration::ZERO;
            for _ in 0..turns.div_ceil(PAGES) {
                (0..PAGES).for_each(|turn| {
                    fill(&rig.tlb, turn);
                });
                let start = Instant::now();
                (0..PAGES).for_each(page);
                time += start.elapsed();
            }
            time.mul_f64(turns as f64 / turns.next_multiple_of(PAGES) as f64)
        });
    });
    c.bench_function("invalidate a domain", |b| {
        b.iter(|| rig.tlb.invalidate(Scope::Domain(black_box(5))));
    });
    c.bench_function("wait", |b| b.iter(|| rig.sessions.quiesce()));
}

criterion_group!(benches, hits, changes);
criterion_main!(benches);
