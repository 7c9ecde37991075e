//! The interrupt handlers: events, page requests, errors.
//!
//! After `arm_smmu_evtq_thread()`, `arm_smmu_priq_thread()` and `arm_smmu_gerror_handler()` of Linux
//! `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c`.

use super::{EVENT_VECTOR, Guest, PAGE_VECTOR};
use crate::driver::{Driver, lock};
use crate::page_groups::{Group, PageGroup};
use crate::smmuv3::events::Seen;
use crate::smmuv3::numbers::{GERROR, GERRORN, RESUME_ABORT, RESUME_RETRY, gerror, resume};
use crate::smmuv3::pages::{answer, complete};
use iopf::Response;

impl Guest {
    /// Serves the Event queue: logs what is over, resolves what stalls and lets it go.
    pub(super) fn handle_events(&self) {
        let mut stalled: Vec<Group> = Vec::new();
        let more = {
            let mut log = self.kernel.faults();
            log.interrupts += 1;
            let batch = lock(&self.events).read(&self.hw, &self.kernel.ram);
            for words in batch.entries {
                let seen = Seen::decode(words);
                match seen.page_request() {
                    Some(group) => stalled.push(group),
                    None => log.add(seen.rid, seen.id, seen.addr(), seen),
                }
            }
            log.overflows += u64::from(batch.overflowed);
            batch.more
        };
        lock(&self.stalls).events += stalled.len() as u64;
        let bindings = &self.kernel.bindings;
        bindings.serve(&stalled, |answers| self.let_go(answers));
        if more {
            self.kernel.irqs.keep(EVENT_VECTOR);
        }
    }

    /// Lets stalled requests go, which are counted. No CMD_SYNC: it would do nothing for them.
    fn let_go(&self, answers: &[(&PageGroup, Response)]) {
        let mut commands = Vec::new();
        {
            let mut stalls = lock(&self.stalls);
            for (group, answer) in answers {
                let how = if *answer == Response::Success {
                    stalls.retried += 1;
                    RESUME_RETRY
                } else {
                    stalls.aborted += 1;
                    RESUME_ABORT
                };
                let [low, high, ..] = group.index.0.to_le_bytes();
                let tag = u16::from_le_bytes([low, high]);
                commands.push(resume(group.rid.0, tag, how));
            }
        }
        if self.post(&commands).is_err() {
            self.note("arm-smmu-v3: stalled requests could not be let go");
        }
    }

    /// Serves the PRI queue: resolves complete groups and answers them.
    pub(super) fn handle_page_requests(&self) {
        let (whole, more) = {
            let mut groups = lock(&self.groups);
            groups.stats.interrupts += 1;
            let batch = lock(&self.pages).read(&self.hw, &self.kernel.ram);
            let more = batch.more;
            (complete(&mut groups, batch), more)
        };
        let bindings = &self.kernel.bindings;
        bindings.serve(&whole, |answers| self.respond(answers));
        if more {
            self.kernel.irqs.keep(PAGE_VECTOR);
        }
    }

    /// Queues the answers, which are counted.
    fn respond(&self, answers: &[(&PageGroup, Response)]) {
        let mut commands = Vec::new();
        {
            let mut groups = lock(&self.groups);
            for (group, response) in answers {
                groups.answered(*response);
                commands.push(answer(group.rid, group.pasid, group.index, *response));
            }
        }
        if self.post(&commands).is_err() {
            self.note("arm-smmu-v3: answers to page requests failed");
        }
    }

    /// After `arm_smmu_gerror_handler()`.
    pub(super) fn handle_errors(&self) {
        // Whoever waits for a command acknowledges errors as well.
        let commands = lock(&self.commands);
        if commands.check(&self.hw, &self.kernel.ram).is_some() {
            self.note("arm-smmu-v3: CMDQ error: skipping command in error");
        }
        let known = self.hw.mmio.read32(GERRORN);
        let mut active = self.hw.mmio.read32(GERROR) ^ known;
        active &= gerror::EVTQ_ABORT | gerror::PRIQ_ABORT;
        if active & gerror::EVTQ_ABORT != 0 {
            self.note("arm-smmu-v3: EVTQ write aborted -- events may have been lost");
        }
        if active & gerror::PRIQ_ABORT != 0 {
            self.note("arm-smmu-v3: PRIQ write aborted -- events may have been lost");
        }
        self.hw.mmio.write32(GERRORN, known ^ active);
    }
}
