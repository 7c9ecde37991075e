//! VT-d captures.

use super::{Answer, Explanation, Fault, Outcome, Translated, blamed, sentence};
use crate::capture::{Capture, Device, Request, RequestKind, SceneMemory};
use iommu_walk::vtd::{self, Applied, Completion, Failure, Mode, PAGE_REQUEST_ANSWER, Unit};
use iommu_walk::{Step, Table, Trail, Updates, Verdict};
use iommu_wire::pcie::pri::PageMessage;
use iommu_wire::vtd::event::RequestType;
use iommu_wire::vtd::page_request::Descriptor;
use iommu_wire::vtd::regs::Ecap;
use iopf::{Access, Dma, DmaKind, Iova, PageRequest, Response, Rid};
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

/// The requests of a capture, walked one after the other on one memory.
#[derive(Debug)]
pub struct Scene<'a> {
    unit: Unit,
    memory: SceneMemory<'a>,
    requests: std::iter::Enumerate<std::slice::Iter<'a, Request>>,
    trail: Trail,
    updates: Updates,
}

impl<'a> Scene<'a> {
    /// Before the first request.
    #[must_use]
    pub fn new(capture: &'a Capture) -> Self {
        Self {
            unit: unit(capture),
            memory: SceneMemory::new(capture),
            requests: capture.requests.iter().enumerate(),
            trail: Trail::new(),
            updates: Updates::new(),
        }
    }

    fn dma(&mut self, request: &Request, dma: &Dma) -> Outcome {
        let walked = vtd::translate(
            &self.unit,
            &self.memory,
            dma,
            &mut self.updates,
            &mut self.trail,
        );
        // Nobody else writes this memory, so an update never has to be tried again.
        let applied = vtd::apply(&self.updates, &self.memory, false);
        match (walked, applied) {
            (Ok(_), Applied::Failed(failure)) | (Err(failure), _) => {
                self.fault(request, dma, &failure)
            }
            (Ok(vtd::Outcome::InterruptRange), _) => Outcome::Interrupt {
                response: is_translation(dma.kind).then_some(Answer::Success),
                text: sentence::interrupt(request),
            },
            (Ok(vtd::Outcome::Memory(found)), _) => Outcome::Translated(Translated {
                pa: found.pa,
                perms: found.perms,
                page: 1u64.checked_shl(found.page_shift.into()).unwrap_or(0),
                response: is_translation(dma.kind).then_some(Answer::Success),
            }),
        }
    }

    fn fault(&self, request: &Request, dma: &Dma, failure: &Failure) -> Outcome {
        let failure = &attributed(failure, self.trail.steps());
        let completion = failure.cause.completion(dma.kind);
        let translation = is_translation(dma.kind);
        let record = failure
            .recorded(dma.kind)
            .then(|| record(&self.unit, failure, dma, request_type(dma)));
        let response = translation.then_some(match completion {
            Completion::UnsupportedRequest => Answer::UnsupportedRequest,
            Completion::CompleterAbort => Answer::CompleterAbort,
            Completion::NoAccess => Answer::Success,
        });
        Outcome::Fault(self.failed(
            request,
            failure,
            record,
            response,
            self.recoverable(failure),
        ))
    }

    /// Whether a device that uses ATS is told "no access" and may ask for the page: page requests
    /// exist in scalable mode, and pass where the configuration is sound.
    fn recoverable(&self, failure: &Failure) -> bool {
        let asked = DmaKind::Translation { no_write: false };
        self.unit.mode() == vtd::Mode::Scalable
            && failure.stage.is_some()
            && failure.cause.completion(asked) == Completion::NoAccess
    }

    fn failed(
        &self,
        request: &Request,
        failure: &Failure,
        record: Option<[u8; 16]>,
        response: Option<Answer>,
        recoverable: bool,
    ) -> Fault {
        let code = failure.cause.reason().0;
        let story = sentence::Story {
            request,
            unit: &self.unit,
            failure,
            trail: self.trail.steps(),
            recorded: record.is_some(),
            response,
        };
        Fault {
            code: (code != 0).then_some(code),
            name: failure.cause.code(),
            recoverable,
            stage: failure.stage.map(|stage| match stage {
                iommu_walk::Stage::First => 1,
                iommu_walk::Stage::Second => 2,
            }),
            level: (failure.level > 0).then_some(failure.level),
            entry_addr: failure.entry_addr,
            entry: failure.entry,
            bits: failure.bits,
            record,
            response,
            text: story.text(),
        }
    }

    fn page_request(&mut self, request: &Request, rid: Rid) -> Outcome {
        self.updates.clear();
        let checked = if self.unit.enabled() {
            let (unit, memory) = (&self.unit, &self.memory);
            vtd::page_request(unit, memory, rid, request.pasid, &mut self.trail).map(|_| ())
        } else {
            Err(Failure::new(vtd::Cause::Disabled))
        };
        let asked = PageRequest {
            pasid: request.pasid,
            group: request.group,
            addr: Iova(request.addr.0 & !0xfff),
            access: request.access,
            last: request.last,
            response_needs_pasid: request.pasid.is_some(),
            private_data: [0; 2],
        };
        let checked = checked.map_err(|failure| attributed(&failure, self.trail.steps()));
        let Err(failure) = checked else {
            let message = match request.access.intersects(Access::RW) {
                false if request.last => PageMessage::StopMarker {
                    pasid: request.pasid,
                },
                _ => PageMessage::Request(asked),
            };
            let descriptor = Descriptor::Page {
                requester: rid,
                message,
            };
            let mut bytes = [0; 32];
            bytes.copy_from_slice(descriptor.encode().as_bytes());
            return Outcome::Queued {
                descriptor: bytes,
                text: sentence::queued(request),
            };
        };
        let dma = Dma {
            requester: rid,
            pasid: request.pasid,
            kind: DmaKind::Untranslated,
            addr: request.addr,
            access: request.access,
        };
        let silent = failure.suppressed() || failure.cause == vtd::Cause::Disabled;
        let record = (!silent).then(|| record(&self.unit, &failure, &dma, RequestType::PAGE));
        let answer = match PAGE_REQUEST_ANSWER {
            Response::Success => Answer::Success,
            Response::Invalid => Answer::Invalid,
            Response::Failure => Answer::Failure,
        };
        let response = request.last.then_some(answer);
        Outcome::Fault(self.failed(request, &failure, record, response, false))
    }
}

impl Iterator for Scene<'_> {
    type Item = Explanation;

    fn next(&mut self) -> Option<Explanation> {
        let (index, request) = self.requests.next()?;
        self.trail.clear();
        let rid = match request.device {
            Device::Pci { rid, .. } => rid,
            // A reader refuses these; a builder's are cut to what a bus can carry.
            Device::Number(number) => Rid((number & 0xffff) as u16),
        };
        let outcome = match dma_kind(request) {
            Some(kind) => {
                let dma = Dma {
                    requester: rid,
                    pasid: request.pasid,
                    kind,
                    addr: request.addr,
                    access: request.rights(),
                };
                self.dma(request, &dma)
            }
            None => self.page_request(request, rid),
        };
        let mut trail = self.trail.steps().to_vec();
        if let Outcome::Fault(Fault {
            entry_addr: Some(addr),
            ..
        }) = outcome
            && let Some((step, _)) = blamed(&trail, addr)
            && matches!(step.verdict, Verdict::Next | Verdict::Leaf)
        {
            // Sound, and yet it is what refused the request.
            let at = (step.table, step.addr);
            let same = trail.iter_mut().rev().find(|s| (s.table, s.addr) == at);
            if let Some(step) = same {
                step.verdict = Verdict::Refused;
            }
        }
        Some(Explanation {
            request: index,
            outcome,
            trail,
            scalable: self.unit.mode() == Mode::Scalable,
            writes: self.updates.as_slice().to_vec(),
        })
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
    let mut failure = *failure;
    let step = trail.iter().rev().find(|step| step.table == table);
    if let (None, Some(step)) = (failure.entry_addr, step)
        && let Some(value) = step.raw.words().get(word)
    {
        failure.entry_addr = step.addr.checked_add(8 * word as u64);
        failure.entry = Some(*value);
        failure.bits = bits;
    }
    failure
}

fn dma_kind(request: &Request) -> Option<DmaKind> {
    match request.kind {
        RequestKind::Untranslated => Some(DmaKind::Untranslated),
        RequestKind::Translation => Some(DmaKind::Translation {
            no_write: request.no_write,
        }),
        RequestKind::Translated => Some(DmaKind::Translated),
        RequestKind::PageRequest => None,
    }
}

const fn is_translation(kind: DmaKind) -> bool {
    matches!(kind, DmaKind::Translation { .. })
}

fn record(unit: &Unit, failure: &Failure, dma: &Dma, kind: RequestType) -> [u8; 16] {
    let event = fault_event(dma, failure, kind, Ecap::from_bits(unit.ecap()));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(event.encode().as_bytes());
    bytes
}
