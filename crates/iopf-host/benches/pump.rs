//! Question: what does a fault cost from its descriptor to its answer, through the pump and through
//! the smallest poll, read, write loop, over the same fault file in memory?
//!
//! `cargo bench -p iopf-host --features fake --bench pump`
//!
//! The file makes no system call but poll(2), which both make. In front of a kernel, see the tier
//! `rig`.

mod contest;

use contest::{Contest, smallest};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iopf_host::fake::Mill;

fn fault(c: &mut Criterion) {
    for waiting in [1, 64] {
        let mut bench = c.benchmark_group(format!("a fault, {waiting} waiting"));
        bench.throughput(Throughput::Elements(u64::from(waiting)));
        bench.bench_function("the smallest loop", |b| {
            let mill = Mill::new(7);
            b.iter(|| {
                mill.supply(waiting);
                for _ in 0..waiting {
                    smallest(&mill);
                }
            });
            calls("the smallest loop", &mill);
        });
        bench.bench_function("the pump", |b| {
            let mut contest = Contest::new();
            b.iter(|| {
                contest.mill.supply(waiting);
                contest.pump.turn(None).expect("poll");
            });
            calls("the pump", &contest.mill);
        });
        bench.finish();
    }
}

/// Says how many reads and writes a fault took.
fn calls(who: &str, mill: &Mill) {
    let (reads, writes, faults) = mill.calls();
    let each = |calls: u64| calls as f64 / faults as f64;
    println!(
        "{who}: {:.3} reads and {:.3} writes a fault",
        each(reads),
        each(writes)
    );
}

criterion_group!(benches, fault);
criterion_main!(benches);
