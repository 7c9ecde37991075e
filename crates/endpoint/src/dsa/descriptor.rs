//! Descriptors: the 64 bytes that software stores to a portal, or lists in a batch.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0, "Descriptor
//! Formats"; Linux has the same layout in `include/uapi/linux/idxd.h`, `struct dsa_hw_desc`.

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One descriptor as it lies in memory.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RawDescriptor {
    /// Bytes 3:0: PASID and privilege. A dedicated queue ignores them.
    pub trusted: U32,
    /// Bytes 7:4: [`Head`].
    pub head: U32,
    /// Bytes 15:8: completion record address.
    pub record: U64,
    /// Bytes 23:16: source, pattern, or descriptor list.
    pub first: U64,
    /// Bytes 31:24: destination, second source, or pattern to compare with.
    pub second: U64,
    /// Bytes 35:32: transfer size in bytes, or number of descriptors in a batch.
    pub size: U32,
    /// Bytes 37:36: completion interrupt handle.
    pub handle: U16,
    /// Bytes 39:38.
    pub reserved: [u8; 2],
    /// Bytes 63:40: what only some operations have.
    pub specific: [u8; 24],
}
const _: () = assert!(size_of::<RawDescriptor>() == RawDescriptor::SIZE);

impl RawDescriptor {
    /// Bytes of a descriptor.
    pub const SIZE: usize = 64;
    pub(super) const SIZE_U32: u32 = 64;

    /// Reads one from bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        zerocopy::transmute!(*bytes)
    }

    /// Bytes 7:4.
    #[must_use]
    pub fn head(&self) -> Head {
        Head::from_bits(self.head.get())
    }

    /// What it asks for.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.head().operation()
    }
}

/// Flags and operation.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Head {
    /// `[23:0]` [`flag`].
    #[bits(24)]
    pub flags: u32,
    /// `[31:24]`
    #[bits(8)]
    pub operation: Operation,
}

/// Bits of [`Head::flags`]. "Descriptor Flags".
pub mod flag {
    /// Starts after everything before it in its batch, and only if that succeeded.
    pub const FENCE: u32 = 1 << 0;
    /// Waits for pages of its buffers.
    pub const BLOCK_ON_FAULT: u32 = 1 << 1;
    /// The completion record address is valid.
    pub const RECORD_VALID: u32 = 1 << 2;
    /// Writes the completion record on success too.
    pub const REQUEST_RECORD: u32 = 1 << 3;
    /// Raises an interrupt at the end.
    pub const REQUEST_INTERRUPT: u32 = 1 << 4;
    /// A result other than the expected one shows in the status.
    pub const CHECK_RESULT: u32 = 1 << 7;
    /// Cache Control 1: data goes to the cache. Without meaning here.
    pub const CACHE: u32 = 1 << 8;
    /// Traffic class of the first address. Without meaning here.
    pub const CLASS_1: u32 = 1 << 9;
    /// Traffic class of the second address. Without meaning here.
    pub const CLASS_2: u32 = 1 << 10;
    /// Traffic class of the completion record. Without meaning here.
    pub const CLASS_RECORD: u32 = 1 << 12;
    /// Writes are seen in order, as they always are here.
    pub const STRICT_ORDER: u32 = 1 << 13;
    /// Drain only: no read behind the writes of either traffic class.
    pub const NO_READBACK: u32 = 3 << 18;
}

/// An operation code. Any byte is a value; the named ones are those this device knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation(pub u8);

impl Operation {
    /// Does nothing, and completes.
    pub const NOOP: Self = Self(0);
    /// Processes a list of descriptors.
    pub const BATCH: Self = Self(1);
    /// Waits for the descriptors before it.
    pub const DRAIN: Self = Self(2);
    /// Copies.
    pub const MOVE: Self = Self(3);
    /// Stores a pattern.
    pub const FILL: Self = Self(4);
    /// Compares two buffers.
    pub const COMPARE: Self = Self(5);
    /// Compares a buffer with a pattern.
    pub const COMPARE_PATTERN: Self = Self(6);

    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    pub(super) const fn into_bits(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests;
