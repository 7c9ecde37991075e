//! The monotonic clock, in the engine's unit.

use iopf::engine::Tick;
use nix::time::{ClockId, clock_gettime};
use rustix::event::Timespec;

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
    // By the C library: std would cost twice as much, and rustix does not run under valgrind here. It
    // cannot fail: every Linux has this clock.
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        return 0;
    };
    // Never negative.
    let (seconds, nanos) = (
        time.tv_sec().cast_unsigned(),
        time.tv_nsec().cast_unsigned(),
    );
    seconds.wrapping_mul(SECOND).wrapping_add(nanos)
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
