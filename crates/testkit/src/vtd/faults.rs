//! The fault interrupt handler.
//!
//! After `dmar_fault()` of Linux `drivers/iommu/intel/dmar.c`.

use super::numbers::{CAP, FSTS, FSTS_PRO, PFO};
use crate::fault_log::FaultLog;
use crate::mmio::Mmio;
use iopf::{Iova, Pasid, Rid};
use std::fmt;

/// A fault record as the guest read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The device.
    pub rid: Rid,
    /// The address space, where the record has one.
    pub pasid: Option<Pasid>,
    /// Fault reason.
    pub reason: u8,
    /// Page address.
    pub addr: Iova,
    /// A read rather than a write.
    pub read: bool,
    /// Bits 127:64 of the record.
    pub hi: u64,
}

impl fmt::Display for Seen {
    /// The line Linux prints, without the sentence at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.read { "Read" } else { "Write" };
        match self.pasid {
            Some(pasid) => write!(f, "DMAR: [DMA {kind} PASID {pasid}]")?,
            None => write!(f, "DMAR: [DMA {kind} NO_PASID]")?,
        }
        write!(
            f,
            " Request device [{}] fault addr {} [fault reason {:#04x}]",
            self.rid, self.addr, self.reason
        )
    }
}

/// Records read in one interrupt at most; a model that never runs dry is no reason to hang.
const BATCH: u32 = 1 << 16;

const F: u32 = 1 << 31;

/// Reads every pending record and clears the status.
pub(crate) fn handle(mmio: &Mmio, log: &mut FaultLog<Seen>) {
    log.interrupts += 1;
    let cap = mmio.read64(CAP);
    let base = ((cap >> 24) & 0x3ff) * 16;
    let count = ((cap >> 40) & 0xff) + 1;
    let status = mmio.read32(FSTS);
    let mut index = u64::from(status >> 8 & 0xff) % count;
    if status & PFO != 0 {
        log.overflows += 1;
    }
    for _ in 0..BATCH {
        let at = base + index * 16;
        let top = mmio.read32(at + 12);
        if top & F == 0 {
            break;
        }
        let lo = mmio.read64(at);
        let middle = mmio.read32(at + 8);
        mmio.write32(at + 12, F);
        let hi = u64::from(top) << 32 | u64::from(middle);
        let seen = decode(lo, hi);
        log.add(seen.rid, seen.reason, seen.addr, seen);
        index = (index + 1) % count;
    }
    // PFO, PPF and PRO, as Linux clears them.
    mmio.write32(FSTS, PFO | FSTS_PRO | 1 << 1);
}

fn decode(lo: u64, hi: u64) -> Seen {
    let [r0, r1, ..] = hi.to_le_bytes();
    let present = hi >> 31 & 1 != 0;
    let pasid = u32::try_from(hi >> 40 & 0xf_ffff).unwrap_or(0);
    Seen {
        rid: Rid::from_pci(u16::from_le_bytes([r0, r1])),
        pasid: present.then(|| Pasid::truncate(pasid)),
        reason: hi.to_le_bytes()[4],
        addr: Iova(lo & !0xfff),
        // T1 and T2 together: 10 is a read, 00 a write, 01 a page request, 11 an atomic.
        read: hi >> 62 & 1 != 0 && hi >> 28 & 1 == 0,
        hi,
    }
}
