//! iommufd in the guest: a program there writes the page tables of a DMA engine behind our unit and
//! answers its page requests from a fault queue.
//!
//! The kernel is our own build: none of Debian's has iommufd. What each scenario does is in
//! `guests/agent/src/commands/iommufd/scenarios.rs`; what it must come to is here, typed.

mod served;

use serde_json::Value;
use served::Served;
use std::time::{Duration, Instant};
use testkit::guest::Guest;
use testkit::kernel::own;

/// A scenario, the lines of the guest, and the page requests and answers of the server in their order.
///
/// Of a fault with a PASID the guest sees flags 0x4 beside those of `iommufd.h`: Linux 7.3 hands
/// its internal IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID on, `iommufd_compose_fault_message` in
/// drivers/iommu/iommufd/eventq.c. A kernel that stops doing so fails here, and may.
struct Scenario {
    name: &'static str,
    guest: &'static str,
    server: &'static str,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "present",
        guest: "\
attached
mapped 0x20000000 to page 1, Write
job 0 done moved=4096 check=0x0 pages=0
job 0 done moved=4096 check=0x0 pages=0
page 1 full of 0xc3
no fault
closed
",
        server: "",
    },
    Scenario {
        name: "missing",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "missing-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Success
",
    },
    Scenario {
        name: "group",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1
fault read 0x20001000 group=0 cookie=1
fault read 0x20002000 group=0 cookie=1
fault read 0x20003000 group=0 cookie=1 last
mapped 0x20000000 to page 1, Read
mapped 0x20001000 to page 2, Read
mapped 0x20002000 to page 3, Read
mapped 0x20003000 to page 4, Read
answers 1=success: 1 taken
job 0 done moved=16384 check=0x0 pages=4
answers 1=success: EINVAL
no fault
closed
",
        server: "\
group 0: r at 0x20000000
group 0: r at 0x20001000
group 0: r at 0x20002000
group 0: r at 0x20003000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "invalid",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
answers 1=invalid: 1 taken
job 0 error response-invalid at 0x20000000 pages=1
fault read 0x20000000 group=1 cookie=1 last
answers 1=invalid: 1 taken
job 0 error response-invalid at 0x20000000 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
group 1: r at 0x20000000, last of its group
group 1: Invalid
",
    },
    Scenario {
        name: "read-only",
        guest: "\
attached
mapped 0x20000000 to page 1, Read
job 0 done moved=4096 check=0x0 pages=0
fault write 0x20000000 group=0 cookie=1 last
page 1 full of 0x5a
mapped 0x20000000 to page 1, Write
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
page 1 full of 0xc3
closed
",
        server: "\
group 0: w at 0x20000000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "out-of-order",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
fault write 0x20100000 group=1 cookie=2 last
mapped 0x20100000 to page 2, Write
answers 2=success: 1 taken
job 1 done moved=4096 check=0x0 pages=1
page 2 full of 0xc3
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 1: w at 0x20100000, last of its group
group 1: Success
group 0: Success
",
    },
    Scenario {
        name: "detach",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
detached
job 0 error response-invalid at 0x20000000 pages=1
no fault
answers 1=success: EINVAL
attached
fault read 0x20000000 group=1 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
group 1: r at 0x20000000, last of its group
group 1: Success
",
    },
    Scenario {
        name: "detach-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
detached
job 0 error response-invalid at 0x20000000 pages=1
no fault
answers 1=success: EINVAL
attached
fault read 0x20000000 group=1 cookie=1 pasid=7 last flags=0x4
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Invalid
group 1: r at 0x20000000, pasid 0x7, last of its group
group 1: Success
",
    },
    Scenario {
        name: "detach-unread",
        guest: "\
attached
a fault waits
detached
job 0 error response-invalid at 0x20000000 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
",
    },
    Scenario {
        name: "close",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
a fault waits
closed
no fault
answers 1=success: EINVAL
",
        server: "\
group 0: r at 0x20000000, last of its group
group 1: r at 0x20100000, last of its group
group 1: Invalid
group 0: Invalid
",
    },
    Scenario {
        name: "replace",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
mapped 0x20001000 to page 1, Read
attached
job 0 error response-invalid at 0x20000000 pages=1
no fault
answers 1=success: EINVAL
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
",
    },
    Scenario {
        name: "replace-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
mapped 0x20001000 to page 1, Read
attached
job 0 error response-invalid at 0x20000000 pages=1
no fault
answers 1=success: EINVAL
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Invalid
",
    },
    Scenario {
        name: "invalidate",
        guest: "\
attached
mapped 0x20000000 to page 1, Read
job 0 done moved=4096 check=0x0 pages=0
mapped 0x20000000 to page 2, Read
invalidated
job 0 done moved=4096 check=0x1000 pages=0
unmapped and invalidated
fault read 0x20000000 group=0 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "invalidate-pasid",
        guest: "\
attached
attached
mapped 0x20000000 to page 1, Read
job 0 done moved=4096 check=0x0 pages=0
mapped 0x20000000 to page 2, Read
invalidated
job 0 done moved=4096 check=0x1000 pages=0
unmapped and invalidated
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Success
",
    },
    Scenario {
        name: "wrong-calls",
        guest: "\
attached
read of 40 bytes: 0 records
a fault waits
read of 39 bytes: ESPIPE
read of 40 bytes: EINVAL
fault read 0x20000000 group=0 cookie=1
fault read 0x20001000 group=0 cookie=1 last
answers 1=code-2: EINVAL
answers 2=success: EINVAL
mapped 0x20000000 to page 1, Read
mapped 0x20001000 to page 2, Read
answers 1=success 1=success: 1 taken
job 0 done moved=8192 check=0x0 pages=2
closed
",
        server: "\
group 0: r at 0x20000000
group 0: r at 0x20001000, last of its group
group 0: Success
",
    },
];

/// What the server says of page requests and answers, and of faults, one a line.
fn steps(events: &[Value]) -> String {
    let mut lines = String::new();
    for event in events {
        let step = event["step"].as_str().unwrap_or_default();
        if step.starts_with("page request") || step == "group answered" || step == "fault" {
            assert_eq!(event["device"], "00:04.0", "{event}");
            let note = event["note"].as_str().expect("a note");
            match step {
                "fault" => lines += &format!("fault: {note}\n"),
                _ => lines += &format!("group {}: {note}\n", event["group"]),
            }
        }
    }
    lines
}

/// What must not be in a guest's log: a fault of the unit, or a complaint of the kernel about itself.
const COMPLAINTS: [&str; 6] = [
    "DMAR: [",
    "DMAR: DRHD",
    "WARNING",
    "BUG",
    "Call Trace",
    "iopf: unhandled",
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
        while steps(&served.events[before..]) != scenario.server && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            served.catch_up();
        }
        let stepped = steps(&served.events[before..]);
        assert_eq!(stepped, scenario.server, "{name}: the server");
    }
    let log = guest.must(&format!("kmsg-since {mark}")).unwrap();
    for complaint in COMPLAINTS {
        let found = log.iter().find(|line| line.contains(complaint));
        assert_eq!(found, None, "in the guest's log");
    }
    drop(guest);
    let last = served.stop();
    let sum = |word: &str| -> usize {
        let lines = SCENARIOS
            .iter()
            .flat_map(|scenario| scenario.server.lines());
        lines.filter(|line| line.contains(word)).count()
    };
    assert_eq!(
        (sum(" at 0x"), sum(": Success") + sum(": Invalid")),
        (24, 20)
    );
    for (name, count) in [
        ("page_requests", 24),
        ("responses", 20),
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
