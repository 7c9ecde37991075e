//! The part of Intel's Data Streaming Accelerator that Linux's `idxd` driver and its users need.
//!
//! PCI IDs 8086:0b25. A process opens a work queue of it, stores 64-byte descriptors to a portal, and
//! the device works on the process's own addresses: PASID, ATS and page requests in one function, with
//! a driver that is in every distribution.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0; the second
//! author is Linux, `drivers/dma/idxd` and `include/uapi/linux/idxd.h`.
//!
//! Modelled: version 1.0 of the register interface with 8 work queues, 4 groups and 4 engines, in
//! dedicated mode; No-op, Batch, Drain, Memory Move, Fill (8-byte pattern), Compare and Compare
//! Pattern; block on fault, partial completion with fault address; completion records and
//! interrupts, the MSI-X permissions table, user-mode interrupts; every administrative command but
//! those for interrupt handles; the software error register; the halt state after a change of PCI
//! controls that an enabled device does not allow.
//!
//! Not modelled, and not claimed by the capability registers: shared work queues, the event log,
//! WQ PRS disable, interrupt message storage and interrupt handles, work queue priorities, occupancy
//! interrupts, per-queue operations, read buffer controls, overlapping copies, destination readback,
//! other operations, inter-domain operations, performance counters. Traffic classes, cache hints and
//! write ordering have no meaning here and are accepted.
//!
//! Where a real device would differ: a refused write that is not translated by ATS is noticed (status
//! 0x21); a buffer that wraps around the address space has an invalid size; a page request that is
//! never answered ends with status 0x22; an abort command abandons a descriptor under way only
//! between pieces of 256 KiB.

mod check;
mod command;
mod compare;
pub mod descriptor;
mod engine;
pub mod error;
mod function;
mod portal;
pub mod record;
mod regs;
mod run;
mod tables;
mod task;

pub use crate::dma_engine::Setup;
pub use function::Dsa;

/// Work queues.
pub const WQS: usize = 8;
/// Engines: descriptors under way at a time.
pub const ENGINES: usize = 4;
/// Groups of work queues and engines.
pub const GROUPS: usize = 4;
/// MSI-X vectors: one for the device, one for each work queue.
pub const VECTORS: u16 = 9;
/// Descriptors that all work queues together hold.
pub const TOTAL_WQ_SIZE: u16 = 128;
/// Largest transfer in bytes, as a power of two.
pub const TRANSFER_SHIFT: u8 = 31;
/// Most descriptors in a batch, as a power of two.
pub const BATCH_SHIFT: u8 = 10;

/// Bytes that are moved or compared between two looks at whether to go on; whole patterns, and the
/// pages of one group of page requests.
const CHUNK: u32 = 256 << 10;
