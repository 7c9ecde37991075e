//! The Linux host's half of I/O page faults.
//!
//! [`FaultFile`] is the seam: the kernel's fault descriptor, or something that behaves like it.

mod file;
pub mod postcopy;
pub mod space;
mod sys;

pub use file::{Errno, FaultFd, FaultFile};
