//! Configuration space in use: reads, writes, and what a write means for the function.

use super::build::Layout;
use super::store::{Store, written};
use super::{bit, reg};
use std::fmt;
use viommu_api::Interrupts;

/// A switch that a guest has moved. The space already shows it; the function acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Whether the function may send requests and messages.
    BusMaster(bool),
    /// Whether the BARs answer.
    MemoryDecode(bool),
    /// Whether the interrupt pin is switched off.
    IntxDisabled(bool),
    /// MSI-X was switched or masked.
    MsixChanged(MsixControl),
    /// Translation requests were switched.
    AtsChanged(AtsControl),
    /// The page request interface was switched or reset.
    PriChanged {
        /// What software set.
        control: PriControl,
        /// Pending requests and credits are to be forgotten, before anything else.
        reset: bool,
    },
    /// Requests with PASID were switched.
    PasidChanged(PasidControl),
    /// A function-level reset: the space is as after power-on, and the function has to follow.
    FunctionReset,
}

/// A message that a function sends as its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it is written.
    pub addr: u64,
    /// What is written there.
    pub data: u32,
}

/// The MSI-X switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsixControl {
    /// Messages are sent in place of the interrupt pin.
    pub enabled: bool,
    /// Every vector is masked.
    pub masked: bool,
}

/// The ATS switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtsControl {
    /// Translation requests may be sent.
    pub enabled: bool,
    /// Smallest translation unit: a power of two, less 12 (0 is 4 KiB).
    pub unit: u8,
}

/// The page request switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriControl {
    /// Page requests may be sent.
    pub enabled: bool,
    /// How many may be outstanding: what software allocated, at most the capacity.
    pub allocation: u32,
}

/// The PASID switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PasidControl {
    /// Requests may carry a PASID.
    pub enabled: bool,
    /// They may ask to execute.
    pub execute: bool,
    /// They may be privileged.
    pub privileged: bool,
    /// Bits of a PASID (0–20), from the capability.
    pub width: u8,
}

/// The configuration space of one function.
///
/// Promise: no write, of whatever length and alignment, changes a read-only bit.
#[derive(Clone)]
pub struct ConfigSpace {
    store: Store,
    layout: Layout,
}

impl fmt::Debug for ConfigSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSpace")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// What is compared before and after a write.
struct Switches {
    command: u16,
    msix: MsixControl,
    ats: AtsControl,
    pri: PriControl,
    pasid: PasidControl,
}

impl ConfigSpace {
    pub(super) fn new(store: Store, layout: Layout) -> Self {
        Self { store, layout }
    }

    /// Reads at byte `offset`. What no register defines reads as zero.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        self.store.read(offset, data);
    }

    /// Writes at byte `offset`, and says what that switched, in the order to act on it.
    #[must_use]
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Vec<Effect> {
        if self.resets(offset, data) {
            self.reset();
            return vec![Effect::FunctionReset];
        }
        let before = self.switches();
        self.store.write(offset, data);
        self.update_stopped(before.pri.enabled);
        self.effects(&before, self.pri_reset(offset, data))
    }

    /// Puts every register into its state after power-on.
    pub fn reset(&mut self) {
        self.store.reset();
    }

    /// Whether a write initiates a function-level reset.
    fn resets(&self, offset: u16, data: &[u8]) -> bool {
        let [_, high] = bit::EXP_RESET.to_le_bytes();
        self.layout.express.is_some_and(|at| {
            written(offset, data, at + reg::EXP_DEVICE_CONTROL + 1).is_some_and(|b| b & high != 0)
        })
    }

    /// Whether a write resets the page request interface. It does only where it leaves the interface
    /// off: PCI Express Base Specification, "Page Request Control Register".
    fn pri_reset(&self, offset: u16, data: &[u8]) -> bool {
        let [reset, _] = bit::PRI_RESET.to_le_bytes();
        self.layout.pri.is_some_and(|at| {
            written(offset, data, at + reg::PRI_CONTROL).is_some_and(|b| b & reset != 0)
        }) && !self.pri().enabled
    }

    fn switches(&self) -> Switches {
        Switches {
            command: self.store.u16(reg::COMMAND),
            msix: self.msix(),
            ats: self.ats(),
            pri: self.pri(),
            pasid: self.pasid(),
        }
    }

    fn effects(&self, before: &Switches, pri_reset: bool) -> Vec<Effect> {
        let now = self.switches();
        let mut effects = Vec::new();
        let moved = (before.command ^ now.command) & !bit::COMMAND_PARITY;
        let on = |mask: u16| now.command & mask != 0;
        if moved & bit::COMMAND_MASTER != 0 {
            effects.push(Effect::BusMaster(on(bit::COMMAND_MASTER)));
        }
        if moved & bit::COMMAND_MEMORY != 0 {
            effects.push(Effect::MemoryDecode(on(bit::COMMAND_MEMORY)));
        }
        if moved & bit::COMMAND_INTX_DISABLE != 0 {
            effects.push(Effect::IntxDisabled(on(bit::COMMAND_INTX_DISABLE)));
        }
        if before.msix != now.msix {
            effects.push(Effect::MsixChanged(now.msix));
        }
        if before.pasid != now.pasid {
            effects.push(Effect::PasidChanged(now.pasid));
        }
        if before.ats != now.ats {
            effects.push(Effect::AtsChanged(now.ats));
        }
        // A new allocation counts from the next time the interface is turned on.
        if before.pri.enabled != now.pri.enabled || pri_reset {
            effects.push(Effect::PriChanged {
                control: now.pri,
                reset: pri_reset,
            });
        }
        effects
    }

    /// Size in bytes of the region behind BAR `bar`, 0 where there is none.
    #[must_use]
    pub fn bar_size(&self, bar: u8) -> u64 {
        self.layout.bar(bar).map_or(0, |bar| bar.size())
    }

    /// Where BAR `bar` lies in memory, as far as it was programmed and answers.
    #[must_use]
    pub fn bar_address(&self, bar: u8) -> Option<u64> {
        let found = self.layout.bar(bar)?;
        if !self.memory_decode() {
            return None;
        }
        let at = reg::BAR0 + u16::from(bar) * 4;
        let low = u64::from(self.store.u32(at) & !0xf);
        let high = if found.is_wide() {
            u64::from(self.store.u32(at + 4)) << 32
        } else {
            0
        };
        Some(high | low)
    }

    /// How many interrupt vectors of each kind it has.
    #[must_use]
    pub fn interrupts(&self) -> Interrupts {
        self.layout.interrupts
    }

    /// Whether the function may send requests and messages.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.store.u16(reg::COMMAND) & bit::COMMAND_MASTER != 0
    }

    /// Whether the BARs answer.
    #[must_use]
    pub fn memory_decode(&self) -> bool {
        self.store.u16(reg::COMMAND) & bit::COMMAND_MEMORY != 0
    }

    /// Whether the interrupt pin is switched off.
    #[must_use]
    pub fn intx_disabled(&self) -> bool {
        self.store.u16(reg::COMMAND) & bit::COMMAND_INTX_DISABLE != 0
    }

    /// The message of the MSI capability, as far as the guest has switched it on.
    #[must_use]
    pub fn msi(&self) -> Option<Message> {
        let at = self.layout.msi?;
        let enabled = self.store.u16(at + reg::MSI_CONTROL) & bit::MSI_ENABLE != 0;
        enabled.then(|| Message {
            addr: self.store.u64(at + reg::MSI_ADDRESS),
            data: self.store.u16(at + reg::MSI_DATA).into(),
        })
    }

    /// The MSI-X switches; off without the capability.
    #[must_use]
    pub fn msix(&self) -> MsixControl {
        let control = self.word(self.layout.msix, reg::MSIX_CONTROL);
        MsixControl {
            enabled: control & bit::MSIX_ENABLE != 0,
            masked: control & bit::MSIX_MASK != 0,
        }
    }

    /// The ATS switches; off without the capability.
    #[must_use]
    pub fn ats(&self) -> AtsControl {
        let control = self.word(self.layout.ats, reg::ATS_CONTROL);
        let [unit, _] = (control & bit::ATS_STU).to_le_bytes();
        AtsControl {
            enabled: control & bit::ATS_ENABLE != 0,
            unit,
        }
    }

    /// The page request switches; off without the capability.
    #[must_use]
    pub fn pri(&self) -> PriControl {
        let Some(at) = self.layout.pri else {
            return PriControl::default();
        };
        let capacity = self.store.u32(at + reg::PRI_CAPACITY);
        PriControl {
            enabled: self.store.u16(at + reg::PRI_CONTROL) & bit::PRI_ENABLE != 0,
            allocation: self.store.u32(at + reg::PRI_ALLOCATION).min(capacity),
        }
    }

    /// The PASID switches; off without the capability.
    #[must_use]
    pub fn pasid(&self) -> PasidControl {
        let control = self.word(self.layout.pasid, reg::PASID_CONTROL);
        let [_, width] = self
            .word(self.layout.pasid, reg::PASID_CAPABILITY)
            .to_le_bytes();
        PasidControl {
            enabled: control & bit::PASID_ENABLE != 0,
            execute: control & bit::PASID_EXECUTE != 0,
            privileged: control & bit::PASID_PRIVILEGED != 0,
            width: width & 0x1f,
        }
    }

    /// A word of a capability, zero without it.
    fn word(&self, capability: Option<u16>, offset: u16) -> u16 {
        capability.map_or(0, |at| self.store.u16(at + offset))
    }

    /// Offsets of the capabilities of [`Builder::vendor`](super::Builder::vendor) and
    /// [`Builder::capability`](super::Builder::capability), in the order in which they were added.
    #[must_use]
    pub fn plain_capabilities(&self) -> &[u16] {
        &self.layout.plain
    }

    /// Shows in STATUS whether the function asks for an interrupt through its pin.
    pub fn set_intx(&mut self, asserted: bool) {
        self.set(reg::STATUS, bit::STATUS_INTX, asserted);
    }

    /// Shows in the page request status whether requests wait for an answer: an interface that is
    /// off has stopped once none does. Linux turns only a stopped interface on.
    pub fn set_pri_outstanding(&mut self, outstanding: bool) {
        if let Some(at) = self.layout.pri {
            let stopped = !outstanding && !self.pri().enabled;
            self.set(at + reg::PRI_STATUS, bit::PRI_STOPPED, stopped);
        }
    }

    /// Turning the interface on is all that a write does to the bit; who has outstanding requests
    /// says so with [`set_pri_outstanding`](Self::set_pri_outstanding).
    fn update_stopped(&mut self, was_enabled: bool) {
        let enabled = self.pri().enabled;
        if enabled != was_enabled {
            self.set_pri_outstanding(enabled);
        }
    }

    /// Shows in the page request status that a group was answered with Response Failure.
    pub fn set_pri_failure(&mut self) {
        if let Some(at) = self.layout.pri {
            self.set(at + reg::PRI_STATUS, bit::PRI_FAILURE, true);
        }
    }

    /// Shows in the page request status that an answer came for no outstanding group.
    pub fn set_pri_unexpected(&mut self) {
        if let Some(at) = self.layout.pri {
            self.set(at + reg::PRI_STATUS, bit::PRI_UNEXPECTED, true);
        }
    }

    /// Changes a register from the inside.
    pub(crate) fn put(&mut self, at: u16, bytes: &[u8]) {
        self.store.put(at, bytes);
    }

    fn set(&mut self, at: u16, mask: u16, on: bool) {
        let old = self.store.u16(at);
        let new = if on { old | mask } else { old & !mask };
        self.store.put(at, &new.to_le_bytes());
    }

    /// The bits that a guest can change at `at`: for tests.
    #[cfg(test)]
    pub(super) fn changeable(&self, at: usize) -> u8 {
        self.store.changeable(at)
    }
}

#[cfg(test)]
mod tests;
