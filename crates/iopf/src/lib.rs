//! I/O page faults: the nouns of the field, and the engine that carries a fault to its answer.
//!
//! The nouns ([`Iova`], [`Pasid`], [`Access`], [`Fault`], …) are shared by every crate of the
//! project. They are plain data without I/O, a clock or an allocation.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(test)]
extern crate std;

mod access;
mod address;
pub mod engine;
mod fault;
mod flood;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod resolve;
#[cfg(any(test, feature = "fuzzing"))]
mod script;
mod source;

pub use access::Access;
pub use address::{Gpa, Iova};
pub use engine::Engine;
pub use fault::{Fault, GroupIndex, PageRequest, Reason, Response, Unrecoverable};
pub use flood::{Level, LogLine, LogWhat};
pub use source::{Dma, DmaKind, Pasid, Rid};
