//! Storms: a stock guest whose device does nothing but bad DMA, and what it costs us.

mod process;
mod served;
mod storm;

use served::Served;
use storm::shared::{ANSWERS, GROUP, GROUPS, Shared};
use storm::{count, says_nothing_bad, since, sum};
use testkit::guest::Guest;
use testkit::kernel::own;

#[test]
fn a_hundred_thousand_bad_dmas_leave_guest_log_and_memory_as_they_were() {
    storm::leaves_guest_log_and_memory_as_they_were(&[], "intel_iommu=on,sm_on", &storm::VTD);
}

#[test]
fn by_default_a_storm_gets_no_line_of_ours_at_all() {
    storm::gets_no_line_of_ours(&[], "intel_iommu=on", &storm::VTD);
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
    println!("before: {}", shared.fill(0, 1));
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
        println!("after overflow {round}: {}", shared.fill(round, 1));
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
