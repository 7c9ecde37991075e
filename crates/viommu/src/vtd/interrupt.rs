//! The four registers of one event's interrupt.

use crate::arch;
use iommu_wire::vtd::regs::EventControl;

/// A message to send: `data` written to `addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    pub(super) addr: u64,
    pub(super) data: u32,
}

impl From<Msi> for arch::Interrupt {
    fn from(Msi { addr, data }: Msi) -> Self {
        Self::Message { addr, data }
    }
}

/// Control, data, address and upper address register of one event, in the order in which they lie.
///
/// Intel VT-d, "Fault Event Control Register" and its siblings: a condition while the mask is set
/// stays pending, and clearing the mask sends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interrupt {
    masked: bool,
    pending: bool,
    data: u32,
    addr: u32,
    upper: u32,
}

impl Interrupt {
    /// As after reset: masked.
    pub(super) const fn new() -> Self {
        Self {
            masked: true,
            pending: false,
            data: 0,
            addr: 0,
            upper: 0,
        }
    }

    const fn message(&self) -> Msi {
        Msi {
            addr: (self.upper as u64) << 32 | self.addr as u64,
            data: self.data,
        }
    }

    /// An interrupt condition has come up. Returns what is to be sent now.
    pub(super) fn raise(&mut self) -> Option<Msi> {
        self.pending = self.masked;
        (!self.masked).then(|| self.message())
    }

    /// Software has seen to the condition: what was pending need not be sent.
    pub(super) fn serviced(&mut self) {
        self.pending = false;
    }

    /// Reads the register `at` bytes (0, 4, 8, 12) from the first.
    pub(super) fn read(&self, at: u64) -> u32 {
        match at {
            0 => EventControl::new()
                .with_masked(self.masked)
                .with_pending(self.pending)
                .into_bits(),
            4 => self.data,
            8 => self.addr,
            _ => self.upper,
        }
    }

    /// Writes the register `at` bytes (0, 4, 8, 12) from the first. Returns what is to be sent now.
    pub(super) fn write(&mut self, at: u64, value: u32) -> Option<Msi> {
        match at {
            0 => {
                self.masked = EventControl::from_bits(value).masked();
                if self.pending && !self.masked {
                    self.pending = false;
                    return Some(self.message());
                }
            }
            4 => self.data = value,
            8 => self.addr = value & !3,
            _ => self.upper = value,
        }
        None
    }
}
