//! What a unit does about its registers and its command buffer: where [`Effect`]s become action.

use super::commands::{Place, accept};
use super::config::Config;
use super::log::Logged;
use super::record::{Record, fault_event};
use super::regs::{Effect, Regs, due};
use super::{Amdvi, AmdviUnit, Caps};
use crate::arch::{Arch, GroupAnswer, Interrupt, Parts, Queued, Ram, Recorded};
use crate::iotlb::{Pages, Scope};
use crate::mem::GuestRam;
use crate::refused::Refused;
use crate::unit::{Next, State};
use iommu_walk::Completion;
use iommu_walk::amdvi::{Failure, PAGE_REQUEST_ANSWER, Unit as Walk};
use iommu_wire::amdvi::command::{
    Command, CompletionWait, IommuPages, IotlbPages, Prefetch, RawCommand,
};
use iommu_wire::amdvi::event::{Event, HardwareError};
use iommu_wire::amdvi::ppr::Ppr;
use iommu_wire::amdvi::regs::{ExtendedFeatures, ExtendedFeatures2, WINDOW, offset};
use iommu_wire::pcie::pri::PageMessage;
use iopf::{Dma, DmaKind, PageRequest, Pasid, Response, Rid};
use std::sync::MutexGuard;
use viommu_api::{InterruptKind, Invalidation, IrqSink};
use zerocopy::IntoBytes;

impl Arch for Amdvi {
    type Config = Config;
    type Refused = Refused;
    type Caps = Caps;
    type Regs = Regs;
    type Effect = Effect;
    type Record = Record;
    type Sink = dyn IrqSink;

    fn parts(config: &Config) -> Result<Parts<Self>, Refused> {
        let caps = config.caps()?;
        let regs = Regs::new(caps);
        Ok(Parts {
            caps,
            walk: regs.walk(),
            regs,
            iotlb_entries: config.iotlb_entries,
        })
    }

    fn deliver<A: Ram>(sink: &Self::Sink, _: &GuestRam<A>, interrupt: Interrupt) {
        if let Interrupt::Vector(vector) = interrupt {
            sink.raise(InterruptKind::Msi, vector);
        }
    }

    fn window(_: &Caps) -> u64 {
        WINDOW
    }

    fn read(regs: &Regs, at: u64) -> u32 {
        regs.read(at)
    }

    fn write(regs: &mut Regs, at: u64, value: u32) -> Effect {
        regs.write(at, value)
    }

    const TAIL: u64 = offset::COMMAND_TAIL;

    fn stopped(regs: &Regs) -> bool {
        regs.commands.stopped()
    }

    fn reset(regs: &mut Regs, _: &Walk) -> Walk {
        regs.reset();
        regs.walk()
    }

    fn act<A: Ram>(unit: &AmdviUnit<A>, effect: Effect) {
        unit.act(effect);
    }

    fn step<A: Ram>(unit: &AmdviUnit<A>) -> Next {
        unit.step()
    }

    fn translation_requests(caps: &Caps) -> bool {
        caps.device_tlb
    }

    fn page_requests(caps: &Caps) -> bool {
        caps.features.ppr_sup()
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

    fn record_of(_: &Caps, dma: &Dma, failure: &Failure, asked: Option<&PageRequest>) -> Record {
        Record {
            event: fault_event(dma, failure, asked),
            once: failure.only_once(),
        }
    }

    #[inline]
    fn record<A: Ram>(regs: &mut Regs, ram: &GuestRam<A>, record: Record, _hold: bool) -> Recorded {
        regs.record(ram, &record)
    }

    /// A request that finds the log full, or overflowed, is dropped without an answer, unless the guest
    /// has automatic responses on (UNCONFIRMED). One that finds no log at all is answered *Invalid
    /// Request*, as on VT-d.
    fn queue<A: Ram>(
        regs: &mut Regs,
        ram: &GuestRam<A>,
        requester: Rid,
        request: &PageRequest,
    ) -> Queued {
        let answer = regs.auto_response().map(Response::from);
        let control = regs.control();
        if control.ppr_auto_rsp_aon() && answer.is_some() {
            return Queued::Refused(answer);
        }
        let entry = Ppr::PageServiceRequest {
            requester,
            message: PageMessage::Request(*request),
            malformed: false,
        }
        .encode();
        match regs.log_page(ram, [entry.head.get(), entry.address.get()]) {
            Logged::Yes(raise) => Queued::Yes(due(raise)),
            Logged::Overflow(raise) => Queued::Lost {
                answer,
                interrupt: due(raise),
            },
            Logged::Off if regs.page_log_overflowed() => Queued::Lost {
                answer,
                interrupt: None,
            },
            Logged::Off => Queued::Refused(answer.or(Some(Response::Invalid))),
        }
    }
}

impl<A> AmdviUnit<A> {
    /// IOMMU Extended Feature Register.
    #[must_use]
    pub const fn features(&self) -> ExtendedFeatures {
        self.caps.features
    }

    /// IOMMU Extended Feature 2 Register.
    #[must_use]
    pub const fn features2(&self) -> ExtendedFeatures2 {
        self.caps.features2
    }

    /// Whether devices may have TLBs: what IotlbSup of the PCI capability must say.
    #[must_use]
    pub const fn device_tlb(&self) -> bool {
        self.caps.device_tlb
    }
}

impl<A: Ram> AmdviUnit<A> {
    fn act(&self, effect: Effect) {
        if effect.configure {
            {
                // Under the lock, so that two writes take effect in their order.
                let state = self.state();
                self.translator.configure(state.regs.walk());
            }
            if effect.forget {
                self.translator.forget_all();
            }
            self.quiesce();
        }
        self.send(due(effect.raise));
        if effect.drain {
            self.drain();
        }
    }

    /// One command.
    fn step(&self) -> Next {
        let state = self.state();
        let Some(place) = state.regs.commands.next() else {
            return self.rest(state);
        };
        let mut raw = RawCommand::default();
        if self.ram.read(place.at, raw.as_mut_bytes()).is_err() {
            let error = HardwareError::MASTER_ABORT;
            return self.halt(
                state,
                &Event::CommandHardwareError {
                    error,
                    addr: place.at,
                },
            );
        }
        let Some(command) = accept(&raw, &self.caps) else {
            return self.halt(state, &Event::IllegalCommandError { addr: place.at });
        };
        drop(state);
        self.execute(place, &command)
    }

    /// An error stops the buffer.
    fn halt(&self, mut state: MutexGuard<'_, State<Amdvi>>, event: &Event) -> Next {
        state.regs.commands.stop();
        state.diagnostics.counters.queue_errors += 1;
        let recorded = state.regs.log(&self.ram, &event.encode());
        let next = self.rest(state);
        self.send(interrupt(recorded));
        next
    }

    /// Does what the command at `place` says.
    fn execute(&self, place: Place, command: &Command) -> Next {
        match *command {
            Command::CompletionWait(wait) => return self.wait(place, &wait),
            Command::InvalidateDevtabEntry(device) => {
                self.translator
                    .forget_configuration(|cache| cache.forget(device));
                self.state().regs.forget_told(Some(device));
            }
            Command::InvalidateIommuPages(pages) => self.translator.forget(scope(&pages)),
            Command::InvalidateIotlbPages(pages) => self.device_tlb_pages(place, &pages),
            Command::PrefetchIommuPages(Prefetch {
                invalidate: true, ..
            }) => {
                // Which domain the device is in would have to be looked up; more may always go.
                self.translator.forget(Scope::Global);
            }
            Command::CompletePprRequest(completion) => self.respond(&GroupAnswer {
                requester: completion.device,
                pasid: completion.pasid,
                group: completion.group,
                response: Response::from(completion.code),
            }),
            Command::InvalidateIommuAll => {
                self.translator.forget_all();
                self.state().regs.forget_told(None);
            }
            // No interrupt is remapped, and nothing is prefetched. The last is not accepted.
            Command::InvalidateInterruptTable(_)
            | Command::PrefetchIommuPages(_)
            | Command::Other(_) => {}
        }
        self.done(&mut self.state(), place);
        Next::Go
    }

    /// Moves on from the command at `place`, unless software has switched the buffer meanwhile.
    fn done(&self, state: &mut State<Amdvi>, place: Place) {
        if state.regs.commands.is_at(place) {
            state.regs.commands.advance();
        }
    }

    /// Has a device forget translations. Where there is no such device, the guest's time-out runs out at
    /// once; without one, nobody is waited for.
    ///
    /// What names PASID 0 is for requests without a PASID as well: with GIoV they are those of PASID 0, and
    /// Linux names nothing else (`__domain_flush_pages`).
    fn device_tlb_pages(&self, place: Place, pages: &IotlbPages) {
        let what = Invalidation {
            pasid: pages.pasid,
            global: false,
            addr: pages.range.addr,
            size_shift: pages.range.size_shift,
        };
        let answered = self.invalidate_device(pages.device, &what);
        if answered && pages.pasid == Some(Pasid::default()) {
            let pasid = None;
            self.invalidate_device(pages.device, &Invalidation { pasid, ..what });
        }
        if answered {
            return;
        }
        let mut state = self.state();
        // A buffer that was switched meanwhile waits for nothing.
        if !state.regs.commands.is_at(place) || state.regs.control().inv_timeout() == 0 {
            return;
        }
        let event = Event::IotlbInvTimeout {
            source: pages.device,
            addr: place.at,
        };
        let recorded = state.regs.log(&self.ram, &event.encode());
        drop(state);
        self.send(interrupt(recorded));
    }

    fn wait(&self, place: Place, wait: &CompletionWait) -> Next {
        // Everything before is withdrawn already; now the accesses through it end.
        self.quiesce();
        let mut state = self.state();
        if !state.regs.commands.is_at(place) {
            // The buffer was switched meanwhile, and whoever waited may use that memory for another end.
            return Next::Go;
        }
        if let Some(store) = wait.store
            && self
                .ram
                .write(store.addr, &store.data.to_le_bytes())
                .is_err()
        {
            let error = HardwareError::MASTER_ABORT;
            let addr = store.addr;
            return self.halt(state, &Event::CommandHardwareError { error, addr });
        }
        self.done(&mut state, place);
        let raise = wait.interrupt && state.regs.completed();
        drop(state);
        self.send(due(raise));
        Next::Go
    }
}

/// The interrupt that comes with an event.
const fn interrupt(recorded: Recorded) -> Option<Interrupt> {
    match recorded {
        Recorded::Yes(interrupt) | Recorded::Lost(interrupt) | Recorded::Stalled(_, interrupt) => {
            interrupt
        }
        Recorded::Repeated => None,
    }
}

/// What an INVALIDATE_IOMMU_PAGES covers. PDE asks for nothing more: no directory entry is cached.
fn scope(of: &IommuPages) -> Scope {
    let pages = Pages {
        addr: of.range.addr,
        size_shift: of.range.size_shift,
    };
    match of.pasid {
        Some(pasid) => Scope::PasidPages(of.domain, pasid, pages),
        None if of.range.size_shift >= 64 => Scope::Domain(of.domain),
        None => Scope::DomainPages(of.domain, pages),
    }
}
