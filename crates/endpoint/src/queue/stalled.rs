//! Jobs whose access the IOMMU holds.

use super::{Active, Queue};
use crate::job::Status;
use iopf::{Access, Iova};
use viommu_api::{Resume, StallTag};

/// A job that waits for the IOMMU to let its access go.
#[derive(Debug)]
pub(super) struct Stalled {
    pub(super) active: Active,
    at: (Iova, Access),
    /// It was cancelled, and ends when its access does.
    pub(super) aborted: bool,
}

impl Queue {
    /// Parks a job until its access is let go.
    pub(crate) fn stall(&mut self, active: Active, tag: StallTag, at: (Iova, Access)) {
        self.stats.stalls += 1;
        if self.stopped(active.id) {
            self.stalls.abandon(tag);
            return self.finish(active, Status::Aborted);
        }
        let stalled = Stalled {
            active,
            at,
            aborted: false,
        };
        if let Some((stalled, how)) = self.stalls.wait(tag, stalled) {
            self.let_go(stalled, how);
        }
    }

    /// The IOMMU lets an access go.
    pub(crate) fn handle_resume(&mut self, tag: StallTag, how: Resume) {
        let slot = match how {
            Resume::Retry => 0,
            Resume::Abort => 1,
            Resume::Ignore => 2,
        };
        self.stats.resumed[slot] += 1;
        let under_way = !self.running.is_empty();
        if let Some(stalled) = self.stalls.resume(tag, how, under_way) {
            self.let_go(stalled, how);
        }
    }

    fn let_go(&mut self, stalled: Stalled, how: Resume) {
        let Stalled {
            mut active,
            at,
            aborted,
        } = stalled;
        match how {
            _ if aborted => self.finish(active, Status::Aborted),
            Resume::Retry => self.ready.push_back(active),
            Resume::Abort => {
                active.failed = Some(at);
                self.stats.blocked += 1;
                self.finish(active, Status::Blocked(at.0));
            }
            Resume::Ignore => {
                active.ignored.push(at);
                self.ready.push_back(active);
            }
        }
    }
}
