//! Administrative commands, and the checks before something is enabled. No state.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0,
//! "Administrative Commands", "Device Enable Checks", "WQ Enable Checks" and "Administrative
//! Command Error Codes".

use super::tables::{Group, Wq, WqState};
use super::{BATCH_SHIFT, TOTAL_WQ_SIZE, TRANSFER_SHIFT, WQS};
use bitfield_struct::bitfield;
use iopf::Pasid;

/// What software writes to the command register.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(super) struct RawCommand {
    /// `[19:0]`
    #[bits(20)]
    pub(super) operand: u32,
    /// `[24:20]`
    #[bits(5)]
    pub(super) code: u8,
    #[bits(6)]
    _res25: u8,
    /// `[31]` an interrupt at the end.
    pub(super) interrupt: bool,
}

/// Which descriptors a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// Bit `n` set: those of work queue `n`.
    Wqs(u64),
    Pasid(Pasid),
}

/// A command, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    EnableDevice,
    DisableDevice,
    ResetDevice,
    EnableWq(usize),
    DisableWqs(u64),
    ResetWqs(u64),
    /// Waits for all that was submitted before; `abort`: abandons what has not started.
    Wait {
        scope: Scope,
        abort: bool,
    },
}

/// A command's error code; zero is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Error(pub(super) u8);

impl Error {
    pub(super) const UNSUPPORTED: Self = Self(0x01);
    pub(super) const WQ_INDEX: Self = Self(0x02);
    pub(super) const HARDWARE: Self = Self(0x03);
    pub(super) const HALTED: Self = Self(0x05);
    pub(super) const DEVICE_NOT_DISABLED: Self = Self(0x10);
    pub(super) const BUS_MASTER: Self = Self(0x12);
    pub(super) const PAGE_REQUESTS: Self = Self(0x13);
    pub(super) const TOTAL_SIZE: Self = Self(0x14);
    pub(super) const GROUP_HALF: Self = Self(0x15);
    pub(super) const GROUP_WQ: Self = Self(0x16);
    pub(super) const GROUP_ENGINE: Self = Self(0x17);
    pub(super) const DEVICE_NOT_ENABLED: Self = Self(0x20);
    pub(super) const WQ_NOT_DISABLED: Self = Self(0x21);
    pub(super) const WQ_SIZE: Self = Self(0x22);
    pub(super) const WQ_MODE: Self = Self(0x24);
    pub(super) const BLOCK_ON_FAULT: Self = Self(0x25);
    pub(super) const PASID_ENABLE: Self = Self(0x26);
    pub(super) const MAX_BATCH: Self = Self(0x27);
    pub(super) const MAX_TRANSFER: Self = Self(0x28);
    pub(super) const PRIVILEGED: Self = Self(0x2a);
    pub(super) const ALREADY_DISABLED: Self = Self(0x31);
    pub(super) const WQ_NOT_ENABLED: Self = Self(0x32);
}

/// Codes of the commands that exist here, one bit each: enable device to abort PASID.
pub(super) const SUPPORTED: u64 = 0x1ffe;

/// Understands a command.
pub(super) fn decode(raw: RawCommand) -> Result<Command, Error> {
    let operand = raw.operand();
    let wait = |scope, abort| Command::Wait { scope, abort };
    Ok(match raw.code() {
        1 => Command::EnableDevice,
        2 => Command::DisableDevice,
        3 => wait(Scope::All, false),
        4 => wait(Scope::All, true),
        5 => Command::ResetDevice,
        6 => Command::EnableWq(wq_index(operand)?),
        7 => Command::DisableWqs(wq_set(operand)?),
        8 => wait(Scope::Wqs(wq_set(operand)?), false),
        9 => wait(Scope::Wqs(wq_set(operand)?), true),
        10 => Command::ResetWqs(wq_set(operand)?),
        11 => wait(Scope::Pasid(Pasid::truncate(operand)), false),
        12 => wait(Scope::Pasid(Pasid::truncate(operand)), true),
        _ => return Err(Error::UNSUPPORTED),
    })
}

fn wq_index(operand: u32) -> Result<usize, Error> {
    let index = usize::try_from(operand & 0xff).unwrap_or(usize::MAX);
    if index < WQS {
        Ok(index)
    } else {
        Err(Error::WQ_INDEX)
    }
}

/// Bits 15:0 choose among the sixteen work queues of group 19:16; there is one such group.
fn wq_set(operand: u32) -> Result<u64, Error> {
    let set = u64::from(operand);
    if set >> WQS == 0 {
        Ok(set)
    } else {
        Err(Error::WQ_INDEX)
    }
}

/// The PCI controls that matter to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gates {
    pub(super) bus_master: bool,
    pub(super) ats: bool,
    pub(super) page_requests: bool,
    /// Page requests that may be outstanding.
    pub(super) allocation: u32,
    pub(super) pasid: bool,
    pub(super) privileged: bool,
}

/// "Device Enable Checks".
pub(super) fn device_error(gates: &Gates, groups: &[Group], wqs: &[Wq]) -> Option<Error> {
    if !gates.bus_master {
        return Some(Error::BUS_MASTER);
    }
    if gates.page_requests && gates.allocation == 0 {
        return Some(Error::PAGE_REQUESTS);
    }
    if wqs.iter().map(|wq| u64::from(wq.size)).sum::<u64>() > u64::from(TOTAL_WQ_SIZE) {
        return Some(Error::TOTAL_SIZE);
    }
    let (mut seen_wqs, mut seen_engines) = (0, 0);
    for group in groups {
        if (group.wqs() == 0) != (group.engines() == 0) {
            return Some(Error::GROUP_HALF);
        }
        if group.has_foreign_wqs() || seen_wqs & group.wqs() != 0 {
            return Some(Error::GROUP_WQ);
        }
        if group.has_foreign_engines() || seen_engines & group.engines() != 0 {
            return Some(Error::GROUP_ENGINE);
        }
        seen_wqs |= group.wqs();
        seen_engines |= group.engines();
    }
    let lost = |(n, wq): (usize, &Wq)| (wq.size != 0) != (seen_wqs >> n & 1 != 0);
    wqs.iter().enumerate().any(lost).then_some(Error::GROUP_WQ)
}

/// "WQ Enable Checks", for an enabled device.
pub(super) fn wq_error(gates: &Gates, wq: &Wq) -> Option<Error> {
    let (mode, limits) = (wq.mode, wq.limits);
    let broken = [
        (wq.state != WqState::Disabled, Error::WQ_NOT_DISABLED),
        (wq.size == 0, Error::WQ_SIZE),
        (!mode.dedicated(), Error::WQ_MODE),
        (
            mode.block_on_fault() && !gates.page_requests,
            Error::BLOCK_ON_FAULT,
        ),
        (mode.pasid_enable() && !gates.pasid, Error::PASID_ENABLE),
        (wq.privileged() && !gates.privileged, Error::PRIVILEGED),
        (
            !(1..=BATCH_SHIFT).contains(&limits.batch_shift()),
            Error::MAX_BATCH,
        ),
        (
            limits.transfer_shift() > TRANSFER_SHIFT,
            Error::MAX_TRANSFER,
        ),
    ];
    broken
        .into_iter()
        .find_map(|(is, error)| is.then_some(error))
}
