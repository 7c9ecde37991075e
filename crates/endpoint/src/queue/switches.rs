//! What stops jobs from outside: cancelling, the switches of the page request interface, a reset. And
//! page requests on no job's behalf.

use super::{Active, Queue, Waiting};
use crate::groups::Outstanding;
use crate::job::{GroupAnswer, Status};
use iopf::{GroupIndex, Pasid};
use std::collections::VecDeque;
use std::mem::take;
use std::time::Duration;

impl Queue {
    /// Cancels the jobs of an address space; those with an outstanding group, or whose access is held, end
    /// when that does.
    pub(crate) fn abort(&mut self, pasid: Option<Pasid>) {
        let (mut ready, mut starved) = (take(&mut self.ready), take(&mut self.starved));
        for list in [&mut ready, &mut starved] {
            let (gone, kept): (VecDeque<Active>, _) =
                take(list).into_iter().partition(|a| a.job.pasid == pasid);
            *list = kept;
            for active in gone {
                self.finish(active, Status::Aborted);
            }
        }
        (self.ready, self.starved) = (ready, starved);
        for (p, aborted) in self.running.values_mut() {
            *aborted |= *p == pasid;
        }
        for stalled in self.stalls.waiting() {
            stalled.aborted |= stalled.active.job.pasid == pasid;
        }
        for (group, waiting) in &self.waiting {
            if waiting.active.job.pasid == pasid {
                self.aborted.insert(*group);
            }
        }
        for answered in &self.answered {
            if answered.open.pasid == pasid {
                self.aborted.insert(answered.group.0);
            }
        }
    }

    /// Cancels everything and forgets every group: a reset of the function.
    pub(crate) fn reset(&mut self) {
        for active in take(&mut self.ready)
            .into_iter()
            .chain(take(&mut self.starved))
        {
            self.finish(active, Status::Aborted);
        }
        for (_, aborted) in self.running.values_mut() {
            *aborted = true;
        }
        let waiting = take(&mut self.waiting).into_values();
        let answered = take(&mut self.answered).into_iter();
        for Waiting { active, .. } in waiting.chain(answered.filter_map(|a| a.waiting)) {
            self.finish(active, Status::Aborted);
        }
        for stalled in self.stalls.abandon_all() {
            self.finish(stalled.active, Status::Aborted);
        }
        self.groups.reset();
        self.aborted.clear();
        self.answers.clear();
        self.enabled = self.limits.allocation > 0;
    }

    /// Forgets outstanding groups, and turns the page request interface on again after a Failure if
    /// that is wanted.
    pub(crate) fn reset_pri(&mut self, on: bool) {
        for (group, open) in self.groups.drain() {
            let aborted = self.aborted.remove(&group.0);
            match self.waiting.remove(&group.0) {
                Some(Waiting { active, .. }) if aborted => self.finish(active, Status::Aborted),
                Some(Waiting { active, at, .. }) => self.finish(active, Status::NoAnswer(at)),
                None => self.report(GroupAnswer {
                    pasid: open.pasid,
                    group,
                    pages: open.pages,
                    response: None,
                    at_once: false,
                    waited: Duration::ZERO,
                }),
            }
        }
        // What is left in `aborted` was answered already, and ends when that is taken note of.
        self.enabled = on && self.limits.allocation > 0;
    }

    /// Turns the page request interface on with an allocation, or off. What is outstanding is waited
    /// for either way.
    pub(crate) fn set_pri(&mut self, enabled: bool, allocation: u32) {
        self.limits.allocation = allocation;
        self.groups.set_allocation(allocation);
        self.enabled = enabled && allocation > 0;
    }

    /// Opens a group of as many of `pages` as there are credits for, on no job's behalf. Its answer
    /// is reported like any other.
    pub(crate) fn open_group(
        &mut self,
        pasid: Option<Pasid>,
        pages: u32,
        now: Duration,
    ) -> Option<(GroupIndex, u32)> {
        let pages = pages.min(self.groups.credits());
        if !self.enabled {
            return None;
        }
        let group = self.groups.open(Outstanding {
            pasid,
            pages,
            sent: now,
            deadline: now.saturating_add(self.limits.timeout),
        })?;
        self.stats.groups += 1;
        self.stats.pages_requested += u64::from(pages);
        Some((group, pages))
    }

    /// An index for a group beyond the allocation that nobody waits for.
    pub(crate) fn stray_group(&mut self, pasid: Option<Pasid>, pages: u32) -> Option<GroupIndex> {
        if !self.enabled {
            return None;
        }
        let group = self.groups.stray(pasid)?;
        self.stats.groups += 1;
        self.stats.pages_requested += u64::from(pages);
        Some(group)
    }

    /// Whether no event is to come that would bring credits back.
    pub(crate) fn exhausted(&self) -> bool {
        self.groups.exhausted()
    }

    /// Groups that wait for an answer, of whatever address space.
    pub(crate) fn any_outstanding(&self) -> bool {
        self.groups.any()
    }
}
