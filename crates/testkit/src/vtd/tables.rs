//! Root, context and PASID tables, written word by word.
//!
//! Linux `drivers/iommu/intel/iommu.h` (`struct root_entry`, `context_entry`) and
//! `pasid.h` (`pasid_set_*`) are the sources of the bit positions.

use super::numbers::PE_PWSNP;
use crate::ram::{FRAME, OutOfMemory, Ram};
use iopf::{Gpa, Pasid, Rid};
use std::sync::Arc;

/// The root table and the context tables below it.
#[derive(Debug)]
pub struct RootTable {
    ram: Arc<Ram>,
    scalable: bool,
    root: Gpa,
}

impl RootTable {
    /// An empty root table.
    ///
    /// # Errors
    /// Without a frame.
    pub fn new(ram: &Arc<Ram>, scalable: bool) -> Result<Self, OutOfMemory> {
        Ok(Self {
            ram: ram.clone(),
            scalable,
            root: ram.frame()?,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn base(&self) -> Gpa {
        self.root
    }

    /// Where the word of the root entry that leads to `rid`'s context table lies.
    #[must_use]
    pub fn root_slot(&self, rid: Rid) -> Gpa {
        let upper = self.scalable && rid.devfn() >= 128;
        Gpa(self.root.0 + u64::from(rid.bus()) * 16 + if upper { 8 } else { 0 })
    }

    /// Where `rid`'s context entry lies; its table is made where it is missing.
    ///
    /// # Errors
    /// Without a frame for the context table.
    pub fn context_slot(&self, rid: Rid) -> Result<Gpa, OutOfMemory> {
        let slot = self.root_slot(rid);
        let raw = self.ram.load(slot);
        let table = if raw & 1 == 0 {
            let table = self.ram.frame()?;
            self.ram.store(slot, table.0 | 1);
            table.0
        } else {
            raw & !0xfff
        };
        let offset = if self.scalable {
            u64::from(rid.devfn() & 127) * 32
        } else {
            u64::from(rid.devfn()) * 16
        };
        Ok(Gpa(table + offset))
    }

    /// Stores an entry, the word with the present bit last.
    pub fn set(&self, slot: Gpa, words: &[u64]) {
        store_entry(&self.ram, slot, words);
    }
}

/// Stores an entry of several words, the first one last: it holds the present bit.
pub fn store_entry(ram: &Ram, slot: Gpa, words: &[u64]) {
    for (i, word) in words.iter().enumerate().rev() {
        ram.store(Gpa(slot.0 + i as u64 * 8), *word);
    }
}

/// A legacy context entry. `translation`: 0 second stage, 1 also with device TLB, 2 pass-through;
/// `width`: 1 for 39 bits, 2 for 48, 3 for 57.
#[must_use]
pub fn legacy_context(translation: u64, root: Gpa, width: u64, did: u16) -> [u64; 2] {
    [
        1 | (translation & 3) << 2 | root.0,
        (width & 7) | u64::from(did) << 8,
    ]
}

/// A scalable context entry; `size` says that the directory has `2^(size + 7)` entries.
#[must_use]
pub fn scalable_context(directory: Gpa, size: u64, flags: u64) -> [u64; 4] {
    [1 | flags | (size & 7) << 9 | directory.0, 0, 0, 0]
}

/// A PASID entry, eight words. The builders below let page walks snoop, as Linux does wherever a
/// unit's walks are coherent; without it accessed and dirty bits cannot be set.
pub type PasidEntry = [u64; 8];

/// A PASID entry with a first-stage table of 4 or 5 levels.
#[must_use]
pub fn first_stage(root: Gpa, levels: u8, did: u16, flags: u64) -> PasidEntry {
    let mode = if levels == 5 { 1 << 2 } else { 0 };
    let mut words = [0; 8];
    words[0] = 1 | 1 << 6;
    words[1] = u64::from(did) | PE_PWSNP;
    words[2] = root.0 | mode | flags;
    words
}

/// A PASID entry with a second-stage table; `width` as in [`legacy_context`].
#[must_use]
pub fn second_stage(root: Gpa, width: u64, did: u16) -> PasidEntry {
    let mut words = [0; 8];
    words[0] = 1 | (width & 7) << 2 | 2 << 6 | root.0;
    words[1] = u64::from(did) | PE_PWSNP;
    words
}

/// A PASID entry with a first stage on top of a second one.
#[must_use]
pub fn nested(first: Gpa, second: Gpa, width: u64, did: u16, flags: u64) -> PasidEntry {
    let mut words = [0; 8];
    words[0] = 1 | (width & 7) << 2 | 3 << 6 | second.0;
    words[1] = u64::from(did) | PE_PWSNP;
    words[2] = first.0 | flags;
    words
}

/// A PASID entry that translates nothing.
#[must_use]
pub fn pass_through(width: u64, did: u16) -> PasidEntry {
    let mut words = [0; 8];
    words[0] = 1 | (width & 7) << 2 | 4 << 6;
    words[1] = u64::from(did);
    words
}

/// A PASID directory and the tables below it.
#[derive(Debug)]
pub struct PasidTable {
    ram: Arc<Ram>,
    base: Gpa,
    size: u64,
}

impl PasidTable {
    /// An empty directory of `2^(size + 7)` entries, each for 64 PASIDs.
    ///
    /// # Errors
    /// Without frames for it.
    pub fn new(ram: &Arc<Ram>, size: u64) -> Result<Self, OutOfMemory> {
        let bytes = 8u64 << (size + 7);
        Ok(Self {
            ram: ram.clone(),
            base: ram.frames(bytes.div_ceil(FRAME))?,
            size,
        })
    }

    /// Where the directory lies.
    #[must_use]
    pub fn base(&self) -> Gpa {
        self.base
    }

    /// The size as a context entry has it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the directory entry for `pasid` lies.
    #[must_use]
    pub fn directory_slot(&self, pasid: Pasid) -> Gpa {
        Gpa(self.base.0 + u64::from(pasid.get() >> 6) * 8)
    }

    /// Where `pasid`'s entry lies, its table made where it is missing.
    ///
    /// # Errors
    /// Without a frame for the table.
    pub fn slot(&self, pasid: Pasid) -> Result<Gpa, OutOfMemory> {
        let slot = self.directory_slot(pasid);
        let raw = self.ram.load(slot);
        let table = if raw & 1 == 0 {
            let table = self.ram.frame()?;
            self.ram.store(slot, table.0 | 1);
            table.0
        } else {
            raw & !0xfff
        };
        Ok(Gpa(table + u64::from(pasid.get() & 0x3f) * 64))
    }
}
