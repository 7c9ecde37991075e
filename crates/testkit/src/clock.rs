//! A clock that only moves when told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time since an arbitrary start, in whole nanoseconds; it wraps after 584 years.
#[derive(Debug, Default)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// A clock that shows zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Moves it on and returns what it shows then.
    pub fn advance(&self, by: Duration) -> Duration {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let before = self.0.fetch_add(nanos, Ordering::Relaxed);
        Duration::from_nanos(before.wrapping_add(nanos))
    }
}
