//! Rounds of traffic on memory that changes under the device (`dsa-soak` of the agent).

use crate::dsa_guest::complaints;
use crate::served::Served;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use testkit::guest::Guest;

/// Work queues: a process each.
pub(crate) const QUEUES: usize = 2;

/// In every so many rounds one process is killed at its work.
const KILL: u64 = 3;

/// What the processes of all rounds say they did, summed.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    counts: BTreeMap<String, u64>,
    /// Processes that were killed.
    pub(crate) killed: u64,
}

impl Totals {
    /// Adds the numbers of a line of `name=value` words.
    fn add(&mut self, line: &str) {
        for (name, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            let value: u64 = value.parse().expect("a number");
            *self.counts.entry(name.to_owned()).or_default() += value;
        }
    }

    /// One of the sums.
    pub(crate) fn of(&self, name: &str) -> u64 {
        *self.counts.get(name).expect("the agent counts it")
    }
}

fn spawn(guest: &Guest, command: &str) -> String {
    guest
        .must(&format!("spawn {command}"))
        .expect("it starts")
        .concat()
}

/// Waits for a process; its last line, and its status.
fn ended(guest: &Guest, pid: &str) -> (Vec<String>, i32) {
    let command = format!("wait {pid} 100000");
    let patience = Duration::from_secs(110);
    let output = guest.run_within(&command, patience).expect("an answer");
    (output.lines, output.status)
}

/// A process on each queue for so many seconds, and the kernel moving pages about. Every third round,
/// the second process is killed in the middle, and another takes its place.
pub(crate) fn round(guest: &Guest, seconds: u64, round: u64, totals: &mut Totals) {
    let soak = |queue: usize, time: u64, seed: u64| {
        spawn(
            guest,
            &format!("dsa-soak /dev/dsa/wq0.{queue} {time} {seed}"),
        )
    };
    let time = seconds * 1000;
    let seeds = 1 + round * 4;
    let first = soak(0, time, seeds);
    let shaker = spawn(guest, &format!("shake {time} {seeds}"));
    let second = if round % KILL == KILL - 1 {
        let victim = soak(1, time, seeds + 1);
        let third = seconds * 1000 / 3;
        guest.must(&format!("sleep {third}")).expect("it sleeps");
        guest
            .must(&format!("signal {victim} 9"))
            .expect("it was there");
        let (lines, status) = ended(guest, &victim);
        assert_eq!(status, 128 + 9, "round {round}: {lines:#?}");
        totals.killed += 1;
        soak(1, time / 3, seeds + 2)
    } else {
        soak(1, time, seeds + 1)
    };
    for pid in [first, second, shaker] {
        let (lines, status) = ended(guest, &pid);
        assert_eq!(status, 0, "round {round}: {lines:#?}");
        println!("round {round}: {}", lines.join(" "));
        totals.add(&lines.join(" "));
    }
}

/// What must be true in the end: every kind of thing was done, and nothing was lost.
pub(crate) fn conclude(mut served: Served, guest: &Guest, totals: &Totals) -> Value {
    assert_eq!(complaints(guest), [""; 0]);
    served.catch_up();
    let captured = served.events.iter().filter(|e| e["event"] == "capture");
    let codes: BTreeSet<_> = captured.filter_map(|e| e["code"].as_u64()).collect();
    // SPT.2: where a process is killed, its entry of the PASID table goes while the device is at work.
    let expected: &[u64] = if totals.killed == 0 { &[] } else { &[0x59] };
    for code in &codes {
        assert!(
            expected.contains(code),
            "{code:#x}: {}",
            served.transcript()
        );
    }
    let last = served.stop();
    let counts = &last["counts"];
    println!("{totals:?}\n{counts}");
    for name in [
        "fill",
        "copy",
        "check",
        "compare",
        "refused",
        "raced",
        "retired",
        "witnesses",
        "stamp",
        "give-up",
        "renew",
        "close",
        "protect",
        "move",
        "fork",
        "collapse",
        "migrated",
    ] {
        assert!(totals.of(name) > 0, "{name}: {totals:?}");
    }
    for none in [
        "groups_unanswered",
        "answers_unexpected",
        "page_requests_lost",
        "responses_lost",
        "queue_errors",
    ] {
        assert_eq!(counts[none], 0, "{none}: {counts}");
    }
    assert_eq!(counts["groups"], counts["groups_answered"], "{counts}");
    // The guest answers each group, or the unit does: where a process is gone.
    let sent = counts["groups"].as_u64();
    let of = |name: &str| counts[name].as_u64().expect("a count");
    let answers = of("responses") + of("page_requests_answered");
    assert_eq!(sent, Some(answers), "{counts}");
    if totals.killed == 0 {
        assert_eq!(counts["faults"], 0, "{counts}");
    }
    for some in ["groups", "invalidations"] {
        assert!(counts[some].as_u64() > Some(0), "{some}: {counts}");
    }
    last
}
