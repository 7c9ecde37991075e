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
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct History {
    count: AtomicU64,
    covered: [AtomicU64; SLOTS],
    one_at_a_time: Mutex<()>,
}

impl History {
    pub(crate) const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            covered: [const { AtomicU64::new(0) }; SLOTS],
            one_at_a_time: Mutex::new(()),
        }
    }

    pub(crate) fn now(&self) -> Epoch {
        // Sequentially consistent for the reason given in `table`: with a session open, either the
        // invalidator sees the session, or this load sees the invalidation, and with it (acquire)
        // the guest's change of its tables.
        Epoch(self.count.load(SeqCst))
    }

    /// Opens an invalidation of `covered`. From here on no fill of an earlier epoch that it covers
    /// is accepted. Hold the guard while the entries are removed.
    pub(crate) fn open(&self, covered: u64) -> MutexGuard<'_, ()> {
        // A poisoned lock guards no data: the log is atomic.
        let guard = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = self.count.load(Acquire);
        if let Some(slot) = self.covered.get(index(count)) {
            slot.store(covered, Release);
        }
        self.count.store(count.wrapping_add(1), SeqCst);
        guard
    }

    /// Whether nothing since `then` satisfies `covers`.
    pub(crate) fn unchanged(&self, then: Epoch, covers: impl Fn(u64) -> bool) -> bool {
        let now = self.count.load(SeqCst);
        if now == then.0 {
            return true;
        }
        let passed = now.wrapping_sub(then.0);
        if passed > REMEMBERED {
            return false;
        }
        for back in 0..passed {
            let at = index(then.0.wrapping_add(back));
            if self
                .covered
                .get(at)
                .is_none_or(|slot| covers(slot.load(Acquire)))
            {
                return false;
            }
        }
        // Had a slot been overwritten, the count behind it (ordered by the fence) would have left
        // the window.
        fence(Acquire);
        self.count.load(Acquire).wrapping_sub(then.0) <= REMEMBERED
    }
}

const fn index(count: u64) -> usize {
    count.to_le_bytes()[0] as usize % SLOTS
}
