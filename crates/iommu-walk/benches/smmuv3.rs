//! What does an uncached SMMUv3 translation cost, with every table in the L1 cache?
//!
//! | question | target |
//! |---|---|
//! | stream table entry, context descriptor and 4-level walk of stage 1 to 4 KiB | 60 ns |
//! | stream table entry and 4-level walk of stage 2 | 60 ns |
//! | both stages, 4 levels over 4, the context descriptor through stage 2 | 200 ns |
//! | an entry that is not valid | 75 ns |
//!
//! `vtd legacy` is VT-d's walk of the same depth, for comparison in one run: two entries of 16 bytes where
//! SMMUv3 has two of 64.

mod ask;
mod tables;

use ask::ask;
use criterion::{Criterion, criterion_group, criterion_main};
use iommu_walk::{Updates, smmuv3, vtd};
use iopf::Dma;
use std::hint::black_box;
use tables::mem;
use tables::smmuv3::request;

const ADDR: u64 = 0x80_4020_1abc;

fn whole(c: &mut Criterion) {
    let (unit, words) = (tables::smmuv3::unit(), tables::smmuv3::words());
    let memory = mem(&words);
    let mut group = c.benchmark_group("smmuv3");
    let questions: [(&str, Dma); 4] = [
        ("whole first", request(0x28, ADDR)),
        ("whole second", request(0x30, ADDR)),
        ("whole nested", request(0x38, ADDR)),
        ("whole first, not valid", request(0x28, ADDR + 0x1000)),
    ];
    for (what, dma) in questions {
        ask!(group, what, |updates| smmuv3::translate(
            black_box(&unit),
            &memory,
            black_box(&dma),
            &mut updates,
            &mut (),
        ));
    }
    for (what, devfn) in [
        ("walk first", 0x28),
        ("walk second", 0x30),
        ("walk nested", 0x38),
    ] {
        let dma = request(devfn, ADDR);
        let space = smmuv3::read_space(&unit, &memory, &dma, &mut Updates::new(), &mut ())
            .expect("the configuration is complete");
        ask!(group, what, |updates| smmuv3::walk(
            black_box(&unit),
            black_box(&space),
            &memory,
            black_box(&dma),
            &mut updates,
            &mut (),
        ));
    }

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
