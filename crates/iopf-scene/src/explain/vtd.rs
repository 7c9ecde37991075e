//! VT-d captures.

use super::fields::Formats;
use super::scene::{Asked, Walks, blaming};
use super::sentence::{self, Blame};
use super::{Answer, Fault};
use crate::capture::{Capture, SceneMemory};
use iommu_walk::vtd::{self, Applied, Completion, Failure, Mode, PAGE_REQUEST_ANSWER, Unit};
use iommu_walk::{Step, Table, Trail, Updates};
use iommu_wire::pcie::pri::PageMessage;
use iommu_wire::vtd::event::RequestType;
use iommu_wire::vtd::page_request::Descriptor;
use iommu_wire::vtd::regs::Ecap;
use iopf::{Dma, DmaKind, Pasid, Rid};
use viommu::vtd::{fault_event, request_type};
use zerocopy::IntoBytes;

/// `CAP_REG` of a capture that has none: domain identifiers of 16 bits (ND), zero-length reads
/// (ZLR), 57-bit guest addresses (MGAW), 3 to 5 levels (SAGAW), 2 MiB and 1 GiB pages in both
/// stages (SSLPS, FS1GP), 5-level first stage (FS5LP), page-selective invalidation (PSI, MAMV 18),
/// read and write draining.
///
/// Intel VT-d, "Capability Register".
pub const CAP: u64 = 6
    | 1 << 22
    | 56 << 16
    | 0b01110 << 8
    | 0b11 << 34
    | 1 << 39
    | 18 << 48
    | 0b11 << 54
    | 1 << 56
    | 1 << 60;

/// `ECAP_REG` of a capture that has none: device TLBs (DT), pass-through (PT), snoop control (SC),
/// memory types (MTS), nesting (NEST), page requests (PRS), execute and supervisor requests (ERS,
/// SRS), no-write flag (NWFS), extended-accessed flag (EAFS), PASIDs of 20 bits (PSS, PASID),
/// scalable mode (SMTS) with accessed and dirty bits (SSADS), second and first stage (SSTS, FSTS),
/// coherent page walks (C, SMPWC), `RID_PASID` (RPS), abort mode (ADMS), `RID_PRIV` (RPRIVS),
/// PASIDs in translated requests (PTRS), I/O permission bits (SSIRWS), queued invalidation (QI).
///
/// Intel VT-d, "Extended Capability Register".
pub const ECAP: u64 = 0b11
    | 1 << 2
    | 1 << 6
    | 1 << 7
    | 1 << 25
    | 1 << 26
    | 1 << 29
    | 1 << 30
    | 1 << 31
    | 1 << 33
    | 1 << 34
    | 19 << 35
    | 1 << 40
    | 1 << 43
    | 1 << 45
    | 1 << 46
    | 1 << 47
    | 1 << 48
    | 1 << 49
    | 1 << 52
    | 1 << 53
    | 1 << 56
    | 1 << 57;

/// TES, "Translation Enable Status" of `GSTS_REG`.
const TES: u64 = 1 << 31;

/// The unit that a capture's registers describe.
#[must_use]
pub fn unit(capture: &Capture) -> Unit {
    let get = |name| capture.registers.get(name);
    let haw = get("HAW").and_then(|bits| u8::try_from(bits).ok());
    Unit::new(
        get("CAP_REG").unwrap_or(CAP),
        get("ECAP_REG").unwrap_or(ECAP),
        haw.unwrap_or(52),
    )
    .with_rtaddr(get("RTADDR_REG").unwrap_or(0))
    .with_enabled(get("GSTS_REG").is_none_or(|status| status & TES != 0))
}

/// A VT-d unit.
#[derive(Clone, Copy, Debug)]
pub struct Vtd {
    unit: Unit,
}

/// The requests of a VT-d capture.
pub type Scene<'a> = super::scene::Scene<'a, Vtd>;

impl Walks for Vtd {
    type Failure = Failure;

    fn of(capture: &Capture) -> Self {
        Self {
            unit: unit(capture),
        }
    }

    fn formats(&self) -> Formats {
        if self.unit.mode() == Mode::Scalable {
            Formats::Scalable
        } else {
            Formats::Legacy
        }
    }

    fn translate(
        &self,
        memory: &SceneMemory<'_>,
        dma: &Dma,
        updates: &mut Updates,
        trail: &mut Trail,
    ) -> Result<iommu_walk::Outcome, Failure> {
        let walked = vtd::translate(&self.unit, memory, dma, updates, trail);
        // Nobody else writes this memory, so an update never has to be tried again.
        match vtd::apply(updates, memory, false) {
            Applied::Failed(failure) => walked.and(Err(failure)),
            Applied::Done | Applied::Retry => walked,
        }
    }

    fn page_request(
        &self,
        memory: &SceneMemory<'_>,
        requester: Rid,
        pasid: Option<Pasid>,
        trail: &mut Trail,
    ) -> Result<(), Failure> {
        if !self.unit.enabled() {
            return Err(Failure::new(vtd::Cause::Disabled));
        }
        vtd::page_request(&self.unit, memory, requester, pasid, trail).map(|_| ())
    }

    fn fault(&mut self, asked: &Asked<'_>, failure: Failure) -> Fault {
        let failure = attributed(&failure, asked.trail);
        let dma = &asked.dma;
        let (recorded, kind, response) = if asked.page_request.is_some() {
            let silent = failure.suppressed() || failure.cause == vtd::Cause::Disabled;
            let answer = asked.page_answer(PAGE_REQUEST_ANSWER);
            (!silent, RequestType::PAGE, answer)
        } else {
            let answer = Answer::from(failure.cause.completion(dma.kind));
            let response = asked.translation().then_some(answer);
            (failure.recorded(dma.kind), request_type(dma), response)
        };
        let code = failure.cause.reason().0;
        let story = sentence::Story {
            request: asked.request,
            formats: self.formats(),
            blame: Blame::of(&failure),
            trail: asked.trail,
            recorded,
            response,
        };
        Fault {
            code: (code != 0).then_some(code),
            name: failure.cause.code(),
            recoverable: asked.page_request.is_none() && self.recoverable(&failure),
            record: recorded.then(|| record(&self.unit, &failure, dma, kind)),
            response,
            text: sentence::vtd::text(&story, &self.unit, &failure),
            ..Fault::from(story.blame)
        }
    }

    fn descriptor(requester: Rid, message: PageMessage) -> Vec<u8> {
        let descriptor = Descriptor::Page { requester, message };
        descriptor.encode().as_bytes().to_vec()
    }
}

impl Vtd {
    /// Whether a device that uses ATS is told "no access" and may ask for the page: page requests
    /// exist in scalable mode, and pass where the configuration is sound.
    fn recoverable(&self, failure: &Failure) -> bool {
        let asked = DmaKind::Translation { no_write: false };
        self.unit.mode() == Mode::Scalable
            && failure.stage.is_some()
            && failure.cause.completion(asked) == Completion::NoAccess
    }
}

/// A walk weighs what an entry allows apart from reading it, as a cache stands between the two. Here
/// the entry has just been read, so it can be named.
fn attributed(failure: &Failure, trail: &[Step]) -> Failure {
    use vtd::Cause as C;
    let (table, word, bits) = match failure.cause {
        C::AddressTypeBlocked => (Table::Context, 0, 0b11 << 2),
        C::DeviceTlbDisabled => (Table::Context, 0, 1 << 2),
        C::PasidDisabled => (Table::Context, 0, 1 << 3),
        C::PageRequestsDisabled => (Table::Context, 0, 1 << 4),
        C::TranslatedPasidDisabled => (Table::Context, 0, 1 << 6),
        C::PasidTooLarge => (Table::Context, 0, 0b111 << 9),
        C::PasidIsRidPasid => (Table::Context, 1, 0xf_ffff),
        C::SupervisorDisabled => (Table::PasidTable, 2, 1 << 0),
        C::ExecuteDisabled => (Table::PasidTable, 2, 1 << 1),
        _ => return *failure,
    };
    blaming(*failure, trail, (table, word, bits))
}

fn record(unit: &Unit, failure: &Failure, dma: &Dma, kind: RequestType) -> Vec<u8> {
    let event = fault_event(dma, failure, kind, Ecap::from_bits(unit.ecap()));
    event.encode().as_bytes().to_vec()
}
