//! What an architecture brings to the shared device, [`Unit`].
//!
//! The device is written once: sessions, caches, faults, page requests, endpoints. An architecture
//! says how its tables are read ([`Tables`]), and what its registers, queues and records do
//! ([`Arch`]). Both are implemented in this crate, by markers such as [`Vtd`](crate::vtd::Vtd).

use crate::iotlb::{Scope, Source, Tag};
use crate::mem::GuestRam;
use crate::memo::Memo;
use crate::unit::{Next, Unit};
use iommu_walk::{Applied, Completion, Outcome, TableMem, TableMemMut, Translation, Updates};
use iopf::{Access, Dma, DmaKind, GroupIndex, PageRequest, Pasid, Response, Rid};
use std::cell::RefCell;
use std::fmt::Debug;
use std::thread::LocalKey;
use viommu_api::{Ending, StallTag};
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

/// Tables in guest memory, and the cache of what configures a requester.
pub trait Tables: Sized + 'static {
    /// The registers as a walk sees them.
    type Walk: Copy + Debug + Send + Sync;
    /// What the tables say of a requester and PASID: all that a page walk needs to know.
    type Space: Copy + Debug + Send + Sync;
    /// Why a walk ended without a translation.
    type Failure: Copy + Debug + Send + Sync;
    /// Configuration entries that the unit holds until the guest invalidates them.
    type Cache: Default + Debug + Send + Sync;
    /// Configuration entries that were read and are not in the cache.
    type Fresh;

    /// Whether requests are translated at all.
    fn enabled(walk: &Self::Walk) -> bool;

    /// Where a range begins whose addresses are no part of the pages around it: hardware looks at
    /// each transaction, and none is longer than 4 KiB. x86: the interrupt range.
    const CUT: Option<u64>;

    /// Whether a request is none that page tables translate, for its address alone.
    fn special(dma: &Dma) -> bool;

    /// Translates a request without any cache.
    ///
    /// # Errors
    /// The failure that the guest's tables call for.
    fn translate<M: TableMem>(
        walk: &Self::Walk,
        mem: &M,
        dma: &Dma,
        updates: &mut Updates,
    ) -> Result<Outcome, Self::Failure>;

    /// Lets a translated request through.
    ///
    /// # Errors
    /// The failure that the guest's tables, or the cache, call for.
    fn translated<M: TableMem>(
        walk: &Self::Walk,
        cache: &Self::Cache,
        mem: &M,
        dma: &Dma,
    ) -> Result<Translation, Self::Failure>;

    /// The address space of a request, where the cache has all of the way to it and lets it in.
    fn known<'a>(walk: &Self::Walk, cache: &'a Self::Cache, dma: &Dma) -> Option<&'a Self::Space>;

    /// Reads what the cache does not have, and sets the accessed bits of tables on the way to it.
    ///
    /// # Errors
    /// The failure that the guest's tables, or the cache, call for.
    fn configure<M: TableMemMut>(
        walk: &Self::Walk,
        cache: &Self::Cache,
        mem: &M,
        dma: &Dma,
    ) -> Result<Self::Fresh, Self::Failure>;

    /// The address space that was read.
    fn space(fresh: &Self::Fresh) -> &Self::Space;

    /// Takes what was read into the cache, unless something was invalidated since it was read.
    fn keep(cache: &mut Self::Cache, dma: &Dma, fresh: &Self::Fresh);

    /// Forgets every configuration entry, also those that are read and not in the cache yet.
    fn forget_all(cache: &mut Self::Cache);

    /// Translates a request of `space`.
    ///
    /// # Errors
    /// The failure that the guest's page tables call for.
    fn walk<M: TableMem>(
        walk: &Self::Walk,
        space: &Self::Space,
        mem: &M,
        dma: &Dma,
        updates: &mut Updates,
    ) -> Result<Outcome, Self::Failure>;

    /// Sets the accessed and dirty bits that a walk asked for.
    fn apply<M: TableMemMut>(
        walk: &Self::Walk,
        mem: &M,
        dma: &Dma,
        updates: &Updates,
        hidden: bool,
    ) -> Applied<Self::Failure>;

    /// The guest keeps changing the entry whose accessed or dirty bit is due.
    fn contended<M: TableMem>(walk: &Self::Walk, mem: &M, dma: &Dma, hidden: bool)
    -> Self::Failure;

    /// Whether an entry on the way keeps faults of this space from the guest.
    fn hides(space: &Self::Space) -> bool;

    /// Whether an entry on the way keeps this fault from the guest.
    fn hidden(failure: &Self::Failure) -> bool;

    /// What the IOTLB is to know of requests of `space`.
    fn source(space: &Self::Space, pasid: Option<Pasid>) -> Source;

    /// The tag under which a translation for requests of `source` is cached.
    #[inline]
    fn tag(source: &Source, _: &Translation) -> Tag {
        source.tag
    }

    /// Checks a page request, without the cache. What it returns are the translations that the request
    /// invalidates by itself.
    ///
    /// # Errors
    /// The failure that the guest's tables call for.
    fn page_request<M: TableMem>(
        walk: &Self::Walk,
        mem: &M,
        dma: &Dma,
    ) -> Result<Option<Scope>, Self::Failure>;

    /// The rights that a cached page must have to serve a request; `None` for one that only a walk can
    /// judge.
    fn asked(dma: &Dma) -> Option<Access>;

    /// What each thread remembers of the unit it met last.
    fn memo() -> &'static LocalKey<RefCell<Memo<Self>>>;
}

/// Guest memory that a device can be put behind.
pub trait Ram: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static {}
impl<A> Ram for A where A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static {}

/// An interrupt that the unit raises.
// Whole words: what is copied piece by piece at odd places waits for the stores that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Interrupt {
    /// A message: `data` written to `addr`.
    Message {
        /// Where.
        addr: u64,
        /// What.
        data: u32,
    },
    /// An MSI vector of the unit's own PCI function.
    Vector(u16),
    /// A pulse on a wire of the unit's own.
    Wire(u16),
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The guest has a record of it; an interrupt may be due.
    Yes(Option<Interrupt>),
    /// There was no room; an interrupt may be due.
    Lost(Option<Interrupt>),
    /// It is one that the guest wants to hear of once only, and has.
    Repeated,
    /// The guest has a record of it, or will have once there is room, and the transaction is held until
    /// it says what next; an interrupt may be due.
    Stalled(StallTag, Option<Interrupt>),
}

/// What became of a page request that may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is in the guest's queue; an interrupt may be due.
    Yes(Option<Interrupt>),
    /// There was no room. `answer` is for the last of a group; `None`: it is dropped.
    Lost {
        /// The unit's own answer.
        answer: Option<Response>,
        /// An interrupt may be due.
        interrupt: Option<Interrupt>,
    },
    /// There is no queue, or no memory behind it.
    Refused(Option<Response>),
}

/// A page group response that the guest gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupAnswer {
    /// For whom.
    pub requester: Rid,
    /// In which address space.
    pub pasid: Option<Pasid>,
    /// Which group.
    pub group: GroupIndex,
    /// The answer.
    pub response: Response,
}

/// A unit's parts, as made from a configuration.
#[derive(Debug)]
pub struct Parts<X: Arch> {
    /// What it can do, which never changes.
    pub caps: X::Caps,
    /// Its registers after power-on.
    pub regs: X::Regs,
    /// The same as walks see them.
    pub walk: X::Walk,
    /// Translations that the IOTLB holds; 0 is no cache at all.
    pub iotlb_entries: usize,
}

/// Registers, queues, records, interrupts.
pub trait Arch: Tables {
    /// What a unit can do, as its maker states it.
    type Config: Debug;
    /// Why a configuration is refused.
    type Refused;
    /// What a unit can do, as its registers show it.
    type Caps: Copy + Debug + Send + Sync;
    /// All that lies behind the register lock: storage with rules.
    type Regs: Debug + Send;
    /// What a register write asks the device to do next.
    type Effect;
    /// A fault as it is to be recorded.
    type Record;
    /// Where interrupts go.
    type Sink: ?Sized + Send + Sync;

    /// Makes a unit's parts.
    ///
    /// # Errors
    /// When the configuration asks for what the model does not do.
    fn parts(config: &Self::Config) -> Result<Parts<Self>, Self::Refused>;

    /// Hands an interrupt on. `ram` is where a message may be meant to go.
    fn deliver<A: Ram>(sink: &Self::Sink, ram: &GuestRam<A>, interrupt: Interrupt);

    /// Bytes of the register window.
    fn window(caps: &Self::Caps) -> u64;

    /// Reads the 32 bits at `at`, a multiple of 4.
    fn read(regs: &Self::Regs, at: u64) -> u32;

    /// Writes the 32 bits at `at`, a multiple of 4.
    fn write(regs: &mut Self::Regs, at: u64, value: u32) -> Self::Effect;

    /// The register whose write moves the tail of the command queue.
    const TAIL: u64;

    /// Whether the command queue stands still at an error.
    fn stopped(regs: &Self::Regs) -> bool;

    /// Returns the registers to their state after power-on. Says what walks, which saw `walk`, see then.
    fn reset(regs: &mut Self::Regs, walk: &Self::Walk) -> Self::Walk;

    /// Makes an effect happen.
    fn act<A: Ram>(unit: &Unit<Self, A>, effect: Self::Effect);

    /// Works one command off, if there is one.
    fn step<A: Ram>(unit: &Unit<Self, A>) -> Next;

    /// Whether devices may ask for translations.
    fn translation_requests(caps: &Self::Caps) -> bool;

    /// Whether devices may ask for pages.
    fn page_requests(caps: &Self::Caps) -> bool;

    /// Whether a request of this kind leaves a record of this failure.
    fn recorded(failure: &Self::Failure, kind: DmaKind) -> bool;

    /// Whether a page request leaves a record of this failure.
    fn page_request_recorded(failure: &Self::Failure) -> bool;

    /// Whether the guest's tables suppress the record.
    fn suppressed(failure: &Self::Failure) -> bool;

    /// How a translation request that failed is completed.
    fn completion(failure: &Self::Failure, kind: DmaKind) -> Completion;

    /// The answer to a page request that may not be asked, if it is the last of its group.
    fn page_request_answer(failure: &Self::Failure) -> Response;

    /// What is to be recorded of a failed request; `asked` is the page request, if it is one.
    fn record_of(
        caps: &Self::Caps,
        dma: &Dma,
        failure: &Self::Failure,
        asked: Option<&PageRequest>,
    ) -> Self::Record;

    /// Records a fault. `hold`: the transaction may be held.
    fn record<A: Ram>(
        regs: &mut Self::Regs,
        ram: &GuestRam<A>,
        record: Self::Record,
        hold: bool,
    ) -> Recorded;

    /// What becomes of a transaction that failed and is not held.
    fn ending(_: &Self::Failure) -> Ending {
        Ending::Aborted
    }

    /// Gives up every transaction that is held: the unit is being reset.
    fn release(_: &mut Self::Regs) -> Vec<(Rid, StallTag)> {
        Vec::new()
    }

    /// Queues a page request for the guest.
    fn queue<A: Ram>(
        regs: &mut Self::Regs,
        ram: &GuestRam<A>,
        requester: Rid,
        request: &PageRequest,
    ) -> Queued;
}
