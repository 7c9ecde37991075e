//! A queue that the SMMU writes: the Event queue and the PRI queue are both one.
//!
//! After `queue_remove_raw()`, `queue_sync_prod_in()` and `queue_sync_cons_ovf()` of Linux
//! `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c`.

use super::hardware::Hardware;
use super::numbers::{EVTQ_BASE, EVTQ_CONS, EVTQ_PROD, PRIQ_BASE, PRIQ_CONS, PRIQ_PROD};
use crate::ram::{FRAME, OutOfMemory, Ram};
use iopf::Gpa;

/// Its registers: base, producer's index, consumer's index.
pub(crate) type Place = [u64; 3];

pub(crate) const EVENTS: Place = [EVTQ_BASE, EVTQ_PROD, EVTQ_CONS];
pub(crate) const PAGES: Place = [PRIQ_BASE, PRIQ_PROD, PRIQ_CONS];

/// The overflow flag of an index, and its acknowledgement.
const OVERFLOW: u32 = 1 << 31;
/// Entries read in one go at most; an SMMU that never runs dry is no reason to hang.
const BATCH: usize = 1 << 16;

/// A queue of entries of so many words.
#[derive(Debug)]
pub(crate) struct Queue<const WORDS: usize> {
    place: Place,
    base: Gpa,
    log2: u8,
}

/// What one look found.
pub(crate) struct Batch<const WORDS: usize> {
    /// Entries, in order.
    pub(crate) entries: Vec<[u64; WORDS]>,
    /// Entries were lost since the last look.
    pub(crate) overflowed: bool,
    /// There may be more.
    pub(crate) more: bool,
}

impl<const WORDS: usize> Queue<WORDS> {
    /// Allocates `2^log2` entries and tells the SMMU where. Switching it on is the caller's part.
    pub(crate) fn new(
        place: Place,
        hw: &Hardware,
        ram: &Ram,
        log2: u8,
    ) -> Result<Self, OutOfMemory> {
        let bytes = (WORDS as u64 * 8) << log2;
        let queue = Self {
            place,
            base: ram.frames(bytes.div_ceil(FRAME))?,
            log2,
        };
        queue.put(hw, queue.base);
        Ok(queue)
    }

    /// The base register, and an empty queue. It must be off.
    pub(crate) fn put(&self, hw: &Hardware, base: Gpa) {
        let [register, prod, cons] = self.place;
        // WA, and the size.
        hw.mmio
            .write64(register, 1 << 62 | base.0 | u64::from(self.log2));
        hw.mmio.write32(prod, 0);
        hw.mmio.write32(cons, 0);
    }

    /// Where it lies.
    pub(crate) fn base(&self) -> Gpa {
        self.base
    }

    /// An index with its wrap bit.
    fn index(&self, at: u32) -> u32 {
        at & ((2 << self.log2) - 1)
    }

    fn at(&self, index: u32) -> Gpa {
        let entry = u64::from(index & ((1 << self.log2) - 1));
        Gpa(self.base.0 + entry * WORDS as u64 * 8)
    }

    /// Whether entries were lost and nobody has taken note.
    pub(crate) fn overflowed(&self, hw: &Hardware) -> bool {
        let [_, prod, cons] = self.place;
        (hw.mmio.read32(prod) ^ hw.mmio.read32(cons)) & OVERFLOW != 0
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self, hw: &Hardware) -> bool {
        let [_, prod, cons] = self.place;
        self.index(hw.mmio.read32(prod)) == self.index(hw.mmio.read32(cons))
    }

    /// Reads what is there, and says so once, at the end. An overflow is left alone.
    pub(crate) fn read_at_once(&self, hw: &Hardware, ram: &Ram) -> Vec<[u64; WORDS]> {
        let [_, producer, consumer] = self.place;
        let prod = hw.mmio.read32(producer);
        let mut cons = hw.mmio.read32(consumer);
        let mut entries = Vec::new();
        while self.index(cons) != self.index(prod) {
            entries.push(self.entry(ram, cons));
            cons = self.index(cons + 1) | cons & OVERFLOW;
        }
        hw.mmio.write32(consumer, cons);
        entries
    }

    fn entry(&self, ram: &Ram, index: u32) -> [u64; WORDS] {
        let at = self.at(index);
        std::array::from_fn(|word| ram.load(Gpa(at.0 + word as u64 * 8)))
    }

    /// Reads until it is empty, then takes note of an overflow.
    pub(crate) fn read(&self, hw: &Hardware, ram: &Ram) -> Batch<WORDS> {
        let [_, producer, consumer] = self.place;
        let mut entries = Vec::new();
        let mut cons = hw.mmio.read32(consumer);
        loop {
            let prod = hw.mmio.read32(producer);
            let more = self.index(cons) != self.index(prod);
            if !more || entries.len() >= BATCH {
                let overflowed = (prod ^ cons) & OVERFLOW != 0;
                if overflowed {
                    hw.mmio
                        .write32(consumer, self.index(cons) | prod & OVERFLOW);
                }
                return Batch {
                    entries,
                    overflowed,
                    more,
                };
            }
            while self.index(cons) != self.index(prod) {
                entries.push(self.entry(ram, cons));
                cons = self.index(cons + 1) | cons & OVERFLOW;
                hw.mmio.write32(consumer, cons);
            }
        }
    }
}
