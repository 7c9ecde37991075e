//! The monotonic clock, in the engine's unit.

use iopf::engine::Tick;
use std::time::{Duration, Instant};

/// Time since the clock was made. It stands still while the machine sleeps (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time. More than 584 years count as 584.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Tick {
        let time = self.0.elapsed();
        let seconds = time.as_secs().saturating_mul(1_000_000_000);
        Tick(seconds.saturating_add(u64::from(time.subsec_nanos())))
    }
}

/// From `now` to `then`; zero if that is over.
pub(crate) fn until(now: Tick, then: Tick) -> Duration {
    Duration::from_nanos(then.0.saturating_sub(now.0))
}
