//! Interrupts: who raises them, and the global errors, which raise one.
//!
//! Spec: IHI 0070, "Interrupts and notifications", "Global error recording", "SMMU_IRQ_CTRL",
//! "SMMU_GERROR_IRQ_CFG0" and its siblings.
//!
//! Each source has a wire and a message. A unit that has both sends the message where software has given
//! it an address, and pulses the wire where not (the specification has the wire pulse all the same, for
//! whoever listens to it).

use crate::arch::Interrupt;
use iommu_wire::smmuv3::regs::{Gerror, IrqCtrl, MessageAddress, MessageConfig};

/// Lines of the wires, in the order in which QEMU numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wire(pub u16);

impl Wire {
    /// The Event queue is no longer empty.
    pub const EVENTQ: Self = Self(0);
    /// The PRI queue has something to say.
    pub const PRIQ: Self = Self(1);
    /// A CMD_SYNC is complete.
    pub const CMD_SYNC: Self = Self(2);
    /// A global error came up.
    pub const GERROR: Self = Self(3);
}

/// What kinds of interrupt a unit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    /// SMMU_IDR0.MSI.
    pub(super) messages: bool,
    pub(super) wires: bool,
}

/// A source: SMMU_*_IRQ_CFG0–2, and its enable bit.
#[derive(Debug)]
pub(super) struct Source {
    kinds: Kinds,
    wire: Wire,
    on: bool,
    addr: MessageAddress,
    data: u32,
    config: MessageConfig,
}

impl Source {
    pub(super) const fn new(kinds: Kinds, wire: Wire) -> Self {
        Self {
            kinds,
            wire,
            on: false,
            addr: MessageAddress::new(),
            data: 0,
            config: MessageConfig::new(),
        }
    }

    /// What is due, now that there is a reason.
    #[inline]
    pub(super) const fn raise(&self) -> Option<Interrupt> {
        if !self.on {
            return None;
        }
        if self.kinds.messages && self.addr.addr() != 0 {
            return Some(Interrupt::Message {
                addr: self.addr.addr() << 2,
                data: self.data,
            });
        }
        if self.kinds.wires {
            return Some(Interrupt::Wire(self.wire.0));
        }
        None
    }

    /// LO, of the PRI queue.
    pub(super) const fn last_only(&self) -> bool {
        self.config.last_only()
    }

    /// The enable bit.
    pub(super) const fn switch(&mut self, on: bool) {
        self.on = on;
    }

    /// SMMU_*_IRQ_CFG0.
    pub(super) const fn addr(&self) -> u64 {
        self.addr.into_bits()
    }
    /// SMMU_*_IRQ_CFG1.
    pub(super) const fn data(&self) -> u32 {
        self.data
    }
    /// SMMU_*_IRQ_CFG2.
    pub(super) const fn config(&self) -> u32 {
        self.config.into_bits()
    }

    /// Writes SMMU_*_IRQ_CFG0, unless the source is on, or there are no messages.
    pub(super) const fn set_addr(&mut self, value: u64) {
        if !self.on && self.kinds.messages {
            self.addr = MessageAddress::new().with_addr(MessageAddress::from_bits(value).addr());
        }
    }
    /// Writes SMMU_*_IRQ_CFG1, unless the source is on, or there are no messages.
    pub(super) const fn set_data(&mut self, value: u32) {
        if !self.on && self.kinds.messages {
            self.data = value;
        }
    }
    /// Writes SMMU_*_IRQ_CFG2, unless the source is on. LO is there without messages, too, and for the
    /// PRI queue alone.
    pub(super) const fn set_config(&mut self, value: u32) {
        if self.on {
            return;
        }
        let value = MessageConfig::from_bits(value);
        let mut config = MessageConfig::new();
        if self.kinds.messages {
            config = config.with_mem_attr(value.mem_attr()).with_sh(value.sh());
        }
        if self.wire.0 == Wire::PRIQ.0 {
            config = config.with_last_only(value.last_only());
        }
        self.config = config;
    }
}

/// SMMU_GERROR and SMMU_GERRORN: an error is active while its bits differ.
#[derive(Debug, Default)]
pub(super) struct Errors {
    raised: Gerror,
    acknowledged: Gerror,
}

impl Errors {
    /// The bits that a unit has: those of errors that the model can have, and SFM_ERR and those of
    /// messages, which it never sets.
    const BITS: u32 = 0x1fd;

    /// Whether one of these errors is active.
    pub(super) const fn active(&self, which: Gerror) -> bool {
        (self.raised.into_bits() ^ self.acknowledged.into_bits()) & which.into_bits() != 0
    }

    /// Makes an error active. Says whether it was not.
    #[must_use]
    pub(super) const fn activate(&mut self, which: Gerror) -> bool {
        if self.active(which) {
            return false;
        }
        self.raised = Gerror::from_bits(self.raised.into_bits() ^ which.into_bits());
        true
    }

    /// SMMU_GERROR.
    pub(super) const fn raised(&self) -> u32 {
        self.raised.into_bits()
    }
    /// SMMU_GERRORN.
    pub(super) const fn acknowledged(&self) -> u32 {
        self.acknowledged.into_bits()
    }
    /// Writes SMMU_GERRORN.
    pub(super) const fn acknowledge(&mut self, value: u32) {
        self.acknowledged = Gerror::from_bits(value & Self::BITS);
    }
}

/// SMMU_IRQ_CTRL, and what it switches.
#[derive(Debug)]
pub(super) struct Interrupts {
    ctrl: IrqCtrl,
    pub(super) events: Source,
    pub(super) pages: Source,
    pub(super) errors: Source,
}

impl Interrupts {
    pub(super) const fn new(kinds: Kinds) -> Self {
        Self {
            ctrl: IrqCtrl::new(),
            events: Source::new(kinds, Wire::EVENTQ),
            pages: Source::new(kinds, Wire::PRIQ),
            errors: Source::new(kinds, Wire::GERROR),
        }
    }

    /// SMMU_IRQ_CTRL and SMMU_IRQ_CTRLACK.
    pub(super) const fn ctrl(&self) -> u32 {
        self.ctrl.into_bits()
    }

    /// Writes SMMU_IRQ_CTRL. What happened before a source was on raises nothing.
    pub(super) const fn set_ctrl(&mut self, value: u32, pages: bool) {
        let value = IrqCtrl::from_bits(value);
        self.ctrl = IrqCtrl::new()
            .with_gerror(value.gerror())
            .with_priq(value.priq() && pages)
            .with_eventq(value.eventq());
        self.events.switch(self.ctrl.eventq());
        self.pages.switch(self.ctrl.priq());
        self.errors.switch(self.ctrl.gerror());
    }
}
