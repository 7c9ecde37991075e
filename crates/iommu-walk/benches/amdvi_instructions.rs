//! Question: how many instructions does an uncached AMD-Vi translation take?
//!
//! Targets, at 15 instructions a nanosecond: 675 for a whole translation through host tables (45 ns),
//! 750 through guest tables (50 ns), 2,250 for a nested walk of 4 levels over 4 (150 ns).
//! Counted by callgrind, so the figures are the same on a busy machine.
//!
//! `cargo bench -p iommu-walk --bench amdvi_instructions` needs valgrind and the runner:
//! `cargo install gungraun-runner --version 0.20.0`.
#![expect(missing_docs, reason = "the macros below make items without")]

mod tables;

use gungraun::{library_benchmark, library_benchmark_group, main};
use iommu_walk::Updates;
use iommu_walk::amdvi::{Space, Unit, read_space, translate, walk};
use iopf::Dma;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use tables::amdvi::{guest, host, unit, words};
use tables::mem;

type Bed = (Unit, Vec<AtomicU64>, Dma);

fn bed(dma: Dma) -> Bed {
    (unit(), words(), dma)
}

fn spaced(dma: Dma) -> (Bed, Space) {
    let bed = bed(dma);
    let space = read_space(&bed.0, &mem(&bed.1), &bed.2, &mut ()).expect("the entry is complete");
    (bed, space)
}

#[library_benchmark]
#[bench::host(spaced(host(0x2_0abc)))]
#[bench::guest(spaced(guest(0x30)))]
#[bench::nested(spaced(guest(0x38)))]
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
#[bench::host(bed(host(0x2_0abc)))]
#[bench::host_skipping(bed(host(0x100_0000_1abc)))]
#[bench::guest(bed(guest(0x30)))]
#[bench::nested(bed(guest(0x38)))]
#[bench::host_not_present(bed(host(0x100_0000_2abc)))]
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
