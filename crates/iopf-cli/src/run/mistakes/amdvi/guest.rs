//! Mistakes with guest tables.

use super::{Event, Start, case, nothing, quiet};
use crate::run::mistakes::{
    Act, Case, FIRST, Lab, NOTHING, NOWHERE, READ_ONLY, Shot, TestResult, WRITABLE,
};
use endpoint::Via;
use testkit::amdvi::numbers::{DTE_PPR, GCR3_VALID};
use testkit::paging::{P, PS, RW, US};
use viommu::amdvi::Amdvi;

const READ: Shot = Shot::new(Act::Read, WRITABLE).pasid(FIRST);
const WRITE: Shot = Shot::new(Act::Write, WRITABLE).pasid(FIRST);
const MISSING: Shot = Shot::new(Act::Read, NOTHING).pasid(FIRST);

/// The first PASID that the unit does not have: they have 16 bits.
const TOO_WIDE: u32 = 1 << 16;

/// Changes the guest table entry of `level` for the writable page.
fn entry(lab: &Lab<Amdvi>, level: u8, change: fn(u64) -> u64) -> TestResult<()> {
    lab.poke(lab.slot(&lab.tables.guest, WRITABLE, level)?, change)
}

/// By their codes.
pub(super) const CASES: &[Case<Amdvi>] = &[
    case(
        "guest CR3 table of a size nobody has",
        Start::Guest,
        Event::new(1, 0x000),
        READ,
        |lab| lab.device(0, |first| first | 3 << 56),
    ),
    case(
        "guest tables with levels nobody has",
        Start::Guest,
        Event::new(1, 0x000),
        READ,
        |lab| lab.device(2, |third| third | 2 << 54),
    ),
    case(
        "PASID wider than the IOMMU has",
        Start::Guest,
        Event::new(2, 0x005),
        Shot::new(Act::Read, WRITABLE).pasid(TOO_WIDE),
        nothing,
    ),
    case(
        "no guest CR3 table entry for the PASID",
        Start::Guest,
        Event::new(2, 0x005),
        READ,
        |lab| lab.poke(lab.cr3()?.1, |_| 0),
    ),
    case(
        "reserved bits in the guest CR3 table entry",
        Start::Guest,
        Event::new(2, 0x095),
        READ,
        |lab| lab.poke(lab.cr3()?.1, |raw| raw | 1 << 1),
    ),
    case(
        "address that is not canonical",
        Start::Guest,
        Event::new(2, 0x005),
        Shot::new(Act::Read, 0x8000_0000_0000).pasid(FIRST),
        nothing,
    ),
    case(
        "read of nothing in a process",
        Start::Guest,
        Event::new(2, 0x005),
        MISSING,
        nothing,
    ),
    case(
        "privileged read of nothing in a process",
        Start::Guest,
        Event::new(2, 0x001),
        Shot::new(Act::PrivilegedRead, NOTHING).pasid(FIRST),
        nothing,
    ),
    case(
        "write to nothing in a process",
        Start::Guest,
        Event::new(2, 0x025),
        Shot::new(Act::Write, NOTHING).pasid(FIRST),
        nothing,
    ),
    case(
        "large page where none can be",
        Start::Guest,
        Event::new(2, 0x095),
        READ,
        |lab| entry(lab, 4, |raw| raw | PS),
    ),
    case(
        "user access to a supervisor page",
        Start::Guest,
        Event::new(2, 0x055),
        READ,
        |lab| entry(lab, 1, |raw| raw & !US),
    ),
    case(
        "write to a read-only page of a process",
        Start::Guest,
        Event::new(2, 0x075),
        Shot::new(Act::Write, READ_ONLY).pasid(FIRST),
        nothing,
    ),
    case(
        "instruction fetch from data",
        Start::Guest,
        Event::new(2, 0x057),
        Shot::new(Act::Fetch, WRITABLE).pasid(FIRST),
        nothing,
    ),
    case(
        "interrupt with a PASID",
        Start::Guest,
        Event::new(2, 0x02d),
        Shot::new(Act::Write, 0xfee0_0000).pasid(FIRST),
        nothing,
    ),
    case(
        "guest CR3 table outside of memory",
        Start::Guest,
        Event::new(4, 0x201).here(NOWHERE),
        READ,
        |lab| lab.set_cr3_table(NOWHERE),
    ),
    case(
        "lower guest CR3 table outside of memory",
        Start::Guest,
        Event::new(4, 0x201).here(NOWHERE + FIRST as u64 * 8),
        READ,
        |lab| lab.poke(lab.cr3()?.0, |_| NOWHERE | GCR3_VALID),
    ),
    case(
        "guest table outside of memory",
        Start::Guest,
        Event::new(4, 0x201).here(NOWHERE),
        READ,
        |lab| lab.set_guest(NOWHERE),
    ),
    case(
        "lower guest table outside of memory",
        Start::Guest,
        Event::new(4, 0x221).here(NOWHERE + (WRITABLE >> 12) * 8),
        WRITE,
        |lab| entry(lab, 2, |_| NOWHERE | P | RW | US),
    ),
    case(
        "read of the interrupt range with a PASID",
        Start::Guest,
        Event::new(8, 0x001),
        Shot::new(Act::Read, 0xfee0_0000).pasid(FIRST),
        nothing,
    ),
    case(
        "page request of a process where page requests are off",
        Start::Guest,
        Event::new(9, 0x201),
        MISSING.via(Via::Ats),
        |lab| lab.device(0, |first| first & !DTE_PPR),
    ),
    case(
        "page request of a PASID wider than the IOMMU has",
        Start::Guest,
        Event::new(9, 0x201),
        Shot::new(Act::Read, NOTHING).pasid(TOO_WIDE).via(Via::Ats),
        nothing,
    ),
    quiet(
        "page request for memory the process does not have",
        Start::Guest,
        MISSING.via(Via::Ats),
        nothing,
    ),
];
