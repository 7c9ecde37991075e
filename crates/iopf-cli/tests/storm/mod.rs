//! A stock guest whose device does nothing but bad DMA, and what it costs us.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod shared;

use crate::process::Usage;
use crate::served::Served;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use testkit::guest::Guest;
use testkit::kernel::{Stock, Target, stock_for};

/// Lines of one device in one interval, and the interval: as Linux's `printk_ratelimited`.
pub(crate) const BURST: u64 = 10;
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// From the start of a storm until the interval of its first fault is over for the guest too, whose
/// clock starts with the first interrupt.
pub(crate) const OVER: Duration = Duration::from_millis(6500);

/// What our memory may differ by, in KiB: allocators keep some of what they had.
const FLAT: u64 = 1024;

/// What a guest's driver says of faults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    /// How its lines are known.
    pub(crate) mine: &'static str,
    /// That records were lost, or that it has made room for new ones after that.
    pub(crate) overflow: &'static str,
    /// That there are records and none was lost, if it says so.
    pub(crate) pending: Option<&'static str>,
    /// How it says address 0xbeef000.
    pub(crate) address: &'static str,
    /// Bad reads after a storm until it says so of one, at most.
    pub(crate) reads: u64,
    /// Lines of one record, at most.
    pub(crate) lines: u64,
    /// The processor.
    pub(crate) target: Target,
}

/// FSTS_REG with PPF alone, and with PFO too. Intel VT-d, "Fault Status Register".
pub(crate) const VTD: Said = Said {
    mine: "DMAR",
    overflow: "DRHD: handling fault status reg 3",
    pending: Some("DRHD: handling fault status reg 2"),
    address: "fault addr 0xbeef000",
    reads: 1,
    lines: 2,
    target: Target::X86_64,
};

/// Linux `drivers/iommu/amd/init.c`, `amd_iommu_restart_log`.
pub(crate) const AMDVI: Said = Said {
    mine: "AMD-Vi",
    overflow: "IOMMU Event log restarting",
    pending: None,
    address: "address=0xbeef000",
    reads: 2,
    lines: 2,
    target: Target::X86_64,
};

/// Linux `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c`, `arm_smmu_evtq_thread` and
/// `arm_smmu_dump_event`. That records were lost is said without any limit.
pub(crate) const SMMUV3: Said = Said {
    mine: "arm-smmu-v3",
    overflow: "EVTQ overflow detected",
    pending: None,
    address: "0x000000000beef000",
    reads: 1,
    lines: 7,
    target: Target::Aarch64,
};

pub(crate) fn count(counts: &Value, name: &str) -> u64 {
    counts[name].as_u64().expect("a count")
}

pub(crate) fn sum(counts: &Value, names: &[&str]) -> u64 {
    names.iter().map(|name| count(counts, name)).sum()
}

pub(crate) fn every_fault_is_accounted_for(counts: &Value, faults: u64) {
    assert_eq!(count(counts, "faults"), faults);
    assert_eq!(sum(counts, &["recorded", "lost", "kept_back"]), faults);
    assert_eq!(count(counts, "messages_lost"), 0);
    assert!(count(counts, "recorded") > 2, "the guest took part");
}

pub(crate) fn is_as_it_was(before: &Usage, after: &Usage) {
    assert!(after.resident.abs_diff(before.resident) <= FLAT);
    assert!(after.own.abs_diff(before.own) <= FLAT);
    assert!(after.peak - before.peak <= FLAT);
    assert_eq!(after.held(), before.held());
}

/// The events of this name so far.
pub(crate) fn events<'a>(served: &'a Served, name: &'a str) -> impl Iterator<Item = &'a Value> {
    served
        .events
        .iter()
        .filter(move |event| event["event"] == name)
}

/// What the guest's kernel said since `mark`.
pub(crate) fn since(guest: &Guest, mark: &str) -> Vec<String> {
    guest
        .must(&format!("kmsg-since {mark}"))
        .expect("the guest answers")
}

/// Lets the engine at 04.0 do this many bad reads, a page apart, and calls `meanwhile` for as long as
/// they last; gives how long that was.
pub(crate) fn storm(guest: &Guest, count: u32, mut meanwhile: impl FnMut()) -> Duration {
    let order = format!(
        "dma 00:04.0 0 read 0xdead0000 16 via=untranslated repeat={count} stride=4096 nowait"
    );
    let started = Instant::now();
    guest.must(&order).expect("the guest answers");
    loop {
        let status = guest
            .run("dma-status 00:04.0 0")
            .expect("the guest answers");
        if status.value("state") != Some("busy") {
            let took = started.elapsed();
            assert_eq!(status.value("state"), Some("error"), "{status:?}");
            assert_eq!(status.value("code"), Some("blocked"), "{status:?}");
            let errors = status.value("errors").expect("the guest answers");
            assert_eq!(errors, count.to_string(), "each of them was blocked");
            return took;
        }
        meanwhile();
        assert!(started.elapsed() < Duration::from_secs(60), "{status:?}");
    }
}

/// Bad reads before a storm, so that everything has been done once.
const FIRST: u32 = 20;

/// Storms until a record is lost and `enough` holds: a guest that gets more of the machine than its device
/// may keep up with one, and one that gets less may have no time for anything else. Gives how many reads
/// that were, and how long they lasted.
fn storms(
    guest: &Guest,
    served: &mut Served,
    count_of_one: u32,
    mut meanwhile: impl FnMut(),
    enough: impl Fn() -> bool,
) -> (u64, Duration) {
    const MOST: u32 = 20;
    let (mut reads, mut took) = (0, Duration::ZERO);
    for _ in 0..MOST {
        took += storm(guest, count_of_one, &mut meanwhile);
        reads += u64::from(count_of_one);
        let faults = reads + u64::from(FIRST);
        let counts = served.wait("counts", |event| count(event, "faults") == faults);
        if count(&counts, "lost") > 0 && enough() {
            return (reads, took);
        }
    }
    panic!(
        "no record was lost in {MOST} storms, or nothing else was done:\n{}",
        served.transcript()
    );
}

/// Waits until the guest's driver may say something again: its interval starts with the first fault, and
/// another where the storm from `began` to `ended` was still at it.
fn interval_ends(began: Instant, ended: Instant) {
    let from = match ended - began < INTERVAL - Duration::from_secs(1) {
        true => began,
        false => ended,
    };
    std::thread::sleep(OVER.saturating_sub(from.elapsed()));
}

/// One more bad read, an interval after the storm: its record reaches the guest, which has made room
/// for it. An AMD IOMMU's guest may have overlooked that its log stands still: then this read is lost
/// too, which tells it, and the next is not. Gives how many reads it took, too.
pub(crate) fn is_told_again(guest: &Guest, said: &Said) -> (Vec<String>, u64) {
    let mark = guest.must("kmsg-mark").expect("the guest answers").join("");
    let mut reads = 0;
    loop {
        reads += 1;
        guest
            .must("dma 00:04.0 1 read 0xbeef000 16 via=untranslated")
            .expect("the guest answers");
        let told = guest
            .run(&format!("kmsg-wait {mark} 10000 {}", said.address))
            .expect("the guest answers");
        let log = since(guest, &mark);
        if told.status == 0 {
            if let Some(pending) = said.pending {
                assert!(log.iter().any(|line| line.contains(pending)), "{log:#?}");
            }
            return (log, reads);
        }
        assert!(reads < said.reads, "it was not told: {log:#?}");
    }
}

/// The guest's log of a storm: what it must say, and how short it must be.
pub(crate) fn rate_limited_by_itself(log: &[String], took: Duration, said: &Said) {
    let has = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert!(has(said.overflow) >= 1, "records were lost: {log:#?}");
    assert!(has("callbacks suppressed") >= 1, "{log:#?}");
    let intervals = took.as_secs() / INTERVAL.as_secs() + 3;
    let mine = log.iter().filter(|line| line.contains(said.mine));
    let lines = mine.filter(|line| !line.contains(said.overflow)).count() as u64;
    let most = said.lines * BURST * intervals;
    assert!(lines <= most, "{lines} lines: {log:#?}");
    says_nothing_bad(log);
}

pub(crate) fn says_nothing_bad(log: &[String]) {
    for bad in ["WARNING", "BUG", "hung", "soft lockup", "stall"] {
        assert!(!log.iter().any(|line| line.contains(bad)), "{log:#?}");
    }
}

/// A second engine whose memory a user of VFIO mapped.
pub(crate) fn quiet_device(guest: &Guest) {
    guest
        .must("bind 00:08.0 vfio-pci")
        .expect("the guest answers");
    guest.must("vfio-open 00:08.0").expect("the guest answers");
    guest
        .must("vfio-map 0x100000 0x10000 rw 0x5aa5f00d")
        .expect("the guest answers");
    guest
        .must("bus-master 00:08.0 on")
        .expect("the guest answers");
}

pub(crate) fn quiet_device_works(guest: &Guest) {
    let order = "dma 00:08.0 0 verify 0x100000 0x10000 pattern=0x5aa5f00d via=untranslated";
    let done = guest.run(order).expect("the guest answers");
    assert_eq!(done.value("state"), Some("done"), "{done:?}");
    assert_eq!(done.value("check"), Some("0x0"), "every byte is right");
    assert_eq!(done.value("moved"), Some("65536"));
}

/// A hundred thousand bad DMAs of the engine at 04.0, while the one at 08.0 does its work.
pub(crate) fn leaves_guest_log_and_memory_as_they_were(
    arguments: &[&str],
    words: &str,
    said: &Said,
) {
    const COUNT: u32 = 100_000;
    let functions = ["--endpoint", "dma@04.0", "--endpoint", "dma@08.0"];
    let kernel = stock_for(said.target, Stock::Newest).expect("Debian's kernel");
    let guest = Guest::builder(kernel)
        .append(words)
        .module("vfio_pci")
        .module_with("vfio_iommu_type1", "allow_unsafe_interrupts=1");
    let arguments = [arguments, &functions, &["--verbose"]].concat();
    let mut served = Served::start_before(&guest, &arguments);
    let guest = served.boot(guest);
    quiet_device(&guest);
    quiet_device_works(&guest);
    guest
        .must("bus-master 00:04.0 on")
        .expect("the guest answers");
    guest
        .must(&format!(
            "dma 00:04.0 0 read 0xdead0000 16 via=untranslated repeat={FIRST}"
        ))
        .expect("the guest answers");
    // The budget of the log is whole again, and everything has been done once.
    std::thread::sleep(OVER);
    let mark = guest.must("kmsg-mark").expect("the guest answers").join("");
    let before = Usage::of(served.pid());

    let beside = Cell::new(0);
    let began = Instant::now();
    let works = || {
        quiet_device_works(&guest);
        beside.set(beside.get() + 1);
    };
    let enough = || beside.get() > 0;
    let (reads, took) = storms(&guest, &mut served, COUNT, works, enough);
    let after = Usage::of(served.pid());
    let beside = beside.get();
    println!("{reads} bad DMAs in {took:?}; a quiet device worked {beside} times meanwhile");
    println!("before: {before}\nafter:  {after}");
    is_as_it_was(&before, &after);

    assert_eq!(guest.must("ping").expect("the guest answers"), ["pong"]);
    interval_ends(began, Instant::now());
    let (told, more) = is_told_again(&guest, said);
    println!("at read {more}: {}", told.join("\n"));
    let spent = began.elapsed();
    let log = since(&guest, &mark);
    rate_limited_by_itself(&log, took, said);
    println!("the guest's log has {} lines of it", log.len());

    let last = served.stop_keeping();
    let counts = &last["counts"];
    println!("{counts}");
    let faults = count(counts, "faults");
    every_fault_is_accounted_for(counts, reads + u64::from(FIRST) + more);
    assert_eq!(sum(counts, &["logged", "suppressed"]), faults);
    assert_eq!(last["lines_lost"], 0);
    let lines = events(&served, "fault").count() as u64;
    assert_eq!(lines, count(counts, "logged"));
    let intervals = spent.as_secs() / INTERVAL.as_secs() + 1;
    assert!(lines <= BURST * (intervals + 1), "{lines} lines");
    let summed: u64 = events(&served, "suppressed")
        .map(|event| count(event, "count"))
        .sum();
    assert_eq!(summed, count(counts, "suppressed"), "the counts are exact");
    let summaries = events(&served, "suppressed").count() as u64;
    assert!(summaries <= intervals + 1, "one an interval: {summaries}");
    println!("our log: {lines} lines and {summaries} with counts");
}

/// The same without `--verbose`, on the older kernel and in legacy mode.
pub(crate) fn gets_no_line_of_ours(arguments: &[&str], words: &str, said: &Said) {
    const COUNT: u32 = 20_000;
    let arguments = [arguments, &["--endpoint", "dma@04.0", "--legacy"]].concat();
    let kernel = stock_for(said.target, Stock::Stable).expect("Debian's kernel");
    let guest = Guest::builder(kernel).append(words).module("vfio_pci");
    let mut served = Served::start_before(&guest, &arguments);
    let guest = served.boot(guest);
    // On arm64 this kernel knows the stream of a function only once it has a driver.
    guest
        .must("bind 00:04.0 vfio-pci")
        .expect("the guest answers");
    guest
        .must("bus-master 00:04.0 on")
        .expect("the guest answers");
    guest
        .must(&format!(
            "dma 00:04.0 0 read 0xdead0000 16 via=untranslated repeat={FIRST}"
        ))
        .expect("the guest answers");
    std::thread::sleep(OVER);
    let mark = guest.must("kmsg-mark").expect("the guest answers").join("");
    let (before, began) = (Usage::of(served.pid()), Instant::now());
    let (reads, took) = storms(&guest, &mut served, COUNT, || {}, || true);
    let after = Usage::of(served.pid());
    println!("{reads} bad DMAs in {took:?}\nbefore: {before}\nafter:  {after}");
    is_as_it_was(&before, &after);
    interval_ends(began, Instant::now());
    let (told, more) = is_told_again(&guest, said);
    println!("at read {more}: {}", told.join("\n"));
    rate_limited_by_itself(&since(&guest, &mark), took, said);

    let last = served.stop_keeping();
    let counts = &last["counts"];
    println!("{counts}");
    every_fault_is_accounted_for(counts, reads + u64::from(FIRST) + more);
    for name in ["logged", "suppressed"] {
        assert_eq!(count(counts, name), 0);
    }
    let names: BTreeSet<_> = served
        .events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    println!("{names:?}");
    assert!(!names.contains("fault") && !names.contains("suppressed"));
    // The only line about the faults: where the one capture is.
    assert_eq!(events(&served, "capture").count(), 1);
}
