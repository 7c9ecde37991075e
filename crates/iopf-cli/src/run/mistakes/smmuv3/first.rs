//! Mistakes in tables of stage 1.

use super::{
    CLASS_TT, F_ACCESS, F_ADDR_SIZE, F_PERMISSION, F_TRANSLATION, PAGE, Start, case, fault,
    nothing, nowhere, quiet, walk,
};
use crate::run::mistakes::{Act, Case, FIRST, Lab, NOTHING, NOWHERE, READ_ONLY, Shot, WRITABLE};
use endpoint::Via;
use iopf::{Gpa, Iova};
use testkit::paging::{AF, AP_TABLE_READ_ONLY, AP_USER, TABLE, VALID};
use testkit::smmuv3::numbers::{CD_EPD0, CD_HA, CD_HD, CD_IPS, CD_R};
use viommu::smmuv3::Smmuv3;

/// Not the first byte of the page: events have whole addresses.
const READ: Shot = Shot::new(Act::Read, WRITABLE + 0x128).pasid(FIRST);
const WRITE: Shot = Shot::new(Act::Write, WRITABLE + 0x128).pasid(FIRST);
const MISSING: Shot = Shot::new(Act::Read, NOTHING).pasid(FIRST);
/// More than 32 bits.
const FAR: u64 = 1 << 33;

/// An output of 32 bits for [`FIRST`].
fn narrow(first: u64) -> u64 {
    first & !CD_IPS
}

/// By their numbers.
pub(super) const CASES: &[Case<Smmuv3>] = &[
    case(
        "page table outside of memory",
        Start::First,
        walk(CLASS_TT, NOWHERE),
        READ,
        |lab| lab.context(FIRST, 1, |_| NOWHERE),
    ),
    case(
        "lower page table outside of memory",
        Start::First,
        walk(CLASS_TT, NOWHERE + 0x10 * 8),
        WRITE,
        |lab| lab.page(2, nowhere),
    ),
    case(
        "read of nothing",
        Start::First,
        fault(F_TRANSLATION),
        MISSING,
        nothing,
    ),
    case(
        "write to nothing, without a PASID",
        Start::First,
        fault(F_TRANSLATION),
        Shot::new(Act::Write, NOTHING + 0xff8),
        nothing,
    ),
    case(
        "privileged read of nothing",
        Start::First,
        fault(F_TRANSLATION),
        Shot::new(Act::PrivilegedRead, NOTHING).pasid(FIRST),
        nothing,
    ),
    case(
        "instruction fetch from nothing",
        Start::First,
        fault(F_TRANSLATION),
        Shot::new(Act::Fetch, NOTHING).pasid(FIRST),
        nothing,
    ),
    case(
        "address beyond the lower range",
        Start::First,
        fault(F_TRANSLATION),
        Shot::new(Act::Read, 1 << 48).pasid(FIRST),
        nothing,
    ),
    case(
        "address in the upper range, which is off",
        Start::First,
        fault(F_TRANSLATION),
        Shot::new(Act::Read, 0xffff_8000_0000_0000).pasid(FIRST),
        nothing,
    ),
    case(
        "lower range that is off",
        Start::First,
        fault(F_TRANSLATION),
        READ,
        |lab| lab.context(FIRST, 0, |first| first | CD_EPD0),
    ),
    case(
        "block where none can be",
        Start::First,
        fault(F_TRANSLATION),
        READ,
        |lab| lab.page(4, |raw| raw & !TABLE),
    ),
    case(
        "block instead of a page",
        Start::First,
        fault(F_TRANSLATION),
        READ,
        |lab| lab.page(1, |raw| raw & !TABLE),
    ),
    case(
        "table entry that is not valid",
        Start::First,
        fault(F_TRANSLATION),
        READ,
        |lab| lab.page(3, |raw| raw & !VALID),
    ),
    case(
        "page beyond the output",
        Start::First,
        fault(F_ADDR_SIZE),
        READ,
        |lab| {
            lab.tables.first.map(Iova(WRITABLE), Gpa(FAR), PAGE, 1)?;
            lab.context(FIRST, 0, narrow)
        },
    ),
    case(
        "page table beyond the output",
        Start::First,
        fault(F_ADDR_SIZE),
        READ,
        |lab| {
            lab.page(2, |_| FAR | TABLE | VALID)?;
            lab.context(FIRST, 0, narrow)
        },
    ),
    case(
        "access flag that nobody sets",
        Start::First,
        fault(F_ACCESS),
        WRITE,
        |lab| {
            lab.context(FIRST, 0, |first| first & !(CD_HA | CD_HD))?;
            lab.page(1, |raw| raw & !AF)
        },
    ),
    case(
        "write to a read-only page",
        Start::First,
        fault(F_PERMISSION),
        Shot::new(Act::Write, READ_ONLY + 8).pasid(FIRST),
        nothing,
    ),
    case(
        "write below a read-only table",
        Start::First,
        fault(F_PERMISSION),
        WRITE,
        |lab| lab.page(2, |raw| raw | AP_TABLE_READ_ONLY),
    ),
    case(
        "user access to a page of the kernel",
        Start::First,
        fault(F_PERMISSION),
        READ,
        |lab| lab.page(1, |raw| raw & !AP_USER),
    ),
    case(
        "instruction fetch from data",
        Start::First,
        fault(F_PERMISSION),
        Shot::new(Act::Fetch, READ_ONLY).pasid(FIRST),
        nothing,
    ),
    case(
        "a page that is read-only and was never accessed",
        Start::First,
        // The access flag comes first.
        fault(F_ACCESS),
        WRITE,
        |lab| {
            lab.context(FIRST, 0, |first| first & !(CD_HA | CD_HD))?;
            lab.page(1, |raw| raw & !AF | 1 << 7)
        },
    ),
    quiet(
        "page request for memory the process does not have",
        Start::First,
        MISSING.via(Via::Ats),
        nothing,
    ),
    quiet(
        "faults that nobody wants to know of (CD.R)",
        Start::First,
        MISSING,
        |lab: &Lab<Smmuv3>| lab.context(FIRST, 0, |first| first & !CD_R),
    ),
];
