//! Shared virtual addressing on an unmodified Debian kernel: its `idxd` driver binds our DSA, Debian's
//! `accel-config` sets a work queue up, and processes hand their own memory to the device.
#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod dsa_guest;
mod served;

use dsa_guest::{SLOT, complaints, guest, mix};
use served::Served;
use std::time::Duration;
use testkit::guest::Guest;

/// One scenario of the agent (`guests/agent/src/commands/dsa/scenarios.rs`, where the memory's part is
/// told and checked): the completion records, and what the device had to ask for.
struct Scenario {
    name: &'static str,
    /// What was done, and status, result and bytes completed of its record.
    records: &'static [(&'static str, &'static str)],
    /// Pages requested.
    pages: usize,
    /// Groups answered Success.
    granted: usize,
    /// Groups answered Invalid.
    refused: usize,
}

const DONE: &str = "status=0x01 result=0 completed=0x0";

const SCENARIOS: [Scenario; 12] = [
    Scenario {
        name: "operations",
        records: &[
            ("no-op", DONE),
            ("fill", DONE),
            ("compare pattern", DONE),
            ("move", DONE),
            ("compare", DONE),
            (
                "compare, different",
                "status=0x01 result=1 completed=0x2345",
            ),
            ("batch", "status=0x05 result=0 completed=0x10"),
        ],
        pages: 0,
        granted: 0,
        refused: 0,
    },
    Scenario {
        name: "anonymous",
        records: &[
            ("onto untouched memory", DONE),
            ("from untouched memory", DONE),
        ],
        pages: 8 + 2,
        granted: 2,
        refused: 0,
    },
    Scenario {
        name: "stop",
        records: &[
            (
                "a fill of untouched memory",
                "status=0x83 result=0 completed=0x0",
            ),
            (
                "one page was touched",
                "status=0x83 result=0 completed=0xff0",
            ),
            ("the rest of it", DONE),
        ],
        pages: 0,
        granted: 0,
        refused: 0,
    },
    Scenario {
        name: "tmpfs",
        records: &[
            ("into a shared mapping", DONE),
            ("into a private mapping", DONE),
        ],
        // The second copy misses its source too.
        pages: 4 + 8,
        granted: 2,
        refused: 0,
    },
    Scenario {
        name: "file",
        records: &[("from a file", DONE)],
        pages: 16 + 16,
        granted: 1,
        refused: 0,
    },
    Scenario {
        name: "fork",
        records: &[("before the fork", DONE), ("after the fork", DONE)],
        pages: 2 + 1,
        granted: 2,
        refused: 0,
    },
    Scenario {
        name: "huge",
        records: &[("into a huge page", DONE)],
        pages: 64,
        granted: 1,
        refused: 0,
    },
    Scenario {
        name: "dontneed",
        records: &[
            ("onto memory", DONE),
            ("onto memory", DONE),
            ("given up", DONE),
            ("onto memory", DONE),
            ("onto memory", DONE),
            ("given up", DONE),
            ("onto memory", DONE),
            ("onto memory", DONE),
            ("given up", DONE),
            ("onto memory", DONE),
            ("onto memory", DONE),
            ("given up", DONE),
        ],
        // Zeros are read from a page that cannot be written.
        pages: 12 * 4,
        granted: 12,
        refused: 0,
    },
    Scenario {
        name: "read-only",
        records: &[
            ("to read-only memory", "status=0x84 result=0 completed=0x0"),
            ("without waiting", "status=0x83 result=0 completed=0x0"),
            ("from read-only memory", DONE),
            ("writable again", DONE),
        ],
        pages: 2,
        granted: 0,
        refused: 1,
    },
    Scenario {
        name: "unmapped",
        records: &[
            ("while it is there", DONE),
            ("to unmapped memory", "status=0x84 result=0 completed=0x0"),
            ("without waiting", "status=0x83 result=0 completed=0x0"),
            ("from unmapped memory", "status=0x04 result=0 completed=0x0"),
            ("without waiting", "status=0x03 result=0 completed=0x0"),
            (
                "from memory without rights",
                "status=0x04 result=0 completed=0x0",
            ),
            (
                "from the kernel's half",
                "status=0x04 result=0 completed=0x0",
            ),
        ],
        pages: 2 + 2 + 1 + 1,
        granted: 0,
        refused: 4,
    },
    Scenario {
        name: "record",
        records: &[("onto an untouched page", DONE)],
        pages: 1,
        granted: 1,
        refused: 0,
    },
    Scenario {
        name: "large",
        records: &[("12 MiB of untouched memory", DONE)],
        // Linux allows 64 at a time.
        pages: 3072,
        granted: 48,
        refused: 0,
    },
];

/// Runs a scenario as a process of its own; its lines, and its status.
fn run(guest: &Guest, scenario: &str) -> (Vec<String>, i32) {
    let command = format!("exec /init run dsa /dev/dsa/wq0.0 {scenario}");
    let output = guest.run(&command).unwrap();
    (output.lines, output.status)
}

/// What was asked for since the last time: pages, groups granted, groups refused; and the most pages
/// that were outstanding at a time.
fn asked(served: &mut Served, from: usize) -> (usize, usize, usize, usize) {
    // The server tells of what the guest has seen already.
    std::thread::sleep(Duration::from_millis(100));
    served.catch_up();
    let (mut pages, mut granted, mut refused) = (0, 0, 0);
    let (mut open, mut most) = (std::collections::BTreeMap::new(), 0);
    for event in &served.events[from..] {
        let group = event["group"].as_u64();
        match event["step"].as_str() {
            Some("page request queued for the guest") => {
                pages += 1;
                *open.entry(group).or_insert(0) += 1;
                most = most.max(open.values().sum());
            }
            Some("group answered") => {
                open.remove(&group);
                match event["note"].as_str() {
                    Some("Success") => granted += 1,
                    _ => refused += 1,
                }
            }
            _ => {}
        }
    }
    (pages, granted, refused, most)
}

#[test]
fn processes_share_every_kind_of_memory_with_the_device() {
    let mut served = Served::start(&["--endpoint", SLOT, "--trace"]);
    let guest = guest(&mut served);
    for scenario in &SCENARIOS {
        served.catch_up();
        let from = served.events.len();
        let (lines, status) = run(&guest, scenario.name);
        assert_eq!(status, 0, "{}: {lines:#?}", scenario.name);
        let records: Vec<_> = lines
            .iter()
            .filter_map(|line| line.split_once(" fault=")?.0.split_once(": "))
            .collect();
        assert_eq!(records, scenario.records, "{}", scenario.name);
        let (pages, granted, refused, most) = asked(&mut served, from);
        assert_eq!(
            (pages, granted, refused),
            (scenario.pages, scenario.granted, scenario.refused),
            "{}",
            scenario.name
        );
        assert!(most <= 64, "{}: {most} pages outstanding", scenario.name);
    }
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    assert_eq!(last["counts"]["faults"], 0, "{last}");
    assert_eq!(last["counts"]["page_requests_lost"], 0, "{last}");
}

#[test]
fn a_process_that_dies_under_the_device_takes_nothing_with_it() {
    let mut served = Served::start(&["--endpoint", SLOT, "--trace"]);
    let guest = guest(&mut served);
    for round in 0..5 {
        let (lines, status) = run(&guest, "kill");
        assert_eq!(lines[0], "the device is at work", "{round}");
        assert_eq!(status, 128 + 9, "{round}: {lines:?}");
        let (lines, status) = run(&guest, "anonymous");
        assert_eq!(status, 0, "{round}: {lines:?}");
    }
    let log = guest.must("dmesg").unwrap();
    let faults: Vec<_> = log.iter().filter(|l| l.contains("DMAR: [DMA")).collect();
    assert!(!faults.is_empty(), "{log:#?}");
    for line in faults {
        // SPT.2: the kernel takes a dead process's entry out of the PASID table.
        for part in [
            "DMA Write PASID 0x",
            "[0000:00:07.0]",
            "[fault reason 0x59]",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
    // The driver shows the software error register of each descriptor it could not be told of.
    let errors = log.iter().filter_map(|l| l.split_once("err[0]: 0x"));
    let errors: Vec<_> = errors
        .map(|(_, word)| u64::from_str_radix(word, 16).unwrap())
        .collect();
    assert!(!errors.is_empty(), "{log:#?}");
    for word in errors {
        // A fill of work queue 0 whose completion record could not be written: error 0x1a.
        let known = word & !(0xf_ffff << 40) & !2;
        assert_eq!(known, 0x4_0000_1a2d, "apart from PASID and overflow");
    }
    assert_eq!(complaints(&guest), [""; 0]);
    served.stop();
}

#[test]
fn half_a_minute_of_mixed_traffic_uses_no_stale_translation() {
    let mut served = Served::start(&["--endpoint", SLOT]);
    let guest = guest(&mut served);
    mix(&guest, 30, 1);
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    assert_eq!(last["counts"]["faults"], 0, "{last}");
}
