//! The invalidation queue, as `qi_submit_sync()` of Linux `drivers/iommu/intel/dmar.c` uses it.

use super::numbers::{Descriptor, FSTS, ICE, IQA, IQA_DW, IQE, IQH, IQT, ITE, wait};
use crate::driver::QueueError;
use crate::mmio::Mmio;
use crate::ram::{OutOfMemory, Ram};
use iopf::Gpa;

/// Descriptors in the ring.
const DEPTH: u64 = 256;
/// Looks at the status word before a submission counts as lost.
const PATIENCE: u32 = 2_000_000;
/// What a wait descriptor stores, and what the slot holds before.
const DONE: u32 = 2;
const IN_USE: u32 = 1;

#[derive(Debug)]
pub(crate) struct Queue {
    base: Gpa,
    status: Gpa,
    shift: u32,
    tail: u64,
}

impl Queue {
    /// Allocates the ring and tells the IOMMU where it is. Enabling it is the caller's part.
    pub(crate) fn new(mmio: &Mmio, ram: &Ram, wide: bool) -> Result<Self, OutOfMemory> {
        let base = ram.frames(if wide { 2 } else { 1 })?;
        let status = ram.frame()?;
        mmio.write64(IQT, 0);
        let size = if wide { IQA_DW | 1 } else { 0 };
        mmio.write64(IQA, base.0 | size);
        Ok(Self {
            base,
            status,
            shift: if wide { 5 } else { 4 },
            tail: 0,
        })
    }

    fn put(&self, ram: &Ram, index: u64, descriptor: &Descriptor) {
        let at = self.base.0 + (index << self.shift);
        let words = if self.shift == 5 { 4 } else { 2 };
        for (i, word) in descriptor.iter().take(words).enumerate() {
            ram.store(Gpa(at + i as u64 * 8), *word);
        }
    }

    /// Queues `descriptors` and a wait behind them, and waits for it.
    pub(crate) fn submit(
        &mut self,
        mmio: &Mmio,
        ram: &Ram,
        descriptors: &[Descriptor],
        drain: bool,
    ) -> Result<(), QueueError> {
        let count = descriptors.len() as u64;
        if count + 2 > DEPTH {
            return Err(QueueError::TooMany);
        }
        for (i, descriptor) in descriptors.iter().enumerate() {
            self.put(ram, (self.tail + i as u64) % DEPTH, descriptor);
        }
        let last = (self.tail + count) % DEPTH;
        let status = Gpa(self.status.0 + last * 4);
        ram.store32(status, IN_USE);
        let end = wait(status.0, DONE, drain);
        self.put(ram, last, &end);
        self.tail = (last + 1) % DEPTH;
        mmio.write64(IQT, self.tail << self.shift);

        let mut error = None;
        for look in 0..PATIENCE {
            if ram.load32(status) == DONE {
                return error.map_or(Ok(()), Err);
            }
            if look % 64 == 0 {
                error = self.check(mmio, ram, &end).or(error);
            } else {
                std::thread::yield_now();
            }
        }
        Err(error.unwrap_or(QueueError::Stuck))
    }

    /// Looks for errors, and gets the queue going again as `qi_check_fault()` does: a descriptor
    /// that was refused is overwritten with the wait.
    fn check(&self, mmio: &Mmio, ram: &Ram, end: &Descriptor) -> Option<QueueError> {
        let status = mmio.read32(FSTS);
        if status & IQE != 0 {
            let head = (mmio.read64(IQH) >> self.shift) % DEPTH;
            self.put(ram, head, end);
            mmio.write32(FSTS, IQE);
            return Some(QueueError::Invalid);
        }
        if status & (ITE | ICE) != 0 {
            mmio.write32(FSTS, status & (ITE | ICE));
            return Some(QueueError::DeviceTimeout);
        }
        None
    }
}
