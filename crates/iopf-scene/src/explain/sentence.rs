//! One sentence a person can act on.

mod advice;

use super::{Answer, blamed, fields};
use crate::capture::{Request, RequestKind};
use advice::advice;
use iommu_walk::vtd::{Cause, Failure, Mode, Unit};
use iommu_walk::{Stage, Step, Table};
use iopf::{Access, Pasid};

/// All there is to tell about a fault.
pub(super) struct Story<'a> {
    pub(super) request: &'a Request,
    pub(super) unit: &'a Unit,
    pub(super) failure: &'a Failure,
    pub(super) trail: &'a [Step],
    pub(super) recorded: bool,
    pub(super) response: Option<Answer>,
}

/// What happened to a request for the interrupt range.
pub(super) fn interrupt(request: &Request) -> String {
    let what = match request.kind {
        RequestKind::Translation => {
            "that is the interrupt range, which devices reach untranslated: the answer is success, \
             untranslated access only"
        }
        _ => {
            "that is the interrupt range: the write is an interrupt message (MSI) and no DMA, so no \
             page table was asked; if it was meant as DMA, the driver gave the device a wrong \
             address"
        }
    };
    format!("{}; {what}.", deed(request))
}

/// What happened to a page request that may be asked.
pub(super) fn queued(request: &Request) -> String {
    let next = if request.last {
        "software maps the pages of group {} and answers with a page group response"
    } else {
        "group {} is not complete: the device sends its last request before software answers"
    };
    format!(
        "{}; the request is allowed and goes into the page request queue, {}.",
        deed(request),
        next.replace("{}", &request.group.0.to_string())
    )
}

/// Who did what: `0000:00:05.0 with PASID 0x5 tried to read 0x7f001000`.
fn deed(request: &Request) -> String {
    let who = match request.pasid {
        Some(pasid) => format!("{} with PASID {pasid}", request.device),
        None => request.device.to_string(),
    };
    let access = request.rights();
    let mode = if access.contains(Access::PRIV) {
        " in privileged mode"
    } else {
        ""
    };
    let verb = match (
        access.contains(Access::READ),
        access.contains(Access::WRITE),
        access.contains(Access::EXEC),
    ) {
        (_, _, true) if access.contains(Access::WRITE) => "read, write and execute",
        (true, _, true) => "read and execute",
        (false, false, true) => "fetch instructions from",
        (true, true, false) => "read and write",
        (false, true, false) => "write",
        (true, false, false) => "read",
        (false, false, false) => "make a zero-length read of",
        (false, true, true) => "write and execute",
    };
    let addr = request.addr;
    match request.kind {
        RequestKind::Untranslated => format!("{who} tried to {verb} {addr}{mode}"),
        RequestKind::Translation => {
            format!("{who} asked for a translation of {addr} to {verb} it{mode}")
        }
        RequestKind::Translated => {
            format!("{who} tried to {verb} {addr}{mode} as an already translated address")
        }
        RequestKind::PageRequest => {
            format!("{who} asked for the page of {addr} to {verb} it{mode}")
        }
    }
}

impl Story<'_> {
    /// The sentence.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}: {}; {}",
            deed(self.request),
            self.finding(),
            advice(self.failure.cause)
        );
        if self.failure.suppressed() {
            text.push_str(" (no fault is recorded, as FPD is set on the way)");
        } else if !self.recorded && self.response == Some(Answer::Success) {
            text.push_str(
                " (the device was told it has no access and may ask for the page; nothing is recorded)",
            );
        }
        text.push('.');
        text
    }

    fn pasid(&self) -> String {
        self.request
            .pasid
            .unwrap_or_else(|| Pasid::truncate(0))
            .to_string()
    }

    /// The entry to blame, with its address and value.
    fn entry(&self) -> String {
        let Some(addr) = self.failure.entry_addr else {
            return "the entry".into();
        };
        let rid = match self.request.device {
            crate::capture::Device::Pci { rid, .. } => rid,
            crate::capture::Device::Number(_) => iopf::Rid(0),
        };
        let found = blamed(self.trail, addr);
        let name = match found.map(|(step, _)| (step.table, step)) {
            Some((Table::Root, _)) => format!("the root entry of bus {:#04x}", rid.bus()),
            Some((Table::Context, _)) => format!("the context entry of {rid}"),
            Some((Table::PasidDirectory, step)) => {
                format!("PASID directory entry {}", step.index)
            }
            Some((Table::PasidTable, step)) => {
                let dir = self.trail.iter().rev();
                let dir = dir.clone().find(|s| s.table == Table::PasidDirectory);
                let pasid = dir.map_or(0, |s| s.index) * 64 + step.index;
                format!("the PASID table entry of PASID {pasid:#x}")
            }
            Some((table, step)) => format!(
                "the level-{} {}-stage entry {}",
                step.level,
                if table == Table::FirstStage {
                    "first"
                } else {
                    "second"
                },
                step.index
            ),
            None => match self.failure.stage {
                Some(Stage::First) => format!("the level-{} first-stage entry", self.failure.level),
                Some(Stage::Second) => {
                    format!("the level-{} second-stage entry", self.failure.level)
                }
                None => "the entry".into(),
            },
        };
        let guest = match found.and_then(|(step, _)| step.guest_addr) {
            Some(guest) => format!(" (guest address {guest})"),
            None => String::new(),
        };
        match self.failure.entry {
            Some(value) => format!("{name} at {addr}{guest} is {value:#x}"),
            None => format!("{name} at {addr}{guest}"),
        }
    }

    /// The bits that decided, named.
    fn bits(&self) -> String {
        let place = self
            .failure
            .entry_addr
            .and_then(|addr| blamed(self.trail, addr));
        let scalable = self.unit.mode() == Mode::Scalable;
        match place {
            Some((step, word)) => fields::name_bits(step.table, scalable, word, self.failure.bits),
            None => format!("bits {:#x}", self.failure.bits),
        }
    }

    /// `bit 0 (P) is clear`, or `are`.
    fn state(&self, word: &str) -> String {
        let verb = if self.failure.bits.count_ones() > 1 {
            "are"
        } else {
            "is"
        };
        format!("{}, {} {verb} {word}", self.entry(), self.bits())
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one line a condition: a table, read as one"
    )]
    fn finding(&self) -> String {
        use Cause as C;
        match self.failure.cause {
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
                format!("{} cannot be read, no memory answers there", self.entry())
            }
            C::RootNotPresent
            | C::ContextNotPresent
            | C::ScalableRootNotPresent
            | C::ScalableContextNotPresent
            | C::DirectoryNotPresent
            | C::PasidEntryNotPresent
            | C::FirstEntryNotPresent => {
                format!("{}, not present: {} is clear", self.entry(), self.bits())
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
                format!("{} and must be zero on this unit", self.state("set"))
            }
            C::ContextWidth | C::PasidEntryWidth => format!(
                "{}: its {} asks for a page-table depth that CAP_REG.SAGAW does not offer",
                self.entry(),
                self.bits()
            ),
            C::ContextType | C::PasidEntryType => format!(
                "{}: its {} asks for a translation type that ECAP_REG does not offer",
                self.entry(),
                self.bits()
            ),
            C::PasidEntryPagingMode => format!(
                "{}: its {} asks for a first-stage paging mode that CAP_REG does not offer",
                self.entry(),
                self.bits()
            ),
            C::FirstStagePointerWidth => format!(
                "{}: its first-stage table lies beyond what the second stage translates",
                self.entry()
            ),
            C::AddressTypeBlocked => format!(
                "{}: its {} lets only untranslated requests through",
                self.entry(),
                self.bits()
            ),
            C::LegacyAddressWidth | C::SecondAddressWidth => {
                "the address is wider than the page table or the unit (CAP_REG.MGAW) translates"
                    .into()
            }
            C::LegacyTranslatedWidth
            | C::LegacyPassThroughWidth
            | C::TranslatedWidth
            | C::PassThroughWidth => format!(
                "the address goes to memory as it is and is wider than the host's {} bits",
                self.unit.haw()
            ),
            C::LegacyWriteDenied | C::WriteDenied => self.denied("write"),
            C::LegacyReadDenied | C::ReadDenied => self.denied("read"),
            C::SecondNoAccess => {
                format!("{}, it maps nothing{}", self.state("clear"), self.guest())
            }
            C::LegacyInterruptRange | C::InterruptRange => {
                "the access ends in the interrupt range 0xfee00000 to 0xfeefffff, which is no memory"
                    .into()
            }
            C::ModeUnsupported => format!(
                "RTADDR_REG is {:#x}, and its table mode (TTM, bits 11:10) is not one this unit offers",
                self.unit.rtaddr()
            ),
            C::PasidInLegacyMode => {
                "the unit is in legacy mode (RTADDR_REG.TTM is 0), which knows no PASID".into()
            }
            C::PageRequestInLegacyMode => {
                "the unit is in legacy mode (RTADDR_REG.TTM is 0), which knows no page requests"
                    .into()
            }
            C::AbortMode => {
                "the unit is in abort-DMA mode (RTADDR_REG.TTM is 3), which refuses everything"
                    .into()
            }
            C::ExecuteUnsupported => {
                "units of this version take no execute requests with a PASID".into()
            }
            C::PageRequestsWithoutDeviceTlb => format!(
                "{}: it allows page requests (PRE) but no device TLB (DTE)",
                self.entry()
            ),
            C::RidPasidTooLarge => format!(
                "{}: its RID_PASID lies beyond its PASID directory (PDTS)",
                self.entry()
            ),
            C::TranslatedPasidWithoutPasid => format!(
                "{}: it allows PASIDs in translated requests (EPTR) but no PASIDs (PASIDE)",
                self.entry()
            ),
            C::DeviceTlbDisabled => format!(
                "{}, so it does not let this device use a device TLB",
                self.state("clear")
            ),
            C::PasidDisabled => format!(
                "{}, so it does not let this device use PASIDs",
                self.state("clear")
            ),
            C::PasidTooLarge => format!(
                "PASID {} lies beyond its PASID directory: {}, of which {} gives the size",
                self.pasid(),
                self.entry(),
                self.bits()
            ),
            C::PageRequestsDisabled => format!(
                "{}, so it does not let this device send page requests",
                self.state("clear")
            ),
            C::PasidIsRidPasid => format!(
                "PASID {} stands for requests without a PASID: {}, {}",
                self.pasid(),
                self.entry(),
                self.bits()
            ),
            C::TranslatedPasidDisabled => {
                format!("{}, so it allows no PASID in translated requests", self.state("clear"))
            }
            C::ExecuteDisabled => {
                format!("{}, so it allows no execute requests", self.state("clear"))
            }
            C::SupervisorDisabled => {
                format!("{}, so it allows no privileged requests", self.state("clear"))
            }
            C::FirstEntryWidth => format!(
                "{}: the address in it lies beyond what the second stage translates",
                self.entry()
            ),
            C::FirstTopReadDenied | C::FirstEntryReadDenied => format!(
                "{}, so the second stage does not let the first-stage table{} be read",
                self.state("clear"),
                self.guest()
            ),
            C::FirstEntryWriteDenied => format!(
                "{}, so the second stage does not let an accessed or dirty bit{} be set",
                self.state("clear"),
                self.guest()
            ),
            C::FirstUpdateNotCoherent | C::SecondUpdateNotCoherent => format!(
                "{}: its accessed or dirty bit must be set, and page walks are not coherent \
                 (PWSNP of the PASID table entry is clear)",
                self.entry()
            ),
            C::FirstUpdateFailed | C::SecondUpdateFailed => format!(
                "{}: its accessed or dirty bit could not be written",
                self.entry()
            ),
            C::NotCanonical => {
                "the address is not canonical: the bits above the page table's width are not all \
                 equal to its highest bit"
                    .into()
            }
            C::UserDenied => format!("{}: only supervisors may use it", self.state("clear")),
            C::ExecuteDenied => format!("{} decides, no instructions may be fetched", self.bits_of()),
            C::PasidUnsupported => format!(
                "PASID {} is wider than this unit takes (ECAP_REG.PSS)",
                self.pasid()
            ),
            _ => format!("condition {}", self.failure.cause.code()),
        }
    }

    fn bits_of(&self) -> String {
        if self.failure.bits == 0 {
            self.entry()
        } else {
            format!("{}, {}", self.entry(), self.bits())
        }
    }

    fn guest(&self) -> String {
        match self.failure.guest_addr {
            Some(addr) => format!(" at guest address {addr}"),
            None => String::new(),
        }
    }

    fn denied(&self, what: &str) -> String {
        if self.failure.entry_addr.is_none() {
            return format!("no mapping allows the device to {what}");
        }
        if self.failure.entry == Some(0) {
            return format!("{}, nothing is mapped there{}", self.entry(), self.guest());
        }
        format!(
            "{}, so the device may not {what} there{}",
            self.state("clear"),
            self.guest()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Capture;

    #[test]
    fn every_condition_has_a_sentence_of_its_own_with_something_to_do() {
        let text = r#"{"iopf_capture":1,"arch":"vtd","requests":[
            {"device":"0000:00:05.0","pasid":5,"addr":"0x7f001000","access":"r"}]}"#;
        let capture = Capture::parse(text.as_bytes()).unwrap();
        for cause in Cause::ALL {
            let text = Story {
                request: &capture.requests[0],
                unit: &crate::explain::vtd::unit(&capture),
                failure: &Failure::new(*cause),
                trail: &[],
                recorded: true,
                response: None,
            }
            .text();
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
