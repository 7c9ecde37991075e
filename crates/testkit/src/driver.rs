//! What a scripted guest does, whatever IOMMU it drives.

use crate::fault_log::FaultLog;
use crate::irq::Interrupts;
use crate::mm::{Mm, Prot};
use crate::page_groups::{Bindings, PageRequestStats};
use crate::paging::Processor;
use crate::ram::{OutOfMemory, Ram};
use iopf::{Gpa, GroupIndex, Iova, Pasid, Response, Rid};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why a submission did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// The IOMMU did not understand a command, and stood still at it.
    Invalid,
    /// A device did not answer an invalidation in time.
    DeviceTimeout,
    /// The wait behind the commands was never executed.
    Stuck,
    /// More commands than the ring holds.
    TooMany,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "a command was refused",
            Self::DeviceTimeout => "a device did not answer an invalidation in time",
            Self::Stuck => "the wait behind the commands never completed",
            Self::TooMany => "more commands than the queue holds",
        })
    }
}

impl std::error::Error for QueueError {}

/// Why the driver gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestError {
    /// No frame is left.
    OutOfMemory,
    /// The IOMMU did not do what a command asked for; the name of the status bit.
    Malfunction(&'static str),
    /// The IOMMU lacks what was asked for.
    Unsupported(&'static str),
    /// The command queue failed.
    Queue(QueueError),
    /// The device was not probed, or the PASID is not bound.
    NotAttached(Rid),
}

impl From<OutOfMemory> for GuestError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<QueueError> for GuestError {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("out of guest memory"),
            Self::Malfunction(what) => write!(f, "the IOMMU never reported {what}"),
            Self::Unsupported(what) => write!(f, "the IOMMU lacks {what}"),
            Self::Queue(error) => write!(f, "{error}"),
            Self::NotAttached(rid) => write!(f, "{rid} is not attached"),
        }
    }
}

impl std::error::Error for GuestError {}

/// What became of requests that the IOMMU held for the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallStats {
    /// Events of such requests that were read.
    pub events: u64,
    /// Let go, to try again: the page is there.
    pub retried: u64,
    /// Let go, and over: there is no such page.
    pub aborted: u64,
}

/// Lines of the log kept.
const LINES: usize = 256;

/// What every scripted guest has beside its driver: memory, interrupts, processes and logs. `S` is a fault
/// record as it reads it.
#[derive(Debug)]
pub struct Kernel<S> {
    pub(crate) ram: Arc<Ram>,
    pub(crate) irqs: Arc<Interrupts>,
    pub(crate) bindings: Bindings,
    faults: Mutex<FaultLog<S>>,
    lines: Mutex<VecDeque<String>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Kernel<S> {
    pub(crate) fn new(ram: Arc<Ram>, irqs: Arc<Interrupts>) -> Self {
        Self {
            ram,
            irqs,
            bindings: Bindings::default(),
            faults: Mutex::default(),
            lines: Mutex::default(),
        }
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, FaultLog<S>> {
        lock(&self.faults)
    }
}

/// A guest kernel with the driver of an IOMMU under it. All methods may be called from several threads.
///
/// Interrupts are taken from an [`Interrupts`] and handled when [`service`](Self::service) is called, never
/// from within a register access.
pub trait Driver: Send + Sync + Sized + 'static {
    /// A fault record, which prints as the line of Linux's log.
    type Seen: Copy + fmt::Debug + fmt::Display;

    /// The processors of a machine that has such an IOMMU.
    const PROCESSOR: Processor = Processor::X86;

    /// What does not depend on the IOMMU.
    fn kernel(&self) -> &Kernel<Self::Seen>;

    /// Flushes all that the IOMMU may have cached of tables. Device TLBs are not told.
    ///
    /// # Errors
    /// When the command queue fails.
    fn flush_everything(&self) -> Result<(), GuestError>;

    /// Gives a device address spaces for its PASIDs, and turns on its device TLB and page requests.
    ///
    /// # Errors
    /// Without memory or when the command queue fails.
    fn probe_sva(&self, rid: Rid) -> Result<(), GuestError>;

    /// Puts the page table of an address space where the device's PASID finds it.
    ///
    /// # Errors
    /// When the device was not probed, without memory, or when the command queue fails.
    fn set_mm(&self, rid: Rid, mm: &Mm) -> Result<(), GuestError>;

    /// Takes a PASID away from a device, flushes what is cached of it, and waits until none of its page
    /// requests is left.
    ///
    /// # Errors
    /// When the device was not probed or the command queue fails.
    fn clear_pasid(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError>;

    /// Waits until no page request of the PASID is left.
    ///
    /// # Errors
    /// When the command queue fails, or the page requests never end.
    fn drain(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError>;

    /// Flushes what may be cached of a PASID of a device.
    ///
    /// # Errors
    /// When the device was not probed or the command queue fails.
    fn flush_pasid(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError>;

    /// Tells the IOMMU and every device bound to the address space to forget `2^order` pages.
    ///
    /// # Errors
    /// When the command queue fails.
    fn flush_pages(&self, mm: &Mm, at: Iova, order: u8) -> Result<(), GuestError>;

    /// Answers a group of page requests, whoever asked, and whether anybody did.
    ///
    /// # Errors
    /// When the command queue fails.
    fn answer_page_group(
        &self,
        rid: Rid,
        pasid: Option<Pasid>,
        index: GroupIndex,
        response: Response,
    ) -> Result<(), GuestError>;

    /// Handles interrupts, vector N as bit N.
    fn handle(&self, vectors: u64);

    /// Reads whatever fault records are pending, interrupt or not, then returns what is known.
    fn poll_faults(&self) -> FaultLog<Self::Seen>;

    /// What the page request handler has seen.
    fn page_requests(&self) -> PageRequestStats;

    /// Whether an overflow of fault records, or of page requests, is pending.
    fn overflow_pending(&self) -> bool;

    /// Whether the requests of a device stall where a page is missing. It has no device TLB then.
    fn stalls(&self, _: Rid) -> bool {
        false
    }

    /// What became of requests that stalled.
    fn stall_stats(&self) -> StallStats {
        StallStats::default()
    }

    /// A new process, whose address space a PASID names: page tables of 4 levels.
    ///
    /// # Errors
    /// Without a frame for the page table.
    fn process(&self, pasid: Pasid) -> Result<Arc<Mm>, OutOfMemory> {
        Mm::of(Self::PROCESSOR, self.ram(), pasid, 4).map(Arc::new)
    }

    /// Guest memory.
    fn ram(&self) -> &Arc<Ram> {
        &self.kernel().ram
    }

    /// Binds a device to an address space (SVA).
    ///
    /// # Errors
    /// As [`Driver::set_mm`].
    fn bind(&self, rid: Rid, mm: &Arc<Mm>) -> Result<(), GuestError> {
        self.kernel().bindings.insert(rid, mm);
        self.set_mm(rid, mm)
    }

    /// Ends a binding.
    ///
    /// # Errors
    /// As [`Driver::clear_pasid`].
    fn unbind(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        let done = self.clear_pasid(rid, pasid);
        self.kernel().bindings.remove(rid, pasid);
        done
    }

    /// Unmaps a mapping and flushes; its frames come back, free of any device.
    ///
    /// # Errors
    /// When the command queue fails: the frames are lost then, for nobody knows who still uses them.
    fn munmap(&self, mm: &Mm, at: Iova, pages: u64) -> Result<Vec<Gpa>, GuestError> {
        let frames = mm.unmap(at);
        self.flush_pages(mm, at, order_of(at, pages))?;
        Ok(frames)
    }

    /// Drops the pages of a mapping and flushes; its frames come back, free of any device.
    ///
    /// # Errors
    /// As [`Driver::munmap`].
    fn discard(&self, mm: &Mm, at: Iova, pages: u64) -> Result<Vec<Gpa>, GuestError> {
        let frames = mm.discard(at, pages);
        self.flush_pages(mm, at, order_of(at, pages))?;
        Ok(frames)
    }

    /// Changes rights and flushes.
    ///
    /// # Errors
    /// When the command queue fails.
    fn mprotect(&self, mm: &Mm, at: Iova, pages: u64, prot: Prot) -> Result<(), GuestError> {
        mm.protect(at, prot);
        self.flush_pages(mm, at, order_of(at, pages))
    }

    /// Handles the interrupts that are pending; whether there were any.
    fn service(&self) -> bool {
        let vectors = self.kernel().irqs.take();
        self.handle(vectors);
        vectors != 0
    }

    /// Waits for an interrupt, `timeout` at most, and handles what came.
    fn service_within(&self, timeout: Duration) -> bool {
        let vectors = self.kernel().irqs.wait(timeout);
        self.handle(vectors);
        vectors != 0
    }

    /// What the guest knows of faults so far.
    fn faults(&self) -> FaultLog<Self::Seen> {
        self.kernel().faults().clone()
    }

    /// Appends a line to the log; the last 256 are kept.
    fn note(&self, line: impl Into<String>) {
        let mut lines = lock(&self.kernel().lines);
        if lines.len() >= LINES {
            lines.pop_front();
        }
        lines.push_back(line.into());
    }

    /// The log, oldest line first.
    fn lines(&self) -> Vec<String> {
        lock(&self.kernel().lines).iter().cloned().collect()
    }
}

/// The order that stands for a whole address space.
pub(crate) const EVERYTHING: u8 = 52;

/// The smallest power of two of pages whose aligned block covers `pages` from `at` on.
fn order_of(at: Iova, pages: u64) -> u8 {
    let first = at.0 >> 12;
    let last = first.saturating_add(pages.max(1) - 1);
    let bits = 64 - (first ^ last).leading_zeros();
    u8::try_from(bits).unwrap_or(EVERYTHING).min(EVERYTHING)
}
