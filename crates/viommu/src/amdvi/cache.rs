//! The device table cache.
//!
//! Spec: 48882, "INVALIDATE_DEVTAB_ENTRY". What is in here is used, however old, until the guest
//! invalidates it; what failed never gets in.

use iommu_walk::amdvi::Space;
use iopf::Rid;
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;

/// The point in the history of invalidations at which something was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

/// Device table entries by requester.
#[derive(Debug, Default)]
pub struct DeviceCache {
    entries: HashMap<u16, Space, FxBuildHasher>,
    /// Grows with each invalidation.
    invalidations: u64,
}

impl DeviceCache {
    /// What is to be handed to [`Self::insert`]; take it before the table is read.
    pub(super) const fn moment(&self) -> Moment {
        Moment(self.invalidations)
    }

    /// The entry of a requester.
    #[inline]
    pub(super) fn get(&self, requester: Rid) -> Option<&Space> {
        self.entries.get(&requester.pci())
    }

    /// Remembers what was read from the table since `moment`, unless something was invalidated
    /// meanwhile.
    pub(super) fn insert(&mut self, moment: Moment, requester: Rid, space: Space) {
        if self.invalidations == moment.0 {
            self.entries.insert(requester.pci(), space);
        }
    }

    /// Forgets the entry of a requester.
    pub(super) fn forget(&mut self, requester: Rid) {
        self.invalidations += 1;
        self.entries.remove(&requester.pci());
    }

    /// Forgets every entry.
    pub(super) fn forget_all(&mut self) {
        self.invalidations += 1;
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests;
