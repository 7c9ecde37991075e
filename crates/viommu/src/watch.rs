//! What a unit tells somebody who watches it: to show, to trace, to write a capture.

use crate::arch::{GroupAnswer, Interrupt};
use crate::diagnostics::Diagnostic;
use iopf::{PageRequest, Rid};
use std::sync::Arc;
use viommu_api::{PageRequestOutcome, Resume, StallTag};

/// Something that happened in a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a, F> {
    /// A request ended in a fault. Its record is where the guest reads it if the diagnostic says so; the
    /// guest has not been sent a message of it yet.
    Fault(&'a Diagnostic<F>),
    /// A page request message came, and this became of it. The guest has not been sent a message of
    /// it yet.
    PageRequest {
        /// Who asks.
        requester: Rid,
        /// The message.
        request: &'a PageRequest,
        /// What became of it.
        outcome: PageRequestOutcome,
    },
    /// An interrupt has been handed on.
    Interrupt(Interrupt),
    /// The guest moved the tail of its command queue; the commands are not worked off yet.
    Tail,
    /// A page group response goes to its endpoint, if that is there; the endpoint has not been told of it
    /// yet.
    Response(&'a GroupAnswer),
    /// A held request is let go; its endpoint, if that is there, has not been told of it yet.
    Resume {
        /// Whose it is.
        requester: Rid,
        /// Which.
        tag: StallTag,
        /// What is to be done with it.
        how: Resume,
    },
}

/// Watches a unit.
///
/// Called on the thread where it happens, with no lock of the unit held, so for a fault on the
/// thread of the device. What it does there delays that thread and nobody else.
pub trait Watch<F>: Send + Sync {
    /// Takes note.
    fn notice(&self, notice: Notice<'_, F>);
}

/// The watcher of a unit, if it has one.
pub(crate) struct Watcher<F>(pub(crate) Option<Arc<dyn Watch<F>>>);

impl<F> Default for Watcher<F> {
    fn default() -> Self {
        Self(None)
    }
}

impl<F> Watcher<F> {
    #[inline]
    pub(crate) fn notice(&self, notice: Notice<'_, F>) {
        if let Some(watch) = &self.0 {
            watch.notice(notice);
        }
    }

    /// The same of a fault, which is put together only for somebody who watches.
    #[inline]
    pub(crate) fn fault(&self, diagnostic: impl FnOnce() -> Diagnostic<F>) {
        if let Some(watch) = &self.0 {
            watch.notice(Notice::Fault(&diagnostic()));
        }
    }
}
