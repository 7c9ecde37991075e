//! Why an AMD-Vi request ended without a translation.
//!
//! Each condition has the code and the flags of its event, how a translation request is completed,
//! and whether somebody else has it so. Codes and flags: 48882, "Event Logging"; Linux
//! `drivers/iommu/amd/amd_iommu_types.h` (`EVENT_TYPE_*`), FreeBSD `sys/x86/iommu/amd_reg.h`, VirtualBox
//! `include/VBox/iommu-amd.h` and `DevIommuAmd.cpp`. How a record is laid out is for the model to say.

use super::Flags;
use crate::Completion;
use iopf::{DmaKind, Reason};

/// How a page request that met a condition is answered, if it is the last of its group and the unit
/// answers at all: *Invalid Request*. UNCONFIRMED: Linux answers an `INVALID_PPR_REQUEST` itself, unless
/// the record says that the unit has (`amd_iommu_report_ppr_err`).
pub const PAGE_REQUEST_ANSWER: iopf::Response = iopf::Response::Invalid;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $event:ident, $flags:expr, $translation:ident, $confirmed:ident;)+) => {
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

            /// The code of the event, 1–9. Zero: nothing is ever recorded.
            #[must_use]
            pub const fn reason(self) -> Reason {
                Reason(match self { $(Self::$name => causes!(@code $event),)+ })
            }

            /// The event's name, as Linux prints it: `IO_PAGE_FAULT`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => stringify!($event),)+ }
            }

            /// The flags that the condition itself sets; a [`Failure`](super::Failure) adds those of
            /// the request.
            #[must_use]
            pub const fn flags(self) -> Flags {
                match self { $(Self::$name => $flags,)+ }
            }

            /// Whether an author other than us gives the condition this event and these flags.
            #[must_use]
            pub const fn confirmed(self) -> bool {
                match self { $(Self::$name => causes!(@$confirmed),)+ }
            }

            const fn translation(self) -> Completion {
                match self { $(Self::$name => causes!(@$translation),)+ }
            }
        }
    };
    (@code NONE) => { 0 };
    (@code ILLEGAL_DEV_TABLE_ENTRY) => { 1 };
    (@code IO_PAGE_FAULT) => { 2 };
    (@code DEV_TAB_HARDWARE_ERROR) => { 3 };
    (@code PAGE_TAB_HARDWARE_ERROR) => { 4 };
    (@code INVALID_DEVICE_REQUEST) => { 8 };
    (@code INVALID_PPR_REQUEST) => { 9 };
    (@confirmed) => { true };
    (@UNCONFIRMED) => { false };
    (@ur) => { Completion::UnsupportedRequest };
    (@ca) => { Completion::CompleterAbort };
    (@none) => { Completion::NoAccess };
}

const NO: Flags = Flags::empty();
const PR: Flags = Flags::PRESENT;
const PE: Flags = Flags::PRESENT.union(Flags::PERMISSION);
const RZ: Flags = Flags::PRESENT.union(Flags::RESERVED);
/// An abort on the way to a table: the first of the types of hardware errors.
const MASTER_ABORT: Flags = Flags::hardware_error(1);

causes! {
    /// Translation is off and the request is not an untranslated one.
    Disabled = NONE, NO, ur, confirmed;

    /// The device table has no entry for the requester. VirtualBox has it so, and with domain 0;
    /// OpenVMM reports an `ILLEGAL_DEV_TABLE_ENTRY`.
    DeviceOutsideTable = IO_PAGE_FAULT, NO, none, UNCONFIRMED;
    /// A translation request, and the device table has no entry for the requester. VirtualBox lists
    /// it among the invalid requests; its type is by the place in that list.
    TranslationOutsideTable = INVALID_DEVICE_REQUEST, Flags::invalid_request(2), ur, UNCONFIRMED;
    /// The device table entry could not be read.
    DeviceEntryUnreadable = DEV_TAB_HARDWARE_ERROR, MASTER_ABORT, ca, confirmed;
    /// Reserved bits in the device table entry, or bits of a feature that the unit does not have.
    DeviceEntryReserved = ILLEGAL_DEV_TABLE_ENTRY, Flags::RESERVED, ca, confirmed;
    /// The device table entry's Mode is 7, or more levels than the unit has. OpenVMM has it so, and
    /// RZ of this event stands for reserved bits *or else for a level*; VirtualBox, in doubt, reports
    /// an `IO_PAGE_FAULT`.
    PagingMode = ILLEGAL_DEV_TABLE_ENTRY, NO, ca, UNCONFIRMED;
    /// The device table entry's HAD is 10b.
    AccessDirtyMode = ILLEGAL_DEV_TABLE_ENTRY, NO, ca, UNCONFIRMED;
    /// The device table entry's GLX is 3, or more levels than the unit has.
    GuestLevels = ILLEGAL_DEV_TABLE_ENTRY, NO, ca, UNCONFIRMED;
    /// The device table entry's `GuestPagingMode` is reserved, or five levels on a unit with four.
    GuestPagingMode = ILLEGAL_DEV_TABLE_ENTRY, NO, ca, UNCONFIRMED;
    /// The device table entry does not say how addresses are translated (TV=0).
    TranslationDisabled = IO_PAGE_FAULT, NO, none, confirmed;
    /// The device table entry does not allow reads (IR=0).
    DeviceReadDenied = IO_PAGE_FAULT, PE, none, confirmed;
    /// The device table entry does not allow writes (IW=0).
    DeviceWriteDenied = IO_PAGE_FAULT, PE, none, confirmed;
    /// A translation or translated request, and the device table entry does not allow them (I=0).
    DeviceTlbDisabled = INVALID_DEVICE_REQUEST, Flags::invalid_request(1), ur, confirmed;

    /// A read in the interrupt range, or a translated request to it.
    InterruptRange = INVALID_DEVICE_REQUEST, Flags::invalid_request(0), ur, UNCONFIRMED;
    /// A write with a PASID to the interrupt range. VirtualBox lists it among the I/O page faults of
    /// interrupts, but not its flags.
    InterruptWithPasid = IO_PAGE_FAULT, Flags::INTERRUPT, ur, UNCONFIRMED;
    /// An address in the HyperTransport range.
    HypertransportRange = INVALID_DEVICE_REQUEST, Flags::invalid_request(4), ur, UNCONFIRMED;

    /// The request has a PASID, and the device table entry has no guest tables (GV=0).
    PasidDisabled = IO_PAGE_FAULT, NO, none, UNCONFIRMED;
    /// The PASID lies outside the guest CR3 table, or is wider than the unit has. VirtualBox lists it
    /// among the I/O page faults, but not its flags.
    PasidOutsideTable = IO_PAGE_FAULT, NO, none, UNCONFIRMED;
    /// A guest CR3 table entry could not be read.
    GuestCr3Unreadable = PAGE_TAB_HARDWARE_ERROR, MASTER_ABORT, ca, UNCONFIRMED;
    /// A guest CR3 table entry is not valid.
    GuestCr3NotPresent = IO_PAGE_FAULT, NO, none, UNCONFIRMED;
    /// Reserved bits in a valid guest CR3 table entry.
    GuestCr3Reserved = IO_PAGE_FAULT, RZ, none, UNCONFIRMED;

    /// The address does not fit the guest tables: it is not canonical, or, with PASID 0, too wide.
    GuestAddressWidth = IO_PAGE_FAULT, NO, none, UNCONFIRMED;
    /// A guest table entry could not be read.
    GuestEntryUnreadable = PAGE_TAB_HARDWARE_ERROR, MASTER_ABORT, ca, UNCONFIRMED;
    /// A guest table entry is not present.
    GuestEntryNotPresent = IO_PAGE_FAULT, NO, none, UNCONFIRMED;
    /// Reserved bits in a present guest table entry.
    GuestEntryReserved = IO_PAGE_FAULT, RZ, none, UNCONFIRMED;
    /// A user request, and some guest table entry is for supervisors.
    GuestUserDenied = IO_PAGE_FAULT, PE, none, UNCONFIRMED;
    /// A write or atomic operation, and some guest table entry does not grant write.
    GuestWriteDenied = IO_PAGE_FAULT, PE, none, UNCONFIRMED;
    /// Execute is asked for, and some guest table entry has NX.
    GuestExecuteDenied = IO_PAGE_FAULT, PE, none, UNCONFIRMED;
    /// A guest table entry's accessed or dirty bit could not be set.
    GuestUpdateFailed = PAGE_TAB_HARDWARE_ERROR, MASTER_ABORT, ca, UNCONFIRMED;

    /// Nested: a guest table entry, or the guest CR3, holds an address wider than the host tables'
    /// input.
    GuestEntryWidth = IO_PAGE_FAULT, NO, none, UNCONFIRMED;
    /// Nested: the host tables do not let a guest table be read.
    GuestTableReadDenied = IO_PAGE_FAULT, PE, none, UNCONFIRMED;
    /// Nested: the host tables do not let a guest table entry's accessed or dirty bit be set.
    GuestTableWriteDenied = IO_PAGE_FAULT, PE, none, UNCONFIRMED;

    /// The address is wider than the host tables' input. OpenVMM and QEMU have an I/O page fault, but
    /// no flags.
    HostAddressWidth = IO_PAGE_FAULT, NO, none, UNCONFIRMED;
    /// A host table entry could not be read.
    HostEntryUnreadable = PAGE_TAB_HARDWARE_ERROR, MASTER_ABORT, ca, confirmed;
    /// A host table entry is not present.
    HostEntryNotPresent = IO_PAGE_FAULT, NO, none, confirmed;
    /// Reserved bits in a present host table entry.
    HostEntryReserved = IO_PAGE_FAULT, RZ, none, confirmed;
    /// A host table entry's Next Level does not lead down, or maps a page where none can be.
    HostLevel = IO_PAGE_FAULT, PR, none, confirmed;
    /// A host table entry maps a page whose size is not one of its level.
    HostPageSize = IO_PAGE_FAULT, PR, none, confirmed;
    /// A host table entry skips levels whose part of the address is not zero.
    HostSkippedLevels = IO_PAGE_FAULT, PR, none, confirmed;
    /// A read or atomic operation, and a host table entry does not grant read.
    HostReadDenied = IO_PAGE_FAULT, PE, none, confirmed;
    /// A write or atomic operation, and a host table entry does not grant write.
    HostWriteDenied = IO_PAGE_FAULT, PE, none, confirmed;
    /// A host table entry's accessed or dirty bit could not be set.
    HostUpdateFailed = PAGE_TAB_HARDWARE_ERROR, MASTER_ABORT, ca, UNCONFIRMED;

    /// A page request, and the device table entry or the unit does not allow them.
    PageRequestsDisabled = INVALID_PPR_REQUEST, NO, ur, confirmed;
    /// A page request with a PASID, and the device table entry has no guest tables, or none for it.
    PageRequestPasid = INVALID_PPR_REQUEST, NO, ur, confirmed;
}

impl Cause {
    /// How a request of this kind is completed when it meets this condition.
    ///
    /// A blocked untranslated or translated read is aborted, a write is discarded. A translation
    /// request that meets an I/O page fault succeeds without permissions (VirtualBox, which names
    /// "I/O Page Faults" of the specification); how it is completed otherwise is UNCONFIRMED.
    #[must_use]
    pub const fn completion(self, kind: DmaKind) -> Completion {
        match kind {
            DmaKind::Untranslated | DmaKind::Translated => Completion::CompleterAbort,
            DmaKind::Translation { .. } => self.translation(),
        }
    }

    /// Whether a request of this kind leaves an event, SA and SE apart.
    ///
    /// A translation request that succeeds without permissions is a recoverable fault: the device is
    /// told, software is not.
    #[must_use]
    pub const fn recorded(self, kind: DmaKind) -> bool {
        if matches!(self, Self::Disabled) {
            return false;
        }
        !matches!(
            (kind, self.completion(kind)),
            (DmaKind::Translation { .. }, Completion::NoAccess)
        )
    }

    /// Whether SA of the device table entry suppresses the event, and SE all but the first: it is an
    /// I/O page fault.
    #[must_use]
    pub const fn qualified(self) -> bool {
        self.reason().0 == 2
    }
}
