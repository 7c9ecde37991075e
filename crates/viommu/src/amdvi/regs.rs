//! The register file: storage and side-effect rules, with no interrupt line and no lock.
//!
//! Spec: 48882, "MMIO Registers". Every register has 64 bits and is written in 32-bit halves: a 64-bit
//! write is its low half, then its high half.

use super::Caps;
use super::commands::CommandBuffer;
use super::log::{Line, Log, Logged};
use super::record::Record;
use crate::arch::{Interrupt, Ram, Recorded};
use crate::mem::GuestRam;
use iommu_walk::amdvi::Unit as Walk;
use iommu_wire::amdvi::event::{EventCode, RawEvent};
use iommu_wire::amdvi::regs::{
    Control, DeviceTableBase, ExclusionBase, ExclusionLimit, HardwareEventStatus, Status, offset,
};
use iommu_wire::pcie::pri::ResponseCode;
use iopf::Rid;
use rustc_hash::FxBuildHasher;
use std::collections::HashSet;

/// What a register write asks the device to do next.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Walks are to see the registers as they are now.
    pub(super) configure: bool,
    /// Nothing that is cached holds any more.
    pub(super) forget: bool,
    /// Look at the command buffer.
    pub(super) drain: bool,
    /// Raise the interrupt.
    pub(super) raise: bool,
}

/// The one interrupt: vector 0 of the function's MSI.
const INTERRUPT: Interrupt = Interrupt::Vector(0);

/// As an interrupt, if one is due.
pub(super) fn due(raise: bool) -> Option<Interrupt> {
    raise.then_some(INTERRUPT)
}

/// The register file.
#[derive(Debug)]
pub struct Regs {
    caps: Caps,
    control: Control,
    /// The device table, and its segments 1–7.
    tables: [DeviceTableBase; 8],
    exclusion_base: ExclusionBase,
    exclusion_limit: ExclusionLimit,
    hardware_event: [u64; 2],
    hardware_status: HardwareEventStatus,
    auto_response: u8,
    /// ComWaitInt.
    waited: bool,
    wait_line: Line,
    pub(super) commands: CommandBuffer,
    events: Log,
    pages: Log,
    /// Devices whose first I/O page fault was logged since their entry was invalidated (SE).
    told: HashSet<u16, FxBuildHasher>,
}

/// PPR Log Auto Response Register. The response code is in bits 3:0; UNCONFIRMED: VirtualBox has the
/// offset, and uses neither.
const AUTO_RESPONSE: u64 = 0x2080;

impl Regs {
    /// As after reset.
    pub(super) fn new(caps: Caps) -> Self {
        Self {
            caps,
            control: Control::new(),
            tables: [DeviceTableBase::new(); 8],
            exclusion_base: ExclusionBase::new(),
            exclusion_limit: ExclusionLimit::new(),
            hardware_event: [0; 2],
            hardware_status: HardwareEventStatus::new(),
            auto_response: 0,
            waited: false,
            wait_line: Line::default(),
            commands: CommandBuffer::default(),
            events: Log::default(),
            pages: Log::default(),
            told: HashSet::default(),
        }
    }

    /// Goes back to the state after reset.
    pub(super) fn reset(&mut self) {
        *self = Self {
            commands: self.commands.after_reset(),
            ..Self::new(self.caps)
        };
    }

    /// IOMMU Control Register.
    pub(super) const fn control(&self) -> Control {
        self.control
    }

    /// The registers as walks see them.
    pub(super) fn walk(&self) -> Walk {
        let caps = self.caps;
        let walk = Walk::new(caps.features.into_bits(), caps.features2.into_bits())
            .with_control(self.control.into_bits())
            .with_exclusion(
                self.exclusion_base.into_bits(),
                self.exclusion_limit.into_bits(),
            );
        let tables = self.tables.iter().enumerate();
        tables.fold(walk, |walk, (segment, table)| {
            walk.with_segment(segment, table.into_bits())
        })
    }

    /// Reads the 32 bits at `at`, a multiple of 4.
    pub(super) fn read(&self, at: u64) -> u32 {
        half(self.read_wide(at & !7), at & 4 != 0)
    }

    fn read_wide(&self, register: u64) -> u64 {
        let pages = self.caps.features.ppr_sup();
        match register {
            offset::DEVICE_TABLE => self.table(0),
            offset::COMMAND_BASE => self.commands.base(),
            offset::EVENT_BASE => self.events.base(),
            offset::CONTROL => self.control.into_bits(),
            offset::EXCLUSION_BASE => self.exclusion_base.into_bits(),
            offset::EXCLUSION_LIMIT => self.exclusion_limit.into_bits(),
            offset::FEATURES => self.caps.features.into_bits(),
            offset::PPR_BASE if pages => self.pages.base(),
            offset::HARDWARE_EVENT_UPPER => self.hardware_event[0],
            offset::HARDWARE_EVENT_LOWER => self.hardware_event[1],
            offset::HARDWARE_EVENT_STATUS => self.hardware_status.into_bits(),
            offset::DEVICE_TABLE_SEGMENTS..=offset::DEVICE_TABLE_SEGMENT_LAST => {
                self.table(segment(register))
            }
            offset::FEATURES2 => self.caps.features2.into_bits(),
            offset::COMMAND_HEAD => self.commands.head(),
            offset::COMMAND_TAIL => self.commands.tail(),
            offset::EVENT_HEAD => self.events.head(),
            offset::EVENT_TAIL => self.events.tail(),
            offset::STATUS => self.status().into_bits(),
            offset::PPR_HEAD if pages => self.pages.head(),
            offset::PPR_TAIL if pages => self.pages.tail(),
            AUTO_RESPONSE if self.caps.features.ppr_auto_rsp_sup() => u64::from(self.auto_response),
            _ => 0,
        }
    }

    fn table(&self, segment: usize) -> u64 {
        self.tables
            .get(segment)
            .map_or(0, |table| table.into_bits())
    }

    fn status(&self) -> Status {
        Status::new()
            .with_event_overflow(self.events.overflow())
            .with_event_log_int(self.events.logged())
            .with_com_wait_int(self.waited)
            .with_event_log_run(self.events.running())
            .with_cmd_buf_run(self.commands.running())
            .with_ppr_overflow(self.pages.overflow())
            .with_ppr_int(self.pages.logged())
            .with_ppr_log_run(self.pages.running())
    }

    /// Writes the 32 bits at `at`, a multiple of 4.
    pub(super) fn write(&mut self, at: u64, value: u32) -> Effect {
        let (register, high) = (at & !7, at & 4 != 0);
        // What is cleared by a one must not be written back.
        let old = match register {
            offset::STATUS | offset::HARDWARE_EVENT_STATUS => 0,
            _ => self.read_wide(register),
        };
        let value = with_half(old, high, value);
        let pages = self.caps.features.ppr_sup();
        let mut effect = Effect::default();
        match register {
            offset::DEVICE_TABLE => effect.configure = self.set_table(0, value),
            offset::DEVICE_TABLE_SEGMENTS..=offset::DEVICE_TABLE_SEGMENT_LAST
                if self.caps.features.dev_tbl_seg_sup() > 0 =>
            {
                effect.configure = self.set_table(segment(register), value);
            }
            offset::COMMAND_BASE => self.commands.set_base(value),
            offset::EVENT_BASE => self.events.set_base(value),
            offset::CONTROL => return self.set_control(value),
            offset::EXCLUSION_BASE | offset::EXCLUSION_LIMIT => {
                return self.set_exclusion(register, value);
            }
            offset::PPR_BASE if pages => self.pages.set_base(value),
            offset::HARDWARE_EVENT_STATUS => {
                let clear = HardwareEventStatus::from_bits(value).into_bits();
                let left = self.hardware_status.into_bits() & !clear;
                self.hardware_status = HardwareEventStatus::from_bits(left);
            }
            offset::COMMAND_HEAD => self.commands.set_head(value),
            // The upper half is reserved.
            offset::COMMAND_TAIL if !high => {
                self.commands.set_tail(value);
                effect.drain = true;
            }
            offset::EVENT_HEAD => self.events.set_head(value),
            offset::EVENT_TAIL => self.events.set_tail(value),
            offset::STATUS => self.clear(Status::from_bits(value)),
            offset::PPR_HEAD if pages => self.pages.set_head(value),
            offset::PPR_TAIL if pages => self.pages.set_tail(value),
            AUTO_RESPONSE if self.caps.features.ppr_auto_rsp_sup() => {
                let [low, ..] = value.to_le_bytes();
                self.auto_response = low & 0xf;
            }
            _ => {}
        }
        effect
    }

    /// Says whether the table has changed.
    fn set_table(&mut self, segment: usize, value: u64) -> bool {
        let written = DeviceTableBase::from_bits(value);
        let value = DeviceTableBase::new()
            .with_page(written.page())
            // The field of a segment has one bit less.
            .with_size(written.size() & if segment == 0 { 0x1ff } else { 0xff });
        let Some(table) = self.tables.get_mut(segment) else {
            return false;
        };
        let changed = *table != value;
        *table = value;
        changed
    }

    fn set_exclusion(&mut self, register: u64, value: u64) -> Effect {
        let before = (self.exclusion_base, self.exclusion_limit);
        if register == offset::EXCLUSION_BASE {
            let value = ExclusionBase::from_bits(value);
            self.exclusion_base = ExclusionBase::new()
                .with_enabled(value.enabled())
                .with_allow_all(value.allow_all())
                .with_page(value.page());
        } else {
            let value = ExclusionLimit::from_bits(value);
            self.exclusion_limit = ExclusionLimit::new().with_page(value.page());
        }
        let changed = before != (self.exclusion_base, self.exclusion_limit);
        Effect {
            configure: changed,
            forget: changed,
            ..Effect::default()
        }
    }

    /// What software can set of the control register: the bits of features that the unit has.
    fn writable(&self) -> Control {
        let features = self.caps.features;
        let (pages, guest) = (features.ppr_sup(), features.gt_sup());
        let (auto, updates) = (features.ppr_auto_rsp_sup(), features.ga_update_dis_sup());
        Control::new()
            .with_iommu_en(true)
            .with_ht_tun_en(true)
            .with_event_log_en(true)
            .with_event_int_en(true)
            .with_com_wait_int_en(true)
            .with_inv_timeout(7)
            .with_pass_pw(true)
            .with_res_pass_pw(true)
            .with_coherent(true)
            .with_isoc(true)
            .with_cmd_buf_en(true)
            .with_ppr_log_en(pages)
            .with_ppr_int_en(pages)
            .with_ppr_en(pages)
            .with_gt_en(guest)
            .with_dev_tbl_seg_en(if features.dev_tbl_seg_sup() > 0 { 7 } else { 0 })
            .with_ppr_auto_rsp_en(auto)
            .with_ppr_auto_rsp_aon(auto)
            .with_eph_en(features.eph_sup())
            .with_gd_update_dis(updates)
            .with_ga_update_dis(updates)
            .with_gcr3_trp_mode(self.caps.features2.gcr3_trp_mode())
    }

    fn set_control(&mut self, value: u64) -> Effect {
        let before = self.control;
        let mut control = Control::from_bits(value & self.writable().into_bits());
        if control.dev_tbl_seg_en() > self.caps.features.dev_tbl_seg_sup() {
            control.set_dev_tbl_seg_en(before.dev_tbl_seg_en());
        }
        self.control = control;
        let on = control.iommu_en();
        let ran = self.commands.running();
        self.commands.switch(on && control.cmd_buf_en());
        self.events.switch(on && control.event_log_en());
        self.pages.switch(on && control.ppr_log_en());
        let events = self.events.enable_interrupt(control.event_int_en());
        let pages = self.pages.enable_interrupt(control.ppr_int_en());
        let waits = self
            .wait_line
            .enable(control.com_wait_int_en(), self.waited);
        Effect {
            configure: for_walks(before) != for_walks(control),
            // Device table entries are cached with their guest tables, or without.
            forget: before.gt_en() != control.gt_en(),
            drain: self.commands.running() && !ran,
            raise: events || pages || waits,
        }
    }

    fn clear(&mut self, ones: Status) {
        self.events
            .clear(ones.event_overflow(), ones.event_log_int());
        self.pages.clear(ones.ppr_overflow(), ones.ppr_int());
        if ones.com_wait_int() {
            self.waited = false;
            let _ = self.wait_line.condition(false);
        }
    }

    /// A COMPLETION_WAIT with I is done. Says whether an interrupt is due.
    #[must_use]
    pub(super) fn completed(&mut self) -> bool {
        self.waited = true;
        self.wait_line.condition(true)
    }

    /// Records the fault of a request.
    #[inline]
    pub(super) fn record<A: Ram>(&mut self, ram: &GuestRam<A>, record: &Record) -> Recorded {
        let source = record.event.source();
        if record.once && self.told.contains(&source.pci()) {
            return Recorded::Repeated;
        }
        let recorded = self.log(ram, &record.event);
        if record.once && matches!(recorded, Recorded::Yes(_)) {
            self.told.insert(source.pci());
        }
        recorded
    }

    /// Logs an event.
    #[inline]
    pub(super) fn log<A: Ram>(&mut self, ram: &GuestRam<A>, event: &RawEvent) -> Recorded {
        if matches!(
            event.code(),
            EventCode::DEV_TAB_HARDWARE_ERROR
                | EventCode::PAGE_TAB_HARDWARE_ERROR
                | EventCode::COMMAND_HARDWARE_ERROR
        ) {
            self.hardware(event);
        }
        match self.events.push(ram, event.words()) {
            Logged::Yes(raise) => Recorded::Yes(due(raise)),
            Logged::Overflow(raise) => Recorded::Lost(due(raise)),
            Logged::Off => Recorded::Lost(None),
        }
    }

    /// The hardware event registers keep the last of their events.
    #[cold]
    fn hardware(&mut self, event: &RawEvent) {
        if self.caps.features.he_sup() {
            let overflow = self.hardware_status.valid();
            self.hardware_status.set_overflow(overflow);
            self.hardware_status.set_valid(true);
            self.hardware_event = event.words();
        }
    }

    /// A device's entry was invalidated, or all were: its next fault is the first.
    pub(super) fn forget_told(&mut self, device: Option<Rid>) {
        match device {
            Some(device) => {
                self.told.remove(&device.pci());
            }
            None => self.told.clear(),
        }
    }

    /// Logs a page request.
    pub(super) fn log_page<A: Ram>(&mut self, ram: &GuestRam<A>, entry: [u64; 2]) -> Logged {
        self.pages.push(ram, entry)
    }

    /// Whether the PPR log stands still because it has overflowed.
    pub(super) const fn page_log_overflowed(&self) -> bool {
        self.pages.stalled()
    }

    /// The unit's own answer to page requests, if it gives one.
    pub(super) fn auto_response(&self) -> Option<ResponseCode> {
        self.control
            .ppr_auto_rsp_en()
            .then_some(ResponseCode(self.auto_response))
    }
}

/// What of the control register walks look at.
fn for_walks(control: Control) -> Control {
    Control::new()
        .with_iommu_en(control.iommu_en())
        .with_ppr_en(control.ppr_en())
        .with_gt_en(control.gt_en())
        .with_dev_tbl_seg_en(control.dev_tbl_seg_en())
        .with_gd_update_dis(control.gd_update_dis())
        .with_ga_update_dis(control.ga_update_dis())
        .with_gcr3_trp_mode(control.gcr3_trp_mode())
}

/// The number of a segment's register, 1–7.
fn segment(register: u64) -> usize {
    let number = (register - offset::DEVICE_TABLE_SEGMENTS) / 8 + 1;
    usize::try_from(number).unwrap_or(usize::MAX)
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
