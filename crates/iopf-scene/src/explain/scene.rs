//! The requests of a capture, one after the other, whichever architecture walks them.

use super::fields::Formats;
use super::{Answer, Explanation, Fault, Outcome, Translated, blamed, sentence};
use crate::capture::{Capture, Device, Request, RequestKind, SceneMemory};
use iommu_walk::{Failure, Step, Table, Trail, Updates, Verdict};
use iommu_wire::pcie::pri::PageMessage;
use iopf::{Access, Dma, DmaKind, Iova, PageRequest, Pasid, Response, Rid};

/// What an architecture has to say.
pub(super) trait Walks {
    /// Why a walk failed.
    type Failure;

    /// The unit that a capture's registers describe.
    fn of(capture: &Capture) -> Self;

    /// Whose tables the trail is of.
    fn formats(&self) -> Formats;

    /// Walks and sets accessed and dirty bits; `updates` has them.
    fn translate(
        &self,
        memory: &SceneMemory<'_>,
        dma: &Dma,
        updates: &mut Updates,
        trail: &mut Trail,
    ) -> Result<iommu_walk::Outcome, Self::Failure>;

    /// Whether a page request may be asked.
    fn page_request(
        &self,
        memory: &SceneMemory<'_>,
        requester: Rid,
        pasid: Option<Pasid>,
        trail: &mut Trail,
    ) -> Result<(), Self::Failure>;

    /// What a failure comes to.
    fn fault(&mut self, asked: &Asked<'_>, failure: Self::Failure) -> Fault;

    /// What software finds in its queue of page requests, in memory order.
    fn descriptor(requester: Rid, message: PageMessage) -> Vec<u8>;
}

/// A request that failed.
pub(super) struct Asked<'a> {
    pub(super) request: &'a Request,
    /// Of a page request: who asks and where, as an untranslated request.
    pub(super) dma: Dma,
    pub(super) page_request: Option<PageRequest>,
    pub(super) trail: &'a [Step],
}

impl Asked<'_> {
    /// It is a translation request.
    pub(super) const fn translation(&self) -> bool {
        is_translation(self.dma.kind)
    }

    /// The answer that a unit gives itself to a page request it refuses, if it was the last.
    pub(super) fn page_answer(&self, response: Response) -> Option<Answer> {
        self.request.last.then_some(match response {
            Response::Success => Answer::Success,
            Response::Invalid => Answer::Invalid,
            Response::Failure => Answer::Failure,
        })
    }
}

/// A failure that names no entry, with what the entry of a table that was read last has in one of its
/// words: the table, the word from 0 and the bits that decided.
pub(super) fn blaming<C: Copy, D: Copy>(
    mut failure: Failure<C, D>,
    trail: &[Step],
    (table, word, bits): (Table, usize, u64),
) -> Failure<C, D> {
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

/// The requests of a capture, walked one after the other on one memory.
#[derive(Debug)]
pub struct Scene<'a, W> {
    walks: W,
    memory: SceneMemory<'a>,
    requests: std::iter::Enumerate<std::slice::Iter<'a, Request>>,
    trail: Trail,
    updates: Updates,
}

#[expect(
    private_bounds,
    reason = "the architectures are a closed set, named by aliases"
)]
impl<'a, W: Walks> Scene<'a, W> {
    /// Before the first request.
    #[must_use]
    pub fn new(capture: &'a Capture) -> Self {
        Self {
            walks: W::of(capture),
            memory: SceneMemory::new(capture),
            requests: capture.requests.iter().enumerate(),
            trail: Trail::new(),
            updates: Updates::new(),
        }
    }

    fn dma(&mut self, request: &Request, dma: Dma) -> Outcome {
        let walked = self
            .walks
            .translate(&self.memory, &dma, &mut self.updates, &mut self.trail);
        let response = is_translation(dma.kind).then_some(Answer::Success);
        match walked {
            Err(failure) => self.fault(request, dma, None, failure),
            Ok(iommu_walk::Outcome::InterruptRange) => Outcome::Interrupt {
                response,
                text: sentence::interrupt(request, self.walks.formats()),
            },
            Ok(iommu_walk::Outcome::Memory(found)) => Outcome::Translated(Translated {
                pa: found.pa,
                perms: found.perms,
                page: 1u64.checked_shl(found.page_shift.into()).unwrap_or(0),
                response,
            }),
        }
    }

    fn fault(
        &mut self,
        request: &Request,
        dma: Dma,
        page_request: Option<PageRequest>,
        failure: W::Failure,
    ) -> Outcome {
        let asked = Asked {
            request,
            dma,
            page_request,
            trail: self.trail.steps(),
        };
        Outcome::Fault(self.walks.fault(&asked, failure))
    }

    fn page_request(&mut self, request: &Request, requester: Rid) -> Outcome {
        self.updates.clear();
        let page = PageRequest {
            pasid: request.pasid,
            group: request.group,
            addr: Iova(request.addr.0 & !0xfff),
            access: request.access,
            last: request.last,
            response_needs_pasid: request.pasid.is_some(),
            private_data: [0; 2],
        };
        let checked =
            self.walks
                .page_request(&self.memory, requester, request.pasid, &mut self.trail);
        if let Err(failure) = checked {
            let dma = Dma {
                requester,
                pasid: request.pasid,
                kind: DmaKind::Untranslated,
                addr: request.addr,
                access: request.access,
            };
            return self.fault(request, dma, Some(page), failure);
        }
        let message = match request.access.intersects(Access::RW) {
            false if request.last => PageMessage::StopMarker {
                pasid: request.pasid,
            },
            _ => PageMessage::Request(page),
        };
        Outcome::Queued {
            descriptor: W::descriptor(requester, message),
            text: sentence::queued(request, self.walks.formats()),
        }
    }
}

impl<W: Walks> Iterator for Scene<'_, W> {
    type Item = Explanation;

    fn next(&mut self) -> Option<Explanation> {
        let (index, request) = self.requests.next()?;
        self.trail.clear();
        let requester = match request.device {
            Device::Pci { rid, .. } => rid,
            // A StreamID. Of PCI's architectures, a reader refuses it.
            Device::Number(number) => Rid(number),
        };
        let outcome = match dma_kind(request) {
            Some(kind) => {
                let dma = Dma {
                    requester,
                    pasid: request.pasid,
                    kind,
                    addr: request.addr,
                    access: request.rights(),
                };
                self.dma(request, dma)
            }
            None => self.page_request(request, requester),
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
            formats: self.walks.formats(),
            writes: self.updates.as_slice().to_vec(),
        })
    }
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
