//! The PPR log's handler.
//!
//! After `iommu_call_iopf_notifier()` of Linux `drivers/iommu/amd/ppr.c`.

use super::hardware::Hardware;
use super::log::Log;
use super::numbers::{Command, complete_ppr};
use crate::page_groups::{Group, Groups, PageGroup};
use crate::ram::Ram;
use iopf::{Access, GroupIndex, Iova, Pasid, Response, Rid};

/// The log, and what was read from it.
#[derive(Debug)]
pub(crate) struct PageLog {
    log: Log,
    pub(crate) groups: Groups,
}

/// Flags, bits 59:48 of the first word.
mod flag {
    pub(super) const EXEC: u64 = 0x002;
    pub(super) const READ: u64 = 0x004;
    pub(super) const WRITE: u64 = 0x020;
    pub(super) const USER: u64 = 0x040;
    pub(super) const RESERVED: u64 = 0x080;
    pub(super) const GUEST: u64 = 0x100;
}

impl PageLog {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            log,
            groups: Groups::default(),
        }
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Whether an entry of this device and PASID waits in the log.
    pub(crate) fn holds(&self, hw: &Hardware, ram: &Ram, rid: Rid, pasid: Option<Pasid>) -> bool {
        let wanted = |low: u64| low >> 60 == 1 && rid_of(low) == rid && pasid_of(low) == pasid;
        self.log.holds(hw, ram, wanted)
    }

    /// Reads the log, and returns the groups that are complete, in order.
    pub(crate) fn read(&mut self, hw: &Hardware, ram: &Ram) -> Vec<Group> {
        self.groups.stats.interrupts += 1;
        let batch = self.log.read(hw, ram);
        let mut groups = Vec::new();
        for [low, high] in batch.entries {
            self.groups.stats.requests += 1;
            groups.extend(self.one(low, high));
        }
        if batch.restarted {
            // Linux keeps what is unfinished; the rest of it may never come.
            self.groups.discard();
            self.groups.stats.overflows += 1;
        }
        groups
    }

    fn one(&mut self, low: u64, high: u64) -> Option<Group> {
        let flags = low >> 48 & 0xfff;
        let (rid, pasid) = (rid_of(low), pasid_of(low));
        let index = GroupIndex(u32::try_from(low >> 32 & 0x1ff).unwrap_or(0));
        let named = pasid.is_some_and(|pasid| pasid.get() != 0);
        if low >> 60 != 1 || flags & flag::RESERVED != 0 || !named {
            self.groups.stats.bad += 1;
            return Some(Group::refused(rid, pasid, index, Response::Failure));
        }
        let mut access = Access::empty();
        access.set(Access::READ, flags & flag::READ != 0);
        access.set(Access::WRITE, flags & flag::WRITE != 0);
        access.set(Access::EXEC, flags & flag::EXEC != 0);
        access.set(Access::PRIV, flags & flag::USER == 0);
        let page = PageGroup {
            rid,
            pasid,
            index,
            pages: vec![(Iova(high & !0xfff), access)],
        };
        self.groups.add(page, low >> 41 & 1 != 0)
    }
}

/// The command that gives an answer.
pub(crate) fn completion(
    rid: Rid,
    pasid: Option<Pasid>,
    index: GroupIndex,
    answer: Response,
) -> Command {
    let code = match answer {
        Response::Success => 0,
        Response::Invalid => 1,
        Response::Failure => 0xf,
    };
    complete_ppr(rid.pci(), pasid.map(Pasid::get), index.0, code)
}

fn rid_of(low: u64) -> Rid {
    let [first, second, ..] = low.to_le_bytes();
    Rid::from_pci(u16::from_le_bytes([first, second]))
}

fn pasid_of(low: u64) -> Option<Pasid> {
    let pasid = low >> 16 & 0xffff | (low >> 42 & 0xf) << 16;
    let pasid = u32::try_from(pasid).unwrap_or(0);
    (low >> 48 & flag::GUEST != 0).then(|| Pasid::truncate(pasid))
}
