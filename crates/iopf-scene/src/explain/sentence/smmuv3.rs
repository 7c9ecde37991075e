//! What an SMMUv3 walk found.

mod advice;

use super::Story;
use advice::advice;
use iommu_walk::smmuv3::{Cause, Failure};
use iopf::DmaKind;

/// The sentence.
pub(in crate::explain) fn text(story: &Story<'_>, failure: &Failure, kind: DmaKind) -> String {
    let hidden =
        (failure.suppressed() && failure.cause.recorded(kind)).then(|| match failure.cause {
            Cause::StreamOutsideTable | Cause::StreamLevel1Invalid | Cause::StreamOutsideSpan => {
                "RECINVSID is clear in SMMU_CR2"
            }
            cause if cause.second_stage() => "S2R is clear in the stream table entry",
            _ => "R is clear in the context descriptor",
        });
    let mut text = story.text(&finding(story, failure), advice(failure.cause), hidden);
    let fate = if failure.stalls(kind) {
        " (the request is stalled: it waits until software retries or terminates it with CMD_RESUME)."
    } else if failure.ignored(kind) {
        " (as A is clear in the context descriptor, the request is not aborted: it reads zero, and what it \
         writes is dropped)."
    } else {
        return text;
    };
    text.pop();
    text.push_str(fate);
    text
}

/// The registers and tables by which a whole unit refuses, and what the stream table entry says.
fn configured(story: &Story<'_>, cause: Cause) -> Option<String> {
    use Cause as C;
    let entry = || story.entry();
    let bits = || story.bits();
    let asks = |what: &str| format!("{}: its {} {what}", entry(), bits());
    Some(match cause {
        C::GlobalAbort => {
            "translation is off (SMMUEN in SMMU_CR0 is clear), and all requests are aborted then (ABORT \
             in SMMU_GBPA is set)"
                .into()
        }
        C::GlobalAddressSize | C::TranslatedAddressSize => {
            "no stage translates it, and the address is wider than the unit's (OAS in SMMU_IDR5)".into()
        }
        C::GlobalTranslationRequest | C::GlobalTranslated => {
            "translation is off (SMMUEN in SMMU_CR0 is clear), so only untranslated requests pass".into()
        }
        C::StreamOutsideTable => {
            "the stream table has no entry for it (LOG2SIZE in SMMU_STRTAB_BASE_CFG, SIDSIZE in \
             SMMU_IDR1)"
                .into()
        }
        C::StreamLevel1Invalid => asks("gives no level 2 table (0), or a size that there is not"),
        C::StreamOutsideSpan => asks("gives a level 2 table that does not reach this StreamID"),
        C::StreamLevel1Unreadable
        | C::StreamUnreadable
        | C::ContextLevel1Unreadable
        | C::ContextUnreadable
        | C::FirstUnreadable
        | C::ContextIpaUnreadable
        | C::TableIpaUnreadable
        | C::IpaUnreadable => format!("{} cannot be read, no memory answers there", entry()),
        C::StreamInvalid | C::ContextLevel1Invalid | C::ContextInvalid => {
            format!("{}, not valid: {} is clear", entry(), bits())
        }
        C::StreamAborts => asks("says that all requests are aborted"),
        C::StreamFirstMissing => asks("asks for stage 1, which the unit does not have (S1P in SMMU_IDR0)"),
        C::StreamSecondMissing => {
            asks("asks for stage 2, which the unit does not have (S2P in SMMU_IDR0)")
        }
        C::StreamAts => asks("asks for ATS in a way that the unit does not have"),
        C::StreamStallDisable => {
            asks("forbids stalls on a unit where the tables do not choose (STALL_MODEL in SMMU_IDR0)")
        }
        C::StreamContextBits => {
            asks("asks for more context descriptors than substreams have bits (SSIDSIZE in SMMU_IDR1)")
        }
        C::StreamContextFormat => {
            asks("asks for context descriptors of two levels, which the unit does not have (CD2L in SMMU_IDR0)")
        }
        C::StreamContextPointer | C::ContextLevel1Pointer => {
            asks("is an address that is wider than the unit's (OAS in SMMU_IDR5)")
        }
        C::StreamSecondStall | C::ContextStall => {
            asks("does not go with whether the unit stalls (STALL_MODEL in SMMU_IDR0, S1STALLD)")
        }
        C::StreamSecondFormat | C::ContextFormat => {
            asks("asks for 32-bit tables, which the unit does not have (TTF in SMMU_IDR0)")
        }
        C::StreamSecondUpdates | C::ContextUpdates => {
            asks("asks the hardware for updates that it does not make (HTTU in SMMU_IDR0)")
        }
        C::StreamSecondGranule | C::ContextGranule => {
            asks("gives a granule that the unit does not have (GRAN… in SMMU_IDR5), or none")
        }
        C::StreamSecondTable | C::ContextTable => {
            asks("is an address that is wider than the stage's output")
        }
        C::StreamSecondInput | C::ContextInputSize => {
            asks("gives a width of input addresses that is out of range")
        }
        C::StreamSecondLevel => asks("gives a first level that does not go with S2T0SZ and S2TG"),
        C::StreamSecondEndian | C::ContextEndian => {
            asks("asks for big-endian tables, which the unit does not have (TTENDIAN in SMMU_IDR0)")
        }
        C::StreamVmid => asks("is wider than the unit's VMIDs (VMID16 in SMMU_IDR0)"),
        C::ContextAsid => asks("is wider than the unit's ASIDs (ASID16 in SMMU_IDR0)"),
        C::ContextAbort => {
            asks("is clear on a unit that always aborts what faults (TERM_MODEL in SMMU_IDR0)")
        }
        C::TranslationRequest | C::Translated => {
            asks("does not let this device use ATS, or no stage translates (Config)")
        }
        C::SubstreamWithoutFirst => {
            asks("says that stage 1 does not translate, so the stream has no substreams")
        }
        C::SubstreamsMissing => "the unit has no substreams (SSIDSIZE in SMMU_IDR1)".into(),
        C::SubstreamsDisabled => asks("says that the stream has no substreams"),
        C::SubstreamOutsideTable => asks("says that there are fewer context descriptors"),
        C::SubstreamNeeded => asks("says that requests without a SubstreamID are aborted"),
        C::SubstreamReserved => {
            asks("gives substream 0 to requests without a SubstreamID, so none may name it")
        }
        C::PageRequestsDisabled => {
            "the unit takes no page requests (PRIQEN or SMMUEN in SMMU_CR0 is clear)".into()
        }
        _ => return None,
    })
}

fn finding(story: &Story<'_>, failure: &Failure) -> String {
    use Cause as C;
    if let Some(found) = configured(story, failure.cause) {
        return found;
    }
    let entry = || story.entry();
    let at = || match failure.guest_addr {
        Some(addr) => format!("intermediate address {addr}"),
        None => "that address".into(),
    };
    let of = |what: &str| format!("{what} at {}", at());
    let (table, context) = ("the stage-1 table", "the context descriptor");
    match failure.cause {
        C::InputSize => {
            "stage 1 does not translate it, and the address is wider than the unit's (OAS in SMMU_IDR5)"
                .into()
        }
        C::FirstOutside => format!(
            "the address is in neither range: {}, of which {} gives the width",
            entry(),
            story.bits()
        ),
        C::FirstDisabled => format!("{}, so addresses of that range are not translated", story.state("set")),
        C::FirstUserDisabled => format!(
            "{}, so unprivileged requests have no access to that range",
            story.state("set")
        ),
        C::FirstInvalid => format!("{}, not valid, so nothing is mapped there", entry()),
        C::FirstOutputSize => format!("{}: the address in it is wider than IPS allows", entry()),
        C::FirstAccessFlag | C::IpaAccessFlag => format!(
            "{}, so its page counts as never used",
            story.state("clear")
        ),
        C::FirstUserDenied => format!("{} decides: only privileged requests may use it", story.bits_of()),
        C::FirstPrivilegedDenied => format!(
            "{} decides: unprivileged requests may use it, so privileged ones may not (PAN in the context \
             descriptor)",
            story.bits_of()
        ),
        C::FirstWriteDenied => format!("{} decides, nobody may write there", story.bits_of()),
        C::FirstExecuteDenied => format!(
            "{} decides, no instructions may be fetched",
            story.bits_of()
        ),
        C::FirstUpdateFailed | C::IpaUpdateFailed => format!(
            "{}: its access flag or dirty state could not be written",
            entry()
        ),
        C::ContextIpaOutside => of(context) + " lies beyond what stage 2 translates (S2T0SZ)",
        C::TableIpaOutside => of(table) + " lies beyond what stage 2 translates (S2T0SZ)",
        C::IpaOutside => {
            let mut text = at();
            text.push_str(" lies beyond what stage 2 translates (S2T0SZ)");
            text
        }
        C::ContextIpaInvalid => format!("{}, not valid, so {} is not mapped", entry(), of(context)),
        C::TableIpaInvalid => format!("{}, not valid, so {} is not mapped", entry(), of(table)),
        C::IpaInvalid => format!("{}, not valid, so {} is not mapped", entry(), at()),
        C::ContextIpaOutputSize | C::TableIpaOutputSize | C::IpaOutputSize => format!(
            "{}: the address in it is wider than S2PS allows",
            entry()
        ),
        C::ContextIpaAccessFlag => format!(
            "{}, so the page of {} counts as never used",
            story.state("clear"),
            of(context)
        ),
        C::TableIpaAccessFlag => format!(
            "{}, so the page of {} counts as never used",
            story.state("clear"),
            of(table)
        ),
        C::ContextIpaDenied => format!("{}, so {} may not be read", story.state("clear"), of(context)),
        C::TableIpaReadDenied => format!("{}, so {} may not be read", story.state("clear"), of(table)),
        C::TableIpaWriteDenied => format!(
            "{}, so the access flag or dirty state of {} may not be written",
            story.state("clear"),
            of(table)
        ),
        C::ContextIpaDevice => format!(
            "{}: {} lies in device memory, which S2PTW forbids",
            entry(),
            of(context)
        ),
        C::TableIpaDevice => format!(
            "{}: {} lies in device memory, which S2PTW forbids",
            entry(),
            of(table)
        ),
        C::IpaReadDenied => format!("{}, so {} may not be read", story.state("clear"), at()),
        C::IpaWriteDenied => format!("{}, so {} may not be written", story.state("clear"), at()),
        C::IpaExecuteDenied => format!(
            "{} decides, no instructions may be fetched from {}",
            story.bits_of(),
            at()
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
    use iommu_walk::smmuv3::Detail;

    #[test]
    fn every_condition_has_a_sentence_of_its_own_with_something_to_do() {
        let text = r#"{"iopf_capture":1,"arch":"smmuv3","requests":[
            {"device":40,"pasid":5,"addr":"0x7f001000","access":"r"}]}"#;
        let capture = Capture::parse(text.as_bytes()).unwrap();
        for cause in Cause::ALL {
            let failure = Failure::with(*cause, Detail::default());
            let story = Story {
                request: &capture.requests[0],
                formats: Formats::Smmuv3,
                blame: Blame::of(&failure),
                trail: &[],
                recorded: true,
                response: None,
            };
            let text = super::text(&story, &failure, DmaKind::Untranslated);
            let start = "StreamID 0x28 with SubstreamID 0x5 tried to read 0x7f001000: ";
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
