//! Registers as a driver reaches them.

use std::sync::Arc;
use viommu_api::Registers;

/// A register window with typed accesses.
#[derive(Clone)]
pub(crate) struct Mmio(pub(crate) Arc<dyn Registers>);

impl Mmio {
    pub(crate) fn read32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.0.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn read64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write32(&self, at: u64, value: u32) {
        self.0.write(at, &value.to_le_bytes());
    }

    pub(crate) fn write64(&self, at: u64, value: u64) {
        self.0.write(at, &value.to_le_bytes());
    }
}
