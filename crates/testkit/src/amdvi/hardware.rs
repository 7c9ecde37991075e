//! The registers, and the one that everybody changes.

use super::numbers::CONTROL;
use crate::driver::lock;
use crate::mmio::Mmio;
use std::sync::Mutex;

/// The register window.
pub(crate) struct Hardware {
    pub(crate) mmio: Mmio,
    /// Held while the control register is changed: every log and buffer has bits of its own there.
    control: Mutex<()>,
}

impl Hardware {
    pub(crate) fn new(mmio: Mmio) -> Self {
        Self {
            mmio,
            control: Mutex::new(()),
        }
    }

    /// Clears bits of the control register, and sets others.
    pub(crate) fn switch(&self, off: u64, on: u64) {
        let _alone = lock(&self.control);
        let control = self.mmio.read64(CONTROL);
        self.mmio.write64(CONTROL, control & !off | on);
    }
}
