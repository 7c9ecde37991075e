//! What became of every fault, counted exactly.

use super::{DeviceId, Verdict};
use core::ops::{AddAssign, Sub};

/// Faults that did not make it to an answer or a verdict of a resolver, in pages and records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Lost before they were reported: the hardware or kernel queue overflowed. Stops at
    /// [`u64::MAX`].
    pub lost: u64,
    /// Reported and not taken: no handler, no credit, no memory, or an unknown device.
    pub refused: u64,
    /// Partial pages taken and dropped: overflow, detach, removal, deadline.
    pub discarded: u64,
    /// Unrecoverable faults dropped because the guest's tables translate the access by now.
    pub vanished: u64,
}

impl Losses {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let lost = self.lost.saturating_add(self.refused);
        lost.saturating_add(self.discarded)
            .saturating_add(self.vanished)
    }
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        // The only count that comes from outside, in steps of any size.
        self.lost = self.lost.saturating_add(other.lost);
        self.refused += other.refused;
        self.discarded += other.discarded;
        self.vanished += other.vanished;
    }
}

impl Sub for Losses {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            lost: self.lost - other.lost,
            refused: self.refused - other.refused,
            discarded: self.discarded - other.discarded,
            vanished: self.vanished - other.vanished,
        }
    }
}

/// Verdicts on unrecoverable faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// [`Verdict::Logged`].
    pub logged: u64,
    /// [`Verdict::Recovered`].
    pub recovered: u64,
    /// [`Verdict::Injected`].
    pub injected: u64,
    /// [`Verdict::Vanished`].
    pub vanished: u64,
    /// [`Verdict::Ignored`].
    pub ignored: u64,
    /// [`Verdict::Unhandled`].
    pub unhandled: u64,
}

impl Verdicts {
    pub(super) fn add(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Logged => &mut self.logged,
            Verdict::Recovered => &mut self.recovered,
            Verdict::Injected => &mut self.injected,
            Verdict::Vanished => &mut self.vanished,
            Verdict::Ignored => &mut self.ignored,
            Verdict::Unhandled => &mut self.unhandled,
        } += 1;
    }
}

impl AddAssign for Verdicts {
    fn add_assign(&mut self, other: Self) {
        self.logged += other.logged;
        self.recovered += other.recovered;
        self.injected += other.injected;
        self.vanished += other.vanished;
        self.ignored += other.ignored;
        self.unhandled += other.unhandled;
    }
}

/// The books of a device, or of the whole engine, in pages and records.
///
/// At any time `reported == completed + losses.refused + losses.discarded + held`;
/// `losses.lost` was never reported and `losses.vanished` is part of `completed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to [`report`](super::Engine::report).
    pub reported: u64,
    /// Answered and fetched, or judged.
    pub completed: u64,
    /// In the engine now: partial, waiting, or answered and not fetched.
    pub held: u64,
    /// Groups answered, and unrecoverable faults given up, because their deadline passed.
    pub late: u64,
    /// What got lost.
    pub losses: Losses,
    /// What was decided about unrecoverable faults.
    pub verdicts: Verdicts,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.reported += other.reported;
        self.completed += other.completed;
        self.held += other.held;
        self.late += other.late;
        self.losses += other.losses;
        self.verdicts += other.verdicts;
    }
}

/// Losses since the last report of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossReport {
    /// The device; `None`: devices that have left, or were never known.
    pub device: Option<DeviceId>,
    /// How many since the last report.
    pub losses: Losses,
}
