//! What each thread remembers of one unit, so that its next miss takes no lock.
//!
//! A memo is a copy of what lies behind the translator's lock, good for one generation of it. The
//! translator moves its generation under that lock with every change, before the sessions under way
//! are waited for; a session that finds the old generation is one that the wait waits for.

use crate::arch::Tables;
use iopf::{Pasid, Rid};

/// Address spaces that a thread remembers: a device thread serves few.
const SPACES: usize = 8;

/// A unit and a generation of it. Zero is no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edition {
    pub(crate) translator: u64,
    pub(crate) generation: u64,
}

/// The unit that this thread met last.
#[derive(Debug)]
pub struct Memo<X: Tables> {
    edition: Edition,
    walk: Option<X::Walk>,
    spaces: [Option<(Key, X::Space)>; SPACES],
}

/// PASID in 19:0, "has a PASID" in 20, requester in 52:21.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u64);

impl Key {
    #[inline]
    fn new(requester: Rid, pasid: Option<Pasid>) -> Self {
        let pasid = pasid.map_or(0, |pasid| 1 << 20 | u64::from(pasid.get()));
        Self(pasid | u64::from(requester.0) << 21)
    }

    #[inline]
    const fn place(self) -> usize {
        // Functions of a device differ in the lowest bits of the requester.
        let [low, ..] = (self.0 ^ self.0 >> 21).to_le_bytes();
        low as usize % SPACES
    }
}

/// Runs `body` over this thread's memo; `None` where guest memory comes back here in the middle of a
/// walk.
#[inline]
pub(crate) fn with<X: Tables, T>(body: impl FnOnce(&mut Memo<X>) -> T) -> Option<T> {
    X::memo().with(|memo| Some(body(&mut *memo.try_borrow_mut().ok()?)))
}

impl<X: Tables> Memo<X> {
    /// Remembers nothing.
    pub(crate) const NEW: Self = Self {
        edition: Edition {
            translator: 0,
            generation: 0,
        },
        walk: None,
        spaces: [None; SPACES],
    };

    /// The unit, if this is the edition asked for.
    #[inline]
    pub(crate) fn walk(&self, edition: Edition) -> Option<&X::Walk> {
        self.walk.as_ref().filter(|_| self.edition == edition)
    }

    /// The address space of untranslated requests. Ask only what [`Self::walk`] has found current.
    #[inline]
    pub(crate) fn space(&self, requester: Rid, pasid: Option<Pasid>) -> Option<&X::Space> {
        let wanted = Key::new(requester, pasid);
        match self.spaces.get(wanted.place()) {
            Some(Some((key, space))) if *key == wanted => Some(space),
            _ => None,
        }
    }

    /// Copies the unit of `edition`, and forgets what is of another.
    pub(crate) fn renew(&mut self, edition: Edition, walk: &X::Walk) {
        if self.edition != edition {
            *self = Self {
                edition,
                walk: Some(*walk),
                spaces: [None; SPACES],
            };
        }
    }

    /// Remembers an address space of this edition.
    pub(crate) fn add(&mut self, requester: Rid, pasid: Option<Pasid>, space: &X::Space) {
        let key = Key::new(requester, pasid);
        if let Some(place) = self.spaces.get_mut(key.place()) {
            *place = Some((key, *space));
        }
    }
}
