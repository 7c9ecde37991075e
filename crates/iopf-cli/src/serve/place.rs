//! The function with the registers, watched for where they are put.

use super::event::Events;
use super::told::Told;
use endpoint::IommuFunction;
use std::sync::{Arc, Mutex, PoisonError};
use viommu_api::{Interrupts, PciFunction};

/// The function with the registers, watched for where they are put.
pub(super) struct Placed {
    pub(super) function: Arc<IommuFunction>,
    pub(super) told: Arc<Told>,
    pub(super) events: Arc<Events>,
    /// Where they were seen last.
    pub(super) seen: Mutex<Option<u64>>,
}

impl PciFunction for Placed {
    fn bar_size(&self, bar: u8) -> u64 {
        self.function.bar_size(bar)
    }
    fn interrupts(&self) -> Interrupts {
        self.function.interrupts()
    }
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.function.read_config(offset, data);
    }
    fn write_config(&self, offset: u16, data: &[u8]) {
        self.function.write_config(offset, data);
        // While a BAR is sized its registers do not answer, so it has no address.
        let Some(address) = self.function.bar_address() else {
            return;
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen != Some(address) {
            *seen = Some(address);
            self.told.found(address, &self.events);
        }
    }
    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.function.read_bar(bar, offset, data);
    }
    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        self.function.write_bar(bar, offset, data);
    }
    fn reset(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.function.reset();
    }
}
