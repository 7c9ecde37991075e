//! Device table and guest CR3 tables, written word by word.
//!
//! Linux `drivers/iommu/amd/amd_iommu_types.h` (`DTE_*`, `GCR3_*`) is the source of the bit positions,
//! `iommu.c` (`set_dte_entry`, `__get_gcr3_pte`) of what belongs together.

use super::numbers::{DTE_GIOV, DTE_GV, DTE_I, DTE_IR, DTE_IW, DTE_PPR, DTE_TV, DTE_V, GCR3_VALID};
use crate::ram::{OutOfMemory, Ram};
use iopf::{Gpa, Pasid, Rid};
use std::sync::Arc;

/// A device table entry, four words.
pub type DeviceEntry = [u64; 4];

/// The entry of a device with host tables of 1–6 levels, and a device TLB.
#[must_use]
pub fn host(root: Gpa, levels: u8, domain: u16) -> DeviceEntry {
    [
        DTE_V | DTE_TV | u64::from(levels & 7) << 9 | root.0 | DTE_PPR | DTE_IR | DTE_IW,
        u64::from(domain) | DTE_I,
        0,
        0,
    ]
}

/// The entry of a device with guest tables of 4 levels alone, a device TLB and page requests; `levels` of
/// the guest CR3 table, 1–3.
#[must_use]
pub fn guest(cr3: Gpa, levels: u8, domain: u16) -> DeviceEntry {
    let [first, second, ..] = host(Gpa(0), 0, domain);
    [
        first
            | DTE_GV
            | DTE_GIOV
            | u64::from(levels.saturating_sub(1) & 3) << 56
            | (cr3.0 >> 12 & 7) << 58,
        second | (cr3.0 >> 15 & 0xffff) << 16 | cr3.0 >> 31 << 43,
        0,
        0,
    ]
}

/// The entry of a device with guest tables on top of host tables; the guest CR3 table is reached without
/// them.
#[must_use]
pub fn nested(cr3: Gpa, levels: u8, root: Gpa, host_levels: u8, domain: u16) -> DeviceEntry {
    let [first, second, ..] = guest(cr3, levels, domain);
    let [below, ..] = host(root, host_levels, domain);
    [first | below, second, 0, 0]
}

/// The device table of bus 0: 256 entries of 32 bytes.
#[derive(Debug)]
pub struct DeviceTable {
    ram: Arc<Ram>,
    base: Gpa,
}

/// Pages of the table.
const PAGES: u64 = 2;

impl DeviceTable {
    /// A table that lets no device do anything: V and TV, and neither IR nor IW. Linux
    /// `init_device_table_dma`.
    ///
    /// # Errors
    /// Without frames for it.
    pub fn new(ram: &Arc<Ram>) -> Result<Self, OutOfMemory> {
        let table = Self {
            ram: ram.clone(),
            base: ram.frames(PAGES)?,
        };
        for devfn in 0..=u8::MAX {
            ram.store(table.slot(Rid::from_pci(u16::from(devfn))), DTE_V | DTE_TV);
        }
        Ok(table)
    }

    /// What the base address register says of it: the address, and its pages less one.
    #[must_use]
    pub fn register(&self) -> u64 {
        self.base.0 | (PAGES - 1)
    }

    /// Where the first word of a device's entry lies, if it is on bus 0.
    #[must_use]
    pub fn slot(&self, rid: Rid) -> Gpa {
        Gpa(self.base.0 + u64::from(rid.0) * 32)
    }

    /// Stores an entry, the word with V last.
    pub fn set(&self, rid: Rid, entry: &DeviceEntry) {
        let slot = self.slot(rid);
        for (word, value) in entry.iter().enumerate().rev() {
            self.ram.store(Gpa(slot.0 + word as u64 * 8), *value);
        }
    }
}

/// The guest CR3 table of a device.
#[derive(Debug)]
pub struct Cr3Table {
    ram: Arc<Ram>,
    base: Gpa,
    levels: u8,
}

impl Cr3Table {
    /// An empty table of 1–3 levels, each of 9 bits of the PASID.
    ///
    /// # Errors
    /// Without a frame for it.
    pub fn new(ram: &Arc<Ram>, levels: u8) -> Result<Self, OutOfMemory> {
        Ok(Self {
            ram: ram.clone(),
            base: ram.frame()?,
            levels,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn base(&self) -> Gpa {
        self.base
    }

    /// How many levels it has.
    #[must_use]
    pub fn levels(&self) -> u8 {
        self.levels
    }

    /// Where the entry of the topmost level for `pasid` lies.
    #[must_use]
    pub fn top_slot(&self, pasid: Pasid) -> Gpa {
        entry(self.base, pasid, self.levels)
    }

    /// Where `pasid`'s entry lies, the tables on the way made where they are missing.
    ///
    /// # Errors
    /// Without a frame for a table.
    pub fn slot(&self, pasid: Pasid) -> Result<Gpa, OutOfMemory> {
        let mut table = self.base;
        for level in (2..=self.levels).rev() {
            let slot = entry(table, pasid, level);
            let raw = self.ram.load(slot);
            table = if raw & GCR3_VALID == 0 {
                let next = self.ram.frame()?;
                self.ram.store(slot, next.0 | GCR3_VALID);
                next
            } else {
                Gpa(raw & 0x000f_ffff_ffff_f000)
            };
        }
        Ok(entry(table, pasid, 1))
    }
}

fn entry(table: Gpa, pasid: Pasid, level: u8) -> Gpa {
    let index = pasid.get() >> (9 * u32::from(level.saturating_sub(1))) & 0x1ff;
    Gpa(table.0 + u64::from(index) * 8)
}
