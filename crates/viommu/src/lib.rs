//! Virtual IOMMU models.
//!
//! [`Unit`] is the device that all of them share: translation through caches, faults, page requests,
//! endpoints, sessions, a command queue. What an architecture adds is in a folder of its own, and
//! enters through [`arch`].
#![forbid(unsafe_code)]

pub mod amdvi;
pub mod arch;
mod diagnostics;
mod embed;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod inject;
pub mod iotlb;
pub mod mem;
mod memo;
mod ports;
mod refused;
pub mod session;
pub mod smmuv3;
mod translate;
mod unit;
pub mod vm_memory;
pub mod vtd;
mod watch;

pub use diagnostics::{Counters, Diagnostic};
pub use embed::OpenSession;
pub use inject::Injection;
pub use memo::Memo;
pub use refused::Refused;
pub use unit::{Next, Setup, Unit};
pub use watch::{Notice, Watch};
