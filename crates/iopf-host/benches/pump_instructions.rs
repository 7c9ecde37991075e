//! Question: how many instructions in user space does a fault take from its descriptor to its
//! answer, through the pump and through the smallest loop?
//!
//! Target: the pump at most 400 more than the loop with one group waiting. Counted by callgrind, so
//! the figure is the same on a busy machine; the kernel's part of poll(2) is not in it.
//!
//! `cargo bench -p iopf-host --features fake --bench pump_instructions` needs valgrind and the
//! runner: `cargo install gungraun-runner --version 0.20.0`.
#![expect(missing_docs, reason = "the macros below make items without")]

mod contest;

use contest::{Contest, smallest};
use gungraun::{library_benchmark, library_benchmark_group, main};
use iopf_host::fake::Mill;

fn loaded(waiting: u32) -> Mill {
    let mill = Mill::new(7);
    mill.supply(1);
    smallest(&mill);
    mill.supply(waiting);
    mill
}

fn contest(waiting: u32) -> Contest {
    let contest = Contest::new();
    contest.mill.supply(waiting);
    contest
}

#[library_benchmark]
#[bench::one(loaded(1), 1)]
#[bench::sixty_four(loaded(64), 64)]
fn smallest_loop(mill: Mill, waiting: u32) -> Mill {
    for _ in 0..waiting {
        smallest(&mill);
    }
    mill
}

#[library_benchmark]
#[bench::one(contest(1))]
#[bench::sixty_four(contest(64))]
fn pump(mut contest: Contest) -> Contest {
    contest.pump.turn(None).expect("poll");
    contest
}

library_benchmark_group!(name = fault, benchmarks = [smallest_loop, pump]);
main!(library_benchmark_groups = fault);
