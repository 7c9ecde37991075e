//! A capture of a fault that a model just met.

use super::{Arch, Builder, Capture, Device, Expect, Recorder, Request, RequestKind};
use crate::explain::amdvi::SEGMENTS;
use iommu_walk::{Failure, TableMem, Updates, amdvi, smmuv3, vtd};
use iopf::{DmaKind, GroupIndex};
use serde_json::Value;
use viommu::Diagnostic;

/// A capture of `fault`, which a VT-d unit met at this moment: the words that the walk reads, the
/// registers, the request, and the code to expect. To be taken in
/// [`Watch::notice`](viommu::Watch::notice), before the guest is told and can mend its tables.
///
/// `None` where the guest has changed its tables since, so that a walk ends otherwise.
pub fn vtd_fault<M: TableMem>(
    unit: &vtd::Unit,
    memory: M,
    fault: &Diagnostic<vtd::Failure>,
    note: &str,
) -> Option<Capture> {
    let memory = Recorder::new(memory);
    let (dma, pasid) = (&fault.dma, fault.dma.pasid);
    let failure = if fault.page_request {
        vtd::page_request(unit, &memory, dma.requester, pasid, &mut ()).err()
    } else {
        vtd::translate(unit, &memory, dma, &mut Updates::new(), &mut ()).err()
    };
    let registers = [
        ("CAP_REG", unit.cap()),
        ("ECAP_REG", unit.ecap()),
        ("GSTS_REG", u64::from(unit.enabled()) << 31),
        ("RTADDR_REG", unit.rtaddr()),
        ("HAW", u64::from(unit.haw())),
    ];
    let code = fault.failure.cause.reason().0;
    let builder = begin(Arch::Vtd, &registers, note);
    finish(builder, &memory, fault, failure?, code)
}

/// The same of a fault that an AMD-Vi unit met.
pub fn amdvi_fault<M: TableMem>(
    unit: &amdvi::Unit,
    memory: M,
    fault: &Diagnostic<amdvi::Failure>,
    note: &str,
) -> Option<Capture> {
    let memory = Recorder::new(memory);
    let (dma, pasid) = (&fault.dma, fault.dma.pasid);
    let failure = if fault.page_request {
        amdvi::page_request(unit, &memory, dma.requester, pasid, &mut ()).err()
    } else {
        amdvi::translate(unit, &memory, dma, &mut Updates::new(), &mut ()).err()
    };
    let [base, limit] = unit.exclusion();
    let mut registers = vec![
        ("DEV_TAB_BASE", unit.device_table(0)),
        ("IOMMU_CONTROL", unit.control()),
        ("EXT_FEATURE", unit.efr()),
        ("EXT_FEATURE2", unit.efr2()),
    ];
    if unit.exclusion() != [0; 2] {
        registers.extend([("EXCL_BASE", base), ("EXCL_LIMIT", limit)]);
    }
    let segments = SEGMENTS.iter().enumerate();
    let segments = segments.map(|(before, &name)| (name, unit.device_table(before + 1)));
    registers.extend(segments.filter(|&(_, base)| base != 0));
    let code = fault.failure.cause.reason().0;
    let builder = begin(Arch::Amdvi, &registers, note);
    finish(builder, &memory, fault, failure?, code)
}

/// The same of a fault that an SMMUv3 unit met.
pub fn smmuv3_fault<M: TableMem>(
    unit: &smmuv3::Unit,
    memory: M,
    fault: &Diagnostic<smmuv3::Failure>,
    note: &str,
) -> Option<Capture> {
    let memory = Recorder::new(memory);
    let failure = if fault.page_request {
        smmuv3::page_request(unit).err()
    } else {
        smmuv3::translate(unit, &memory, &fault.dma, &mut Updates::new(), &mut ()).err()
    };
    let features = unit.features();
    let (cr0, cr2) = unit.control();
    let (base, config) = unit.stream_table();
    let registers = [
        ("SMMU_CR0", u64::from(cr0)),
        ("SMMU_CR2", u64::from(cr2)),
        ("SMMU_GBPA", u64::from(unit.global_bypass())),
        ("SMMU_IDR0", u64::from(features.idr0)),
        ("SMMU_IDR1", u64::from(features.idr1)),
        ("SMMU_IDR3", u64::from(features.idr3)),
        ("SMMU_IDR5", u64::from(features.idr5)),
        ("SMMU_STRTAB_BASE", base),
        ("SMMU_STRTAB_BASE_CFG", u64::from(config)),
    ];
    let code = fault.failure.cause.reason().0;
    let builder = begin(Arch::Smmuv3, &registers, note);
    finish(builder, &memory, fault, failure?, code)
}

fn begin(arch: Arch, registers: &[(&str, u64)], note: &str) -> Builder {
    let mut builder = Builder::new(arch);
    builder.note(note);
    for &(name, value) in registers {
        let known = builder.register(name, value);
        debug_assert!(known, "{name} is a register of the format");
    }
    builder
}

/// Adds what `memory` saw, the request and the expectation, if the walk ended as it did before.
fn finish<M, C: Copy + PartialEq, D: Copy>(
    mut builder: Builder,
    memory: &Recorder<M>,
    fault: &Diagnostic<Failure<C, D>>,
    again: Failure<C, D>,
    code: u32,
) -> Option<Capture> {
    if again.cause != fault.failure.cause {
        return None;
    }
    builder.record(memory);
    let room = builder.request(request(builder.arch(), fault));
    debug_assert!(room, "it is the first");
    builder.expect(Expect::new([
        ("outcome", Value::from("fault")),
        // 0 is none.
        (
            "code",
            if code == 0 {
                Value::Null
            } else {
                Value::from(code)
            },
        ),
    ]));
    Some(builder.build())
}

fn request<F>(arch: Arch, fault: &Diagnostic<F>) -> Request {
    let dma = &fault.dma;
    let (kind, no_write) = match dma.kind {
        _ if fault.page_request => (RequestKind::PageRequest, false),
        DmaKind::Untranslated => (RequestKind::Untranslated, false),
        DmaKind::Translation { no_write } => (RequestKind::Translation, no_write),
        DmaKind::Translated => (RequestKind::Translated, false),
    };
    Request {
        device: if arch.names_pci() {
            Device::Pci {
                segment: 0,
                rid: dma.requester,
            }
        } else {
            Device::Number(dma.requester.0)
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
