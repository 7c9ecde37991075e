//! Page tables, written word by word.
//!
//! The processor's tables are x86-64's; the first stage of VT-d and the guest tables of AMD-Vi are the
//! same. The other two belong to IOMMUs: Linux `drivers/iommu/intel/iommu.h` (`struct dma_pte`) and
//! `drivers/iommu/generic_pt/fmt/amdv1.h` (`AMDV1PT_FMT_*`) are the sources of their bits. Typed by hand:
//! a scripted guest is the second author that the models are checked against.

use crate::ram::{OutOfMemory, Ram};
use iopf::{Gpa, Iova};
use std::sync::{Arc, Mutex, PoisonError};

/// The processor's: present.
pub const P: u64 = 1;
/// The processor's: writable.
pub const RW: u64 = 1 << 1;
/// The processor's: user.
pub const US: u64 = 1 << 2;
/// The processor's: accessed.
pub const A: u64 = 1 << 5;
/// The processor's: dirty.
pub const D: u64 = 1 << 6;
/// The processor's, and VT-d's second stage: a leaf above the lowest level.
pub const PS: u64 = 1 << 7;
/// The processor's: no execution.
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

/// Where all of them have the address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Next Level of AMD-Vi's host tables, 0–7; 0 and 7 map a page.
#[must_use]
pub const fn next_level(level: u8) -> u64 {
    (level as u64 & 7) << 9
}

/// Whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The processor's: VT-d's first stage, AMD-Vi's guest tables. 4 or 5 levels.
    Processor,
    /// VT-d's second stage. 3, 4 or 5 levels.
    VtdSecond,
    /// AMD-Vi's host tables. 1–6 levels.
    AmdHost,
}

impl Format {
    /// One of these bits is set in an entry that says anything.
    fn present(self) -> u64 {
        match self {
            Self::Processor => P,
            Self::VtdSecond => SS_R | SS_W,
            Self::AmdHost => HOST_PR,
        }
    }

    /// Whether an entry above the lowest level leads to another table.
    fn leads_down(self, raw: u64) -> bool {
        let leaf = match self {
            Self::Processor | Self::VtdSecond => raw & PS != 0,
            Self::AmdHost => matches!(raw >> 9 & 7, 0 | 7),
        };
        raw & self.present() != 0 && !leaf
    }

    /// What an entry of `level` has that leads to the level below.
    fn table_bits(self, level: u8) -> u64 {
        match self {
            Self::Processor => P | RW | US,
            Self::VtdSecond => SS_R | SS_W,
            Self::AmdHost => HOST_PR | HOST_IR | HOST_IW | next_level(level - 1),
        }
    }

    /// What a leaf of `level` has, beside its rights.
    fn leaf_bits(self, level: u8) -> u64 {
        match self {
            Self::Processor | Self::VtdSecond if level > 1 => PS,
            Self::Processor | Self::VtdSecond | Self::AmdHost => 0,
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
