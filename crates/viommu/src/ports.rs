//! What devices see of the unit: translation, ATS and PRI, and the faults that come of them.

use crate::arch::{self, Arch, Interrupt, Queued, Ram, Tables};
use crate::diagnostics::Diagnostic;
use crate::session::Session;
use crate::translate::Target;
use crate::unit::{State, Unit};
use crate::watch::Notice;
use iommu_walk::{Completion, Outcome};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, PageRequest, Response, Rid};
use viommu_api::{
    Ats, AtsCompletion, Blocked, Ending, Granted, PageRequestOutcome, Pri, StallTag, Translate,
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

/// What became of a fault that nobody has been told of yet. Small, since it leaves the session; the
/// failure stays where it lies.
#[must_use]
struct Recorded {
    /// The guest has a record of it.
    recorded: bool,
    /// It was a page request.
    page_request: bool,
    interrupt: Option<Interrupt>,
    end: Ending,
}

impl Recorded {
    const fn stalled(&self) -> Option<StallTag> {
        match self.end {
            Ending::Stalled(tag) => Some(tag),
            Ending::Aborted | Ending::Ignored => None,
        }
    }

    #[inline]
    const fn diagnostic<F: Copy>(&self, dma: &Dma, failure: &F) -> Diagnostic<F> {
        Diagnostic {
            dma: *dma,
            failure: *failure,
            recorded: self.recorded,
            page_request: self.page_request,
            stalled: self.stalled(),
        }
    }
}

impl<X: Arch, A: Ram> Unit<X, A> {
    /// Counts a fault, and records it where it is to be recorded.
    ///
    /// In the session that met it: software that takes the configuration away and waits must find no
    /// record of it afterwards, and no request held for it.
    fn fault(&self, dma: &Dma, failure: &X::Failure, what: Fault<'_>) -> Recorded {
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
                arch::Recorded::Yes(due) => {
                    counters.recorded += 1;
                    recorded = true;
                    interrupt = due;
                }
                arch::Recorded::Lost(due) => {
                    counters.lost += 1;
                    interrupt = due;
                }
                arch::Recorded::Repeated => counters.suppressed += 1,
                arch::Recorded::Stalled(tag, due) => {
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
        let told = Recorded {
            recorded,
            page_request: asked.is_some(),
            interrupt,
            end: match stalled {
                Some(tag) => Ending::Stalled(tag),
                None => X::ending(failure),
            },
        };
        diagnostics.push(told.diagnostic(dma, failure));
        told
    }

    /// `hold`: the request may be held.
    fn dma_fault(&self, dma: &Dma, failure: &X::Failure, hold: bool) -> Recorded {
        let what = Fault {
            asked: None,
            record: X::recorded(failure, dma.kind),
            hold,
        };
        self.fault(dma, failure, what)
    }

    /// Tells of a fault, outside of any session. Says what becomes of the request.
    fn tell_of(&self, dma: &Dma, failure: &X::Failure, recorded: &Recorded) -> Ending {
        self.watcher.fault(|| recorded.diagnostic(dma, failure));
        self.send(recorded.interrupt);
        recorded.end
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
        let recorded = self.recorded(dma, failed.as_ref());
        drop(session);
        self.resume();
        match part {
            Some(part) if part >= len => Ok(()),
            Some(part) => self.go_on(dma, part, len, each),
            None => Err(self.blocked(dma, failed.as_ref().zip(recorded.as_ref()))),
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
            let (mut failed, mut recorded) = (None, None);
            let part = self.sessions.run(|_| {
                let target = self.page(&piece, &mut failed);
                recorded = self.recorded(&piece, failed.as_ref());
                Some(visit::<X>(&piece, &target?, len - done, each))
            });
            self.resume();
            match part {
                Some(part) => done += part,
                None => {
                    let met = failed.as_ref().zip(recorded.as_ref());
                    return Err(self.blocked(&piece, met));
                }
            }
            if done >= len {
                return Ok(());
            }
        }
    }

    /// Records the fault of a request that the device makes, if it met one.
    #[inline]
    fn recorded(&self, dma: &Dma, failed: Option<&X::Failure>) -> Option<Recorded> {
        failed.map(|failure| self.dma_fault(dma, failure, true))
    }

    fn blocked(&self, dma: &Dma, met: Option<(&X::Failure, &Recorded)>) -> Blocked {
        Blocked {
            at: dma.addr,
            end: met.map_or(Ending::Aborted, |(failure, recorded)| {
                self.tell_of(dma, failure, recorded)
            }),
        }
    }

    /// Does with an access what the guest's tables say, short of making it, for an access that the
    /// host's own tables refused. A fault is recorded for the guest, and returned; where the guest's
    /// tables translate the access it is counted as vanished.
    pub fn tell(&self, dma: &Dma) -> Option<X::Failure> {
        let met = self.sessions.run(|_| {
            let mut failed = None;
            self.page(dma, &mut failed);
            failed.map(|failure| (failure, self.dma_fault(dma, &failure, false)))
        });
        self.resume();
        let Some((failure, recorded)) = met else {
            self.state().diagnostics.counters.vanished += 1;
            return None;
        };
        self.tell_of(dma, &failure, &recorded);
        Some(failure)
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
        let (answer, recorded) = self.sessions.run(|_| {
            let answer = self.ram.view(|view| self.translator.ats(view, &dma));
            // A missing right is no fault here: the device will ask for the page.
            let fault = answer.as_ref().err().filter(|failure| {
                X::completion(failure, dma.kind) != Completion::NoAccess
                    || X::recorded(failure, dma.kind)
            });
            let recorded = fault.map(|failure| self.dma_fault(&dma, failure, false));
            (answer, recorded)
        });
        self.resume();
        if let (Err(failure), Some(recorded)) = (&answer, &recorded) {
            self.tell_of(&dma, failure, recorded);
        }
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
            Err(failure) => match X::completion(&failure, dma.kind) {
                Completion::UnsupportedRequest => AtsCompletion::UnsupportedRequest,
                Completion::CompleterAbort => AtsCompletion::CompleterAbort,
                Completion::NoAccess => nothing,
            },
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
            self.state().diagnostics.counters.page_requests_refused += 1;
            let what = Fault {
                asked: Some(request),
                record: X::page_request_recorded(&failure),
                hold: false,
            };
            let recorded = self.fault(&dma, &failure, what);
            drop(session);
            self.resume();
            self.tell_of(&dma, &failure, &recorded);
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
