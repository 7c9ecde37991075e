//! What does a request cost that goes through a model: VT-d's, and AMD-Vi's (`amdvi`)?
//!
//! Through [`Translate::with_translation`], sessions, locks and all, tables in L1:
//!
//! | bench | question | target |
//! |---|---|---|
//! | `hit` | the page is in the IOTLB | ≤ 10 ns |
//! | `hit, two threads` | two threads on one unit, each its own page: time of the slower | ≤ 1.1 × `hit` |
//! | `miss` | context and PASID entry are cached, the page is not and takes a place in the IOTLB | – |
//! | `uncached` | a unit without caches reads root, context, PASID directory, PASID table and four levels each time | ≤ 50 ns |
//! | `fault` | the page is not present, the walk is done and a record written; registers are cleared outside of the measurement | ≤ 60 ns |
//!
//! The same of AMD-Vi: `hit` as VT-d's of the same run; `uncached/amdvi` a device table entry and four
//! levels of host tables; `fault/amdvi` an event written to the log in guest memory, ≤ 65 ns.
//!
//! Each of them pays one full fence for its session, `fault` two more atomic operations for the lock
//! of the registers. `fence` says what one costs on this machine.

#[path = "translate/amdvi.rs"]
mod amdvi;

use criterion::{Criterion, criterion_group, criterion_main};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Pasid, Rid};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use viommu::mem::GuestRam;
use viommu::vtd::{Config, Setup, VtdUnit};
use viommu_api::{MsiSink, Registers, Translate};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

type Memory = Arc<GuestMemoryMmap<()>>;

struct Nowhere;

impl MsiSink for Nowhere {
    fn msi(&self, _: u64, _: u32) {}
}

const DEVICE: Rid = Rid(0x20);
const ROOT: u64 = 0x1000;
const CONTEXT: u64 = 0x2000;
const DIRECTORY: u64 = 0x4000;
const TABLES: u64 = 0x10000;

/// A unit whose device has 511 pages from 0x1000 on: PASID 3 in scalable mode. Page 0 is not there.
fn unit(scalable: bool, config: Config) -> VtdUnit<Memory> {
    let memory: Memory =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).expect("memory"));
    let put = |at: u64, word: u64| {
        memory.write_obj(word, GuestAddress(at)).expect("in memory");
    };
    let bits = if scalable { 0x67 } else { 3 };
    for level in 0..3 {
        let table = TABLES + level * 0x1000;
        put(table, (table + 0x1000) | bits);
    }
    for page in 1..512 {
        put(
            TABLES + 0x3000 + page * 8,
            (0x10_0000 + (page << 12)) | bits,
        );
    }
    put(ROOT, CONTEXT | 1);
    if scalable {
        put(CONTEXT + 0x20 * 32, DIRECTORY | 1 << 3 | 1);
        put(DIRECTORY, (DIRECTORY + 0x1000) | 1);
        put(DIRECTORY + 0x1000 + 3 * 64, 1 << 6 | 2 << 2 | 1);
        put(DIRECTORY + 0x1000 + 3 * 64 + 8, 1 << 23 | 1);
        put(DIRECTORY + 0x1000 + 3 * 64 + 16, TABLES);
    } else {
        put(CONTEXT + 0x20 * 16, TABLES | 1);
        put(CONTEXT + 0x20 * 16 + 8, 5 << 8 | 2);
    }
    let setup = Setup {
        config,
        ram: GuestRam::new(memory),
    };
    let unit = VtdUnit::new(setup, Arc::new(Nowhere)).expect("a good configuration");
    let mode = if scalable { 1 << 10 } else { 0 };
    unit.write(0x20, &(ROOT | mode).to_le_bytes());
    unit.write(0x18, &(1u32 << 30).to_le_bytes());
    unit.write(0x18, &(1u32 << 31).to_le_bytes());
    unit
}

fn dma(scalable: bool, addr: u64) -> Dma {
    Dma {
        requester: DEVICE,
        pasid: scalable.then(|| Pasid::truncate(3)),
        kind: DmaKind::Untranslated,
        addr: Iova(addr),
        access: Access::READ,
    }
}

fn access(unit: &impl Translate, dma: &Dma) -> bool {
    let mut seen = Gpa(0);
    let result = unit.with_translation(black_box(dma), 4, &mut |at, _| seen = at);
    black_box(seen);
    result.is_ok()
}

fn translations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate");
    for (mode, scalable) in [("legacy", false), ("scalable", true)] {
        let cached = unit(scalable, Config::default());
        let request = dma(scalable, 0x1000);
        assert!(access(&cached, &request));
        group.bench_function(format!("hit/{mode}"), |bencher| {
            bencher.iter(|| access(&cached, &request));
        });
        let requests = [request, dma(scalable, 0x2000)];
        assert!(access(&cached, &requests[1]));
        group.bench_function(format!("hit, two threads/{mode}"), |bencher| {
            bencher.iter_custom(|count| two_threads(&cached, &requests, count));
        });

        let small = unit(
            scalable,
            Config {
                iotlb_entries: 4,
                ..Config::default()
            },
        );
        let mut page = 0;
        group.bench_function(format!("miss/{mode}"), |bencher| {
            bencher.iter(|| {
                page = page % 511 + 1;
                access(&small, &dma(scalable, page << 12))
            });
        });

        let bare = unit(
            scalable,
            Config {
                iotlb_entries: 0,
                ..Config::default()
            },
        );
        assert!(access(&bare, &request));
        group.bench_function(format!("uncached/{mode}"), |bencher| {
            bencher.iter(|| access(&bare, &request));
        });

        let faulting = unit(
            scalable,
            Config {
                fault_records: 256,
                ..Config::default()
            },
        );
        let absent = dma(scalable, 0);
        group.bench_function(format!("fault/{mode}"), |bencher| {
            bencher.iter_custom(|count| faults(&faulting, &absent, count));
        });
        let counters = faulting.counters();
        assert_eq!(counters.lost, 0, "every fault found a register");
        assert_eq!(counters.recorded, counters.faults);
    }
    let word = AtomicU64::new(0);
    group.bench_function("fence", |bencher| {
        bencher.iter(|| {
            word.store(black_box(1), Ordering::Relaxed);
            fence(Ordering::SeqCst);
        });
    });
    group.finish();
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
fn faults(unit: &VtdUnit<Memory>, absent: &Dma, count: u64) -> Duration {
    let mut time = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let batch = left.min(256);
        let start = Instant::now();
        for _ in 0..batch {
            black_box(access(unit, absent));
        }
        time += start.elapsed();
        for register in 0..256u64 {
            unit.write(0x220 + register * 16 + 12, &(1u32 << 31).to_le_bytes());
        }
        left -= batch;
    }
    time
}

criterion_group!(benches, translations, amdvi::translations);
criterion_main!(benches);
