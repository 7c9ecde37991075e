//! How many records a second are decoded? The floor is 20 million.
//!
//! Each bench decodes a ring of records that differ in their fields, so that neither the values nor
//! the branches are constant, and sums something of each result.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iommu_wire::vtd::command::{Command, RawCommand};
use iommu_wire::vtd::event::{Event, RawFault};
use iommu_wire::vtd::page_request::{Descriptor, RawDescriptor};
use std::hint::black_box;
use zerocopy::little_endian::U64;

const RECORDS: usize = 4096;

/// A different 64-bit number for each `at` and `salt`.
fn scatter(at: usize, salt: u64) -> u64 {
    (at as u64 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(23)
        .wrapping_mul(salt | 1)
}

fn records(criterion: &mut Criterion) {
    let faults: Vec<RawFault> = (0..RECORDS)
        .map(|at| RawFault {
            low: U64::new(scatter(at, 3)),
            high: U64::new(scatter(at, 5) | 1 << 63),
        })
        .collect();
    let pages: Vec<RawDescriptor> = (0..RECORDS)
        .map(|at| RawDescriptor {
            head: U64::new(scatter(at, 7) & !0xff | 1),
            request: U64::new(scatter(at, 9)),
            private: [U64::new(scatter(at, 11)), U64::new(0)],
        })
        .collect();
    let commands: Vec<RawCommand> = (0..RECORDS)
        .map(|at| {
            let kind = at as u64 % 9 + 1;
            let raw = RawCommand::narrow(scatter(at, 13) & !0xe0f | kind, scatter(at, 15));
            // Without its reserved bits.
            Command::decode(&raw).encode()
        })
        .collect();

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("fault", |bencher| {
        bencher.iter(|| {
            let events = black_box(&faults).iter().filter_map(Event::decode);
            events.fold(0u64, |sum, event| {
                let pasid = event.pasid.map_or(0, |with| with.pasid.get());
                sum.wrapping_add(u64::from(black_box(event).source.0) + u64::from(pasid))
            })
        });
    });
    group.bench_function("page_request", |bencher| {
        bencher.iter(|| {
            let mut good = 0u32;
            for raw in black_box(&pages) {
                let descriptor = black_box(Descriptor::decode(raw));
                good += u32::from(matches!(descriptor, Descriptor::Page { .. }));
            }
            good
        });
    });
    group.bench_function("command", |bencher| {
        bencher.iter(|| {
            let mut good = 0u32;
            for raw in black_box(&commands) {
                good += u32::from(!raw.has_reserved_bits());
                black_box(Command::decode(raw));
            }
            good
        });
    });
    group.finish();
}

criterion_group!(benches, records);
criterion_main!(benches);
