//! The records that a unit leaves, laid out as in its logs.
//!
//! 48882, "Event Logging" and "Peripheral Page Request Logging"; Linux `amd_iommu_types.h`
//! (`EVENT_…`, `PPR_…`).

use crate::explain::scene::Asked;
use iommu_walk::amdvi::{Cause, Failure};
use iommu_wire::pcie::pri::PageMessage;
use iopf::{Access, GroupIndex, Pasid, Rid};

/// A page request in the PPR log.
const PAGE_SERVICE_REQUEST: u64 = 1;

/// The event of a failure.
pub(super) fn record(failure: &Failure, asked: &Asked<'_>) -> [u8; 16] {
    let dma = &asked.dma;
    let code = u64::from(failure.cause.reason().0) << 60;
    let source = u64::from(dma.requester.0);
    if matches!(
        failure.cause,
        Cause::PageRequestsDisabled | Cause::PageRequestPasid
    ) {
        // GN is bit 57 here.
        let gn = u64::from(dma.pasid.is_some()) << 57;
        let request = asked.request;
        let group = group(request.group, request.last);
        let head = code | source | gn | group | page_pasid(dma.pasid);
        return bytes(head, dma.addr.0 & !0xfff);
    }
    let (low, high) = match failure.detail.pasid {
        Some(pasid) => (pasid.get() & 0xffff, pasid.get() >> 16),
        None => (u32::from(failure.detail.domain.0), 0),
    };
    let flags = u64::from(failure.flags(dma).bits() & 0xfff) << 48;
    let space = match failure.cause.reason().0 {
        3 => 0,
        _ => u64::from(low) << 32 | u64::from(high) << 16,
    };
    bytes(code | flags | space | source, failure.address(dma))
}

/// The PPR log entry of a page request or stop marker.
pub(super) fn page_request(requester: Rid, message: &PageMessage) -> [u8; 16] {
    let (pasid, access, tag, addr) = match message {
        PageMessage::Request(request) => (
            request.pasid,
            request.access,
            group(request.group, request.last),
            request.addr.0,
        ),
        PageMessage::StopMarker { pasid } => {
            (*pasid, Access::empty(), group(GroupIndex(0), true), 0)
        }
    };
    let mut flags = 0;
    for (bit, set) in [
        (1, access.contains(Access::EXEC)),
        (2, access.contains(Access::READ)),
        (5, access.contains(Access::WRITE)),
        (6, !access.contains(Access::PRIV)),
        (8, pasid.is_some()),
    ] {
        flags |= u64::from(set) << bit;
    }
    let head =
        PAGE_SERVICE_REQUEST << 60 | flags << 48 | tag | page_pasid(pasid) | u64::from(requester.0);
    bytes(head, addr & !0xfff)
}

/// Bits 40:32 and 41: the group's index, and whether this is its last request.
fn group(index: GroupIndex, last: bool) -> u64 {
    u64::from(index.0 & 0x1ff) << 32 | u64::from(last) << 41
}

/// A PASID as page requests have it: bits 31:16 and 45:42.
fn page_pasid(pasid: Option<Pasid>) -> u64 {
    let pasid = u64::from(pasid.map_or(0, Pasid::get));
    (pasid & 0xffff) << 16 | (pasid >> 16 & 0xf) << 42
}

fn bytes(low: u64, high: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    bytes
}
