//! Storms: a stock guest whose device does nothing but bad DMA, and what it costs us.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod process;
mod served;

use process::Usage;
use serde_json::Value;
use served::Served;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use testkit::guest::Guest;
use testkit::kernel::{Stock, own, stock};

/// Lines of one device in one interval, and the interval: as Linux's `printk_ratelimited`.
const BURST: u64 = 10;
const INTERVAL: Duration = Duration::from_secs(5);

/// From the start of a storm until the interval of its first fault is over for the guest too, whose
/// clock starts with the first interrupt.
const OVER: Duration = Duration::from_millis(6500);

/// What our memory may differ by, in KiB: allocators keep some of what they had.
const FLAT: u64 = 1024;

/// What the guest says of FSTS_REG with PPF alone, and with PFO too. Intel VT-d, "Fault Status
/// Register".
const PENDING: &str = "DRHD: handling fault status reg 2";
const OVERFLOW: &str = "DRHD: handling fault status reg 3";

fn count(counts: &Value, name: &str) -> u64 {
    counts[name].as_u64().expect("a count")
}

fn sum(counts: &Value, names: &[&str]) -> u64 {
    names.iter().map(|name| count(counts, name)).sum()
}

fn every_fault_is_accounted_for(counts: &Value, faults: u64) {
    assert_eq!(count(counts, "faults"), faults);
    assert_eq!(sum(counts, &["recorded", "lost", "kept_back"]), faults);
    assert_eq!(count(counts, "messages_lost"), 0);
    assert!(count(counts, "recorded") > 2, "the guest took part");
}

fn is_as_it_was(before: &Usage, after: &Usage) {
    assert!(after.resident.abs_diff(before.resident) <= FLAT);
    assert!(after.own.abs_diff(before.own) <= FLAT);
    assert!(after.peak - before.peak <= FLAT);
    assert_eq!(after.held(), before.held());
}

/// The events of this name so far.
fn events<'a>(served: &'a Served, name: &'a str) -> impl Iterator<Item = &'a Value> {
    served
        .events
        .iter()
        .filter(move |event| event["event"] == name)
}

/// What the guest's kernel said since `mark`.
fn since(guest: &Guest, mark: &str) -> Vec<String> {
    guest.must(&format!("kmsg-since {mark}")).unwrap()
}

/// Lets the engine at 04.0 do this many bad reads, a page apart, and calls `meanwhile` for as long as
/// they last; gives how long that was.
fn storm(guest: &Guest, count: u32, mut meanwhile: impl FnMut()) -> Duration {
    let order = format!(
        "dma 00:04.0 0 read 0xdead0000 16 via=untranslated repeat={count} stride=4096 nowait"
    );
    let started = Instant::now();
    guest.must(&order).unwrap();
    loop {
        let status = guest.run("dma-status 00:04.0 0").unwrap();
        if status.value("state") != Some("busy") {
            let took = started.elapsed();
            assert_eq!(status.value("state"), Some("error"), "{status:?}");
            assert_eq!(status.value("code"), Some("blocked"), "{status:?}");
            let errors = status.value("errors").unwrap();
            assert_eq!(errors, count.to_string(), "each of them was blocked");
            return took;
        }
        meanwhile();
        assert!(started.elapsed() < Duration::from_secs(60), "{status:?}");
    }
}

/// One more bad read, an interval after the storm: its record reaches the guest, which finds PFO
/// cleared.
fn is_told_again(guest: &Guest) -> Vec<String> {
    let mark = guest.must("kmsg-mark").unwrap().join("");
    guest
        .must("dma 00:04.0 1 read 0xbeef000 16 via=untranslated")
        .unwrap();
    let told = guest
        .run(&format!("kmsg-wait {mark} 10000 fault addr 0xbeef000"))
        .unwrap();
    let log = since(guest, &mark);
    assert_eq!(told.status, 0, "it was not told: {log:#?}");
    assert!(log.iter().any(|line| line.contains(PENDING)), "{log:#?}");
    log
}

/// The guest's log of a storm: what it must say, and how short it must be.
fn rate_limited_by_itself(log: &[String], took: Duration) {
    let has = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert!(has(OVERFLOW) >= 1, "PFO was set: {log:#?}");
    assert!(has("callbacks suppressed") >= 1, "{log:#?}");
    let intervals = took.as_secs() / INTERVAL.as_secs() + 3;
    let lines = has("DMAR") as u64;
    assert!(lines <= 2 * BURST * intervals, "{lines} lines: {log:#?}");
    says_nothing_bad(log);
}

fn says_nothing_bad(log: &[String]) {
    for bad in ["WARNING", "BUG", "hung", "soft lockup", "stall"] {
        assert!(!log.iter().any(|line| line.contains(bad)), "{log:#?}");
    }
}

/// A second engine whose memory a user of VFIO mapped.
fn quiet_device(guest: &Guest) {
    guest.must("bind 00:08.0 vfio-pci").unwrap();
    guest.must("vfio-open 00:08.0").unwrap();
    guest
        .must("vfio-map 0x100000 0x10000 rw 0x5aa5f00d")
        .unwrap();
    guest.must("bus-master 00:08.0 on").unwrap();
}

fn quiet_device_works(guest: &Guest) {
    let order = "dma 00:08.0 0 verify 0x100000 0x10000 pattern=0x5aa5f00d via=untranslated";
    let done = guest.run(order).unwrap();
    assert_eq!(done.value("state"), Some("done"), "{done:?}");
    assert_eq!(done.value("check"), Some("0x0"), "every byte is right");
    assert_eq!(done.value("moved"), Some("65536"));
}

#[test]
fn a_hundred_thousand_bad_dmas_leave_guest_log_and_memory_as_they_were() {
    const COUNT: u32 = 100_000;
    let mut served = Served::start(&[
        "--endpoint",
        "dma@04.0",
        "--endpoint",
        "dma@08.0",
        "--verbose",
    ]);
    let guest = served.boot(
        Guest::builder(stock(Stock::Newest).unwrap())
            .append("intel_iommu=on,sm_on")
            .module("vfio_pci")
            .module_with("vfio_iommu_type1", "allow_unsafe_interrupts=1"),
    );
    quiet_device(&guest);
    quiet_device_works(&guest);
    guest.must("bus-master 00:04.0 on").unwrap();
    guest
        .must("dma 00:04.0 0 read 0xdead0000 16 via=untranslated repeat=20")
        .unwrap();
    // The budget of the log is whole again, and everything has been done once.
    std::thread::sleep(OVER);
    let mark = guest.must("kmsg-mark").unwrap().join("");
    let before = Usage::of(served.pid());

    let mut beside = 0;
    let began = Instant::now();
    let took = storm(&guest, COUNT, || {
        quiet_device_works(&guest);
        beside += 1;
    });
    let after = Usage::of(served.pid());
    println!("{COUNT} bad DMAs in {took:?}; a quiet device worked {beside} times meanwhile");
    println!("before: {before}\nafter:  {after}");
    assert!(beside >= 1);
    is_as_it_was(&before, &after);

    assert_eq!(guest.must("ping").unwrap(), ["pong"]);
    std::thread::sleep(OVER.saturating_sub(began.elapsed()));
    println!("{}", is_told_again(&guest).join("\n"));
    let spent = began.elapsed();
    let log = since(&guest, &mark);
    rate_limited_by_itself(&log, took);
    println!("the guest's log has {} lines of it", log.len());

    let last = served.stop_keeping();
    let counts = &last["counts"];
    println!("{counts}");
    let faults = count(counts, "faults");
    every_fault_is_accounted_for(counts, u64::from(COUNT) + 20 + 1);
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

/// Without `--verbose`, on the older kernel and in legacy mode.
#[test]
fn by_default_a_storm_gets_no_line_of_ours_at_all() {
    const COUNT: u32 = 20_000;
    let mut served = Served::start(&["--endpoint", "dma@04.0", "--legacy"]);
    let guest = served.boot(Guest::builder(stock(Stock::Stable).unwrap()).append("intel_iommu=on"));
    guest.must("bus-master 00:04.0 on").unwrap();
    guest
        .must("dma 00:04.0 0 read 0xdead0000 16 via=untranslated repeat=20")
        .unwrap();
    std::thread::sleep(OVER);
    let mark = guest.must("kmsg-mark").unwrap().join("");
    let (before, began) = (Usage::of(served.pid()), Instant::now());
    let took = storm(&guest, COUNT, || {});
    let after = Usage::of(served.pid());
    println!("{COUNT} bad DMAs in {took:?}\nbefore: {before}\nafter:  {after}");
    is_as_it_was(&before, &after);
    std::thread::sleep(OVER.saturating_sub(began.elapsed()));
    println!("{}", is_told_again(&guest).join("\n"));
    rate_limited_by_itself(&since(&guest, &mark), took);

    let last = served.stop_keeping();
    let counts = &last["counts"];
    println!("{counts}");
    let faults = u64::from(COUNT) + 20 + 1;
    every_fault_is_accounted_for(counts, faults);
    for name in ["logged", "suppressed"] {
        assert_eq!(count(counts, name), 0);
    }
    let said: BTreeSet<_> = served
        .events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    println!("{said:?}");
    assert!(!said.contains("fault") && !said.contains("suppressed"));
    // The only line about the faults: where the one capture is.
    assert_eq!(events(&served, "capture").count(), 1);
}

/// Requests in one group of the engine, and groups in 16 MiB.
const GROUP: u64 = 16;
const GROUPS: u64 = 4096 / GROUP;

/// Who answers a group: the guest, or the unit in its place.
const ANSWERS: [&str; 2] = ["responses", "page_requests_answered"];

/// A process's memory, shared with the engine: 16 MiB to flood and some more to work in.
struct Shared<'a> {
    guest: &'a Guest,
    pasid: String,
    base: u64,
}

impl<'a> Shared<'a> {
    fn open(guest: &'a Guest) -> Self {
        guest.must("bind 00:04.0 uio_pci_sva").unwrap();
        let opened = guest.run("sva-open 00:04.0 0x1100000").unwrap();
        let base = opened.value("addr").unwrap().trim_start_matches("0x");
        Self {
            guest,
            pasid: opened.value("pasid").unwrap().to_owned(),
            base: u64::from_str_radix(base, 16).unwrap(),
        }
    }

    /// Page requests for 16 MiB, `repeat` times over, without regard to the allocation and without
    /// waiting for answers.
    fn flood(&self, repeat: u64) {
        let (at, pasid) = (self.base, &self.pasid);
        let order = format!(
            "dma 00:04.0 0 page-requests {at:#x} 0x1000000 write pasid={pasid} flags=2 \
             repeat={repeat} timeout=60000"
        );
        let sent = self.guest.run(&order).unwrap();
        assert_eq!(sent.value("state"), Some("done"), "{sent:?}");
    }

    /// Fills two groups of pages that nobody has touched yet: each has to be asked for.
    fn fill(&self, place: u64) -> String {
        let (at, pasid) = (0x100_0000 + place * 0x2_0000, &self.pasid);
        let (to, pattern) = (self.base + at, 0x1111 * (place + 1));
        let order =
            format!("dma 00:04.0 1 fill {to:#x} 0x20000 pattern={pattern:#x} pasid={pasid}");
        let done = self.guest.run(&order).unwrap();
        assert_eq!(done.value("state"), Some("done"), "{done:?}");
        assert_eq!(done.value("pages"), Some("32"), "{done:?}");
        let seen = self
            .guest
            .must(&format!("sva-count {at:#x} 0x20000 {pattern:#x}"));
        assert_eq!(seen.unwrap(), ["words=16384"]);
        done.lines.join("\n")
    }
}

/// Our own kernel: only `uio_pci_generic_sva` gives this engine an address space, and Debian does not
/// build it. Without one, Linux answers each request with Invalid.
#[test]
fn a_page_request_ring_that_overflows_is_cleared_by_the_guest_and_works_again() {
    const ROUNDS: u64 = 2;
    const REPEAT: u64 = 8;
    const FLOODS: u32 = 50;
    let mut served = Served::start(&["--endpoint", "dma@04.0"]);
    let guest = served.boot(Guest::builder(own().unwrap()).append("intel_iommu=on,sm_on"));
    let shared = Shared::open(&guest);
    println!("before: {}", shared.fill(0));
    let mut groups = 2;
    let mut lost = 0;
    for round in 1..=ROUNDS {
        let mark = guest.must("kmsg-mark").unwrap().join("");
        // A guest that gets more of the machine than the device may keep up with a flood.
        for flood in 1.. {
            assert!(flood <= FLOODS, "the ring never overflowed");
            shared.flood(REPEAT);
            groups += REPEAT * GROUPS;
            // The guest answers from a thread of less priority than the one that clears the overflow.
            let counts = served.wait("counts", |event| sum(event, &ANSWERS) == groups);
            let before = std::mem::replace(&mut lost, count(&counts, "page_requests_lost"));
            if lost > before {
                println!("round {round}: {flood} floods");
                break;
            }
        }
        println!("after overflow {round}: {}", shared.fill(round));
        groups += 2;
        // Linux says "cleared" without an end of line, so that it shows with the next message.
        guest.must("write /dev/kmsg end of the round").unwrap();
        let log = since(&guest, &mark);
        for text in ["PRQ overflow detected", "PRQ overflow cleared"] {
            let line = log.iter().find(|line| line.contains(text));
            println!("{}", line.unwrap_or_else(|| panic!("no {text}: {log:#?}")));
        }
        says_nothing_bad(&log);
    }
    // Linux waits there for what is still in the ring.
    guest.must("sva-close").unwrap();

    let last = served.stop_keeping();
    let counts = &last["counts"];
    println!("{counts}");
    assert!(count(counts, "page_requests_lost") > 0);
    assert_eq!(
        sum(counts, &["page_requests", "page_requests_lost"]),
        groups * GROUP,
        "each is in the ring or counted as lost"
    );
    assert_eq!(
        sum(counts, &ANSWERS),
        groups,
        "each group is answered once, by the guest or by the unit"
    );
    for name in ["page_requests_refused", "responses_lost", "queue_errors"] {
        assert_eq!(count(counts, name), 0, "{name}");
    }
    assert_eq!(count(counts, "faults"), 0);
}
