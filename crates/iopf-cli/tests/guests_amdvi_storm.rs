//! Storms in front of `iopf serve --arch amdvi`: bad DMA and page requests without end.

mod process;
mod served;
mod storm;

use served::Served;
use storm::shared::{ANSWERS, GROUP, GROUPS, Shared};
use storm::{count, says_nothing_bad, since, sum};
use testkit::guest::Guest;
use testkit::kernel::own;

const AMDVI: [&str; 2] = ["--arch", "amdvi"];
/// Without PASIDs, Linux gives the engine an address space of its own.
const LEGACY: [&str; 3] = ["--arch", "amdvi", "--legacy"];

#[test]
fn a_hundred_thousand_bad_dmas_leave_guest_log_and_memory_as_they_were() {
    storm::leaves_guest_log_and_memory_as_they_were(&LEGACY, "", &storm::AMDVI);
}

#[test]
fn by_default_a_storm_gets_no_line_of_ours_at_all() {
    storm::gets_no_line_of_ours(&AMDVI, "", &storm::AMDVI);
}

/// Our own kernel, as with VT-d: `uio_pci_generic_sva` gives the engine an address space.
///
/// Linux does not ask for automatic responses (PprAutoRspEn), so a group whose last page was lost has no
/// answer, and the device must not wait for one.
#[test]
fn a_page_request_log_that_overflows_is_restarted_by_the_guest_and_works_again() {
    const ROUNDS: u64 = 2;
    const REPEAT: u64 = 8;
    const FLOODS: u32 = 50;
    let mut served = Served::start(&[&AMDVI[..], &["--endpoint", "dma@04.0"]].concat());
    let guest = served.boot(Guest::builder(own().unwrap()));
    let shared = Shared::open(&guest);
    println!("before: {}", shared.fill(0));
    let mut groups = 2;
    let mut lost = 0;
    for round in 1..=ROUNDS {
        let mark = guest.must("kmsg-mark").unwrap().join("");
        // A guest that gets more of the machine than the device may keep up with a flood.
        for flood in 1.. {
            assert!(flood <= FLOODS, "the log never overflowed");
            shared.flood(REPEAT);
            groups += REPEAT * GROUPS;
            let counts = served.wait("counts", |event| {
                sum(event, &["page_requests", "page_requests_lost"]) == groups * GROUP
            });
            let before = std::mem::replace(&mut lost, count(&counts, "page_requests_lost"));
            if lost > before {
                println!("round {round}: {flood} floods, {lost} lost");
                break;
            }
        }
        let restarted = format!("kmsg-wait {mark} 60000 IOMMU PPR log restarting");
        println!("{}", guest.must(&restarted).unwrap().join("\n"));
        println!("after overflow {round}: {}", shared.fill(round));
        groups += 2;
        says_nothing_bad(&since(&guest, &mark));
    }
    guest.must("sva-close").unwrap();

    let last = served.stop_keeping();
    let counts = &last["counts"];
    println!("{counts}");
    assert!(count(counts, "page_requests_lost") > 0);
    assert_eq!(
        sum(counts, &["page_requests", "page_requests_lost"]),
        groups * GROUP,
        "each is in the log or counted as lost"
    );
    assert!(sum(counts, &ANSWERS) <= groups, "no group has two answers");
    for name in ["page_requests_refused", "responses_lost", "queue_errors"] {
        assert_eq!(count(counts, name), 0, "{name}");
    }
    assert_eq!(count(counts, "faults"), 0);
}
