//! A bounded set-associative table that is read without writing.
//!
//! # Why a reader never returns a torn value
//! Each set has a sequence number; odd means that a writer is inside (a sequence lock). A writer
//! makes the number odd, then passes a release fence, then stores the words. A reader that loaded
//! any such word passes an acquire fence before it looks at the number again. The two fences
//! synchronise, so the second look finds the odd number or a later one, and the value is thrown
//! away. A writer that had finished before the first look released the even number that the look
//! acquired, so all of its words are visible.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use std::{hint, thread};

/// Entries of a set: with the sequence number they fill two cache lines, the unit in which
/// adjacent-line prefetchers fetch.
pub(crate) const WAYS: usize = 5;

/// The second key word of an empty entry; no real key has it.
const EMPTY: u64 = u64::MAX;

/// The two words that name an entry. The second is never `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u64, pub(crate) u64);

impl Key {
    /// Multiplicative hashing: neighbouring pages fall into different sets. The high bits, which
    /// are the good ones, choose the set.
    #[inline]
    pub(crate) const fn hash(self) -> u64 {
        self.1.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.0.wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}

#[derive(Debug)]
struct Way {
    key0: AtomicU64,
    key1: AtomicU64,
    value: AtomicU64,
}

impl Way {
    const fn empty() -> Self {
        Self {
            key0: AtomicU64::new(0),
            key1: AtomicU64::new(EMPTY),
            value: AtomicU64::new(0),
        }
    }

    fn key(&self) -> Option<Key> {
        let key1 = self.key1.load(Relaxed);
        (key1 != EMPTY).then(|| Key(self.key0.load(Relaxed), key1))
    }

    fn holds(&self, key: Key) -> bool {
        self.key1.load(Relaxed) == key.1 && self.key0.load(Relaxed) == key.0
    }
}

/// The entries among which a key may be.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Set {
    sequence: AtomicU64,
    ways: [Way; WAYS],
}
const _: () = assert!(size_of::<Set>() == 128);

/// The right to change one set.
struct Locked<'a> {
    set: &'a Set,
    even: u64,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.set.sequence.store(self.even.wrapping_add(2), Release);
    }
}

impl Set {
    const fn empty() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            ways: [const { Way::empty() }; WAYS],
        }
    }

    /// The value under `key`. Writes nothing, never waits.
    #[inline(always)]
    pub(crate) fn get(&self, key: Key) -> Option<u64> {
        let sequence = self.sequence.load(Acquire);
        let way = self.ways.iter().find(|way| way.holds(key))?;
        let value = way.value.load(Relaxed);
        fence(Acquire);
        (sequence & 1 == 0 && self.sequence.load(Relaxed) == sequence).then_some(value)
    }

    fn try_lock(&self, even: u64) -> Option<Locked<'_>> {
        if even & 1 != 0 {
            return None;
        }
        self.sequence
            .compare_exchange(even, even.wrapping_add(1), SeqCst, Relaxed)
            .ok()?;
        // Keeps the stores that follow behind the odd number; see the module's text.
        fence(Release);
        Some(Locked { set: self, even })
    }

    /// Forgets what `gone` names.
    fn remove_if(&self, gone: impl Fn(Key) -> bool) {
        let matches = |way: &Way| way.key().is_some_and(&gone);
        let mut spins = 0u32;
        loop {
            let sequence = self.sequence.load(SeqCst);
            // An even number and no match is final without taking the lock: whoever locks the set
            // from here on comes later in the total order than the caller's change of epoch, sees
            // it, and does not insert what was withdrawn.
            if sequence & 1 == 0 {
                if !self.ways.iter().any(matches) {
                    return;
                }
                if let Some(locked) = self.try_lock(sequence) {
                    for way in locked.set.ways.iter().filter(|way| matches(way)) {
                        way.key1.store(EMPTY, Relaxed);
                    }
                    return;
                }
            }
            // A writer is inside for some ten stores, unless the scheduler took its processor away.
            spins += 1;
            if spins < 64 {
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    sets: Box<[Set]>,
    shift: u32,
}

impl Table {
    /// A table for at least `entries` entries, at most 2²⁰ sets.
    pub(crate) fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).clamp(2, 1 << 20).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::empty()).collect(),
            shift: 64 - sets.trailing_zeros(),
        }
    }

    /// Number of sets.
    pub(crate) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// The set for keys that hash to `at`.
    #[inline]
    pub(crate) fn set(&self, at: u64) -> Option<&Set> {
        self.sets.get(usize::try_from(at >> self.shift).ok()?)
    }

    /// The value under `key`, which hashes to `at`. Writes nothing, never waits.
    #[inline]
    pub(crate) fn get(&self, at: u64, key: Key) -> Option<u64> {
        self.set(at)?.get(key)
    }

    /// Stores `value` under `key` if `allowed` still says so once the set is locked. Gives up where
    /// another writer is in the set. Says whether it was stored.
    pub(crate) fn insert(
        &self,
        at: u64,
        key: Key,
        value: u64,
        allowed: impl FnOnce() -> bool,
    ) -> bool {
        let Some(set) = self.set(at) else {
            return false;
        };
        let Some(locked) = set.try_lock(set.sequence.load(Relaxed)) else {
            return false;
        };
        if !allowed() {
            return false;
        }
        let ways = &locked.set.ways;
        let chosen = ways
            .iter()
            .position(|way| way.holds(key))
            .or_else(|| ways.iter().position(|way| way.key().is_none()))
            // Full: the victim goes round with the number of changes.
            .unwrap_or((locked.even >> 1) as usize % WAYS);
        let Some(way) = ways.get(chosen) else {
            return false;
        };
        way.key0.store(key.0, Relaxed);
        way.key1.store(key.1, Relaxed);
        way.value.store(value, Relaxed);
        true
    }

    /// Forgets the entry under `key`.
    pub(crate) fn remove(&self, at: u64, key: Key) {
        if let Some(set) = self.set(at) {
            set.remove_if(|found| found == key);
        }
    }

    /// Forgets every entry that `gone` names. Looks at each set once.
    pub(crate) fn remove_if(&self, gone: impl Fn(Key) -> bool) {
        for set in &self.sets {
            set.remove_if(&gone);
        }
    }
}
