//! What does an uncached translation cost, with every table in the L1 cache?
//!
//! | question | target |
//! |---|---|
//! | a 4-level page walk alone | 20 ns |
//! | root, context, PASID directory, PASID table and 4-level walk | 50 ns |
//! | a nested walk, 4 levels over 4 | 150 ns |
//!
//! Each is asked of memory that is one slice, of a `vm-memory` region found once and cached, and of
//! `GuestMemoryMmap`, which looks the region up for each load. `four loads` is the floor: four
//! dependent loads from the same memory and nothing else.

mod ask;
mod tables;

use ask::ask;
use criterion::{Criterion, criterion_group, criterion_main};
use iommu_walk::vtd::{configure, translate, walk};
use iommu_walk::{TableMem, Unreachable, Updates};
use iopf::Gpa;
use std::hint::black_box;
use std::sync::atomic::Ordering;
use tables::vtd::{TABLES, legacy, plain, request, scalable, words};
use tables::{SIZE, mem};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice,
};

/// A region found once: what a VMM would keep for the walk.
struct Cached<'a>(VolatileSlice<'a>);

impl TableMem for Cached<'_> {
    #[inline]
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        let offset = usize::try_from(at.0).map_err(|_| Unreachable(at))?;
        self.0
            .load(offset, Ordering::Acquire)
            .map_err(|_| Unreachable(at))
    }
}

/// The whole guest memory, searched for each load.
struct Searched<'a>(&'a GuestMemoryMmap);

impl TableMem for Searched<'_> {
    #[inline]
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        self.0
            .load(GuestAddress(at.0), Ordering::Acquire)
            .map_err(|_| Unreachable(at))
    }
}

fn four_loads<M: TableMem>(mem: &M, top: u64) -> u64 {
    let mut at = top;
    for _ in 0..4 {
        at = mem.load(Gpa(at)).unwrap_or(0) & !0xfff | 8;
    }
    at
}

fn suite<M: TableMem>(c: &mut Criterion, name: &str, mem: &M) {
    let (scalable, legacy) = (scalable(), legacy());
    let (first, second, nested) = (
        request(0x28, 0x80_4020_1abc),
        request(0x30, 0x2_0abc),
        request(0x38, 0x80_4020_1abc),
    );
    let mut group = c.benchmark_group(name);
    group.bench_function("four loads", |b| {
        b.iter(|| four_loads(black_box(mem), black_box(0x2_0008)));
    });
    for (what, dma) in [("first", first), ("second", second), ("nested", nested)] {
        let space = configure(&scalable, mem, &dma, &mut ()).expect("the tables are complete");
        ask!(group, format!("walk {what}"), |updates| walk(
            black_box(&scalable),
            black_box(&space),
            mem,
            black_box(&dma),
            &mut updates,
            &mut (),
        ));
    }
    let whole = [
        ("legacy", &legacy, plain()),
        ("first", &scalable, first),
        ("second", &scalable, second),
        ("nested", &scalable, nested),
    ];
    for (what, unit, dma) in whole {
        ask!(group, format!("whole {what}"), |updates| translate(
            black_box(unit),
            mem,
            black_box(&dma),
            &mut updates,
            &mut (),
        ));
    }
    let missing = request(0x28, 0x80_4020_2abc);
    ask!(group, "whole first, not present", |updates| translate(
        black_box(&scalable),
        mem,
        black_box(&missing),
        &mut updates,
        &mut (),
    ));
    group.finish();
}

fn vtd(c: &mut Criterion) {
    let words = words();
    // Sixteen regions: as many as a guest with a few holes has.
    let ranges: Vec<_> = (0..16)
        .map(|i| (GuestAddress(i * 0x1000_0000), SIZE))
        .collect();
    let guest = GuestMemoryMmap::<()>::from_ranges(&ranges).expect("a few MiB can be mapped");
    for (at, word) in TABLES {
        guest
            .write_obj(word, GuestAddress(at))
            .expect("the tables are in the first region");
    }
    suite(c, "slice", &mem(&words));
    let region = guest
        .find_region(GuestAddress(0))
        .expect("the first region");
    let cached = region.as_volatile_slice().expect("it is mapped");
    suite(
        c,
        "cached region",
        &Cached(cached.offset(0).expect("all of it")),
    );
    suite(c, "guest memory", &Searched(&guest));
}

criterion_group!(benches, vtd);
criterion_main!(benches);
