//! Mistakes in legacy mode.
//!
//! Reasons: Intel VT-d, "Fault Conditions and Remapping Hardware Behavior for Various Requests",
//! LRT, LCT, LSL, LGN and RTA; the second source is the list of strings in Linux
//! `drivers/iommu/intel/dmar.c`, `dma_remap_fault_reasons`.

use super::{DEVICE, Mode};
use crate::run::mistakes::{
    self, Act, Case, DOMAIN, Lab, NOTHING, NOWHERE, READ_ONLY, Shot, TestResult, WRITABLE,
};
use endpoint::Via;
use iopf::{Gpa, Iova};
use testkit::Driver;
use testkit::vtd::numbers::{LARGE, SS_R, SS_W};
use testkit::vtd::tables::legacy_context;
use viommu::vtd::Vtd;

const fn case(
    name: &'static str,
    code: u8,
    shot: Shot,
    spoil: fn(&Lab<Vtd>) -> TestResult<()>,
) -> Case<Vtd> {
    mistakes::case(name, Mode::Legacy, code, shot, spoil)
}

const READ: Shot = Shot::new(Act::Read, WRITABLE);

fn nothing(_: &Lab<Vtd>) -> TestResult<()> {
    Ok(())
}

/// Gives the device a context entry with these fields.
fn context(lab: &Lab<Vtd>, translation: u64, root: u64, width: u64) -> TestResult<()> {
    let entry = legacy_context(translation, Gpa(root), width, DOMAIN);
    lab.machine.guest.set_context(DEVICE, &entry, DOMAIN)?;
    Ok(())
}

/// In the order of their numbers.
pub(super) const CASES: &[Case<Vtd>] = &[
    case("no root entry for the bus", 0x01, READ, |lab| {
        lab.poke(lab.machine.guest.root().root_slot(DEVICE), |_| 0)
    }),
    case("no context entry for the device", 0x02, READ, |lab| {
        lab.poke(lab.context()?, |raw| raw & !1)
    }),
    case("context entry with a width nobody has", 0x03, READ, |lab| {
        context(lab, 0, lab.tables.second.root().0, 1)
    }),
    case("context entry with a reserved type", 0x03, READ, |lab| {
        context(lab, 3, lab.tables.second.root().0, 2)
    }),
    case("page table outside of memory", 0x03, READ, |lab| {
        context(lab, 0, NOWHERE, 2)
    }),
    case(
        "address beyond the address width",
        0x04,
        Shot::new(Act::Read, 1 << 48),
        nothing,
    ),
    case(
        "write to nothing",
        0x05,
        Shot::new(Act::Write, NOTHING),
        nothing,
    ),
    case(
        "write to a read-only page",
        0x05,
        Shot::new(Act::Write, READ_ONLY),
        nothing,
    ),
    case(
        "read of nothing",
        0x06,
        Shot::new(Act::Read, NOTHING),
        nothing,
    ),
    case("lower page table outside of memory", 0x07, READ, |lab| {
        let slot = lab.slot(&lab.tables.second, WRITABLE, 2)?;
        lab.poke(slot, |_| NOWHERE | SS_R | SS_W)
    }),
    case("root table outside of memory", 0x08, READ, |lab| {
        lab.set_root(NOWHERE)
    }),
    case("context table outside of memory", 0x09, READ, |lab| {
        let slot = lab.machine.guest.root().root_slot(DEVICE);
        lab.poke(slot, |_| NOWHERE | 1)
    }),
    case("reserved bits in the root entry", 0x0a, READ, |lab| {
        let slot = lab.machine.guest.root().root_slot(DEVICE);
        lab.poke(slot, |raw| raw | 0x10)
    }),
    case("reserved bits in the context entry", 0x0b, READ, |lab| {
        lab.poke(lab.context()?, |raw| raw | 0x100)
    }),
    case("large page that is not aligned", 0x0c, READ, |lab| {
        let slot = lab.slot(&lab.tables.second, WRITABLE, 2)?;
        lab.poke(slot, |_| 0x20_5000 | LARGE | SS_R | SS_W)
    }),
    case(
        "translated request without device TLB enabled",
        0x0d,
        READ.via(Via::Translated),
        |lab| context(lab, 0, lab.tables.second.root().0, 2),
    ),
    case(
        "translation request without device TLB enabled",
        0x0d,
        READ.via(Via::Ats),
        |lab| context(lab, 0, lab.tables.second.root().0, 2),
    ),
    case("mapping onto the interrupt range", 0x0e, READ, |lab| {
        lab.tables
            .second
            .map(Iova(WRITABLE), Gpa(0xfee0_0000), SS_R | SS_W, 1)?;
        Ok(lab.machine.guest.flush_everything()?)
    }),
    case("request with a PASID", 0x31, READ.pasid(5), nothing),
    case(
        "page request",
        0x32,
        Shot::new(Act::Read, NOTHING).via(Via::Ats),
        nothing,
    ),
];
