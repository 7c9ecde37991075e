//! Guest memory as a walker sees it.

use core::sync::atomic::{AtomicU64, Ordering};
use iopf::Gpa;

/// Guest memory has nothing at this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory at {0}")]
pub struct Unreachable(pub Gpa);

/// All a walker may know of guest memory.
///
/// Each word is loaded in one access, because the guest may rewrite it meanwhile, and comes back
/// in the host's byte order. An implementation may be called from several threads.
pub trait TableMem {
    /// Loads the 8-byte word at `at`, a multiple of 8.
    ///
    /// # Errors
    /// When no memory backs any byte of it.
    fn load(&self, at: Gpa) -> Result<u64, Unreachable>;

    /// Loads an entry of `N` words at `at`, a multiple of 8.
    ///
    /// # Errors
    /// When no memory backs any byte of the entry: it is read as a whole or not at all.
    #[inline(always)]
    fn load_words<const N: usize>(&self, at: Gpa) -> Result<[u64; N], Unreachable> {
        let mut words = [0; N];
        let mut from = at;
        for word in &mut words {
            *word = self.load(from)?;
            from = Gpa(from.0.wrapping_add(8));
        }
        Ok(words)
    }
}

/// Guest memory that accessed and dirty bits can be written to.
pub trait TableMemMut: TableMem {
    /// Replaces the word at `at` by `new` if it still is `old`, in one atomic access; says whether
    /// it did.
    ///
    /// # Errors
    /// When no writable memory backs the word.
    fn compare_exchange(&self, at: Gpa, old: u64, new: u64) -> Result<bool, Unreachable>;
}

impl<M: TableMem + ?Sized> TableMem for &M {
    #[inline]
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        (**self).load(at)
    }
    #[inline(always)]
    fn load_words<const N: usize>(&self, at: Gpa) -> Result<[u64; N], Unreachable> {
        (**self).load_words(at)
    }
}

impl<M: TableMemMut + ?Sized> TableMemMut for &M {
    #[inline]
    fn compare_exchange(&self, at: Gpa, old: u64, new: u64) -> Result<bool, Unreachable> {
        (**self).compare_exchange(at, old, new)
    }
}

/// Memory that is a run of words, from one address on.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// Where the first word lies, a multiple of 8.
    pub base: Gpa,
    /// The words, in the host's byte order.
    pub words: &'a [AtomicU64],
}

impl Words<'_> {
    #[inline]
    fn word(&self, at: Gpa) -> Result<&AtomicU64, Unreachable> {
        let index = usize::try_from(at.0.wrapping_sub(self.base.0) >> 3);
        index
            .ok()
            .and_then(|i| self.words.get(i))
            .ok_or(Unreachable(at))
    }
}

impl TableMem for Words<'_> {
    #[inline]
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        Ok(self.word(at)?.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, at: Gpa) -> Result<[u64; N], Unreachable> {
        let first = usize::try_from(at.0.wrapping_sub(self.base.0) >> 3).ok();
        let words = first
            .and_then(|first| self.words.get(first..first.checked_add(N)?))
            .ok_or(Unreachable(at))?;
        let mut entry = [0; N];
        for (to, from) in entry.iter_mut().zip(words) {
            *to = from.load(Ordering::Acquire);
        }
        Ok(entry)
    }
}

impl TableMemMut for Words<'_> {
    #[inline]
    fn compare_exchange(&self, at: Gpa, old: u64, new: u64) -> Result<bool, Unreachable> {
        let swap = self
            .word(at)?
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        Ok(swap.is_ok())
    }
}
