//! Page tables, written word by word.
//!
//! Processors have x86-64's tables or Arm's (VMSAv8-64, a granule of 4 KiB). The first stage of VT-d and the
//! guest tables of AMD-Vi are the former, stage 1 of an SMMUv3 is the latter. The others belong to IOMMUs:
//! Linux `drivers/iommu/intel/iommu.h` (`struct dma_pte`), `drivers/iommu/generic_pt/fmt/amdv1.h`
//! (`AMDV1PT_FMT_*`) and `drivers/iommu/io-pgtable-arm.c` (`ARM_LPAE_PTE_*`) are the sources of their bits,
//! `arch/arm64/include/asm/pgtable-prot.h` that of a process's on Arm. Typed by hand: a scripted guest is
//! the second author that the models are checked against.

use crate::ram::{OutOfMemory, Ram};
use iopf::{Access, Gpa, Iova};
use std::sync::{Arc, Mutex, PoisonError};

/// x86-64: present.
pub const P: u64 = 1;
/// x86-64: writable.
pub const RW: u64 = 1 << 1;
/// x86-64: user.
pub const US: u64 = 1 << 2;
/// x86-64: accessed.
pub const A: u64 = 1 << 5;
/// x86-64: dirty.
pub const D: u64 = 1 << 6;
/// x86-64, and VT-d's second stage: a leaf above the lowest level.
pub const PS: u64 = 1 << 7;
/// x86-64: no execution.
pub const XD: u64 = 1 << 63;
/// VT-d's second stage: readable.
pub const SS_R: u64 = 1;
/// VT-d's second stage: writable.
pub const SS_W: u64 = 1 << 1;
/// AMD-Vi's host tables: present (PR).
pub const HOST_PR: u64 = 1;
/// AMD-Vi's host tables: readable (IR).
pub const HOST_IR: u64 = 1 << 61;
/// AMD-Vi's host tables: writable (IW).
pub const HOST_IW: u64 = 1 << 62;

/// Arm, both stages: valid.
pub const VALID: u64 = 1;
/// Arm, both stages: leads to a table, or is a page of the lowest level; a block without.
pub const TABLE: u64 = 1 << 1;
/// Arm, stage 1: for unprivileged accesses too (AP\[1\]).
pub const AP_USER: u64 = 1 << 6;
/// Arm, stage 1: read-only (AP\[2\]).
pub const AP_READ_ONLY: u64 = 1 << 7;
/// Arm, both stages: inner shareable.
pub const SHARED: u64 = 3 << 8;
/// Arm, both stages: the access flag (AF).
pub const AF: u64 = 1 << 10;
/// Arm, stage 1: of one address space only (nG).
pub const NOT_GLOBAL: u64 = 1 << 11;
/// Arm, stage 1: hardware may make it writable (DBM).
pub const DBM: u64 = 1 << 51;
/// Arm, stage 1: no execution by privileged accesses (PXN).
pub const PXN: u64 = 1 << 53;
/// Arm, stage 1: no execution by unprivileged accesses (UXN).
pub const UXN: u64 = 1 << 54;
/// Arm, stage 1, an entry that leads to a table: nothing below is writable (APTable\[1\]).
pub const AP_TABLE_READ_ONLY: u64 = 1 << 62;
/// Arm, stage 2: readable (`HAP_READ`).
pub const S2_READ: u64 = 1 << 6;
/// Arm, stage 2: writable (`HAP_WRITE`).
pub const S2_WRITE: u64 = 1 << 7;
/// Arm, stage 2: normal memory, write-back.
pub const S2_NORMAL: u64 = 0xf << 2;

/// Where all of them have the address; Arm's ends at bit 47, and what it has above is clear in an entry
/// that leads down.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Next Level of AMD-Vi's host tables, 0–7; 0 and 7 map a page.
#[must_use]
pub const fn next_level(level: u8) -> u64 {
    (level as u64 & 7) << 9
}

/// Whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// x86-64's: VT-d's first stage, AMD-Vi's guest tables. 4 or 5 levels.
    X86,
    /// VT-d's second stage. 3, 4 or 5 levels.
    VtdSecond,
    /// AMD-Vi's host tables. 1–6 levels.
    AmdHost,
    /// Arm's stage 1. 4 levels are 48 bits; the level here is 4 less the architecture's.
    ArmFirst,
    /// Arm's stage 2, as [`ArmFirst`](Self::ArmFirst).
    ArmSecond,
}

impl Format {
    /// One of these bits is set in an entry that says anything.
    fn present(self) -> u64 {
        match self {
            Self::X86 => P,
            Self::VtdSecond => SS_R | SS_W,
            Self::AmdHost => HOST_PR,
            Self::ArmFirst | Self::ArmSecond => VALID,
        }
    }

    /// Whether an entry above the lowest level leads to another table.
    fn leads_down(self, raw: u64) -> bool {
        let leaf = match self {
            Self::X86 | Self::VtdSecond => raw & PS != 0,
            Self::AmdHost => matches!(raw >> 9 & 7, 0 | 7),
            Self::ArmFirst | Self::ArmSecond => raw & TABLE == 0,
        };
        raw & self.present() != 0 && !leaf
    }

    /// What an entry of `level` has that leads to the level below.
    fn table_bits(self, level: u8) -> u64 {
        match self {
            Self::X86 => P | RW | US,
            Self::VtdSecond => SS_R | SS_W,
            Self::AmdHost => HOST_PR | HOST_IR | HOST_IW | next_level(level - 1),
            Self::ArmFirst | Self::ArmSecond => VALID | TABLE,
        }
    }

    /// What a leaf of `level` has, beside its rights.
    fn leaf_bits(self, level: u8) -> u64 {
        match self {
            Self::X86 | Self::VtdSecond if level > 1 => PS,
            Self::X86 | Self::VtdSecond | Self::AmdHost => 0,
            Self::ArmFirst | Self::ArmSecond if level > 1 => VALID,
            Self::ArmFirst | Self::ArmSecond => VALID | TABLE,
        }
    }
}

/// Whose processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// x86-64.
    X86,
    /// Arm, 64 bits. Pages may be written from the start and are clean: hardware takes note of the first
    /// write.
    Arm,
}

impl Processor {
    /// The format of its tables.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::X86 => Format::X86,
            Self::Arm => Format::ArmFirst,
        }
    }

    /// What the entry of a process's page has beside the address; 0 for a page without any right.
    pub(crate) fn page(self, rights: Access) -> u64 {
        if !rights.intersects(Access::READ | Access::WRITE | Access::EXEC) {
            return 0;
        }
        let (write, execute) = (
            rights.contains(Access::WRITE),
            rights.contains(Access::EXEC),
        );
        let with = |condition, bits| if condition { bits } else { 0 };
        match self {
            Self::X86 => P | US | A | with(write, RW | D) | with(!execute, XD),
            // PAGE_SHARED, PAGE_READONLY and PAGE_READONLY_EXEC; pte_mkclean() has no writable ones.
            Self::Arm => {
                let all = VALID | TABLE | AP_USER | AP_READ_ONLY | SHARED | AF | NOT_GLOBAL | PXN;
                all | with(write, DBM) | with(!execute, UXN)
            }
        }
    }
}

/// A page table.
#[derive(Debug)]
pub struct PageTable {
    ram: Arc<Ram>,
    format: Format,
    levels: u8,
    root: Gpa,
    // One writer at a time grows the tree; walkers see whole words.
    tables: Mutex<Vec<Gpa>>,
}

impl PageTable {
    /// An empty table of 1–6 levels, of as many as its IOMMU knows.
    ///
    /// # Errors
    /// Without a frame for the root.
    pub fn new(ram: &Arc<Ram>, format: Format, levels: u8) -> Result<Self, OutOfMemory> {
        let root = ram.frame()?;
        Ok(Self {
            ram: ram.clone(),
            format,
            levels,
            root,
            tables: Mutex::new(vec![root]),
        })
    }

    /// Where the root table lies.
    #[must_use]
    pub fn root(&self) -> Gpa {
        self.root
    }

    /// How many levels it has.
    #[must_use]
    pub fn levels(&self) -> u8 {
        self.levels
    }

    /// Whether this entry of it says anything.
    pub(crate) fn is_present(&self, raw: u64) -> bool {
        raw & self.format.present() != 0
    }

    /// Where the entry of `level` (1 is the lowest) for `at` lies, where the tables above exist.
    #[must_use]
    pub fn slot(&self, at: Iova, level: u8) -> Option<Gpa> {
        let mut table = self.root;
        let mut current = self.levels;
        while current > level {
            let raw = self.ram.load(entry(table, at, current));
            if !self.format.leads_down(raw) {
                return None;
            }
            table = Gpa(raw & ADDRESS);
            current -= 1;
        }
        Some(entry(table, at, level))
    }

    /// Stores `to` with `flags` as the leaf of `level` (1: 4 KiB, 2: 2 MiB, 3: 1 GiB) for `at`.
    ///
    /// # Errors
    /// Without a frame for a missing table.
    pub fn map(&self, at: Iova, to: Gpa, flags: u64, level: u8) -> Result<(), OutOfMemory> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.root;
        let mut current = self.levels;
        while current > level.max(1) {
            let slot = entry(table, at, current);
            let raw = self.ram.load(slot);
            table = if raw & self.format.present() == 0 {
                let next = self.ram.frame()?;
                tables.push(next);
                let bits = self.format.table_bits(current);
                self.ram.store(slot, next.0 | bits);
                next
            } else {
                Gpa(raw & ADDRESS)
            };
            current -= 1;
        }
        let bits = self.format.leaf_bits(level);
        self.ram
            .store(entry(table, at, current), to.0 | flags | bits);
        Ok(())
    }

    /// Clears the 4 KiB leaf for `at` and returns what it held.
    pub fn unmap(&self, at: Iova) -> u64 {
        let Some(slot) = self.slot(at, 1) else {
            return 0;
        };
        let raw = self.ram.load(slot);
        self.ram.store(slot, 0);
        raw
    }

    /// Gives every table back. Whoever might walk it must have been told before.
    pub fn free(&self) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for table in tables.drain(..) {
            self.ram.free(table);
        }
    }
}

fn entry(table: Gpa, at: Iova, level: u8) -> Gpa {
    let index = (at.0 >> (12 + 9 * u32::from(level.saturating_sub(1)))) & 0x1ff;
    Gpa(table.0 + index * 8)
}
