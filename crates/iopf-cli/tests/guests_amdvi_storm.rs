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

/// What becomes of a page request: it is in the log, or finds it full, or switched off while the guest
/// restarts it.
const REQUESTS: [&str; 3] = [
    "page_requests",
    "page_requests_lost",
    "page_requests_refused",
];

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
    println!("before: {}", shared.fill(0, 1));
    let mark = guest.must("kmsg-mark").unwrap().join("");
    let (mut groups, mut lost) = (2, 0);
    for round in 1..=ROUNDS {
        // A guest that gets more of the machine than the device may keep up with a flood.
        for flood in 1.. {
            assert!(flood <= FLOODS, "the log never overflowed");
            shared.flood(REPEAT);
            groups += REPEAT * GROUPS;
            let counts = served.wait("counts", |event| {
                let sent = count(event, "groups");
                sent >= groups && sum(event, &REQUESTS) == sent * GROUP
            });
            let before = std::mem::replace(&mut lost, count(&counts, "page_requests_lost"));
            if lost > before {
                println!("round {round}: {flood} floods, {lost} lost");
                break;
            }
        }
        // Linux may have overlooked that its log stands still; the next request that is lost tells it.
        println!("after overflow {round}: {}", shared.fill(round, 4));
        groups += 2;
    }
    guest.must("sva-close").unwrap();
    let log = since(&guest, &mark);
    let restarted = log.iter().find(|line| line.contains("PPR log restarting"));
    println!("{}", restarted.unwrap_or_else(|| panic!("{log:#?}")));
    says_nothing_bad(&log);

    let last = served.stop_keeping();
    let counts = &last["counts"];
    println!("{counts}");
    assert!(count(counts, "page_requests_lost") > 0);
    let groups = count(counts, "groups");
    assert_eq!(
        sum(counts, &REQUESTS),
        groups * GROUP,
        "each is in the log, or counted as lost or refused"
    );
    assert!(sum(counts, &ANSWERS) <= groups, "no group has two answers");
    for name in ["responses_lost", "queue_errors"] {
        assert_eq!(count(counts, name), 0, "{name}");
    }
    assert_eq!(count(counts, "faults"), 0);
}
