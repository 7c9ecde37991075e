//! What logs and records have numbers for, in names.

use iommu_wire::smmuv3::event::EventNumber;

use crate::log::normal::Kind;

/// The events with what sort of event each is, and what it means as a clause. IHI 0070, "Event
/// records".
const EVENTS: [(EventNumber, Kind, &str); 19] = [
    (
        EventNumber::UUT,
        Kind::Dma,
        "it is a transaction that the SMMU does not understand",
    ),
    (
        EventNumber::BAD_STREAMID,
        Kind::Configuration,
        "its StreamID lies beyond the stream table",
    ),
    (
        EventNumber::STE_FETCH,
        Kind::Hardware,
        "its stream table entry could not be read",
    ),
    (
        EventNumber::BAD_STE,
        Kind::Configuration,
        "its stream table entry is one the SMMU cannot use",
    ),
    (
        EventNumber::BAD_ATS_TREQ,
        Kind::Dma,
        "it asked for a translation by ATS, which is not allowed for it",
    ),
    (
        EventNumber::STREAM_DISABLED,
        Kind::Dma,
        "its stream table entry allows no transactions of that SubstreamID (S1DSS)",
    ),
    (
        EventNumber::TRANSL_FORBIDDEN,
        Kind::Dma,
        "it used an address that it says is translated, which is not allowed for it",
    ),
    (
        EventNumber::BAD_SUBSTREAMID,
        Kind::Configuration,
        "its SubstreamID has no context descriptor",
    ),
    (
        EventNumber::CD_FETCH,
        Kind::Hardware,
        "its context descriptor could not be read",
    ),
    (
        EventNumber::BAD_CD,
        Kind::Configuration,
        "its context descriptor is one the SMMU cannot use",
    ),
    (
        EventNumber::WALK_EABT,
        Kind::Hardware,
        "a page table could not be read",
    ),
    (
        EventNumber::TRANSLATION,
        Kind::Dma,
        "nothing is mapped there",
    ),
    (
        EventNumber::ADDR_SIZE,
        Kind::Dma,
        "an entry on the way has an address that is too wide",
    ),
    (
        EventNumber::ACCESS,
        Kind::Dma,
        "the page's access flag is clear",
    ),
    (
        EventNumber::PERMISSION,
        Kind::Dma,
        "the page is mapped, but not for that access",
    ),
    (
        EventNumber::TLB_CONFLICT,
        Kind::Dma,
        "the SMMU's TLB holds more than one translation for it",
    ),
    (
        EventNumber::CFG_CONFLICT,
        Kind::Configuration,
        "the SMMU's caches hold more than one configuration for it",
    ),
    (
        EventNumber::PAGE_REQUEST,
        Kind::PageRequest,
        "it is a hint that the page will be wanted, and needs no answer",
    ),
    (
        EventNumber::VMS_FETCH,
        Kind::Hardware,
        "its Virtual Machine Structure could not be read",
    ),
];

fn event(code: u32) -> Option<&'static (EventNumber, Kind, &'static str)> {
    EVENTS
        .iter()
        .find(|(number, ..)| u32::from(number.0) == code)
}

/// The name of the event with this number.
pub(crate) fn event_name(code: u32) -> Option<&'static str> {
    event(code).and_then(|(number, ..)| number.name())
}

/// What sort of event it is; those without a name are refused transactions for all we know.
pub(crate) fn kind_of(code: u32) -> Kind {
    event(code).map_or(Kind::Dma, |&(_, kind, _)| kind)
}

/// What the event with this number means.
pub(super) fn meaning(code: u32) -> Option<&'static str> {
    event(code).map(|&(.., meaning)| meaning)
}

/// The event with this name, one byte of which may be damaged.
pub(super) fn event_named(word: &[u8]) -> Option<EventNumber> {
    let like = |name: &&str| {
        let name = name.as_bytes();
        name.len() == word.len() && name.iter().zip(word).filter(|(a, b)| a != b).count() <= 1
    };
    let found = EVENTS.iter().map(|(number, ..)| *number);
    found
        .into_iter()
        .find(|number| number.name().as_ref().is_some_and(like))
}

/// The flags of FSR, in the order in which Linux prints them. IHI 0062, `SMMU_CBn_FSR`; Linux
/// `arm-smmu.h`, `ARM_SMMU_CB_FSR_…`.
const FSR: [(u32, &str); 10] = [
    (31, "MULTI"),
    (30, "SS"),
    (8, "UUT"),
    (7, "ASF"),
    (6, "TLBLKF"),
    (5, "TLBMCF"),
    (4, "EF"),
    (3, "PF"),
    (2, "AFF"),
    (1, "TF"),
];

/// The flags of GFSR. IHI 0062, `SMMU_sGFSR`; Linux knows USF (`ARM_SMMU_sGFSR_USF`), the drivers of
/// Qualcomm and HiSilicon the rest.
const GFSR: [(u32, &str); 10] = [
    (31, "MULTI"),
    (8, "UUT"),
    (7, "PF"),
    (6, "EF"),
    (5, "CAF"),
    (4, "UCIF"),
    (3, "UCBF"),
    (2, "SMCF"),
    (1, "USF"),
    (0, "ICF"),
];

/// The flags of FSR that are set, by name: `SS TF`.
pub(super) fn fsr(value: u32) -> String {
    flags(&FSR, value)
}

/// The flags of GFSR that are set, by name.
pub(super) fn gfsr(value: u32) -> String {
    flags(&GFSR, value)
}

fn flags(names: &[(u32, &'static str)], value: u32) -> String {
    let set = names.iter().filter(|(bit, _)| value >> bit & 1 == 1);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_damaged_byte_does_not_turn_one_name_into_another() {
        let names: Vec<&str> = EVENTS.iter().filter_map(|(n, ..)| n.name()).collect();
        assert_eq!(names.len(), EVENTS.len(), "each has a name");
        for (number, ..) in &EVENTS {
            let name = number.name().unwrap();
            assert_eq!(event_named(name.as_bytes()), Some(*number));
            for other in &names {
                let apart = name.bytes().zip(other.bytes()).filter(|(a, b)| a != b);
                assert!(*other == name || other.len() != name.len() || apart.count() > 2);
            }
        }
    }

    #[test]
    fn status_registers_are_spelled_as_linux_does() {
        assert_eq!(fsr(0x402), "TF");
        assert_eq!(fsr(0x4000_0402), "SS TF");
        assert_eq!(gfsr(0x8000_0002), "MULTI USF");
    }
}
