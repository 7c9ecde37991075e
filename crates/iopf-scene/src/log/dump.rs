//! The tables that Linux prints after a fault: those of VT-d with `CONFIG_DMAR_DEBUG`.
//!
//! Linux `drivers/iommu/intel/iommu.c`, `dmar_fault_dump_ptes` and `pgtable_walk`. Until 6.13 a walk
//! ended with `PTE not present at level N`, without the entry's value and for a large page too;
//! since then each entry is printed, and `page table not present at level N-1` follows one that is
//! not present. With nested translation the second stage is printed, not the first.

mod explain;
mod parse;

pub(super) use parse::{Part, is_cut, part};

use super::normal::Record;

/// The tables printed for one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The IOMMU they are of.
    pub iommu: Option<String>,
    /// What was printed, in its order.
    pub entries: Vec<Entry>,
    /// What the tables show of the cause: one clause, which names the entry and the bit.
    pub finding: Option<String>,
}

/// One entry of a dump, or the lack of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which table it is in.
    pub table: Table,
    /// Its 64-bit words, lowest first; none where the kernel says that there is no entry.
    pub words: Vec<u64>,
}

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// AMD-Vi device table.
    Device,
    /// AMD-Vi command buffer.
    Command,
    /// Root table of legacy mode.
    Root,
    /// Root table of scalable mode: two halves, the second for device numbers from 16 on.
    ScalableRoot,
    /// Context table; which mode's, the root table tells.
    Context,
    /// PASID directory.
    Directory,
    /// PASID table.
    Pasid,
    /// A page table.
    Page {
        /// 1 is the lowest.
        level: u8,
        /// The kernel says that this entry is not present, and prints no value.
        absent: bool,
    },
}

/// Reads the lines printed for the fault of `record`, with single blanks between them.
pub(super) fn read(text: &[u8], record: &Record) -> Dump {
    let (iommu, entries) = parse::entries(text);
    let finding = explain::finding(&entries, record);
    Dump {
        iommu,
        entries,
        finding,
    }
}
