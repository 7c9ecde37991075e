//! The monotonic clock, in the engine's unit.

use crate::sys;
use iopf::engine::Tick;
use std::time::Duration;

/// Time since the clock was made. It stands still while the machine sleeps (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug)]
pub struct Clock(u64);

impl Clock {
    /// A clock that starts at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self(sys::monotonic())
    }

    /// The time. More than 584 years count as 584.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Tick {
        Tick(sys::monotonic().saturating_sub(self.0))
    }
}

/// From `now` to `then`; zero if that is over.
pub(crate) fn until(now: Tick, then: Tick) -> Duration {
    Duration::from_nanos(then.0.saturating_sub(now.0))
}
