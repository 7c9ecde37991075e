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

impl Placed {
    /// Where the registers are.
    ///
    /// Firmware tries out what it likes and then lets the registers answer; where there is none, a kernel
    /// that does not know the function gives its BAR an address and leaves it at that.
    fn address(&self) -> Option<u64> {
        if self.told.has_firmware() {
            // While a BAR is sized its registers do not answer, so it has no address.
            return self.function.bar_address();
        }
        let mut bar = [0; 4];
        self.function.read_config(BAR, &mut bar);
        let address = u64::from(u32::from_le_bytes(bar) & !0xf);
        // So it reads while it is sized.
        let sized = u64::from(u32::MAX) & !(self.function.bar_size(0) - 1);
        (address != 0 && address != sized).then_some(address)
    }
}

/// Offset of BAR 0.
const BAR: u16 = 0x10;

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
        let Some(address) = self.address() else {
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
