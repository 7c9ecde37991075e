//! The device as the guest sees it.

use super::common::Effect as Asked;
use super::{BAR_MSIX, BAR_STRUCTURES, ISR, MSIX_SIZE, NOTIFY, State, VirtioRng};
use crate::pci::Effect;
use std::sync::PoisonError;
use viommu_api::{InterruptKind, Interrupts, PciFunction};
use vm_memory::GuestAddressSpace;

/// Offsets within the capability that is a window into the BARs.
const WINDOW_BAR: u16 = 4;
const WINDOW_OFFSET: u16 = 8;
const WINDOW_LENGTH: u16 = 12;
const WINDOW_DATA: u16 = 16;

impl State {
    fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match bar {
            BAR_STRUCTURES if offset < ISR => self.common.read(offset, data),
            BAR_STRUCTURES if offset == ISR => {
                // Reading clears it, and lowers the pin.
                if let Some(first) = data.first_mut() {
                    *first = std::mem::take(&mut self.isr);
                    self.config.set_intx(false);
                }
            }
            BAR_MSIX if offset < u64::from(MSIX_SIZE / 2) => self.msix.read(offset, data),
            _ => {}
        }
    }

    /// Writes; true when there may be work now.
    fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) -> bool {
        match bar {
            BAR_STRUCTURES if offset < ISR => match self.common.write(offset, data) {
                Asked::None => false,
                Asked::Reset => {
                    self.reset_device();
                    false
                }
                Asked::Live => self.may_work(),
            },
            // Which queue is in the data; there is one.
            BAR_STRUCTURES if offset == NOTIFY && data.starts_with(&[0, 0]) => {
                self.kicked = true;
                self.may_work()
            }
            BAR_MSIX => {
                self.msix.write(offset, data);
                false
            }
            _ => false,
        }
    }

    /// The capability that is a window into the BARs: the last.
    fn window(&self) -> Option<u16> {
        self.config.plain_capabilities().last().copied()
    }

    /// The place that the window shows: BAR, offset, length; `None` for what it cannot show.
    fn shown(&self, at: u16) -> Option<(u8, u64, usize)> {
        let word = |offset: u16| {
            let mut bytes = [0; 4];
            self.config.read(at + offset, &mut bytes);
            u32::from_le_bytes(bytes)
        };
        let [bar, ..] = word(WINDOW_BAR).to_le_bytes();
        let (offset, length) = (word(WINDOW_OFFSET), word(WINDOW_LENGTH));
        let aligned = matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
        let length = usize::try_from(length).ok()?;
        aligned.then_some((bar, u64::from(offset), length))
    }

    /// Whether an access of `len` bytes at `offset` touches the data of the window at `at`.
    fn touches(at: u16, offset: u16, len: usize) -> bool {
        let data = usize::from(at + WINDOW_DATA);
        let first = usize::from(offset);
        first < data + 4 && first + len > data
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        if let Some(at) = self
            .window()
            .filter(|&at| Self::touches(at, offset, data.len()))
            && let Some((bar, place, length)) = self.shown(at)
        {
            let mut word = [0; 4];
            self.read_bar(bar, place, word.get_mut(..length).unwrap_or_default());
            self.config.put(at + WINDOW_DATA, &word);
        }
        self.config.read(offset, data);
    }

    /// Writes; says whether there may be work now, and whether the pin has to be raised.
    fn write_config(&mut self, offset: u16, data: &[u8]) -> (bool, bool) {
        let (mut work, mut pin) = (false, false);
        for effect in self.config.write(offset, data) {
            match effect {
                Effect::BusMaster(true) => work |= self.may_work(),
                Effect::IntxDisabled(false) => pin = self.isr != 0,
                Effect::FunctionReset => self.reset_function(),
                _ => {}
            }
        }
        if let Some(at) = self
            .window()
            .filter(|&at| Self::touches(at, offset, data.len()))
            && let Some((bar, place, length)) = self.shown(at)
        {
            let mut word = [0; 4];
            self.config.read(at + WINDOW_DATA, &mut word);
            work |= self.write_bar(bar, place, word.get(..length).unwrap_or_default());
        }
        (work, pin)
    }

    fn reset_function(&mut self) {
        self.msix.reset();
        self.reset_device();
    }
}

impl<A: GuestAddressSpace + Send + Sync> PciFunction for VirtioRng<A> {
    fn bar_size(&self, bar: u8) -> u64 {
        self.state().config.bar_size(bar)
    }

    fn interrupts(&self) -> Interrupts {
        self.state().config.interrupts()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.state().read_config(offset, data);
    }

    fn write_config(&self, offset: u16, data: &[u8]) {
        let (work, pin) = self.state().write_config(offset, data);
        if pin {
            self.irq.raise(InterruptKind::Intx, 0);
        }
        if work {
            (self.waker)();
        }
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.state().read_bar(bar, offset, data);
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        let work = self.state().write_bar(bar, offset, data);
        if work {
            (self.waker)();
        }
    }

    /// Returns when the access under way is over, of up to 4 KiB: whoever resets a machine resets the
    /// IOMMU next, and without translation it would go where the guest has other things. Not to be
    /// called by the source of the bytes, which would wait for itself.
    fn reset(&self) {
        {
            let mut state = self.state();
            state.config.reset();
            state.reset_function();
        }
        drop(self.worker.lock().unwrap_or_else(PoisonError::into_inner));
        // A step meanwhile was told that there is nothing to do.
        (self.waker)();
    }
}
