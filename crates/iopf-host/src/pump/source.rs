//! A fault queue in a pump: when to read and write it, and whose faults it tells of.

use super::QueueId;
use super::devices::Place;
use crate::{FaultFile, FaultQueue};
use hashbrown::{HashMap, HashSet};
use iopf::engine::{DeviceId, Tick};
use rustc_hash::FxBuildHasher;

/// How often in a row a queue may be readable and bring nothing: another process's engine gave up
/// what was there, say. About a millisecond of turns, after which a pause costs less than they do.
const IN_VAIN: u16 = 1000;

/// The first and the longest pause after an error, in nanoseconds: 10 ms and 1 s.
const FIRST: u64 = 10_000_000;
const LONGEST: u64 = 1_000_000_000;

/// A queue.
#[derive(Debug)]
pub(super) struct Source<F> {
    pub(super) id: QueueId,
    pub(super) queue: FaultQueue<F>,
    pub(super) reads: Pause,
    pub(super) writes: Pause,
    /// Its first group is larger than this room in the engine, in pages.
    pub(super) needs_more_than: Option<u32>,
    pub(super) routes: Routes,
}

/// A pause after an error, and how long the next one is.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until: Option<Tick>,
    /// The last pause; 0: the last call was no error.
    delay: u64,
    /// How often in a row there was nothing, though there should have been.
    in_vain: u16,
}

impl Pause {
    #[inline]
    pub(super) fn until(&self) -> Option<Tick> {
        self.until
    }

    /// It failed: nothing is tried until the pause is over.
    #[cold]
    pub(super) fn fail(&mut self, now: Tick) {
        self.delay = (self.delay * 2).clamp(FIRST, LONGEST);
        self.until = Some(Tick(now.0.saturating_add(self.delay)));
    }

    /// It did not fail.
    #[inline]
    pub(super) fn works(&mut self) {
        (self.delay, self.in_vain) = (0, 0);
    }

    /// There was nothing, though there should have been; whether that is all right still.
    #[cold]
    pub(super) fn may_be_empty(&mut self) -> bool {
        self.in_vain = self.in_vain.saturating_add(1);
        self.in_vain <= IN_VAIN
    }

    /// Ends the pause, if it is over.
    pub(super) fn end(&mut self, now: Tick) {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
    }
}

/// A device, and where it stands among the pump's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) id: DeviceId,
    pub(super) place: Place,
}

/// Devices by the numbers that a queue has for them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    all: HashMap<u32, Route, FxBuildHasher>,
    /// Devices that were in it: groups of theirs may wait.
    were: HashSet<DeviceId, FxBuildHasher>,
    /// The one used last: most queues have one device.
    near: Option<(u32, Route)>,
}

impl Routes {
    #[inline]
    pub(super) fn find(&mut self, dev_id: u32) -> Option<Route> {
        if let Some((of, near)) = self.near
            && of == dev_id
        {
            return Some(near);
        }
        self.find_anew(dev_id)
    }

    #[inline(never)]
    fn find_anew(&mut self, dev_id: u32) -> Option<Route> {
        let found = self.all.get(&dev_id).copied()?;
        self.near = Some((dev_id, found));
        Some(found)
    }

    pub(super) fn set(&mut self, dev_id: u32, route: Route) {
        self.near = None;
        self.were.insert(route.id);
        self.all.insert(dev_id, route);
    }

    /// Whether groups of `id` may have come this way.
    pub(super) fn may_concern(&self, id: DeviceId) -> bool {
        self.were.contains(&id)
    }

    /// `id` is gone.
    pub(super) fn forget(&mut self, id: DeviceId) {
        self.near = None;
        self.were.remove(&id);
        self.all.retain(|_, route| route.id != id);
    }
}

impl<F: FaultFile> Source<F> {
    pub(super) fn new(id: QueueId, queue: FaultQueue<F>) -> Self {
        Self {
            id,
            queue,
            reads: Pause::default(),
            writes: Pause::default(),
            needs_more_than: None,
            routes: Routes::default(),
        }
    }

    /// Whether to poll and read it, with so much room in the engine. Not while answers of it cannot
    /// be written: what waits for that is bounded so.
    #[inline]
    pub(super) fn wanted(&self, room: u32) -> bool {
        room > self.needs_more_than.unwrap_or(0)
            && self.reads.until.is_none()
            && self.writes.until.is_none()
    }

    /// When it is to be tried again.
    #[inline]
    pub(super) fn due(&self) -> Option<Tick> {
        match (self.reads.until, self.writes.until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
