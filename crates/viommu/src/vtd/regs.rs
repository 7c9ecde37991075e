//! The register file: storage and side-effect rules, with no memory, no interrupt line and no lock.
//!
//! Spec: Intel VT-d, "Register Descriptions". Every register is made of 32-bit parts: a 64-bit write
//! is its low part, then its high part, which is also the order in which software writes halves.

use super::commands::InvalidationQueue;
use super::events::Events;
use super::interrupt::Msi;
use super::page_requests::PageQueue;
use iommu_wire::vtd::command::{ContextScope, IotlbScope, Pages, Range};
use iommu_wire::vtd::regs::{
    Cap, ContextCommand, Ecap, GlobalCommand, GlobalStatus, Granularity, InvalidateAddress,
    IotlbCommand, QueueError, RootTableAddress, TableMode, Version, offset,
};
use iopf::{Iova, Rid};

/// What a register write asks the device to do next.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing beyond the new value.
    None,
    /// Send a message.
    Send(Msi),
    /// Apply what the global command changed, then call [`Regs::commanded`].
    Global {
        /// The root table pointer was latched.
        root: bool,
        /// Translation went on or off.
        translation: bool,
        /// Invalidation by queue went on.
        queue: bool,
    },
    /// Look at the invalidation queue.
    Drain,
    /// Forget contexts, then call [`Regs::contexts_forgotten`].
    ForgetContexts(ContextScope),
    /// Forget translations, then call [`Regs::translations_forgotten`].
    ForgetTranslations(IotlbScope),
}

impl From<Option<Msi>> for Effect {
    fn from(msi: Option<Msi>) -> Self {
        msi.map_or(Self::None, Self::Send)
    }
}

/// The register file.
#[derive(Debug)]
pub struct Regs {
    cap: Cap,
    ecap: Ecap,
    /// What software commanded, and what GSTS_REG shows of it: what is done.
    status: GlobalStatus,
    shown: GlobalStatus,
    /// What software wrote, and what a set-root-pointer command latched of it.
    root: RootTableAddress,
    latched: RootTableAddress,
    context_command: ContextCommand,
    iotlb_command: IotlbCommand,
    invalidate_address: InvalidateAddress,
    pub(super) events: Events,
    pub(super) queue: InvalidationQueue,
    pub(super) pages: PageQueue,
    /// A device-TLB invalidation went to a function that is not there.
    pub(super) unanswered: Option<u16>,
}

impl Regs {
    /// As after reset.
    pub(super) fn new(cap: Cap, ecap: Ecap) -> Self {
        Self {
            cap,
            ecap,
            status: GlobalStatus::new(),
            shown: GlobalStatus::new(),
            root: RootTableAddress::new(),
            latched: RootTableAddress::new(),
            context_command: ContextCommand::new(),
            iotlb_command: IotlbCommand::new(),
            invalidate_address: InvalidateAddress::new(),
            events: Events::new(cap.fault_count()),
            queue: InvalidationQueue::new(),
            pages: PageQueue::new(),
            unanswered: None,
        }
    }

    /// Goes back to the state after reset.
    pub(super) fn reset(&mut self) {
        *self = Self {
            queue: self.queue.after_reset(),
            ..Self::new(self.cap, self.ecap)
        };
    }

    /// Whether translation is on.
    pub(super) const fn translating(&self) -> bool {
        self.status.tes()
    }

    /// The root table pointer in force.
    pub(super) const fn root_in_force(&self) -> RootTableAddress {
        self.latched
    }

    /// What the root table in force holds.
    pub(super) const fn mode(&self) -> TableMode {
        self.latched.mode()
    }

    /// Bytes of the register window: whole pages, up to the last recording register.
    pub(super) fn window(cap: Cap, ecap: Ecap) -> u64 {
        let faults = cap.fault_offset() + u64::from(cap.fault_count()) * 16;
        let iotlb = ecap.iotlb_offset() + 16;
        faults.max(iotlb).next_multiple_of(0x1000)
    }

    fn fault_record(&self, at: u64) -> Option<u64> {
        let bytes = u64::from(self.cap.fault_count()) * 16;
        at.checked_sub(self.cap.fault_offset())
            .filter(|at| *at < bytes)
    }

    /// Reads the 32 bits at `at`, a multiple of 4.
    pub(super) fn read(&self, at: u64) -> u32 {
        if let Some(at) = self.fault_record(at) {
            return self.events.read_record(at);
        }
        let iotlb = self.ecap.iotlb_offset();
        let (register, high) = (at & !7, at & 4 != 0);
        if register == iotlb {
            return half(self.invalidate_address.into_bits(), high);
        }
        if register == iotlb + 8 {
            return half(self.iotlb_command.into_bits(), high);
        }
        match at {
            offset::VER => Version::new().with_major(1).into_bits(),
            offset::GSTS => self.shown.into_bits(),
            offset::FSTS => self.events.status(),
            offset::FECTL..=offset::FEUADDR => self.events.interrupt.read(at - offset::FECTL),
            offset::ICS => self.queue.status(),
            offset::IECTL..=offset::IEUADDR => self.queue.interrupt.read(at - offset::IECTL),
            offset::PRS if self.ecap.prs() => self.pages.status(),
            offset::PECTL..=offset::PEUADDR if self.ecap.prs() => {
                self.pages.interrupt.read(at - offset::PECTL)
            }
            _ => half(self.read_wide(register), high),
        }
    }

    fn read_wide(&self, register: u64) -> u64 {
        match register {
            offset::CAP => self.cap.into_bits(),
            offset::ECAP => self.ecap.into_bits(),
            offset::RTADDR => self.root.into_bits(),
            offset::CCMD => self.context_command.into_bits(),
            offset::IQH => self.queue.head(),
            offset::IQT => self.queue.tail(),
            offset::IQA => self.queue.address(),
            offset::IQERCD => self.events.error_record(),
            offset::PQH if self.ecap.prs() => self.pages.head(),
            offset::PQT if self.ecap.prs() => self.pages.tail(),
            offset::PQA if self.ecap.prs() => self.pages.address(),
            _ => 0,
        }
    }

    /// Writes the 32 bits at `at`, a multiple of 4.
    pub(super) fn write(&mut self, at: u64, value: u32) -> Effect {
        if let Some(at) = self.fault_record(at) {
            self.events.write_record(at, value);
            return Effect::None;
        }
        let iotlb = self.ecap.iotlb_offset();
        let (register, high) = (at & !7, at & 4 != 0);
        if register == iotlb {
            let old = self.invalidate_address.into_bits();
            self.invalidate_address = InvalidateAddress::from_bits(with_half(old, high, value));
            return Effect::None;
        }
        if register == iotlb + 8 {
            let old = self.iotlb_command.into_bits();
            return self.iotlb_command(with_half(old, high, value));
        }
        match at {
            offset::GCMD => return self.global_command(value),
            offset::FSTS => {
                return if self.events.clear(value) {
                    Effect::Drain
                } else {
                    Effect::None
                };
            }
            offset::FECTL..=offset::FEUADDR => {
                let msi = self.events.interrupt.write(at - offset::FECTL, value);
                return msi.into();
            }
            offset::ICS => self.queue.clear(value),
            offset::IECTL..=offset::IEUADDR => {
                return self.queue.interrupt.write(at - offset::IECTL, value).into();
            }
            offset::PRS if self.ecap.prs() => self.pages.clear(value),
            offset::PECTL..=offset::PEUADDR if self.ecap.prs() => {
                return self.pages.interrupt.write(at - offset::PECTL, value).into();
            }
            _ => return self.write_wide(register, high, value),
        }
        Effect::None
    }

    fn write_wide(&mut self, register: u64, high: bool, value: u32) -> Effect {
        let value = with_half(self.read_wide(register), high, value);
        match register {
            offset::RTADDR => self.root = RootTableAddress::from_bits(value),
            offset::CCMD => return self.context_command(value),
            // Its upper half is reserved.
            offset::IQT if !high => {
                return match self.queue.set_tail(value) {
                    Ok(()) => Effect::Drain,
                    Err(error) => self.queue_error(error),
                };
            }
            offset::IQA => {
                if let Err(error) = self.queue.set_address(value, self.ecap) {
                    return self.queue_error(error);
                }
            }
            offset::PQH if self.ecap.prs() => self.pages.set_head(value),
            offset::PQT if self.ecap.prs() => self.pages.set_tail(value),
            offset::PQA if self.ecap.prs() => self.pages.set_address(value),
            _ => {}
        }
        Effect::None
    }

    /// The queue's registers make no sense.
    fn queue_error(&mut self, error: QueueError) -> Effect {
        self.events.queue_error(error).into()
    }

    fn global_command(&mut self, value: u32) -> Effect {
        let command = GlobalCommand::from_bits(value);
        let before = self.status;
        if command.srtp() {
            self.latched = self.root;
            self.status.set_rtps(true);
            self.shown.set_rtps(false);
        }
        self.status.set_tes(command.te());
        self.status.set_qies(command.qie());
        if before.qies() != command.qie() {
            self.queue.enable(command.qie());
        }
        if before.tes() && !command.te() {
            self.events.rewind();
        }
        // WBF: nothing is buffered (CAP.RWBF). SIRTP, IRE, CFI: no interrupt remapping (ECAP.IR).
        // SFL, EAFL: no fault log (CAP.AFL).
        Effect::Global {
            root: command.srtp(),
            translation: before.tes() != command.te(),
            queue: command.qie() && !before.qies(),
        }
    }

    /// What an [`Effect::Global`] asks for is done.
    pub(super) fn commanded(&mut self) {
        self.shown = self.status;
    }

    /// Whether an invalidation by register is a correct request: only legacy mode has them, and one
    /// granularity is reserved. An incorrect one is ignored and says so.
    fn takes_commands(&self, requested: Granularity) -> bool {
        self.mode() == TableMode::LEGACY && requested != NOTHING
    }

    fn context_command(&mut self, value: u64) -> Effect {
        self.context_command = ContextCommand::from_bits(value);
        let command = self.context_command;
        if !command.invalidate() {
            return Effect::None;
        }
        if !self.takes_commands(command.requested()) {
            self.context_command.set_actual(NOTHING);
            self.context_command.set_invalidate(false);
            return Effect::None;
        }
        Effect::ForgetContexts(match command.requested() {
            Granularity::DOMAIN => ContextScope::Domain(command.domain()),
            Granularity::SELECTIVE => ContextScope::Device {
                domain: command.domain(),
                source: Rid::from_pci(command.source()),
                function_mask: command.function_mask(),
            },
            _ => ContextScope::Global,
        })
    }

    /// The contexts of a [`Effect::ForgetContexts`] are forgotten.
    pub(super) fn contexts_forgotten(&mut self) {
        let asked = self.context_command.requested();
        self.context_command.set_actual(asked);
        self.context_command.set_invalidate(false);
    }

    fn iotlb_command(&mut self, value: u64) -> Effect {
        self.iotlb_command = IotlbCommand::from_bits(value);
        let command = self.iotlb_command;
        if !command.invalidate() {
            return Effect::None;
        }
        let wide = command.requested() == Granularity::SELECTIVE
            && self.invalidate_address.mask() > self.cap.mamv();
        if wide || !self.takes_commands(command.requested()) {
            self.iotlb_command.set_actual(NOTHING);
            self.iotlb_command.set_invalidate(false);
            return Effect::None;
        }
        Effect::ForgetTranslations(match command.requested() {
            Granularity::DOMAIN => IotlbScope::Domain(command.domain()),
            Granularity::SELECTIVE => {
                let address = self.invalidate_address;
                let size_shift = address.mask().min(52) + 12;
                let range = Range {
                    addr: Iova(address.page() << 12),
                    size_shift,
                };
                let leaf_only = address.leaf_only();
                IotlbScope::Pages(command.domain(), Pages { range, leaf_only })
            }
            _ => IotlbScope::Global,
        })
    }

    /// The translations of a [`Effect::ForgetTranslations`] are forgotten.
    pub(super) fn translations_forgotten(&mut self) {
        let asked = self.iotlb_command.requested();
        self.iotlb_command.set_actual(asked);
        self.iotlb_command.set_invalidate(false);
    }
}

/// The actual granularity of a command that was ignored, and the reserved one to ask for.
const NOTHING: Granularity = Granularity(0);

const fn half(value: u64, high: bool) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    u32::from_le_bytes(if high { [e, f, g, h] } else { [a, b, c, d] })
}

const fn with_half(old: u64, high: bool, value: u32) -> u64 {
    if high {
        old & 0xffff_ffff | (value as u64) << 32
    } else {
        old & !0xffff_ffff | value as u64
    }
}
