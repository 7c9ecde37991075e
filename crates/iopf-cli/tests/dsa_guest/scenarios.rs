//! What a process does to its memory while a device works on it, and what must come of it.

use crate::served::Served;
use std::time::Duration;
use testkit::guest::Guest;

/// One scenario of the agent (`guests/agent/src/commands/dsa/scenarios.rs`, where the memory's part is
/// told and checked): the completion records, and what the device had to ask for.
pub(crate) struct Scenario {
    name: &'static str,
    /// What was done, and status, result and bytes completed of its record.
    records: &'static [(&'static str, &'static str)],
    /// Pages requested.
    pages: usize,
    /// Groups answered Success.
    granted: usize,
    /// The same two where Linux allows 32 pages at a time and not 64, if that is not the same.
    with_32: Option<(usize, usize)>,
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
        with_32: None,
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
        with_32: None,
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
        with_32: None,
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
        with_32: None,
        refused: 0,
    },
    Scenario {
        name: "file",
        records: &[("from a file", DONE)],
        pages: 16 + 16,
        granted: 1,
        with_32: None,
        refused: 0,
    },
    Scenario {
        name: "fork",
        records: &[("before the fork", DONE), ("after the fork", DONE)],
        pages: 2 + 1,
        granted: 2,
        with_32: None,
        refused: 0,
    },
    Scenario {
        name: "huge",
        records: &[("into a huge page", DONE)],
        pages: 64,
        granted: 1,
        with_32: Some((32, 1)),
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
        with_32: None,
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
        with_32: None,
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
        with_32: None,
        refused: 4,
    },
    Scenario {
        name: "record",
        records: &[("onto an untouched page", DONE)],
        pages: 1,
        granted: 1,
        with_32: None,
        refused: 0,
    },
    Scenario {
        name: "large",
        records: &[("12 MiB of untouched memory", DONE)],
        // Linux allows 64 at a time.
        pages: 3072,
        granted: 48,
        with_32: Some((3072, 96)),
        refused: 0,
    },
];

/// Runs a scenario as a process of its own; its lines, and its status.
pub(crate) fn run(guest: &Guest, scenario: &str) -> (Vec<String>, i32) {
    let command = format!("exec /init run dsa /dev/dsa/wq0.0 {scenario}");
    let output = guest.run(&command).expect("the guest answers");
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

/// Runs them all; Linux allows `allocation` pages outstanding at a time, 64 or 32.
pub(crate) fn all_pass(guest: &Guest, served: &mut Served, allocation: usize) {
    for scenario in &SCENARIOS {
        served.catch_up();
        let from = served.events.len();
        let (lines, status) = run(guest, scenario.name);
        assert_eq!(status, 0, "{}: {lines:#?}", scenario.name);
        let records: Vec<_> = lines
            .iter()
            .filter_map(|line| line.split_once(" fault=")?.0.split_once(": "))
            .collect();
        assert_eq!(records, scenario.records, "{}", scenario.name);
        let (pages, granted, refused, most) = asked(served, from);
        let usual = (scenario.pages, scenario.granted);
        let expected = scenario.with_32.filter(|_| allocation == 32);
        assert_eq!(
            ((pages, granted), refused),
            (expected.unwrap_or(usual), scenario.refused),
            "{}",
            scenario.name
        );
        assert!(most <= allocation, "{}: {most} pages", scenario.name);
    }
}
