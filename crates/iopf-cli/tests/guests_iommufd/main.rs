//! iommufd in the guest: a program there writes the page tables of a DMA engine behind our unit and
//! answers its page requests from a fault queue.
//!
//! The kernel is our own build: none of Debian's has iommufd. What each scenario does is in
//! `guests/agent/src/commands/iommufd/scenarios/`; what it must come to is in `scenarios.rs`.

mod scenarios;
#[path = "../served/mod.rs"]
mod served;

use scenarios::SCENARIOS;
use serde_json::Value;
use served::Served;
use std::time::{Duration, Instant};
use testkit::guest::Guest;
use testkit::kernel::own;

/// What the server says of page requests and answers, and of faults, one a line.
fn steps(events: &[Value]) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        let step = event["step"].as_str().unwrap_or_default();
        if step.starts_with("page request") || step == "group answered" || step == "fault" {
            assert_eq!(event["device"], "00:04.0", "{event}");
            let note = event["note"].as_str().expect("a note");
            lines.push(match step {
                "fault" => format!("fault: {note}"),
                _ => format!("group {}: {note}", event["group"]),
            });
        }
    }
    lines
}

/// Requests and answers each in their order. The device's thread tells of the ones and the guest's
/// processor of the others, so that a request that is answered very soon may come behind its answer.
fn apart<'a>(lines: impl Iterator<Item = &'a str>) -> [Vec<&'a str>; 2] {
    let (requests, answers) = lines.partition(|line| line.contains(" at 0x"));
    [requests, answers]
}

/// What must not be in a guest's log: faults of the unit, page requests that went wrong, and the
/// kernel's complaints about itself.
const COMPLAINTS: [&str; 7] = [
    "DMAR: [",
    "handling fault status",
    "Invalid page request",
    "iopf with pasid",
    "WARNING:",
    "BUG:",
    "Call Trace",
];

#[test]
fn a_guest_program_answers_page_requests_through_iommufd() {
    let mut served = Served::start(&["--endpoint", "dma@04.0", "--trace"]);
    let kernel = own().unwrap();
    let guest = served.boot(
        Guest::builder(kernel).append("intel_iommu=on,sm_on iommufd.allow_unsafe_interrupts=1"),
    );
    guest.must("bind 00:04.0 vfio-pci").unwrap();
    let mark = guest.must("kmsg-mark").unwrap().remove(0);
    for scenario in SCENARIOS {
        let name = scenario.name;
        served.catch_up();
        let before = served.events.len();
        let output = guest.run(&format!("iommufd 00:04.0 {name}")).unwrap();
        let said: String = output
            .lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(said, scenario.guest, "{name}: the guest");
        assert_eq!(output.status, 0, "{name}");
        // What the server has done it may still have to print.
        let deadline = Instant::now() + Duration::from_secs(5);
        let expected = apart(scenario.server.lines());
        loop {
            served.catch_up();
            let stepped = steps(&served.events[before..]);
            let stepped = apart(stepped.iter().map(String::as_str));
            if stepped != expected && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            assert_eq!(stepped, expected, "{name}: the server");
            break;
        }
    }
    let log = guest.must(&format!("kmsg-since {mark}")).unwrap();
    // The log is the right one: vfio resets the function each time it is opened.
    assert!(log.iter().any(|line| line.ends_with("reset done")));
    for complaint in COMPLAINTS {
        let found = log.iter().find(|line| line.contains(complaint));
        assert_eq!(found, None, "in the guest's log");
    }
    drop(guest);
    let last = served.stop();
    assert_eq!(last["lines_lost"], 0, "{last}");
    let sum = |word: &str| -> usize {
        let lines = SCENARIOS
            .iter()
            .flat_map(|scenario| scenario.server.lines());
        lines.filter(|line| line.contains(word)).count()
    };
    assert_eq!(
        (sum(" at 0x"), sum(": Success") + sum(": Invalid")),
        (38, 34)
    );
    for (name, count) in [
        ("page_requests", 38),
        ("responses", 34),
        ("responses_lost", 0),
        ("page_requests_lost", 0),
        ("page_requests_refused", 0),
        ("faults", 0),
        ("recorded", 0),
        ("lost", 0),
        ("queue_errors", 0),
        ("vanished", 0),
        ("messages_lost", 0),
    ] {
        assert_eq!(last["counts"][name], count, "{name}: {last}");
    }
}
