use super::*;
use serde_json::json;

fn process() -> Process {
    let lines = [
        "process=93 source=0x7f0000001000 target=0x7f0000009000 bytes=4096",
        "onto the untouched page: status=0x01 result=0 completed=0x0 fault=0x0",
        "onto it again: status=0x01 result=0 completed=0x0 fault=0x0",
        "before=0x0 after=0x1234000 first=1500000 next=90000",
    ];
    Process::parse(&lines.map(str::to_owned)).unwrap()
}

fn step(nanos: u64, step: &str, group: Option<u32>, note: &str) -> Value {
    json!({"event": "step", "nanos": nanos, "step": step, "group": group, "note": note})
}

/// What a server says of one page, with something else from before and from after it.
fn events() -> Vec<Value> {
    let tail = "the guest has moved the tail of its command queue";
    vec![
        step(900, tail, None, ""),
        step(
            1_000_000,
            "translation request finds nothing",
            None,
            "rw at 0x7f0000009000, pasid 0x1",
        ),
        step(
            1_010_000,
            "page request queued for the guest",
            Some(5),
            "rw at 0x7f0000009000, pasid 0x1, last of its group",
        ),
        // As they come from two threads.
        step(1_300_000, tail, None, ""),
        step(
            1_020_000,
            "interrupt message to the guest",
            None,
            "0x4025 written to 0xfee00000",
        ),
        json!({"event": "counts", "page_requests": 1}),
        step(2_220_000, tail, None, ""),
        step(2_225_000, "group answered", Some(5), "Success"),
        step(
            2_250_500,
            "translation request finds the page",
            None,
            "rw at 0x7f0000009000, pasid 0x1, which is 0x1234000 of the guest's memory",
        ),
        step(3_000_000, tail, None, ""),
    ]
}

#[test]
fn a_fault_is_told_from_the_question_to_the_page() {
    let report = Report::of("7.3.4", process(), &events()).unwrap();
    assert_eq!(report.guests, Duration::from_micros(1200));
    assert_eq!(report.ours, Duration::from_nanos(50_500));
    let mut said = String::new();
    text(&report, &mut said).unwrap();
    assert_eq!(
        said,
        "\
Process 93 of Linux 7.3.4 has opened /dev/dsa/wq0.0.
From now on the device reaches the process's memory, at the process's own addresses; it calls that
address space PASID 0x1.
The process maps a page at 0x7f0000009000 and does not touch it: Linux has nothing behind it.
It has the device copy 4096 bytes from 0x7f0000001000 to there, and waits.

    0.0 µs      +0.0 µs  the device asks the IOMMU for the page; the process's page table has nothing there
   10.0 µs     +10.0 µs  it sends a page request, group 5; the IOMMU puts it into Linux's page request queue
   20.0 µs     +10.0 µs  the IOMMU interrupts the guest
  300.0 µs    +280.0 µs  Linux has something else in its invalidation queue
   1.22 ms    +920.0 µs  Linux has handled the fault as one of the process, and the answer is in its invalidation queue
   1.23 ms      +5.0 µs  the IOMMU gives the answer, Success, to the device
   1.25 ms     +25.5 µs  the device asks again and is given 0x1234000 of the guest's memory

The device writes the bytes and a completion record. The process sees it 1.50 ms after it began to
submit, by the guest's clock, and the bytes are right. Linux now has 0x1234000 behind the page,
which is what the device was given.
The same copy again takes 90.0 µs: the page is there, and no page request is needed.

From the first question to the page: 1.25 ms. Of that, 1.20 ms lie between the interrupt and the
guest's answer, in QEMU and the guest; the rest, 50.5 µs, is iopf: the unit, the device, their threads.
"
    );
}

#[test]
fn every_step_is_missed_when_it_is_not_there() {
    let all = events();
    for gone in [1, 2, 4, 7, 8] {
        let mut events = all.clone();
        let name = events.remove(gone)["step"].to_string();
        let why = Report::of("7.3.4", process(), &events).unwrap_err();
        assert!(why.contains(&name), "{name}: {why}");
    }
    let mut early = all.clone();
    early[8]["nanos"] = 2_224_000.into();
    let why = Report::of("7.3.4", process(), &early).unwrap_err();
    assert!(why.contains(FOUND), "before its answer: {why}");
    let tails = |event: &Value| event["step"] != TAIL;
    let events: Vec<_> = all.into_iter().filter(tails).collect();
    let why = Report::of("7.3.4", process(), &events).unwrap_err();
    assert!(why.contains(TAIL), "{why}");
}

#[test]
fn a_story_in_which_guest_and_server_differ_is_not_told() {
    let of = |process, events: &[Value]| Report::of("7.3.4", process, events).unwrap_err();
    let elsewhere = Process {
        after: 0x123_5000,
        ..process()
    };
    assert!(of(elsewhere, &events()).contains("Linux has 0x1235000 behind the page"));
    let other = Process {
        target: 0x7f00_0000_9000 >> 4,
        ..process()
    };
    assert!(of(other, &events()).contains("is of another page"));
    let there = Process {
        before: 0x1000,
        ..process()
    };
    assert_eq!(of(there, &events()), "the page was there before");
    let mut refused = events();
    refused[7]["note"] = "Invalid".into();
    assert!(of(process(), &refused).contains("no Success"));
    let mut another = events();
    another[7]["group"] = 6.into();
    assert!(of(process(), &another).contains("no Success"));
}

#[test]
fn a_process_that_says_too_little_is_named() {
    let lines = ["process=1 source=0x1".to_owned()];
    assert_eq!(
        Process::parse(&lines).unwrap_err(),
        "the process says no target"
    );
    let lines = ["process=one".to_owned()];
    assert_eq!(
        Process::parse(&lines).unwrap_err(),
        "process=one is no number"
    );
}

#[test]
fn times_have_the_unit_that_suits_them() {
    assert_eq!(time(Duration::from_nanos(999_940)), "999.9 µs");
    assert_eq!(time(Duration::from_micros(1000)), "1.00 ms");
    assert_eq!(time(Duration::from_nanos(100)), "0.1 µs");
}
