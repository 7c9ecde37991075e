//! The monotonic clock, in the engine's unit.

use iopf::engine::Tick;
use rustix::time::{ClockId, Timespec, clock_gettime};

const SECOND: u64 = 1_000_000_000;

/// Time since the clock was made. It stands still while the machine sleeps (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// When it was made, in nanoseconds of the kernel's clock.
    origin: u64,
}

/// The kernel's clock in nanoseconds, for 584 years from its start.
#[inline]
fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // It is never negative.
    time.tv_sec
        .cast_unsigned()
        .wrapping_mul(SECOND)
        .wrapping_add(time.tv_nsec.cast_unsigned())
}

impl Clock {
    /// A clock that starts at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: monotonic(),
        }
    }

    /// The time.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Tick {
        Tick(monotonic().wrapping_sub(self.origin))
    }

    /// A time of this clock as the kernel's; more than 584 years count as 584.
    pub(crate) fn timespec(&self, time: Tick) -> Timespec {
        let nanos = self.origin.saturating_add(time.0);
        Timespec {
            tv_sec: (nanos / SECOND).cast_signed(),
            tv_nsec: (nanos % SECOND).cast_signed(),
        }
    }
}
