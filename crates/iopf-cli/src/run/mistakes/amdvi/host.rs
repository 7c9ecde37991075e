//! Mistakes with host tables, or with no tables at all.

use super::{DEVICE, Event, Start, case, nothing, quiet};
use crate::run::mistakes::{
    Act, Case, Lab, NOTHING, NOWHERE, READ_ONLY, Shot, TestResult, WRITABLE,
};
use endpoint::Via;
use testkit::amdvi::numbers::{DTE_I, DTE_IR, DTE_IW, DTE_PPR, DTE_SA, DTE_TV};
use testkit::paging::{HOST_IR, HOST_IW, HOST_PR, next_level};
use viommu::amdvi::Amdvi;

const READ: Shot = Shot::new(Act::Read, WRITABLE);
const WRITE: Shot = Shot::new(Act::Write, WRITABLE);
const TABLE: u64 = HOST_PR | HOST_IR | HOST_IW;

/// Changes the host table entry of `level` for the writable page.
fn entry(lab: &Lab<Amdvi>, level: u8, change: fn(u64) -> u64) -> TestResult<()> {
    lab.poke(lab.slot(&lab.tables.host, WRITABLE, level)?, change)
}

/// By their codes.
pub(super) const CASES: &[Case<Amdvi>] = &[
    case(
        "reserved bits in the device table entry",
        Start::Host,
        Event::new(1, 0x080),
        READ,
        |lab| lab.device(0, |first| first | 1 << 2),
    ),
    case(
        "the same, met by a write",
        Start::Host,
        Event::new(1, 0x0a0),
        WRITE,
        |lab| lab.device(0, |first| first | 1 << 63),
    ),
    case(
        "device table entry with a paging mode nobody has",
        Start::Host,
        Event::new(1, 0x000),
        READ,
        |lab| lab.device(0, |first| first | 7 << 9),
    ),
    case(
        "device table entry with accessed bits in a reserved way",
        Start::Host,
        Event::new(1, 0x000),
        READ,
        |lab| lab.device(0, |first| first | 2 << 7),
    ),
    case(
        "device beyond the end of the device table",
        Start::Host,
        Event::new(2, 0x000).no_domain(),
        READ,
        |lab| {
            let register = lab.machine.guest.table().register();
            lab.set_table(register & !0x1ff)
        },
    ),
    case(
        "device table entry that does not translate",
        Start::Host,
        Event::new(2, 0x000),
        READ,
        |lab| lab.device(0, |first| first & !DTE_TV),
    ),
    case(
        "device that may not read",
        Start::Host,
        Event::new(2, 0x050),
        READ,
        |lab| lab.device(0, |first| first & !DTE_IR),
    ),
    case(
        "device that may not write",
        Start::Host,
        Event::new(2, 0x070),
        WRITE,
        |lab| lab.device(0, |first| first & !DTE_IW),
    ),
    case(
        "address beyond the host tables",
        Start::Host,
        Event::new(2, 0x000),
        Shot::new(Act::Read, 1 << 48),
        nothing,
    ),
    case(
        "read of nothing",
        Start::Host,
        Event::new(2, 0x000),
        Shot::new(Act::Read, NOTHING),
        nothing,
    ),
    case(
        "write to nothing",
        Start::Host,
        Event::new(2, 0x020),
        Shot::new(Act::Write, NOTHING),
        nothing,
    ),
    case(
        "read of a write-only page",
        Start::Host,
        Event::new(2, 0x050),
        READ,
        |lab| entry(lab, 1, |raw| raw & !HOST_IR),
    ),
    case(
        "write to a read-only page",
        Start::Host,
        Event::new(2, 0x070),
        Shot::new(Act::Write, READ_ONLY),
        nothing,
    ),
    case(
        "reserved bits in a page table entry",
        Start::Host,
        Event::new(2, 0x090),
        READ,
        |lab| entry(lab, 1, |raw| raw | 1 << 52),
    ),
    case(
        "page table entry that leads up",
        Start::Host,
        Event::new(2, 0x010),
        READ,
        |lab| entry(lab, 2, |raw| raw & !next_level(7) | next_level(4)),
    ),
    case(
        "page of a size that its level does not have",
        Start::Host,
        Event::new(2, 0x010),
        READ,
        // The lowest zero of the address is bit 12: 8 KiB, where pages have 2 MiB at least.
        |lab| entry(lab, 2, |_| TABLE | next_level(7) | 0x20_0000),
    ),
    case(
        "address in levels that were skipped",
        Start::Host,
        Event::new(2, 0x010),
        Shot::new(Act::Read, 1 << 30),
        |lab| entry(lab, 4, |raw| raw & !next_level(7) | next_level(1)),
    ),
    case(
        "request with a PASID, where there are none",
        Start::Host,
        Event::new(2, 0x005),
        READ.pasid(5),
        nothing,
    ),
    case(
        "device table outside of memory",
        Start::Host,
        Event::new(3, 0x200).here(NOWHERE + DEVICE.0 as u64 * 32),
        READ,
        |lab| lab.set_table(NOWHERE | 1),
    ),
    case(
        "page table outside of memory",
        Start::Host,
        Event::new(4, 0x200).here(NOWHERE),
        READ,
        |lab| lab.set_host(NOWHERE),
    ),
    case(
        "lower page table outside of memory",
        Start::Host,
        Event::new(4, 0x220).here(NOWHERE + (WRITABLE >> 12) * 8),
        WRITE,
        |lab| entry(lab, 2, |_| TABLE | next_level(1) | NOWHERE),
    ),
    case(
        "translation request without device TLB enabled",
        Start::Host,
        Event::new(8, 0x300),
        READ.via(Via::Ats),
        |lab| lab.device(1, |second| second & !DTE_I),
    ),
    case(
        "translated request without device TLB enabled",
        Start::Host,
        Event::new(8, 0x200),
        READ.via(Via::Translated),
        |lab| lab.device(1, |second| second & !DTE_I),
    ),
    case(
        "translation request beyond the end of the device table",
        Start::Host,
        Event::new(8, 0x500),
        READ.via(Via::Ats),
        |lab| {
            let register = lab.machine.guest.table().register();
            lab.set_table(register & !0x1ff)
        },
    ),
    case(
        "read of the interrupt range",
        Start::Host,
        Event::new(8, 0x000),
        Shot::new(Act::Read, 0xfee0_0000),
        nothing,
    ),
    case(
        "address in the HyperTransport range",
        Start::Host,
        Event::new(8, 0x800),
        Shot::new(Act::Read, 0xfd_0000_0000),
        nothing,
    ),
    case(
        "page request where page requests are off",
        Start::Host,
        Event::new(9, 0x001),
        Shot::new(Act::Read, NOTHING).via(Via::Ats),
        |lab| lab.device(0, |first| first & !DTE_PPR),
    ),
    case(
        "page request with a PASID, where there are none",
        Start::Host,
        Event::new(9, 0x201),
        Shot::new(Act::Read, NOTHING).pasid(5).via(Via::Ats),
        nothing,
    ),
    quiet(
        "faults suppressed in the device table entry",
        Start::Host,
        Shot::new(Act::Write, NOTHING),
        |lab| lab.device(1, |second| second | DTE_SA),
    ),
    quiet(
        "page request without a PASID, which Linux refuses",
        Start::Host,
        Shot::new(Act::Read, NOTHING).via(Via::Ats),
        nothing,
    ),
];
