//! SMMUv3 captures.

use super::fields::Formats;
use super::scene::{Asked, Walks, blaming};
use super::sentence::{self, Blame};
use super::{Answer, Fault};
use crate::capture::{Capture, SceneMemory};
use iommu_walk::smmuv3::{
    self, Applied, Cause, Completion, Detail, Failure, Features, PAGE_REQUEST_ANSWER, Unit,
};
use iommu_walk::{Table, Trail, Updates};
use iommu_wire::pcie::pri::PageMessage;
use iommu_wire::smmuv3::page_request::Entry;
use iommu_wire::smmuv3::tables::{ContextWord0, StreamWord0, StreamWord1};
use iopf::{Dma, DmaKind, Pasid, Rid};
use viommu::smmuv3::fault_event;
use zerocopy::IntoBytes;

/// `SMMU_IDR0` of a capture that has none: both stages (S2P, S1P), 64-bit tables (TTF 2), access flags and
/// dirty state by hardware (HTTU 2), ATS without split stages (NS1ATS), 16-bit ASIDs and VMIDs, MSIs, page
/// requests (PRI), context descriptors and stream table of two levels (CD2L, `ST_LEVEL` 1), and stalls as
/// the tables say (`STALL_MODEL` 0).
///
/// IHI 0070, "`SMMU_IDR0`".
pub const IDR0: u32 = 1
    | 1 << 1
    | 2 << 2
    | 1 << 4
    | 2 << 6
    | 1 << 10
    | 1 << 11
    | 1 << 12
    | 1 << 13
    | 1 << 16
    | 1 << 18
    | 1 << 19
    | 1 << 27;

/// `SMMU_IDR1` of a capture that has none: StreamIDs of 32 bits (SIDSIZE), SubstreamIDs of 20 (SSIDSIZE),
/// and PRIVCFG and INSTCFG count (`ATTR_PERMS_OVR`).
///
/// IHI 0070, "`SMMU_IDR1`".
pub const IDR1: u32 = 32 | 20 << 6 | 1 << 26;

/// `SMMU_IDR3` of a capture that has none: HAD, XNX, small tables (STT), E0PD and EPAN.
///
/// IHI 0070, "`SMMU_IDR3`".
pub const IDR3: u32 = 1 << 2 | 1 << 4 | 1 << 9 | 1 << 13 | 1 << 17;

/// `SMMU_IDR5` of a capture that has none: addresses of 48 bits (OAS 5), granules of 4, 16 and 64 KiB.
///
/// IHI 0070, "`SMMU_IDR5`".
pub const IDR5: u32 = 5 | 1 << 4 | 1 << 5 | 1 << 6;

/// `SMMU_CR0` of a capture that has none: translation (SMMUEN), the three queues, and the check of
/// translated requests (ATSCHK) are on.
///
/// IHI 0070, "`SMMU_CR0`".
pub const CR0: u32 = 0x1f;

/// The unit that a capture's registers describe.
#[must_use]
pub fn unit(capture: &Capture) -> Unit {
    let wide = |name| capture.registers.get(name);
    // These have 32 bits; what stands above them is not there.
    let get = |name| wide(name).map(|value| (value & 0xffff_ffff) as u32);
    Unit::new(Features {
        idr0: get("SMMU_IDR0").unwrap_or(IDR0),
        idr1: get("SMMU_IDR1").unwrap_or(IDR1),
        idr3: get("SMMU_IDR3").unwrap_or(IDR3),
        idr5: get("SMMU_IDR5").unwrap_or(IDR5),
    })
    .with_control(get("SMMU_CR0").unwrap_or(CR0), get("SMMU_CR2").unwrap_or(0))
    .with_global_bypass(get("SMMU_GBPA").unwrap_or(0))
    .with_stream_table(
        wide("SMMU_STRTAB_BASE").unwrap_or(0),
        get("SMMU_STRTAB_BASE_CFG").unwrap_or(0),
    )
}

/// An SMMUv3 unit.
#[derive(Clone, Copy, Debug)]
pub struct Smmuv3 {
    unit: Unit,
}

/// The requests of an SMMUv3 capture.
pub type Scene<'a> = super::scene::Scene<'a, Smmuv3>;

impl Walks for Smmuv3 {
    type Failure = Failure;

    fn of(capture: &Capture) -> Self {
        Self {
            unit: unit(capture),
        }
    }

    fn formats(&self) -> Formats {
        Formats::Smmuv3
    }

    fn translate(
        &self,
        memory: &SceneMemory<'_>,
        dma: &Dma,
        updates: &mut Updates,
        trail: &mut Trail,
    ) -> Result<iommu_walk::Outcome, Failure> {
        let walked = smmuv3::translate(&self.unit, memory, dma, updates, trail);
        if updates.is_empty() {
            return walked;
        }
        let space = smmuv3::read_space(&self.unit, memory, dma, &mut Updates::new(), &mut ());
        // A walk that failed is told of whatever becomes of its updates.
        let detail = space.map_or(Detail::empty(), |space| space.detail(dma.access, dma.pasid));
        // Nobody else writes this memory, so an update never has to be tried again.
        match smmuv3::apply(updates, memory, detail) {
            Applied::Failed(failure) => walked.and(Err(failure)),
            Applied::Done | Applied::Retry => walked,
        }
    }

    fn page_request(
        &self,
        _memory: &SceneMemory<'_>,
        _requester: Rid,
        _pasid: Option<Pasid>,
        _trail: &mut Trail,
    ) -> Result<(), Failure> {
        smmuv3::page_request(&self.unit)
    }

    fn fault(&mut self, asked: &Asked<'_>, failure: Failure) -> Fault {
        let failure = attributed(failure, asked);
        let dma = &asked.dma;
        let recorded = asked.page_request.is_none() && failure.recorded(dma.kind);
        let response = if asked.page_request.is_some() {
            asked.page_answer(PAGE_REQUEST_ANSWER)
        } else {
            let answer = Answer::from(failure.cause.completion(dma.kind));
            asked.translation().then_some(answer)
        };
        let code = failure.cause.reason().0;
        let story = sentence::Story {
            request: asked.request,
            formats: Formats::Smmuv3,
            blame: Blame::of(&failure),
            trail: asked.trail,
            recorded,
            response,
        };
        Fault {
            code: (code != 0).then_some(code),
            name: name(failure.cause),
            recoverable: asked.page_request.is_none() && self.recoverable(&failure),
            record: recorded.then(|| record(&failure, dma)),
            response,
            text: sentence::smmuv3::text(&story, &failure, dma.kind),
            ..Fault::from(story.blame)
        }
    }

    fn descriptor(requester: Rid, message: PageMessage) -> Vec<u8> {
        let entry = Entry {
            stream: requester,
            message,
        };
        entry.encode().as_bytes().to_vec()
    }
}

impl Smmuv3 {
    /// Whether the page may be mapped and the request go on: it stalls, or a device that uses ATS is told
    /// "no access" and may ask for the page.
    fn recoverable(&self, failure: &Failure) -> bool {
        let asked = DmaKind::Translation { no_write: false };
        failure.stage.is_some()
            && failure.cause.completion(asked) == Completion::NoAccess
            && (failure.detail.contains(Detail::STALL) || self.unit.page_requests_enabled())
    }
}

/// The event's name; of what has none, what decides.
const fn name(cause: Cause) -> &'static str {
    match cause {
        Cause::GlobalAbort => "GBPA.ABORT=1",
        Cause::StreamAborts => "STE.Config=0b0xx",
        Cause::GlobalAddressSize | Cause::TranslatedAddressSize => "address wider than OAS",
        Cause::PageRequestsDisabled => "PRIQEN=0",
        cause => cause.code(),
    }
}

/// A walk weighs what an entry allows apart from reading it, as a cache stands between the two. Here the
/// entry has just been read, so it can be named.
fn attributed(failure: Failure, asked: &Asked<'_>) -> Failure {
    use Cause as C;
    let upper = asked.dma.addr.0 >> 55 & 1 == 1;
    let (stream, context) = (Table::Stream, Table::ContextDescriptor);
    let place = match failure.cause {
        C::StreamAborts | C::SubstreamWithoutFirst => (stream, 0, StreamWord0::CONFIG),
        C::TranslationRequest | C::Translated => (stream, 1, StreamWord1::ATS),
        C::SubstreamsDisabled | C::SubstreamOutsideTable => (stream, 0, StreamWord0::CONTEXT_BITS),
        C::SubstreamNeeded | C::SubstreamReserved => (stream, 1, StreamWord1::DEFAULT_SUBSTREAM),
        C::FirstDisabled if upper => (context, 0, ContextWord0::UPPER_DISABLED),
        C::FirstDisabled => (context, 0, ContextWord0::LOWER_DISABLED),
        C::FirstOutside if upper => (context, 0, ContextWord0::UPPER_SIZE),
        C::FirstOutside => (context, 0, ContextWord0::LOWER_SIZE),
        C::FirstUserDisabled => (context, if upper { 2 } else { 1 }, 1 << 2),
        _ => return failure,
    };
    blaming(failure, asked.trail, place)
}

/// The event. Its STAG, which a unit chooses, is 0.
fn record(failure: &Failure, dma: &Dma) -> Vec<u8> {
    let event = fault_event(dma, failure);
    let event = if failure.stalls(dma.kind) {
        event.with_stall(0)
    } else {
        event
    };
    event.as_bytes().to_vec()
}
