//! Entries of host and guest page tables.
//!
//! Source: AMD I/O Virtualization Technology (IOMMU) Specification, 48882, "I/O Page Tables for Host
//! Translations" and "I/O Page Tables for Guest Translations"; Linux
//! `drivers/iommu/generic_pt/fmt/amdv1.h` (`AMDV1PT_FMT_*`) and `x86_64.h` (`X86_64_FMT_*`);
//! VirtualBox `include/VBox/iommu-amd.h` (`IOPTE_T`, `IOPDE_T`).
//! A guest entry is an x86-64 page-table entry. Not covered: memory types.

use bitfield_struct::bitfield;
use iopf::Gpa;

/// An entry of a host table (version 1) of any level.
///
/// Unlike in other formats, it says itself which level it leads to.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct HostEntry {
    /// `[0]` PR.
    pub present: bool,
    /// `[4:1]` Ignored.
    #[bits(4)]
    pub ignored: u8,
    /// `[5]` A, with HAD.
    pub accessed: bool,
    /// `[6]` D, with HAD, in an entry that maps a page.
    pub dirty: bool,
    /// `[8:7]` Ignored.
    #[bits(2)]
    pub ignored_high: u8,
    /// `[11:9]` Next Level: 1–6 is the level of the table it points to; 0 maps a page of its own
    /// level's size, 7 one whose size is in its address.
    #[bits(3)]
    pub next_level: u8,
    /// `[51:12]` The page number of a table or page.
    #[bits(40)]
    pub page: u64,
    /// `[58:52]`
    #[bits(7)]
    pub reserved: u8,
    /// `[59]` U: translation requests are told to use untranslated requests. Reserved in an entry
    /// that points to a table.
    pub untranslated_only: bool,
    /// `[60]` FC: accesses are coherent. Reserved in an entry that points to a table.
    pub force_coherent: bool,
    /// `[61]` IR.
    pub read: bool,
    /// `[62]` IW.
    pub write: bool,
    /// `[63]` Ignored.
    pub ignored_top: bool,
}

/// What a host entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTarget {
    /// Nothing: it is not present.
    Absent,
    /// It points to the table of `level`, which may be more than one below its own.
    Table {
        /// The table.
        table: Gpa,
        /// Its level, 1–5.
        level: u8,
    },
    /// It maps a page.
    Page {
        /// The page.
        base: Gpa,
        /// Its size as a power of two: 12–53. Above 51 it is of no use: there are 52 bits of address.
        shift: u8,
    },
    /// Its Next Level does not lead down.
    BadLevel,
    /// It maps a page whose size is not one of its level.
    BadSize,
}

impl HostEntry {
    /// PR.
    pub const PRESENT: u64 = 1 << 0;
    /// A.
    pub const ACCESSED: u64 = 1 << 5;
    /// D.
    pub const DIRTY: u64 = 1 << 6;
    /// Next Level.
    pub const NEXT_LEVEL: u64 = 0b111 << 9;
    /// A table's or page's address.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// FC.
    pub const FORCE_COHERENT: u64 = 1 << 60;
    /// IR.
    pub const READ: u64 = 1 << 61;
    /// IW.
    pub const WRITE: u64 = 1 << 62;
    /// What must be zero in an entry that maps a page.
    pub const PAGE_RESERVED: u64 = 0x7f << 52;
    /// What must be zero in an entry that points to a table.
    pub const TABLE_RESERVED: u64 = 0x1ff << 52;

    /// The size that the address of an entry with Next Level 7 stands for, as a power of two: 13 for
    /// 8 KiB. The lowest zero from bit 12 up is the highest bit below the size.
    #[must_use]
    #[inline]
    pub const fn encoded_shift(self) -> u8 {
        let ones = (self.page().trailing_ones() & 63) as u8;
        12 + ones + 1
    }

    /// What the entry is for, at `level` (1–6). Reserved bits are not looked at.
    #[must_use]
    pub const fn target(self, level: u8) -> HostTarget {
        if !self.present() {
            return HostTarget::Absent;
        }
        let (address, next) = (self.page() << 12, self.next_level());
        // The size of a page of this level, and of the next.
        let (own, above) = (3 + 9 * level, 12 + 9 * level);
        let shift = match next {
            0 | 7 if level > 5 => return HostTarget::BadLevel,
            0 => own,
            7 => self.encoded_shift(),
            _ if next < level => {
                return HostTarget::Table {
                    table: Gpa(address),
                    level: next,
                };
            }
            _ => return HostTarget::BadLevel,
        };
        if next == 7 && (shift <= own || shift >= above) {
            return HostTarget::BadSize;
        }
        HostTarget::Page {
            base: Gpa(address & !0 << shift),
            shift,
        }
    }
}

/// An entry of a guest table (version 2) of any level: an x86-64 page-table entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct GuestEntry {
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
    /// `[11:9]` Ignored.
    #[bits(3)]
    pub ignored: u8,
    /// `[51:12]` The page number of a table or page; bit 12 is PAT in a large page.
    #[bits(40)]
    pub page: u64,
    /// `[62:52]` Ignored.
    #[bits(11)]
    pub software: u16,
    /// `[63]` NX, where the unit has it.
    pub no_execute: bool,
}

#[cfg(test)]
mod tests;
