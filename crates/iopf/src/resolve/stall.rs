//! The driver that looks before it lets go.

use super::{Decision, Resolver};
use crate::Response;
use crate::engine::{Delivery, DeviceId, Group, Handle, Pages, Stray, Verdict};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// What is to become of a group whose device stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Somebody repaired what was wrong: the device retries ([`Response::Success`]).
    Resume,
    /// The access is given up ([`Response::Invalid`]).
    Terminate,
}

impl From<Course> for Response {
    fn from(course: Course) -> Self {
        match course {
            Course::Resume => Self::Success,
            Course::Terminate => Self::Invalid,
        }
    }
}

/// Captures the state of a device: its registers, what its page tables say of the address, …
///
/// Called from the thread that serves the engine, while the engine is borrowed: neither may block.
pub trait Inspect {
    /// What is kept of a device.
    type State;

    /// Captures a device that stands still for `group` until somebody decides.
    fn stalled(&mut self, group: &Group, pages: Pages<'_>) -> Self::State;

    /// Captures a device whose transaction is gone already. It did not wait for anybody.
    fn passed(&mut self, stray: &Stray) -> Self::State;
}

/// A fault and what the device looked like then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case<S> {
    /// The fault that opened the case. Where it is a group, the device stands still until
    /// [`StallAndInspect::decide`], or until the deadline.
    pub fault: Delivery,
    /// What was captured.
    pub state: S,
}

impl<S> Case<S> {
    /// Whose case it is.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        device(&self.fault)
    }
}

fn device(fault: &Delivery) -> DeviceId {
    match fault {
        Delivery::Group(group) => group.device,
        Delivery::Stray(stray) => stray.device,
    }
}

/// The groups that one device stands still for, oldest first.
#[derive(Debug)]
struct Stall {
    groups: Vec<Group>,
    /// Look for groups that wait no more at this many.
    prune_at: usize,
}

/// Below this many groups of a device, those that wait no more are left alone.
const FEW: usize = 16;

impl Stall {
    fn new(group: &Group) -> Self {
        Self {
            groups: alloc::vec![*group],
            prune_at: FEW,
        }
    }

    /// Whether the device still stands for any of them. The newest is the likeliest.
    fn stands(&self, pages: &Pages<'_>) -> bool {
        let mut newest = self.groups.iter().rev();
        newest.any(|group| pages.is_waiting(group.handle))
    }

    fn join(&mut self, group: &Group, pages: &Pages<'_>) {
        if self.groups.len() >= self.prune_at {
            self.groups.retain(|g| pages.is_waiting(g.handle));
            self.prune_at = self.groups.len() * 2 + FEW;
        }
        self.groups.push(*group);
    }
}

/// Stalls a device at its first page request group, captures its state, and leaves the group
/// unanswered until somebody decides.
///
/// The first group of a device opens a case ([`poll_case`](Self::poll_case)). Groups that follow
/// while the device stands belong to that case: they wait too, and are not inspected, for nothing
/// has moved. [`decide`](Self::decide) ends the stall. So does time: a group that the engine answered
/// at its deadline waits no more, a decision about it comes too late and changes nothing, and once
/// none of a case's groups waits, the next group opens another case.
///
/// An unrecoverable fault is inspected as well and judged [`Verdict::Logged`]; a second one of the
/// same device before that case was fetched is not.
///
/// It keeps at most as many cases as it was told, and as many devices stand at once. A group
/// beyond that is refused, and [`missed`](Self::missed) counts it. The groups of one device are
/// bounded by its credits in the engine.
///
/// ```
/// use iopf::engine::{Engine, Group, Pages, Policy, Stray, Tick};
/// use iopf::resolve::{Course, Inspect, StallAndInspect, serve};
///
/// struct Registers;
///
/// impl Inspect for Registers {
///     type State = String;
///
///     fn stalled(&mut self, group: &Group, pages: Pages<'_>) -> String {
///         format!("{:?} stands at {:?}", group.device, pages.map(|p| p.addr).collect::<Vec<_>>())
///     }
///
///     fn passed(&mut self, stray: &Stray) -> String {
///         format!("{:?} went past {:?}", stray.device, stray.fault.addr)
///     }
/// }
///
/// let mut engine = Engine::new(Policy::default());
/// let mut stall = StallAndInspect::new(Registers, 16);
/// // Devices are added and faults reported; see `Engine`.
/// let now = Tick(0);
/// serve(&mut engine, now, &mut stall, 32);
/// while let Some(case) = stall.poll_case() {
///     println!("{}", case.state);
///     for (handle, response) in stall.decide(case.device(), |_| Course::Terminate) {
///         // An error says that the deadline or a detach was faster.
///         let _too_late = engine.answer(now, handle, response);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct StallAndInspect<I: Inspect> {
    inspector: I,
    cases: VecDeque<Case<I::State>>,
    stalls: BTreeMap<DeviceId, Stall>,
    most: usize,
    missed: u64,
}

impl<I: Inspect> StallAndInspect<I> {
    /// Inspects with `inspector`, and keeps `most` cases; 0 counts as 1.
    pub fn new(inspector: I, most: usize) -> Self {
        Self {
            inspector,
            cases: VecDeque::new(),
            stalls: BTreeMap::new(),
            most: most.max(1),
            missed: 0,
        }
    }

    /// Who inspects.
    pub fn inspector(&mut self) -> &mut I {
        &mut self.inspector
    }

    /// The next case, oldest first.
    pub fn poll_case(&mut self) -> Option<Case<I::State>> {
        self.cases.pop_front()
    }

    /// Whether any group of `device` was held and not decided about.
    #[must_use]
    pub fn stands(&self, device: DeviceId) -> bool {
        self.stalls.contains_key(&device)
    }

    /// Faults that were not inspected for want of room.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Ends the stall of `device`: gives for each of its groups, oldest first, the handle and the
    /// answer to give with [`Engine::answer`](crate::Engine::answer). Some handles may be stale,
    /// where a deadline or a detach was faster.
    ///
    /// If somebody repaired an address space, that must be in place before.
    #[must_use = "the device waits for the answers"]
    pub fn decide(
        &mut self,
        device: DeviceId,
        mut course: impl FnMut(&Group) -> Course,
    ) -> Vec<(Handle, Response)> {
        let Some(stall) = self.stalls.remove(&device) else {
            return Vec::new();
        };
        let answer = |group: &Group| (group.handle, course(group).into());
        stall.groups.iter().map(answer).collect()
    }

    /// Room for one more case.
    fn has_room(&self) -> bool {
        self.cases.len() < self.most
    }
}

impl<I: Inspect> Resolver for StallAndInspect<I> {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        if let Some(stall) = self.stalls.get_mut(&group.device)
            && stall.stands(&pages)
        {
            stall.join(group, &pages);
            return Decision::Later;
        }
        if self.stalls.len() >= self.most {
            self.stalls.retain(|_, stall| stall.stands(&pages));
        }
        if self.stalls.len() >= self.most || !self.has_room() {
            self.missed += 1;
            return Decision::Refuse;
        }
        self.stalls.insert(group.device, Stall::new(group));
        let state = self.inspector.stalled(group, pages);
        self.cases.push_back(Case {
            fault: Delivery::Group(*group),
            state,
        });
        Decision::Later
    }

    fn stray(&mut self, stray: &Stray) -> Verdict {
        let known = |case: &Case<I::State>| matches!(&case.fault, Delivery::Stray(other) if other.device == stray.device);
        if self.has_room() && !self.cases.iter().any(known) {
            let state = self.inspector.passed(stray);
            self.cases.push_back(Case {
                fault: Delivery::Stray(*stray),
                state,
            });
        } else {
            self.missed += 1;
        }
        Verdict::Logged
    }
}

#[cfg(test)]
mod tests;
