//! The fault record of a failed walk: where a cause becomes what the architecture records of it.
//!
//! Spec: Intel VT-d, "Fault Recording Registers".

use iommu_walk::vtd::Failure;
use iommu_wire::vtd::event::{AddressType, Event, FaultInfo, FaultPasid, FaultReason, RequestType};
use iommu_wire::vtd::regs::Ecap;
use iopf::{Access, Dma, DmaKind};

/// What the record of a request says it was. Translation requests are reads on the bus; what reads
/// and writes at once is an atomic operation.
#[must_use]
pub fn request_type(dma: &Dma) -> RequestType {
    match dma.kind {
        DmaKind::Translation { .. } => RequestType::READ,
        _ if dma.access.contains(Access::RW) => RequestType::ATOMIC,
        _ if dma.access.contains(Access::WRITE) => RequestType::WRITE,
        _ => RequestType::READ,
    }
}

/// What a recording register says of a fault. Fields that the unit has no use for are reserved:
/// those of PASIDs without `ECAP.PASID`, the address type without `ECAP.DT`.
#[must_use]
pub fn fault_event(dma: &Dma, failure: &Failure, request: RequestType, ecap: Ecap) -> Event {
    // Reasons have eight bits in the architecture.
    let [reason, ..] = failure.cause.reason().0.to_le_bytes();
    Event {
        source: dma.requester,
        reason: FaultReason(reason),
        request,
        address_type: if ecap.dt() {
            AddressType::from(dma.kind)
        } else {
            AddressType::UNTRANSLATED
        },
        pasid: dma.pasid.filter(|_| ecap.pasid()).map(|pasid| FaultPasid {
            pasid,
            execute: dma.access.contains(Access::EXEC),
            privileged: dma.access.contains(Access::PRIV),
        }),
        info: FaultInfo::Page(dma.addr),
    }
}
