//! Mistakes with stage 1 on top of stage 2: an event of stage 2 says what the address was for.

use super::{
    CLASS_CD, CLASS_IN, CLASS_TT, Event, F_PERMISSION, F_TRANSLATION, PAGE, PAGE2, Start, TT_READ,
    UNMAPPED, case, entry2, fault, fault2,
};
use crate::run::machine::TestResult;
use crate::run::mistakes::{Act, Case, FIRST, Lab, READ_ONLY, Shot, WRITABLE};
use iopf::{Gpa, Iova};
use testkit::Driver;
use testkit::paging::{AF, AP_READ_ONLY, DBM, S2_NORMAL, S2_READ, S2_WRITE, SHARED, UXN};
use viommu::smmuv3::Smmuv3;

const READ: Shot = Shot::new(Act::Read, WRITABLE + 0x128).pasid(FIRST);
const WRITE: Shot = Shot::new(Act::Write, WRITABLE + 0x128).pasid(FIRST);

/// Has the process's page lie at [`UNMAPPED`].
fn lies_there(lab: &Lab<Smmuv3>) -> TestResult<()> {
    let first = &lab.tables.first;
    first.map(Iova(WRITABLE), Gpa(UNMAPPED), PAGE, 1)?;
    Ok(lab.machine.guest.flush_everything()?)
}

/// Where the entry of the writable page lies.
fn leaf(lab: &Lab<Smmuv3>) -> TestResult<Gpa> {
    lab.slot(&lab.tables.first, WRITABLE, 1)
}

/// Where the writable page lies.
fn frame(lab: &Lab<Smmuv3>) -> TestResult<Gpa> {
    let raw = lab.machine.ram.load(leaf(lab)?);
    Ok(Gpa(raw & 0xffff_ffff_f000))
}

/// Copies the table with the entry of the writable page to [`UNMAPPED`], as an intermediate address, where
/// stage 2 has these rights for it.
fn table_with(lab: &Lab<Smmuv3>, rights: u64) -> TestResult<()> {
    let table = Gpa(leaf(lab)?.0 & !0xfff);
    lab.tables.second.map(Iova(UNMAPPED), table, rights, 1)?;
    lab.page(2, |raw| raw & 0xfff | UNMAPPED)
}

/// F_PERMISSION on the table at [`UNMAPPED`]; it was read.
const TABLE_READ: Event = Event {
    second: super::S2 | CLASS_TT | TT_READ,
    ..fault2(F_PERMISSION, CLASS_TT, UNMAPPED)
};

/// By their numbers.
pub(super) const CASES: &[Case<Smmuv3>] = &[
    case(
        "context descriptors that stage 2 does not map",
        Start::Nested,
        fault2(F_TRANSLATION, CLASS_CD, UNMAPPED),
        READ,
        |lab| lab.stream(0, |first| first & !super::ADDRESS | UNMAPPED),
    ),
    case(
        "table of context descriptors that stage 2 does not map",
        Start::Nested,
        fault2(F_TRANSLATION, CLASS_CD, UNMAPPED),
        READ,
        |lab| lab.poke(lab.contexts(FIRST)?.0, |_| UNMAPPED | 1),
    ),
    case(
        "context descriptors that stage 2 does not let be read",
        Start::Nested,
        entry2(F_PERMISSION, CLASS_CD, |lab| Ok(lab.contexts(FIRST)?.0)),
        READ,
        |lab| {
            let at = lab.contexts(FIRST)?.0.0;
            lab.page2(at, 2, |raw| raw & !S2_READ)
        },
    ),
    case(
        "page table that stage 2 does not map",
        Start::Nested,
        fault2(F_TRANSLATION, CLASS_TT, UNMAPPED),
        READ,
        |lab| lab.context(FIRST, 1, |_| UNMAPPED),
    ),
    case(
        "lower page table that stage 2 does not map",
        Start::Nested,
        fault2(F_TRANSLATION, CLASS_TT, UNMAPPED),
        WRITE,
        |lab| lab.page(2, |raw| raw & 0xfff | UNMAPPED),
    ),
    case(
        "page table that stage 2 does not let be read",
        Start::Nested,
        TABLE_READ,
        READ,
        |lab| table_with(lab, PAGE2 | S2_WRITE),
    ),
    case(
        "page table in device memory (S2PTW)",
        Start::Nested,
        TABLE_READ,
        READ,
        |lab| table_with(lab, 1 << 2 | SHARED | AF | S2_READ | S2_WRITE),
    ),
    case(
        "page table that stage 2 does not let be written, where hardware must",
        Start::Nested,
        fault2(F_PERMISSION, CLASS_TT, UNMAPPED),
        WRITE,
        |lab| {
            lab.page(1, |raw| raw | DBM | AP_READ_ONLY)?;
            table_with(lab, PAGE2 | S2_READ)
        },
    ),
    case(
        "page that stage 2 does not map",
        Start::Nested,
        fault2(F_TRANSLATION, CLASS_IN, UNMAPPED),
        READ,
        lies_there,
    ),
    case(
        "page that stage 2 has read-only",
        Start::Nested,
        fault2(F_PERMISSION, CLASS_IN, UNMAPPED),
        WRITE,
        |lab| {
            let frame = lab.machine.ram.frame()?;
            let rights = S2_NORMAL | SHARED | AF | S2_READ;
            lab.tables.second.map(Iova(UNMAPPED), frame, rights, 1)?;
            lies_there(lab)
        },
    ),
    case(
        "instruction fetch from data of stage 2",
        Start::Nested,
        entry2(F_PERMISSION, CLASS_IN, frame),
        Shot::new(Act::Fetch, WRITABLE + 0x128).pasid(FIRST),
        |lab| {
            lab.page(1, |raw| raw & !UXN)?;
            // XN[1], where stage 1 has UXN.
            lab.page2(frame(lab)?.0, 2, |raw| raw | UXN)
        },
    ),
    case(
        "page that stage 1 has read-only, and stage 2 does not map",
        Start::Nested,
        fault(F_PERMISSION),
        Shot::new(Act::Write, READ_ONLY).pasid(FIRST),
        |lab| {
            let first = &lab.tables.first;
            first.map(Iova(READ_ONLY), Gpa(UNMAPPED), PAGE | AP_READ_ONLY, 1)?;
            lab.flush()
        },
    ),
];
