//! iommufd in the guest: a program there writes the page tables of a DMA engine behind our unit and
//! answers its page requests from a fault queue.
//!
//! The kernel is our own build: none of Debian's has iommufd. What each scenario does is in
//! `guests/agent/src/commands/iommufd/scenarios/`; what it must come to is in `scenarios.rs`.
#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod scenarios;
#[path = "../served/mod.rs"]
mod served;
mod stalls;

use scenarios::{SCENARIOS, Scenario};
use serde_json::Value;
use served::{NARROW, Served};
use stalls::STALLS;
use std::time::{Duration, Instant};
use testkit::guest::Guest;
use testkit::kernel::{Target, own, own_for};

/// What the server says of page requests and answers, and of faults, one a line.
fn page_requests(events: &[Value]) -> Vec<String> {
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

/// What the server says of held transactions, one a line; `first` is the tag of the first one.
fn held(events: &[Value], first: u64) -> Vec<String> {
    let from_first = |tag: &str| tag.parse::<u64>().expect("a tag") - first;
    let mut lines = Vec::new();
    for event in events {
        let note = event["note"].as_str().unwrap_or_default();
        match event["step"].as_str() {
            Some("fault") => {
                assert_eq!(event["device"], "00:04.0", "{event}");
                let (what, tag) = note.split_once(", held as ").expect("it is held");
                lines.push(format!("held {}: {what}", from_first(tag)));
            }
            Some("held request let go") => {
                let (tag, how) = note.split_once(": ").expect("a tag");
                lines.push(format!("let go {}: {how}", from_first(tag)));
            }
            _ => {}
        }
    }
    lines
}

/// A line of the guest's with its group counted from `first` on.
fn counted_from(first: u64, line: &str) -> String {
    let word = |word: &str| match word.strip_prefix("group=") {
        Some(group) => format!("group={}", group.parse::<u64>().expect("a number") - first),
        None => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Requests and answers each in their order. The device's thread tells of the ones and the guest's
/// processor of the others, so that a request that is answered very soon may come behind its answer.
fn apart<'a>(lines: impl Iterator<Item = &'a str>) -> [Vec<&'a str>; 2] {
    let (requests, answers) = lines.partition(|line| line.contains(" at 0x"));
    [requests, answers]
}

/// What must not be in a guest's log: faults of the unit, page requests that went wrong, and the
/// kernel's complaints about itself.
const COMPLAINTS: [&str; 9] = [
    "DMAR: [",
    "handling fault status",
    "Invalid page request",
    "unexpected global error",
    "EVTQ overflow",
    "iopf with pasid",
    "WARNING:",
    "BUG:",
    "Call Trace",
];

/// Plays the scenarios, of which the server says what `steps` makes of its events.
fn play(
    guest: &Guest,
    served: &mut Served,
    scenarios: &[Scenario],
    steps: impl Fn(&[Value], u64) -> Vec<String>,
) {
    guest.must("bind 00:04.0 vfio-pci").unwrap();
    let mark = guest.must("kmsg-mark").unwrap().remove(0);
    // Transactions held so far: tags go up by one.
    let mut first = 0;
    for scenario in scenarios {
        let name = scenario.name;
        served.catch_up();
        let before = served.events.len();
        let output = guest.run(&format!("iommufd 00:04.0 {name}")).unwrap();
        let said: String = output
            .lines
            .iter()
            .map(|line| format!("{}\n", counted_from(first, line)))
            .collect();
        assert_eq!(said, scenario.guest, "{name}: the guest");
        assert_eq!(output.status, 0, "{name}");
        // What the server has done it may still have to print.
        let deadline = Instant::now() + Duration::from_secs(5);
        let expected = apart(scenario.server.lines());
        loop {
            served.catch_up();
            let stepped = steps(&served.events[before..], first);
            let stepped = apart(stepped.iter().map(String::as_str));
            if stepped != expected && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            assert_eq!(stepped, expected, "{name}: the server");
            break;
        }
        let held = scenario.server.lines().filter(|l| l.starts_with("held "));
        first += held.count() as u64;
    }
    let log = guest.must(&format!("kmsg-since {mark}")).unwrap();
    // The log is the right one: vfio resets the function each time it is opened.
    assert!(log.iter().any(|line| line.ends_with("reset done")));
    for complaint in COMPLAINTS {
        let found = log.iter().find(|line| line.contains(complaint));
        assert_eq!(found, None, "in the guest's log");
    }
}

/// Lines of the server, of all scenarios, that have a word.
fn sum(scenarios: &[Scenario], word: &str) -> usize {
    let lines = scenarios.iter().flat_map(|s| s.server.lines());
    lines.filter(|line| line.contains(word)).count()
}

#[test]
fn a_guest_program_answers_page_requests_through_iommufd() {
    let mut served = Served::start(&["--endpoint", "dma@04.0", "--trace"]);
    let kernel = own().unwrap();
    let guest = served.boot(
        Guest::builder(kernel).append("intel_iommu=on,sm_on iommufd.allow_unsafe_interrupts=1"),
    );
    play(&guest, &mut served, SCENARIOS, |events, _| {
        page_requests(events)
    });
    drop(guest);
    let last = served.stop();
    assert_eq!(last["lines_lost"], 0, "{last}");
    let answers = sum(SCENARIOS, ": Success") + sum(SCENARIOS, ": Invalid");
    assert_eq!((sum(SCENARIOS, " at 0x"), answers), (38, 34));
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

/// The same on arm64, where an SMMU holds transactions: Linux reports each as a page request of its own.
#[test]
fn a_guest_program_resolves_held_transactions_through_iommufd() {
    let kernel = own_for(Target::Aarch64).unwrap();
    let guest = Guest::builder(kernel)
        .arguments(NARROW)
        .append("iommufd.allow_unsafe_interrupts=1");
    let arguments = ["--arch", "smmuv3", "--force-stall", "--trace"];
    let engine = ["--endpoint", "dma@04.0"];
    let mut served = Served::start_before(&guest, &[&arguments[..], &engine].concat());
    let guest = served.boot(guest);
    let mark = guest.must("kmsg-mark").unwrap().remove(0);
    play(&guest, &mut served, STALLS, held);
    // Where there is no queue the kernel shows what it refuses.
    let log = guest.must(&format!("kmsg-since {mark}")).unwrap();
    let shown = log.iter().filter(|line| line.contains("event 0x"));
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown.len(), 1, "{log:#?}");
    assert!(shown[0].ends_with("event 0x10 received:"), "{shown:?}");
    drop(guest);
    let last = served.stop();
    assert_eq!(last["lines_lost"], 0, "{last}");
    let ends = sum(STALLS, ": Retry") + sum(STALLS, ": Abort");
    assert_eq!((sum(STALLS, " at 0x"), ends), (27, 27));
    for (name, count) in [
        ("faults", 27),
        ("recorded", 27),
        ("lost", 0),
        ("page_requests", 0),
        ("queue_errors", 0),
        ("vanished", 0),
        ("messages_lost", 0),
    ] {
        assert_eq!(last["counts"][name], count, "{name}: {last}");
    }
}
