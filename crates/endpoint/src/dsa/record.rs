//! What a descriptor ends with: a status, and the completion record that carries it.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0, "Completion
//! Record" and "Operation Status Codes"; Linux has the same layout in `include/uapi/linux/idxd.h`,
//! `struct dsa_completion_record`.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One completion record as it lies in memory, aligned to its size.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawRecord {
    /// Byte 0: [`Status`], never zero.
    pub status: u8,
    /// Byte 1: result of a comparison.
    pub result: u8,
    /// Byte 2: fault information, a capability this device lacks.
    pub fault_info: u8,
    /// Byte 3.
    pub unused: u8,
    /// Bytes 7:4: bytes or descriptors completed.
    pub completed: U32,
    /// Bytes 15:8: fault address.
    pub fault: U64,
    /// Bytes 19:16: the flags that were invalid, where that is the status.
    pub invalid_flags: U32,
    /// Bytes 31:20.
    pub specific: [u8; 12],
}
const _: () = assert!(size_of::<RawRecord>() == RawRecord::SIZE);

impl RawRecord {
    /// Bytes of a record, and its alignment.
    pub const SIZE: usize = 32;
    pub(super) const SIZE_U32: u32 = 32;
}

/// An operation status: bits 5:0 the code, bit 7 set where the access that faulted was a write.
/// Any byte is a value; the named ones are those this device gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u8);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0x01);
    /// Done, with a result other than the expected one.
    pub const FALSE_PREDICATE: Self = Self(0x02);
    /// A page was missing, and the descriptor does not block on faults.
    pub const PAGE_FAULT: Self = Self(0x03);
    /// A page request was answered Invalid, or kept being answered without effect.
    pub const PAGE_REFUSED: Self = Self(0x04);
    /// Some descriptor of the batch did not succeed.
    pub const BATCH_FAILED: Self = Self(0x05);
    /// A page of the descriptor list was missing.
    pub const LIST_FAULT: Self = Self(0x06);
    /// No such operation here.
    pub const OPERATION: Self = Self(0x10);
    /// Flags that this operation, or this work queue, does not take.
    pub const FLAGS: Self = Self(0x11);
    /// A reserved field is not zero.
    pub const RESERVED: Self = Self(0x12);
    /// The transfer size is 0, too large, or makes the buffer wrap around.
    pub const SIZE: Self = Self(0x13);
    /// The number of descriptors in a batch is less than 2 or too large.
    pub const COUNT: Self = Self(0x14);
    /// Source and destination overlap.
    pub const OVERLAP: Self = Self(0x16);
    /// The descriptor list is not 64-byte aligned.
    pub const LIST_ALIGNMENT: Self = Self(0x18);
    /// The completion interrupt handle is not one this descriptor may use.
    pub const HANDLE: Self = Self(0x19);
    /// The page of the completion record was missing. Never in a record.
    pub const RECORD_FAULT: Self = Self(0x1a);
    /// The completion record address is not 32-byte aligned. Never in a record.
    pub const RECORD_ALIGNMENT: Self = Self(0x1b);
    /// A read failed for a reason other than a missing page.
    pub const READ_ERROR: Self = Self(0x20);
    /// A write failed for a reason other than a missing page.
    pub const WRITE_ERROR: Self = Self(0x21);
    /// A translation request or a page request failed.
    pub const TRANSLATION_ERROR: Self = Self(0x22);

    /// The same status for an access that wrote.
    #[must_use]
    pub const fn with_write(self, write: bool) -> Self {
        if write { Self(self.0 | 0x80) } else { self }
    }

    /// The code without the direction of the access.
    #[must_use]
    pub const fn code(self) -> Self {
        Self(self.0 & 0x3f)
    }

    /// Whether the access that faulted was a write.
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.0 & 0x80 != 0
    }

    /// Whether it goes unreported unless a completion record was requested.
    #[must_use]
    pub const fn is_quiet(self) -> bool {
        matches!(
            self,
            Self::SUCCESS | Self::FALSE_PREDICATE | Self::BATCH_FAILED
        )
    }
}

/// How a descriptor ended: what its record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: Status,
    pub(super) result: u8,
    pub(super) completed: u32,
    /// The address that faulted, or 0.
    pub(super) fault: u64,
    pub(super) invalid_flags: u32,
}

impl Outcome {
    pub(super) const fn of(status: Status) -> Self {
        Self {
            status,
            result: 0,
            completed: 0,
            fault: 0,
            invalid_flags: 0,
        }
    }

    pub(super) fn encode(&self) -> RawRecord {
        RawRecord {
            status: self.status.0,
            result: self.result,
            fault_info: 0,
            unused: 0,
            completed: self.completed.into(),
            fault: self.fault.into(),
            invalid_flags: self.invalid_flags.into(),
            specific: [0; 12],
        }
    }
}

#[cfg(test)]
mod tests;
