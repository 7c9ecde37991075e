//! Question: how many instructions does an uncached VT-d translation take?
//!
//! Targets, at 15 instructions a nanosecond: 300 for a 4-level walk alone (20 ns),
//! 750 for a whole translation (50 ns), 2,250 for a nested walk of 4 levels over 4 (150 ns).
//! Counted by callgrind, so the figures are the same on a busy machine.
//!
//! `cargo bench -p iommu-walk --bench vtd_instructions` needs valgrind and the runner:
//! `cargo install gungraun-runner --version 0.20.0`.
#![expect(missing_docs, reason = "the macros below make items without")]

mod tables;

use gungraun::{library_benchmark, library_benchmark_group, main};
use iommu_walk::Updates;
use iommu_walk::vtd::{AddressSpace, Unit, configure, translate, walk};
use iopf::Dma;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use tables::mem;
use tables::vtd::{legacy, plain, request, scalable, words};

type Bed = (Unit, Vec<AtomicU64>, Dma);

fn bed(devfn: u16, addr: u64) -> Bed {
    (scalable(), words(), request(devfn, addr))
}

fn spaced(devfn: u16, addr: u64) -> (Bed, AddressSpace) {
    let bed = bed(devfn, addr);
    let space = configure(&bed.0, &mem(&bed.1), &bed.2, &mut ()).expect("the tables are complete");
    (bed, space)
}

#[library_benchmark]
#[bench::first(spaced(0x28, 0x80_4020_1abc))]
#[bench::second(spaced(0x30, 0x2_0abc))]
#[bench::nested(spaced(0x38, 0x80_4020_1abc))]
fn page_walk(((unit, words, dma), space): (Bed, AddressSpace)) -> Bed {
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
#[bench::legacy((legacy(), words(), plain()))]
#[bench::first(bed(0x28, 0x80_4020_1abc))]
#[bench::second(bed(0x30, 0x2_0abc))]
#[bench::nested(bed(0x38, 0x80_4020_1abc))]
#[bench::first_not_present(bed(0x28, 0x80_4020_2abc))]
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
