//! The events by the names that logs have for them.

use crate::log::normal::Kind;

/// An event that a log can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The event code, bits 63:60 of the record.
    pub(crate) code: u8,
    /// The name that Linux prints.
    pub(crate) name: &'static str,
    /// What sort of event.
    pub(crate) kind: Kind,
    /// Which of the flags (bits 59:48 of the record) have the places of an `IO_PAGE_FAULT`'s.
    /// VirtualBox `iommu-amd.h`, the `EVT_…_T` types; the `RMP_` events have no second author, so
    /// none of theirs is read.
    pub(crate) flags: u16,
    /// What it means, as a clause.
    pub(crate) meaning: &'static str,
}

/// The flags GN, I, RW, RZ and TR of an illegal entry.
const ILLEGAL_ENTRY: u16 = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8;
/// The flags I, RW and TR of a hardware error.
const HARDWARE: u16 = 1 << 3 | 1 << 5 | 1 << 8;
/// The flags GN and TR of a request that is not allowed.
const REQUEST: u16 = 1 << 0 | 1 << 8;

/// Linux `drivers/iommu/amd/iommu.c`, `iommu_print_event`, and `amd_iommu_types.h`, `EVENT_TYPE_…`.
const EVENTS: [Event; 11] = [
    Event {
        code: 0x1,
        name: "ILLEGAL_DEV_TABLE_ENTRY",
        kind: Kind::Configuration,
        flags: ILLEGAL_ENTRY,
        meaning: "its device table entry is one the IOMMU cannot use",
    },
    Event {
        code: 0x2,
        name: "IO_PAGE_FAULT",
        kind: Kind::Dma,
        flags: 0x1ff,
        meaning: "the tables do not allow it",
    },
    Event {
        code: 0x3,
        name: "DEV_TAB_HARDWARE_ERROR",
        kind: Kind::Hardware,
        flags: HARDWARE,
        meaning: "its device table entry could not be read",
    },
    Event {
        code: 0x4,
        name: "PAGE_TAB_HARDWARE_ERROR",
        kind: Kind::Hardware,
        flags: HARDWARE | 1 << 0,
        meaning: "a page table could not be read",
    },
    Event {
        code: 0x5,
        name: "ILLEGAL_COMMAND_ERROR",
        kind: Kind::Command,
        flags: 0,
        meaning: "the command has an unknown code or reserved bits set, and the IOMMU takes no more commands",
    },
    Event {
        code: 0x6,
        name: "COMMAND_HARDWARE_ERROR",
        kind: Kind::Hardware,
        flags: 0,
        meaning: "the command could not be read, and the IOMMU takes no more commands",
    },
    Event {
        code: 0x7,
        name: "IOTLB_INV_TIMEOUT",
        kind: Kind::Command,
        flags: 0,
        meaning: "the device did not answer an invalidation of its own TLB in time",
    },
    Event {
        code: 0x8,
        name: "INVALID_DEVICE_REQUEST",
        kind: Kind::Dma,
        flags: REQUEST,
        meaning: "it is a request that this device may not make",
    },
    Event {
        code: 0x9,
        name: "INVALID_PPR_REQUEST",
        kind: Kind::PageRequest,
        flags: 0,
        meaning: "the page request is malformed or not allowed for this device",
    },
    Event {
        code: 0xd,
        name: "RMP_PAGE_FAULT",
        kind: Kind::Dma,
        flags: 0,
        meaning: "the reverse map table (SEV-SNP) does not allow it",
    },
    Event {
        code: 0xe,
        name: "RMP_HW_ERROR",
        kind: Kind::Hardware,
        flags: 0,
        meaning: "the reverse map table (SEV-SNP) could not be read",
    },
];

/// The event with this code.
pub(super) fn event(code: u32) -> Option<&'static Event> {
    EVENTS.iter().find(|event| u32::from(event.code) == code)
}

/// The name of the event with this code.
pub(crate) fn name_of(code: u32) -> Option<&'static str> {
    event(code).map(|event| event.name)
}

/// All names.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    EVENTS.iter().map(|event| event.name)
}

/// The event of which `word` is the name, one byte of which may be damaged.
pub(super) fn named(word: &[u8]) -> Option<&'static Event> {
    EVENTS.iter().find(|event| {
        let name = event.name.as_bytes();
        name.len() == word.len() && name.iter().zip(word).filter(|(a, b)| a != b).count() <= 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_damaged_byte_does_not_turn_one_name_into_another() {
        for one in &EVENTS {
            for other in &EVENTS {
                let same = named(other.name.as_bytes()).map(|event| event.code);
                assert_eq!(same, Some(other.code));
                let (a, b) = (one.name.as_bytes(), other.name.as_bytes());
                let apart = a.iter().zip(b).filter(|(a, b)| a != b).count();
                assert!(one.code == other.code || a.len() != b.len() || apart > 2);
            }
        }
    }
}
