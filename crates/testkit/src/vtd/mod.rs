//! A guest that drives VT-d as Linux does, by a script.

pub mod numbers;
pub mod tables;

mod faults;
mod guest;
mod mm;
mod prq;
mod queue;

pub use faults::{FaultLog, Seen, Tally};
pub use guest::{Guest, GuestError, Setup};
pub use mm::{Backing, Mm, Prot, SegmentationFault};
pub use prq::{PageGroup, PrqStats};
pub use queue::QueueError;
