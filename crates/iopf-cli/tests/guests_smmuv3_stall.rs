//! Transactions that an SMMU holds, on our own arm64 kernel: Linux resolves them for a process that
//! shares its memory with a device (`uio_pci_generic_sva`), and the device goes on.
#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod served;

use served::{NARROW, Served};
use std::time::{Duration, Instant};
use testkit::guest::{Guest, Output};
use testkit::kernel::{Target, own_for};

/// How Linux is told that the engine's transactions may be held: by the device tree, and by the unit.
const WAYS: [&[&str]; 2] = [&["--stall", "04.0"], &["--force-stall"]];

/// A server of one DMA engine whose transactions may be held, and a guest with its driver.
fn boot(way: &[&str]) -> (Served, Guest) {
    let guest = Guest::builder(own_for(Target::Aarch64).unwrap()).arguments(NARROW);
    let arguments = ["--arch", "smmuv3", "--trace", "--endpoint", "dma@04.0"];
    let mut served = Served::start_before(&guest, &[&arguments, way].concat());
    let guest = served.boot(guest);
    guest.must("bind 00:04.0 uio_pci_sva").unwrap();
    (served, guest)
}

/// What was held, and how each was let go, by tag.
fn held(served: &mut Served, wanted: usize) -> Vec<(String, String)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        served.catch_up();
        let notes = |step: &'static str| {
            let events = served.events.iter().filter(move |e| e["step"] == step);
            events.filter_map(|e| e["note"].as_str())
        };
        let ends: Vec<_> = notes("held request let go")
            .filter_map(|note| note.split_once(": "))
            .collect();
        let held: Vec<_> = notes("fault")
            .filter_map(|note| note.split_once(", held as "))
            .filter_map(|(what, tag)| {
                let mut own = ends.iter().filter(|(other, _)| *other == tag);
                let how = own.next().map(|(_, how)| (*how).to_owned());
                assert!(own.next().is_none(), "{tag} is let go twice");
                how.map(|how| (what.to_owned(), how))
            })
            .collect();
        if held.len() >= wanted || Instant::now() > deadline {
            return held;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process's memory.
struct Shared<'a> {
    guest: &'a Guest,
    pasid: String,
    base: u64,
}

impl<'a> Shared<'a> {
    /// Shares 1 MiB that nobody has touched.
    fn open(guest: &'a Guest) -> Self {
        let opened = guest.run("sva-open 00:04.0 0x100000").unwrap();
        let base = opened.value("addr").unwrap().trim_start_matches("0x");
        Self {
            guest,
            pasid: opened.value("pasid").unwrap().to_owned(),
            base: u64::from_str_radix(base, 16).unwrap(),
        }
    }

    fn order(&self, channel: u32, job: &str, rest: &str) -> Output {
        let pasid = &self.pasid;
        let order = format!("dma 00:04.0 {channel} {job} pasid={pasid} via=untranslated {rest}");
        self.guest.run(&order).unwrap()
    }
}

fn plays(way: &[&str]) {
    let (mut served, guest) = boot(way);
    let shared = Shared::open(&guest);
    let at = |page: u64| shared.base + page * 0x1000;

    // A write to a page that is not there, and a read of one.
    let done = shared.order(0, &format!("fill {:#x} 0x1000 pattern=0x1111", at(0)), "");
    assert_eq!(done.value("state"), Some("done"), "{done:?}");
    assert_eq!(
        guest.must("sva-count 0 0x1000 0x1111").unwrap(),
        ["words=512"]
    );
    let done = shared.order(0, &format!("verify {:#x} 0x1000 pattern=0", at(1)), "");
    assert_eq!(done.value("state"), Some("done"), "{done:?}");
    assert_eq!(done.value("check"), Some("0x0"), "all are zeros: {done:?}");
    let first = [("w", at(0)), ("r", at(1))];
    let expected = first.map(|(access, at)| (format!("{access} at {at:#x}"), "Retry".to_owned()));
    assert_eq!(held(&mut served, 2), expected);

    // Now both are there, and the one that was read is the page of zeros, which is not written to.
    let done = shared.order(0, &format!("verify {:#x} 0x1000 pattern=0x1111", at(0)), "");
    assert_eq!(done.value("check"), Some("0x0"), "{done:?}");
    let done = shared.order(0, &format!("fill {:#x} 0x1000 pattern=0x2222", at(1)), "");
    assert_eq!(done.value("state"), Some("done"), "{done:?}");
    let written = (format!("w at {:#x}", at(1)), "Retry".to_owned());
    assert_eq!(held(&mut served, 3)[2..], [written]);

    // Several at once, on eight channels.
    for channel in 0..8 {
        let to = at(16 + 4 * u64::from(channel));
        let job = format!("fill {to:#x} 0x4000 pattern=0x3333");
        shared.order(channel, &job, "nowait");
    }
    for channel in 0..8 {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = guest.run(&format!("dma-status 00:04.0 {channel}")).unwrap();
            match status.value("state") {
                Some("busy") => assert!(Instant::now() < deadline, "{status:?}"),
                state => {
                    assert_eq!(state, Some("done"), "{status:?}");
                    break;
                }
            }
        }
    }
    let words = guest.must("sva-count 0x10000 0x20000 0x3333").unwrap();
    assert_eq!(words, ["words=16384"]);
    let all = held(&mut served, 3 + 32);
    assert_eq!(all.len(), 3 + 32, "one a page: {all:#?}");
    assert!(all.iter().all(|(_, how)| how == "Retry"), "{all:#?}");

    // What the process has not mapped is not to be had.
    let done = shared.order(0, "read 0x1000 64", "");
    assert_eq!(done.value("code"), Some("blocked"), "{done:?}");
    let refused = ("r at 0x1000".to_owned(), "Abort".to_owned());
    assert_eq!(held(&mut served, 36)[35..], [refused]);
    guest.must("sva-close").unwrap();

    let log = guest.must("dmesg").unwrap();
    let bad = ["event 0x", "WARNING", "BUG", "EVTQ overflow", "unexpected"];
    let found = log.iter().find(|line| bad.iter().any(|b| line.contains(b)));
    assert_eq!(found, None, "Linux resolved or refused each by itself");
    let last = served.stop();
    let counts = &last["counts"];
    assert_eq!(counts["faults"], 36, "{last}");
    assert_eq!(counts["recorded"], 36, "{last}");
    assert_eq!(counts["queue_errors"], 0, "{last}");
}

#[test]
fn a_device_that_may_stall_works_on_a_process_memory_that_is_not_there_yet() {
    plays(WAYS[0]);
}

#[test]
fn a_unit_on_which_everything_stalls_does_the_same() {
    plays(WAYS[1]);
}

#[test]
fn a_process_that_dies_under_the_device_takes_nothing_with_it() {
    let (mut served, guest) = boot(WAYS[0]);
    for round in 0..3 {
        let pid = guest
            .must("spawn sva-churn 00:04.0 0x8000 1000000")
            .unwrap();
        let pid = &pid[0];
        let deadline = Instant::now() + Duration::from_secs(60);
        while guest.must(&format!("output {pid}")).unwrap() != ["the device is at work"] {
            assert!(Instant::now() < deadline, "{round}: it never got to work");
        }
        guest.must(&format!("signal {pid} 9")).unwrap();
        let ended = guest.run(&format!("wait {pid}")).unwrap();
        assert_eq!(ended.status, 128 + 9, "{round}: {ended:?}");
        // The device comes to an end, whatever became of the pages.
        loop {
            let status = guest.run("dma-status 00:04.0 0").unwrap();
            if status.value("state") != Some("busy") {
                break;
            }
            assert!(Instant::now() < deadline, "{round}: {status:?}");
        }
        // And works for the next process.
        let worked = guest.run("sva-churn 00:04.0 0x8000 3").unwrap();
        assert_eq!(
            worked.lines,
            ["the device is at work", "3 rounds"],
            "{round}"
        );
    }
    let log = guest.must("dmesg").unwrap();
    let bad = [
        "WARNING",
        "BUG",
        "EVTQ overflow",
        "unexpected",
        "CMD_SYNC timeout",
    ];
    let found = log.iter().find(|line| bad.iter().any(|b| line.contains(b)));
    assert_eq!(found, None, "in the guest's log");
    served.catch_up();
    let step = |name: &str| served.events.iter().filter(|e| e["step"] == name).count();
    let (held, let_go) = (
        served
            .events
            .iter()
            .filter(|e| {
                e["step"] == "fault" && e["note"].as_str().unwrap_or_default().contains("held")
            })
            .count(),
        step("held request let go"),
    );
    assert!(held > 3 * 8, "{held}");
    assert_eq!(held, let_go, "nothing is held any more");
    let last = served.stop();
    assert_eq!(last["counts"]["queue_errors"], 0, "{last}");
}
