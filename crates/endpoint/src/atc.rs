//! The address translation cache of a device.

use iopf::{Access, Gpa, Iova, Pasid};
use std::collections::BTreeMap;
use viommu_api::{Granted, Invalidation};

/// What an entry is tagged with, beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Space {
    /// The address space, or `None` for requests without a PASID.
    pub pasid: Option<Pasid>,
    /// Obtained in privileged mode; such an entry serves no user-mode request.
    pub privileged: bool,
}

/// A cached translation of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Where the address lies.
    pub pa: Gpa,
    /// Bytes from there to the end of the page.
    pub len: u64,
    /// What the translation grants.
    pub perms: Access,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    shift: u8,
    pa: u64,
    perms: Access,
}

impl Entry {
    fn last(self, start: u64) -> u64 {
        start | mask(self.shift)
    }
}

/// Page sizes outside this range mean nothing; what a caller hands us is brought into it.
const SHIFTS: std::ops::RangeInclusive<u8> = 12..=52;

fn mask(shift: u8) -> u64 {
    1u64.checked_shl(u32::from(shift))
        .map_or(u64::MAX, |size| size - 1)
}

/// A device TLB of a fixed size.
///
/// Entries of one space never overlap: the latest wins. When it is full the next entry in address
/// order makes room. [`Atc::epoch`] moves with every invalidation, so that a translation obtained
/// before one is not inserted after it.
#[derive(Debug)]
pub struct Atc {
    entries: BTreeMap<(Space, u64), Entry>,
    capacity: usize,
    hand: (Space, u64),
    epoch: u64,
}

impl Atc {
    /// An empty TLB of `capacity` entries, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let space = Space {
            pasid: None,
            privileged: false,
        };
        Self {
            entries: BTreeMap::new(),
            capacity: capacity.max(1),
            hand: (space, 0),
            epoch: 0,
        }
    }

    /// Entries in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is cached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many invalidations came so far.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The translation of `at`, whatever it grants.
    #[must_use]
    pub fn lookup(&self, space: Space, at: Iova) -> Option<Hit> {
        let (&(_, start), entry) = self.entries.range((space, 0)..=(space, at.0)).next_back()?;
        (at.0 <= entry.last(start)).then(|| {
            let offset = at.0 - start;
            Hit {
                pa: Gpa(entry.pa | offset),
                len: mask(entry.shift) - offset + 1,
                perms: entry.perms,
            }
        })
    }

    /// Caches what the IOMMU granted for `at`, unless an invalidation came since `epoch` was read;
    /// returns whether it did.
    pub fn insert(&mut self, epoch: u64, space: Space, at: Iova, granted: Granted) -> bool {
        if epoch != self.epoch {
            return false;
        }
        let shift = granted.page_shift.clamp(*SHIFTS.start(), *SHIFTS.end());
        let start = at.0 & !mask(shift);
        self.forget(space, start, start | mask(shift));
        while self.entries.len() >= self.capacity {
            self.evict();
        }
        let entry = Entry {
            shift,
            pa: granted.pa.0 & !mask(shift),
            perms: granted.perms,
        };
        self.entries.insert((space, start), entry);
        true
    }

    fn evict(&mut self) {
        let after = self.entries.range(self.hand..).next().map(|(k, _)| *k);
        let victim = after.or_else(|| self.entries.keys().next().copied());
        if let Some(key) = victim {
            self.entries.remove(&key);
            self.hand = key;
        }
    }

    /// Drops every entry of `space` that shares a byte with `first..=last`.
    fn forget(&mut self, space: Space, first: u64, last: u64) {
        let below = self.entries.range((space, 0)..(space, first)).next_back();
        let below = below
            .filter(|((_, start), entry)| entry.last(*start) >= first)
            .map(|(key, _)| *key);
        if let Some(key) = below {
            self.entries.remove(&key);
        }
        let range = (space, first)..=(space, last);
        self.entries.extract_if(range, |_, _| true).for_each(drop);
    }

    /// Forgets what an invalidation names.
    pub fn invalidate(&mut self, invalidation: &Invalidation) {
        self.epoch += 1;
        let span = mask(invalidation.size_shift);
        let (first, last) = (invalidation.addr.0 & !span, invalidation.addr.0 | span);
        if invalidation.pasid.is_some() && invalidation.global {
            // Every address space, and any page that reaches into the range.
            self.entries.retain(|(space, start), entry| {
                space.pasid.is_none() || entry.last(*start) < first || *start > last
            });
            return;
        }
        for privileged in [false, true] {
            let space = Space {
                pasid: invalidation.pasid,
                privileged,
            };
            self.forget(space, first, last);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.epoch += 1;
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests;
