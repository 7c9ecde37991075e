//! The registers, and the one that several parts of the driver change.

use super::numbers::CR0;
use crate::driver::{GuestError, lock};
use crate::mmio::Mmio;
use std::sync::Mutex;

/// The register window.
pub(crate) struct Hardware {
    pub(crate) mmio: Mmio,
    /// Held while `CR0` is changed.
    control: Mutex<()>,
}

/// Looks at an acknowledgement before it counts as never given.
const PATIENCE: u32 = 100_000;

impl Hardware {
    pub(crate) fn new(mmio: Mmio) -> Self {
        Self {
            mmio,
            control: Mutex::new(()),
        }
    }

    /// Writes a register and waits until its acknowledgement, which is the one after it, says the same.
    pub(crate) fn acknowledged(
        &self,
        register: u64,
        value: u32,
        name: &'static str,
    ) -> Result<(), GuestError> {
        self.mmio.write32(register, value);
        for _ in 0..PATIENCE {
            if self.mmio.read32(register + 4) == value {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(GuestError::Malfunction(name))
    }

    /// Clears bits of `CR0`, and sets others.
    pub(crate) fn switch(&self, off: u32, on: u32) {
        let _alone = lock(&self.control);
        let control = self.mmio.read32(CR0);
        self.mmio.write32(CR0, control & !off | on);
    }
}
