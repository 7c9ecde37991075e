//! Question: how many instructions does an uncached SMMUv3 translation take?
//!
//! Targets, at 17 instructions a nanosecond: 1,020 for a whole translation through stage 1 or stage 2
//! (60 ns), 3,400 for a nested walk of 4 levels over 4 (200 ns), 1,275 for an entry that is not valid
//! (75 ns).
//! Counted by callgrind, so the figures are the same on a busy machine.
//!
//! `cargo bench -p iommu-walk --bench smmuv3_instructions` needs valgrind and the runner:
//! `cargo install gungraun-runner --version 0.20.0`.
#![expect(missing_docs, reason = "the macros below make items without")]

mod tables;

use gungraun::{library_benchmark, library_benchmark_group, main};
use iommu_walk::Updates;
use iommu_walk::smmuv3::{Space, Unit, read_space, translate, walk};
use iopf::Dma;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use tables::mem;
use tables::smmuv3::{request, unit, words};

type Bed = (Unit, Vec<AtomicU64>, Dma);

fn bed(devfn: u16, addr: u64) -> Bed {
    (unit(), words(), request(devfn, addr))
}

fn spaced(devfn: u16) -> (Bed, Space) {
    let bed = bed(devfn, 0x80_4020_1abc);
    let mut updates = Updates::new();
    let space = read_space(&bed.0, &mem(&bed.1), &bed.2, &mut updates, &mut ())
        .expect("the configuration is complete");
    (bed, space)
}

#[library_benchmark]
#[bench::first(spaced(0x28))]
#[bench::second(spaced(0x30))]
#[bench::nested(spaced(0x38))]
fn page_walk(((unit, words, dma), space): (Bed, Space)) -> Bed {
    let mut updates = Updates::new();
    let (unit_ref, space) = (black_box(&unit), black_box(&space));
    let outcome = walk(
        unit_ref,
        space,
        &mem(&words),
        black_box(&dma),
        &mut updates,
        &mut (),
    );
    assert!(black_box(outcome).is_ok());
    (unit, words, dma)
}

#[library_benchmark]
#[bench::first(bed(0x28, 0x80_4020_1abc))]
#[bench::second(bed(0x30, 0x80_4020_1abc))]
#[bench::nested(bed(0x38, 0x80_4020_1abc))]
#[bench::first_not_valid(bed(0x28, 0x80_4020_2abc))]
fn whole_translation((unit, words, dma): Bed) -> Bed {
    let mut updates = Updates::new();
    let _ = black_box(translate(
        black_box(&unit),
        &mem(&words),
        black_box(&dma),
        &mut updates,
        &mut (),
    ));
    (unit, words, dma)
}

library_benchmark_group!(name = walks; benchmarks = page_walk, whole_translation);
main!(library_benchmark_groups = walks);
