//! A capture of a fault that a model just met.

use super::{Arch, Builder, Capture, Device, Expect, Recorder, Request, RequestKind};
use iommu_walk::vtd::{self, Failure, Unit};
use iommu_walk::{TableMem, Updates};
use iopf::{DmaKind, GroupIndex};
use serde_json::Value;
use viommu::vtd::Diagnostic;

/// A capture of `fault`, which a VT-d unit met at this moment: the words that the walk reads, the
/// registers, the request, and the code to expect. To be taken in
/// [`Watch::notice`](viommu::Watch::notice), before the guest is told and can mend its tables.
///
/// `None` where the guest has changed its tables since, so that a walk ends otherwise.
pub fn vtd_fault<M: TableMem>(
    unit: &Unit,
    memory: M,
    fault: &Diagnostic,
    note: &str,
) -> Option<Capture> {
    let recorder = Recorder::new(memory);
    let failure = again(unit, &recorder, fault)?;
    if failure.cause != fault.failure.cause {
        return None;
    }
    let mut builder = Builder::new(Arch::Vtd);
    builder.note(note);
    let enabled = u64::from(unit.enabled()) << 31;
    for (name, value) in [
        ("CAP_REG", unit.cap()),
        ("ECAP_REG", unit.ecap()),
        ("GSTS_REG", enabled),
        ("RTADDR_REG", unit.rtaddr()),
        ("HAW", u64::from(unit.haw())),
    ] {
        let known = builder.register(name, value);
        debug_assert!(known, "{name} is a register of the format");
    }
    builder.record(&recorder);
    let room = builder.request(request(fault));
    debug_assert!(room, "it is the first");
    builder.expect(Expect::new([
        ("outcome", Value::from("fault")),
        ("code", Value::from(failure.cause.reason().0)),
    ]));
    Some(builder.build())
}

fn again<M: TableMem>(unit: &Unit, memory: &M, fault: &Diagnostic) -> Option<Failure> {
    let dma = &fault.dma;
    if fault.page_request {
        return vtd::page_request(unit, memory, dma.requester, dma.pasid, &mut ()).err();
    }
    vtd::translate(unit, memory, dma, &mut Updates::new(), &mut ()).err()
}

fn request(fault: &Diagnostic) -> Request {
    let dma = &fault.dma;
    let (kind, no_write) = match dma.kind {
        _ if fault.page_request => (RequestKind::PageRequest, false),
        DmaKind::Untranslated => (RequestKind::Untranslated, false),
        DmaKind::Translation { no_write } => (RequestKind::Translation, no_write),
        DmaKind::Translated => (RequestKind::Translated, false),
    };
    Request {
        device: Device::Pci {
            segment: 0,
            rid: dma.requester,
        },
        pasid: dma.pasid,
        kind,
        addr: dma.addr,
        len: 1,
        access: dma.access,
        no_write,
        group: GroupIndex(0),
        last: fault.page_request,
    }
}

#[cfg(test)]
mod tests;
