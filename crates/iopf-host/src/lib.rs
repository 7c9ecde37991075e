//! The Linux host's half of I/O page faults.
//!
//! [`FaultFile`] is the seam: the kernel's fault descriptor, or something that behaves like it.
//! [`FaultQueue`] reads whole groups from one and gives their answers.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod file;
pub mod queue;
mod record;

pub use file::{Errno, FaultFd, FaultFile};
pub use queue::FaultQueue;
pub use record::{RawAnswer, RawFault};
