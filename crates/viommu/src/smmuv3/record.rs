//! The event of a failed walk: where a cause becomes what the architecture records of it.
//!
//! Spec: IHI 0070, "Event records".

use iommu_walk::smmuv3::{Class as Doing, Detail, Failure};
use iommu_wire::smmuv3::event::{
    BadAtsRequest, Class, Event, EventNumber, Fault, Fetch, Forbidden, Origin, RawEvent, WalkAbort,
    attributes,
};
use iopf::{Access, Dma, Gpa};

/// An event that is to be recorded.
// Words as they lie in registers: a record at an odd address is read back across the stores that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub struct Record {
    /// The record, as of a transaction that is not stalled.
    pub event: RawEvent,
    /// The tables want the transaction stalled.
    pub stalls: bool,
}

/// RnW, InD and PnU, with what the stream table entry makes of them.
fn overridden(dma: &Dma, detail: Detail) -> Access {
    let mut access = attributes(dma).difference(Access::EXEC.union(Access::PRIV));
    if detail.contains(Detail::INSTRUCTION) && access.contains(Access::READ) {
        access |= Access::EXEC;
    }
    if detail.contains(Detail::PRIVILEGED) {
        access |= Access::PRIV;
    }
    access
}

const fn class(doing: Option<Doing>) -> Class {
    match doing {
        Some(Doing::Context) => Class::CD,
        Some(Doing::Table) => Class::TT,
        Some(Doing::Input) | None => Class::IN,
    }
}

/// What the Event queue says of a fault.
///
/// Reasons of fetches that were aborted, which are the implementation's own, are 0.
#[must_use]
pub fn fault_event(dma: &Dma, failure: &Failure) -> RawEvent {
    let cause = failure.cause;
    let (stream, addr) = (dma.requester, dma.addr);
    let origin = Origin {
        stream,
        substream: dma.pasid,
    };
    let access = overridden(dma, failure.detail);
    let second = failure.second_address();
    let class = class(cause.class());
    let fetch = || Fetch {
        origin,
        reason: 0,
        addr: second.unwrap_or(Gpa(0)),
    };
    // Event numbers have eight bits.
    let [number, ..] = cause.reason().0.to_le_bytes();
    let number = EventNumber(number);
    if cause.translation_related() {
        // By far the most, so by the shortest way.
        let fault = Fault {
            origin,
            stalled: None,
            access,
            class,
            addr,
            ipa: second,
            table_read: cause.table_read(),
        };
        return RawEvent::of_fault(number, &fault);
    }
    let event = match number {
        EventNumber::BAD_STREAMID => Event::BadStreamId(origin),
        EventNumber::STE_FETCH => Event::SteFetch(fetch()),
        EventNumber::BAD_STE => Event::BadSte(origin),
        EventNumber::BAD_ATS_TREQ => Event::BadAtsRequest(BadAtsRequest {
            origin,
            span: 0,
            access: dma.access,
            addr,
        }),
        EventNumber::STREAM_DISABLED => Event::StreamDisabled { stream },
        EventNumber::TRANSL_FORBIDDEN => Event::TranslatedForbidden(Forbidden {
            stream,
            read: attributes(dma).contains(Access::READ),
            addr,
        }),
        EventNumber::BAD_SUBSTREAMID => Event::BadSubstreamId {
            stream,
            substream: dma.pasid.unwrap_or_default(),
        },
        EventNumber::CD_FETCH => Event::CdFetch(fetch()),
        EventNumber::BAD_CD => Event::BadCd(origin),
        EventNumber::WALK_EABT => Event::WalkAbort(WalkAbort {
            origin,
            reason: 0,
            access,
            second: cause.second_stage(),
            class,
            addr,
            fetch: second.unwrap_or(Gpa(0)),
        }),
        other => Event::Other(RawEvent::new(other)),
    };
    event.encode()
}
