//! What a VT-d walk found.

mod advice;

use super::Story;
use advice::advice;
use iommu_walk::vtd::{Cause, Failure, Unit};

/// The sentence.
pub(in crate::explain) fn text(story: &Story<'_>, unit: &Unit, failure: &Failure) -> String {
    let hidden = failure.suppressed().then_some("FPD is set on the way");
    let finding = finding(story, unit, failure);
    story.text(&finding, advice(failure.cause), hidden)
}

#[expect(
    clippy::too_many_lines,
    reason = "one line a condition: a table, read as one"
)]
fn finding(story: &Story<'_>, unit: &Unit, failure: &Failure) -> String {
    use Cause as C;
    match failure.cause {
        C::Disabled => {
            "translation is off (TES in GSTS_REG is clear), so only untranslated requests pass"
                .into()
        }
        C::RootUnreadable
        | C::ContextUnreadable
        | C::ScalableRootUnreadable
        | C::ScalableContextUnreadable
        | C::DirectoryUnreadable
        | C::PasidEntryUnreadable
        | C::LegacyTopUnreadable
        | C::LegacyEntryUnreadable
        | C::FirstEntryUnreadable
        | C::FirstTopUnreadable
        | C::SecondEntryUnreadable
        | C::SecondTopUnreadable => {
            format!("{} cannot be read, no memory answers there", story.entry())
        }
        C::RootNotPresent
        | C::ContextNotPresent
        | C::ScalableRootNotPresent
        | C::ScalableContextNotPresent
        | C::DirectoryNotPresent
        | C::PasidEntryNotPresent
        | C::FirstEntryNotPresent => {
            format!("{}, not present: {} is clear", story.entry(), story.bits())
        }
        C::RootReserved
        | C::ContextReserved
        | C::ScalableRootReserved
        | C::ScalableContextReserved
        | C::DirectoryReserved
        | C::PasidEntryReserved
        | C::LegacyEntryReserved
        | C::FirstEntryReserved
        | C::SecondEntryReserved => {
            format!("{} and must be zero on this unit", story.state("set"))
        }
        C::ContextWidth | C::PasidEntryWidth => format!(
            "{}: its {} asks for a page-table depth that CAP_REG.SAGAW does not offer",
            story.entry(),
            story.bits()
        ),
        C::ContextType | C::PasidEntryType => format!(
            "{}: its {} asks for a translation type that ECAP_REG does not offer",
            story.entry(),
            story.bits()
        ),
        C::PasidEntryPagingMode => format!(
            "{}: its {} asks for a first-stage paging mode that CAP_REG does not offer",
            story.entry(),
            story.bits()
        ),
        C::FirstStagePointerWidth => format!(
            "{}: its first-stage table lies beyond what the second stage translates",
            story.entry()
        ),
        C::AddressTypeBlocked => format!(
            "{}: its {} lets only untranslated requests through",
            story.entry(),
            story.bits()
        ),
        C::LegacyAddressWidth | C::SecondAddressWidth => {
            "the address is wider than the page table or the unit (CAP_REG.MGAW) translates".into()
        }
        C::LegacyTranslatedWidth
        | C::LegacyPassThroughWidth
        | C::TranslatedWidth
        | C::PassThroughWidth => format!(
            "the address goes to memory as it is and is wider than the host's {} bits",
            unit.haw()
        ),
        C::LegacyWriteDenied | C::WriteDenied => story.denied("write"),
        C::LegacyReadDenied | C::ReadDenied => story.denied("read"),
        C::SecondNoAccess => {
            format!("{}, it maps nothing{}", story.state("clear"), story.guest())
        }
        C::LegacyInterruptRange | C::InterruptRange => {
            "the access ends in the interrupt range 0xfee00000 to 0xfeefffff, which is no memory"
                .into()
        }
        C::ModeUnsupported => format!(
            "RTADDR_REG is {:#x}, and its table mode (TTM, bits 11:10) is not one this unit offers",
            unit.rtaddr()
        ),
        C::PasidInLegacyMode => {
            "the unit is in legacy mode (RTADDR_REG.TTM is 0), which knows no PASID".into()
        }
        C::PageRequestInLegacyMode => {
            "the unit is in legacy mode (RTADDR_REG.TTM is 0), which knows no page requests".into()
        }
        C::AbortMode => {
            "the unit is in abort-DMA mode (RTADDR_REG.TTM is 3), which refuses everything".into()
        }
        C::ExecuteUnsupported => {
            "units of this version take no execute requests with a PASID".into()
        }
        C::PageRequestsWithoutDeviceTlb => format!(
            "{}: it allows page requests (PRE) but no device TLB (DTE)",
            story.entry()
        ),
        C::RidPasidTooLarge => format!(
            "{}: its RID_PASID lies beyond its PASID directory (PDTS)",
            story.entry()
        ),
        C::TranslatedPasidWithoutPasid => format!(
            "{}: it allows PASIDs in translated requests (EPTR) but no PASIDs (PASIDE)",
            story.entry()
        ),
        C::DeviceTlbDisabled => format!(
            "{}, so it does not let this device use a device TLB",
            story.state("clear")
        ),
        C::PasidDisabled => format!(
            "{}, so it does not let this device use PASIDs",
            story.state("clear")
        ),
        C::PasidTooLarge => format!(
            "PASID {} lies beyond its PASID directory: {}, of which {} gives the size",
            story.pasid(),
            story.entry(),
            story.bits()
        ),
        C::PageRequestsDisabled => format!(
            "{}, so it does not let this device send page requests",
            story.state("clear")
        ),
        C::PasidIsRidPasid => format!(
            "PASID {} stands for requests without a PASID: {}, {}",
            story.pasid(),
            story.entry(),
            story.bits()
        ),
        C::TranslatedPasidDisabled => {
            format!(
                "{}, so it allows no PASID in translated requests",
                story.state("clear")
            )
        }
        C::ExecuteDisabled => {
            format!("{}, so it allows no execute requests", story.state("clear"))
        }
        C::SupervisorDisabled => {
            format!(
                "{}, so it allows no privileged requests",
                story.state("clear")
            )
        }
        C::FirstEntryWidth => format!(
            "{}: the address in it lies beyond what the second stage translates",
            story.entry()
        ),
        C::FirstTopReadDenied | C::FirstEntryReadDenied => format!(
            "{}, so the second stage does not let the first-stage table{} be read",
            story.state("clear"),
            story.guest()
        ),
        C::FirstEntryWriteDenied => format!(
            "{}, so the second stage does not let an accessed or dirty bit{} be set",
            story.state("clear"),
            story.guest()
        ),
        C::FirstUpdateNotCoherent | C::SecondUpdateNotCoherent => format!(
            "{}: its accessed or dirty bit must be set, and page walks are not coherent \
             (PWSNP of the PASID table entry is clear)",
            story.entry()
        ),
        C::FirstUpdateFailed | C::SecondUpdateFailed => format!(
            "{}: its accessed or dirty bit could not be written",
            story.entry()
        ),
        C::NotCanonical => {
            "the address is not canonical: the bits above the page table's width are not all \
             equal to its highest bit"
                .into()
        }
        C::UserDenied => format!("{}: only supervisors may use it", story.state("clear")),
        C::ExecuteDenied => format!(
            "{} decides, no instructions may be fetched",
            story.bits_of()
        ),
        C::PasidUnsupported => format!(
            "PASID {} is wider than this unit takes (ECAP_REG.PSS)",
            story.pasid()
        ),
        _ => format!("condition {}", failure.cause.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Capture;
    use crate::explain::fields::Formats;
    use crate::explain::sentence::Blame;

    #[test]
    fn every_condition_has_a_sentence_of_its_own_with_something_to_do() {
        let text = r#"{"iopf_capture":1,"arch":"vtd","requests":[
            {"device":"0000:00:05.0","pasid":5,"addr":"0x7f001000","access":"r"}]}"#;
        let capture = Capture::parse(text.as_bytes()).unwrap();
        for cause in Cause::ALL {
            let failure = Failure::new(*cause);
            let story = Story {
                request: &capture.requests[0],
                formats: Formats::Legacy,
                blame: Blame::of(&failure),
                trail: &[],
                recorded: true,
                response: None,
            };
            let text = super::text(&story, &crate::explain::vtd::unit(&capture), &failure);
            let start = "0000:00:05.0 with PASID 0x5 tried to read 0x7f001000: ";
            let (told, advice) = text
                .strip_prefix(start)
                .and_then(|rest| rest.split_once("; "))
                .unwrap_or_else(|| panic!("{cause:?}: {text}"));
            assert!(!told.starts_with("condition"), "{cause:?}: {text}");
            assert_ne!(advice, "see the specification.", "{cause:?}");
            assert!(advice.ends_with('.') && !advice.contains(". "), "{text}");
        }
    }
}
