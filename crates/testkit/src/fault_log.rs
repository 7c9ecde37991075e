//! The log that a guest's administrator reads.

use iopf::{Iova, Rid};
use std::collections::{BTreeMap, VecDeque};

/// Faults of one device and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many records.
    pub count: u64,
    /// Address of the first one.
    pub first: Iova,
    /// Address of the last one.
    pub last: Iova,
}

/// What the guest knows of the faults so far: all counts, and the latest records, which are `S`.
#[derive(Clone, Debug)]
pub struct FaultLog<S> {
    /// Counts by device and reason: a fault reason of VT-d, an event code of AMD-Vi.
    pub tallies: BTreeMap<(Rid, u8), Tally>,
    /// The latest records, oldest first.
    pub latest: VecDeque<S>,
    /// Records not in `latest` any more.
    pub suppressed: u64,
    /// Interrupts that found the overflow bit set: records were lost before them.
    pub overflows: u64,
    /// Interrupts handled.
    pub interrupts: u64,
}

impl<S> Default for FaultLog<S> {
    fn default() -> Self {
        Self {
            tallies: BTreeMap::new(),
            latest: VecDeque::new(),
            suppressed: 0,
            overflows: 0,
            interrupts: 0,
        }
    }
}

/// Records kept for reading.
const LATEST: usize = 256;

impl<S> FaultLog<S> {
    /// Records read so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.tallies.values().map(|t| t.count).sum()
    }

    pub(crate) fn add(&mut self, rid: Rid, reason: u8, addr: Iova, seen: S) {
        let tally = self.tallies.entry((rid, reason));
        let tally = tally.or_insert(Tally {
            count: 0,
            first: addr,
            last: addr,
        });
        tally.count += 1;
        tally.last = addr;
        if self.latest.len() >= LATEST {
            self.latest.pop_front();
            self.suppressed += 1;
        }
        self.latest.push_back(seen);
    }
}
