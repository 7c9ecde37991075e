//! Sessions: the stretches of time in which a thread may use translations.
//!
//! An IOMMU answers an invalidation wait only when no access through an invalidated translation is
//! under way any more. A thread opens a session ([`Sessions::run`]) before it looks a translation
//! up and closes it after the access; the invalidator withdraws the translation first and then
//! waits ([`Sessions::quiesce`]) for the sessions that it finds open. Sessions opened later find
//! the translation gone.
//!
//! # Cost
//! Each thread has a cache line of its own in each [`Sessions`]. Opening stores to it and passes one
//! full fence, the only expensive step; closing is a plain store. Nothing is shared but a counter
//! that only invalidators write.
//!
//! # Why neither side misses the other
//! A thread *announces* itself (store to its line), *fences*, then *looks up*. The invalidator
//! *withdraws* (stores to the IOTLB), *fences*, then *inspects* (load of the line). The two fences
//! are sequentially consistent, so one is first. If the thread's is, the inspection sees the
//! announcement and waits. If the invalidator's is, the look-up sees the withdrawal. Acquire and
//! release alone would allow both to miss, as a store may sit in a store buffer while a later load
//! goes ahead.
//!
//! A session's end is a release store that the inspection acquires, so its accesses happen before
//! the end of the wait. The announcement is the number of the invalidator's period: a session that
//! announces the new one acquired it from the invalidator and so sees the withdrawal; the wait
//! passes over it, and threads that go from session to session cannot prolong it.
//!
//! # What must not be done inside a session
//! Waiting for an invalidation of the same IOMMU: a thread cannot wait for itself. That is detected
//! ([`InsideSession`]). Nor may a session wait for a lock that another thread holds across its
//! invalidation; that cannot be detected and hangs both.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{hint, thread};

/// The thread that asks to wait is itself inside a session, which the wait would wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an invalidation cannot be waited for from inside a translation session")]
pub struct InsideSession;

/// A thread's line. Only the thread itself writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Slot {
    /// The period in which the thread went inside in bits 63:16, [`LENT`] in 15, and how many
    /// sessions of it are open in 14:0. Zero outside.
    word: AtomicU64,
    /// The number to give back at the end, where [`LENT`] is set.
    lent: AtomicUsize,
}

const DEPTH: u64 = 0x7fff;

/// The session is of a thread that is ending: its number is for this session alone.
const LENT: u64 = 0x8000;

impl Slot {
    const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            lent: AtomicUsize::new(NONE),
        }
    }

    fn open_before(&self, period: u64) -> bool {
        let word = self.word.load(Acquire);
        word != 0 && word >> 16 < period
    }

    /// Opens one more session of a thread that is inside.
    #[cold]
    fn nest(&self, word: u64) {
        assert!(
            word & DEPTH < DEPTH,
            "32767 sessions of one thread are open"
        );
        self.word.store(word + 1, Release);
    }

    /// Closes one session of several, or one with a number of its own. Apart, so that the common case
    /// is a branch, which is foreseen, and not a choice of values, which waits for the load.
    #[cold]
    fn unnest(&self, word: u64) {
        if word & LENT == 0 {
            self.word.store(word - 1, Release);
            return;
        }
        let number = self.lent.load(Relaxed);
        self.word.store(0, Release);
        Number::give_back(number);
    }
}

/// Threads whose slot is in the structure itself. Block `k` of the others has `FIRST << k` slots.
const FIRST: usize = 32;

/// Enough blocks for more threads than Linux has numbers for (2²²).
const BLOCKS: usize = 18;

/// The sessions of one IOMMU.
///
/// A slot of 128 bytes for each thread that was ever alive at the same time as the others; numbers
/// of finished threads are used again.
#[derive(Debug)]
pub struct Sessions {
    // Counts waits, from 1.
    period: AtomicU64,
    first: [Slot; FIRST],
    more: [OnceLock<Box<[Slot]>>; BLOCKS],
    // Held while a block is made, and passed through before blocks are listed.
    growth: Mutex<()>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

/// An open session, which ends when this is dropped. Belongs to its thread.
///
/// Leaking it makes every later wait of the same IOMMU hang.
#[derive(Debug)]
pub struct Session<'a> {
    slot: &'a Slot,
    _not_send: PhantomData<*const ()>,
}

impl Drop for Session<'_> {
    #[inline]
    fn drop(&mut self) {
        let word = self.slot.word.load(Relaxed);
        if word & (DEPTH | LENT) <= 1 {
            self.slot.word.store(0, Release);
        } else {
            self.slot.unnest(word);
        }
    }
}

impl Sessions {
    /// No sessions.
    #[must_use]
    pub fn new() -> Self {
        Self {
            period: AtomicU64::new(1),
            first: [const { Slot::new() }; FIRST],
            more: [const { OnceLock::new() }; BLOCKS],
            growth: Mutex::new(()),
        }
    }

    /// Opens a session of this thread. Sessions nest, and end in any order: a device may translate a
    /// second address while it uses the first.
    ///
    /// Keep it short: an invalidation by the guest waits for it.
    #[inline]
    #[must_use = "the session ends when this is dropped"]
    pub fn enter(&self) -> Session<'_> {
        let Some(number) = number() else {
            return self.enter_at_the_end();
        };
        let slot = self.slot(number);
        let word = slot.word.load(Relaxed);
        if word == 0 {
            self.open(slot, 1);
        } else {
            slot.nest(word);
        }
        Session {
            slot,
            _not_send: PhantomData,
        }
    }

    #[inline]
    fn open(&self, slot: &Slot, depth: u64) {
        // Release, for an inspection that sees this store and not the end of the session before.
        slot.word
            .store(self.period.load(Acquire) << 16 | depth, Release);
        fence(SeqCst);
    }

    /// Opens a session of a thread that is ending and has given its number back.
    #[cold]
    fn enter_at_the_end(&self) -> Session<'_> {
        let number = Number::take();
        let slot = self.slot(number);
        slot.lent.store(number, Relaxed);
        self.open(slot, LENT | 1);
        Session {
            slot,
            _not_send: PhantomData,
        }
    }

    /// Runs `body` inside a session of this thread; see [`Self::enter`].
    #[inline]
    pub fn run<T>(&self, body: impl FnOnce(&Session<'_>) -> T) -> T {
        body(&self.enter())
    }

    /// Whether this thread is inside a session.
    #[must_use]
    pub fn inside(&self) -> bool {
        // At a thread's end every session has a number of its own, which no other call can know.
        number().is_some_and(|number| self.slot(number).word.load(Relaxed) != 0)
    }

    /// Waits until every session has ended that was open when the call began.
    ///
    /// Withdraw translations before the call. Spins at first, then yields, then sleeps in steps of
    /// 50 µs. Sessions opened meanwhile do not prolong the wait.
    ///
    /// # Errors
    /// From inside a session, at once.
    pub fn quiesce(&self) -> Result<(), InsideSession> {
        if self.inside() {
            return Err(InsideSession);
        }
        let mut grace = self.open_now();
        let mut turns = 0u32;
        while !grace.is_over() {
            turns = turns.saturating_add(1);
            match turns {
                0..=100 => hint::spin_loop(),
                101..=200 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(50)),
            }
        }
        Ok(())
    }

    /// The sessions open now, to be asked later whether they have ended: for an invalidator that has
    /// other things to do, or that is inside a session itself.
    ///
    /// Withdraw translations before the call.
    #[must_use]
    pub fn open_now(&self) -> Grace<'_> {
        let period = self.period.fetch_add(1, AcqRel).wrapping_add(1);
        fence(SeqCst);
        let waiting_for = self.slots().filter(|slot| slot.open_before(period));
        Grace {
            waiting_for: waiting_for.collect(),
            period,
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        // A block made before this critical section is seen below. One made after it comes after
        // the caller's withdrawal, and so does every look-up of the threads that use it.
        drop(self.growth.lock().unwrap_or_else(PoisonError::into_inner));
        let more = self.more.iter().filter_map(OnceLock::get).flatten();
        self.first.iter().chain(more)
    }

    #[inline]
    fn slot(&self, number: usize) -> &Slot {
        match self.first.get(number) {
            Some(slot) => slot,
            None => self.far_slot(number - FIRST),
        }
    }

    #[cold]
    fn far_slot(&self, number: usize) -> &Slot {
        // Block k begins at FIRST * (2^k - 1).
        let block = (number / FIRST + 1).ilog2() as usize;
        let size = FIRST << block;
        let slots = self.more.get(block).map(|slots| {
            slots.get().unwrap_or_else(|| {
                let _growing = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
                slots.get_or_init(|| (0..size).map(|_| Slot::new()).collect())
            })
        });
        slots
            .and_then(|slots| slots.get(number - (size - FIRST)))
            .unwrap_or_else(|| unreachable!("more threads than the kernel has numbers for"))
    }
}

/// Sessions that were open at one moment.
#[derive(Debug)]
pub struct Grace<'a> {
    waiting_for: Vec<&'a Slot>,
    period: u64,
}

impl Grace<'_> {
    /// Whether all of them have ended. Once `true`, always `true`.
    pub fn is_over(&mut self) -> bool {
        let period = self.period;
        self.waiting_for.retain(|slot| slot.open_before(period));
        self.waiting_for.is_empty()
    }
}

/// Small numbers for the threads of this process, used again when a thread ends.
#[derive(Debug)]
struct Numbers {
    next: usize,
    free: BTreeSet<usize>,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers {
    next: 0,
    free: BTreeSet::new(),
});

/// A thread's number, given back on drop. The lock orders the last use of a slot by the old owner
/// before the first by the new one.
#[derive(Debug)]
struct Number(usize);

impl Number {
    fn take() -> usize {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.free.pop_first().unwrap_or_else(|| {
            numbers.next += 1;
            numbers.next - 1
        })
    }

    fn give_back(number: usize) {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.free.insert(number);
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        QUICK.set(NONE);
        Self::give_back(self.0);
    }
}

const NONE: usize = usize::MAX;

thread_local! {
    // The number where it is quickest to read, and the guard that gives it back.
    static QUICK: Cell<usize> = const { Cell::new(NONE) };
    static NUMBER: Number = Number(Number::take());
}

/// The number of this thread; `None` once it has given it back.
#[inline]
fn number() -> Option<usize> {
    match QUICK.get() {
        NONE => first_number(),
        quick => Some(quick),
    }
}

#[cold]
fn first_number() -> Option<usize> {
    let number = NUMBER.try_with(|number| number.0).ok()?;
    QUICK.set(number);
    Some(number)
}

#[cfg(test)]
mod tests;
