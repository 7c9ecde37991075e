//! The records that a unit leaves, as they lie in its logs.

use crate::explain::scene::Asked;
use iommu_walk::amdvi::{Cause, Failure};
use iommu_wire::amdvi::event::{Event, InvalidPprRequest, RawEvent};
use iommu_wire::amdvi::ppr::Ppr;
use iommu_wire::pcie::pri::PageMessage;
use iopf::Rid;
use zerocopy::IntoBytes;

/// The event of a failure.
pub(super) fn event(failure: &Failure, asked: &Asked<'_>) -> [u8; 16] {
    let dma = &asked.dma;
    if matches!(
        failure.cause,
        Cause::PageRequestsDisabled | Cause::PageRequestPasid
    ) {
        let event = InvalidPprRequest {
            source: dma.requester,
            pasid: dma.pasid,
            group: asked.request.group,
            last: asked.request.last,
            answered: asked.request.last,
            addr: dma.addr,
        };
        return bytes(&Event::InvalidPprRequest(event).encode());
    }
    let code = u64::from(failure.cause.reason().0);
    let flags = u64::from(failure.flags(dma).bits());
    let space = match (code, failure.detail.pasid) {
        // An event on the device table itself has neither.
        (3, _) | (1 | 8, None) => 0,
        (_, Some(pasid)) => u64::from(pasid.get()),
        (_, None) => u64::from(failure.detail.domain.0),
    };
    let low = code << 60
        | flags << 48
        | (space & 0xffff) << 32
        | (space & 0xf_0000)
        | u64::from(dma.requester.0);
    // The lowest two bits of an address are reserved in an ILLEGAL_DEV_TABLE_ENTRY.
    let reserved = if code == 1 { 3 } else { 0 };
    bytes(&RawEvent::from_words(low, failure.address(dma) & !reserved))
}

/// The PPR log entry of a page request or stop marker.
pub(super) fn page_request(requester: Rid, message: PageMessage) -> Vec<u8> {
    let entry = Ppr::PageServiceRequest {
        requester,
        message,
        malformed: false,
    };
    entry.encode().as_bytes().to_vec()
}

fn bytes(raw: &RawEvent) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(raw.as_bytes());
    bytes
}
