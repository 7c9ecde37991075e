//! Sessions of the unit, for adapters that hold translations longer than one call.

use super::device::VtdUnit;
use crate::session::Session;
use crate::vm_memory::Model;
use std::fmt;
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

/// A session of a unit. Invalidation waits of the guest complete after it.
pub struct OpenSession<'a, A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    unit: &'a VtdUnit<A>,
    session: Option<Session<'a>>,
}

impl<A> fmt::Debug for OpenSession<'_, A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenSession").field(&self.session).finish()
    }
}

impl<A> Drop for OpenSession<'_, A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.session = None;
        // A wait that this session was in the way of.
        self.unit.resume();
    }
}

impl<A> Model for VtdUnit<A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    type Session<'a>
        = OpenSession<'a, A>
    where
        Self: 'a;

    fn session(&self) -> OpenSession<'_, A> {
        OpenSession {
            unit: self,
            session: Some(self.sessions.enter()),
        }
    }
}
