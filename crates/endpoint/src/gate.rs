//! Configuration space in front of a [`Device`]: its switches gate the device, and its page request
//! status says what became of the device's requests.

use crate::pci::{ConfigSpace, Effect};
use crate::{Device, Stats};
use std::ops::Deref;

/// The configuration space of a function that has a device behind it.
pub(crate) struct Gate {
    space: ConfigSpace,
    /// Counts of the device that the page request status has taken note of.
    noted: Noted,
}

#[derive(Clone, Copy, Default)]
struct Noted {
    failures: u64,
    unexpected: u64,
}

impl Noted {
    fn of(stats: &Stats) -> Self {
        Self {
            failures: stats.answered[2],
            unexpected: stats.unexpected_responses,
        }
    }
}

impl Deref for Gate {
    type Target = ConfigSpace;

    fn deref(&self) -> &ConfigSpace {
        &self.space
    }
}

impl Gate {
    pub(crate) fn new(space: ConfigSpace) -> Self {
        Self {
            space,
            noted: Noted::default(),
        }
    }

    /// Brings the page request status up to date.
    fn note(&mut self, device: &Device) {
        let now = Noted::of(&device.stats());
        if now.failures > self.noted.failures {
            self.space.set_pri_failure();
        }
        if now.unexpected > self.noted.unexpected {
            self.space.set_pri_unexpected();
        }
        self.noted = now;
        self.space.set_pri_outstanding(device.any_outstanding());
    }

    /// Reads at byte `offset`.
    pub(crate) fn read(&mut self, device: &Device, offset: u16, data: &mut [u8]) {
        self.note(device);
        self.space.read(offset, data);
    }

    /// Writes at byte `offset`, and switches the device. What else the write means, a reset of the
    /// function above all, is for the function to do.
    pub(crate) fn write(&mut self, device: &Device, offset: u16, data: &[u8]) -> Vec<Effect> {
        // What is written as one clears what was there before.
        self.note(device);
        let effects = self.space.write(offset, data);
        for effect in &effects {
            match *effect {
                Effect::BusMaster(on) => device.set_bus_master(on),
                Effect::AtsChanged(control) => device.set_ats(control.enabled),
                Effect::PasidChanged(control) => device.set_pasid(control.enabled),
                Effect::PriChanged { control, reset } => device.switch_pri(control, reset),
                Effect::FunctionReset
                | Effect::MemoryDecode(_)
                | Effect::IntxDisabled(_)
                | Effect::MsixChanged(_) => {}
            }
        }
        effects
    }

    /// Puts it into its state after power-on.
    pub(crate) fn reset(&mut self) {
        self.space.reset();
    }

    /// Switches a device as configuration space says, after a reset of the function. Page requests
    /// are the function's to switch, once it has dropped its work.
    pub(crate) fn switch(&self, device: &Device) {
        device.set_bus_master(self.space.bus_master());
        device.set_ats(self.space.ats().enabled);
        device.set_pasid(self.space.pasid().enabled);
    }

    /// Takes what the device did so far as known.
    pub(crate) fn start_over(&mut self, device: &Device) {
        self.noted = Noted::of(&device.stats());
    }
}
