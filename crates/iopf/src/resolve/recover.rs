//! The driver that brings a crashed device back.

use super::{Decision, Resolver};
use crate::Response;
use crate::engine::{DeviceId, Group, Pages, Stray, Verdict};
use alloc::collections::BTreeSet;

/// Calls for a recovery once per crash: the first unrecoverable fault of a device starts it, those
/// that follow belong to the same crash until [`Recover::recovered`]. Page requests are denied.
///
/// It remembers the devices under recovery, at most as many as the engine has.
#[derive(Debug)]
pub struct Recover<F> {
    start: F,
    down: BTreeSet<DeviceId>,
}

impl<F: FnMut(&Stray)> Recover<F> {
    /// `start` is called with the first fault of a crash; it must not block.
    pub fn new(start: F) -> Self {
        Self {
            start,
            down: BTreeSet::new(),
        }
    }

    /// `device` is back, or has left: its next fault is another crash.
    pub fn recovered(&mut self, device: DeviceId) {
        self.down.remove(&device);
    }
}

impl<F: FnMut(&Stray)> Resolver for Recover<F> {
    fn group(&mut self, _: &Group, _: Pages<'_>) -> Decision {
        Decision::Answer(Response::Invalid)
    }

    fn stray(&mut self, stray: &Stray) -> Verdict {
        if self.down.insert(stray.device) {
            (self.start)(stray);
        }
        Verdict::Recovered
    }
}
