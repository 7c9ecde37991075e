//! The page request queue: PQH_REG, PQT_REG, PQA_REG, PRS_REG, PECTL_REG and its siblings.
//!
//! Spec: Intel VT-d, "Page Request Logging", "Page Request Event".

use super::interrupt::{Interrupt, Msi};
use iommu_wire::vtd::regs::{PageQueueAddress, PageQueuePointer, PageRequestStatus};
use iopf::Gpa;

/// What to do with a page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Write the descriptor there, then call [`PageQueue::commit`].
    At(Gpa),
    /// There is none; a message may have to be sent.
    Overflow(Option<Msi>),
    /// Software has not set a queue up.
    NoQueue,
}

/// The page request queue's registers.
///
/// The ring is full when one more descriptor would make the tail equal to the head. A request that
/// finds it full sets PRO, and nothing is queued until software clears that.
#[derive(Debug)]
pub(super) struct PageQueue {
    head: u16,
    tail: u16,
    address: PageQueueAddress,
    pending: bool,
    overflow: bool,
    pub(super) interrupt: Interrupt,
}

impl PageQueue {
    pub(super) const fn new() -> Self {
        Self {
            head: 0,
            tail: 0,
            address: PageQueueAddress::new(),
            pending: false,
            overflow: false,
            interrupt: Interrupt::new(),
        }
    }

    /// Entries of the ring, less one: a mask.
    const fn mask(&self) -> u16 {
        // 128 entries of 32 bytes a page, at most 2^7 pages.
        (128 << self.address.size()) - 1
    }

    /// Looks for room for one descriptor.
    pub(super) fn room(&mut self) -> Room {
        if self.address.page() == 0 {
            return Room::NoQueue;
        }
        let mask = self.mask();
        let tail = self.tail & mask;
        if self.overflow || (tail + 1) & mask == self.head & mask {
            let quiet = !self.pending && !self.overflow;
            self.overflow = true;
            return Room::Overflow(quiet.then(|| self.interrupt.raise()).flatten());
        }
        match self.address.base().checked_add(u64::from(tail) * 32) {
            Some(at) => Room::At(at),
            None => Room::NoQueue,
        }
    }

    /// The descriptor is written: shows it to software.
    pub(super) fn commit(&mut self) -> Option<Msi> {
        self.tail = (self.tail + 1) & self.mask();
        let quiet = !self.pending && !self.overflow;
        self.pending = true;
        quiet.then(|| self.interrupt.raise()).flatten()
    }

    /// PRS_REG.
    pub(super) fn status(&self) -> u32 {
        PageRequestStatus::new()
            .with_pending(self.pending)
            .with_overflow(self.overflow)
            .into_bits()
    }

    /// Writes PRS_REG.
    pub(super) fn clear(&mut self, value: u32) {
        let clear = PageRequestStatus::from_bits(value);
        self.pending &= !clear.pending();
        self.overflow &= !clear.overflow();
        if !self.pending && !self.overflow {
            self.interrupt.serviced();
        }
    }

    /// PQH_REG.
    pub(super) fn head(&self) -> u64 {
        PageQueuePointer::new().with_index(self.head).into_bits()
    }

    /// PQT_REG.
    pub(super) fn tail(&self) -> u64 {
        PageQueuePointer::new().with_index(self.tail).into_bits()
    }

    /// PQA_REG.
    pub(super) const fn address(&self) -> u64 {
        self.address.into_bits()
    }

    /// Writes PQH_REG.
    pub(super) fn set_head(&mut self, value: u64) {
        self.head = PageQueuePointer::from_bits(value).index();
    }

    /// Writes PQT_REG, as software does once, before it sets the queue up.
    pub(super) fn set_tail(&mut self, value: u64) {
        self.tail = PageQueuePointer::from_bits(value).index();
    }

    /// Writes PQA_REG.
    pub(super) fn set_address(&mut self, value: u64) {
        let value = PageQueueAddress::from_bits(value);
        self.address = PageQueueAddress::new()
            .with_size(value.size())
            .with_page(value.page());
    }
}
