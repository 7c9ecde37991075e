//! A record of the event queue.
//!
//! Names and places are those of Linux, `arm-smmu-v3.h`, `EVTQ_*`.

use iommu_walk::smmuv3::Failure;
use iommu_wire::smmuv3::event::EventNumber;
use iopf::Dma;
use std::fmt;
use viommu::smmuv3::fault_event;

/// Of word 0.
const ID: u64 = 0xff;
/// Of word 1: RnW, S2, CLASS, TTRnW.
pub(crate) const READ: u64 = 1 << 35;
pub(crate) const STAGE_2: u64 = 1 << 39;
pub(crate) const CLASS: u64 = 0b11 << 40;
pub(crate) const TABLE_READ: u64 = 1 << 44;

/// CLASS of a table of stage 1.
pub(crate) const OF_TABLE: u64 = 0b01 << 40;

/// The four words of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event(pub(crate) [u64; 4]);

impl Event {
    /// A record without any address.
    pub(crate) fn new(id: EventNumber, stream: u16) -> Self {
        Self([u64::from(id.0) | u64::from(stream) << 32, 0, 0, 0])
    }

    /// What is recorded of a request that ended so, as our model does.
    pub(crate) fn of(dma: &Dma, failure: &Failure) -> Self {
        Self(fault_event(dma, failure).words())
    }

    /// What happened.
    pub(crate) const fn id(&self) -> EventNumber {
        EventNumber((self.0[0] & ID) as u8)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.id().name().unwrap_or("?")
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [head, how, input, other] = self.0;
        write!(
            f,
            "{} of stream {:#06x}, {} S2 {} CLASS {}, rest {:#x} {:#x}, input {input:#x}, other {other:#x}",
            self.name(),
            head >> 32,
            if how & READ == 0 { "write" } else { "read" },
            how >> 39 & 1,
            how >> 40 & 0b11,
            head & 0xffff_ff00,
            how & !(READ | STAGE_2 | CLASS),
        )
    }
}
