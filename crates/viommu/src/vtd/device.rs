//! What a unit does about its registers and its invalidation queue: where [`Effect`]s become action.

use super::commands::{Place, accept};
use super::config::Config;
use super::page_requests::Room;
use super::record::{fault_event, request_type};
use super::regs::{Effect, Regs};
use super::{Caps, Failure, Vtd, VtdUnit};
use crate::arch::{Arch, GroupAnswer, Interrupt, Parts, Queued, Ram, Recorded};
use crate::mem::GuestRam;
use crate::refused::Refused;
use crate::unit::{Next, State};
use iommu_walk::Completion;
use iommu_walk::vtd::{PAGE_REQUEST_ANSWER, Unit as Walk};
use iommu_wire::pcie::pri::PageMessage;
use iommu_wire::vtd::command::{Command, DeviceTlb, Range, RawCommand, Wait};
use iommu_wire::vtd::event::{RawFault, RequestType};
use iommu_wire::vtd::page_request::Descriptor;
use iommu_wire::vtd::regs::{Cap, Ecap, QueueError, offset};
use iopf::{Dma, DmaKind, PageRequest, Pasid, Response, Rid};
use std::sync::MutexGuard;
use viommu_api::{Invalidation, MsiSink};
use zerocopy::IntoBytes;

impl Arch for Vtd {
    type Config = Config;
    type Refused = Refused;
    type Caps = Caps;
    type Regs = Regs;
    type Effect = Effect;
    type Record = RawFault;
    type Sink = dyn MsiSink;

    fn parts(config: &Config) -> Result<Parts<Self>, Refused> {
        let (cap, ecap) = config.registers()?;
        let walk = Walk::new(cap.into_bits(), ecap.into_bits(), config.host_width);
        Ok(Parts {
            caps: Caps { cap, ecap },
            regs: Regs::new(cap, ecap),
            walk: walk.with_enabled(false),
            iotlb_entries: config.iotlb_entries,
        })
    }

    fn deliver<A: Ram>(sink: &Self::Sink, _: &GuestRam<A>, interrupt: Interrupt) {
        if let Interrupt::Message { addr, data } = interrupt {
            sink.msi(addr, data);
        }
    }

    fn window(caps: &Caps) -> u64 {
        Regs::window(caps.cap, caps.ecap)
    }

    fn read(regs: &Regs, at: u64) -> u32 {
        regs.read(at)
    }

    fn write(regs: &mut Regs, at: u64, value: u32) -> Effect {
        regs.write(at, value)
    }

    const TAIL: u64 = offset::IQT;

    fn stopped(regs: &Regs) -> bool {
        regs.events.queue_stopped()
    }

    fn reset(regs: &mut Regs, walk: &Walk) -> Walk {
        regs.reset();
        walk.with_rtaddr(regs.root_in_force().into_bits())
            .with_enabled(false)
    }

    fn act<A: Ram>(unit: &VtdUnit<A>, effect: Effect) {
        unit.act(effect);
    }

    fn step<A: Ram>(unit: &VtdUnit<A>) -> Next {
        unit.step()
    }

    fn translation_requests(caps: &Caps) -> bool {
        caps.ecap.dt()
    }

    fn page_requests(caps: &Caps) -> bool {
        caps.ecap.prs()
    }

    fn recorded(failure: &Failure, kind: DmaKind) -> bool {
        failure.recorded(kind)
    }

    fn page_request_recorded(failure: &Failure) -> bool {
        failure.cause.reason().0 != 0 && !failure.suppressed()
    }

    fn suppressed(failure: &Failure) -> bool {
        failure.suppressed()
    }

    fn completion(failure: &Failure, kind: DmaKind) -> Completion {
        failure.cause.completion(kind)
    }

    fn page_request_answer(_: &Failure) -> Response {
        PAGE_REQUEST_ANSWER
    }

    fn record_of(
        caps: &Caps,
        dma: &Dma,
        failure: &Failure,
        asked: Option<&PageRequest>,
    ) -> RawFault {
        let request = match asked {
            Some(_) => RequestType::PAGE,
            None => request_type(dma),
        };
        fault_event(dma, failure, request, caps.ecap).encode()
    }

    #[inline]
    fn record<A: Ram>(regs: &mut Regs, _: &GuestRam<A>, record: RawFault, _hold: bool) -> Recorded {
        regs.events.record(record)
    }

    fn queue<A: Ram>(
        regs: &mut Regs,
        ram: &GuestRam<A>,
        requester: Rid,
        request: &PageRequest,
    ) -> Queued {
        let descriptor = Descriptor::Page {
            requester,
            message: PageMessage::Request(*request),
        };
        match regs.pages.room() {
            Room::At(at) => match ram.write(at, descriptor.encode().as_bytes()) {
                Ok(()) => Queued::Yes(regs.pages.commit().map(Interrupt::from)),
                Err(_) => Queued::Refused(Some(Response::Invalid)),
            },
            Room::Overflow(msi) => Queued::Lost {
                // Success: the device asks again, by when there may be room.
                answer: Some(Response::Success),
                interrupt: msi.map(Interrupt::from),
            },
            Room::NoQueue => Queued::Refused(Some(Response::Invalid)),
        }
    }
}

impl<A> VtdUnit<A> {
    /// CAP_REG.
    #[must_use]
    pub const fn cap(&self) -> Cap {
        self.caps.cap
    }

    /// ECAP_REG.
    #[must_use]
    pub const fn ecap(&self) -> Ecap {
        self.caps.ecap
    }
}

impl<A: Ram> VtdUnit<A> {
    fn act(&self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Send(msi) => self.send(Some(msi.into())),
            Effect::Global {
                root,
                translation,
                queue,
            } => {
                if root || translation {
                    let on = {
                        // Under the lock, so that two writes take effect in their order.
                        let state = self.state();
                        let (root, on) = (state.regs.root_in_force(), state.regs.translating());
                        let walk = self.translator.walk().with_rtaddr(root.into_bits());
                        self.translator.configure(walk.with_enabled(on));
                        on
                    };
                    // A unit with scalable mode forgets everything when translation goes off.
                    let off = translation && !on && self.ecap().smts();
                    if root && self.cap().esrtps() || off {
                        self.translator.forget_all();
                    }
                    self.quiesce();
                }
                self.state().regs.commanded();
                if queue {
                    self.drain();
                }
            }
            Effect::Drain => self.drain(),
            Effect::ForgetContexts(scope) => {
                self.forget_contexts(scope);
                self.quiesce();
                self.state().regs.contexts_forgotten();
            }
            Effect::ForgetTranslations(scope) => {
                self.forget_translations(scope);
                self.quiesce();
                self.state().regs.translations_forgotten();
            }
        }
    }

    /// One descriptor.
    fn step(&self) -> Next {
        let state = self.state();
        let mode = state.regs.mode();
        let next = if state.regs.events.queue_stopped() {
            Ok(None)
        } else {
            state.regs.queue.next(mode, self.ecap())
        };
        let fetch = match next {
            Ok(Some(fetch)) => fetch,
            Ok(None) => return self.halt(state, None),
            Err(error) => return self.halt(state, Some(error)),
        };
        let place = state.regs.queue.place();
        let mut raw = RawCommand::default();
        let bytes = raw.as_mut_bytes();
        let len = if fetch.wide { 32 } else { 16 };
        let fetched = bytes
            .get_mut(..len)
            .is_some_and(|bytes| self.ram.read(fetch.at, bytes).is_ok());
        if !fetched {
            return self.halt(state, Some(QueueError::FETCH));
        }
        let command = match accept(&raw, mode, self.cap(), self.ecap()) {
            Ok(command) => command,
            Err(error) => return self.halt(state, Some(error)),
        };
        drop(state);
        self.execute(place, &command)
    }

    /// The queue is empty, stopped, or at an error.
    fn halt(&self, mut state: MutexGuard<'_, State<Vtd>>, error: Option<QueueError>) -> Next {
        let late = state.regs.unanswered.take();
        if error.is_some() || late.is_some() {
            state.diagnostics.counters.queue_errors += 1;
        }
        let events = &mut state.regs.events;
        let stop = error.and_then(|error| events.queue_error(error));
        // A device that does not answer is late whatever comes behind it in the queue.
        let late = late.and_then(|source| events.timeout(source));
        let msi = stop.or(late);
        let next = self.rest(state);
        self.send(msi.map(Interrupt::from));
        next
    }

    /// Does what the descriptor at `place` says.
    fn execute(&self, place: Place, command: &Command) -> Next {
        match *command {
            Command::ContextCache(scope) => self.forget_contexts(scope),
            Command::PasidCache(scope) => self.forget_pasids(scope),
            Command::Iotlb { scope, .. } => self.forget_translations(scope),
            Command::PasidIotlb {
                domain,
                pasid,
                pages,
            } => {
                let range = pages.map(|pages| pages.range);
                self.forget_pasid_translations(domain, pasid, range);
            }
            Command::DeviceTlb(tlb) => self.device_tlb(place, &tlb, None, false),
            Command::PasidDeviceTlb { tlb, pasid, global } => {
                self.device_tlb(place, &tlb, Some(pasid), global);
            }
            Command::GroupResponse(response) => self.respond(&GroupAnswer {
                requester: response.requester,
                pasid: response.pasid,
                group: response.group,
                response: Response::from(response.code),
            }),
            Command::Wait(wait) => return self.wait(place, &wait),
            // Not accepted, so never here.
            Command::InterruptCache(_) | Command::StreamResponse { .. } | Command::Other(_) => {}
        }
        self.done(&mut self.state(), place);
        Next::Go
    }

    /// Moves on from the descriptor at `place`, unless software has reset the queue meanwhile.
    fn done(&self, state: &mut State<Vtd>, place: Place) {
        if state.regs.queue.place() == place {
            state.regs.queue.advance();
        }
    }

    fn device_tlb(&self, place: Place, tlb: &DeviceTlb, pasid: Option<Pasid>, global: bool) {
        let Range { addr, size_shift } = tlb.range;
        let answered = self.invalidate_device(
            tlb.source,
            &Invalidation {
                pasid,
                global,
                addr,
                size_shift,
            },
        );
        if !answered {
            let mut state = self.state();
            // A queue that was reset meanwhile waits for nothing.
            if state.regs.queue.place() == place {
                state.regs.unanswered.get_or_insert(tlb.source.pci());
            }
        }
    }

    fn wait(&self, place: Place, wait: &Wait) -> Next {
        // Everything before is withdrawn already; now the accesses through it end.
        self.quiesce();
        // Page requests are queued, and their responses delivered, under the lock or before it was
        // taken here, so draining them takes nothing more.
        let mut state = self.state();
        if state.regs.queue.place() != place {
            // The queue was reset meanwhile, and whoever waited may use that memory for another end.
            return Next::Go;
        }
        if let Some(source) = state.regs.unanswered.take() {
            // The wait is over without having come true.
            self.done(&mut state, place);
            state.diagnostics.counters.queue_errors += 1;
            let msi = state.regs.events.timeout(source);
            let next = self.rest(state);
            self.send(msi.map(Interrupt::from));
            return next;
        }
        if let Some(status) = wait.status {
            // Nobody can be told of a status address without memory.
            let _ = self.ram.write(status.addr, &status.data.to_le_bytes());
        }
        self.done(&mut state, place);
        let msi = wait
            .interrupt
            .then(|| state.regs.queue.completed())
            .flatten();
        drop(state);
        self.send(msi.map(Interrupt::from));
        Next::Go
    }
}

#[cfg(test)]
mod tests;
