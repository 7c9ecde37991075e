//! The register file: storage and side-effect rules, with no interrupt line and no lock.
//!
//! Spec: IHI 0070, "Register formats". What a register ignores while the unit is on ("Guarded") it ignores
//! here, as SMMUv3.2 asks for; earlier versions leave it open. Updates are done at once: acknowledge
//! registers say what their siblings say. A 64-bit register is written in halves: a 64-bit write is its
//! low half, then its high half.

use super::Caps;
use super::commands::{CommandQueue, Place};
use super::interrupt::{Errors, Interrupts, Kinds};
use super::queue::{Output, Pushed};
use super::record::Record;
use super::stalls::{Stalls, Waiting};
use crate::arch::{Interrupt, Queued, Ram, Recorded};
use crate::mem::GuestRam;
use iommu_walk::smmuv3::{Features, Unit as Walk};
use iommu_wire::pcie::pri::PageMessage;
use iommu_wire::smmuv3::page_request::Entry;
use iommu_wire::smmuv3::regs::{
    Aidr, CommandError, Cr0, Cr1, Cr2, Gbpa, Gerror, StrtabBase, StrtabBaseCfg, offset,
};
use iopf::{PageRequest, Response, Rid};
use viommu_api::StallTag;

/// What a register write asks the device to do next.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Walks are to see the registers as they are now.
    pub(super) configure: bool,
    /// Translation was switched off: stalled transactions end.
    pub(super) release: bool,
    /// Look at the Command queue.
    pub(super) drain: bool,
    /// Look at the records that wait for room.
    pub(super) flush: bool,
}

/// What came of [`Regs::flush`].
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// Interrupts that are due: of the Event queue, of the errors.
    pub(super) due: [Option<Interrupt>; 2],
    /// Transactions to be retried.
    pub(super) retry: Vec<(Rid, StallTag)>,
}

/// The register file.
#[derive(Debug)]
pub struct Regs {
    caps: Caps,
    cr0: Cr0,
    cr1: u32,
    cr2: Cr2,
    gbpa: Gbpa,
    table: StrtabBase,
    table_config: StrtabBaseCfg,
    errors: Errors,
    interrupts: Interrupts,
    pub(super) commands: CommandQueue,
    events: Output<32>,
    pages: Output<16>,
    pub(super) stalls: Stalls,
    /// A CMD_ATC_INV since the last CMD_SYNC found no device.
    unanswered: bool,
}

impl Regs {
    /// As after reset.
    pub(super) fn new(caps: Caps) -> Self {
        let kinds = Kinds {
            messages: caps.idr0.msi(),
            wires: caps.wires,
        };
        Self {
            caps,
            cr0: Cr0::new(),
            cr1: 0,
            cr2: Cr2::new(),
            // SHCFG: use incoming.
            gbpa: Gbpa::new().with_shcfg(1),
            table: StrtabBase::new(),
            table_config: StrtabBaseCfg::new(),
            errors: Errors::default(),
            interrupts: Interrupts::new(kinds),
            commands: CommandQueue::new(caps.idr1.cmdqs()),
            events: Output::new(caps.idr1.eventqs()),
            pages: Output::new(caps.idr1.priqs()),
            stalls: Stalls::new(caps.idr5.stall_max()),
            unanswered: false,
        }
    }

    /// Goes back to the state after reset.
    pub(super) fn reset(&mut self) {
        let commands = self.commands.after_reset(self.caps.idr1.cmdqs());
        *self = Self {
            commands,
            ..Self::new(self.caps)
        };
    }

    /// Whether translation is on.
    pub(super) const fn enabled(&self) -> bool {
        self.cr0.smmuen()
    }

    /// The registers as walks see them.
    pub(super) const fn walk(&self) -> Walk {
        let caps = &self.caps;
        Walk::new(Features {
            idr0: caps.idr0.into_bits(),
            idr1: caps.idr1.into_bits(),
            idr3: caps.idr3.into_bits(),
            idr5: caps.idr5.into_bits(),
        })
        .with_control(self.cr0.into_bits(), self.cr2.into_bits())
        .with_global_bypass(self.gbpa.into_bits())
        .with_stream_table(self.table.into_bits(), self.table_config.into_bits())
    }

    /// Reads the 32 bits at `at`, a multiple of 4.
    pub(super) const fn read(&self, at: u64) -> u32 {
        match at {
            offset::IDR0 => self.caps.idr0.into_bits(),
            offset::IDR1 => self.caps.idr1.into_bits(),
            offset::IDR3 => self.caps.idr3.into_bits(),
            offset::IDR5 => self.caps.idr5.into_bits(),
            // SMMUv3.1.
            offset::AIDR => Aidr::new().with_minor(1).into_bits(),
            offset::CR0 | offset::CR0ACK => self.cr0.into_bits(),
            offset::CR1 => self.cr1,
            offset::CR2 => self.cr2.into_bits(),
            offset::GBPA => self.gbpa.into_bits(),
            offset::IRQ_CTRL | offset::IRQ_CTRLACK => self.interrupts.ctrl(),
            offset::GERROR => self.errors.raised(),
            offset::GERRORN => self.errors.acknowledged(),
            offset::GERROR_IRQ_CFG1 => self.interrupts.errors.data(),
            offset::GERROR_IRQ_CFG2 => self.interrupts.errors.config(),
            offset::STRTAB_BASE_CFG => self.table_config.into_bits(),
            offset::CMDQ_PROD => self.commands.prod(),
            offset::CMDQ_CONS => self.commands.cons(),
            offset::EVENTQ_IRQ_CFG1 => self.interrupts.events.data(),
            offset::EVENTQ_IRQ_CFG2 => self.interrupts.events.config(),
            offset::EVENTQ_PROD => self.events.prod(),
            offset::EVENTQ_CONS => self.events.cons(),
            offset::PRIQ_IRQ_CFG1 if self.caps.idr0.pri() => self.interrupts.pages.data(),
            offset::PRIQ_IRQ_CFG2 if self.caps.idr0.pri() => self.interrupts.pages.config(),
            offset::PRIQ_PROD if self.caps.idr0.pri() => self.pages.prod(),
            offset::PRIQ_CONS if self.caps.idr0.pri() => self.pages.cons(),
            offset::ID_REGS..=offset::ID_REGS_LAST => component(at),
            _ => half(self.read_wide(at & !7), at & 4 != 0),
        }
    }

    /// Reads a register of 64 bits.
    const fn read_wide(&self, register: u64) -> u64 {
        match register {
            offset::GERROR_IRQ_CFG0 => self.interrupts.errors.addr(),
            offset::STRTAB_BASE => self.table.into_bits(),
            offset::CMDQ_BASE => self.commands.base(),
            offset::EVENTQ_BASE => self.events.base(),
            offset::EVENTQ_IRQ_CFG0 => self.interrupts.events.addr(),
            offset::PRIQ_BASE if self.caps.idr0.pri() => self.pages.base(),
            offset::PRIQ_IRQ_CFG0 if self.caps.idr0.pri() => self.interrupts.pages.addr(),
            _ => 0,
        }
    }

    /// Writes the 32 bits at `at`, a multiple of 4.
    pub(super) fn write(&mut self, at: u64, value: u32) -> Effect {
        let on = self.cr0.smmuen();
        let pages = self.caps.idr0.pri();
        let mut effect = Effect::default();
        match at {
            offset::CR0 => return self.set_cr0(value),
            offset::CR1 => self.set_cr1(value),
            offset::CR2 if !on => {
                let recorded = Cr2::from_bits(value).recinvsid();
                self.cr2 = Cr2::new().with_recinvsid(recorded);
            }
            offset::GBPA => effect.configure = self.set_gbpa(Gbpa::from_bits(value)),
            offset::IRQ_CTRL => self.interrupts.set_ctrl(value, pages),
            offset::GERRORN => return self.acknowledge(value),
            offset::GERROR_IRQ_CFG1 => self.interrupts.errors.set_data(value),
            offset::GERROR_IRQ_CFG2 => self.interrupts.errors.set_config(value),
            offset::STRTAB_BASE_CFG if !on => {
                let value = StrtabBaseCfg::from_bits(value);
                let mut config = StrtabBaseCfg::new().with_log2size(value.log2size());
                if self.caps.idr0.st_level() > 0 {
                    config = config.with_split(value.split()).with_fmt(value.fmt());
                }
                self.table_config = config;
            }
            offset::CMDQ_PROD => {
                self.commands.set_prod(value);
                effect.drain = true;
            }
            offset::CMDQ_CONS => self.commands.set_cons(value),
            offset::EVENTQ_IRQ_CFG1 => self.interrupts.events.set_data(value),
            offset::EVENTQ_IRQ_CFG2 => self.interrupts.events.set_config(value),
            offset::EVENTQ_PROD => self.events.set_prod(value),
            offset::EVENTQ_CONS => {
                self.events.set_cons(value);
                effect.flush = true;
            }
            offset::PRIQ_IRQ_CFG1 if pages => self.interrupts.pages.set_data(value),
            offset::PRIQ_IRQ_CFG2 if pages => self.interrupts.pages.set_config(value),
            offset::PRIQ_PROD if pages => self.pages.set_prod(value),
            offset::PRIQ_CONS if pages => self.pages.set_cons(value),
            _ => {
                let (register, high) = (at & !7, at & 4 != 0);
                let value = with_half(self.read_wide(register), high, value);
                self.write_wide(register, value);
            }
        }
        effect
    }

    /// Writes a register of 64 bits.
    fn write_wide(&mut self, register: u64, value: u64) {
        let pages = self.caps.idr0.pri();
        match register {
            offset::GERROR_IRQ_CFG0 => self.interrupts.errors.set_addr(value),
            offset::STRTAB_BASE if !self.cr0.smmuen() => {
                let value = StrtabBase::from_bits(value);
                self.table = StrtabBase::new()
                    .with_addr(value.addr())
                    .with_ra(value.ra());
            }
            offset::CMDQ_BASE => self.commands.set_base(value),
            offset::EVENTQ_BASE => self.events.set_base(value),
            offset::EVENTQ_IRQ_CFG0 => self.interrupts.events.set_addr(value),
            offset::PRIQ_BASE if pages => self.pages.set_base(value),
            offset::PRIQ_IRQ_CFG0 if pages => self.interrupts.pages.set_addr(value),
            _ => {}
        }
    }

    fn set_cr0(&mut self, value: u32) -> Effect {
        let before = self.cr0;
        let value = Cr0::from_bits(value);
        self.cr0 = Cr0::new()
            .with_smmuen(value.smmuen())
            .with_priqen(value.priqen() && self.caps.idr0.pri())
            .with_eventqen(value.eventqen())
            .with_cmdqen(value.cmdqen())
            .with_atschk(value.atschk() && self.caps.idr0.ats());
        if before.cmdqen() != self.cr0.cmdqen() {
            // A queue does not answer for what was in it before.
            self.unanswered = false;
        }
        self.commands.switch(self.cr0.cmdqen());
        self.events.switch(self.cr0.eventqen());
        self.pages.switch(self.cr0.priqen());
        Effect {
            configure: before.smmuen() != self.cr0.smmuen()
                || before.atschk() != self.cr0.atschk()
                || before.priqen() != self.cr0.priqen(),
            release: before.smmuen() && !self.cr0.smmuen(),
            drain: !before.cmdqen() && self.cr0.cmdqen(),
            flush: !before.eventqen() && self.cr0.eventqen(),
        }
    }

    const fn set_cr1(&mut self, value: u32) {
        let mut writable = 0;
        if !self.cr0.smmuen() {
            writable |= Cr1::TABLES;
        }
        if !(self.cr0.cmdqen() || self.cr0.eventqen() || self.cr0.priqen()) {
            writable |= Cr1::QUEUES;
        }
        self.cr1 = self.cr1 & !writable | value & writable;
    }

    /// Says whether walks may see something else.
    fn set_gbpa(&mut self, value: Gbpa) -> bool {
        if !value.update() {
            return false;
        }
        let before = self.gbpa;
        self.gbpa = Gbpa::new()
            .with_mem_attr(value.mem_attr())
            .with_mtcfg(value.mtcfg())
            .with_alloccfg(value.alloccfg())
            .with_shcfg(value.shcfg())
            .with_privcfg(value.privcfg())
            .with_instcfg(value.instcfg())
            .with_abort(value.abort());
        before.abort() != self.gbpa.abort()
    }

    /// Writes SMMU_GERRORN.
    fn acknowledge(&mut self, value: u32) -> Effect {
        let (stopped, lost) = (self.stopped(), self.event_error());
        self.errors.acknowledge(value);
        Effect {
            drain: stopped && !self.stopped(),
            flush: lost && !self.event_error(),
            ..Effect::default()
        }
    }

    /// Whether the Command queue stands still at an error.
    pub(super) const fn stopped(&self) -> bool {
        self.errors.active(Gerror::new().with_cmdq_err(true))
    }

    const fn event_error(&self) -> bool {
        self.errors.active(Gerror::new().with_eventq_abt_err(true))
    }

    const fn page_error(&self) -> bool {
        self.errors.active(Gerror::new().with_priq_abt_err(true))
    }

    /// A global error came up. Says what interrupt is due.
    #[cold]
    fn error(&mut self, which: Gerror) -> Option<Interrupt> {
        if self.errors.activate(which) {
            self.interrupts.errors.raise()
        } else {
            None
        }
    }

    /// The next command, if there is one, and the queue does not stand still.
    pub(super) fn next(&self) -> Option<Place> {
        if self.stopped() {
            return None;
        }
        self.commands.next()
    }

    /// A command cannot be done: the queue stops at it. Says what interrupt is due.
    pub(super) fn fail(&mut self, error: CommandError) -> Option<Interrupt> {
        self.commands.fail(error);
        self.error(Gerror::new().with_cmdq_err(true))
    }

    /// A CMD_ATC_INV found no device: the next CMD_SYNC says so.
    pub(super) const fn miss_device(&mut self) {
        self.unanswered = true;
    }

    /// Whether a CMD_ATC_INV found no device since this was last asked.
    pub(super) const fn missed_device(&mut self) -> bool {
        std::mem::replace(&mut self.unanswered, false)
    }

    /// Puts a record into the Event queue.
    #[inline]
    fn append<A: Ram>(
        &mut self,
        ram: &GuestRam<A>,
        record: [u64; 4],
    ) -> (Pushed, Option<Interrupt>) {
        if self.event_error() {
            return (Pushed::Off, None);
        }
        let pushed = self.events.push(ram, record);
        let due = match pushed {
            Pushed::Yes { first: true } => self.interrupts.events.raise(),
            Pushed::Aborted => self.error(Gerror::new().with_eventq_abt_err(true)),
            _ => None,
        };
        (pushed, due)
    }

    /// Records the fault of a request, and holds the request if it is one to be held.
    #[inline]
    pub(super) fn record<A: Ram>(
        &mut self,
        ram: &GuestRam<A>,
        record: &Record,
        hold: bool,
    ) -> Recorded {
        if hold
            && record.stalls
            && let Some(tag) = self.stalls.hold(record.event.stream())
        {
            let event = record.event.with_stall(tag.0);
            if self.stalls.any_waits() {
                self.stalls.wait(tag, event);
                return Recorded::Stalled(tag, None);
            }
            let (pushed, due) = self.append(ram, event.words());
            if !matches!(pushed, Pushed::Yes { .. }) {
                self.stalls.wait(tag, event);
            }
            return Recorded::Stalled(tag, due);
        }
        let (pushed, due) = self.append(ram, record.event.words());
        match pushed {
            Pushed::Yes { .. } => Recorded::Yes(due),
            Pushed::Full => {
                self.events.lose();
                Recorded::Lost(due)
            }
            Pushed::Aborted | Pushed::Off => Recorded::Lost(due),
        }
    }

    /// Writes the records that wait, as far as there is room.
    pub(super) fn flush<A: Ram>(&mut self, ram: &GuestRam<A>) -> Flushed {
        let mut flushed = Flushed::default();
        while self.stalls.any_waits() && self.events.writable() && !self.event_error() {
            match self.stalls.first_waiting() {
                Some(Waiting::Retry(stream, tag)) => {
                    self.stalls.settle();
                    flushed.retry.push((stream, tag));
                }
                Some(Waiting::Record(record)) => {
                    let (pushed, due) = self.append(ram, record.words());
                    if !matches!(pushed, Pushed::Yes { .. }) {
                        flushed.due[1] = due;
                        break;
                    }
                    self.stalls.settle();
                    flushed.due[0] = flushed.due[0].or(due);
                }
                None => break,
            }
        }
        flushed
    }

    /// Puts a page request into the PRI queue.
    ///
    /// Spec: IHI 0070, "PRI queue overflow", "Miscellaneous". A queue that is off or has met an error
    /// answers *Response Failure*, one that is full *Success*: the device tries again.
    pub(super) fn page<A: Ram>(
        &mut self,
        ram: &GuestRam<A>,
        stream: Rid,
        request: &PageRequest,
    ) -> Queued {
        if !self.cr0.smmuen() || !self.cr0.priqen() || self.page_error() {
            return Queued::Refused(Some(Response::Failure));
        }
        let entry = Entry {
            stream,
            message: PageMessage::Request(*request),
        }
        .encode();
        let pushed = if self.pages.overflowed() {
            Pushed::Full
        } else {
            self.pages.push(ram, [entry.head.get(), entry.page.get()])
        };
        let on_last = self.interrupts.pages.last_only();
        let last = on_last && request.last;
        let due = |raise: bool| raise.then(|| self.interrupts.pages.raise()).flatten();
        match pushed {
            Pushed::Yes { first } => Queued::Yes(due(last || first && !on_last)),
            Pushed::Full => {
                let interrupt = due(last);
                self.pages.lose();
                Queued::Lost {
                    answer: Some(Response::Success),
                    interrupt,
                }
            }
            Pushed::Aborted => Queued::Lost {
                answer: Some(Response::Failure),
                interrupt: self.error(Gerror::new().with_priq_abt_err(true)),
            },
            Pushed::Off => Queued::Refused(Some(Response::Failure)),
        }
    }
}

/// The CoreSight identification registers: CIDR0–3 say that the others are there, which have no part
/// number of anyone's.
const fn component(at: u64) -> u32 {
    match at {
        0xff0 => 0x0d,
        0xff4 => 0xf0,
        0xff8 => 0x05,
        0xffc => 0xb1,
        _ => 0,
    }
}

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
