//! Stream tables and tables of context descriptors.
//!
//! Source: IHI 0070, "L1STD, Level 1 Stream Table Descriptor", "STE, Stream Table Entry", "L1CD, Level
//! 1 Context Descriptor" and "CD, Context Descriptor"; Linux `arm-smmu-v3.h` (`STRTAB_*`, `CTXDESC_*`).
//! Covered: everything that decides how an address is translated in the Non-secure state, and who is
//! told of a fault. Not covered: Secure and Realm fields, MPAM, permission indirection and overlays,
//! device permission tables, 128-bit descriptors.
//!
//! An entry has a raw type, which is its bytes in memory, and word types, which know its bits. Words
//! decode and encode without loss.

mod context;
mod stream;

pub use context::{
    ContextDescriptor, ContextWord0, ContextWord1, ContextWord2, Level1Context,
    RawContextDescriptor,
};
pub use stream::{
    Level1Stream, RawStreamEntry, StreamConfig, StreamEntry, StreamWord0, StreamWord1, StreamWord2,
    StreamWord3,
};

/// The number of bytes of a stream table entry, and of a context descriptor.
pub const ENTRY_SIZE: u64 = 64;

/// The number of bytes of a level 1 descriptor, of either kind of table.
pub const LEVEL1_SIZE: u64 = 8;

#[cfg(test)]
mod tests;
