//! Guest memory: the one file that adapts `vm_memory` for walks, queues and DMA.
//!
//! A load through `GuestMemoryMmap` searches for the region each time. A [`View`] remembers the
//! region it used last, which for page tables is nearly always the one of the next load.

use iommu_walk::{TableMem, TableMemMut, Unreachable};
use iopf::Gpa;
use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::bitmap::Bitmap;
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestMemoryRegion, VolatileMemory,
};

/// The memory of a guest, whose map may change while the machine runs: anything that implements
/// [`GuestAddressSpace`], such as `Arc<GuestMemoryMmap>` or `GuestMemoryAtomic<GuestMemoryMmap>`.
#[derive(Clone, Debug)]
pub struct GuestRam<A>(A);

impl<A: GuestAddressSpace<M: GuestMemoryBackend>> GuestRam<A> {
    /// Wraps `space`.
    pub const fn new(space: A) -> Self {
        Self(space)
    }

    /// What is wrapped.
    pub const fn space(&self) -> &A {
        &self.0
    }

    /// Runs `body` over the memory map of this moment.
    ///
    /// A walk uses one view from its first load to its last. The map it sees stays alive, so a
    /// region removed meanwhile is still read, as hardware in flight would.
    ///
    /// An `Arc` of a map costs nothing; another source costs what its
    /// [`memory`](GuestAddressSpace::memory) does.
    #[inline]
    pub fn view<T>(&self, body: impl FnOnce(&View<'_, A::M>) -> T) -> T
    where
        A: 'static,
    {
        // An `Arc` holds the same map at any moment, so there is nothing to keep alive: counting it
        // up and down would take two atomic operations. The test is decided at compile time.
        if let Some(map) = (&self.0 as &dyn Any).downcast_ref::<Arc<A::M>>() {
            return body(&View::new(map));
        }
        let memory = self.0.memory();
        body(&View::new(&memory))
    }

    /// Reads `data.len()` bytes from `at` on, for a device or a queue. Not one access: the guest may
    /// change the bytes meanwhile.
    ///
    /// # Errors
    /// When no memory backs all of the range; `data` may have been changed.
    pub fn read(&self, at: Gpa, data: &mut [u8]) -> Result<(), Unreachable> {
        let memory = self.0.memory();
        Bytes::read_slice(&*memory, data, GuestAddress(at.0)).map_err(|_| Unreachable(at))
    }

    /// Writes `data` from `at` on, and marks the pages dirty where the map tracks that.
    ///
    /// # Errors
    /// When no memory backs all of the range; a part may have been written.
    pub fn write(&self, at: Gpa, data: &[u8]) -> Result<(), Unreachable> {
        let memory = self.0.memory();
        Bytes::write_slice(&*memory, data, GuestAddress(at.0)).map_err(|_| Unreachable(at))
    }

    /// Writes 32 bits at `at`, a multiple of 4, in one access, and marks the page dirty where the map
    /// tracks that.
    ///
    /// # Errors
    /// When no memory is there, or `at` is no multiple of 4; nothing has been written.
    pub fn store_half(&self, at: Gpa, value: u32) -> Result<(), Unreachable> {
        let memory = self.0.memory();
        let stored = memory.store(value.to_le(), GuestAddress(at.0), Ordering::Release);
        stored.map_err(|_| Unreachable(at))
    }

    /// Writes whole words at `at`, a multiple of 8, and marks the page dirty where the map tracks that.
    /// The first word is written last: whoever finds it finds the others.
    ///
    /// # Errors
    /// When no memory backs all of the words, or `at` is no multiple of 8; nothing has been written.
    #[inline]
    pub fn store_words<const N: usize>(&self, at: Gpa, words: [u64; N]) -> Result<(), Unreachable>
    where
        A: 'static,
    {
        self.view(|view| view.store_at(at, words))
            .ok_or(Unreachable(at))
    }
}

/// One memory map, with the region that was used last at hand. For one thread.
#[derive(Debug)]
pub struct View<'a, M: GuestMemoryBackend> {
    memory: &'a M,
    last: Cell<Option<Region<'a, M::R>>>,
}

#[derive(Debug)]
struct Region<'a, R> {
    base: u64,
    len: u64,
    memory: &'a R,
}

impl<R> Clone for Region<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Region<'_, R> {}

impl<R> Region<'_, R> {
    /// Offset of `len` bytes at `at`, where all of them are in the region.
    #[inline]
    fn offset(&self, at: Gpa, len: u64) -> Option<usize> {
        let offset = at.0.wrapping_sub(self.base);
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| usize::try_from(offset).ok())?
    }
}

impl<'a, M: GuestMemoryBackend> View<'a, M> {
    /// A view of `memory`.
    pub const fn new(memory: &'a M) -> Self {
        Self {
            memory,
            last: Cell::new(None),
        }
    }

    /// The map.
    pub const fn memory(&self) -> &'a M {
        self.memory
    }

    #[inline]
    fn region(&self, at: Gpa, len: u64) -> Option<(&'a M::R, usize)> {
        if let Some(last) = self.last.get()
            && let Some(offset) = last.offset(at, len)
        {
            return Some((last.memory, offset));
        }
        self.search(at, len)
    }

    #[cold]
    fn search(&self, at: Gpa, len: u64) -> Option<(&'a M::R, usize)> {
        let memory = self.memory.find_region(GuestAddress(at.0))?;
        let region = Region {
            base: memory.start_addr().0,
            len: memory.len(),
            memory,
        };
        self.last.set(Some(region));
        Some((memory, region.offset(at, len)?))
    }

    #[inline]
    fn load_at<const N: usize>(&self, at: Gpa) -> Option<[u64; N]> {
        let (region, offset) = self.region(at, (N * size_of::<u64>()) as u64)?;
        let bytes = region.as_volatile_slice().ok()?;
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            let atomic: &AtomicU64 = bytes
                .get_atomic_ref(offset + index * size_of::<u64>())
                .ok()?;
            *word = u64::from_le(atomic.load(Ordering::Acquire));
        }
        Some(words)
    }

    #[inline]
    fn store_at<const N: usize>(&self, at: Gpa, words: [u64; N]) -> Option<()> {
        let (region, offset) = self.region(at, (N * size_of::<u64>()) as u64)?;
        let bytes = region.as_volatile_slice().ok()?;
        for (index, word) in words.iter().enumerate().rev() {
            let atomic: &AtomicU64 = bytes
                .get_atomic_ref(offset + index * size_of::<u64>())
                .ok()?;
            atomic.store(word.to_le(), Ordering::Release);
        }
        // An atomic reference goes round the dirty tracking of `vm_memory`.
        bytes.bitmap().mark_dirty(offset, N * size_of::<u64>());
        Some(())
    }

    fn compare_exchange_at(&self, at: Gpa, old: u64, new: u64) -> Option<bool> {
        let (region, offset) = self.region(at, size_of::<u64>() as u64)?;
        let bytes = region.as_volatile_slice().ok()?;
        let word: &AtomicU64 = bytes.get_atomic_ref(offset).ok()?;
        let (old, new) = (old.to_le(), new.to_le());
        let swapped = word
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if swapped {
            // An atomic reference goes round the dirty tracking of `vm_memory`.
            bytes.bitmap().mark_dirty(offset, size_of::<u64>());
        }
        Some(swapped)
    }
}

impl<M: GuestMemoryBackend> TableMem for View<'_, M> {
    #[inline]
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        self.load_words::<1>(at).map(|[word]| word)
    }

    #[inline]
    fn load_words<const N: usize>(&self, at: Gpa) -> Result<[u64; N], Unreachable> {
        self.load_at(at).ok_or(Unreachable(at))
    }
}

impl<M: GuestMemoryBackend> TableMemMut for View<'_, M> {
    fn compare_exchange(&self, at: Gpa, old: u64, new: u64) -> Result<bool, Unreachable> {
        self.compare_exchange_at(at, old, new)
            .ok_or(Unreachable(at))
    }
}

#[cfg(test)]
mod tests;
