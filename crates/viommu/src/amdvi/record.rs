//! The event of a failed walk: where a cause becomes what the architecture records of it.
//!
//! Spec: 48882, "Event Logging".

use iommu_walk::amdvi::Failure;
use iommu_wire::amdvi::event::{Event, EventCode, Flags, InvalidPprRequest, RawEvent};
use iopf::{Dma, PageRequest};

/// An event that is to be logged.
// Words as they lie in registers: a record at an odd address is read back across the stores that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub struct Record {
    /// The entry.
    pub event: RawEvent,
    /// SE: only if it is the first of its device.
    pub once: bool,
}

/// What the log says of a fault; `asked` is the page request, if it was one.
///
/// An `INVALID_PPR_REQUEST` has RX: the unit answers the last request of a group itself, and nobody
/// answers the others (UNCONFIRMED).
#[must_use]
pub fn fault_event(dma: &Dma, failure: &Failure, asked: Option<&PageRequest>) -> RawEvent {
    // Codes have four bits in the architecture.
    let [code, ..] = failure.cause.reason().0.to_le_bytes();
    let code = EventCode(code & 0xf);
    if let (EventCode::INVALID_PPR_REQUEST, Some(request)) = (code, asked) {
        return Event::InvalidPprRequest(InvalidPprRequest {
            source: dma.requester,
            pasid: request.pasid,
            group: request.group,
            last: request.last,
            answered: true,
            addr: request.addr,
        })
        .encode();
    }
    let event = RawEvent::new(code)
        .with_source(dma.requester)
        .with_flags(Flags::from_bits(failure.flags(dma).bits()))
        .with_address(failure.address(dma));
    match (failure.detail.pasid, code) {
        (Some(pasid), _) => event.with_pasid(pasid.get()),
        (None, EventCode::IO_PAGE_FAULT | EventCode::PAGE_TAB_HARDWARE_ERROR) => {
            event.with_pasid(u32::from(failure.detail.domain.0))
        }
        // The others have no field for a domain.
        (None, _) => event,
    }
}
