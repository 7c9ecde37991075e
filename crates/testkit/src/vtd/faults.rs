//! The fault interrupt handler, and the log a guest's administrator reads.
//!
//! After `dmar_fault()` of Linux `drivers/iommu/intel/dmar.c`.

use super::numbers::{CAP, FSTS, FSTS_PRO, PFO};
use super::queue::Mmio;
use iopf::{Iova, Pasid, Rid};
use std::collections::{BTreeMap, VecDeque};
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

/// Faults of one device and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many records.
    pub count: u64,
    /// Address of the first one.
    pub first: Iova,
    /// Address of the last one.
    pub last: Iova,
}

/// What the guest knows of the faults so far: all counts, and the latest records.
#[derive(Clone, Debug, Default)]
pub struct FaultLog {
    /// Counts by device and reason.
    pub tallies: BTreeMap<(Rid, u8), Tally>,
    /// The latest records, oldest first.
    pub latest: VecDeque<Seen>,
    /// Records not in `latest` any more.
    pub suppressed: u64,
    /// Interrupts that found the overflow bit set: records were lost before them.
    pub overflows: u64,
    /// Interrupts handled.
    pub interrupts: u64,
}

impl FaultLog {
    /// Records read so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.tallies.values().map(|t| t.count).sum()
    }

    fn add(&mut self, seen: Seen) {
        let tally = self.tallies.entry((seen.rid, seen.reason));
        let tally = tally.or_insert(Tally {
            count: 0,
            first: seen.addr,
            last: seen.addr,
        });
        tally.count += 1;
        tally.last = seen.addr;
        if self.latest.len() >= LATEST {
            self.latest.pop_front();
            self.suppressed += 1;
        }
        self.latest.push_back(seen);
    }
}

/// Records kept for reading.
const LATEST: usize = 256;
/// Records read in one interrupt at most; a model that never runs dry is no reason to hang.
const BATCH: u32 = 1 << 16;

const F: u32 = 1 << 31;

/// Reads every pending record and clears the status.
pub(crate) fn handle(mmio: &Mmio, log: &mut FaultLog) {
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
        log.add(decode(lo, hi));
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
        rid: Rid(u16::from_le_bytes([r0, r1])),
        pasid: present.then(|| Pasid::truncate(pasid)),
        reason: hi.to_le_bytes()[4],
        addr: Iova(lo & !0xfff),
        // T1 and T2 together: 10 is a read, 00 a write, 01 a page request, 11 an atomic.
        read: hi >> 62 & 1 != 0 && hi >> 28 & 1 == 0,
        hi,
    }
}
