//! What devices see of the unit: translation, ATS and PRI, and the faults that come of them.

use super::device::{State, VtdUnit};
use super::diagnostics::Diagnostic;
use super::events::Recorded;
use super::interrupt::Msi;
use super::page_requests::Room;
use super::record::{fault_event, request_type};
use super::translate::Target;
use super::watch::Notice;
use crate::session::Session;
use iommu_walk::vtd::{Completion, Failure, Outcome, PAGE_REQUEST_ANSWER};
use iommu_wire::pcie::pri::PageMessage;
use iommu_wire::vtd::event::RequestType;
use iommu_wire::vtd::page_request::Descriptor;
use iopf::{Access, Dma, DmaKind, Gpa, Iova, PageRequest, Response, Rid};
use viommu_api::{Ats, AtsCompletion, Blocked, Granted, PageRequestOutcome, Pri, Translate};
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};
use zerocopy::IntoBytes;

impl<A> VtdUnit<A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    /// Counts a fault, and records it where it is to be recorded.
    fn fault(&self, dma: &Dma, failure: &Failure, request: RequestType, record: bool) {
        let raw = record.then(|| fault_event(dma, failure, request, self.ecap).encode());
        let mut state = self.state();
        let State {
            regs, diagnostics, ..
        } = &mut *state;
        let counters = &mut diagnostics.counters;
        counters.faults += 1;
        let mut msi = None;
        let mut recorded = false;
        if let Some(raw) = raw {
            match regs.events.record(raw) {
                Recorded::Yes(message) => {
                    counters.recorded += 1;
                    recorded = true;
                    msi = message;
                }
                Recorded::Lost => counters.lost += 1,
            }
        } else if failure.suppressed() {
            counters.suppressed += 1;
        }
        let diagnostic = Diagnostic {
            dma: *dma,
            failure: *failure,
            recorded,
            page_request: request == RequestType::PAGE,
        };
        diagnostics.push(diagnostic);
        drop(state);
        self.watcher.notice(Notice::Fault(&diagnostic));
        self.send(msi);
    }

    fn dma_fault(&self, dma: &Dma, failure: &Failure) {
        let request = request_type(dma);
        self.fault(dma, failure, request, failure.recorded(dma.kind));
    }

    /// Looks a page up, and walks where it is not cached. Inside a session.
    fn page(&self, dma: &Dma, failed: &mut Option<Failure>) -> Option<Target> {
        let aimed = self.translator.aim(dma);
        match aimed.and_then(|aimed| self.translator.hit(&aimed)) {
            Some(hit) => Some(Target::of(hit, dma.addr)),
            None => self.walked(dma, failed),
        }
    }

    /// As [`Translator::miss`](super::translate::Translator::miss).
    #[inline]
    fn walked(&self, dma: &Dma, failed: &mut Option<Failure>) -> Option<Target> {
        self.ram
            .view(|view| self.translator.miss(view, dma, failed))
    }

    /// An access whose first page is not cached. `session` is the one in which it was looked for.
    #[inline(never)]
    fn missed(
        &self,
        session: Session<'_>,
        dma: &Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked> {
        let mut failed = None;
        let part = self
            .walked(dma, &mut failed)
            .map(|target| visit(dma, &target, len, each));
        drop(session);
        self.resume();
        match part {
            Some(part) if part >= len => Ok(()),
            Some(part) => self.go_on(dma, part, len, each),
            None => Err(self.blocked(dma, failed.as_ref())),
        }
    }

    /// The part of an access from `done` bytes on, each page in a session of its own, so that a long
    /// access holds no invalidation up.
    #[inline(never)]
    fn go_on(
        &self,
        dma: &Dma,
        mut done: u64,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked> {
        loop {
            let Some(addr) = dma.addr.checked_add(done) else {
                return Err(Blocked { at: Iova(u64::MAX) });
            };
            let piece = Dma { addr, ..*dma };
            let mut failed = None;
            let part = self.sessions.run(|_| {
                let target = self.page(&piece, &mut failed)?;
                Some(visit(&piece, &target, len - done, each))
            });
            self.resume();
            match part {
                Some(part) => done += part,
                None => return Err(self.blocked(&piece, failed.as_ref())),
            }
            if done >= len {
                return Ok(());
            }
        }
    }

    fn blocked(&self, dma: &Dma, failed: Option<&Failure>) -> Blocked {
        if let Some(failure) = failed {
            self.dma_fault(dma, failure);
        }
        Blocked { at: dma.addr }
    }

    /// Does with an access what the guest's tables say, short of making it, for an access that the
    /// host's own tables refused. A fault is recorded for the guest, and returned; where the guest's
    /// tables translate the access it is counted as vanished.
    pub fn tell(&self, dma: &Dma) -> Option<Failure> {
        let mut failed = None;
        self.sessions.run(|_| self.page(dma, &mut failed));
        self.resume();
        match &failed {
            None => self.state().diagnostics.counters.vanished += 1,
            Some(failure) => self.dma_fault(dma, failure),
        }
        failed
    }
}

/// A request that is not queued: the last of its group is answered, a stop marker never.
fn refuse(request: &PageRequest, response: Response) -> PageRequestOutcome {
    if request.last && request.access.intersects(Access::RW) {
        PageRequestOutcome::Answered(response)
    } else {
        PageRequestOutcome::Dropped
    }
}

impl<A> Translate for VtdUnit<A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    #[inline]
    fn with_translation(
        &self,
        dma: &Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked> {
        let aimed = self.translator.aim(dma);
        let session = self.sessions.enter();
        let Some(hit) = aimed.and_then(|aimed| self.translator.hit(&aimed)) else {
            return self.missed(session, dma, len, each);
        };
        let part = visit(dma, &Target::of(hit, dma.addr), len, each);
        drop(session);
        self.resume();
        if part < len {
            return self.go_on(dma, part, len, each);
        }
        Ok(())
    }
}

/// Hands the part of a request that lies in one page to `each`. Returns its length.
#[inline]
fn visit(piece: &Dma, target: &Target, left: u64, each: &mut dyn FnMut(Gpa, u64)) -> u64 {
    let part = target.part(piece.addr, left);
    if part > 0 {
        each(target.pa, part);
    }
    part
}

impl<A> Ats for VtdUnit<A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    fn translation_request(&self, dma: &Dma) -> AtsCompletion {
        if !self.ecap.dt() {
            return AtsCompletion::UnsupportedRequest;
        }
        let nothing = AtsCompletion::Success {
            granted: Granted {
                pa: Gpa(0),
                page_shift: 12,
                perms: Access::empty(),
            },
            global: false,
        };
        let dma = Dma {
            kind: match dma.kind {
                DmaKind::Translation { .. } => dma.kind,
                _ => DmaKind::Translation { no_write: false },
            },
            ..*dma
        };
        let answer = self
            .sessions
            .run(|_| self.ram.view(|view| self.translator.ats(view, &dma)));
        self.resume();
        match answer {
            Ok(Outcome::Memory(translation)) => AtsCompletion::Success {
                granted: Granted {
                    pa: translation.pa,
                    page_shift: translation.page_shift,
                    perms: translation.perms,
                },
                global: false,
            },
            // "Untranslated access only" has no form in the seam; without rights the device falls
            // back to an untranslated request just the same.
            Ok(Outcome::InterruptRange) => nothing,
            Err(failure) => {
                let completion = failure.cause.completion(dma.kind);
                // A missing right is no fault here: the device will ask for the page.
                if completion != Completion::NoAccess || failure.recorded(dma.kind) {
                    self.dma_fault(&dma, &failure);
                }
                match completion {
                    Completion::UnsupportedRequest => AtsCompletion::UnsupportedRequest,
                    Completion::CompleterAbort => AtsCompletion::CompleterAbort,
                    Completion::NoAccess => nothing,
                }
            }
        }
    }
}

impl<A> Pri for VtdUnit<A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    fn page_request(&self, requester: Rid, request: &PageRequest) -> PageRequestOutcome {
        let (outcome, msi) = self.take_page_request(requester, request);
        if let PageRequestOutcome::Answered(_) = outcome {
            self.state().diagnostics.counters.page_requests_answered += 1;
        }
        self.watcher.notice(Notice::PageRequest {
            requester,
            request,
            outcome,
        });
        self.send(msi);
        self.resume();
        outcome
    }
}

impl<A> VtdUnit<A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    /// What becomes of a page request, and the message that is due.
    fn take_page_request(
        &self,
        requester: Rid,
        request: &PageRequest,
    ) -> (PageRequestOutcome, Option<Msi>) {
        let dma = Dma {
            requester,
            pasid: request.pasid,
            kind: DmaKind::Untranslated,
            addr: request.addr,
            access: request.access,
        };
        if !self.ecap.prs() {
            self.state().diagnostics.counters.page_requests_refused += 1;
            return (refuse(request, Response::Invalid), None);
        }
        // From the check to the queue: software that took the address space away and waited must not
        // find a request that was checked before.
        let session = self.sessions.enter();
        let checked = self
            .ram
            .view(|view| self.translator.page_request(view, &dma));
        if let Err(failure) = checked {
            drop(session);
            self.resume();
            self.state().diagnostics.counters.page_requests_refused += 1;
            let record = failure.cause.reason().0 != 0 && !failure.suppressed();
            self.fault(&dma, &failure, RequestType::PAGE, record);
            return (refuse(request, PAGE_REQUEST_ANSWER), None);
        }
        // Privilege and execution travel with a PASID; Linux refuses a request that has them.
        let with_pasid = Access::PRIV.union(Access::EXEC);
        let access = match request.pasid {
            Some(_) => request.access,
            None => request.access.difference(with_pasid),
        };
        let descriptor = Descriptor::Page {
            requester,
            message: PageMessage::Request(PageRequest { access, ..*request }),
        };
        // The lock is held while the descriptor is written, so that descriptors lie in the queue in
        // the order in which software sees the tail move, and a drain finds none half queued.
        let mut state = self.state();
        let State {
            regs, diagnostics, ..
        } = &mut *state;
        let counters = &mut diagnostics.counters;
        match regs.pages.room() {
            Room::At(at) => match self.ram.write(at, descriptor.encode().as_bytes()) {
                Ok(()) => {
                    counters.page_requests += 1;
                    (PageRequestOutcome::Queued, regs.pages.commit())
                }
                Err(_) => {
                    counters.page_requests_refused += 1;
                    (refuse(request, Response::Invalid), None)
                }
            },
            Room::Overflow(msi) => {
                counters.page_requests_lost += 1;
                // Success: the device asks again, by when there may be room.
                (refuse(request, Response::Success), msi)
            }
            Room::NoQueue => {
                counters.page_requests_refused += 1;
                (refuse(request, Response::Invalid), None)
            }
        }
    }
}
