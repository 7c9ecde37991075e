//! The engine as the guest and the IOMMU see it.

use super::{BAR_CHANNELS, BAR_MSIX, CHANNEL, CHANNELS, DmaEngine, MSIX_SIZE};
use crate::pci::Effect;
use iopf::{GroupIndex, Pasid, Response};
use viommu_api::{Endpoint, Interrupts, Invalidation, PciFunction, Resume, StallTag};

/// The parts of `len` bytes at `offset` of BAR 0: channel, offset in it, and where in the data.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (usize, u16, std::ops::Range<usize>)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        let at = offset.checked_add(done as u64)?;
        if done >= len || at >= CHANNEL * u64::from(CHANNELS) {
            return None;
        }
        let inside = at % CHANNEL;
        let room = usize::try_from(CHANNEL - inside).ok()?;
        let part = done..len.min(done + room);
        done = part.end;
        Some((
            usize::try_from(at / CHANNEL).ok()?,
            u16::try_from(inside).ok()?,
            part,
        ))
    })
}

impl PciFunction for DmaEngine {
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
        let acted = {
            let mut state = self.state();
            let effects = state.config.write(&self.device, offset, data);
            if effects.contains(&Effect::FunctionReset) {
                self.power_on(&mut state);
            }
            !effects.is_empty()
        };
        if acted {
            (self.waker)();
        }
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let state = self.state();
        match bar {
            BAR_CHANNELS => {
                for (channel, at, part) in parts(offset, data.len()) {
                    let into = data.get_mut(part).unwrap_or_default();
                    state.channels[channel].regs.read(at, into);
                }
            }
            BAR_MSIX if offset < MSIX_SIZE / 2 => state.msix.read(offset, data),
            // The pending bits, and what is not there.
            _ => {}
        }
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        let mut started = false;
        {
            let mut state = self.state();
            match bar {
                BAR_CHANNELS => {
                    for (channel, at, part) in parts(offset, data.len()) {
                        let from = data.get(part).unwrap_or_default();
                        started |= state.channels[channel].write(at, from);
                    }
                    let deaf = state.channels.iter().any(|c| c.regs.deaf());
                    self.device.set_deaf(deaf);
                }
                BAR_MSIX => state.msix.write(offset, data),
                _ => {}
            }
        }
        if started {
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

impl Endpoint for DmaEngine {
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
