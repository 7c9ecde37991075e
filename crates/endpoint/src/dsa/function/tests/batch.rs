//! Batches: lists of descriptors in memory.

use super::*;

/// Where the list is.
const LIST: u64 = 0x6_0000;

fn bench(descriptors: &[Desc]) -> Bench {
    let bench = Bench::new();
    for page in 1..=8 {
        bench.map(page << 12, Access::RW);
    }
    for page in 0..2 {
        bench.map(LIST + (page << 12), Access::READ);
    }
    for (at, desc) in (LIST..).step_by(64).zip(descriptors) {
        bench.write(at, &desc.0);
    }
    bench
}

fn batch(count: u32) -> Desc {
    Desc::new(1, CRAV | RCR).first(LIST).size(count)
}

fn fill(n: u8) -> Desc {
    Desc::new(FILL, CRAV | RCR)
        .first(u64::from_le_bytes([n; 8]))
        .second(0x1000 + u64::from(n) * 8)
        .size(8)
        .record(RECORDS + 0x100 + u64::from(n) * 32)
}

fn ended(status: u8, completed: u32) -> Record {
    Record {
        completed,
        ..done(status)
    }
}

#[test]
fn a_batch_runs_every_descriptor_and_then_completes() {
    let descriptors: Vec<Desc> = (0..32).map(fill).collect();
    let bench = bench(&descriptors);
    assert_eq!(bench.submit(batch(32)), ended(1, 32));
    for n in 0..32u8 {
        assert_eq!(bench.record(RECORDS + 0x100 + u64::from(n) * 32), done(1));
        assert_eq!(bench.read(0x1000 + u64::from(n) * 8, 8), [n; 8]);
    }
}

#[test]
fn one_descriptor_of_many_may_fail_and_the_others_go_on() {
    let mut descriptors: Vec<Desc> = (0..32).map(fill).collect();
    descriptors[17] = descriptors[17].second(0x9_0000);
    let bench = bench(&descriptors);
    assert_eq!(bench.submit(batch(32)), ended(5, 32));
    for n in 0..32u8 {
        let status = bench.record(RECORDS + 0x100 + u64::from(n) * 32).status;
        assert_eq!(status, if n == 17 { 0x83 } else { 1 });
    }
}

#[test]
fn a_fence_stops_after_a_failure_and_not_after_success() {
    let fenced = |n| {
        let desc = fill(n);
        desc.put(4, &[desc.0[4] | 1])
    };
    let good = [fill(0), fenced(1), fill(2)];
    let bench_good = bench(&good);
    assert_eq!(bench_good.submit(batch(3)), ended(1, 3));
    let bad = [fill(0).second(0x9_0000), fill(1), fenced(2), fill(3)];
    let bench_bad = bench(&bad);
    assert_eq!(bench_bad.submit(batch(4)), ended(5, 2));
    assert_eq!(
        bench_bad.record(RECORDS + 0x100 + 2 * 32).status,
        0,
        "abandoned"
    );
}

#[test]
fn a_comparison_with_a_false_predicate_stops_at_the_fence() {
    let compare = Desc::new(COMPARE, CRAV | RCR | CR)
        .first(0x1000)
        .second(0x2000)
        .size(8)
        .record(RECORDS + 0x100);
    let fenced = fill(1).put(4, &[0x0d]);
    let bench = bench(&[compare, fenced]);
    bench.write(0x1000, &[1]);
    assert_eq!(bench.submit(batch(2)), ended(5, 1));
}

#[test]
fn a_batch_holds_neither_batches_nor_drains() {
    let bench = bench(&[
        batch(2).record(RECORDS + 0x100),
        Desc::new(2, CRAV | RCR).record(RECORDS + 0x120),
    ]);
    assert_eq!(bench.submit(batch(2)), ended(5, 2));
    assert_eq!(bench.record(RECORDS + 0x100).status, 0x10);
    assert_eq!(bench.record(RECORDS + 0x120).status, 0x10);
}

#[test]
fn a_list_that_is_missing_is_waited_for_and_refused_where_it_stops() {
    let descriptors: Vec<Desc> = (0..20).map(fill).collect();
    let bench = bench(&descriptors);
    // The list begins two descriptors before a page that is not there.
    for (at, desc) in (LIST + 0x1f80..).step_by(64).zip(&descriptors) {
        bench.write(at, &desc.0);
    }
    let list = Desc::new(1, CRAV | RCR).first(LIST + 0x1f80).size(20);
    assert_eq!(bench.submit(list), done(0));
    assert_eq!(bench.asked(), [(LIST + 0x2000, Access::READ)]);
    bench.answer(0, Response::Invalid);
    // What was read before the fault is done; the rest is asked for again, and refused again.
    bench.answer(1, Response::Invalid);
    let refused = Record {
        status: 0x06,
        completed: 2,
        fault: LIST + 0x2000,
        result: 0,
    };
    assert_eq!(bench.record(RECORDS), refused);
    assert_eq!(bench.read(0x1008, 8), [1; 8]);
    assert_eq!(bench.read(0x1010, 8), [0; 8]);
}

#[test]
fn limits_and_alignment_of_a_batch_are_checked() {
    let bench = bench(&[]);
    assert_eq!(
        bench.submit(batch(33)).status,
        0x14,
        "the work queue allows 32"
    );
    assert_eq!(bench.submit(batch(0)).status, 0x14);
    assert_eq!(bench.submit(batch(2).first(LIST + 32)).status, 0x18);
    assert_eq!(bench.submit(batch(2).second(1)).status, 0x12);
}

#[test]
fn an_error_in_a_batch_names_its_place() {
    let bench = bench(&[fill(0), Desc::new(0x42, 0), fill(2)]);
    assert_eq!(bench.submit(batch(3)), ended(5, 3));
    assert_eq!(bench.get64(SWERROR), 0x0000_0542_0000_101d, "batch member");
    assert_eq!(bench.get64(SWERROR + 8), 1, "the second one");
}

#[test]
fn a_descriptor_whose_record_is_lost_counts_as_failed() {
    let bench = bench(&[fill(0).record(0x5_0000), fill(1)]);
    assert_eq!(bench.submit(batch(2)), done(0));
    assert_eq!(bench.asked(), [(0x5_0000, Access::WRITE)]);
    bench.answer(0, Response::Invalid);
    assert_eq!(bench.record(RECORDS), ended(5, 2));
    assert_eq!(bench.error(), Some(0x1a));
}
