//! An IOMMU's registers as a PCI function.
//!
//! A VMM that knows nothing of our IOMMU still gives a PCI function room in the address space, and an
//! ACPI table then tells the guest that the registers are there.

mod amdvi;

pub use amdvi::{AmdviCapability, AmdviFunction};

use crate::pci::{Bar, Builder, ConfigSpace, Identity, Impossible};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu_api::{Interrupts, PciFunction, Registers};

/// Not assigned by the PCI-SIG: "IO", and "MU".
const IDENTITY: Identity = Identity {
    vendor: 0x494f,
    device: 0x4d55,
    // A programmable interrupt controller (an I/O x APIC). Linux leaves a BAR of this class where
    // firmware has put it, and has no driver for it; a BAR of class 0x0880 is moved, and the table
    // that names its address is wrong from then on.
    class: 0x08_0020,
    revision: 0,
    subsystem_vendor: 0x494f,
    subsystem: 0x4d55,
};

/// A function whose BAR 0 (32 bits) is a register file.
///
/// It has no interrupts and no capabilities: the messages of the IOMMU behind it are memory writes.
/// Bus Master is always on, because no driver of this class turns it on and the messages need it.
pub struct IommuFunction {
    registers: Arc<dyn Registers>,
    on_reset: Box<dyn Fn() + Send + Sync>,
    config: Mutex<ConfigSpace>,
    size: u64,
}

impl fmt::Debug for IommuFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IommuFunction")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl IommuFunction {
    /// Shows `registers`; `on_reset` puts the IOMMU behind them into its state after power-on. With
    /// that, translation is off: `on_reset` stops the functions behind the IOMMU first, since a VMM
    /// that resets a machine may come to them later.
    ///
    /// # Errors
    /// When the register file is larger than a 32-bit BAR can be, 2 GiB.
    pub fn new(
        registers: Arc<dyn Registers>,
        on_reset: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, Impossible> {
        let size = registers.size();
        // What has no power of two above it is refused as it is.
        let size = size.checked_next_power_of_two().unwrap_or(size).max(4096);
        let config = Builder::new(IDENTITY)
            .bar(0, Bar::memory32(size))
            .always_master()
            .build()?;
        Ok(Self {
            registers,
            on_reset: Box::new(on_reset),
            config: Mutex::new(config),
            size,
        })
    }

    /// Where firmware or the guest has put the registers, while they answer.
    #[must_use]
    pub fn bar_address(&self) -> Option<u64> {
        self.config().bar_address(0)
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `len` bytes at `offset` of BAR `bar` are registers.
    fn reach(&self, bar: u8, offset: u64, len: usize) -> usize {
        let room = if bar == 0 {
            self.registers.size().saturating_sub(offset)
        } else {
            0
        };
        usize::try_from(room).unwrap_or(usize::MAX).min(len)
    }
}

impl PciFunction for IommuFunction {
    fn bar_size(&self, bar: u8) -> u64 {
        if bar == 0 { self.size } else { 0 }
    }

    fn interrupts(&self) -> Interrupts {
        Interrupts::default()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn write_config(&self, offset: u16, data: &[u8]) {
        // Nothing that can be switched here changes what the registers do.
        drop(self.config().write(offset, data));
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        let (registers, rest) = data.split_at_mut(self.reach(bar, offset, data.len()));
        rest.fill(0);
        if !registers.is_empty() {
            self.registers.read(offset, registers);
        }
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        let (registers, _) = data.split_at(self.reach(bar, offset, data.len()));
        if !registers.is_empty() {
            self.registers.write(offset, registers);
        }
    }

    fn reset(&self) {
        self.config().reset();
        (self.on_reset)();
    }
}

#[cfg(test)]
mod tests;
