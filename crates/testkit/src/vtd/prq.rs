//! The page request interrupt handler.
//!
//! After `prq_event_thread()` of Linux `drivers/iommu/intel/prq.c`: clear PPR, read the whole batch,
//! write the head once, then look at the overflow bit.

use super::guest::Guest;
use super::numbers::{Descriptor, PPR, PQA, PQH, PQT, PRO, PRS, page_group_response};
use super::queue::Mmio;
use crate::ram::{OutOfMemory, Ram};
use iopf::{Access, Gpa, GroupIndex, Iova, Pasid, Rid};
use std::collections::BTreeMap;

/// What the handler has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrqStats {
    /// Interrupts handled.
    pub interrupts: u64,
    /// Page requests read.
    pub requests: u64,
    /// Groups answered Success.
    pub success: u64,
    /// Groups answered Invalid.
    pub invalid: u64,
    /// Requests refused before anybody looked at a mapping.
    pub bad: u64,
    /// Stop markers.
    pub stop_markers: u64,
    /// Times the overflow bit was found set and cleared.
    pub overflows: u64,
    /// Pages of unfinished groups thrown away at an overflow.
    pub discarded: u64,
}

#[derive(Debug)]
pub(crate) struct PrqRing {
    base: Gpa,
    mask: u64,
    partial: BTreeMap<(Rid, GroupIndex), Vec<Page>>,
    pub(crate) stats: PrqStats,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    addr: Iova,
    access: Access,
}

/// A whole group, or a request that is refused on sight.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    page_group: PageGroup,
    bad: bool,
}

/// A group of page requests, taken from the queue by a handler of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageGroup {
    /// Who asks.
    pub rid: Rid,
    /// The PASID of the last request.
    pub pasid: Option<Pasid>,
    /// The group's index.
    pub index: GroupIndex,
    /// Its pages, in the order they came.
    pub pages: Vec<(Iova, Access)>,
}

/// Pages of unfinished groups kept for all devices together; Linux has no bound here.
const MAX_PARTIAL: usize = 1 << 16;

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
            partial: BTreeMap::new(),
            stats: PrqStats::default(),
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
        self.stats.interrupts += 1;
        mmio.write32(PRS, PPR);
        let tail = mmio.read64(PQT) & self.mask;
        let mut head = mmio.read64(PQH) & self.mask;
        let mut groups = Vec::new();
        while head != tail {
            let at = self.base.0 + head;
            let (qw0, qw1) = (ram.load(Gpa(at)), ram.load(Gpa(at + 8)));
            self.stats.requests += 1;
            groups.extend(self.one(qw0, qw1));
            head = (head + 0x20) & self.mask;
        }
        mmio.write64(PQH, tail);
        if mmio.read32(PRS) & PRO != 0 {
            // Only an empty ring tells that no page of a discarded group is still in it.
            if mmio.read64(PQH) & self.mask == mmio.read64(PQT) & self.mask {
                let lost: usize = self.partial.values().map(Vec::len).sum();
                self.stats.discarded += lost as u64;
                self.partial.clear();
                mmio.write32(PRS, PRO);
                self.stats.overflows += 1;
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
            self.stats.bad += 1;
            let page_group = PageGroup {
                rid,
                pasid,
                index,
                pages: Vec::new(),
            };
            return last.then_some(Group {
                page_group,
                bad: true,
            });
        }
        if last && !read && !write {
            self.stats.stop_markers += 1;
            return None;
        }
        let mut access = Access::empty();
        access.set(Access::READ, read);
        access.set(Access::WRITE, write);
        access.set(Access::EXEC, exec);
        access.set(Access::PRIV, privileged);
        let held: usize = self.partial.values().map(Vec::len).sum();
        if !last {
            if held < MAX_PARTIAL {
                let pages = self.partial.entry((rid, index)).or_default();
                pages.push(Page { addr, access });
            }
            return None;
        }
        let mut pages = self.partial.remove(&(rid, index)).unwrap_or_default();
        pages.push(Page { addr, access });
        let page_group = PageGroup {
            rid,
            pasid,
            index,
            pages: pages.into_iter().map(|p| (p.addr, p.access)).collect(),
        };
        Some(Group {
            page_group,
            bad: false,
        })
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
        let mut answers: Vec<Descriptor> = Vec::new();
        for Group { page_group, bad } in self.read_page_requests() {
            let ok = !bad && self.resolve(&page_group);
            answers.push(self.answer(&page_group, ok));
            if answers.len() >= 64 {
                self.respond(&mut answers);
            }
        }
        self.respond(&mut answers);
    }

    /// Takes what is in the page request queue, in place of the guest's own handler: each group
    /// is owed an [`answer_group`](Self::answer_group). Whoever calls this must not call
    /// [`service`](Self::service), which resolves groups from the bound address spaces.
    pub fn take_groups(&self) -> Vec<PageGroup> {
        let (bad, good): (Vec<_>, Vec<_>) =
            self.read_page_requests().into_iter().partition(|g| g.bad);
        let refusal = |group: &Group| self.answer(&group.page_group, false);
        self.respond(&mut bad.iter().map(refusal).collect());
        good.into_iter().map(|group| group.page_group).collect()
    }

    /// Answers a group: Success if `resolved`, else Invalid.
    pub fn answer_group(&self, group: &PageGroup, resolved: bool) {
        let answer = self.answer(group, resolved);
        self.respond(&mut vec![answer]);
    }

    /// The page group response, which is counted.
    fn answer(&self, group: &PageGroup, ok: bool) -> Descriptor {
        if let Some(ring) = self.prq().as_mut() {
            if ok {
                ring.stats.success += 1;
            } else {
                ring.stats.invalid += 1;
            }
        }
        let pasid = group.pasid.map(Pasid::get);
        page_group_response(group.rid.0, pasid, group.index.0, u8::from(!ok))
    }

    fn respond(&self, answers: &mut Vec<Descriptor>) {
        if !answers.is_empty() && self.submit(answers).is_err() {
            self.note("DMAR: page group responses failed");
        }
        answers.clear();
    }

    /// Makes the pages of a group present; the first error decides for all of it.
    fn resolve(&self, group: &PageGroup) -> bool {
        let Some(mm) = group.pasid.and_then(|p| self.bound(group.rid, p)) else {
            return false;
        };
        group
            .pages
            .iter()
            .all(|(addr, access)| mm.fault(*addr, *access).is_ok())
    }
}

fn rid_of(qw0: u64) -> Rid {
    let [_, _, low, high, ..] = qw0.to_le_bytes();
    Rid(u16::from_le_bytes([low, high]))
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
