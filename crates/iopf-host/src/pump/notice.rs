//! What a pump tells besides answers.

use super::QueueId;
use crate::queue::{ReadError, WriteError};
use iopf::LogLine;
use iopf::engine::{DeviceId, LossReport};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Something that somebody should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Faults were lost; each is told once.
    Loss(LossReport),
    /// A line for the host's log, within its budget.
    Log(LogLine),
    /// A queue cannot be read. It is tried again after a pause of 10 ms, then of twice that and so
    /// on up to 1 s; each time is told.
    Read {
        /// The queue.
        queue: QueueId,
        /// What happened.
        error: ReadError,
    },
    /// Answers cannot be written. They are kept, nothing is read meanwhile, and it is tried again
    /// as with [`Read`](Self::Read).
    Write {
        /// The queue.
        queue: QueueId,
        /// What happened.
        error: WriteError,
    },
    /// A resolver panicked. The group was refused, and so is everything else of the device from now
    /// on, until it gets another resolver.
    Panicked {
        /// The device it served.
        device: DeviceId,
        /// What it said.
        message: String,
    },
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without words".to_owned()
    }
}

/// Drops a resolver that panicked. It may do so again: of a lock that it left poisoned, for instance.
pub(crate) fn bury<T>(resolver: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(resolver)));
}
