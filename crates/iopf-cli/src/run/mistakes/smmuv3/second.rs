//! Mistakes in tables of stage 2, where there is no stage 1: the IPA is the request's own address.

use super::{
    C_BAD_STE, CLASS_IN, Event, F_ACCESS, F_ADDR_SIZE, F_PERMISSION, F_TRANSLATION, F_WALK_EABT,
    Fourth, PAGE2, S2, Start, case, config, fault, fault2, nothing, nowhere, quiet, walk,
};
use crate::run::mistakes::{Act, Case, Lab, NOTHING, NOWHERE, READ_ONLY, Shot, WRITABLE};
use iopf::{Gpa, Iova};
use testkit::paging::{AF, S2_READ, S2_WRITE};
use testkit::smmuv3::numbers::{
    STE_S2AA64, STE_S2ENDI, STE_S2PS, STE_S2R, STE_S2S, STE_S2SL0, STE_S2T0SZ, STE_S2TG,
};
use viommu::smmuv3::Smmuv3;

const READ: Shot = Shot::new(Act::Read, WRITABLE + 0x128);
const WRITE: Shot = Shot::new(Act::Write, WRITABLE + 0x128);

/// A fault of the request's own address, which is at `ipa`.
const fn own(id: u8, ipa: u64) -> Event {
    fault2(id, CLASS_IN, ipa)
}

/// An entry that is not as it must be.
const fn bad(
    name: &'static str,
    spoil: fn(&Lab<Smmuv3>) -> crate::run::mistakes::TestResult<()>,
) -> Case<Smmuv3> {
    case(name, Start::Second, config(C_BAD_STE), READ, spoil)
}

/// By their numbers.
pub(super) const CASES: &[Case<Smmuv3>] = &[
    bad("stage 2 with an input that nobody has", |lab| {
        lab.stream(2, |third| third & !STE_S2T0SZ | 10 << 32)
    }),
    bad("stage 2 that starts at a reserved level", |lab| {
        lab.stream(2, |third| third | STE_S2SL0)
    }),
    bad("stage 2 that starts too far down", |lab| {
        lab.stream(2, |third| third & !STE_S2SL0)
    }),
    bad("stage 2 with a reserved granule", |lab| {
        lab.stream(2, |third| third | STE_S2TG)
    }),
    bad("stage 2 of 32 bits", |lab| {
        lab.stream(2, |third| third & !STE_S2AA64)
    }),
    bad("stage 2 with big-endian tables", |lab| {
        lab.stream(2, |third| third | STE_S2ENDI)
    }),
    bad("stage 2 with a table beyond its own output", |lab| {
        lab.stream(3, |_| NOWHERE)?;
        lab.stream(2, |third| third & !STE_S2PS)
    }),
    bad("device TLB on a stage 2 that stalls", |lab| {
        lab.stream(2, |third| third | STE_S2S)
    }),
    case(
        "table of stage 2 outside of memory",
        Start::Second,
        Event {
            second: S2 | CLASS_IN,
            ..walk(CLASS_IN, NOWHERE)
        },
        READ,
        |lab| lab.stream(3, |_| NOWHERE),
    ),
    case(
        "lower table of stage 2 outside of memory",
        Start::Second,
        Event {
            id: F_WALK_EABT,
            fourth: Fourth::Here(NOWHERE + 0x10 * 8),
            ..own(F_WALK_EABT, 0)
        },
        WRITE,
        |lab| lab.page2(WRITABLE, 2, nowhere),
    ),
    case(
        "read of nothing in stage 2",
        Start::Second,
        own(F_TRANSLATION, NOTHING),
        Shot::new(Act::Read, NOTHING + 0x128),
        nothing,
    ),
    case(
        "address beyond stage 2",
        Start::Second,
        own(F_TRANSLATION, 1 << 40),
        Shot::new(Act::Write, 1 << 40),
        // An input of 39 bits, in three levels.
        |lab| {
            lab.stream(2, |third| {
                third & !(STE_S2T0SZ | STE_S2SL0) | 25 << 32 | 1 << 38
            })
        },
    ),
    case(
        "address beyond what stage 1 could have as its output",
        Start::Second,
        // Nothing of stage 2 was asked.
        fault(F_ADDR_SIZE),
        Shot::new(Act::Write, 1 << 48),
        nothing,
    ),
    case(
        "page beyond the output of stage 2",
        Start::Second,
        own(F_ADDR_SIZE, WRITABLE),
        READ,
        |lab| {
            let to = Gpa(1 << 33);
            lab.tables
                .second
                .map(Iova(WRITABLE), to, PAGE2 | S2_READ, 1)?;
            lab.stream(2, |third| third & !STE_S2PS)
        },
    ),
    case(
        "access flag of stage 2 that nobody sets",
        Start::Second,
        own(F_ACCESS, WRITABLE),
        READ,
        |lab| lab.page2(WRITABLE, 1, |raw| raw & !AF),
    ),
    case(
        "write to a page that stage 2 has read-only",
        Start::Second,
        own(F_PERMISSION, READ_ONLY),
        Shot::new(Act::Write, READ_ONLY),
        nothing,
    ),
    case(
        "read of a page that stage 2 has write-only",
        Start::Second,
        own(F_PERMISSION, WRITABLE),
        READ,
        |lab| lab.page2(WRITABLE, 1, |raw| raw & !S2_READ | S2_WRITE),
    ),
    quiet(
        "faults of stage 2 that nobody wants to know of (S2R)",
        Start::Second,
        Shot::new(Act::Read, NOTHING),
        |lab| lab.stream(2, |third| third & !STE_S2R),
    ),
];
