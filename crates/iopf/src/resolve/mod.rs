//! Resolvers: who decides about a fault.
//!
//! [`serve`] hands what the engine delivers to a [`Resolver`] and its decision back. A resolver
//! that cannot decide at once keeps the handle, says [`Decision::Later`], and calls
//! [`Engine::answer`] when it can.
//!
//! | resolver | what it does |
//! |---|---|
//! | [`LogAndDeny`] | nothing is resolvable, everything is told |
//! | [`Recover`] | a crash starts one recovery, however many faults it throws |
//! | [`StallAndInspect`] | the device stands still and is looked at, then it is resumed or terminated |
//! | [`AddressSpace`] | the rights of a mapping decide, a missing page is populated (Linux SVA) |
//! | [`Injector`] | the guest decides: its virtual IOMMU is told, in the guest's own terms |
//! | [`Forward`] | a user decides: it reads and writes as with iommufd's fault descriptor |

mod address_space;
mod deny;
mod forward;
mod inject;
mod recover;
mod stall;

pub use address_space::{AddressSpace, Mappings, Unmappable};
pub use deny::LogAndDeny;
pub use forward::{ANSWER, BadAddress, Forward, RECORD, ReadError, WriteError};
pub use inject::{Attempt, Inject, Injected, Injector, NotQueued};
pub use recover::Recover;
pub use stall::{Case, Course, Inspect, StallAndInspect};

use crate::Response;
use crate::engine::{Delivery, Engine, Group, Pages, Stray, Tick, Verdict};

/// What a resolver decided about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This is the answer.
    Answer(Response),
    /// The answer comes later, through [`Engine::answer`]; the resolver keeps the handle.
    Later,
    /// As [`Later`](Self::Later), and the group is the resolver's for good: see
    /// [`Engine::dequeue`].
    TakeOver,
    /// The resolver cannot take it: see [`Engine::refuse`].
    Refuse,
}

/// Decides about faults.
///
/// Called from one thread, a fault at a time, while the engine is borrowed: it must not block.
pub trait Resolver {
    /// Decides about a page request group.
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision;

    /// Decides about an unrecoverable fault.
    fn stray(&mut self, stray: &Stray) -> Verdict;
}

/// Serves at most `most` deliveries of `engine` with `resolver`; returns how many there were.
///
/// A [`Response::Failure`] that the way back to the device cannot say becomes
/// [`Response::Invalid`].
pub fn serve(
    engine: &mut Engine,
    now: Tick,
    resolver: &mut (impl Resolver + ?Sized),
    most: usize,
) -> usize {
    for served in 0..most {
        let Some(delivery) = engine.poll_fault() else {
            return served;
        };
        // What was just delivered waits, so that the only refusal left is of a code that the
        // wire lacks.
        match delivery {
            Delivery::Group(group) => {
                let Some(pages) = engine.pages(group.handle) else {
                    continue;
                };
                let said = match resolver.group(&group, pages) {
                    Decision::Answer(response) => engine
                        .answer(now, group.handle, response)
                        .or_else(|_| engine.answer(now, group.handle, Response::Invalid)),
                    Decision::Refuse => engine.refuse(now, group.handle),
                    Decision::Later => Ok(()),
                    Decision::TakeOver => engine.dequeue(group.handle),
                };
                debug_assert_eq!(said, Ok(()));
            }
            Delivery::Stray(stray) => {
                let said = engine.judge(now, stray.handle, resolver.stray(&stray));
                debug_assert_eq!(said, Ok(()));
            }
        }
    }
    most
}

#[cfg(test)]
mod tests;
