//! Any rust-vmm device behind a model: [`vm_memory::Iommu`] for one requester and PASID.
//!
//! A device that is written against [`vm_memory::GuestMemory`] is given an
//! [`IommuMemory`] over a [`Behind`], and every address it uses goes through
//! the guest's tables. What it may not do becomes a fault that the guest sees.
//!
//! # Invalidations
//! `vm_memory` wants the translations of one access in an [`Iotlb`] that a guard keeps alive. Here
//! the guard *is* that access: a small table with the pages of the one range, filled from the
//! model's own IOTLB, together with an open session of the model. Nothing is kept between accesses
//! that could get stale, and the guest's invalidation wait completes only when the guards that were
//! alive are gone. So every invalidation is obeyed, including one that races with a fill, and
//! threads share nothing but what the model's IOTLB shares.
//!
//! Every access through [`vm_memory::Bytes`] holds its guard to the end of the access. A
//! `VolatileSlice` kept after the iterator it came from is not protected by it, as nothing in
//! `vm_memory` says when its use ends: open a session around such use ([`Behind::session`]). A
//! thread that holds an iterator or a session must not wait for an invalidation of the same model.

use iopf::{Access, Dma, DmaKind, Iova, Pasid, Rid};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use viommu_api::Translate;
use vm_memory::iommu::{Error, IotlbIterator, IovaRange};
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestMemoryRegion, Iommu, IommuMemory,
    Iotlb, Permissions,
};

/// Longest access in bytes: that of a virtio buffer. Bounds the pages that one access may walk.
const LONGEST: u64 = 1 << 32;

/// Stretches of pages that do not continue each other, of one access. Bounds the memory that a guest
/// can have allocated by one long buffer over scattered pages to some megabytes.
const STRETCHES: u32 = 1 << 16;

/// A model that devices can be put behind.
pub trait Model: Translate {
    /// Keeps invalidation waits from completing while it lives.
    type Session<'a>
    where
        Self: 'a;

    /// Opens a session of this thread.
    fn session(&self) -> Self::Session<'_>;
}

/// The address space of one requester and PASID behind a model.
pub struct Behind<T> {
    model: Arc<T>,
    requester: Rid,
    pasid: Option<Pasid>,
}

impl<T> Behind<T> {
    /// Requests of `requester`, with `pasid` or without, through `model`.
    pub const fn new(model: Arc<T>, requester: Rid, pasid: Option<Pasid>) -> Self {
        Self {
            model,
            requester,
            pasid,
        }
    }
}

impl<T: Model> Behind<T> {
    /// Opens a session of this thread: slices taken while it lives may be used as long as it lives.
    /// `Reader` and `Writer` of the `virtio-queue` crate keep slices, so a device that uses them
    /// opens a session for each chain.
    pub fn session(&self) -> T::Session<'_> {
        self.model.session()
    }
}

impl<T> Clone for Behind<T> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.model), self.requester, self.pasid)
    }
}

impl<T> fmt::Debug for Behind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind")
            .field("requester", &self.requester)
            .field("pasid", &self.pasid)
            .finish_non_exhaustive()
    }
}

/// The translations of one access, and the session in which they hold.
#[derive(Debug)]
pub struct Translated<S> {
    iotlb: Iotlb,
    _session: S,
}

impl<S> Deref for Translated<S> {
    type Target = Iotlb;
    fn deref(&self) -> &Iotlb {
        &self.iotlb
    }
}

/// Fills a table page by page, joining those that continue each other on both sides.
struct Filler {
    iotlb: Iotlb,
    access: Permissions,
    /// Where the stretch under way begins, on both sides.
    iova: u64,
    pa: u64,
    len: u64,
    stretches: u32,
    result: Result<(), Error>,
}

impl Filler {
    fn add(&mut self, pa: u64, len: u64) {
        if self.len != 0 && self.pa.wrapping_add(self.len) != pa {
            self.put();
        }
        if self.len == 0 {
            self.pa = pa;
        }
        self.len += len;
    }

    /// Ends the stretch under way.
    fn put(&mut self) {
        self.stretches += 1;
        let reason = if self.stretches > STRETCHES {
            "too many scattered pages for one access"
        } else {
            let (iova, pa) = (GuestAddress(self.iova), GuestAddress(self.pa));
            match usize::try_from(self.len) {
                Ok(len) => {
                    if let Err(error) = self.iotlb.set_mapping(iova, pa, len, self.access) {
                        self.result = Err(error);
                    }
                    ""
                }
                Err(_) => "a stretch longer than the address space of this process",
            }
        };
        if !reason.is_empty() {
            self.result = Err(cannot(self.iova, self.len, reason.into()));
        }
        self.iova = self.iova.wrapping_add(self.len);
        self.len = 0;
    }
}

fn cannot(base: u64, len: u64, reason: String) -> Error {
    Error::CannotResolve {
        iova_range: IovaRange {
            base: GuestAddress(base),
            length: usize::try_from(len).unwrap_or(usize::MAX),
        },
        reason,
    }
}

const fn rights(access: Permissions) -> Access {
    match access {
        Permissions::No => Access::empty(),
        Permissions::Read => Access::READ,
        Permissions::Write => Access::WRITE,
        Permissions::ReadWrite => Access::RW,
    }
}

impl<T: Model> Behind<T> {
    /// The pages of `len` bytes from `base` on, at least one.
    fn pages(&self, base: u64, len: u64, access: Permissions) -> Result<Iotlb, Error> {
        if len > LONGEST || base.checked_add(len).is_none() {
            return Err(cannot(base, len, "too long for one access".into()));
        }
        let dma = Dma {
            requester: self.requester,
            pasid: self.pasid,
            kind: DmaKind::Untranslated,
            addr: Iova(base),
            access: rights(access),
        };
        let mut filler = Filler {
            iotlb: Iotlb::new(),
            access,
            iova: base,
            pa: 0,
            len: 0,
            stretches: 0,
            result: Ok(()),
        };
        self.model
            .with_translation(&dma, len, &mut |pa, len| filler.add(pa.0, len))
            .map_err(|blocked| cannot(base, len, blocked.to_string()))?;
        filler.put();
        filler.result.map(|()| filler.iotlb)
    }
}

impl<T: Model> Iommu for Behind<T> {
    type IotlbGuard<'a>
        = Translated<T::Session<'a>>
    where
        T: 'a;

    /// Translates a range of at most 4 GiB.
    ///
    /// # Errors
    /// Where the guest's tables do not allow the access; the guest has a fault record of the first
    /// page then. Also where the range is too long, wraps, or is scattered over more than 65536
    /// stretches of memory.
    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Self::IotlbGuard<'_>>, Error> {
        // Before the first page is looked up, so that all of them hold until the guard goes.
        let session = self.model.session();
        let (from, iotlb) = if length == 0 {
            // Nothing is accessed, which needs no rights, but a look-up wants a mapping around it.
            let mut nothing = Iotlb::new();
            nothing.set_mapping(GuestAddress(0), GuestAddress(0), 2, access)?;
            (GuestAddress(1), nothing)
        } else {
            (iova, self.pages(iova.0, length as u64, access)?)
        };
        let translated = Translated {
            iotlb,
            _session: session,
        };
        Iotlb::lookup(translated, from, length, access)
            .map_err(|fails| cannot(iova.0, length as u64, format!("unresolved: {fails:?}")))
    }
}

/// The address space of one requester over guest memory whose map may change: a
/// [`GuestAddressSpace`] for devices that ask for the memory anew at each piece of work.
///
/// What [`memory`](GuestAddressSpace::memory) gives sees the map of that moment.
pub struct Space<A, T> {
    ram: A,
    behind: Behind<T>,
}

impl<A, T> Space<A, T> {
    /// What `behind` reaches in `ram`.
    pub const fn new(ram: A, behind: Behind<T>) -> Self {
        Self { ram, behind }
    }
}

impl<A: Clone, T> Clone for Space<A, T> {
    fn clone(&self) -> Self {
        Self::new(self.ram.clone(), self.behind.clone())
    }
}

impl<A, T> fmt::Debug for Space<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("behind", &self.behind)
            .finish_non_exhaustive()
    }
}

impl<A, T> GuestAddressSpace for Space<A, T>
where
    A: GuestAddressSpace<M: GuestMemoryBackend<R: GuestMemoryRegion<B: Default>> + Clone>,
    T: Model,
{
    type M = IommuMemory<A::M, Behind<T>>;
    type T = Arc<Self::M>;

    fn memory(&self) -> Self::T {
        let map = A::M::clone(&self.ram.memory());
        Arc::new(IommuMemory::new(
            map,
            self.behind.clone(),
            true,
            Default::default(),
        ))
    }
}

#[cfg(test)]
mod tests;
