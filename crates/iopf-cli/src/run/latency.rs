//! How long answers took: a histogram of fixed size.

use std::time::Duration;

/// Sixteen buckets to the octave, so that a quantile is off by 6 % at most.
const PER_OCTAVE: u32 = 16;
const BUCKETS: usize = 64 * PER_OCTAVE as usize;

/// Counts by duration, in constant memory.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            max: 0,
        }
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(1);
    let octave = nanos.ilog2();
    let fraction = if octave >= 4 {
        (nanos >> (octave - 4)) & 15
    } else {
        (nanos << (4 - octave)) & 15
    };
    let index = octave * PER_OCTAVE + u32::try_from(fraction).unwrap_or(0);
    usize::try_from(index).unwrap_or(0).min(BUCKETS - 1)
}

/// The longest duration that falls into a bucket.
fn upper(index: usize) -> u64 {
    let octave = u32::try_from(index).unwrap_or(0) / PER_OCTAVE;
    let fraction = u64::try_from(index).unwrap_or(0) % u64::from(PER_OCTAVE);
    let scaled = (u128::from(fraction) + 17) << octave >> 4;
    u64::try_from(scaled.saturating_sub(1)).unwrap_or(u64::MAX)
}

impl Histogram {
    /// Counts one.
    pub(crate) fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(slot) = self.buckets.get_mut(bucket(nanos)) {
            *slot += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The longest, in nanoseconds.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The duration, in nanoseconds, that `percent` of all did not exceed.
    pub(crate) fn quantile(&self, percent: u64) -> u64 {
        let rank = self.count.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(i).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_a_sixteenth_of_the_truth() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        let p50 = histogram.quantile(50);
        assert!((500_000..=531_250).contains(&p50), "{p50}");
        let p99 = histogram.quantile(99);
        assert!((990_000..=1_051_875).contains(&p99), "{p99}");
        assert_eq!(histogram.quantile(100), 1_000_000);
        assert_eq!(histogram.max(), 1_000_000);
    }

    #[test]
    fn the_ends_of_the_scale_have_a_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(50), 0);
        histogram.add(Duration::ZERO);
        histogram.add(Duration::MAX);
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.quantile(99), u64::MAX);
    }
}
