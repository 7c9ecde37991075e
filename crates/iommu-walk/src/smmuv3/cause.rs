//! Why an SMMUv3 request ended without a translation.
//!
//! Each condition has its event, with the class and the stage that the record names and the address that
//! it has besides the request's. Source: IHI 0070, "Event records" and, for translation requests,
//! "Responses to ATS Translation Requests"; the checks are those of "Validity of STE" and "Validity of
//! CD". How a record is laid out is for the model to say.

use crate::Completion;
use iopf::{DmaKind, Reason};

/// How a page request is answered that a unit does not take, if it is the last of its group: *Response
/// Failure*. IHI 0070, "PRI queue", "Miscellaneous".
pub const PAGE_REQUEST_ANSWER: iopf::Response = iopf::Response::Failure;

/// What an operation was for that met a fault: CLASS of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 00b, CD: a context descriptor was fetched.
    Context,
    /// 01b, TT: a stage 1 table was fetched.
    Table,
    /// 10b, IN: the request's own address.
    Input,
}

/// The address that an event has besides that of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Second {
    /// None.
    Nothing,
    /// `FetchAddr`: the entry that could not be read or written, a physical address.
    Fetch,
    /// IPA: the input of stage 2.
    Intermediate,
}

/// What decides whether a fault is recorded, and whether its request stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Nothing: it is recorded, and the request is aborted.
    Always,
    /// The context descriptor: R, S and A.
    First,
    /// The stream table entry: `S2R` and `S2S`.
    Second,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $event:ident, $class:ident, $stage:ident, $second:ident, $confirmed:ident;)+) => {
        /// A condition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Cause {
            $(
                $(#[$doc])*
                #[doc = concat!("\n\n`", stringify!($event), "`.")]
                $name,
            )+
        }

        impl Cause {
            /// Every condition.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The number of the event. Zero: nothing is ever recorded.
            #[must_use]
            pub const fn reason(self) -> Reason {
                Reason(match self { $(Self::$name => causes!(@number $event),)+ })
            }

            /// The event's name: `F_TRANSLATION`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => stringify!($event),)+ }
            }

            /// CLASS of the event; `None` where it has none.
            #[must_use]
            pub const fn class(self) -> Option<Class> {
                match self { $(Self::$name => causes!(@class $class),)+ }
            }

            /// S2 of the event: stage 2 is to blame.
            #[must_use]
            pub const fn second_stage(self) -> bool {
                match self { $(Self::$name => causes!(@second $stage),)+ }
            }

            /// The address of the event besides that of the request.
            #[must_use]
            pub const fn second_address(self) -> Second {
                match self { $(Self::$name => causes!(@address $second),)+ }
            }

            /// What decides whether it is recorded.
            #[must_use]
            pub const fn gate(self) -> Gate {
                match self { $(Self::$name => causes!(@gate $stage $event),)+ }
            }

            /// Whether the specification, or an author other than us, gives the condition this event.
            #[must_use]
            pub const fn confirmed(self) -> bool {
                match self { $(Self::$name => causes!(@$confirmed),)+ }
            }
        }
    };
    (@number NONE) => { 0 };
    (@number C_BAD_STREAMID) => { 0x02 };
    (@number F_STE_FETCH) => { 0x03 };
    (@number C_BAD_STE) => { 0x04 };
    (@number F_BAD_ATS_TREQ) => { 0x05 };
    (@number F_STREAM_DISABLED) => { 0x06 };
    (@number F_TRANSL_FORBIDDEN) => { 0x07 };
    (@number C_BAD_SUBSTREAMID) => { 0x08 };
    (@number F_CD_FETCH) => { 0x09 };
    (@number C_BAD_CD) => { 0x0a };
    (@number F_WALK_EABT) => { 0x0b };
    (@number F_TRANSLATION) => { 0x10 };
    (@number F_ADDR_SIZE) => { 0x11 };
    (@number F_ACCESS) => { 0x12 };
    (@number F_PERMISSION) => { 0x13 };
    (@class no) => { None };
    (@class cd) => { Some(Class::Context) };
    (@class tt) => { Some(Class::Table) };
    (@class input) => { Some(Class::Input) };
    (@second second) => { true };
    (@second $other:ident) => { false };
    (@address no) => { Second::Nothing };
    (@address fetch) => { Second::Fetch };
    (@address ipa) => { Second::Intermediate };
    (@gate $stage:ident F_WALK_EABT) => { Gate::Always };
    (@gate first $event:ident) => { Gate::First };
    (@gate second $event:ident) => { Gate::Second };
    (@gate no $event:ident) => { Gate::Always };
    (@confirmed) => { true };
    (@UNCONFIRMED) => { false };
}

// The event; its class; the stage to blame; the address besides the request's.
causes! {
    /// Translation is off (`SMMUEN`), and requests are aborted then (`GBPA.ABORT`).
    GlobalAbort = NONE, no, no, no, confirmed;
    /// Translation is off, and the address is wider than physical ones.
    GlobalAddressSize = NONE, no, no, no, confirmed;
    /// Translation is off, and the request is a translation request.
    GlobalTranslationRequest = F_BAD_ATS_TREQ, no, no, no, confirmed;
    /// Translation is off, and the request is a translated one.
    GlobalTranslated = F_TRANSL_FORBIDDEN, no, no, no, confirmed;
    /// A translated request whose address is wider than physical ones. It may be cut off instead.
    TranslatedAddressSize = NONE, no, no, no, confirmed;

    /// The stream table is not that large.
    StreamOutsideTable = C_BAD_STREAMID, no, no, no, confirmed;
    /// The level 1 stream table descriptor has a Span of 0, a reserved one, or one above the split.
    StreamLevel1Invalid = C_BAD_STREAMID, no, no, no, confirmed;
    /// The level 2 stream table is not that large.
    StreamOutsideSpan = C_BAD_STREAMID, no, no, no, confirmed;
    /// The level 1 stream table descriptor could not be read.
    StreamLevel1Unreadable = F_STE_FETCH, no, no, fetch, confirmed;
    /// The stream table entry could not be read.
    StreamUnreadable = F_STE_FETCH, no, no, fetch, confirmed;

    /// The stream table entry is not valid.
    StreamInvalid = C_BAD_STE, no, no, no, confirmed;
    /// The stream's requests are aborted (Config 0xxb), and nobody is told.
    StreamAborts = NONE, no, no, no, confirmed;
    /// Config asks for stage 1, which the unit does not have.
    StreamFirstMissing = C_BAD_STE, no, no, no, confirmed;
    /// Config asks for stage 2, which the unit does not have.
    StreamSecondMissing = C_BAD_STE, no, no, no, confirmed;
    /// EATS asks for split-stage ATS, or for full ATS where stage 2 stalls.
    StreamAts = C_BAD_STE, no, no, no, confirmed;
    /// `S1STALLD` on a unit that does not let stalls be chosen.
    StreamStallDisable = C_BAD_STE, no, no, no, confirmed;
    /// `S1CDMax` is larger than substreams are wide.
    StreamContextBits = C_BAD_STE, no, no, no, confirmed;
    /// `S1Fmt` asks for two levels, which the unit does not have.
    StreamContextFormat = C_BAD_STE, no, no, no, confirmed;
    /// `S1ContextPtr` is wider than addresses. Where stage 2 translates it, a fault of stage 2 would do
    /// as well.
    StreamContextPointer = C_BAD_STE, no, no, no, confirmed;
    /// `S2S` on a unit that does not stall, or none on one that always does.
    StreamSecondStall = C_BAD_STE, no, no, no, confirmed;
    /// `S2AA64` is clear: tables of a format that the unit does not have.
    StreamSecondFormat = C_BAD_STE, no, no, no, confirmed;
    /// `S2HA` or `S2HD` on a unit that does not update entries so.
    StreamSecondUpdates = C_BAD_STE, no, no, no, confirmed;
    /// `S2TG` is reserved, or a granule that the unit does not have.
    StreamSecondGranule = C_BAD_STE, no, no, no, confirmed;
    /// `S2TTB` is wider than the output of stage 2.
    StreamSecondTable = C_BAD_STE, no, no, no, confirmed;
    /// `S2T0SZ` is out of range.
    StreamSecondInput = C_BAD_STE, no, no, no, confirmed;
    /// `S2SL0` is reserved, or does not go with `S2T0SZ`.
    StreamSecondLevel = C_BAD_STE, no, no, no, confirmed;
    /// `S2ENDI` asks for big-endian tables.
    StreamSecondEndian = C_BAD_STE, no, no, no, confirmed;
    /// `S2VMID` is wider than the unit's.
    StreamVmid = C_BAD_STE, no, no, no, confirmed;

    /// A translation request, and EATS does not allow them, or no stage translates.
    TranslationRequest = F_BAD_ATS_TREQ, no, no, no, confirmed;
    /// A translated request, and EATS does not allow them, or no stage translates.
    Translated = F_TRANSL_FORBIDDEN, no, no, no, confirmed;

    /// The request has a substream, and stage 1 does not translate.
    SubstreamWithoutFirst = C_BAD_SUBSTREAMID, no, no, no, confirmed;
    /// The request has a substream, and the unit has none (`SSIDSIZE`).
    SubstreamsMissing = C_BAD_SUBSTREAMID, no, no, no, confirmed;
    /// The request has a substream, and the stream has none (`S1CDMax`).
    SubstreamsDisabled = C_BAD_SUBSTREAMID, no, no, no, confirmed;
    /// There are not that many context descriptors (`S1CDMax`).
    SubstreamOutsideTable = C_BAD_SUBSTREAMID, no, no, no, confirmed;
    /// The request has no substream, and the stream asks for one (`S1DSS`).
    SubstreamNeeded = F_STREAM_DISABLED, no, no, no, confirmed;
    /// The request has substream 0, which is that of requests without one (`S1DSS`).
    SubstreamReserved = F_STREAM_DISABLED, no, no, no, confirmed;

    /// The address of a context descriptor is wider than the input of stage 2.
    ContextIpaOutside = F_TRANSLATION, cd, second, ipa, confirmed;
    /// On the way to a context descriptor, a stage 2 entry could not be read.
    ContextIpaUnreadable = F_WALK_EABT, cd, second, fetch, confirmed;
    /// On the way to a context descriptor, a stage 2 entry is not valid.
    ContextIpaInvalid = F_TRANSLATION, cd, second, ipa, confirmed;
    /// On the way to a context descriptor, a stage 2 entry has an address that is too wide.
    ContextIpaOutputSize = F_ADDR_SIZE, cd, second, ipa, confirmed;
    /// The access flag of a context descriptor's page is clear.
    ContextIpaAccessFlag = F_ACCESS, cd, second, ipa, confirmed;
    /// Stage 2 does not let a context descriptor be read.
    ContextIpaDenied = F_PERMISSION, cd, second, ipa, confirmed;
    /// A context descriptor lies in device memory (`S2PTW`).
    ContextIpaDevice = F_PERMISSION, cd, second, ipa, confirmed;

    /// The level 1 context descriptor could not be read.
    ContextLevel1Unreadable = F_CD_FETCH, no, no, fetch, confirmed;
    /// The level 1 context descriptor is not valid.
    ContextLevel1Invalid = C_BAD_SUBSTREAMID, no, no, no, confirmed;
    /// The pointer of a level 1 context descriptor is wider than addresses. Where stage 2 translates it,
    /// a fault of stage 2 would do as well.
    ContextLevel1Pointer = C_BAD_SUBSTREAMID, no, no, no, confirmed;
    /// The context descriptor could not be read.
    ContextUnreadable = F_CD_FETCH, no, no, fetch, confirmed;
    /// The context descriptor is not valid.
    ContextInvalid = C_BAD_CD, no, no, no, confirmed;
    /// S on a unit or a stream that does not stall, or none on a unit that always does.
    ContextStall = C_BAD_CD, no, no, no, confirmed;
    /// A is clear on a unit that always aborts (`TERM_MODEL`).
    ContextAbort = C_BAD_CD, no, no, no, confirmed;
    /// ENDI asks for big-endian tables.
    ContextEndian = C_BAD_CD, no, no, no, confirmed;
    /// AA64 is clear: tables of a format that the unit does not have.
    ContextFormat = C_BAD_CD, no, no, no, confirmed;
    /// HA or HD on a unit that does not update entries so.
    ContextUpdates = C_BAD_CD, no, no, no, confirmed;
    /// The ASID is wider than the unit's.
    ContextAsid = C_BAD_CD, no, no, no, confirmed;
    /// T0SZ or T1SZ of a range in use is out of bounds.
    ContextInputSize = C_BAD_CD, no, no, no, confirmed;
    /// TG0 or TG1 of a range in use is reserved, or a granule that the unit does not have.
    ContextGranule = C_BAD_CD, no, no, no, confirmed;
    /// TTB0 or TTB1 of a range in use is wider than the output of stage 1.
    ContextTable = C_BAD_CD, no, no, no, confirmed;

    /// Stage 1 does not translate, and the address is wider than its output may be.
    InputSize = F_ADDR_SIZE, input, no, no, confirmed;
    /// The address is in neither range.
    FirstOutside = F_TRANSLATION, input, first, no, confirmed;
    /// The range of the address is not translated (EPD0, EPD1).
    FirstDisabled = F_TRANSLATION, input, first, no, confirmed;
    /// The range of the address is not for unprivileged requests (E0PD0, E0PD1).
    FirstUserDisabled = F_TRANSLATION, input, first, no, confirmed;
    /// A stage 1 entry could not be read.
    FirstUnreadable = F_WALK_EABT, tt, no, fetch, confirmed;
    /// A stage 1 entry is not valid.
    FirstInvalid = F_TRANSLATION, input, first, no, confirmed;
    /// A stage 1 entry has an address that is too wide (IPS).
    FirstOutputSize = F_ADDR_SIZE, input, first, no, confirmed;
    /// The access flag of a stage 1 entry is clear.
    FirstAccessFlag = F_ACCESS, input, first, no, confirmed;
    /// An unprivileged request, and stage 1 gives those no access.
    FirstUserDenied = F_PERMISSION, input, first, no, confirmed;
    /// A privileged request to data of unprivileged ones (PAN).
    FirstPrivilegedDenied = F_PERMISSION, input, first, no, confirmed;
    /// A write or atomic operation, and stage 1 does not grant write.
    FirstWriteDenied = F_PERMISSION, input, first, no, confirmed;
    /// An instruction is read, and stage 1 does not grant execute.
    FirstExecuteDenied = F_PERMISSION, input, first, no, confirmed;
    /// A stage 1 entry's access flag or dirty state could not be written.
    FirstUpdateFailed = F_WALK_EABT, tt, no, fetch, confirmed;

    /// The address of a stage 1 table is wider than the input of stage 2.
    TableIpaOutside = F_TRANSLATION, tt, second, ipa, confirmed;
    /// On the way to a stage 1 table, a stage 2 entry could not be read.
    TableIpaUnreadable = F_WALK_EABT, tt, second, fetch, confirmed;
    /// On the way to a stage 1 table, a stage 2 entry is not valid.
    TableIpaInvalid = F_TRANSLATION, tt, second, ipa, confirmed;
    /// On the way to a stage 1 table, a stage 2 entry has an address that is too wide.
    TableIpaOutputSize = F_ADDR_SIZE, tt, second, ipa, confirmed;
    /// The access flag of a stage 1 table's page is clear.
    TableIpaAccessFlag = F_ACCESS, tt, second, ipa, confirmed;
    /// Stage 2 does not let a stage 1 table be read.
    TableIpaReadDenied = F_PERMISSION, tt, second, ipa, confirmed;
    /// Stage 2 does not let a stage 1 entry's access flag or dirty state be written.
    TableIpaWriteDenied = F_PERMISSION, tt, second, ipa, confirmed;
    /// A stage 1 table lies in device memory (`S2PTW`).
    TableIpaDevice = F_PERMISSION, tt, second, ipa, confirmed;

    /// The address, or the output of stage 1, is wider than the input of stage 2.
    IpaOutside = F_TRANSLATION, input, second, ipa, confirmed;
    /// A stage 2 entry could not be read.
    IpaUnreadable = F_WALK_EABT, input, second, fetch, confirmed;
    /// A stage 2 entry is not valid.
    IpaInvalid = F_TRANSLATION, input, second, ipa, confirmed;
    /// A stage 2 entry has an address that is too wide (`S2PS`).
    IpaOutputSize = F_ADDR_SIZE, input, second, ipa, confirmed;
    /// The access flag of a stage 2 entry is clear.
    IpaAccessFlag = F_ACCESS, input, second, ipa, confirmed;
    /// A read or atomic operation, and stage 2 does not grant read.
    IpaReadDenied = F_PERMISSION, input, second, ipa, confirmed;
    /// A write or atomic operation, and stage 2 does not grant write.
    IpaWriteDenied = F_PERMISSION, input, second, ipa, confirmed;
    /// An instruction is read, and stage 2 does not grant execute.
    IpaExecuteDenied = F_PERMISSION, input, second, ipa, confirmed;
    /// A stage 2 entry's access flag or dirty state could not be written. Its class is that of the
    /// request's own address, whatever the entry was used for: UNCONFIRMED.
    IpaUpdateFailed = F_WALK_EABT, input, second, fetch, UNCONFIRMED;

    /// A page request, and the unit does not take any (`PRIQEN`, `SMMUEN`).
    PageRequestsDisabled = NONE, no, no, no, confirmed;
}

impl Cause {
    /// Whether it is one of the four translation-related faults: `F_TRANSLATION`, `F_ADDR_SIZE`,
    /// `F_ACCESS` and `F_PERMISSION`.
    #[must_use]
    pub const fn translation_related(self) -> bool {
        self.reason().0 >= 0x10
    }

    /// Whether the event has the address of the request.
    #[must_use]
    pub const fn has_input_address(self) -> bool {
        matches!(self.reason().0, 0x05 | 0x07 | 0x0b | 0x10..=0x13)
    }

    /// `TTRnW` of an `F_PERMISSION` of class TT: a stage 1 table was read, not written.
    #[must_use]
    pub const fn table_read(self) -> bool {
        !matches!(self, Self::TableIpaWriteDenied)
    }

    /// How a request of this kind is completed when it meets this condition.
    ///
    /// An untranslated one may read zero instead, or stall: see [`Detail`](super::Detail).
    #[must_use]
    pub const fn completion(self, kind: DmaKind) -> Completion {
        match kind {
            DmaKind::Untranslated | DmaKind::Translated => Completion::CompleterAbort,
            DmaKind::Translation { .. } => match self.reason().0 {
                0 | 0x05 => Completion::UnsupportedRequest,
                0x10..=0x13 => Completion::NoAccess,
                _ => Completion::CompleterAbort,
            },
        }
    }

    /// Whether a request of this kind leaves an event, the [gate](Self::gate) apart.
    ///
    /// A translation request leaves none but `F_BAD_ATS_TREQ`. A translated one leaves none but
    /// `F_TRANSL_FORBIDDEN`: no stage translates it.
    #[must_use]
    pub const fn recorded(self, kind: DmaKind) -> bool {
        match kind {
            DmaKind::Untranslated => self.reason().0 != 0,
            DmaKind::Translation { .. } => self.reason().0 == 0x05,
            DmaKind::Translated => self.reason().0 == 0x07,
        }
    }
}
