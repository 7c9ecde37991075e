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

mod amdvi_tables;
mod tables;

use criterion::{Criterion, criterion_group, criterion_main};
use iommu_walk::{Updates, Words, amdvi, vtd};
use iopf::{Dma, Gpa};
use std::hint::black_box;

fn whole(c: &mut Criterion) {
    let (unit, words) = (amdvi_tables::unit(), amdvi_tables::words());
    let mem = Words {
        base: Gpa(0),
        words: &words,
    };
    let mut group = c.benchmark_group("amdvi");
    let questions: [(&str, Dma); 5] = [
        ("whole host", amdvi_tables::host(0x2_0abc)),
        ("whole host, skipping", amdvi_tables::host(0x100_0000_1abc)),
        ("whole guest", amdvi_tables::guest(0x30)),
        ("whole nested", amdvi_tables::guest(0x38)),
        (
            "whole host, not present",
            amdvi_tables::host(0x100_0000_2abc),
        ),
    ];
    for (what, dma) in questions {
        group.bench_function(what, |b| {
            b.iter(|| {
                let mut updates = Updates::new();
                black_box(&amdvi::translate(
                    black_box(&unit),
                    &mem,
                    black_box(&dma),
                    &mut updates,
                    &mut (),
                ));
            });
        });
    }
    let dma = amdvi_tables::host(0x2_0abc);
    let space = amdvi::read_space(&unit, &mem, &dma, &mut ()).expect("the entry is complete");
    group.bench_function("walk host", |b| {
        b.iter(|| {
            let mut updates = Updates::new();
            black_box(&amdvi::walk(
                black_box(&unit),
                black_box(&space),
                &mem,
                black_box(&dma),
                &mut updates,
                &mut (),
            ));
        });
    });

    let (unit, words, dma) = (tables::legacy(), tables::words(), tables::plain());
    let mem = Words {
        base: Gpa(0),
        words: &words,
    };
    group.bench_function("vtd legacy", |b| {
        b.iter(|| {
            let mut updates = Updates::new();
            black_box(&vtd::translate(
                black_box(&unit),
                &mem,
                black_box(&dma),
                &mut updates,
                &mut (),
            ));
        });
    });
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
