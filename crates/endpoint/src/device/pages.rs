//! The page request interface of a device: messages out, and its switches.

use super::Device;
use crate::MAX_GROUPS;
use crate::pci::PriControl;
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid};
use std::time::Duration;
use viommu_api::PageRequestOutcome;

impl Device {
    /// Whether page requests may be sent; a Response Failure turns them off.
    #[must_use]
    pub fn pri_enabled(&self) -> bool {
        self.queue().pri_enabled()
    }

    /// Whether any group waits for an answer.
    #[must_use]
    pub fn any_outstanding(&self) -> bool {
        self.queue().any_outstanding()
    }

    /// Whether every credit went to groups that were given up, so that none is to come back.
    pub(crate) fn exhausted(&self) -> bool {
        self.queue().exhausted()
    }

    /// Resets the page request interface and turns it on; jobs that wait end with
    /// [`Status::NoAnswer`](crate::Status::NoAnswer).
    pub fn reset_pri(&self) {
        self.queue().reset_pri(true);
    }

    /// What a write to the page request control of a PCI function comes to.
    pub(crate) fn switch_pri(&self, control: PriControl, reset: bool) {
        let mut queue = self.queue();
        if reset {
            queue.reset_pri(false);
        }
        queue.set_pri(control.enabled, control.allocation);
    }

    /// Turns the page request interface on with an allocation in pages, or off. Groups that are
    /// outstanding are waited for either way.
    pub fn set_pri(&self, enabled: bool, allocation: u32) {
        self.queue().set_pri(enabled, allocation);
    }

    /// Tells the IOMMU that no more page requests of `pasid` follow: last in its group, and neither
    /// read nor write.
    ///
    /// PCI Express Base Specification, "Stop Marker Messages".
    pub fn stop_marker(&self, pasid: Pasid) -> PageRequestOutcome {
        let marker = PageRequest {
            pasid: Some(pasid),
            group: GroupIndex(MAX_GROUPS - 1),
            addr: Iova(0),
            access: Access::empty(),
            last: true,
            response_needs_pasid: false,
            private_data: [0; 2],
        };
        self.ports.pri.page_request(self.rid, &marker)
    }

    /// Pages in one group at most.
    pub(crate) fn group_pages(&self) -> u32 {
        self.config.group_pages.clamp(1, MAX_GROUPS)
    }

    /// Asks for up to `pages` pages from `from` on as one group, on no job's behalf, within the
    /// allocation; the answer comes out of [`poll_answer`](Device::poll_answer). Returns the group and
    /// how many pages it asked for; `None` without credits, or with the interface off.
    #[must_use]
    pub fn request_pages(
        &self,
        pasid: Option<Pasid>,
        from: Iova,
        pages: u32,
        access: Access,
        now: Duration,
    ) -> Option<(GroupIndex, u32)> {
        let pages = pages.min(self.group_pages());
        let (group, pages) = self.queue().open_group(pasid, pages, now)?;
        self.send(pasid, group, &run(from, pages, access));
        Some((group, pages))
    }

    /// Asks for `pages` pages from `from` on as one group without regard to the allocation, and waits
    /// for no answer: a broken device. What comes all the same is counted in
    /// [`Stats::late_responses`](crate::Stats::late_responses). Nothing is sent with the interface
    /// off.
    pub fn flood(&self, pasid: Option<Pasid>, from: Iova, pages: u32, access: Access) {
        let pages = pages.min(MAX_GROUPS);
        let group = self.queue().stray_group(pasid, pages);
        if let Some(group) = group {
            self.send(pasid, group, &run(from, pages, access));
        }
    }

    /// Sends the messages of a group.
    pub(super) fn send(&self, pasid: Option<Pasid>, group: GroupIndex, pages: &[(Iova, Access)]) {
        for (i, &(addr, access)) in pages.iter().enumerate() {
            let request = PageRequest {
                pasid,
                group,
                addr,
                access,
                last: i + 1 == pages.len(),
                response_needs_pasid: pasid.is_some() && self.config.answers_by_pasid,
                private_data: [0; 2],
            };
            match self.ports.pri.page_request(self.rid, &request) {
                PageRequestOutcome::Queued => {}
                PageRequestOutcome::Answered(response) => {
                    self.queue().handle_response(pasid, group, response, true);
                }
                PageRequestOutcome::Dropped => self.queue().stats.dropped += 1,
            }
        }
    }
}

/// `count` pages that follow each other; the last page of the address space is followed by the first.
fn run(from: Iova, count: u32, access: Access) -> Vec<(Iova, Access)> {
    (0..u64::from(count))
        .map(|i| (Iova((from.0 & !0xfff).wrapping_add(i << 12)), access))
        .collect()
}
