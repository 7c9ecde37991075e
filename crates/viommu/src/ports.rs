//! What devices see of the unit: translation, ATS and PRI, and the faults that come of them.

use crate::arch::{Arch, Interrupt, Queued, Ram, Recorded, Tables};
use crate::diagnostics::Diagnostic;
use crate::session::Session;
use crate::translate::Target;
use crate::unit::{State, Unit};
use crate::watch::Notice;
use iommu_walk::{Completion, Outcome};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, PageRequest, Response, Rid};
use viommu_api::{
    Ats, AtsCompletion, Blocked, Ending, Granted, PageRequestOutcome, Pri, Translate,
};

/// What a fault is one of.
struct Fault<'a> {
    /// The page request, if it is one.
    asked: Option<&'a PageRequest>,
    /// It is to be recorded.
    record: bool,
    /// The request may be held.
    hold: bool,
}

impl<X: Arch, A: Ram> Unit<X, A> {
    /// Counts a fault, and records it where it is to be recorded. Says what becomes of the request.
    fn fault(&self, dma: &Dma, failure: &X::Failure, what: Fault<'_>) -> Ending {
        let Fault {
            asked,
            record,
            hold,
        } = what;
        let record = record.then(|| X::record_of(&self.caps, dma, failure, asked));
        let mut state = self.state();
        let State {
            regs, diagnostics, ..
        } = &mut *state;
        let counters = &mut diagnostics.counters;
        counters.faults += 1;
        let mut interrupt = None;
        let mut recorded = false;
        let mut stalled = None;
        if let Some(record) = record {
            match X::record(regs, &self.ram, record, hold) {
                Recorded::Yes(due) => {
                    counters.recorded += 1;
                    recorded = true;
                    interrupt = due;
                }
                Recorded::Lost(due) => {
                    counters.lost += 1;
                    interrupt = due;
                }
                Recorded::Repeated => counters.suppressed += 1,
                Recorded::Stalled(tag, due) => {
                    counters.recorded += 1;
                    counters.stalled += 1;
                    recorded = true;
                    stalled = Some(tag);
                    interrupt = due;
                }
            }
        } else if X::suppressed(failure) {
            counters.suppressed += 1;
        }
        let diagnostic = Diagnostic {
            dma: *dma,
            failure: *failure,
            recorded,
            page_request: asked.is_some(),
            stalled,
        };
        diagnostics.push(diagnostic);
        drop(state);
        self.watcher.notice(Notice::Fault(&diagnostic));
        self.send(interrupt);
        match stalled {
            Some(tag) => Ending::Stalled(tag),
            None => X::ending(failure),
        }
    }

    /// `hold`: the request may be held.
    fn dma_fault(&self, dma: &Dma, failure: &X::Failure, hold: bool) -> Ending {
        let what = Fault {
            asked: None,
            record: X::recorded(failure, dma.kind),
            hold,
        };
        self.fault(dma, failure, what)
    }

    /// Looks a page up, and walks where it is not cached. Inside a session.
    fn page(&self, dma: &Dma, failed: &mut Option<X::Failure>) -> Option<Target> {
        let aimed = self.translator.aim(dma);
        match aimed.and_then(|aimed| self.translator.hit(&aimed)) {
            Some(hit) => Some(Target::of(hit, dma.addr)),
            None => self.walked(dma, failed),
        }
    }

    /// As [`Translator::miss`](crate::translate::Translator::miss).
    #[inline]
    fn walked(&self, dma: &Dma, failed: &mut Option<X::Failure>) -> Option<Target> {
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
            .map(|target| visit::<X>(dma, &target, len, each));
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
                return Err(Blocked::aborted(Iova(u64::MAX)));
            };
            let piece = Dma { addr, ..*dma };
            let mut failed = None;
            let part = self.sessions.run(|_| {
                let target = self.page(&piece, &mut failed)?;
                Some(visit::<X>(&piece, &target, len - done, each))
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

    fn blocked(&self, dma: &Dma, failed: Option<&X::Failure>) -> Blocked {
        let end = failed.map_or(Ending::Aborted, |failure| {
            self.dma_fault(dma, failure, true)
        });
        Blocked { at: dma.addr, end }
    }

    /// Does with an access what the guest's tables say, short of making it, for an access that the
    /// host's own tables refused. A fault is recorded for the guest, and returned; where the guest's
    /// tables translate the access it is counted as vanished.
    pub fn tell(&self, dma: &Dma) -> Option<X::Failure> {
        let mut failed = None;
        self.sessions.run(|_| self.page(dma, &mut failed));
        self.resume();
        match &failed {
            None => self.state().diagnostics.counters.vanished += 1,
            Some(failure) => {
                self.dma_fault(dma, failure, false);
            }
        }
        failed
    }
}

/// A request that is not queued: the last of its group is answered, a stop marker never.
fn refuse(request: &PageRequest, response: Option<Response>) -> PageRequestOutcome {
    match response {
        Some(response) if request.last && request.access.intersects(Access::RW) => {
            PageRequestOutcome::Answered(response)
        }
        _ => PageRequestOutcome::Dropped,
    }
}

impl<X: Arch, A: Ram> Translate for Unit<X, A> {
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
        let part = visit::<X>(dma, &Target::of(hit, dma.addr), len, each);
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
fn visit<X: Tables>(
    piece: &Dma,
    target: &Target,
    left: u64,
    each: &mut dyn FnMut(Gpa, u64),
) -> u64 {
    let part = target.part::<X>(piece.addr, left);
    if part > 0 {
        each(target.pa, part);
    }
    part
}

impl<X: Arch, A: Ram> Ats for Unit<X, A> {
    fn translation_request(&self, dma: &Dma) -> AtsCompletion {
        if !X::translation_requests(&self.caps) {
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
                let completion = X::completion(&failure, dma.kind);
                // A missing right is no fault here: the device will ask for the page.
                if completion != Completion::NoAccess || X::recorded(&failure, dma.kind) {
                    self.dma_fault(&dma, &failure, false);
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

impl<X: Arch, A: Ram> Pri for Unit<X, A> {
    fn page_request(&self, requester: Rid, request: &PageRequest) -> PageRequestOutcome {
        let (outcome, interrupt) = self.take_page_request(requester, request);
        if let PageRequestOutcome::Answered(_) = outcome {
            self.state().diagnostics.counters.page_requests_answered += 1;
        }
        self.watcher.notice(Notice::PageRequest {
            requester,
            request,
            outcome,
        });
        self.send(interrupt);
        self.resume();
        outcome
    }
}

impl<X: Arch, A: Ram> Unit<X, A> {
    /// What becomes of a page request, and the interrupt that is due.
    fn take_page_request(
        &self,
        requester: Rid,
        request: &PageRequest,
    ) -> (PageRequestOutcome, Option<Interrupt>) {
        let dma = Dma {
            requester,
            pasid: request.pasid,
            kind: DmaKind::Untranslated,
            addr: request.addr,
            access: request.access,
        };
        if !X::page_requests(&self.caps) {
            self.state().diagnostics.counters.page_requests_refused += 1;
            return (refuse(request, Some(Response::Invalid)), None);
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
            let what = Fault {
                asked: Some(request),
                record: X::page_request_recorded(&failure),
                hold: false,
            };
            self.fault(&dma, &failure, what);
            let answer = X::page_request_answer(&failure);
            return (refuse(request, Some(answer)), None);
        }
        // Privilege and execution travel with a PASID; Linux refuses a request that has them.
        let with_pasid = Access::PRIV.union(Access::EXEC);
        let access = match request.pasid {
            Some(_) => request.access,
            None => request.access.difference(with_pasid),
        };
        let asked = PageRequest { access, ..*request };
        // The lock is held while the request is written, so that requests lie in the queue in
        // the order in which software sees the tail move, and a drain finds none half queued.
        let mut state = self.state();
        let State {
            regs, diagnostics, ..
        } = &mut *state;
        let counters = &mut diagnostics.counters;
        match X::queue(regs, &self.ram, requester, &asked) {
            Queued::Yes(due) => {
                counters.page_requests += 1;
                (PageRequestOutcome::Queued, due)
            }
            Queued::Lost { answer, interrupt } => {
                counters.page_requests_lost += 1;
                (refuse(request, answer), interrupt)
            }
            Queued::Refused(answer) => {
                counters.page_requests_refused += 1;
                (refuse(request, answer), None)
            }
        }
    }
}
