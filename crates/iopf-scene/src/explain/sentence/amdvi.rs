//! What an AMD-Vi walk found.

mod advice;

use super::Story;
use advice::advice;
use iommu_walk::amdvi::{Cause, Failure};

/// The sentence. `repeated` where SE has let an earlier fault of the device through.
pub(in crate::explain) fn text(story: &Story<'_>, failure: &Failure, repeated: bool) -> String {
    let hidden = if failure.suppressed() {
        Some("SA is set in the device table entry")
    } else {
        repeated.then_some(
            "SE is set in the device table entry and an earlier fault of this device is in the log",
        )
    };
    story.text(&finding(story, failure), advice(failure.cause), hidden)
}

#[expect(
    clippy::too_many_lines,
    reason = "one line a condition: a table, read as one"
)]
fn finding(story: &Story<'_>, failure: &Failure) -> String {
    use Cause as C;
    let entry = || story.entry();
    match failure.cause {
        C::Disabled => {
            "translation is off (IommuEn in IOMMU_CONTROL is clear), so only untranslated requests \
             pass"
                .into()
        }
        C::DeviceOutsideTable | C::TranslationOutsideTable => {
            "the device table has no entry for it (DEV_TAB_BASE gives the table's size in bits 8:0)"
                .into()
        }
        C::DeviceEntryUnreadable
        | C::GuestCr3Unreadable
        | C::GuestEntryUnreadable
        | C::HostEntryUnreadable => format!("{} cannot be read, no memory answers there", entry()),
        C::DeviceEntryReserved
        | C::GuestCr3Reserved
        | C::GuestEntryReserved
        | C::HostEntryReserved => {
            format!("{} and must be zero on this unit", story.state("set"))
        }
        C::PagingMode => format!(
            "{}: its {} asks for a number of host table levels that the unit does not have \
             (EXT_FEATURE.HATS)",
            entry(),
            story.bits()
        ),
        C::AccessDirtyMode => format!("{}: its {} has the reserved value 2", entry(), story.bits()),
        C::GuestLevels => format!(
            "{}: its {} asks for more levels of guest CR3 tables than the unit has \
             (EXT_FEATURE.GLXSup)",
            entry(),
            story.bits()
        ),
        C::GuestPagingMode => format!(
            "{}: its {} asks for guest tables with more levels than the unit has (EXT_FEATURE.GATS)",
            entry(),
            story.bits()
        ),
        C::TranslationDisabled => format!(
            "{}, so the entry does not say how addresses are translated",
            story.state("clear")
        ),
        C::DeviceReadDenied => format!(
            "{}, so the device may not read at all",
            story.state("clear")
        ),
        C::DeviceWriteDenied => format!(
            "{}, so the device may not write at all",
            story.state("clear")
        ),
        C::DeviceTlbDisabled => format!(
            "{}, so it does not let this device use ATS",
            story.state("clear")
        ),
        C::InterruptRange => {
            "the address is in the interrupt range 0xfee00000 to 0xfeefffff, where only interrupt \
             messages go"
                .into()
        }
        C::InterruptWithPasid => {
            "the write goes to the interrupt range 0xfee00000 to 0xfeefffff with a PASID, and \
             interrupt messages have none"
                .into()
        }
        C::HypertransportRange => {
            "the address is in the HyperTransport range 0xfd00000000 to 0xffffffffff, which is no \
             memory"
                .into()
        }
        C::PasidDisabled if failure.entry_addr.is_none() => format!(
            "the unit looks at no guest tables (GTSup in EXT_FEATURE or GTEn in IOMMU_CONTROL is \
             clear), so PASID {} means nothing",
            story.pasid()
        ),
        C::PasidDisabled => format!(
            "{}, so the device has no guest tables and may use no PASID",
            story.state("clear")
        ),
        C::PasidOutsideTable | C::PageRequestPasid if failure.entry_addr.is_none() => format!(
            "PASID {} lies beyond the guest CR3 table or is wider than the unit takes \
             (EXT_FEATURE.PASmax)",
            story.pasid()
        ),
        C::PasidOutsideTable | C::PageRequestPasid => format!(
            "PASID {} lies beyond the guest CR3 table or is wider than the unit takes: {}, of which \
             {} gives the table's levels",
            story.pasid(),
            entry(),
            story.bits()
        ),
        C::GuestCr3NotPresent => format!("{}, not valid: {} is clear", entry(), story.bits()),
        C::GuestEntryNotPresent => {
            format!("{}, not present: {} is clear", entry(), story.bits())
        }
        C::HostEntryNotPresent => format!(
            "{}, not present: {} is clear, so nothing is mapped{}",
            entry(),
            story.bits(),
            match failure.guest_addr {
                Some(_) => story.guest(),
                None => " there".into(),
            }
        ),
        C::GuestAddressWidth => {
            "the address does not fit the guest tables: it is not canonical, or, with PASID 0, too \
             wide"
                .into()
        }
        C::GuestUserDenied => format!("{}: only supervisors may use it", story.state("clear")),
        C::GuestWriteDenied | C::HostWriteDenied => story.denied("write"),
        C::HostReadDenied => story.denied("read"),
        C::GuestExecuteDenied => format!(
            "{} decides, no instructions may be fetched",
            story.bits_of()
        ),
        C::GuestUpdateFailed | C::HostUpdateFailed => format!(
            "{}: its accessed or dirty bit could not be written",
            entry()
        ),
        C::GuestEntryWidth => format!(
            "{}: the address in it lies beyond what the host tables translate",
            entry()
        ),
        C::GuestTableReadDenied => format!(
            "{}, so the host tables do not let the guest's table{} be read",
            story.state("clear"),
            story.guest()
        ),
        C::GuestTableWriteDenied => format!(
            "{}, so the host tables do not let an accessed or dirty bit{} be set",
            story.state("clear"),
            story.guest()
        ),
        C::HostAddressWidth if failure.entry_addr.is_none() => format!(
            "the address is wider than the host tables translate{}",
            story.guest()
        ),
        C::HostAddressWidth => format!(
            "the address is wider than the host tables translate{}: {}, of which {} gives their levels",
            story.guest(),
            entry(),
            story.bits()
        ),
        C::HostLevel => format!(
            "{}: its {} names a level that cannot follow there",
            entry(),
            story.bits()
        ),
        C::HostPageSize => format!(
            "{}: its {} give a page size that its level does not have",
            entry(),
            story.bits()
        ),
        C::HostSkippedLevels => format!(
            "{}: it skips levels for which the address is not zero ({})",
            entry(),
            story.bits()
        ),
        C::PageRequestsDisabled if story.trail.is_empty() => {
            "the device table has no entry for it, so it may send no page requests (DEV_TAB_BASE gives \
             the table's size in bits 8:0)"
                .into()
        }
        C::PageRequestsDisabled if failure.entry_addr.is_none() => {
            "the unit takes no page requests (PPRSup in EXT_FEATURE or PPREn in IOMMU_CONTROL is \
             clear)"
                .into()
        }
        C::PageRequestsDisabled => format!(
            "{}, so it does not let this device send page requests",
            story.state("clear")
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
    use iommu_walk::amdvi::Detail;

    #[test]
    fn every_condition_has_a_sentence_of_its_own_with_something_to_do() {
        let text = r#"{"iopf_capture":1,"arch":"amdvi","requests":[
            {"device":"0000:00:05.0","pasid":5,"addr":"0x7f001000","access":"r"}]}"#;
        let capture = Capture::parse(text.as_bytes()).unwrap();
        for cause in Cause::ALL {
            let failure = Failure::with(*cause, Detail::default());
            let story = Story {
                request: &capture.requests[0],
                formats: Formats::Amdvi,
                blame: Blame::of(&failure),
                trail: &[],
                recorded: true,
                response: None,
            };
            let text = super::text(&story, &failure, false);
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
