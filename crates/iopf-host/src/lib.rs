//! The Linux host's half of I/O page faults.
//!
//! [`FaultFile`] is the seam: the kernel's fault descriptor, or something that behaves like it.
//! [`FaultQueue`] reads whole groups from one and gives their answers. [`Pump`] drives the engine of
//! [`iopf`] with any number of them; a resolver that may block sits behind a [`Worker`].

mod clock;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod file;
pub mod pump;
pub mod queue;
mod record;
mod worker;

pub use clock::Clock;
pub use file::{Errno, FaultFd, FaultFile};
pub use pump::{Pump, PumpHandle};
pub use queue::{FaultQueue, ReadError, WriteError};
pub use record::{RawAnswer, RawFault};
pub use worker::Worker;
