//! What the host may know of a guest's faults: a bounded ring and exact counts, never a log line.

use iopf::Dma;
use viommu_api::StallTag;

/// How many faults the ring remembers.
const REMEMBERED: usize = 256;

/// A fault of the guest's own making, as the walk found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnostic<F> {
    /// The request. Of a page request: who asks and where, as an untranslated request.
    pub dma: Dma,
    /// Why it failed, and which entry is to blame.
    pub failure: F,
    /// The guest got a record of it.
    pub recorded: bool,
    /// It was a page request message.
    pub page_request: bool,
    /// The request is held, under this name.
    pub stalled: Option<StallTag>,
}

/// Exact counts since the unit was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that ended in a fault condition, recorded or not.
    pub faults: u64,
    /// Of those: the guest has, or had, a record of it.
    pub recorded: u64,
    /// Of those recorded: the request is, or was, held.
    pub stalled: u64,
    /// Of the faults: lost because there was no room for a record.
    pub lost: u64,
    /// Of the faults: kept from the guest by its own tables (VT-d: FPD; AMD-Vi: SA and SE).
    pub suppressed: u64,
    /// Faults that the ring of [`Diagnostic`]s no longer holds.
    pub forgotten: u64,
    /// Page requests put into the guest's queue.
    pub page_requests: u64,
    /// Page requests that found the queue full or overflowed.
    pub page_requests_lost: u64,
    /// Page requests refused for another reason: not allowed, or no queue.
    pub page_requests_refused: u64,
    /// Of those lost or refused: the last of their groups, which the unit answered itself.
    pub page_requests_answered: u64,
    /// Page group responses handed to an endpoint.
    pub responses: u64,
    /// Page group responses for a requester that is not there.
    pub responses_lost: u64,
    /// Held requests that were let go: to be retried, or to end.
    pub resumed: u64,
    /// Held requests that were let go whose requester is not there.
    pub resumed_lost: u64,
    /// Injected faults that the guest's tables knew nothing of.
    pub vanished: u64,
    /// Times the command queue stopped at an error.
    pub queue_errors: u64,
}

/// Ring and counts.
#[derive(Debug)]
pub(crate) struct Diagnostics<F> {
    /// In the order of the faults until it is full; from then on `oldest` is where it begins.
    ring: Vec<Diagnostic<F>>,
    oldest: usize,
    pub(crate) counters: Counters,
}

impl<F> Diagnostics<F> {
    pub(crate) fn new() -> Self {
        Self {
            ring: Vec::with_capacity(REMEMBERED),
            oldest: 0,
            counters: Counters::default(),
        }
    }

    /// Remembers a fault, at the price of the oldest.
    #[inline]
    pub(crate) fn push(&mut self, diagnostic: Diagnostic<F>) {
        if self.ring.len() < REMEMBERED {
            self.ring.push(diagnostic);
        } else if let Some(place) = self.ring.get_mut(self.oldest) {
            *place = diagnostic;
            self.oldest = (self.oldest + 1) % REMEMBERED;
            self.counters.forgotten += 1;
        }
    }

    /// Hands out what is remembered, oldest first.
    pub(crate) fn take(&mut self) -> Vec<Diagnostic<F>> {
        self.ring.rotate_left(self.oldest);
        self.oldest = 0;
        self.ring.drain(..).collect()
    }
}
