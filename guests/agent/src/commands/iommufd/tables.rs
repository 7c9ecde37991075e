//! Stage-1 tables of our own or the kernel's, and the memory that the data lies in.
//!
//! Source: Intel VT-d, "First-Stage Paging Entries"; four levels and pages of 4 KiB.

use crate::reply::{Done, Failure};
use crate::sys::{Mapping, Width};
use iopf::{Gpa, Iova};
use iopf_host::Ioas;
use rustix::io::Errno;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// Pages for tables, in front; pages for data, behind.
const TABLES: u64 = 64;
const DATA: u64 = 64;

/// Where memory starts in the I/O address space: an address that is neither that of the memory in
/// our process nor one that a device is given.
const BASE: u64 = 0x1000_0000;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;

/// Memory that devices reach through stage 2.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) mapping: Arc<Mapping>,
    /// Table pages in use.
    tables: Cell<u64>,
}

impl Memory {
    /// Zeroed memory.
    pub(super) fn new() -> Result<Rc<Self>, Failure> {
        let len = usize::try_from((TABLES + DATA) * PAGE).unwrap_or_default();
        Ok(Rc::new(Self {
            mapping: Arc::new(Mapping::anonymous(len)?),
            tables: Cell::new(0),
        }))
    }

    /// Where it starts in the I/O address space.
    pub(super) fn base(&self) -> Iova {
        Iova(BASE)
    }

    /// The address of data page `index`.
    fn data(index: u64) -> u64 {
        BASE + (TABLES + index) * PAGE
    }

    /// The bytes of data page `index`.
    fn part(index: u64) -> Range<u64> {
        let from = (TABLES + index) * PAGE;
        from..from + PAGE
    }

    fn offset(address: u64) -> usize {
        usize::try_from(address - BASE).unwrap_or(usize::MAX)
    }

    fn read(&self, address: u64) -> Result<u64, Failure> {
        Ok(self.mapping.read(Self::offset(address), Width::Eight)?)
    }

    fn write(&self, address: u64, value: u64) -> Done {
        let offset = Self::offset(address);
        Ok(self.mapping.write(offset, Width::Eight, value)?)
    }

    /// Fills a data page.
    pub(super) fn fill(&self, index: u64, byte: u8) -> Done {
        let word = u64::from_ne_bytes([byte; 8]);
        (0..PAGE / 8).try_for_each(|at| self.write(Self::data(index) + 8 * at, word))
    }

    /// The byte that a data page is full of, or `None` where it holds different ones.
    pub(super) fn full_of(&self, index: u64) -> Result<Option<u8>, Failure> {
        let first = self.read(Self::data(index))?;
        let byte = first.to_ne_bytes()[0];
        let mut same = first == u64::from_ne_bytes([byte; 8]);
        for at in 1..PAGE / 8 {
            same &= self.read(Self::data(index) + 8 * at)? == first;
        }
        Ok(same.then_some(byte))
    }

    /// A table page that nobody uses.
    fn table(&self) -> Result<u64, Failure> {
        let index = self.tables.get();
        if index == TABLES {
            return Err(Failure::new("no room for another table"));
        }
        self.tables.set(index + 1);
        Ok(BASE + index * PAGE)
    }
}

/// What a page may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Reads.
    Read,
    /// Reads and writes.
    Write,
}

/// One stage 1.
#[derive(Debug)]
pub(super) struct Stage1 {
    memory: Rc<Memory>,
    root: u64,
}

impl Stage1 {
    /// One that maps nothing.
    pub(super) fn new(memory: &Rc<Memory>) -> Result<Self, Failure> {
        Ok(Self {
            memory: memory.clone(),
            root: memory.table()?,
        })
    }

    /// Where its first table is in the I/O address space.
    pub(super) fn root(&self) -> Gpa {
        Gpa(self.root)
    }

    /// The address of the last-level entry of `at`; tables on the way are made.
    fn entry(&self, at: u64) -> Result<u64, Failure> {
        let mut table = self.root;
        for shift in [39, 30, 21] {
            let slot = table + 8 * (at >> shift & 0x1ff);
            let mut entry = self.memory.read(slot)?;
            if entry & PRESENT == 0 {
                entry = self.memory.table()? | PRESENT | WRITE | USER;
                self.memory.write(slot, entry)?;
            }
            table = entry & !(PAGE - 1);
        }
        Ok(table + 8 * (at >> 12 & 0x1ff))
    }

    /// Maps the page at `at` to data page `index`.
    pub(super) fn map(&self, at: u64, index: u64, rights: Rights) -> Done {
        self.map_to(at, Memory::data(index), rights)
    }

    /// Maps the page at `at` to the page at `to` of the I/O address space.
    pub(super) fn map_to(&self, at: u64, to: u64, rights: Rights) -> Done {
        let write = match rights {
            Rights::Read => 0,
            Rights::Write => WRITE,
        };
        // One store, since the device may be walking.
        let entry = to | PRESENT | USER | write;
        self.memory.write(self.entry(at)?, entry)
    }

    /// Unmaps the page at `at`. What caches know of it, they keep.
    pub(super) fn unmap(&self, at: u64) -> Done {
        self.memory.write(self.entry(at)?, 0)
    }
}

/// Who writes the tables of a device.
#[derive(Debug)]
pub(super) enum Tables {
    /// This program: a stage 1 on top of the kernel's.
    Ours(Stage1),
    /// The kernel, after an I/O address space that maps data pages of this memory.
    Kernel(Ioas, Rc<Memory>),
}

impl Tables {
    /// Maps the page at `at` to data page `index`, whatever it was mapped to.
    pub(super) fn map(&self, at: u64, index: u64, rights: Rights) -> Done {
        match self {
            Self::Ours(stage1) => stage1.map(at, index, rights),
            Self::Kernel(ioas, memory) => {
                self.unmap(at)?;
                let rights = match rights {
                    Rights::Read => iopf_host::Rights::READ,
                    Rights::Write => iopf_host::Rights::all(),
                };
                let part = Memory::part(index);
                Ok(ioas.map_part(Iova(at), &memory.mapping, part, rights)?)
            }
        }
    }

    /// Maps the page at `at` to the page at `to` of what our tables are nested on.
    pub(super) fn map_to(&self, at: u64, to: u64, rights: Rights) -> Done {
        match self {
            Self::Ours(stage1) => stage1.map_to(at, to, rights),
            Self::Kernel(..) => Err(Failure::new("the kernel writes these tables")),
        }
    }

    /// Unmaps the page at `at`. What caches know of tables that are ours, they keep.
    pub(super) fn unmap(&self, at: u64) -> Done {
        match self {
            Self::Ours(stage1) => stage1.unmap(at),
            Self::Kernel(ioas, _) => match ioas.unmap(Iova(at), PAGE) {
                Err(refused) if refused.errno != Errno::NOENT => Err(refused.into()),
                _ => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_by_its_four_indices() {
        let memory = Memory::new().unwrap();
        let tables = Stage1::new(&memory).unwrap();
        assert_eq!(tables.root(), Gpa(0x1000_0000));
        // Indices 1, 2, 3 and 4 of 9 bits each, from the top.
        let at = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12;
        tables.map(at, 5, Rights::Read).unwrap();
        // Present, writable and user in tables; a page without the write bit; data behind 64 pages.
        for (address, entry) in [
            (0x1000_0000 + 8, 0x1000_1007),
            (0x1000_1000 + 16, 0x1000_2007),
            (0x1000_2000 + 24, 0x1000_3007),
            (0x1000_3000 + 32, 0x1004_5005),
        ] {
            assert_eq!(memory.read(address).unwrap(), entry, "{address:#x}");
        }
        tables.map(at, 5, Rights::Write).unwrap();
        assert_eq!(memory.read(0x1000_3020).unwrap(), 0x1004_5007);
        tables.unmap(at).unwrap();
        assert_eq!(memory.read(0x1000_3020).unwrap(), 0);
    }

    #[test]
    fn a_page_that_holds_different_bytes_is_full_of_none() {
        let memory = Memory::new().unwrap();
        memory.fill(1, 0xa5).unwrap();
        assert_eq!(memory.full_of(1).unwrap(), Some(0xa5));
        assert_eq!(memory.full_of(2).unwrap(), Some(0));
        let last = 0x1000_0000 + 66 * 4096 - 8;
        memory.write(last, 0xa5a5_a5a5_a5a5_a500).unwrap();
        assert_eq!(memory.full_of(1).unwrap(), None);
    }
}
