//! The function as the guest and the IOMMU see it.

use super::{BAR_PORTALS, BAR_REGISTERS, Dsa, State};
use crate::dsa::regs::{DeviceState, offset};
use crate::pci::Effect;
use iopf::{GroupIndex, Pasid, Response};
use viommu_api::{Endpoint, Interrupts, Invalidation, PciFunction, Resume, StallTag};

impl Dsa {
    /// Does what a write to configuration space means beyond the switches of the device.
    fn act(&self, state: &mut State, effect: Effect, vectors: &mut Vec<u16>) {
        let running = matches!(
            state.regs.state,
            DeviceState::Enabled | DeviceState::Draining
        );
        let forbidden = matches!(
            effect,
            Effect::BusMaster(false)
                | Effect::AtsChanged(_)
                | Effect::PasidChanged(_)
                | Effect::PriChanged { .. }
        );
        if effect == Effect::FunctionReset {
            self.power_on(state);
        }
        if running && forbidden {
            self.halt(state, vectors);
            let pri = state.config.pri();
            self.device.set_pri(pri.enabled, pri.allocation);
            state.fail_command(vectors);
        }
    }
}

impl PciFunction for Dsa {
    fn bar_size(&self, bar: u8) -> u64 {
        self.state().config.bar_size(bar)
    }

    fn interrupts(&self) -> Interrupts {
        self.state().config.interrupts()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.state().config.read(&self.device, offset, data);
    }

    fn write_config(&self, offset: u16, data: &[u8]) {
        let mut vectors = Vec::new();
        let acted = {
            let mut state = self.state();
            let effects = state.config.write(&self.device, offset, data);
            for &effect in &effects {
                self.act(&mut state, effect, &mut vectors);
            }
            !effects.is_empty()
        };
        self.raise(&vectors);
        if acted {
            (self.waker)();
        }
    }

    fn read_bar(&self, bar: u8, at: u64, data: &mut [u8]) {
        data.fill(0);
        if bar != BAR_REGISTERS {
            return;
        }
        let state = self.state();
        match at.checked_sub(offset::MSIX_TABLE) {
            Some(inner) if inner < state.msix.size() => state.msix.read(inner, data),
            _ => state.regs.read(at, data),
        }
    }

    fn write_bar(&self, bar: u8, at: u64, data: &[u8]) {
        let mut vectors = Vec::new();
        let work = {
            let mut state = self.state();
            match (bar, at.checked_sub(offset::MSIX_TABLE)) {
                (BAR_REGISTERS, Some(inner)) if inner < state.msix.size() => {
                    state.msix.write(inner, data);
                    false
                }
                (BAR_REGISTERS, _) => {
                    let command = state.regs.write(at, data);
                    if let Some(raw) = command {
                        state.take_command(raw, &mut vectors);
                    }
                    command.is_some()
                }
                (BAR_PORTALS, _) => state.store(at, data, &mut vectors),
                _ => false,
            }
        };
        self.raise(&vectors);
        if work {
            (self.waker)();
        }
    }

    fn reset(&self) {
        {
            let mut state = self.state();
            state.config.reset();
            self.power_on(&mut state);
        }
        (self.waker)();
    }
}

impl Endpoint for Dsa {
    fn invalidate(&self, invalidation: &Invalidation) {
        self.device.invalidate(invalidation);
    }

    fn page_response(&self, pasid: Option<Pasid>, group: GroupIndex, response: Response) {
        self.device.page_response(pasid, group, response);
        (self.waker)();
    }

    fn resume(&self, tag: StallTag, how: Resume) {
        self.device.resume(tag, how);
        (self.waker)();
    }
}
