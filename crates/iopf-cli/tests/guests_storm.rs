//! Storms: a stock guest whose device does nothing but bad DMA, and what it costs us.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod process;
mod served;
mod storm;

use served::Served;
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

/// Requests in one group of the engine, and groups in 16 MiB.
const GROUP: u64 = 16;
const GROUPS: u64 = 4096 / GROUP;

/// Who answers a group: the guest, or the unit in its place.
const ANSWERS: [&str; 2] = ["responses", "page_requests_answered"];

/// A process's memory, shared with the engine: 16 MiB to flood and some more to work in.
struct Shared<'a> {
    guest: &'a Guest,
    pasid: String,
    base: u64,
}

impl<'a> Shared<'a> {
    fn open(guest: &'a Guest) -> Self {
        guest.must("bind 00:04.0 uio_pci_sva").unwrap();
        let opened = guest.run("sva-open 00:04.0 0x1100000").unwrap();
        let base = opened.value("addr").unwrap().trim_start_matches("0x");
        Self {
            guest,
            pasid: opened.value("pasid").unwrap().to_owned(),
            base: u64::from_str_radix(base, 16).unwrap(),
        }
    }

    /// Page requests for 16 MiB, `repeat` times over, without regard to the allocation and without
    /// waiting for answers.
    fn flood(&self, repeat: u64) {
        let (at, pasid) = (self.base, &self.pasid);
        let order = format!(
            "dma 00:04.0 0 page-requests {at:#x} 0x1000000 write pasid={pasid} flags=2 \
             repeat={repeat} timeout=60000"
        );
        let sent = self.guest.run(&order).unwrap();
        assert_eq!(sent.value("state"), Some("done"), "{sent:?}");
    }

    /// Fills two groups of pages that nobody has touched yet: each has to be asked for.
    fn fill(&self, place: u64) -> String {
        let (at, pasid) = (0x100_0000 + place * 0x2_0000, &self.pasid);
        let (to, pattern) = (self.base + at, 0x1111 * (place + 1));
        let order =
            format!("dma 00:04.0 1 fill {to:#x} 0x20000 pattern={pattern:#x} pasid={pasid}");
        let done = self.guest.run(&order).unwrap();
        assert_eq!(done.value("state"), Some("done"), "{done:?}");
        assert_eq!(done.value("pages"), Some("32"), "{done:?}");
        let seen = self
            .guest
            .must(&format!("sva-count {at:#x} 0x20000 {pattern:#x}"));
        assert_eq!(seen.unwrap(), ["words=16384"]);
        done.lines.join("\n")
    }
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
    println!("before: {}", shared.fill(0));
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
        println!("after overflow {round}: {}", shared.fill(round));
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
