//! The software error register, for errors that no completion record can tell.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0, "Software
//! Error Register"; Linux names the bits in `drivers/dma/idxd/registers.h`, `union sw_err_reg`.

use super::descriptor::Operation;
use super::record::{Outcome, Status};
use bitfield_struct::bitfield;
use iopf::Pasid;

/// Bits 63:0.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Head {
    /// `[0]` an error is recorded.
    pub valid: bool,
    /// `[1]` another one was not.
    pub overflow: bool,
    /// `[2]` what is known of the descriptor is valid.
    pub descriptor_valid: bool,
    /// `[3]`
    pub wq_valid: bool,
    /// `[4]` the descriptor was in a batch.
    pub batch: bool,
    /// `[5]` the access that faulted was a write.
    pub write: bool,
    /// `[6]`
    pub privileged: bool,
    #[bits(1)]
    _res7: u8,
    /// `[15:8]`
    pub error: u8,
    /// `[23:16]`
    pub wq: u8,
    #[bits(8)]
    _res24: u8,
    /// `[39:32]`
    pub operation: u8,
    /// `[59:40]`
    #[bits(20)]
    pub pasid: u32,
    #[bits(4)]
    _res60: u8,
}

/// Error codes that are no [`Status`]. "Other Software Error Codes".
pub(super) mod code {
    /// A PCI control that must not change did, while the device was not disabled.
    pub(in super::super) const PCI_CHANGE: u8 = 0x51;
    /// A command came while another was under way.
    pub(in super::super) const COMMAND_ACTIVE: u8 = 0x52;
    /// A descriptor came to a full dedicated work queue.
    pub(in super::super) const WQ_FULL: u8 = 0x53;
}

/// An error, before it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SoftwareError {
    words: [u64; 4],
}

impl SoftwareError {
    /// An error without a descriptor.
    pub(super) fn new(error: u8, wq: Option<u8>) -> Self {
        let head = Head::new()
            .with_valid(true)
            .with_error(error)
            .with_wq(wq.unwrap_or(0))
            .with_wq_valid(wq.is_some());
        Self {
            words: [head.into_bits(), 0, 0, 0],
        }
    }

    /// A descriptor that ended with `outcome`.
    pub(super) fn of_descriptor(wq: u8, descriptor: &Origin, outcome: &Outcome) -> Self {
        let error = Self::new(outcome.status.code().0, Some(wq));
        let head = Head::from_bits(error.words[0])
            .with_descriptor_valid(true)
            .with_batch(descriptor.batch_index.is_some())
            .with_write(outcome.status.is_write())
            .with_privileged(descriptor.privileged)
            .with_operation(descriptor.operation.0)
            .with_pasid(descriptor.pasid.map_or(0, Pasid::get));
        let index = u64::from(descriptor.batch_index.unwrap_or(0));
        let details = match outcome.status {
            Status::FLAGS => outcome.invalid_flags,
            _ => 0,
        };
        Self {
            words: [
                head.into_bits(),
                index | u64::from(details) << 32,
                outcome.fault,
                0,
            ],
        }
    }
}

/// Where a descriptor came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) operation: Operation,
    pub(super) pasid: Option<Pasid>,
    pub(super) privileged: bool,
    /// Its place in a batch.
    pub(super) batch_index: Option<u16>,
}

/// The register: it holds one error.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Register {
    words: [u64; 4],
}

impl Register {
    const ACKNOWLEDGE: u64 = 3;

    /// Records an error; true if there was none before.
    pub(super) fn record(&mut self, error: &SoftwareError) -> bool {
        let head = Head::from_bits(self.words[0]);
        if head.valid() {
            self.words[0] = head.with_overflow(true).into_bits();
            return false;
        }
        self.words = error.words;
        self.words[0] |= head.with_valid(true).into_bits() & Self::ACKNOWLEDGE;
        true
    }

    /// The word of 64 bits at byte `offset`.
    pub(super) fn word(&self, offset: u64) -> u64 {
        let index = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        self.words.get(index).copied().unwrap_or(0)
    }

    /// Clears the bits that are set in `ones`, of valid and overflow.
    pub(super) fn acknowledge(&mut self, ones: u64) {
        self.words[0] &= !(ones & Self::ACKNOWLEDGE);
    }
}

#[cfg(test)]
mod tests;
