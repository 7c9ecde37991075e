//! Sessions of the unit, for adapters that hold translations longer than one call.

use crate::arch::{Arch, Ram};
use crate::session::Session;
use crate::unit::Unit;
use crate::vm_memory::Model;
use std::fmt;

/// A session of a unit. Invalidation waits of the guest complete after it.
pub struct OpenSession<'a, X: Arch, A: Ram> {
    unit: &'a Unit<X, A>,
    session: Option<Session<'a>>,
}

impl<X: Arch, A: Ram> fmt::Debug for OpenSession<'_, X, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenSession").field(&self.session).finish()
    }
}

impl<X: Arch, A: Ram> Drop for OpenSession<'_, X, A> {
    fn drop(&mut self) {
        self.session = None;
        // A wait that this session was in the way of.
        self.unit.resume();
    }
}

impl<X: Arch, A: Ram> Model for Unit<X, A> {
    type Session<'a>
        = OpenSession<'a, X, A>
    where
        Self: 'a;

    fn session(&self) -> OpenSession<'_, X, A> {
        OpenSession {
            unit: self,
            session: Some(self.sessions.enter()),
        }
    }
}
