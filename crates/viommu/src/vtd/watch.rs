//! What a unit tells somebody who watches it: to show, to trace, to write a capture.

use super::diagnostics::Diagnostic;
use super::interrupt::Msi;
use iommu_wire::vtd::command::GroupResponse;
use iopf::{PageRequest, Rid};
use std::fmt;
use std::sync::Arc;
use viommu_api::PageRequestOutcome;

/// Something that happened in a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A request ended in a fault. Its record is in the registers where the diagnostic says so; the
    /// guest has not been sent a message of it yet.
    Fault(&'a Diagnostic),
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
    /// An interrupt message has been handed on.
    Message {
        /// Where it was written.
        addr: u64,
        /// What was written.
        data: u32,
    },
    /// The guest moved the tail of its invalidation queue; the descriptors are not worked off yet.
    Tail,
    /// A page group response goes to its endpoint, if that is there; the endpoint has not been told of it
    /// yet.
    Response(&'a GroupResponse),
}

/// Watches a unit.
///
/// Called on the thread where it happens, with no lock of the unit held, so for a fault on the
/// thread of the device. What it does there delays that thread and nobody else.
pub trait Watch: Send + Sync {
    /// Takes note.
    fn notice(&self, notice: Notice<'_>);
}

/// The watcher of a unit, if it has one.
#[derive(Clone, Default)]
pub(super) struct Watcher(pub(super) Option<Arc<dyn Watch>>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watcher").field(&self.0.is_some()).finish()
    }
}

impl Watcher {
    #[inline]
    pub(super) fn notice(&self, notice: Notice<'_>) {
        if let Some(watch) = &self.0 {
            watch.notice(notice);
        }
    }
}

impl From<Msi> for Notice<'_> {
    fn from(Msi { addr, data }: Msi) -> Self {
        Self::Message { addr, data }
    }
}
