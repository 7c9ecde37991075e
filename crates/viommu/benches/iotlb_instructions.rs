//! Question: how many instructions does a hit take, alone and in a session?
//!
//! Target: 40 and 60. Counted by callgrind, so the figures are the same on a busy machine.
//!
//! `cargo bench -p viommu --bench iotlb_instructions` needs valgrind and the runner:
//! `cargo install gungraun-runner --version 0.20.0`.
#![expect(missing_docs, reason = "the macros below make items without")]

use gungraun::{library_benchmark, library_benchmark_group, main};
use iopf::{Access, Gpa, Iova, Pasid, Rid};
use std::hint::black_box;
use viommu::iotlb::{Habits, Iotlb, Mapping, Source, Stage, Tag};
use viommu::session::Sessions;

const DEVICE: Rid = Rid(0x0100);
const AT: Iova = Iova(0x7f00_0000_1010);
/// Hits of one run: what surrounds them is divided by it.
const HITS: u32 = 1000;

/// A cache in which the page was found once.
fn cached(page_shift: u8) -> (Iotlb, Sessions) {
    let (tlb, pasid) = (Iotlb::new(4096), Pasid::new(7));
    let tag = Tag::new(1, pasid, Stage::First);
    let rights = Access::RW;
    let source = Source {
        tag,
        user: rights,
        supervisor: rights,
        habits: Habits::empty(),
    };
    let mapping = Mapping {
        page: Gpa(0x4000_0000),
        page_shift,
        user: rights,
        supervisor: rights,
        dirty: true,
    };
    assert!(tlb.insert_source(tlb.epoch(), DEVICE, pasid, &source));
    assert!(tlb.insert(tlb.epoch(), tag, AT, &mapping));
    assert!(tlb.lookup(DEVICE, pasid, AT).is_some());
    let sessions = Sessions::new();
    sessions.run(|_| ());
    (tlb, sessions)
}

fn hit(tlb: &Iotlb) {
    let at = black_box(AT);
    let hit = tlb.lookup(black_box(DEVICE), black_box(Pasid::new(7)), at);
    let hit = hit.filter(|hit| hit.serves(black_box(Access::WRITE)));
    black_box(hit.map(|hit| hit.output(at)));
}

#[library_benchmark]
#[bench::page_4k(cached(12))]
#[bench::page_1g(cached(30))]
fn a_thousand_hits(rig: (Iotlb, Sessions)) -> (Iotlb, Sessions) {
    for _ in 0..HITS {
        hit(&rig.0);
    }
    rig
}

#[library_benchmark]
#[bench::page_4k(cached(12))]
fn a_thousand_hits_in_sessions(rig: (Iotlb, Sessions)) -> (Iotlb, Sessions) {
    for _ in 0..HITS {
        rig.1.run(|_| hit(&rig.0));
    }
    rig
}

library_benchmark_group!(
    name = iotlb,
    benchmarks = [a_thousand_hits, a_thousand_hits_in_sessions]
);
main!(library_benchmark_groups = iotlb);
