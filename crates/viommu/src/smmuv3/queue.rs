//! Queues: rings in guest memory with two indices, each of which one side moves.
//!
//! Spec: IHI 0070, "SMMU circular queues", "Event queue overflow", "PRI queue overflow". What software
//! writes where a register is guarded is ignored, as SMMUv3.2 asks for. Indices that are further apart
//! than the queue is long ("inconsistent state") count as a full queue where the unit writes, and as an
//! empty one where it reads.

use crate::arch::Ram;
use crate::mem::GuestRam;
use iommu_wire::smmuv3::regs::{Index, QueueBase};
use iopf::Gpa;

/// The size and place of a queue whose entries have `BYTES` bytes.
#[derive(Debug)]
pub(super) struct Ring<const BYTES: u64> {
    /// LOG2SIZE that the unit can do at most, 0–19.
    limit: u8,
    base: QueueBase,
}

impl<const BYTES: u64> Ring<BYTES> {
    pub(super) const fn new(limit: u8) -> Self {
        Self {
            limit,
            base: QueueBase::new(),
        }
    }

    /// LOG2SIZE as it counts.
    const fn log2(&self) -> u8 {
        let asked = self.base.log2size();
        if asked < self.limit {
            asked
        } else {
            self.limit
        }
    }

    /// The wrap bit: as many entries as there are.
    const fn wrap(&self) -> u32 {
        1 << self.log2()
    }

    /// An index and its wrap bit.
    pub(super) const fn index(&self, at: u32) -> u32 {
        at & (self.wrap() << 1).wrapping_sub(1)
    }

    /// The index after this one.
    pub(super) const fn after(&self, at: u32) -> u32 {
        self.index(at.wrapping_add(1))
    }

    /// How far the producer is ahead.
    pub(super) const fn used(&self, prod: u32, cons: u32) -> u32 {
        self.index(prod.wrapping_sub(cons))
    }

    /// Whether the producer can be so far ahead.
    pub(super) const fn holds(&self, used: u32) -> bool {
        used <= self.wrap()
    }

    /// Where an entry lies. A base has at most 56 bits, so this never wraps.
    pub(super) fn place(&self, at: u32) -> Option<Gpa> {
        let entry = u64::from(at & (self.wrap() - 1));
        self.base
            .base(self.log2(), BYTES)
            .checked_add(entry * BYTES)
    }

    /// The base register.
    pub(super) const fn base(&self) -> u64 {
        self.base.into_bits()
    }

    /// Writes the base register.
    pub(super) fn set_base(&mut self, value: u64) {
        let value = QueueBase::from_bits(value);
        self.base = QueueBase::new()
            .with_log2size(value.log2size())
            .with_addr(value.addr())
            .with_hint(value.hint());
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It lies in the queue. `first`: the queue was empty.
    Yes {
        /// It was.
        first: bool,
    },
    /// There was no room.
    Full,
    /// There is no memory there.
    Aborted,
    /// The queue is off.
    Off,
}

/// A queue that the unit writes: the Event queue, of four words an entry, and the PRI queue, of two.
#[derive(Debug)]
pub(super) struct Output<const BYTES: u64> {
    ring: Ring<BYTES>,
    prod: u32,
    cons: u32,
    /// OVFLG.
    overflow: bool,
    /// OVACKFLG.
    acknowledged: bool,
    on: bool,
}

impl<const BYTES: u64> Output<BYTES> {
    pub(super) const fn new(limit: u8) -> Self {
        Self {
            ring: Ring::new(limit),
            prod: 0,
            cons: 0,
            overflow: false,
            acknowledged: false,
            on: false,
        }
    }

    /// The enable bit.
    pub(super) const fn switch(&mut self, on: bool) {
        self.on = on;
    }

    /// Whether an entry would find room.
    pub(super) const fn writable(&self) -> bool {
        self.on && self.ring.used(self.prod, self.cons) < self.ring.wrap()
    }

    /// Whether entries were lost since software last said that it knows.
    pub(super) const fn overflowed(&self) -> bool {
        self.overflow != self.acknowledged
    }

    /// Puts an entry into the queue, low word first. The index moves after the entry lies in memory.
    #[inline]
    pub(super) fn push<A: Ram, const WORDS: usize>(
        &mut self,
        ram: &GuestRam<A>,
        entry: [u64; WORDS],
    ) -> Pushed {
        const { assert!(WORDS as u64 * 8 == BYTES) };
        if !self.on {
            return Pushed::Off;
        }
        if !self.writable() {
            return Pushed::Full;
        }
        let written = self
            .ring
            .place(self.prod)
            .map(|at| ram.store_words(at, entry));
        if !matches!(written, Some(Ok(()))) {
            return Pushed::Aborted;
        }
        let first = self.prod == self.cons;
        self.prod = self.ring.after(self.prod);
        Pushed::Yes { first }
    }

    /// An entry was lost for want of room.
    pub(super) const fn lose(&mut self) {
        self.overflow = !self.acknowledged;
    }

    /// The base register.
    pub(super) const fn base(&self) -> u64 {
        self.ring.base()
    }
    /// The producer index register.
    pub(super) const fn prod(&self) -> u32 {
        Index::new()
            .with_at(self.prod)
            .with_overflow(self.overflow)
            .into_bits()
    }
    /// The consumer index register.
    pub(super) const fn cons(&self) -> u32 {
        Index::new()
            .with_at(self.cons)
            .with_overflow(self.acknowledged)
            .into_bits()
    }

    /// Writes the base register, unless the queue is on.
    pub(super) fn set_base(&mut self, value: u64) {
        if !self.on {
            self.ring.set_base(value);
            self.prod = self.ring.index(self.prod);
            self.cons = self.ring.index(self.cons);
        }
    }
    /// Writes the producer index register, unless the queue is on.
    pub(super) const fn set_prod(&mut self, value: u32) {
        if !self.on {
            let value = Index::from_bits(value);
            self.prod = self.ring.index(value.at());
            self.overflow = value.overflow();
        }
    }
    /// Writes the consumer index register.
    pub(super) const fn set_cons(&mut self, value: u32) {
        let value = Index::from_bits(value);
        self.cons = self.ring.index(value.at());
        self.acknowledged = value.overflow();
    }
}

#[cfg(test)]
mod tests;
