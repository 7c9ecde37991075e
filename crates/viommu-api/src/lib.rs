//! The seams between a virtual IOMMU, the devices behind it and the VMM around it.
//!
//! No models live here. A device model sees [`Translate`], [`Ats`] and [`Pri`]; it implements
//! [`Endpoint`] to hear invalidations and page-group responses. A VMM drives [`Registers`] and
//! implements [`MsiSink`], and [`WiredSink`] where there are wires. A server that puts functions in front of a guest drives [`PciFunction`],
//! and provides [`PhysicalMemory`] and [`IrqSink`].
#![forbid(unsafe_code)]

mod memory;
mod pci;

pub use memory::{BusError, PhysicalMemory};
pub use pci::{BARS, CONFIG_SIZE, InterruptKind, Interrupts, IrqSink, PciFunction};

use iopf::{Access, Dma, Gpa, GroupIndex, Iova, PageRequest, Pasid, Response, Rid};

/// A memory-mapped register file.
pub trait Registers: Send + Sync {
    /// Size of the register window in bytes.
    fn size(&self) -> u64;
    /// Reads `data.len()` bytes at byte `offset`. What the window does not define reads as zero.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes `data` at byte `offset`. What the window does not define is ignored.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A page that a translation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Where the requested address lies.
    pub pa: Gpa,
    /// The size of the page around it, as a power of two: 12 for 4 KiB.
    pub page_shift: u8,
    /// What the walk grants there, whatever was asked.
    pub perms: Access,
}

/// Names a transaction that the IOMMU holds, among those of one function.
///
/// Arm SMMU: the STAG of a stalled transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StallTag(pub u16);

/// What becomes of a transaction that does not translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is aborted, and the device sees an error.
    Aborted,
    /// It ends as if nothing were wrong: a read gives zeros, a write changes nothing. What follows
    /// it, on other pages, is a transaction of its own.
    Ignored,
    /// It is held: [`Endpoint::resume`] says once, and only once, what next.
    Stalled(StallTag),
}

/// The IOMMU refused a transaction; what the device sees of it (the reason went to the guest).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the IOMMU {} the transaction at {at}", match end {
    Ending::Aborted => "blocked",
    Ending::Ignored => "ignored",
    Ending::Stalled(_) => "holds",
})]
pub struct Blocked {
    /// The first address that was refused.
    pub at: Iova,
    /// What becomes of it.
    pub end: Ending,
}

impl Blocked {
    /// A transaction at `at` that is aborted.
    #[must_use]
    pub const fn aborted(at: Iova) -> Self {
        Self {
            at,
            end: Ending::Aborted,
        }
    }
}

/// What is to be done with a transaction that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Send it again.
    Retry,
    /// It is aborted.
    Abort,
    /// It ends as if nothing were wrong, as [`Ending::Ignored`].
    Ignore,
}

/// Translates untranslated requests.
pub trait Translate: Send + Sync {
    /// Runs `each` over the pieces of `len` bytes from `dma.addr` on, in order, each with its
    /// physical address and length in bytes.
    ///
    /// A piece is used inside the call, so that an invalidation which completes later can never
    /// find an access still under way through the old translation: the IOMMU answers an
    /// invalidation wait only when the calls that might use what it invalidated have returned.
    ///
    /// # Errors
    /// At the first page that does not translate; pieces before it have been visited.
    fn with_translation(
        &self,
        dma: &Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked>;
}

/// The completion of an ATS translation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsCompletion {
    /// Success. No read and no write permission means "no translation": ask for the page.
    Success {
        /// The translation; `perms` may be empty.
        granted: Granted,
        /// The translation holds for every PASID of the device.
        global: bool,
    },
    /// Unsupported Request: ATS must not be used here.
    UnsupportedRequest,
    /// Completer Abort: the tables could not be read or are malformed.
    CompleterAbort,
}

/// Address Translation Services, the IOMMU's side.
pub trait Ats: Send + Sync {
    /// Answers a translation request.
    fn translation_request(&self, dma: &Dma) -> AtsCompletion;
}

/// What became of a page request message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageRequestOutcome {
    /// Queued for the guest; a group response follows if the page was the last of its group.
    Queued,
    /// Answered at once by the IOMMU. Only a group's last page is answered.
    Answered(Response),
    /// Dropped without an answer, as the architecture asks for.
    Dropped,
}

/// The Page Request Interface, the IOMMU's side.
pub trait Pri: Send + Sync {
    /// Takes one page request message.
    fn page_request(&self, requester: Rid, request: &PageRequest) -> PageRequestOutcome;
}

/// What a device must forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// The address space; `None`: requests without a PASID.
    pub pasid: Option<Pasid>,
    /// With `pasid`, the entries of every address space (the global bit).
    pub global: bool,
    /// First address of the range.
    pub addr: Iova,
    /// Size of the range in bytes as a power of two; 64 means everything.
    pub size_shift: u8,
}

/// A function behind the IOMMU: hears what the guest sends down the invalidation queue.
///
/// Called without any lock of the IOMMU held, in the order of the guest's descriptors.
pub trait Endpoint: Send + Sync {
    /// Forgets translations. On return, no access uses them any more.
    fn invalidate(&self, invalidation: &Invalidation);
    /// The answer to a group this function asked for.
    fn page_response(&self, pasid: Option<Pasid>, group: GroupIndex, response: Response);
    /// What is to be done with the transaction that [`Ending::Stalled`] named. It may come before the
    /// call that was refused has returned: keep it until then. The default is for functions that take
    /// [`Ending::Stalled`] for an abort, or are behind an IOMMU that holds nothing: it does nothing.
    fn resume(&self, tag: StallTag, how: Resume) {
        let _ = (tag, how);
    }
}

/// Where message-signalled interrupts go.
pub trait MsiSink: Send + Sync {
    /// Delivers one interrupt message: `data` written to `addr`.
    fn msi(&self, addr: u64, data: u32);
}

/// Where the interrupts of a unit go that has wires besides messages: one on no bus of PCI.
pub trait WiredSink: MsiSink {
    /// Pulses wire `wire` of the unit, which is an interrupt by itself (edge-triggered).
    fn pulse(&self, wire: u16);
}
