//! The event log's handler.
//!
//! After `iommu_print_event()` of Linux `drivers/iommu/amd/iommu.c`.

use super::hardware::Hardware;
use super::log::Log;
use crate::fault_log::FaultLog;
use crate::ram::Ram;
use iopf::{Iova, Pasid, Rid};
use std::fmt;

/// An event as the guest read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The device; 0 in an event of a command.
    pub rid: Rid,
    /// Event code, bits 63:60.
    pub code: u8,
    /// Flags, bits 59:48.
    pub flags: u16,
    /// The domain, or the PASID where the flags have GN.
    pub number: u32,
    /// Bits 127:64.
    pub addr: u64,
    /// Tag of an INVALID_PPR_REQUEST, with its last bit.
    pub tag: u16,
}

/// GN of an INVALID_PPR_REQUEST. Linux `EVENT_FLAG_PPR_GN`.
const PPR_GN: u16 = 0x200;

impl Seen {
    fn decode([low, high]: [u64; 2]) -> Self {
        let bits = |at: u32, width: u32| low >> at & ((1 << width) - 1);
        let code = u8::try_from(bits(60, 4)).unwrap_or(0);
        let number = if code == 9 {
            bits(16, 16) | bits(42, 4) << 16
        } else {
            bits(32, 16) | bits(16, 4) << 16
        };
        Self {
            rid: Rid::from_pci(u16::try_from(bits(0, 16)).unwrap_or(0)),
            code,
            flags: u16::try_from(bits(48, 12)).unwrap_or(0),
            number: u32::try_from(number).unwrap_or(0),
            addr: high,
            tag: u16::try_from(bits(32, 10)).unwrap_or(0),
        }
    }

    /// The PASID, where the event has one (GN).
    #[must_use]
    pub fn pasid(&self) -> Option<Pasid> {
        let guest = match self.code {
            1 | 2 | 4 | 8 => self.flags & 1 != 0,
            9 => self.flags & PPR_GN != 0,
            _ => false,
        };
        guest.then(|| Pasid::truncate(self.number))
    }
}

impl fmt::Display for Seen {
    /// The line Linux prints, the device as where it has no driver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AMD-Vi: Event logged [")?;
        let Self {
            rid, number, addr, ..
        } = self;
        match self.code {
            1 => write!(
                f,
                "ILLEGAL_DEV_TABLE_ENTRY device=0000:{rid} pasid={number:#07x}"
            )?,
            2 => write!(
                f,
                "IO_PAGE_FAULT device=0000:{rid} domain={:#06x}",
                number & 0xffff
            )?,
            3 => write!(f, "DEV_TAB_HARDWARE_ERROR device=0000:{rid}")?,
            4 => write!(
                f,
                "PAGE_TAB_HARDWARE_ERROR device=0000:{rid} pasid={number:#06x}"
            )?,
            5 => return write!(f, "ILLEGAL_COMMAND_ERROR address={addr:#x}]"),
            6 => f.write_str("COMMAND_HARDWARE_ERROR")?,
            7 => return write!(f, "IOTLB_INV_TIMEOUT device=0000:{rid} address={addr:#x}]"),
            8 => write!(
                f,
                "INVALID_DEVICE_REQUEST device=0000:{rid} pasid={number:#07x}"
            )?,
            9 => write!(
                f,
                "INVALID_PPR_REQUEST device=0000:{rid} pasid={number:#07x}"
            )?,
            _ => write!(f, "UNKNOWN code={:#x}", self.code)?,
        }
        write!(f, " address={addr:#x} flags={:#06x}", self.flags)?;
        if self.code == 9 {
            write!(f, " tag={:#05x}", self.tag)?;
        }
        f.write_str("]")
    }
}

/// Reads every pending event and clears the status.
pub(crate) fn handle(hw: &Hardware, ram: &Ram, events: &Log, log: &mut FaultLog<Seen>) {
    log.interrupts += 1;
    let batch = events.read(hw, ram);
    for entry in batch.entries {
        let seen = Seen::decode(entry);
        log.add(seen.rid, seen.code, Iova(seen.addr), seen);
    }
    log.overflows += u64::from(batch.restarted);
}
