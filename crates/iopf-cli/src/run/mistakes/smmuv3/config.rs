//! Mistakes in stream tables and tables of context descriptors.

use super::{
    C_BAD_CD, C_BAD_STE, C_BAD_STREAMID, C_BAD_SUBSTREAMID, DEVICE, Event, F_ADDR_SIZE,
    F_BAD_ATS_TREQ, F_CD_FETCH, F_STE_FETCH, F_STREAM_DISABLED, F_TRANSL_FORBIDDEN, Start, case,
    config, fault, fetch, nowhere, quiet,
};
use crate::run::mistakes::{Act, Case, FIRST, Lab, NOWHERE, Shot, TestResult, WRITABLE};
use endpoint::Via;
use iopf::Gpa;
use testkit::smmuv3::numbers::{
    CD_AA64, CD_ENDI, CD_IPS, CD_S, CD_T0SZ, CD_TG0, CD_V, CONFIG_BYPASS, DSS_SSID0, DSS_TERMINATE,
    EATS_TRANS, STE_CDMAX, STE_CONFIG, STE_DSS, STE_EATS, STE_V,
};
use testkit::smmuv3::tables::StreamTable;
use viommu::smmuv3::Smmuv3;

const READ: Shot = Shot::new(Act::Read, WRITABLE).pasid(FIRST);
const PLAIN: Shot = Shot::new(Act::Read, WRITABLE);

/// Changes the first word of the context descriptor of [`FIRST`].
fn context(lab: &Lab<Smmuv3>, change: impl FnOnce(u64) -> u64) -> TestResult<()> {
    lab.context(FIRST, 0, change)
}

/// Changes what leads to the device's table of stream table entries.
fn leads(lab: &Lab<Smmuv3>, change: impl FnOnce(u64) -> u64) -> TestResult<()> {
    lab.poke(lab.machine.guest.streams().first_slot(DEVICE), change)
}

/// Tells the SMMU where the stream table is and what it is like, whatever the driver thinks.
fn streams(lab: &Lab<Smmuv3>, base: Gpa, config: u32) -> TestResult<()> {
    lab.machine.guest.set_streams(base, config);
    lab.flush()
}

/// Makes the device's requests pass.
fn bypass(lab: &Lab<Smmuv3>) -> TestResult<()> {
    lab.set_stream(&[STE_V | CONFIG_BYPASS, EATS_TRANS, 0, 0, 0, 0, 0, 0])
}

/// With the address.
const TREQ: Event = Event {
    input: true,
    ..config(F_BAD_ATS_TREQ)
};
/// With the address and RnW, and no substream.
const FORBIDDEN: Event = Event {
    input: true,
    attributes: true,
    ..config(F_TRANSL_FORBIDDEN)
}
.without_substream();

/// By their numbers.
pub(super) const CASES: &[Case<Smmuv3>] = &[
    case(
        "stream table that is too small",
        Start::First,
        config(C_BAD_STREAMID),
        READ,
        |lab| {
            let base = lab.machine.guest.streams().base();
            streams(lab, base, StreamTable::config() & !0x3f | 7)
        },
    ),
    case(
        "no table for the device's bus",
        Start::First,
        config(C_BAD_STREAMID),
        READ,
        |lab| leads(lab, |_| 0),
    ),
    case(
        "table for the device's bus that is too small",
        Start::First,
        config(C_BAD_STREAMID),
        READ,
        // Span: 128 entries.
        |lab| leads(lab, |raw| raw & !0x1f | 8),
    ),
    case(
        "the same, and no PASID",
        Start::First,
        config(C_BAD_STREAMID),
        PLAIN,
        |lab| leads(lab, |raw| raw & !0x1f | 8),
    ),
    quiet(
        "no table for the device's bus, and nobody wants to know (RECINVSID)",
        Start::First,
        READ,
        |lab| {
            leads(lab, |_| 0)?;
            lab.machine.guest.record_strangers(false);
            Ok(())
        },
    ),
    case(
        "stream table outside of memory",
        Start::First,
        fetch(F_STE_FETCH, NOWHERE),
        READ,
        |lab| streams(lab, Gpa(NOWHERE), StreamTable::config()),
    ),
    case(
        "table for the device's bus outside of memory",
        Start::First,
        fetch(F_STE_FETCH, NOWHERE + 0xa0 * 64),
        PLAIN,
        |lab| leads(lab, |_| NOWHERE | 9),
    ),
    case(
        "stream table entry that is not valid",
        Start::First,
        config(C_BAD_STE),
        READ,
        |lab| lab.stream(0, |first| first & !STE_V),
    ),
    quiet(
        "stream table entry that aborts",
        Start::First,
        READ,
        |lab| lab.stream(0, |first| first & !STE_CONFIG),
    ),
    case(
        "more context descriptors than substreams",
        Start::First,
        config(C_BAD_STE),
        READ,
        |lab| lab.stream(0, |first| first & !STE_CDMAX | 21 << 59),
    ),
    case(
        "context descriptors beyond physical addresses",
        Start::First,
        config(C_BAD_STE),
        PLAIN,
        |lab| lab.stream(0, |first| first | 1 << 50),
    ),
    case(
        "half a translation for device TLBs (EATS)",
        Start::First,
        config(C_BAD_STE),
        READ,
        |lab| lab.stream(1, |second| second & !STE_EATS | 2 << 28),
    ),
    case(
        "translation request where there are none (EATS)",
        Start::First,
        TREQ,
        READ.via(Via::Ats),
        |lab| lab.stream(1, |second| second & !STE_EATS),
    ),
    case(
        "translated request where there are none (EATS)",
        Start::First,
        FORBIDDEN,
        PLAIN.via(Via::Translated),
        |lab| lab.stream(1, |second| second & !STE_EATS),
    ),
    case(
        "translated request of a device whose requests pass",
        Start::First,
        FORBIDDEN,
        PLAIN.via(Via::Translated),
        bypass,
    ),
    case(
        "no PASID where one is needed (S1DSS)",
        Start::First,
        config(F_STREAM_DISABLED),
        PLAIN,
        |lab| lab.stream(1, |second| second & !STE_DSS | DSS_TERMINATE),
    ),
    case(
        "PASID 0 where it stands for none (S1DSS)",
        Start::First,
        config(F_STREAM_DISABLED).without_substream(),
        PLAIN.pasid(0),
        |lab| lab.stream(1, |second| second & !STE_DSS | DSS_SSID0),
    ),
    case(
        "PASID beyond the context descriptors",
        Start::First,
        config(C_BAD_SUBSTREAMID).substream_only(),
        PLAIN.pasid(0x1_0000),
        super::nothing,
    ),
    case(
        "PASID where there is one context descriptor",
        Start::First,
        config(C_BAD_SUBSTREAMID).substream_only(),
        READ,
        |lab| lab.stream(0, |first| first & !STE_CDMAX),
    ),
    case(
        "PASID of a device whose requests pass",
        Start::First,
        config(C_BAD_SUBSTREAMID).substream_only(),
        READ,
        bypass,
    ),
    case(
        "PASID of a device with stage 2 alone",
        Start::Second,
        config(C_BAD_SUBSTREAMID).substream_only(),
        READ,
        super::nothing,
    ),
    case(
        "no table of context descriptors for the PASID",
        Start::First,
        config(C_BAD_SUBSTREAMID).substream_only(),
        READ,
        |lab| lab.poke(lab.contexts(FIRST)?.0, |raw| raw & !1),
    ),
    case(
        "context descriptors outside of memory",
        Start::First,
        fetch(F_CD_FETCH, NOWHERE),
        READ,
        |lab| lab.stream(0, nowhere),
    ),
    case(
        "table of context descriptors outside of memory",
        Start::First,
        fetch(F_CD_FETCH, NOWHERE + 5 * 64),
        READ,
        |lab| lab.poke(lab.contexts(FIRST)?.0, |_| NOWHERE | 1),
    ),
    case(
        "context descriptor that is not valid",
        Start::First,
        config(C_BAD_CD),
        READ,
        |lab| context(lab, |first| first & !CD_V),
    ),
    case(
        "the same, and no PASID",
        Start::First,
        config(C_BAD_CD),
        PLAIN,
        |lab| lab.context(0, 0, |first| first & !CD_V),
    ),
    case(
        "context descriptor of 32 bits",
        Start::First,
        config(C_BAD_CD),
        READ,
        |lab| context(lab, |first| first & !CD_AA64),
    ),
    case(
        "context descriptor with big-endian tables",
        Start::First,
        config(C_BAD_CD),
        READ,
        |lab| context(lab, |first| first | CD_ENDI),
    ),
    case(
        "context descriptor with an input that nobody has",
        Start::First,
        config(C_BAD_CD),
        READ,
        |lab| context(lab, |first| first & !CD_T0SZ | 10),
    ),
    case(
        "context descriptor with a reserved granule",
        Start::First,
        config(C_BAD_CD),
        READ,
        |lab| context(lab, |first| first | CD_TG0),
    ),
    case(
        "context descriptor with a table beyond its own output",
        Start::First,
        config(C_BAD_CD),
        READ,
        |lab| {
            lab.context(FIRST, 1, |_| NOWHERE)?;
            context(lab, |first| first & !CD_IPS)
        },
    ),
    case(
        "stalls in a stream that does not stall (S1STALLD)",
        Start::First,
        config(C_BAD_CD),
        READ,
        |lab| context(lab, |first| first | CD_S),
    ),
    case(
        "address beyond physical ones, of a device whose requests pass",
        Start::First,
        fault(F_ADDR_SIZE),
        Shot::new(Act::Read, 1 << 50),
        bypass,
    ),
    quiet(
        "translation off, and what comes then is aborted",
        Start::First,
        READ,
        |lab| {
            lab.machine.guest.translate(false, true);
            Ok(())
        },
    ),
];
