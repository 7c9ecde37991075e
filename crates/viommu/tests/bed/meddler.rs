//! An endpoint that comes back to its unit from the middle of a command.

use super::{Bed, DEVICE, Memory};
use iopf::{GroupIndex, Pasid, Response};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use viommu::Unit;
use viommu::arch::Arch;
use viommu_api::{Endpoint, Invalidation};

/// Does something to its unit at each invalidation but the last that it is there for.
pub(crate) struct Meddler<X: Arch> {
    unit: Weak<Unit<X, Memory>>,
    heard: AtomicU32,
    last: u32,
    /// Is told how many invalidations there were.
    act: fn(&Unit<X, Memory>, u32),
}

impl<X: Arch> Meddler<X> {
    /// Takes the place of the device, for as long as it is kept.
    pub(crate) fn behind(bed: &Bed<X>, last: u32, act: fn(&Unit<X, Memory>, u32)) -> Arc<Self> {
        let meddler = Arc::new(Self {
            unit: Arc::downgrade(&bed.unit),
            heard: AtomicU32::new(0),
            last,
            act,
        });
        let weak: Weak<Self> = Arc::downgrade(&meddler);
        bed.unit.attach(DEVICE, weak);
        meddler
    }

    /// Invalidations so far.
    pub(crate) fn heard(&self) -> u32 {
        self.heard.load(Ordering::Relaxed)
    }
}

impl<X: Arch> Endpoint for Meddler<X> {
    fn invalidate(&self, _: &Invalidation) {
        let heard = self.heard.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(unit) = self.unit.upgrade()
            && heard < self.last
        {
            (self.act)(&unit, heard);
        }
    }
    fn page_response(&self, _: Option<Pasid>, _: GroupIndex, _: Response) {}
}
