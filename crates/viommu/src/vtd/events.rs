//! Fault recording: FRCD_REG, FSTS_REG, FECTL_REG and its siblings, IQERCD_REG.
//!
//! Spec: Intel VT-d, "Primary Fault Logging", "Primary Fault Event", "Fault Status Register".

use super::interrupt::{Interrupt, Msi};
use crate::arch::Recorded;
use iommu_wire::vtd::event::{FaultHigh, RawFault};
use iommu_wire::vtd::regs::{FaultStatus, QueueError, QueueErrorRecord};
use zerocopy::little_endian::U64;

/// The fault recording registers and their event.
///
/// Registers are filled in a ring. When the next one is still in use the fault is lost and PFO says
/// so; until software clears PFO, later faults are lost too.
#[derive(Debug)]
pub(super) struct Events {
    records: Box<[RawFault]>,
    /// The register that the next fault goes to.
    next: usize,
    /// How many registers hold a fault.
    held: usize,
    /// The register that got the first fault since none was held.
    first: usize,
    overflow: bool,
    queue_error: bool,
    timeout: bool,
    error_record: QueueErrorRecord,
    pub(super) interrupt: Interrupt,
}

impl Events {
    /// With `count` registers, all free.
    pub(super) fn new(count: u16) -> Self {
        Self {
            records: vec![RawFault::default(); usize::from(count)].into(),
            next: 0,
            held: 0,
            first: 0,
            overflow: false,
            queue_error: false,
            timeout: false,
            error_record: QueueErrorRecord::new(),
            interrupt: Interrupt::new(),
        }
    }

    /// Records a fault, by the words that a register is to hold.
    #[inline]
    pub(super) fn record(&mut self, fault: RawFault) -> Recorded {
        let count = self.records.len();
        let quiet = !self.any();
        let free = |slot: &&mut RawFault| !FaultHigh::from_bits(slot.high.get()).fault();
        let slot = self.records.get_mut(self.next).filter(free);
        let (false, Some(slot)) = (self.overflow, slot) else {
            // Some register holds a fault, so this is no new interrupt condition.
            self.overflow = true;
            return Recorded::Lost(None);
        };
        *slot = fault;
        if self.held == 0 {
            self.first = self.next;
        }
        self.held += 1;
        self.next = if self.next + 1 == count {
            0
        } else {
            self.next + 1
        };
        Recorded::Yes(
            quiet
                .then(|| self.interrupt.raise())
                .flatten()
                .map(Into::into),
        )
    }

    /// Translation went off: the next fault goes to the first register.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
    }

    /// The invalidation queue stopped at a bad descriptor.
    pub(super) fn queue_error(&mut self, error: QueueError) -> Option<Msi> {
        let quiet = !self.any();
        if !self.queue_error {
            self.error_record.set_error(error);
        }
        self.queue_error = true;
        quiet.then(|| self.interrupt.raise()).flatten()
    }

    /// Nobody completed a device-TLB invalidation sent to `source`.
    pub(super) fn timeout(&mut self, source: u16) -> Option<Msi> {
        let quiet = !self.any();
        if !self.timeout {
            self.error_record.set_timeout_source(source);
        }
        self.timeout = true;
        quiet.then(|| self.interrupt.raise()).flatten()
    }

    /// Whether the invalidation queue must stand still.
    pub(super) const fn queue_stopped(&self) -> bool {
        self.queue_error || self.timeout
    }

    /// IQERCD_REG.
    pub(super) const fn error_record(&self) -> u64 {
        self.error_record.into_bits()
    }

    /// Whether any field of FSTS_REG that raises an event is set.
    const fn any(&self) -> bool {
        self.held > 0 || self.overflow || self.queue_error || self.timeout
    }

    /// FSTS_REG.
    pub(super) fn status(&self) -> u32 {
        FaultStatus::new()
            .with_pfo(self.overflow)
            .with_ppf(self.held > 0)
            .with_iqe(self.queue_error)
            .with_ite(self.timeout)
            // At most 256 registers.
            .with_fri(u8::try_from(self.first).unwrap_or(0))
            .into_bits()
    }

    /// Writes FSTS_REG. Says whether the invalidation queue may go on.
    pub(super) fn clear(&mut self, value: u32) -> bool {
        let clear = FaultStatus::from_bits(value);
        let stopped = self.queue_stopped();
        self.overflow &= !clear.pfo();
        self.queue_error &= !clear.iqe();
        self.timeout &= !clear.ite();
        if !self.queue_error {
            self.error_record.set_error(QueueError::NONE);
        }
        if !self.timeout {
            self.error_record.set_timeout_source(0);
        }
        if !self.any() {
            self.interrupt.serviced();
        }
        stopped && !self.queue_stopped()
    }

    /// Reads 32 bits, `at` bytes from the first recording register.
    pub(super) fn read_record(&self, at: u64) -> u32 {
        let (record, part) = self.locate(at);
        let Some(record) = record.and_then(|index| self.records.get(index)) else {
            return 0;
        };
        let half = if part < 2 { record.low } else { record.high };
        let [a, b, c, d, e, f, g, h] = half.get().to_le_bytes();
        u32::from_le_bytes(if part & 1 == 0 {
            [a, b, c, d]
        } else {
            [e, f, g, h]
        })
    }

    /// Writes 32 bits, `at` bytes from the first recording register: bit 127 is cleared by a one.
    pub(super) fn write_record(&mut self, at: u64, value: u32) {
        let (record, part) = self.locate(at);
        let record = record.and_then(|index| self.records.get_mut(index));
        let (Some(record), 3, true) = (record, part, value >> 31 != 0) else {
            return;
        };
        let high = FaultHigh::from_bits(record.high.get());
        if high.fault() {
            record.high = U64::new(high.with_fault(false).into_bits());
            self.held = self.held.saturating_sub(1);
            if !self.any() {
                self.interrupt.serviced();
            }
        }
    }

    /// Which register, and which 32 bits of it, 0 to 3.
    fn locate(&self, at: u64) -> (Option<usize>, u64) {
        let index = usize::try_from(at / 16).ok();
        (
            index.filter(|index| *index < self.records.len()),
            at % 16 / 4,
        )
    }
}
