//! Page requests without end, for memory that a process shares with the engine.

use testkit::guest::Guest;

/// Requests in one group of the engine, and groups in 16 MiB.
pub(crate) const GROUP: u64 = 16;
pub(crate) const GROUPS: u64 = 4096 / GROUP;

/// Who answers a group: the guest, or the unit in its place.
pub(crate) const ANSWERS: [&str; 2] = ["responses", "page_requests_answered"];

/// A process's memory, shared with the engine: 16 MiB to flood and some more to work in.
pub(crate) struct Shared<'a> {
    guest: &'a Guest,
    pasid: String,
    base: u64,
}

impl<'a> Shared<'a> {
    pub(crate) fn open(guest: &'a Guest) -> Self {
        guest
            .must("bind 00:04.0 uio_pci_sva")
            .expect("the guest does this");
        let opened = guest
            .run("sva-open 00:04.0 0x1100000")
            .expect("the guest does this");
        let base = opened
            .value("addr")
            .expect("the guest does this")
            .trim_start_matches("0x");
        Self {
            guest,
            pasid: opened
                .value("pasid")
                .expect("the guest does this")
                .to_owned(),
            base: u64::from_str_radix(base, 16).expect("the guest does this"),
        }
    }

    /// Page requests for 16 MiB, `repeat` times over, without regard to the allocation and without
    /// waiting for answers.
    pub(crate) fn flood(&self, repeat: u64) {
        let (at, pasid) = (self.base, &self.pasid);
        let order = format!(
            "dma 00:04.0 0 page-requests {at:#x} 0x1000000 write pasid={pasid} flags=2 \
             repeat={repeat} timeout=60000"
        );
        let sent = self.guest.run(&order).expect("the guest does this");
        assert_eq!(sent.value("state"), Some("done"), "{sent:?}");
    }

    /// Fills two groups of pages that nobody has touched yet: each has to be asked for. `tries`: how
    /// often, where a group may be one that nobody gets, so that the engine gives up after 10 s, or one
    /// that comes while the queue is switched off, so that the unit answers Invalid.
    pub(crate) fn fill(&self, place: u64, tries: u32) -> String {
        let (at, pasid) = (0x100_0000 + place * 0x2_0000, &self.pasid);
        let (to, pattern) = (self.base + at, 0x1111 * (place + 1));
        let order = format!(
            "dma 00:04.0 1 fill {to:#x} 0x20000 pattern={pattern:#x} pasid={pasid} timeout=60000"
        );
        let mut done = self.guest.run(&order).expect("the guest does this");
        for _ in 1..tries {
            if matches!(done.value("code"), Some("no-answer" | "response-invalid")) {
                done = self.guest.run(&order).expect("the guest does this");
            }
        }
        assert_eq!(done.value("state"), Some("done"), "{done:?}");
        assert_eq!(done.value("pages"), Some("32"), "{done:?}");
        let seen = self
            .guest
            .must(&format!("sva-count {at:#x} 0x20000 {pattern:#x}"));
        assert_eq!(seen.expect("the guest does this"), ["words=16384"]);
        done.lines.join("\n")
    }
}
