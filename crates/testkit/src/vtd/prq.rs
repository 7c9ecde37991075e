//! The page request interrupt handler.
//!
//! After `prq_event_thread()` of Linux `drivers/iommu/intel/prq.c`: clear PPR, read the whole batch,
//! write the head once, then look at the overflow bit.

use super::guest::Guest;
use super::numbers::{Descriptor, PPR, PQA, PQH, PQT, PRO, PRS, page_group_response};
use crate::driver::Driver;
use crate::mmio::Mmio;
use crate::page_groups::{Group, Groups, PageGroup};
use crate::ram::{OutOfMemory, Ram};
use iopf::{Access, Gpa, GroupIndex, Iova, Pasid, Response, Rid};

#[derive(Debug)]
pub(crate) struct PrqRing {
    base: Gpa,
    mask: u64,
    pub(crate) groups: Groups,
}

impl PrqRing {
    /// Allocates `4096 << order` bytes and tells the IOMMU where they are.
    pub(crate) fn new(mmio: &Mmio, ram: &Ram, order: u8) -> Result<Self, OutOfMemory> {
        let order = order.min(7);
        let base = ram.frames(1 << order)?;
        mmio.write64(PQH, 0);
        mmio.write64(PQT, 0);
        mmio.write64(PQA, base.0 | u64::from(order));
        Ok(Self {
            base,
            mask: (4096u64 << order) - 0x20,
            groups: Groups::default(),
        })
    }

    /// Whether an entry of this device and PASID waits in the ring.
    pub(crate) fn holds(&self, mmio: &Mmio, ram: &Ram, rid: Rid, pasid: Option<Pasid>) -> bool {
        let tail = mmio.read64(PQT) & self.mask;
        let mut head = mmio.read64(PQH) & self.mask;
        while head != tail {
            let qw0 = ram.load(Gpa(self.base.0 + head));
            let (r, p) = (rid_of(qw0), pasid_of(qw0));
            if r == rid && p == pasid {
                return true;
            }
            head = (head + 0x20) & self.mask;
        }
        false
    }

    /// Reads the batch, and returns the groups that are complete, in order.
    pub(crate) fn read(&mut self, mmio: &Mmio, ram: &Ram) -> Vec<Group> {
        self.groups.stats.interrupts += 1;
        mmio.write32(PRS, PPR);
        let tail = mmio.read64(PQT) & self.mask;
        let mut head = mmio.read64(PQH) & self.mask;
        let mut groups = Vec::new();
        while head != tail {
            let at = self.base.0 + head;
            let (qw0, qw1) = (ram.load(Gpa(at)), ram.load(Gpa(at + 8)));
            self.groups.stats.requests += 1;
            groups.extend(self.one(qw0, qw1));
            head = (head + 0x20) & self.mask;
        }
        mmio.write64(PQH, tail);
        if mmio.read32(PRS) & PRO != 0 {
            // Only an empty ring tells that no page of a discarded group is still in it.
            if mmio.read64(PQH) & self.mask == mmio.read64(PQT) & self.mask {
                self.groups.discard();
                mmio.write32(PRS, PRO);
                self.groups.stats.overflows += 1;
            }
        }
        groups
    }

    fn one(&mut self, qw0: u64, qw1: u64) -> Option<Group> {
        let (read, write, last) = (qw1 & 1 != 0, qw1 & 2 != 0, qw1 & 4 != 0);
        let (exec, privileged) = (qw0 >> 52 & 1 != 0, qw0 >> 53 & 1 != 0);
        let addr = Iova(qw1 & !0xfff);
        let rid = rid_of(qw0);
        let pasid = pasid_of(qw0);
        let index = GroupIndex(u32::try_from(qw1 >> 3 & 0x1ff).unwrap_or(0));
        if !canonical(addr) || (privileged && (read || write)) || (exec && read) {
            self.groups.stats.bad += 1;
            return last.then(|| Group::refused(rid, pasid, index, Response::Invalid));
        }
        if last && !read && !write {
            self.groups.stats.stop_markers += 1;
            return None;
        }
        let mut access = Access::empty();
        access.set(Access::READ, read);
        access.set(Access::WRITE, write);
        access.set(Access::EXEC, exec);
        access.set(Access::PRIV, privileged);
        let page = PageGroup {
            rid,
            pasid,
            index,
            pages: vec![(addr, access)],
        };
        self.groups.add(page, last)
    }
}

impl Guest {
    fn read_page_requests(&self) -> Vec<Group> {
        let mut ring = self.prq();
        let Some(ring) = ring.as_mut() else {
            return Vec::new();
        };
        ring.read(self.mmio(), self.ram())
    }

    /// Serves the page request queue: resolves complete groups and answers them.
    pub(crate) fn handle_page_requests(&self) {
        let groups = self.read_page_requests();
        let bindings = &self.kernel().bindings;
        bindings.serve(&groups, |answers| self.respond(answers));
    }

    /// Takes what is in the page request queue, in place of the guest's own handler: each group
    /// is owed an [`answer_group`](Self::answer_group). Whoever calls this must not call
    /// [`service`](Driver::service), which resolves groups from the bound address spaces.
    pub fn take_groups(&self) -> Vec<PageGroup> {
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for group in self.read_page_requests() {
            match group.refused {
                Some(answer) => bad.push((group.page_group, answer)),
                None => good.push(group.page_group),
            }
        }
        let answers: Vec<_> = bad.iter().map(|(group, answer)| (group, *answer)).collect();
        self.respond(&answers);
        good
    }

    /// Answers a group: Success if `resolved`, else Invalid.
    pub fn answer_group(&self, group: &PageGroup, resolved: bool) {
        let answer = if resolved {
            Response::Success
        } else {
            Response::Invalid
        };
        self.respond(&[(group, answer)]);
    }

    /// Queues the answers, which are counted.
    fn respond(&self, answers: &[(&PageGroup, Response)]) {
        if answers.is_empty() {
            return;
        }
        if let Some(ring) = self.prq().as_mut() {
            for (_, answer) in answers {
                ring.groups.answered(*answer);
            }
        }
        let descriptors: Vec<Descriptor> = answers
            .iter()
            .map(|(group, answer)| response(group.rid, group.pasid, group.index, *answer))
            .collect();
        if self.submit(&descriptors).is_err() {
            self.note("DMAR: page group responses failed");
        }
    }
}

/// The page group response that gives an answer.
pub(crate) fn response(
    rid: Rid,
    pasid: Option<Pasid>,
    index: GroupIndex,
    answer: Response,
) -> Descriptor {
    let code = match answer {
        Response::Success => 0,
        Response::Invalid => 1,
        Response::Failure => 0xf,
    };
    page_group_response(rid.pci(), pasid.map(Pasid::get), index.0, code)
}

fn rid_of(qw0: u64) -> Rid {
    let [_, _, low, high, ..] = qw0.to_le_bytes();
    Rid::from_pci(u16::from_le_bytes([low, high]))
}

fn pasid_of(qw0: u64) -> Option<Pasid> {
    let pasid = u32::try_from(qw0 >> 32 & 0xf_ffff).unwrap_or(0);
    (qw0 >> 8 & 1 != 0).then(|| Pasid::truncate(pasid))
}

/// Whether bits 63:47 are all the same.
fn canonical(at: Iova) -> bool {
    let top = at.0 >> 47;
    top == 0 || top == 0x1_ffff
}
