//! What does a request cost that goes through a model: VT-d's (`vtd`), AMD-Vi's (`amdvi`), SMMUv3's
//! (`smmuv3`)?
//!
//! Through [`Translate::with_translation`], sessions, locks and all, tables in L1:
//!
//! | bench | question | target |
//! |---|---|---|
//! | `hit` | the page is in the IOTLB | ≤ 10 ns; all models' the same in one run |
//! | `hit, two threads` | two threads on one unit, each its own page: time of the slower | ≤ 1.1 × `hit` |
//! | `miss` | configuration is cached, the page is not and takes a place in the IOTLB | – |
//! | `uncached` | a unit without caches reads all of the configuration and four levels of tables each time | VT-d: ≤ 50 ns |
//! | `fault` | the page is not present, the walk is done and a record written; room is made outside of the measurement | VT-d, a register: ≤ 60 ns; AMD-Vi, an event in guest memory: ≤ 65 ns; SMMUv3, an event of 32 bytes: ≤ 90 ns |
//!
//! Each of them pays one full fence for its session, `fault` two more atomic operations for the lock
//! of the registers. `fence` says what one costs on this machine.

#[path = "translate/amdvi.rs"]
mod amdvi;
#[path = "translate/smmuv3.rs"]
mod smmuv3;
#[path = "translate/vtd.rs"]
mod vtd;

use criterion::{Criterion, criterion_group, criterion_main};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Pasid, Rid};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use viommu::arch::Arch;
use viommu::mem::GuestRam;
use viommu::{Setup, Unit};
use viommu_api::{InterruptKind, IrqSink, MsiSink, Translate, WiredSink};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

type Memory = Arc<GuestMemoryMmap<()>>;

struct Nowhere;

impl MsiSink for Nowhere {
    fn msi(&self, _: u64, _: u32) {}
}

impl IrqSink for Nowhere {
    fn raise(&self, _: InterruptKind, _: u16) {}
}

impl WiredSink for Nowhere {
    fn pulse(&self, _: u16) {}
}

const DEVICE: Rid = Rid(0x20);
/// Four levels of tables, one page each.
const TABLES: u64 = 0x10000;

/// A model, set up in one way.
struct Subject<X: Arch> {
    mode: &'static str,
    pasid: Option<Pasid>,
    /// A unit with so many places in its IOTLB, whose device has 511 pages from 0x1000 on. Page 0 is not
    /// there.
    unit: fn(&Self, usize) -> Unit<X, Memory>,
    /// Faults that find room.
    room: u64,
    /// Makes room for as many again.
    make_room: fn(&Unit<X, Memory>),
}

/// Memory with tables: what points to a table of each level, from the top down, and what maps a page.
fn memory(tables: [u64; 3], page: u64) -> Memory {
    let memory: Memory =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).expect("memory"));
    for (table, bits) in (TABLES..).step_by(0x1000).zip(tables) {
        put(&memory, table, (table + 0x1000) | bits);
    }
    for index in 1..512 {
        let at = TABLES + 0x3000 + index * 8;
        put(&memory, at, (0x10_0000 + (index << 12)) | page);
    }
    memory
}

fn put(memory: &Memory, at: u64, word: u64) {
    memory.write_obj(word, GuestAddress(at)).expect("in memory");
}

fn made<X: Arch>(memory: Memory, config: X::Config, sink: Arc<X::Sink>) -> Unit<X, Memory>
where
    X::Refused: std::fmt::Debug,
{
    let ram = GuestRam::new(memory);
    Unit::new(Setup { config, ram }, sink).expect("a good configuration")
}

impl<X: Arch> Subject<X> {
    fn dma(&self, addr: u64) -> Dma {
        Dma {
            requester: DEVICE,
            pasid: self.pasid,
            kind: DmaKind::Untranslated,
            addr: Iova(addr),
            access: Access::READ,
        }
    }
}

fn access(unit: &impl Translate, dma: &Dma) -> bool {
    let mut seen = Gpa(0);
    let result = unit.with_translation(black_box(dma), 4, &mut |at, _| seen = at);
    black_box(seen);
    result.is_ok()
}

fn translations<X: Arch>(criterion: &mut Criterion, subject: &Subject<X>) {
    let mut group = criterion.benchmark_group("translate");
    let mode = subject.mode;
    let unit = |entries| (subject.unit)(subject, entries);
    let cached = unit(4096);
    let request = subject.dma(0x1000);
    assert!(access(&cached, &request));
    group.bench_function(format!("hit/{mode}"), |bencher| {
        bencher.iter(|| access(&cached, &request));
    });
    let requests = [request, subject.dma(0x2000)];
    assert!(access(&cached, &requests[1]));
    group.bench_function(format!("hit, two threads/{mode}"), |bencher| {
        bencher.iter_custom(|count| two_threads(&cached, &requests, count));
    });

    let small = unit(4);
    let mut page = 0;
    group.bench_function(format!("miss/{mode}"), |bencher| {
        bencher.iter(|| {
            page = page % 511 + 1;
            access(&small, &subject.dma(page << 12))
        });
    });

    let bare = unit(0);
    assert!(access(&bare, &request));
    group.bench_function(format!("uncached/{mode}"), |bencher| {
        bencher.iter(|| access(&bare, &request));
    });

    let faulting = unit(4096);
    group.bench_function(format!("fault/{mode}"), |bencher| {
        bencher.iter_custom(|count| faults(subject, &faulting, count));
    });
    let counters = faulting.counters();
    assert_eq!(counters.lost, 0, "every fault found room");
    assert_eq!(counters.recorded, counters.faults);
    group.finish();
}

fn fences(criterion: &mut Criterion) {
    let word = AtomicU64::new(0);
    criterion.bench_function("translate/fence", |bencher| {
        bencher.iter(|| {
            word.store(black_box(1), Ordering::Relaxed);
            fence(Ordering::SeqCst);
        });
    });
}

/// The time in which each of two threads makes `count` accesses: that of the slower.
fn two_threads(unit: &impl Translate, requests: &[Dma; 2], count: u64) -> Duration {
    let together = Barrier::new(2);
    thread::scope(|scope| {
        let started = requests.each_ref().map(|request| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                let start = Instant::now();
                for _ in 0..count {
                    black_box(access(unit, request));
                }
                start.elapsed()
            })
        });
        let times = started.map(|thread| thread.join().unwrap_or_default());
        times.into_iter().max().unwrap_or_default()
    })
}

/// The time of `count` faults with their records.
fn faults<X: Arch>(subject: &Subject<X>, unit: &Unit<X, Memory>, count: u64) -> Duration {
    let absent = subject.dma(0);
    let mut time = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let batch = left.min(subject.room);
        let start = Instant::now();
        for _ in 0..batch {
            black_box(access(unit, &absent));
        }
        time += start.elapsed();
        (subject.make_room)(unit);
        left -= batch;
    }
    time
}

fn all(criterion: &mut Criterion) {
    for subject in vtd::SUBJECTS {
        translations(criterion, &subject);
    }
    for subject in amdvi::SUBJECTS {
        translations(criterion, &subject);
    }
    for subject in smmuv3::SUBJECTS {
        translations(criterion, &subject);
    }
    fences(criterion);
}

criterion_group!(benches, all);
criterion_main!(benches);
