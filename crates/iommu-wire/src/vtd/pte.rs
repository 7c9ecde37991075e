//! First- and second-stage paging entries.
//!
//! Source: Intel VT-d, "First-Stage Paging Entries" and "Second-Stage Paging Entries"; Linux
//! `drivers/iommu/intel/iommu.h` (`DMA_PTE_*`, `DMA_FL_PTE_*`, `DMA_SL_PTE_*`).
//! A first-stage entry is an x86-64 page-table entry, a second-stage entry an EPT entry.
//! Not covered: memory types (PAT, PCD, PWT; IPAT, EMT).

use bitfield_struct::bitfield;
use iopf::Gpa;

/// A first-stage entry of any level.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct FirstStageEntry {
    /// `[0]` P.
    pub present: bool,
    /// `[1]` R/W: writes are granted.
    pub writable: bool,
    /// `[2]` U/S: user requests are granted.
    pub user: bool,
    /// `[4:3]` PWT, PCD.
    #[bits(2)]
    pub cache_control: u8,
    /// `[5]` A.
    pub accessed: bool,
    /// `[6]` D, in an entry that maps a page.
    pub dirty: bool,
    /// `[7]` PS: maps a page, at levels 2 and 3. PAT at level 1, reserved above 3.
    pub page_size: bool,
    /// `[8]` G: ignored.
    pub global: bool,
    /// `[9]` Ignored.
    pub ignored: bool,
    /// `[10]` EA, with EAFE.
    pub extended_accessed: bool,
    /// `[11]` Ignored.
    pub ignored_high: bool,
    /// `[51:12]` The page number of a table or page; bit 12 is PAT in a large page.
    #[bits(40)]
    pub page: u64,
    /// `[62:52]` Ignored.
    #[bits(11)]
    pub software: u16,
    /// `[63]` XD, until revision 4.0; ignored since.
    pub execute_disable: bool,
}

/// A second-stage entry of any level.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct SecondStageEntry {
    /// `[0]` R.
    pub read: bool,
    /// `[1]` W. Without R and W the entry is not present.
    pub write: bool,
    /// `[6:2]` Ignored, but for memory types in an entry that maps a page.
    #[bits(5)]
    pub ignored: u8,
    /// `[7]` PS: maps a page, at levels 2 and 3. Ignored at level 1, reserved above 3.
    pub page_size: bool,
    /// `[8]` A, with SSADE.
    pub accessed: bool,
    /// `[9]` D, with SSADE, in an entry that maps a page.
    pub dirty: bool,
    /// `[10]` Ignored.
    pub ignored_high: bool,
    /// `[11]` SNP, in an entry that maps a page.
    pub snoop: bool,
    /// `[51:12]` The page number of a table or page.
    #[bits(40)]
    pub page: u64,
    /// `[60:52]` Ignored.
    #[bits(9)]
    pub software: u16,
    /// `[61]` IR, with SSIRWE: read, in place of bit 0.
    pub io_read: bool,
    /// `[62]` IW, with SSIRWE: write, in place of bit 1. Reserved without.
    pub io_write: bool,
    /// `[63]` Ignored.
    pub ignored_top: bool,
}

/// What a paging entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: it is not present.
    Absent,
    /// It points to the table of the next lower level.
    Table(Gpa),
    /// It maps a page.
    Page {
        /// The page.
        base: Gpa,
        /// Its size as a power of two: 12, 21 or 30.
        shift: u8,
    },
}

/// What an entry of `level` (1–5) with this address and page-size bit is for.
const fn target(level: u8, page: u64, page_size: bool) -> Target {
    let address = page << 12;
    let shift = match level {
        1 => 12,
        2 if page_size => 21,
        3 if page_size => 30,
        _ => return Target::Table(Gpa(address)),
    };
    Target::Page {
        base: Gpa(address & !0 << shift),
        shift,
    }
}

impl FirstStageEntry {
    /// What the entry is for, at `level` (1–5). Reserved bits are not looked at.
    #[must_use]
    pub const fn target(self, level: u8) -> Target {
        if self.present() {
            target(level, self.page(), self.page_size())
        } else {
            Target::Absent
        }
    }
}

impl SecondStageEntry {
    /// What the entry is for, at `level` (1–5). Reserved bits are not looked at, nor are the I/O
    /// read and write bits.
    #[must_use]
    pub const fn target(self, level: u8) -> Target {
        if self.read() || self.write() {
            target(level, self.page(), self.page_size())
        } else {
            Target::Absent
        }
    }
}

#[cfg(test)]
mod tests;
