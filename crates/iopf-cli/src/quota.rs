//! Lines that a client or a guest can cause as often as it likes: a few in an interval, then a count.

use std::collections::BTreeMap;
use std::time::Duration;

/// Lines about one function in one interval: more than a guest's boot, its firmware included, needs.
const BURST: u32 = 32;

/// The interval, as that of the faults' budgets.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
struct Quota {
    end: Duration,
    left: u32,
    /// Lines not said in this interval.
    unsaid: u64,
}

/// What each function may still say. One that says nothing for an interval takes no room.
#[derive(Debug, Default)]
pub(crate) struct Quotas(BTreeMap<String, Quota>);

impl Quotas {
    /// Whether there may be a line about `function` at time `now`; one that may not be is counted.
    pub(crate) fn take(&mut self, now: Duration, function: &str) -> bool {
        if !self.0.contains_key(function) {
            let quota = Quota {
                end: now.saturating_add(INTERVAL),
                left: BURST,
                unsaid: 0,
            };
            self.0.insert(function.to_owned(), quota);
        }
        let Some(quota) = self.0.get_mut(function) else {
            return false;
        };
        match quota.left.checked_sub(1) {
            Some(left) => quota.left = left,
            None => quota.unsaid += 1,
        }
        quota.unsaid == 0
    }

    /// Ends the intervals that are over. Gives each function that had more to say, and how many lines.
    pub(crate) fn handle_timeout(&mut self, now: Duration) -> Vec<(String, u64)> {
        let over = self.0.extract_if(.., |_, quota| quota.end <= now);
        let had_more = over.filter(|(_, quota)| quota.unsaid > 0);
        had_more.map(|(name, quota)| (name, quota.unsaid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_an_interval_and_an_exact_count() {
        let mut quotas = Quotas::default();
        let at = Duration::from_millis;
        let said = (0..10_000).filter(|i| quotas.take(at(i / 10), "00:04.0"));
        assert_eq!(said.count(), 32);
        assert!(quotas.take(at(1000), "00:05.0"), "each has its own");
        assert_eq!(quotas.handle_timeout(at(4999)), []);
        let count = quotas.handle_timeout(at(5000));
        assert_eq!(count, [("00:04.0".to_owned(), 9968)]);
        assert!(quotas.take(at(5000), "00:04.0"), "a new interval");
        assert_eq!(quotas.handle_timeout(Duration::MAX), [], "nothing unsaid");
        assert!(quotas.0.is_empty());
    }
}
