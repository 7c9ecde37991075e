//! A resolver that others reach while a pump serves with it.

use iopf::engine::{Group, Pages, Stray, Verdict};
use iopf::resolve::{Decision, Resolver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A resolver behind a lock: clones are the same resolver. One goes to the pump, another stays with
/// whoever decides later: brings a guest's answers back, lets a stalled device go, tells that
/// a crashed one is up again.
///
/// The pump waits for the lock, so it is to be held for as long as a look takes, and never while
/// the pump is waited for.
#[derive(Debug, Default)]
pub struct Shared<R>(Arc<Mutex<R>>);

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Shared<R> {
    /// Shares `resolver`.
    pub fn new(resolver: R) -> Self {
        Self(Arc::new(Mutex::new(resolver)))
    }

    /// The resolver, for as long as the guard lives. A resolver that panicked is given as it was
    /// left; a pump does not ask it any more.
    pub fn lock(&self) -> MutexGuard<'_, R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Resolver> Resolver for Shared<R> {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        self.lock().group(group, pages)
    }

    fn stray(&mut self, stray: &Stray) -> Verdict {
        self.lock().stray(stray)
    }
}
