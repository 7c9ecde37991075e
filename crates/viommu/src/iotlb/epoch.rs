//! What was invalidated since a walk began.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release, SeqCst},
    fence,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many invalidations are remembered by what they covered. A fill that saw more go by is
/// refused whatever they were.
const REMEMBERED: u64 = 32;

/// Slots of the log: twice the window, so that a slot under a reader's eyes is overwritten only
/// after the count has left the window, which the reader then notices.
const SLOTS: usize = 64;

/// A point in the history of invalidations, taken before a walk.
///
/// Take it before *anything* the walk depends on is read, the cached context and PASID entries
/// included: an invalidation after that point refuses the insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

/// The log of invalidations. A covered set is a word the owner packs and understands.
///
/// The count is odd while an invalidation is under way and grows by two with each.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct History {
    count: AtomicU64,
    covered: [AtomicU64; SLOTS],
    one_at_a_time: Mutex<()>,
}

/// An invalidation under way.
#[derive(Debug)]
pub(crate) struct Open<'a> {
    history: &'a History,
    /// The count before it.
    pub(crate) before: u64,
    _one_at_a_time: MutexGuard<'a, ()>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let after = self.before.wrapping_add(2);
        self.history.count.store(after, SeqCst);
    }
}

impl Epoch {
    /// The count of invalidations, odd while one is under way.
    pub(crate) const fn count(self) -> u64 {
        self.0
    }

    /// Invalidations that had begun.
    const fn begun(self) -> u64 {
        self.0.wrapping_add(1) >> 1
    }
}

impl History {
    pub(crate) const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            covered: [const { AtomicU64::new(0) }; SLOTS],
            one_at_a_time: Mutex::new(()),
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> Epoch {
        Epoch(self.count.load(SeqCst))
    }

    /// Opens an invalidation of `covered`. From here on no fill of an earlier epoch that it covers
    /// is accepted. Hold the guard while the entries are removed.
    pub(crate) fn open(&self, covered: u64) -> Open<'_> {
        // A poisoned lock guards no data: the log is atomic.
        let guard = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        if let Some(slot) = self.covered.get(index(before.begun())) {
            slot.store(covered, Release);
        }
        self.count.store(before.0.wrapping_add(1), SeqCst);
        Open {
            history: self,
            before: before.0,
            _one_at_a_time: guard,
        }
    }

    /// Whether no invalidation that began after `then` satisfies `covers`.
    pub(crate) fn unchanged(&self, then: Epoch, covers: impl Fn(u64) -> bool) -> bool {
        let passed = self.now().begun().wrapping_sub(then.begun());
        if passed > REMEMBERED {
            return false;
        }
        for back in 0..passed {
            let at = index(then.begun().wrapping_add(back));
            let slot = self.covered.get(at);
            if slot.is_none_or(|slot| covers(slot.load(Acquire))) {
                return false;
            }
        }
        // Had a slot been overwritten, the count behind it (ordered by the fence) would have left
        // the window.
        fence(Acquire);
        self.now().begun().wrapping_sub(then.begun()) <= REMEMBERED
    }
}

const fn index(count: u64) -> usize {
    count.to_le_bytes()[0] as usize % SLOTS
}
