//! Stream tables and tables of context descriptors, written word by word.
//!
//! Linux `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.h` (`STRTAB_*`, `CTXDESC_*`) is the source of the bit
//! positions, `arm-smmu-v3.c` (`arm_smmu_make_cdtable_ste`, `arm_smmu_make_s2_domain_ste`,
//! `arm_smmu_make_s1_cd`) of what belongs together.

use super::numbers::{
    CD_A, CD_AA64, CD_ASET, CD_EPD1, CD_HA, CD_HD, CD_R, CD_V, CONFIG_FIRST, CONFIG_NESTED,
    CONFIG_SECOND, DSS_SSID0, EATS_TRANS, STE_CONTEXTS_64K, STE_NO_STALLS, STE_S2AA64, STE_S2PTW,
    STE_S2R, STE_SHCFG, STE_V,
};
use crate::ram::{FRAME, OutOfMemory, Ram};
use iopf::{Gpa, Pasid, Rid};
use std::sync::Arc;

/// A stream table entry or a context descriptor, eight words.
pub type Entry = [u64; 8];

/// Bits of a substream that a device has, of 20 at most: 64 tables of context descriptors.
pub const SUBSTREAM_BITS: u8 = 16;
/// Context descriptors in a table of 64 KiB.
const CONTEXTS: u64 = 1024;
/// Bits of a StreamID that lead to an entry of its second table (`STRTAB_SPLIT`).
pub const SPLIT: u32 = 8;

/// How a device meets a page that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misses {
    /// Its requests stall. It has no device TLB.
    Stall,
    /// It asks for pages (PRI), through a device TLB.
    Request,
}

/// The entry of a device with a table of context descriptors, as Linux has it: requests without a PASID use
/// the first of them. `choice`: the SMMU leaves it to software whether faults stall.
#[must_use]
pub fn first_stage(contexts: Gpa, misses: Misses, choice: bool) -> Entry {
    let ways = match misses {
        Misses::Stall => 0,
        Misses::Request if choice => EATS_TRANS | STE_NO_STALLS,
        Misses::Request => EATS_TRANS,
    };
    // S1CIR, S1COR and S1CSH: write-back, inner shareable.
    let memory = 1 << 2 | 1 << 4 | 3 << 6;
    let mut entry = [0; 8];
    entry[0] =
        STE_V | CONFIG_FIRST | STE_CONTEXTS_64K | contexts.0 | u64::from(SUBSTREAM_BITS) << 59;
    entry[1] = DSS_SSID0 | memory | ways;
    entry
}

/// The entry of a device with stage 2 alone, 48 bits in four levels of 4 KiB tables, and a device TLB.
#[must_use]
pub fn second_stage(root: Gpa, vmid: u16) -> Entry {
    // S2T0SZ 16, S2SL0 2, S2IR0 and S2OR0 write-back, S2SH0 inner shareable, S2TG 4 KiB, S2PS 48 bits.
    let control = 16 | 2 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 5 << 16;
    let mut entry = [0; 8];
    entry[0] = STE_V | CONFIG_SECOND;
    entry[1] = EATS_TRANS | STE_SHCFG;
    entry[2] = u64::from(vmid) | control << 32 | STE_S2AA64 | STE_S2PTW | STE_S2R;
    entry[3] = root.0;
    entry
}

/// The entry of a device with both.
#[must_use]
pub fn nested(first: &Entry, second: &Entry) -> Entry {
    let mut entry = *first;
    entry[0] |= CONFIG_NESTED;
    entry[2] = second[2];
    entry[3] = second[3];
    entry
}

/// A context descriptor with tables of four levels, 48 bits, from `root` on. Hardware keeps the access flag
/// and the dirty state; faults are recorded and what faults is aborted.
#[must_use]
pub fn context(root: Gpa, asid: u16) -> Entry {
    // T0SZ 16, TG0 4 KiB, IRGN0 and ORGN0 write-back, SH0 inner shareable, IPS 48 bits.
    let control = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 5 << 32;
    let mut entry = [0; 8];
    entry[0] = control
        | CD_EPD1
        | CD_V
        | CD_AA64
        | CD_HA
        | CD_HD
        | CD_R
        | CD_A
        | CD_ASET
        | u64::from(asid) << 48;
    entry[1] = root.0;
    // Normal memory, write-back.
    entry[3] = 0xff;
    entry
}

/// Stores an entry, its first word, which has the valid bit, last.
pub fn store(ram: &Ram, at: Gpa, entry: &Entry) {
    for (word, value) in entry.iter().enumerate().rev() {
        ram.store(Gpa(at.0 + word as u64 * 8), *value);
    }
}

/// A stream table of two levels, for StreamIDs of 16 bits: a table for each bus of PCI.
#[derive(Debug)]
pub struct StreamTable {
    ram: Arc<Ram>,
    base: Gpa,
}

/// Bits of its StreamIDs.
const STREAM_BITS: u32 = 16;
/// Where entries of the first level have the address of the second.
const L2_ADDRESS: u64 = 0x000f_ffff_ffff_ffc0;

impl StreamTable {
    /// A table without any entry.
    ///
    /// # Errors
    /// Without a frame for it.
    pub fn new(ram: &Arc<Ram>) -> Result<Self, OutOfMemory> {
        Ok(Self {
            ram: ram.clone(),
            base: ram.frame()?,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn base(&self) -> Gpa {
        self.base
    }

    /// `STRTAB_BASE_CFG`: two levels, the split, the size.
    #[must_use]
    pub const fn config() -> u32 {
        1 << 16 | SPLIT << 6 | STREAM_BITS
    }

    /// Where the first level's entry for a stream lies, if it has 16 bits.
    #[must_use]
    pub fn first_slot(&self, rid: Rid) -> Gpa {
        Gpa(self.base.0 + u64::from(rid.0 >> SPLIT) * 8)
    }

    /// Where the entry of a stream of 16 bits lies, in a table that is made where it is missing; what is
    /// there then is abort.
    ///
    /// # Errors
    /// Without frames for the table.
    pub fn slot(&self, rid: Rid) -> Result<Gpa, OutOfMemory> {
        let first = self.first_slot(rid);
        let raw = self.ram.load(first);
        let table = if raw & 0x1f == 0 {
            let table = self.ram.frames(64 * 256 / FRAME)?;
            for entry in 0..256 {
                self.ram.store(Gpa(table.0 + entry * 64), STE_V);
            }
            // Span: as many entries as there can be.
            self.ram.store(first, table.0 | u64::from(SPLIT + 1));
            table
        } else {
            Gpa(raw & L2_ADDRESS)
        };
        Ok(Gpa(table.0 + u64::from(rid.0 & 0xff) * 64))
    }
}

/// The context descriptors of a device, in two levels.
#[derive(Debug)]
pub struct ContextTable {
    ram: Arc<Ram>,
    base: Gpa,
}

/// Valid, in an entry of the first level (`CTXDESC_L1_DESC_V`).
pub const L1CD_V: u64 = 1;

impl ContextTable {
    /// An empty one.
    ///
    /// # Errors
    /// Without a frame for it.
    pub fn new(ram: &Arc<Ram>) -> Result<Self, OutOfMemory> {
        Ok(Self {
            ram: ram.clone(),
            base: ram.frame()?,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn base(&self) -> Gpa {
        self.base
    }

    /// Where the first level's entry for `pasid`, of 16 bits, lies.
    #[must_use]
    pub fn first_slot(&self, pasid: Pasid) -> Gpa {
        Gpa(self.base.0 + u64::from(pasid.get()) / CONTEXTS * 8)
    }

    /// Where the descriptor of `pasid`, of 16 bits, lies; whether its table had to be made for it.
    ///
    /// # Errors
    /// Without frames for the table.
    pub fn slot(&self, pasid: Pasid) -> Result<(Gpa, bool), OutOfMemory> {
        let first = self.first_slot(pasid);
        let raw = self.ram.load(first);
        let made = raw & L1CD_V == 0;
        let table = if made {
            let table = self.ram.frames(CONTEXTS * 64 / FRAME)?;
            self.ram.store(first, table.0 | L1CD_V);
            table
        } else {
            Gpa(raw & 0x000f_ffff_ffff_f000)
        };
        let index = u64::from(pasid.get()) % CONTEXTS;
        Ok((Gpa(table.0 + index * 64), made))
    }
}
