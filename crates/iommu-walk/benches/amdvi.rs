//! What does an uncached AMD-Vi translation cost, with every table in the L1 cache?
//!
//! | question | target |
//! |---|---|
//! | device table entry and 4-level walk of host tables to 4 KiB | 45 ns |
//! | the same where level 4 leads straight to level 1 | 45 ns |
//! | device table entry, guest CR3 and 4-level walk of guest tables | 50 ns |
//! | a nested walk, 4 levels over 4 | 150 ns |
//! | an entry that is not present | 60 ns |
//!
//! `vtd legacy` is VT-d's walk of the same depth, for comparison in one run: a root and a context entry
//! where AMD-Vi has its one entry of 32 bytes.

mod ask;
mod tables;

use ask::ask;
use criterion::{Criterion, criterion_group, criterion_main};
use iommu_walk::{Updates, amdvi, vtd};
use iopf::Dma;
use std::hint::black_box;
use tables::mem;

fn whole(c: &mut Criterion) {
    let (unit, words) = (tables::amdvi::unit(), tables::amdvi::words());
    let memory = mem(&words);
    let mut group = c.benchmark_group("amdvi");
    let questions: [(&str, Dma); 5] = [
        ("whole host", tables::amdvi::host(0x2_0abc)),
        ("whole host, skipping", tables::amdvi::host(0x100_0000_1abc)),
        ("whole guest", tables::amdvi::guest(0x30)),
        ("whole nested", tables::amdvi::guest(0x38)),
        (
            "whole host, not present",
            tables::amdvi::host(0x100_0000_2abc),
        ),
    ];
    for (what, dma) in questions {
        ask!(group, what, |updates| amdvi::translate(
            black_box(&unit),
            &memory,
            black_box(&dma),
            &mut updates,
            &mut (),
        ));
    }
    let dma = tables::amdvi::host(0x2_0abc);
    let space = amdvi::read_space(&unit, &memory, &dma, &mut ()).expect("the entry is complete");
    ask!(group, "walk host", |updates| amdvi::walk(
        black_box(&unit),
        black_box(&space),
        &memory,
        black_box(&dma),
        &mut updates,
        &mut (),
    ));

    let (unit, words) = (tables::vtd::legacy(), tables::vtd::words());
    let (memory, dma) = (mem(&words), tables::vtd::plain());
    ask!(group, "vtd legacy", |updates| vtd::translate(
        black_box(&unit),
        &memory,
        black_box(&dma),
        &mut updates,
        &mut (),
    ));
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
