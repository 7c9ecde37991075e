//! A record of the event queue.
//!
//! Ours is put together here from the cause of a failure, by the field tables of Arm IHI 0070, "Event
//! records"; names as Linux has them, `arm-smmu-v3.h`, `EVTQ_*`.

use iommu_walk::smmuv3::{Class, Failure, Second};
use iommu_wire::smmuv3::event::EventNumber;
use iopf::{Access, Dma};
use std::fmt;

/// Of word 0.
const ID: u64 = 0xff;
/// Of word 1: RnW, S2, CLASS, TTRnW.
pub(crate) const READ: u64 = 1 << 35;
pub(crate) const STAGE_2: u64 = 1 << 39;
pub(crate) const CLASS: u64 = 0b11 << 40;
pub(crate) const TABLE_READ: u64 = 1 << 44;

/// CLASS of a context descriptor, of a table of stage 1, and of the request's address.
pub(crate) const OF_CONTEXT: u64 = 0b00 << 40;
pub(crate) const OF_TABLE: u64 = 0b01 << 40;
pub(crate) const OF_INPUT: u64 = 0b10 << 40;

/// FetchAddr, and IPA.
const FETCH: u64 = 0x00ff_ffff_ffff_fff8;
const INTERMEDIATE: u64 = 0x00ff_ffff_ffff_f000;

/// The four words of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event(pub(crate) [u64; 4]);

impl Event {
    /// A record without any address.
    pub(crate) fn new(id: EventNumber, stream: u16) -> Self {
        Self([u64::from(id.0) | u64::from(stream) << 32, 0, 0, 0])
    }

    /// What is recorded of a request that ended so.
    pub(crate) fn of(dma: &Dma, failure: &Failure) -> Self {
        let cause = failure.cause;
        let mut event = Self::new(
            EventNumber(cause.reason().0.to_le_bytes()[0]),
            dma.requester.pci(),
        );
        let [_, how, input, other] = &mut event.0;
        if cause.has_input_address() {
            *input = dma.addr.0;
            *how |= if dma.access == Access::READ { READ } else { 0 };
            *how |= if cause.second_stage() { STAGE_2 } else { 0 };
            *how |= match cause.class() {
                Some(Class::Table) => OF_TABLE,
                Some(Class::Input) => OF_INPUT,
                Some(Class::Context) | None => OF_CONTEXT,
            };
        }
        let denied = cause.reason().0 == u32::from(EventNumber::PERMISSION.0);
        if denied && cause.class() == Some(Class::Table) && cause.table_read() {
            *how |= TABLE_READ;
        }
        *other = match cause.second_address() {
            Second::Nothing => 0,
            Second::Fetch => failure.entry_addr.map_or(0, |at| at.0 & FETCH),
            Second::Intermediate => failure.guest_addr.map_or(0, |at| at.0 & INTERMEDIATE),
        };
        event
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
