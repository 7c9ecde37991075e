//! The registers behind BAR 0: storage and side-effect rules, with no device behind them.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0,
//! "Configuration and Control Registers (BAR0)".

use super::check::Rules;
use super::command::{self, Error, Gates, RawCommand};
use super::error::{Register, SoftwareError};
use super::tables::{GROUP_SIZE, Group, WQ_SIZE, Wq, WqState};
use super::{BATCH_SHIFT, ENGINES, GROUPS, TOTAL_WQ_SIZE, TRANSFER_SHIFT, VECTORS, WQS};

/// Offsets of the registers, and where this device puts its tables.
pub(super) mod offset {
    pub(in super::super) const VERSION: u64 = 0x00;
    pub(in super::super) const GENCAP: u64 = 0x10;
    pub(in super::super) const WQCAP: u64 = 0x20;
    pub(in super::super) const GRPCAP: u64 = 0x30;
    pub(in super::super) const ENGCAP: u64 = 0x38;
    pub(in super::super) const OPCAP: u64 = 0x40;
    pub(in super::super) const OFFSETS: u64 = 0x60;
    pub(in super::super) const GENCFG: u64 = 0x80;
    pub(in super::super) const GENCTRL: u64 = 0x88;
    pub(in super::super) const GENSTS: u64 = 0x90;
    pub(in super::super) const INTCAUSE: u64 = 0x98;
    pub(in super::super) const COMMAND: u64 = 0xa0;
    pub(in super::super) const COMMAND_STATUS: u64 = 0xa8;
    pub(in super::super) const COMMAND_CAP: u64 = 0xb0;
    pub(in super::super) const SWERROR: u64 = 0xc0;
    pub(in super::super) const SWERROR_END: u64 = 0xe0;
    pub(in super::super) const PERMISSIONS: u64 = 0x400;
    pub(in super::super) const GROUPS: u64 = 0x600;
    pub(in super::super) const WQS: u64 = 0x800;
    pub(in super::super) const MSIX_TABLE: u64 = 0x4000;
    pub(in super::super) const MSIX_PENDING: u64 = 0x5000;
}

/// Block on fault, cache control hints, command capabilities, configuration.
const GENCAP: u64 =
    1 | 1 << 2 | 1 << 4 | (TRANSFER_SHIFT as u64) << 16 | (BATCH_SHIFT as u64) << 21 | 1 << 31;
/// Dedicated mode, ATS disable, occupancy; configuration registers of 32 bytes.
const WQCAP: u64 = TOTAL_WQ_SIZE as u64 | (WQS as u64) << 16 | 1 << 49 | 1 << 50 | 1 << 52;
/// The number of read buffers says nothing while their controls are not supported, but Linux
/// takes it for its defaults.
const GRPCAP: u64 = GROUPS as u64 | 96 << 8;
/// No-op to compare pattern.
const OPCAP: u64 = 0x7f;
const OFFSETS: u64 =
    offset::GROUPS >> 8 | (offset::WQS >> 8) << 16 | (offset::PERMISSIONS >> 8) << 32;

/// User-mode interrupts.
const GENCFG_BITS: u32 = 1 << 12;
/// Interrupts for software errors and for the halt state.
const GENCTRL_BITS: u32 = 3;
const GENCTRL_ERROR: u32 = 1;
const GENCTRL_HALT: u32 = 2;
const CAUSE_ERROR: u32 = 1;
const CAUSE_COMMAND: u32 = 1 << 1;
const CAUSE_HALT: u32 = 1 << 4;
const PERMISSION_BITS: u32 = 0xffff_f00c;
const PERMISSION_IGNORE: u32 = 1 << 2;
const PERMISSION_PASID_ENABLE: u32 = 1 << 3;
const ACTIVE: u32 = 1 << 31;

/// State of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DeviceState {
    #[default]
    Disabled = 0,
    Enabled = 1,
    /// Being disabled or reset.
    Draining = 2,
    /// Waits for a reset.
    Halted = 3,
}

/// The register file.
#[derive(Clone, Debug, Default)]
pub(super) struct Regs {
    pub(super) state: DeviceState,
    gencfg: u32,
    genctrl: u32,
    cause: u32,
    command_status: u32,
    error: Register,
    permissions: [u32; VECTORS as usize],
    pub(super) groups: [Group; GROUPS],
    pub(super) wqs: [Wq; WQS],
}

impl Regs {
    /// The word of 64 bits that begins at byte `at`, a multiple of 8.
    fn qword(&self, at: u64) -> u64 {
        match at {
            offset::VERSION => 0x100,
            offset::GENCAP => GENCAP,
            offset::WQCAP => WQCAP,
            offset::GRPCAP => GRPCAP,
            offset::ENGCAP => ENGINES as u64,
            offset::OPCAP => OPCAP,
            offset::OFFSETS => OFFSETS,
            offset::GENCFG => self.gencfg.into(),
            offset::GENCTRL => self.genctrl.into(),
            offset::GENSTS => self.state as u64,
            offset::INTCAUSE => self.cause.into(),
            offset::COMMAND_STATUS => self.command_status.into(),
            offset::COMMAND_CAP => command::SUPPORTED,
            offset::SWERROR..offset::SWERROR_END => self.error.word(at - offset::SWERROR),
            _ => self.table_qword(at),
        }
    }

    fn table_qword(&self, at: u64) -> u64 {
        if let Some((n, _)) = within(at, offset::PERMISSIONS, 8, self.permissions.len()) {
            self.permissions[n].into()
        } else if let Some((n, inner)) = within(at, offset::GROUPS, GROUP_SIZE, GROUPS) {
            self.groups[n].word(inner)
        } else if let Some((n, inner)) = within(at, offset::WQS, WQ_SIZE, WQS) {
            let (low, high) = (self.wqs[n].word(inner), self.wqs[n].word(inner + 4));
            u64::from(low) | u64::from(high) << 32
        } else {
            0
        }
    }

    /// Reads at byte `at`, any length and alignment.
    pub(super) fn read(&self, at: u64, data: &mut [u8]) {
        for (i, byte) in (0u64..).zip(data.iter_mut()) {
            let at = at.saturating_add(i);
            let bytes = self.qword(at & !7).to_le_bytes();
            *byte = bytes[usize::try_from(at & 7).unwrap_or(0)];
        }
    }

    /// Writes at byte `at`, any length and alignment. What comes back is a command to carry out.
    #[must_use]
    pub(super) fn write(&mut self, at: u64, data: &[u8]) -> Option<RawCommand> {
        let mut command = None;
        let (mut at, mut data) = (at, data);
        while !data.is_empty() {
            let (word, start) = (at & !3, usize::try_from(at & 3).unwrap_or(0));
            let len = data.len().min(4 - start);
            let (part, rest) = data.split_at(len);
            let (mut value, mut mask) = ([0; 4], [0; 4]);
            value[start..start + len].copy_from_slice(part);
            mask[start..start + len].fill(0xff);
            let (value, mask) = (u32::from_le_bytes(value), u32::from_le_bytes(mask));
            command = command.or(self.write_word(word, value, mask));
            let Some(next) = at.checked_add(len as u64) else {
                break;
            };
            (at, data) = (next, rest);
        }
        command
    }

    /// Writes the bits `mask` of `value` into one aligned word.
    fn write_word(&mut self, at: u64, value: u32, mask: u32) -> Option<RawCommand> {
        let merge = |old: u32, bits: u32| old & !(mask & bits) | value & mask & bits;
        let disabled = self.state == DeviceState::Disabled;
        match at {
            offset::GENCFG if disabled => self.gencfg = merge(self.gencfg, GENCFG_BITS),
            offset::GENCTRL => self.genctrl = merge(self.genctrl, GENCTRL_BITS),
            offset::INTCAUSE => self.cause &= !(value & mask),
            // A command is one access; a part of one is none.
            offset::COMMAND if mask == u32::MAX => return Some(RawCommand::from_bits(value)),
            offset::SWERROR => self.error.acknowledge(u64::from(value & mask)),
            _ => self.write_table(at, value, mask),
        }
        None
    }

    fn write_table(&mut self, at: u64, value: u32, mask: u32) {
        let disabled = self.state == DeviceState::Disabled;
        let bits = PERMISSION_BITS & mask;
        if let Some((n, 0)) = within(at, offset::PERMISSIONS, 8, self.permissions.len()) {
            self.permissions[n] = self.permissions[n] & !bits | value & bits;
        } else if let Some((n, inner)) = within(at, offset::GROUPS, GROUP_SIZE, GROUPS) {
            if disabled {
                let shift = (inner & 4) * 8;
                let (value, mask) = (u64::from(value) << shift, u64::from(mask) << shift);
                self.groups[n].write(inner & !7, value, mask);
            }
        } else if let Some((n, inner)) = within(at, offset::WQS, WQ_SIZE, WQS) {
            self.wqs[n].write(inner, value, mask, disabled);
        }
    }

    /// Notes an error; true if vector 0 is to be raised.
    #[must_use]
    pub(super) fn record(&mut self, error: &SoftwareError) -> bool {
        let wanted = self.error.record(error) && self.genctrl & GENCTRL_ERROR != 0;
        if wanted {
            self.cause |= CAUSE_ERROR;
        }
        wanted
    }

    /// Stops the device until it is reset; true if vector 0 is to be raised.
    #[must_use]
    pub(super) fn halt(&mut self) -> bool {
        self.state = DeviceState::Halted;
        let wanted = self.genctrl & GENCTRL_HALT != 0;
        if wanted {
            self.cause |= CAUSE_HALT;
        }
        wanted
    }

    pub(super) fn command_begins(&mut self) {
        self.command_status = ACTIVE;
    }

    /// A command is over; true if vector 0 is to be raised.
    #[must_use]
    pub(super) fn command_ends(&mut self, interrupt: bool, error: Option<Error>) -> bool {
        self.command_status = error.map_or(0, |error| error.0.into());
        if interrupt {
            self.cause |= CAUSE_COMMAND;
        }
        interrupt
    }

    /// What the reset command leaves: no configuration, but the command status and the error.
    pub(super) fn reset_software(&mut self) {
        *self = Self {
            command_status: self.command_status,
            error: self.error,
            ..Self::default()
        };
    }

    /// Whether a completion interrupt of vector `handle` is delivered.
    pub(super) fn delivers(&self, handle: u16) -> bool {
        let permission = self.permissions.get(usize::from(handle));
        permission.is_some_and(|bits| bits & PERMISSION_IGNORE == 0)
    }

    /// What descriptors of work queue `n` may ask for.
    pub(super) fn rules(&self, n: usize) -> Rules {
        let wq = &self.wqs[n];
        let (mode, limits) = (wq.mode, wq.limits);
        let user = mode.pasid_enable() && !mode.privileged();
        let pasid = wq.pasid();
        let may = |permission: u32| match pasid {
            None => permission & PERMISSION_PASID_ENABLE == 0,
            Some(pasid) => {
                permission & PERMISSION_PASID_ENABLE != 0 && permission >> 12 == pasid.get()
            }
        };
        let handles = self.permissions.iter().rev();
        Rules {
            block_on_fault: mode.block_on_fault(),
            interrupts: !user || self.gencfg & GENCFG_BITS != 0,
            max_transfer: 1 << limits.transfer_shift(),
            max_batch: 1 << limits.batch_shift(),
            handles: handles.fold(0, |set, permission| set << 1 | u64::from(may(*permission))),
        }
    }

    /// Enables the device if its configuration is sound.
    pub(super) fn enable_device(&mut self, gates: &Gates) -> Option<Error> {
        if self.state != DeviceState::Disabled {
            return Some(Error::DEVICE_NOT_DISABLED);
        }
        let error = command::device_error(gates, &self.groups, &self.wqs);
        if error.is_none() {
            self.state = DeviceState::Enabled;
        }
        error
    }

    /// Enables a work queue if its configuration is sound.
    pub(super) fn enable_wq(&mut self, n: usize, gates: &Gates) -> Option<Error> {
        if self.state != DeviceState::Enabled {
            return Some(Error::DEVICE_NOT_ENABLED);
        }
        let error = command::wq_error(gates, &self.wqs[n]);
        if error.is_none() {
            self.wqs[n].state = WqState::Enabled;
        }
        error
    }
}

/// Which of `count` entries of `size` bytes each, from `base` on, holds byte `at`, and where in it.
fn within(at: u64, base: u64, size: u64, count: usize) -> Option<(usize, u64)> {
    let inner = at.checked_sub(base)?;
    let n = usize::try_from(inner / size).ok()?;
    (n < count).then_some((n, inner % size))
}
