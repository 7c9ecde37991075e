//! The same questions of AMD-Vi: host tables of four levels, and guest tables of PASID 3.

use crate::{DEVICE, Memory, access, two_threads};
use criterion::Criterion;
use iopf::{Access, Dma, DmaKind, Iova, Pasid};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use viommu::amdvi::{AmdviUnit, Config, Setup};
use viommu::mem::GuestRam;
use viommu_api::{InterruptKind, IrqSink, Registers};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

struct Nowhere;

impl IrqSink for Nowhere {
    fn raise(&self, _: InterruptKind, _: u16) {}
}

const DEVICE_TABLE: u64 = 0x1000;
const CR3_TABLE: u64 = 0x4000;
const TABLES: u64 = 0x10000;
const EVENTS: u64 = 0x8_0000;
/// IR and IW.
const RW: u64 = 0x6000_0000_0000_0000;
/// Events that the log holds, one being free: of 512, as Linux has it.
const LOG: u64 = 511;

/// A unit whose device has 511 pages from 0x1000 on. Page 0 is not there.
fn unit(guest: bool, config: Config) -> AmdviUnit<Memory> {
    let memory: Memory =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).expect("memory"));
    let put = |at: u64, word: u64| {
        memory.write_obj(word, GuestAddress(at)).expect("in memory");
    };
    for level in 0..3 {
        let table = TABLES + level * 0x1000;
        let bits = if guest {
            0x67
        } else {
            RW | (3 - level) << 9 | 1
        };
        put(table, (table + 0x1000) | bits);
    }
    let bits = if guest { 0x67 } else { RW | 1 };
    for page in 1..512 {
        put(
            TABLES + 0x3000 + page * 8,
            (0x10_0000 + (page << 12)) | bits,
        );
    }
    let entry = DEVICE_TABLE + u64::from(DEVICE.0) * 32;
    if guest {
        put(entry, RW | 4 << 58 | 1 << 55 | 3);
        put(CR3_TABLE + 3 * 8, TABLES | 1);
    } else {
        put(entry, RW | TABLES | 4 << 9 | 3);
    }
    put(entry + 8, 5);
    let setup = Setup {
        config,
        ram: GuestRam::new(memory),
    };
    let unit = AmdviUnit::new(setup, Arc::new(Nowhere)).expect("a good configuration");
    unit.write(0x00, &DEVICE_TABLE.to_le_bytes());
    unit.write(0x10, &(EVENTS | 9 << 56).to_le_bytes());
    // IommuEn, EventLogEn, EventIntEn, GTEn.
    unit.write(0x18, &0x1_000d_u64.to_le_bytes());
    unit
}

fn dma(guest: bool, addr: u64) -> Dma {
    Dma {
        requester: DEVICE,
        pasid: guest.then(|| Pasid::truncate(3)),
        kind: DmaKind::Untranslated,
        addr: Iova(addr),
        access: Access::READ,
    }
}

pub(crate) fn translations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate");
    for (mode, guest) in [("amdvi host", false), ("amdvi guest", true)] {
        let cached = unit(guest, Config::default());
        let request = dma(guest, 0x1000);
        assert!(access(&cached, &request));
        group.bench_function(format!("hit/{mode}"), |bencher| {
            bencher.iter(|| access(&cached, &request));
        });
        let requests = [request, dma(guest, 0x2000)];
        assert!(access(&cached, &requests[1]));
        group.bench_function(format!("hit, two threads/{mode}"), |bencher| {
            bencher.iter_custom(|count| two_threads(&cached, &requests, count));
        });

        let small = unit(
            guest,
            Config {
                iotlb_entries: 4,
                ..Config::default()
            },
        );
        let mut page = 0;
        group.bench_function(format!("miss/{mode}"), |bencher| {
            bencher.iter(|| {
                page = page % 511 + 1;
                access(&small, &dma(guest, page << 12))
            });
        });

        let bare = unit(
            guest,
            Config {
                iotlb_entries: 0,
                ..Config::default()
            },
        );
        assert!(access(&bare, &request));
        group.bench_function(format!("uncached/{mode}"), |bencher| {
            bencher.iter(|| access(&bare, &request));
        });

        let faulting = unit(guest, Config::default());
        let absent = dma(guest, 0);
        group.bench_function(format!("fault/{mode}"), |bencher| {
            bencher.iter_custom(|count| faults(&faulting, &absent, count));
        });
        let counters = faulting.counters();
        assert_eq!(counters.lost, 0, "every fault found room");
        assert_eq!(counters.recorded, counters.faults);
    }
    group.finish();
}

/// The time of `count` faults with their events.
fn faults(unit: &AmdviUnit<Memory>, absent: &Dma, count: u64) -> Duration {
    let mut time = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let batch = left.min(LOG);
        let start = Instant::now();
        for _ in 0..batch {
            black_box(access(unit, absent));
        }
        time += start.elapsed();
        // Software has read the log: its head is at the tail.
        let mut tail = [0; 8];
        unit.read(0x2018, &mut tail);
        unit.write(0x2010, &tail);
        unit.write(0x2020, &3u32.to_le_bytes());
        left -= batch;
    }
    time
}
