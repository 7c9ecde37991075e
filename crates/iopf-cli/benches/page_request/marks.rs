//! When things happened in one round, and the seams at which that is noted.

use endpoint::Device;
use iopf::{Dma, GroupIndex, PageRequest, Pasid, Response, Rid};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;
use testkit::vtd::numbers::IQT;
use viommu_api::{
    Ats, AtsCompletion, Endpoint, Interrupts, Invalidation, MsiSink, PageRequestOutcome,
    PciFunction, Pri,
};

/// A moment of a round, in the order in which they come.
#[derive(Clone, Copy)]
pub(crate) enum Mark {
    /// The endpoint hands its page request to the unit.
    Raised,
    /// The unit has queued it, and hands the message of it on.
    Queued,
    /// The message is in the socket.
    Written,
    /// The client has read the message.
    Arrived,
    /// The client is about to write the tail of the invalidation queue.
    Sent,
    /// The tail has come to the IOMMU function.
    Tail,
    /// The answer is about to be handed to the endpoint.
    Answered,
    /// The endpoint, on its own thread, asks for the translation again.
    Retried,
}

const MARKS: usize = Mark::Retried as usize + 1;

/// The moments of one round, in nanoseconds from a fixed start.
pub(crate) struct Marks {
    start: Instant,
    at: [AtomicU64; MARKS],
}

impl Marks {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            at: Default::default(),
        }
    }

    /// Notes that `mark` is now; only its first time in a round counts.
    pub(crate) fn note(&self, mark: Mark) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let cell = &self.at[mark as usize];
        // A later one of the round is not what is asked for.
        let _ = cell.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
    }

    fn noted(&self, mark: Mark) -> bool {
        self.at[mark as usize].load(Ordering::Acquire) != 0
    }

    /// Ends the round.
    pub(crate) fn take(&self) -> Lap {
        Lap(std::array::from_fn(|i| {
            self.at[i].swap(0, Ordering::AcqRel)
        }))
    }
}

/// The moments of a round that is over.
#[derive(Clone, Copy)]
pub(crate) struct Lap([u64; MARKS]);

impl Lap {
    /// Nanoseconds from one moment to the other, both of which must have come, in this order.
    pub(crate) fn between(&self, from: Mark, to: Mark) -> u64 {
        let (from, to) = (self.0[from as usize], self.0[to as usize]);
        assert!(0 < from && from <= to, "{:?}", self.0);
        to - from
    }
}

/// An IOMMU that notes what the endpoint asks of it.
pub(crate) struct Asked<I> {
    pub(crate) iommu: Arc<I>,
    pub(crate) marks: Arc<Marks>,
}

impl<I: Ats> Ats for Asked<I> {
    fn translation_request(&self, dma: &Dma) -> AtsCompletion {
        if self.marks.noted(Mark::Answered) {
            self.marks.note(Mark::Retried);
        }
        self.iommu.translation_request(dma)
    }
}

impl<I: Pri> Pri for Asked<I> {
    fn page_request(&self, requester: Rid, request: &PageRequest) -> PageRequestOutcome {
        self.marks.note(Mark::Raised);
        self.iommu.page_request(requester, request)
    }
}

/// A way to the client that notes when a message has gone.
pub(crate) struct Sent<S> {
    pub(crate) sink: Arc<S>,
    pub(crate) marks: Arc<Marks>,
}

impl<S: MsiSink> MsiSink for Sent<S> {
    fn msi(&self, addr: u64, data: u32) {
        self.marks.note(Mark::Queued);
        self.sink.msi(addr, data);
        self.marks.note(Mark::Written);
    }
}

/// An IOMMU function that notes when the tail of the invalidation queue is written.
pub(crate) struct Reached<F> {
    pub(crate) function: F,
    pub(crate) marks: Arc<Marks>,
}

impl<F: PciFunction> PciFunction for Reached<F> {
    fn bar_size(&self, bar: u8) -> u64 {
        self.function.bar_size(bar)
    }
    fn interrupts(&self) -> Interrupts {
        self.function.interrupts()
    }
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.function.read_config(offset, data);
    }
    fn write_config(&self, offset: u16, data: &[u8]) {
        self.function.write_config(offset, data);
    }
    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.function.read_bar(bar, offset, data);
    }
    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        if bar == 0 && offset == IQT {
            self.marks.note(Mark::Tail);
        }
        self.function.write_bar(bar, offset, data);
    }
    fn reset(&self) {
        self.function.reset();
    }
}

/// A device that is stepped by a thread of its own, which an answer wakes.
pub(crate) struct Woken {
    pub(crate) device: Arc<Device>,
    pub(crate) worker: OnceLock<Thread>,
    pub(crate) marks: Arc<Marks>,
}

impl Endpoint for Woken {
    fn invalidate(&self, invalidation: &Invalidation) {
        self.device.invalidate(invalidation);
    }

    fn page_response(&self, pasid: Option<Pasid>, group: GroupIndex, response: Response) {
        self.marks.note(Mark::Answered);
        self.device.page_response(pasid, group, response);
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }
}
