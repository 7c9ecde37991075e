//! Mistakes with guest tables on top of host tables: an event of a host table has the domain, and the guest
//! physical address that the host tables refused.

use super::{Event, Start, case};
use crate::run::mistakes::{Act, Case, FIRST, Lab, Shot, TestResult, WRITABLE};
use iopf::{Gpa, Iova};
use testkit::Driver;
use testkit::paging::{HOST_IR, HOST_PR, P, RW, US, XD};
use viommu::amdvi::Amdvi;

const READ: Shot = Shot::new(Act::Read, WRITABLE).pasid(FIRST);
const WRITE: Shot = Shot::new(Act::Write, WRITABLE).pasid(FIRST);

/// A guest physical address that the host tables do not map.
const UNMAPPED: u64 = 1 << 30;

/// Has the process's page lie at [`UNMAPPED`].
fn lies_there(lab: &Lab<Amdvi>) -> TestResult<()> {
    let rights = P | RW | US | XD;
    lab.tables
        .guest
        .map(Iova(WRITABLE), Gpa(UNMAPPED), rights, 1)?;
    Ok(lab.machine.guest.flush_everything()?)
}

/// By their codes.
pub(super) const CASES: &[Case<Amdvi>] = &[
    case(
        "page that the host tables do not map",
        Start::Nested,
        Event::new(2, 0x000).here(UNMAPPED),
        READ,
        lies_there,
    ),
    case(
        "page that the host tables have read-only",
        Start::Nested,
        Event::new(2, 0x070).here(UNMAPPED),
        WRITE,
        |lab| {
            let frame = lab.machine.ram.frame()?;
            let rights = HOST_PR | HOST_IR;
            lab.tables.host.map(Iova(UNMAPPED), frame, rights, 1)?;
            lies_there(lab)
        },
    ),
    case(
        "guest table that the host tables do not map",
        Start::Nested,
        Event::new(2, 0x000).here(UNMAPPED),
        READ,
        |lab| lab.set_guest(UNMAPPED),
    ),
    case(
        "host tables that do not let a guest CR3 table be read",
        Start::Nested,
        // The first that is read through them: the lower guest CR3 table's for the PASID.
        Event::new(2, 0x050).entry(|lab| Ok(lab.cr3()?.1)),
        READ,
        |lab| {
            let table = lab.cr3()?.1;
            let block = lab.slot(&lab.tables.host, table.0, 2)?;
            lab.poke(block, |raw| raw & !HOST_IR)
        },
    ),
];
