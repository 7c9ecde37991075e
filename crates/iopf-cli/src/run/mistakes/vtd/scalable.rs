//! Mistakes in scalable mode.
//!
//! Reasons: Intel VT-d, "Fault Conditions and Remapping Hardware Behavior for Various Requests",
//! RTA, SRT, SCT, SPD, SPT, SFL and SGN; the second source is the list of strings in Linux
//! `drivers/iommu/intel/dmar.c`, `dma_remap_sm_fault_reasons`.

use super::{DEVICE, Mode, SECOND};
use crate::run::mistakes::{
    self, Act, Case, DOMAIN, FIRST, Lab, NOTHING, NOWHERE, READ_ONLY, Shot, TestResult, WRITABLE,
};
use endpoint::Via;
use iopf::{Gpa, Iova, Pasid};
use testkit::Driver;
use testkit::vtd::numbers::{
    CTX_DTE, CTX_PASIDE, CTX_PRE, FS_P, FS_RW, FS_US, LARGE, PE_ERE, PE_NXE, PE_WPE, SS_W,
};
use testkit::vtd::tables::nested;
use viommu::vtd::Vtd;

const fn case(
    name: &'static str,
    code: u8,
    shot: Shot,
    spoil: fn(&Lab<Vtd>) -> TestResult<()>,
) -> Case<Vtd> {
    mistakes::case(name, Mode::Scalable, code, shot, spoil)
}

/// The guest must find nothing in its records; the device gets an error all the same.
const fn quiet(
    name: &'static str,
    shot: Shot,
    spoil: fn(&Lab<Vtd>) -> TestResult<()>,
) -> Case<Vtd> {
    mistakes::quiet(name, Mode::Scalable, shot, spoil)
}

const READ: Shot = Shot::new(Act::Read, WRITABLE).pasid(FIRST);
const FETCH: Shot = Shot::new(Act::Fetch, WRITABLE).pasid(FIRST);
const MISSING: Shot = Shot::new(Act::Read, NOTHING).pasid(FIRST);

fn nothing(_: &Lab<Vtd>) -> TestResult<()> {
    Ok(())
}

/// Clears bits of the context entry.
fn without(lab: &Lab<Vtd>, bits: u64) -> TestResult<()> {
    lab.poke(lab.context()?, |raw| raw & !bits)
}

/// Changes the first-stage entry of `level` for the writable page.
fn first(lab: &Lab<Vtd>, level: u8, change: fn(u64) -> u64) -> TestResult<()> {
    lab.poke(lab.slot(&lab.tables.first, WRITABLE, level)?, change)
}

/// In the order of their numbers.
pub(super) const CASES: &[Case<Vtd>] = &[
    case("root table in a mode nobody has", 0x30, READ, |lab| {
        lab.set_root(lab.machine.guest.root().base().0 | 2 << 10)
    }),
    case("root table outside of memory", 0x38, READ, |lab| {
        lab.set_root(NOWHERE | 1 << 10)
    }),
    case("no root entry for half of the bus", 0x39, READ, |lab| {
        lab.poke(lab.machine.guest.root().root_slot(DEVICE), |_| 0)
    }),
    case("reserved bits in the root entry", 0x3a, READ, |lab| {
        let slot = lab.machine.guest.root().root_slot(DEVICE);
        lab.poke(slot, |raw| raw | 0x10)
    }),
    case("context table outside of memory", 0x40, READ, |lab| {
        let slot = lab.machine.guest.root().root_slot(DEVICE);
        lab.poke(slot, |_| NOWHERE | 1)
    }),
    case("no context entry for the device", 0x41, READ, |lab| {
        without(lab, 1)
    }),
    case("reserved bits in the context entry", 0x42, READ, |lab| {
        lab.poke(lab.context()?, |raw| raw | 0x20)
    }),
    case("page requests without a device TLB", 0x43, READ, |lab| {
        without(lab, CTX_DTE)
    }),
    case(
        "translation request without device TLB enabled",
        0x44,
        READ.via(Via::Ats),
        |lab| without(lab, CTX_DTE | CTX_PRE),
    ),
    case(
        "translated request without device TLB enabled",
        0x44,
        Shot::new(Act::Read, WRITABLE).via(Via::Translated),
        |lab| without(lab, CTX_DTE | CTX_PRE),
    ),
    case("PASID where PASIDs are off", 0x45, READ, |lab| {
        without(lab, CTX_PASIDE)
    }),
    case(
        "PASID beyond the directory",
        0x46,
        Shot::new(Act::Read, WRITABLE).pasid(0x2000),
        nothing,
    ),
    case(
        "page request where page requests are off",
        0x47,
        MISSING.via(Via::Ats),
        |lab| without(lab, CTX_PRE),
    ),
    case(
        "PASID that stands for requests without one",
        0x48,
        Shot::new(Act::Read, WRITABLE).pasid(0),
        nothing,
    ),
    case("PASID directory outside of memory", 0x50, READ, |lab| {
        lab.poke(lab.context()?, |raw| raw & 0xfff | NOWHERE)
    }),
    case("no directory entry for the PASID", 0x51, READ, |lab| {
        lab.poke(lab.pasid(FIRST)?.0, |raw| raw & !1)
    }),
    case("reserved bits in the directory entry", 0x52, READ, |lab| {
        lab.poke(lab.pasid(FIRST)?.0, |raw| raw | 0x10)
    }),
    case("PASID table outside of memory", 0x58, READ, |lab| {
        lab.poke(lab.pasid(FIRST)?.0, |_| NOWHERE | 1)
    }),
    case("no table entry for the PASID", 0x59, READ, |lab| {
        lab.poke(lab.pasid(FIRST)?.1, |raw| raw & !1)
    }),
    case("reserved bits in the PASID entry", 0x5a, READ, |lab| {
        let entry = lab.pasid(FIRST)?.1;
        lab.poke(Gpa(entry.0 + 40), |raw| raw | 1)
    }),
    case("PASID entry with a reserved type", 0x5b, READ, |lab| {
        lab.poke(lab.pasid(FIRST)?.1, |raw| raw | 7 << 6)
    }),
    case(
        "instruction fetch where execute is off",
        0x5c,
        FETCH,
        nothing,
    ),
    case(
        "privileged access where supervisors are off",
        0x5d,
        Shot::new(Act::PrivilegedRead, WRITABLE).pasid(FIRST),
        nothing,
    ),
    case("lower page table outside of memory", 0x70, READ, |lab| {
        first(lab, 2, |_| NOWHERE | FS_P | FS_RW | FS_US)
    }),
    case("read of nothing", 0x71, MISSING, nothing),
    case("large page where none can be", 0x72, READ, |lab| {
        first(lab, 4, |raw| raw | LARGE)
    }),
    case("page table outside of memory", 0x73, READ, |lab| {
        let entry = lab.pasid(FIRST)?.1;
        lab.poke(Gpa(entry.0 + 16), |raw| raw & 0xfff | NOWHERE)
    }),
    case(
        "second stage that does not let the first stage's table be read",
        0x75,
        READ,
        |lab| {
            let guest = &lab.machine.guest;
            let (first, second) = (lab.tables.first.root(), lab.tables.second.root());
            lab.tables.second.map(Iova(first.0), first, SS_W, 1)?;
            let entry = nested(first, second, 2, DOMAIN, PE_NXE | PE_WPE);
            guest.set_pasid(DEVICE, Pasid::truncate(FIRST), &entry)?;
            Ok(guest.flush_everything()?)
        },
    ),
    case(
        "address that is not canonical",
        0x80,
        Shot::new(Act::Read, 0x8000_0000_0000).pasid(FIRST),
        nothing,
    ),
    case("user access to a supervisor page", 0x81, READ, |lab| {
        first(lab, 1, |raw| raw & !FS_US)
    }),
    case("instruction fetch from data", 0x82, FETCH, |lab| {
        lab.set_first(PE_NXE | PE_WPE | PE_ERE)
    }),
    case(
        "address beyond the second stage",
        0x84,
        Shot::new(Act::Read, 1 << 48).pasid(SECOND),
        nothing,
    ),
    case(
        "write to a read-only page",
        0x85,
        Shot::new(Act::Write, READ_ONLY).pasid(FIRST),
        nothing,
    ),
    case(
        "write to a page the second stage has read-only",
        0x85,
        Shot::new(Act::Write, READ_ONLY).pasid(SECOND),
        nothing,
    ),
    case("mapping onto the interrupt range", 0x87, READ, |lab| {
        let flags = FS_P | FS_RW | FS_US;
        lab.tables
            .first
            .map(Iova(WRITABLE), Gpa(0xfee0_0000), flags, 1)?;
        Ok(lab.machine.guest.flush_everything()?)
    }),
    quiet(
        "page request for memory the process does not have",
        MISSING.via(Via::Ats),
        nothing,
    ),
    quiet(
        "fault processing disabled in the PASID entry",
        READ,
        |lab| lab.poke(lab.pasid(FIRST)?.1, |raw| raw & !1 | 2),
    ),
];
