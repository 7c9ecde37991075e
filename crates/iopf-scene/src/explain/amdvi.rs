//! AMD-Vi captures.

use super::fields::Formats;
use super::scene::{Asked, Walks, blaming};
use super::sentence::{self, Blame};
use super::{Answer, Fault};
use crate::capture::{Capture, SceneMemory};
use iommu_walk::amdvi::{
    self, Applied, Cause, Detail, Failure, PAGE_REQUEST_ANSWER, Switches, Unit,
};
use iommu_walk::{Completion, Table, Trail, Updates};
use iommu_wire::amdvi::ppr::Ppr;
use iommu_wire::amdvi::tables::{DeviceWord0, DeviceWord1};
use iommu_wire::pcie::pri::PageMessage;
use iopf::{Dma, DmaKind, Pasid, Rid};
use viommu::amdvi::fault_event;
use zerocopy::IntoBytes;

/// `EXT_FEATURE` of a capture that has none: page requests (`PPRSup`), no-execute (`NXSup`), guest
/// translation (`GTSup`), host tables of up to 6 levels (HATS), guest tables of up to 5 (GATS), guest
/// CR3 tables of up to 3 (`GLXSup`), PASIDs of 20 bits (`PASmax`), supervisor requests (`USSup`), 8
/// device table segments (`DevTblSegSup`), `GIoSup`, accessed and dirty bits of host tables (`HASup`,
/// `HDSup`), enhanced page requests (`EPHSup`).
///
/// 48882, "Extended Feature Register".
pub const EXT_FEATURE: u64 = 1 << 1
    | 1 << 3
    | 1 << 4
    | 2 << 10
    | 1 << 12
    | 2 << 14
    | 19 << 32
    | 1 << 37
    | 3 << 38
    | 1 << 48
    | 1 << 49
    | 1 << 50
    | 1 << 52;

/// `EXT_FEATURE2` of a capture that has none: the guest CR3 table pointer can be a guest physical
/// address (`GCR3TRPMode`).
///
/// 48882, "Extended Feature 2 Register".
pub const EXT_FEATURE2: u64 = 1 << 3;

/// `IOMMU_CONTROL` of a capture that has none: translation (`IommuEn`), page requests (`PPREn`) and
/// guest translation (`GTEn`) are on.
///
/// 48882, "IOMMU Control Register".
pub const IOMMU_CONTROL: u64 = 1 | 1 << 15 | 1 << 16;

/// The names of the Device Table Segment Base Address Registers, from segment 1 on.
pub(crate) const SEGMENTS: [&str; 7] = [
    "DEV_TAB_SEG1_BASE",
    "DEV_TAB_SEG2_BASE",
    "DEV_TAB_SEG3_BASE",
    "DEV_TAB_SEG4_BASE",
    "DEV_TAB_SEG5_BASE",
    "DEV_TAB_SEG6_BASE",
    "DEV_TAB_SEG7_BASE",
];

/// The unit that a capture's registers describe.
#[must_use]
pub fn unit(capture: &Capture) -> Unit {
    let get = |name| capture.registers.get(name);
    let mut unit = Unit::new(
        get("EXT_FEATURE").unwrap_or(EXT_FEATURE),
        get("EXT_FEATURE2").unwrap_or(EXT_FEATURE2),
    )
    .with_control(get("IOMMU_CONTROL").unwrap_or(IOMMU_CONTROL))
    .with_device_table(get("DEV_TAB_BASE").unwrap_or(0))
    .with_exclusion(
        get("EXCL_BASE").unwrap_or(0),
        get("EXCL_LIMIT").unwrap_or(0),
    );
    for (before, name) in SEGMENTS.iter().enumerate() {
        unit = unit.with_segment(before + 1, get(name).unwrap_or(0));
    }
    unit
}

/// An AMD-Vi unit.
#[derive(Clone, Debug)]
pub struct Amdvi {
    unit: Unit,
    /// Devices of which SE has let the first page fault through.
    reported: Vec<Rid>,
}

/// The requests of an AMD-Vi capture.
pub type Scene<'a> = super::scene::Scene<'a, Amdvi>;

impl Walks for Amdvi {
    type Failure = Failure;

    fn of(capture: &Capture) -> Self {
        Self {
            unit: unit(capture),
            reported: Vec::new(),
        }
    }

    fn formats(&self) -> Formats {
        Formats::Amdvi
    }

    fn translate(
        &self,
        memory: &SceneMemory<'_>,
        dma: &Dma,
        updates: &mut Updates,
        trail: &mut Trail,
    ) -> Result<iommu_walk::Outcome, Failure> {
        let walked = amdvi::translate(&self.unit, memory, dma, updates, trail);
        if updates.is_empty() {
            return walked;
        }
        let space = amdvi::read_space(&self.unit, memory, dma, &mut ())?;
        let hidden = space.switches().contains(Switches::FAULTS_HIDDEN);
        // Nobody else writes this memory, so an update never has to be tried again.
        match amdvi::apply(updates, memory, space.detail(dma.pasid), hidden) {
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
            return Err(Failure::with(Cause::Disabled, Detail::default()));
        }
        amdvi::page_request(&self.unit, memory, requester, pasid, trail).map(|_| ())
    }

    fn fault(&mut self, asked: &Asked<'_>, failure: Failure) -> Fault {
        let failure = attributed(&self.unit, failure, asked);
        let dma = &asked.dma;
        let due = if asked.page_request.is_some() {
            failure.cause != Cause::Disabled && !failure.suppressed()
        } else {
            failure.recorded(dma.kind)
        };
        let repeated = due && failure.only_once() && self.reported.contains(&dma.requester);
        if due && failure.only_once() && !repeated {
            self.reported.push(dma.requester);
        }
        let recorded = due && !repeated;
        let response = if asked.page_request.is_some() {
            asked.page_answer(PAGE_REQUEST_ANSWER)
        } else {
            let answer = Answer::from(failure.cause.completion(dma.kind));
            asked.translation().then_some(answer)
        };
        let code = failure.cause.reason().0;
        let story = sentence::Story {
            request: asked.request,
            formats: Formats::Amdvi,
            blame: Blame::of(&failure),
            trail: asked.trail,
            recorded,
            response,
        };
        Fault {
            code: (code != 0).then_some(code),
            name: match code {
                0 => "IommuEn=0",
                _ => failure.cause.code(),
            },
            recoverable: asked.page_request.is_none() && self.recoverable(&failure),
            record: recorded.then(|| record(&failure, asked)),
            response,
            text: sentence::amdvi::text(&story, &failure, repeated),
            ..Fault::from(story.blame)
        }
    }

    fn descriptor(requester: Rid, message: PageMessage) -> Vec<u8> {
        let entry = Ppr::PageServiceRequest {
            requester,
            message,
            malformed: false,
        };
        entry.encode().as_bytes().to_vec()
    }
}

impl Amdvi {
    /// Whether a device that uses ATS is told "no access" and may ask for the page.
    fn recoverable(&self, failure: &Failure) -> bool {
        let asked = DmaKind::Translation { no_write: false };
        self.unit.page_requests_enabled()
            && failure.stage.is_some()
            && failure.cause.completion(asked) == Completion::NoAccess
    }
}

/// A walk weighs what a device table entry allows apart from reading it, as a cache stands between the
/// two. Here the entry has just been read, so it can be named.
fn attributed(unit: &Unit, failure: Failure, asked: &Asked<'_>) -> Failure {
    use Cause as C;
    let (word, bits) = match failure.cause {
        C::TranslationDisabled => (0, DeviceWord0::TRANSLATION_VALID),
        C::DeviceReadDenied => (0, DeviceWord0::READ),
        C::DeviceWriteDenied => (0, DeviceWord0::WRITE),
        C::DeviceTlbDisabled => (1, DeviceWord1::DEVICE_TLB),
        C::PasidDisabled if unit.guest_enabled() => (0, DeviceWord0::GUEST_VALID),
        C::PasidOutsideTable | C::PageRequestPasid => (0, DeviceWord0::GUEST_LEVELS),
        C::HostAddressWidth => (0, DeviceWord0::MODE),
        C::PageRequestsDisabled if unit.page_requests_enabled() => (0, DeviceWord0::PAGE_REQUESTS),
        _ => return failure,
    };
    blaming(failure, asked.trail, (Table::DeviceTable, word, bits))
}

fn record(failure: &Failure, asked: &Asked<'_>) -> Vec<u8> {
    let event = fault_event(&asked.dma, failure, asked.page_request.as_ref());
    event.as_bytes().to_vec()
}
