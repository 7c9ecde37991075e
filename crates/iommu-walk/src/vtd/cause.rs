//! Why a VT-d request ended without a translation.
//!
//! The conditions are those of Intel VT-d, revision 5.10, "Fault Conditions and Remapping Hardware
//! Behavior for Various Requests"; older revisions call the paging conditions `LSL`, `SFL` and
//! `SSL` where this one has `LSS`, `SFS` and `SSS`. The table there gives each condition its
//! number, says whether FPD suppresses it and how each kind of request is answered, so those three
//! live here, beside the condition. The layout of a fault record does not: that is the model's.

use crate::Completion;
use iopf::{DmaKind, Reason};

/// How a page request that met a fault condition is answered: *Invalid Request* if it is the last
/// of its group, else it is dropped. Every condition of [`page_request`](super::page_request) is
/// answered so.
pub const PAGE_REQUEST_ANSWER: iopf::Response = iopf::Response::Invalid;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $reason:literal, $code:literal, $qualified:ident, $translation:ident, $translated:ident;)+) => {
        /// A fault condition, one a row of the specification's table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Cause {
            $(
                $(#[$doc])*
                #[doc = concat!("\n\n", $code, ".")]
                $name,
            )+
        }

        impl Cause {
            /// Every condition.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The number a fault record carries. Zero: nothing is ever recorded.
            #[must_use]
            pub const fn reason(self) -> Reason {
                Reason(match self { $(Self::$name => $reason,)+ })
            }

            /// The condition's name, without the sub-case: `SFL.2`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// Whether FPD in an entry on the path suppresses the record.
            #[must_use]
            pub const fn qualified(self) -> bool {
                match self { $(Self::$name => causes!(@$qualified),)+ }
            }

            const fn row(self) -> (Completion, Completion) {
                match self { $(Self::$name => (causes!(@$translation), causes!(@$translated)),)+ }
            }
        }
    };
    (@always) => { false };
    (@qualified) => { true };
    (@ur) => { Completion::UnsupportedRequest };
    (@ca) => { Completion::CompleterAbort };
    (@none) => { Completion::NoAccess };
}

causes! {
    /// Translation is off and the request is not an untranslated one.
    Disabled = 0x00, "TES=0", always, ur, ur;

    /// Legacy: the root entry could not be read.
    RootUnreadable = 0x08, "LRT.1", always, ca, ur;
    /// Legacy: the root entry is not present.
    RootNotPresent = 0x01, "LRT.2", always, ur, ur;
    /// Legacy: reserved bits in the root entry.
    RootReserved = 0x0a, "LRT.3", always, ca, ur;
    /// Legacy: the context entry could not be read.
    ContextUnreadable = 0x09, "LCT.1", always, ca, ur;
    /// Legacy: the context entry is not present.
    ContextNotPresent = 0x02, "LCT.2", qualified, ur, ur;
    /// Legacy: reserved bits in the context entry.
    ContextReserved = 0x0b, "LCT.3", qualified, ca, ur;
    /// Legacy: the context entry's address width is not one of this unit's.
    ContextWidth = 0x03, "LCT.4", qualified, ca, ur;
    /// Legacy: the context entry's translation type is not one of this unit's.
    ContextType = 0x03, "LCT.4", qualified, ca, ur;
    /// Legacy: the first page-table entry, which the context entry points to, could not be read.
    LegacyTopUnreadable = 0x03, "LCT.4", qualified, ca, ur;
    /// Legacy: the context entry blocks translation and translated requests.
    AddressTypeBlocked = 0x0d, "LCT.5", qualified, ur, ur;
    /// Legacy: a lower page-table entry could not be read.
    LegacyEntryUnreadable = 0x07, "LSL.1", qualified, ca, ur;
    /// Legacy: reserved bits in a page-table entry that grants something.
    LegacyEntryReserved = 0x0c, "LSL.2", qualified, ca, ur;
    /// Legacy: the address is wider than the unit's or the context entry's address width.
    LegacyAddressWidth = 0x04, "LGN.1", qualified, none, ur;
    /// Legacy: the address of a translated request is wider than the host's.
    LegacyTranslatedWidth = 0x04, "LGN.1", qualified, none, ur;
    /// Legacy: the address of a request that passes through is wider than the host's.
    LegacyPassThroughWidth = 0x04, "LGN.1", qualified, none, ur;
    /// Legacy: a write or atomic operation, and some entry does not grant write.
    LegacyWriteDenied = 0x05, "LGN.2", qualified, none, ur;
    /// Legacy: a read or atomic operation, and some entry does not grant read.
    LegacyReadDenied = 0x06, "LGN.3", qualified, none, ur;
    /// Legacy: the address after translation lies in the interrupt range.
    LegacyInterruptRange = 0x0e, "LGN.4", qualified, ca, ur;

    /// The root table address register asks for a mode this unit does not have.
    ModeUnsupported = 0x30, "RTA.1", always, ca, ur;
    /// Legacy mode, and the request has a PASID.
    PasidInLegacyMode = 0x31, "RTA.2", always, ur, ur;
    /// Legacy mode, and this is a page request.
    PageRequestInLegacyMode = 0x32, "RTA.3", always, ur, ur;
    /// The unit is in abort-DMA mode.
    AbortMode = 0x33, "RTA.4", always, ur, ur;
    /// The request has a PASID and asks for execute, of a unit whose major version is 8 or more.
    ExecuteUnsupported = 0x34, "RTA.5", always, ur, ur;

    /// Scalable: the root entry could not be read.
    ScalableRootUnreadable = 0x38, "SRT.1", always, ca, ur;
    /// Scalable: the half of the root entry that holds this device is not present.
    ScalableRootNotPresent = 0x39, "SRT.2", always, ur, ur;
    /// Scalable: reserved bits in a present half of the root entry.
    ScalableRootReserved = 0x3a, "SRT.3", always, ca, ur;
    /// Scalable: the context entry could not be read.
    ScalableContextUnreadable = 0x40, "SCT.1", always, ca, ur;
    /// Scalable: the context entry is not present.
    ScalableContextNotPresent = 0x41, "SCT.2", qualified, ur, ur;
    /// Scalable: reserved bits in the context entry.
    ScalableContextReserved = 0x42, "SCT.3", qualified, ca, ur;
    /// Scalable: page requests are enabled where the device TLB is not.
    PageRequestsWithoutDeviceTlb = 0x43, "SCT.4", qualified, ca, ur;
    /// Scalable: `RID_PASID` lies outside the PASID directory.
    RidPasidTooLarge = 0x43, "SCT.4", qualified, ca, ur;
    /// Scalable: PASIDs are enabled in translated requests where PASIDs are not enabled at all.
    TranslatedPasidWithoutPasid = 0x43, "SCT.4", qualified, ca, ur;
    /// Scalable: a translation or translated request, and the device TLB is not enabled.
    DeviceTlbDisabled = 0x44, "SCT.5", qualified, ur, ur;
    /// Scalable: the request has a PASID, and PASIDs are not enabled.
    PasidDisabled = 0x45, "SCT.6", qualified, ur, ur;
    /// Scalable: the PASID lies outside the PASID directory.
    PasidTooLarge = 0x46, "SCT.7", qualified, ur, ur;
    /// Scalable: a page request, and page requests are not enabled.
    PageRequestsDisabled = 0x47, "SCT.8", qualified, ur, ur;
    /// Scalable: the request names the PASID that stands for requests without one.
    PasidIsRidPasid = 0x48, "SCT.9", qualified, ur, ur;
    /// Scalable: a translated request has a PASID, and those are not enabled.
    TranslatedPasidDisabled = 0x49, "SCT.10", qualified, ur, ur;

    /// The PASID directory entry could not be read.
    DirectoryUnreadable = 0x50, "SPD.1", always, ca, ca;
    /// The PASID directory entry is not present.
    DirectoryNotPresent = 0x51, "SPD.2", qualified, none, ur;
    /// Reserved bits in the PASID directory entry.
    DirectoryReserved = 0x52, "SPD.3", qualified, ca, ca;
    /// The PASID table entry could not be read.
    PasidEntryUnreadable = 0x58, "SPT.1", always, ca, ca;
    /// The PASID table entry is not present.
    PasidEntryNotPresent = 0x59, "SPT.2", qualified, none, ur;
    /// Reserved bits in the PASID table entry.
    PasidEntryReserved = 0x5a, "SPT.3", qualified, ca, ca;
    /// The PASID table entry's address width is not one of this unit's.
    PasidEntryWidth = 0x5b, "SPT.4", qualified, ca, ca;
    /// The PASID table entry's translation type is not one of this unit's.
    PasidEntryType = 0x5b, "SPT.4", qualified, ca, ca;
    /// The PASID table entry's first-stage paging mode is not one of this unit's.
    PasidEntryPagingMode = 0x5b, "SPT.4", qualified, ca, ca;
    /// Nested: the first-stage table pointer is wider than the second stage's input.
    FirstStagePointerWidth = 0x5b, "SPT.4", qualified, ca, ca;
    /// Execute is asked for and not enabled.
    ExecuteDisabled = 0x5c, "SPT.5", qualified, none, ur;
    /// Privileged mode is asked for and not enabled.
    SupervisorDisabled = 0x5d, "SPT.6", qualified, none, ur;

    /// A first-stage entry below the top could not be read.
    FirstEntryUnreadable = 0x70, "SFL.1", qualified, none, ur;
    /// A first-stage entry is not present.
    FirstEntryNotPresent = 0x71, "SFL.2", qualified, none, ur;
    /// Reserved bits in a present first-stage entry.
    FirstEntryReserved = 0x72, "SFL.3", qualified, none, ur;
    /// The top first-stage entry could not be read.
    FirstTopUnreadable = 0x73, "SFL.4", qualified, none, ur;
    /// Nested: a first-stage entry holds an address wider than the second stage's input.
    FirstEntryWidth = 0x74, "SFL.5", qualified, none, ur;
    /// Nested: the second stage does not let the top first-stage entry be read.
    FirstTopReadDenied = 0x75, "SFL.6", qualified, none, ur;
    /// Nested: the second stage does not let a lower first-stage entry be read.
    FirstEntryReadDenied = 0x76, "SFL.7", qualified, none, ur;
    /// Nested: the second stage does not let a first-stage entry's accessed or dirty bit be set.
    FirstEntryWriteDenied = 0x77, "SFL.8", qualified, none, ur;
    /// A first-stage entry's accessed or dirty bit must be set, and page walks are not coherent.
    FirstUpdateNotCoherent = 0x90, "SFL.9", qualified, none, ur;
    /// A first-stage entry's accessed or dirty bit could not be set.
    FirstUpdateFailed = 0x91, "SFL.10", qualified, none, ur;

    /// Scalable: a second-stage entry below the top could not be read.
    SecondEntryUnreadable = 0x78, "SSL.1", qualified, ca, ur;
    /// Scalable: the second stage grants neither read nor write.
    SecondNoAccess = 0x79, "SSL.2", qualified, none, ur;
    /// Scalable: reserved bits in a second-stage entry that grants something.
    SecondEntryReserved = 0x7a, "SSL.3", qualified, ca, ur;
    /// Scalable: the top second-stage entry could not be read.
    SecondTopUnreadable = 0x7b, "SSL.4", qualified, ca, ur;
    /// A second-stage entry's accessed or dirty bit must be set, and page walks are not coherent.
    SecondUpdateNotCoherent = 0x7c, "SSL.5", qualified, ca, ur;
    /// A second-stage entry's accessed or dirty bit could not be set.
    SecondUpdateFailed = 0x7d, "SSL.6", qualified, ca, ur;

    /// The address is not canonical for the first stage.
    NotCanonical = 0x80, "SGN.1", qualified, none, ur;
    /// A user request, and some first-stage entry is for supervisors.
    UserDenied = 0x81, "SGN.2", qualified, none, ur;
    /// Execute is asked for, and the first stage does not grant it.
    ExecuteDenied = 0x82, "SGN.3", qualified, none, ur;
    /// Scalable: the address of a translated request is wider than the host's.
    TranslatedWidth = 0x83, "SGN.4", qualified, none, ur;
    /// Scalable: the address of a request that passes through is wider than the host's.
    PassThroughWidth = 0x83, "SGN.4", qualified, none, ur;
    /// Scalable: the address is wider than the second stage's input.
    SecondAddressWidth = 0x84, "SGN.5", qualified, none, ur;
    /// Scalable: a write or atomic operation, and some stage does not grant write.
    WriteDenied = 0x85, "SGN.6", qualified, none, ur;
    /// Scalable: a read or atomic operation, and the second stage does not grant read.
    ReadDenied = 0x86, "SGN.7", qualified, none, ur;
    /// Scalable: the address after translation lies in the interrupt range.
    InterruptRange = 0x87, "SGN.8", qualified, ca, ur;
    /// The PASID is wider than the unit supports.
    PasidUnsupported = 0x89, "SGN.10", qualified, ur, ur;
}

impl Cause {
    /// How a request of this kind is completed when it meets this condition.
    ///
    /// A blocked untranslated read is completed as Unsupported Request, a write is discarded.
    #[must_use]
    pub const fn completion(self, kind: DmaKind) -> Completion {
        match kind {
            DmaKind::Untranslated => Completion::UnsupportedRequest,
            DmaKind::Translation { .. } => self.row().0,
            DmaKind::Translated => self.row().1,
        }
    }

    /// Whether a request of this kind leaves a fault record, FPD apart.
    ///
    /// A translation request that succeeds without permissions is a recoverable fault: the device
    /// is told, software is not. The one exception is a failed accessed or dirty update.
    #[must_use]
    pub const fn recorded(self, kind: DmaKind) -> bool {
        if matches!(self, Self::Disabled) {
            return false;
        }
        !matches!(
            (kind, self.completion(kind), self),
            (DmaKind::Translation { .. }, Completion::NoAccess, cause)
                if !matches!(cause, Self::FirstUpdateFailed)
        )
    }
}
