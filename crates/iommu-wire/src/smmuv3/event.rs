//! Event records: what the unit puts into the Event queue.
//!
//! Source: IHI 0070, "Event records", one section a record. Linux takes them apart in
//! `arm-smmu-v3.c` (`arm_smmu_decode_event`), QEMU builds them (`EVT_SET_*`, `smmuv3_record_event`).
//! Events of an implementation's own (0xe0–0xef) are carried and not interpreted. NSIPA is zero in every
//! record of the Non-secure queue, GPCF without granule protection: they are not here.

mod raw;

use iopf::{Access, Dma, Gpa, Iova, Pasid, Reason, Rid, Unrecoverable};
pub use raw::{Class, EventNumber, RawEvent};

/// Who a record is about, where it says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The StreamID.
    pub stream: Rid,
    /// SSV and SubstreamID.
    pub substream: Option<Pasid>,
}

/// A structure that could not be read: F_STE_FETCH, F_CD_FETCH, F_VMS_FETCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Who asked.
    pub origin: Origin,
    /// Reason: the implementation's own number for it.
    pub reason: u16,
    /// FetchAddr `[55:3]`: the structure.
    pub addr: Gpa,
}

/// F_UUT: a transaction that the unit does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnsupportedTransaction {
    /// Who asked.
    pub origin: Origin,
    /// Reason: the implementation's own number for it.
    pub reason: u16,
    /// RnW, InD, PnU, as they came in.
    pub access: Access,
    /// InputAddr.
    pub addr: Iova,
}

/// F_BAD_ATS_TREQ: a translation request that is not allowed to the stream.
///
/// UNCONFIRMED: where Span and the rights lie is known from one author (a bring-up driver of
/// Qualcomm's), the order of the rights from none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BadAtsRequest {
    /// Who asked.
    pub origin: Origin,
    /// Span: how many translations, 0–15, in units of the smallest one.
    pub span: u8,
    /// R, W, X, Priv, before the overrides of the stream table entry.
    pub access: Access,
    /// InputAddr `[63:12]`.
    pub addr: Iova,
}

/// F_TRANSL_FORBIDDEN: a translated transaction that is not allowed to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forbidden {
    /// The StreamID.
    pub stream: Rid,
    /// RnW.
    pub read: bool,
    /// InputAddr.
    pub addr: Iova,
}

/// F_WALK_EABT: a descriptor could not be read or updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WalkAbort {
    /// Who asked.
    pub origin: Origin,
    /// Reason: the implementation's own number for it.
    pub reason: u16,
    /// RnW, InD, PnU of the transaction, after the overrides of the stream table entry.
    pub access: Access,
    /// S2: a descriptor of stage 2, else of stage 1.
    pub second: bool,
    /// What the walk was for.
    pub class: Class,
    /// InputAddr.
    pub addr: Iova,
    /// FetchAddr `[55:3]`: the descriptor.
    pub fetch: Gpa,
}

/// A translation-related fault: F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Who asked.
    pub origin: Origin,
    /// Stall and STAG: the transaction waits for a CMD_RESUME with this tag.
    pub stalled: Option<u16>,
    /// RnW, InD, PnU of the transaction, after the overrides of the stream table entry.
    pub access: Access,
    /// What was being translated.
    pub class: Class,
    /// InputAddr.
    pub addr: Iova,
    /// S2 and IPA `[55:12]`: the address that stage 2 refused; `None`: stage 1 did.
    pub ipa: Option<Gpa>,
    /// TTRnW: the access to a stage-1 table that stage 2 did not permit was a read. Of an F_PERMISSION
    /// of [`Class::TT`] only.
    pub table_read: bool,
}

/// F_TLB_CONFLICT: more than one translation is cached for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TlbConflict {
    /// Who asked.
    pub origin: Origin,
    /// Reason: the implementation's own number for it.
    pub reason: u16,
    /// RnW, InD, PnU of the transaction.
    pub access: Access,
    /// InputAddr.
    pub addr: Iova,
    /// S2 and IPA.
    pub ipa: Option<Gpa>,
}

/// E_PAGE_REQUEST: a hint that pages will be wanted soon. It is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageHint {
    /// Who asked.
    pub origin: Origin,
    /// Span: how many pages of 4 KiB.
    pub pages: u8,
    /// pR, pW, pX: wanted with privilege.
    pub privileged: Access,
    /// uR, uW, uX: wanted without.
    pub user: Access,
    /// InputAddr `[63:12]`.
    pub addr: Iova,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// F_UUT
    UnsupportedTransaction(UnsupportedTransaction),
    /// C_BAD_STREAMID: the stream table does not reach as far.
    BadStreamId(Origin),
    /// F_STE_FETCH: a stream table entry could not be read.
    SteFetch(Fetch),
    /// C_BAD_STE: the stream table entry is invalid.
    BadSte(Origin),
    /// F_BAD_ATS_TREQ
    BadAtsRequest(BadAtsRequest),
    /// F_STREAM_DISABLED: not without a SubstreamID, or not with SubstreamID 0.
    StreamDisabled {
        /// The StreamID.
        stream: Rid,
    },
    /// F_TRANSL_FORBIDDEN
    TranslatedForbidden(Forbidden),
    /// C_BAD_SUBSTREAMID: the table of context descriptors does not reach as far, or there is none.
    BadSubstreamId {
        /// The StreamID.
        stream: Rid,
        /// The SubstreamID; there is no SSV.
        substream: Pasid,
    },
    /// F_CD_FETCH: a context descriptor could not be read.
    CdFetch(Fetch),
    /// C_BAD_CD: the context descriptor is invalid.
    BadCd(Origin),
    /// F_WALK_EABT
    WalkAbort(WalkAbort),
    /// F_TRANSLATION: no valid descriptor for the address.
    Translation(Fault),
    /// F_ADDR_SIZE: a descriptor leads beyond the address size.
    AddressSize(Fault),
    /// F_ACCESS: the access flag is clear.
    AccessFlag(Fault),
    /// F_PERMISSION: mapped, but not for this access.
    Permission(Fault),
    /// F_TLB_CONFLICT
    TlbConflict(TlbConflict),
    /// F_CFG_CONFLICT: more than one configuration entry is cached for the stream.
    CfgConflict {
        /// Who asked.
        origin: Origin,
        /// Reason: the implementation's own number for it.
        reason: u16,
    },
    /// E_PAGE_REQUEST
    PageHint(PageHint),
    /// F_VMS_FETCH: a Virtual Machine Structure could not be read.
    VmsFetch(Fetch),
    /// A record we carry but do not interpret.
    Other(RawEvent),
}

/// RnW, InD and PnU say this of a transaction. An atomic operation is a write, and what is written is
/// never an instruction.
#[must_use]
pub fn attributes(dma: &Dma) -> Access {
    let mut access = dma.access.intersection(Access::PRIV);
    if dma.access.contains(Access::WRITE) {
        access |= Access::WRITE;
    } else {
        access |= Access::READ | dma.access.intersection(Access::EXEC);
    }
    access
}

impl Event {
    /// Reads a record.
    #[must_use]
    pub fn decode(raw: &RawEvent) -> Self {
        let origin = raw.origin();
        let stream = origin.stream;
        match raw.number() {
            EventNumber::UUT => Self::UnsupportedTransaction(UnsupportedTransaction {
                origin,
                reason: raw.reason(),
                access: raw.access(),
                addr: raw.input(),
            }),
            EventNumber::BAD_STREAMID => Self::BadStreamId(origin),
            EventNumber::STE_FETCH => Self::SteFetch(raw.fetch()),
            EventNumber::BAD_STE => Self::BadSte(origin),
            EventNumber::BAD_ATS_TREQ => Self::BadAtsRequest(raw.bad_ats_request()),
            EventNumber::STREAM_DISABLED => Self::StreamDisabled { stream },
            EventNumber::TRANSL_FORBIDDEN => Self::TranslatedForbidden(Forbidden {
                stream,
                read: raw.access().contains(Access::READ),
                addr: raw.input(),
            }),
            EventNumber::BAD_SUBSTREAMID => Self::BadSubstreamId {
                stream,
                substream: raw.substream(),
            },
            EventNumber::CD_FETCH => Self::CdFetch(raw.fetch()),
            EventNumber::BAD_CD => Self::BadCd(origin),
            EventNumber::WALK_EABT => Self::WalkAbort(WalkAbort {
                origin,
                reason: raw.reason(),
                access: raw.access(),
                second: raw.second(),
                class: raw.class(),
                addr: raw.input(),
                fetch: raw.fetch_addr(),
            }),
            EventNumber::TRANSLATION => Self::Translation(raw.fault()),
            EventNumber::ADDR_SIZE => Self::AddressSize(raw.fault()),
            EventNumber::ACCESS => Self::AccessFlag(raw.fault()),
            EventNumber::PERMISSION => Self::Permission(raw.fault()),
            EventNumber::TLB_CONFLICT => Self::TlbConflict(TlbConflict {
                origin,
                reason: raw.reason(),
                access: raw.access(),
                addr: raw.input(),
                ipa: raw.ipa(),
            }),
            EventNumber::CFG_CONFLICT => Self::CfgConflict {
                origin,
                reason: raw.reason(),
            },
            EventNumber::PAGE_REQUEST => Self::PageHint(raw.page_hint()),
            EventNumber::VMS_FETCH => Self::VmsFetch(raw.fetch()),
            _ => Self::Other(*raw),
        }
    }

    /// The record that says this. What a record does not carry is dropped.
    #[must_use]
    pub fn encode(&self) -> RawEvent {
        let new = |number, origin| RawEvent::new(number).with_origin(origin);
        let plain = |stream| Origin {
            stream,
            substream: None,
        };
        match *self {
            Self::UnsupportedTransaction(event) => new(EventNumber::UUT, event.origin)
                .with_reason(event.reason)
                .with_access(event.access)
                .with_input(event.addr),
            Self::BadStreamId(origin) => new(EventNumber::BAD_STREAMID, origin),
            Self::SteFetch(event) => raw::fetch(EventNumber::STE_FETCH, event),
            Self::BadSte(origin) => new(EventNumber::BAD_STE, origin),
            Self::BadAtsRequest(event) => raw::bad_ats_request(event),
            Self::StreamDisabled { stream } => new(EventNumber::STREAM_DISABLED, plain(stream)),
            Self::TranslatedForbidden(event) => {
                let access = if event.read {
                    Access::READ
                } else {
                    Access::WRITE
                };
                new(EventNumber::TRANSL_FORBIDDEN, plain(event.stream))
                    .with_access(access)
                    .with_input(event.addr)
            }
            Self::BadSubstreamId { stream, substream } => {
                new(EventNumber::BAD_SUBSTREAMID, plain(stream)).with_substream(substream)
            }
            Self::CdFetch(event) => raw::fetch(EventNumber::CD_FETCH, event),
            Self::BadCd(origin) => new(EventNumber::BAD_CD, origin),
            Self::WalkAbort(event) => new(EventNumber::WALK_EABT, event.origin)
                .with_reason(event.reason)
                .with_access(event.access)
                .with_class(event.class)
                .with_second(event.second)
                .with_input(event.addr)
                .with_fetch_addr(event.fetch),
            Self::Translation(fault) => RawEvent::of_fault(EventNumber::TRANSLATION, &fault),
            Self::AddressSize(fault) => RawEvent::of_fault(EventNumber::ADDR_SIZE, &fault),
            Self::AccessFlag(fault) => RawEvent::of_fault(EventNumber::ACCESS, &fault),
            Self::Permission(fault) => RawEvent::of_fault(EventNumber::PERMISSION, &fault),
            Self::TlbConflict(event) => new(EventNumber::TLB_CONFLICT, event.origin)
                .with_reason(event.reason)
                .with_access(event.access)
                .with_input(event.addr)
                .with_ipa(event.ipa),
            Self::CfgConflict { origin, reason } => {
                new(EventNumber::CFG_CONFLICT, origin).with_reason(reason)
            }
            Self::PageHint(event) => raw::page_hint(event),
            Self::VmsFetch(event) => raw::fetch(EventNumber::VMS_FETCH, event),
            Self::Other(raw) => raw,
        }
    }

    /// The translation-related fault, if it is one.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Translation(fault)
            | Self::AddressSize(fault)
            | Self::AccessFlag(fault)
            | Self::Permission(fault) => Some(fault),
            _ => None,
        }
    }
}

impl From<Event> for Unrecoverable {
    /// The architecture-neutral form; the reason is the event number.
    fn from(event: Event) -> Self {
        let raw = event.encode();
        let plain = Self {
            reason: Reason(u32::from(raw.number().0)),
            pasid: raw.origin().substream,
            access: Access::empty(),
            addr: None,
            fetch_addr: None,
        };
        match event {
            Event::UnsupportedTransaction(event) => Self {
                access: event.access,
                addr: Some(event.addr),
                ..plain
            },
            Event::SteFetch(event) | Event::CdFetch(event) | Event::VmsFetch(event) => Self {
                fetch_addr: Some(event.addr),
                ..plain
            },
            Event::BadAtsRequest(event) => Self {
                access: event.access,
                addr: Some(event.addr),
                ..plain
            },
            Event::TranslatedForbidden(event) => Self {
                access: raw.access(),
                addr: Some(event.addr),
                ..plain
            },
            Event::BadSubstreamId { substream, .. } => Self {
                pasid: Some(substream),
                ..plain
            },
            Event::WalkAbort(event) => Self {
                access: event.access,
                addr: Some(event.addr),
                fetch_addr: Some(event.fetch),
                ..plain
            },
            Event::Translation(fault)
            | Event::AddressSize(fault)
            | Event::AccessFlag(fault)
            | Event::Permission(fault) => Self {
                access: fault.access,
                addr: Some(fault.addr),
                // The table or descriptor whose address stage 2 refused.
                fetch_addr: fault.ipa.filter(|_| fault.class != Class::IN),
                ..plain
            },
            Event::TlbConflict(event) => Self {
                access: event.access,
                addr: Some(event.addr),
                ..plain
            },
            Event::PageHint(event) => Self {
                access: event.user | event.privileged,
                addr: Some(event.addr),
                ..plain
            },
            Event::BadStreamId(_)
            | Event::BadSte(_)
            | Event::StreamDisabled { .. }
            | Event::BadCd(_)
            | Event::CfgConflict { .. }
            | Event::Other(_) => plain,
        }
    }
}

#[cfg(test)]
mod tests;
