//! What a unit does about its registers and its Command queue: where [`Effect`]s become action.

use super::commands::{Place, accept};
use super::config::Config;
use super::interrupt::Wire;
use super::record::{Record, fault_event};
use super::regs::{Effect, Flushed, Regs};
use super::{Caps, Smmuv3, Smmuv3Unit};
use crate::arch::{Arch, GroupAnswer, Interrupt, Parts, Queued, Ram, Recorded};
use crate::iotlb::{Scope, Span, Whose};
use crate::mem::GuestRam;
use crate::refused::Refused;
use crate::unit::{Next, State};
use iommu_walk::Completion;
use iommu_walk::smmuv3::{Detail, Failure, PAGE_REQUEST_ANSWER, Unit as Walk};
use iommu_wire::smmuv3::command::{
    Action, Addresses, AtcInvalidation, Command, PageResponse, RawCommand, Resume, Signal, Sync,
};
use iommu_wire::smmuv3::regs::{CommandError, Idr0, Idr1, Idr3, Idr5, WINDOW, offset};
use iopf::{Dma, DmaKind, Gpa, PageRequest, Pasid, Response, Rid};
use std::sync::MutexGuard;
use viommu_api::{Ending, Invalidation, Resume as How, StallTag, WiredSink};
use zerocopy::IntoBytes;

impl Arch for Smmuv3 {
    type Config = Config;
    type Refused = Refused;
    type Caps = Caps;
    type Regs = Regs;
    type Effect = Effect;
    type Record = Record;
    type Sink = dyn WiredSink;

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

    /// A message may be a word in memory that somebody waits for: Linux has CMD_SYNC write those.
    fn deliver<A: Ram>(sink: &Self::Sink, ram: &GuestRam<A>, interrupt: Interrupt) {
        match interrupt {
            Interrupt::Message { addr, data } => {
                if ram.store_half(Gpa(addr), data).is_err() {
                    sink.msi(addr, data);
                }
            }
            Interrupt::Wire(wire) => sink.pulse(wire),
            Interrupt::Vector(_) => {}
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

    const TAIL: u64 = offset::CMDQ_PROD;

    fn stopped(regs: &Regs) -> bool {
        regs.stopped()
    }

    fn reset(regs: &mut Regs, _: &Walk) -> Walk {
        regs.reset();
        regs.walk()
    }

    fn act<A: Ram>(unit: &Smmuv3Unit<A>, effect: Effect) {
        unit.act(effect);
    }

    fn step<A: Ram>(unit: &Smmuv3Unit<A>) -> Next {
        unit.step()
    }

    fn translation_requests(caps: &Caps) -> bool {
        caps.idr0.ats()
    }

    fn page_requests(caps: &Caps) -> bool {
        caps.idr0.pri()
    }

    fn recorded(failure: &Failure, kind: DmaKind) -> bool {
        failure.recorded(kind)
    }

    fn page_request_recorded(_: &Failure) -> bool {
        false
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

    #[inline]
    fn record_of(_: &Caps, dma: &Dma, failure: &Failure, _: Option<&PageRequest>) -> Record {
        Record {
            event: fault_event(dma, failure),
            stalls: failure.stalls(dma.kind),
        }
    }

    #[inline]
    fn record<A: Ram>(regs: &mut Regs, ram: &GuestRam<A>, record: Record, hold: bool) -> Recorded {
        regs.record(ram, &record, hold)
    }

    fn ending(failure: &Failure) -> Ending {
        if failure.detail.contains(Detail::IGNORED) {
            Ending::Ignored
        } else {
            Ending::Aborted
        }
    }

    fn release(regs: &mut Regs) -> Vec<(Rid, StallTag)> {
        regs.stalls.release(None)
    }

    fn queue<A: Ram>(
        regs: &mut Regs,
        ram: &GuestRam<A>,
        requester: Rid,
        request: &PageRequest,
    ) -> Queued {
        regs.page(ram, requester, request)
    }
}

impl<A> Smmuv3Unit<A> {
    /// SMMU_IDR0.
    #[must_use]
    pub const fn idr0(&self) -> Idr0 {
        self.caps.idr0
    }

    /// SMMU_IDR1.
    #[must_use]
    pub const fn idr1(&self) -> Idr1 {
        self.caps.idr1
    }

    /// SMMU_IDR3.
    #[must_use]
    pub const fn idr3(&self) -> Idr3 {
        self.caps.idr3
    }

    /// SMMU_IDR5.
    #[must_use]
    pub const fn idr5(&self) -> Idr5 {
        self.caps.idr5
    }
}

impl<A: Ram> Smmuv3Unit<A> {
    fn act(&self, effect: Effect) {
        if effect.configure {
            {
                // Under the lock, so that two writes take effect in their order.
                let state = self.state();
                self.translator.configure(state.regs.walk());
            }
            self.quiesce();
        }
        if effect.release {
            // No request is under way any more that could be held.
            let held = self.state().regs.stalls.release(None);
            self.let_all_go(held, How::Abort);
        }
        if effect.flush {
            self.flush();
        }
        if effect.drain {
            self.drain();
        }
    }

    /// Writes the records that wait for room.
    fn flush(&self) {
        let Flushed { due, retry } = self.state().regs.flush(&self.ram);
        for due in due {
            self.send(due);
        }
        self.let_all_go(retry, How::Retry);
    }

    fn let_all_go(&self, held: Vec<(Rid, StallTag)>, how: How) {
        for (stream, tag) in held {
            self.let_go(stream, tag, how);
        }
    }

    /// One command.
    fn step(&self) -> Next {
        let state = self.state();
        let Some(place) = state.regs.next() else {
            return self.rest(state);
        };
        let mut raw = RawCommand::default();
        if self.ram.read(place.at, raw.as_mut_bytes()).is_err() {
            return self.halt(state, CommandError::ABT);
        }
        let Some(command) = accept(&raw, &self.caps) else {
            return self.halt(state, CommandError::ILL);
        };
        drop(state);
        self.execute(place, &command)
    }

    /// An error stops the queue.
    fn halt(&self, mut state: MutexGuard<'_, State<Smmuv3>>, error: CommandError) -> Next {
        let due = state.regs.fail(error);
        state.diagnostics.counters.queue_errors += 1;
        let next = self.rest(state);
        self.send(due);
        next
    }

    /// Does what the command at `place` says.
    fn execute(&self, place: Place, command: &Command) -> Next {
        match *command {
            Command::Sync(sync) => return self.sync(place, &sync),
            Command::CfgiSte { stream, .. } => {
                self.translator
                    .forget_configuration(|cache| cache.forget_streams(stream, 0));
            }
            Command::CfgiSteRange { stream, range } => {
                self.translator
                    .forget_configuration(|cache| cache.forget_streams(stream, range + 1));
            }
            Command::CfgiCd {
                stream, substream, ..
            } => {
                self.translator
                    .forget_configuration(|cache| cache.forget_context(stream, substream));
            }
            Command::CfgiCdAll(stream) => {
                self.translator
                    .forget_configuration(|cache| cache.forget_contexts(stream));
            }
            Command::AtcInv(invalidation) => self.device_tlb(&invalidation),
            Command::PriResp(response) => self.page_response(&response),
            Command::Resume(resume) => self.resume_stalled(&resume),
            Command::StallTerm(stream) => {
                let held = self.state().regs.stalls.release(Some(stream));
                self.let_all_go(held, How::Abort);
            }
            _ => {
                // Nothing is prefetched.
                if let Some(scope) = scope(command, &self.caps) {
                    self.translator.forget(scope);
                }
            }
        }
        self.done(&mut self.state(), place);
        Next::Go
    }

    /// Moves on from the command at `place`, unless software has switched the queue meanwhile.
    fn done(&self, state: &mut State<Smmuv3>, place: Place) {
        if state.regs.commands.is_at(place) {
            state.regs.commands.advance();
        }
    }

    /// Has a device forget translations. Ignored while translation is off. Accepted are sizes up to 52.
    fn device_tlb(&self, invalidation: &AtcInvalidation) {
        if !self.state().regs.enabled() {
            return;
        }
        let what = Invalidation {
            pasid: invalidation.substream,
            global: invalidation.global,
            addr: invalidation.addr,
            size_shift: invalidation.size + 12,
        };
        if !self.invalidate_device(invalidation.stream, &what) {
            self.state().regs.miss_device();
        }
    }

    /// Hands the answer to a page group on. Ignored while translation is off.
    fn page_response(&self, response: &PageResponse) {
        if !self.state().regs.enabled() {
            return;
        }
        if let Some(code) = response.code.response() {
            self.respond(&GroupAnswer {
                requester: response.stream,
                pasid: response.substream,
                group: response.group,
                response: code,
            });
        }
    }

    /// Lets a stalled transaction go. One that is not there is not missed.
    fn resume_stalled(&self, resume: &Resume) {
        if !self.state().regs.stalls.resume(resume.stream, resume.tag) {
            return;
        }
        let how = match resume.action {
            Action::Retry => How::Retry,
            Action::Ignore if !self.caps.idr0.term_model() => How::Ignore,
            Action::Ignore | Action::Abort => How::Abort,
        };
        self.let_go(resume.stream, StallTag(resume.tag), how);
    }

    fn sync(&self, place: Place, sync: &Sync) -> Next {
        // Everything before is withdrawn already; now the accesses through it end.
        self.quiesce();
        let mut state = self.state();
        if !state.regs.commands.is_at(place) {
            // The queue was switched meanwhile, and whoever waited may use that memory for another end.
            return Next::Go;
        }
        if state.regs.missed_device() {
            return self.halt(state, CommandError::ATC_INV_SYNC);
        }
        state.regs.stalls.sync();
        self.done(&mut state, place);
        drop(state);
        if sync.signal == Signal::IRQ {
            let message = self.caps.idr0.msi() && sync.addr != Gpa(0);
            self.send(message.then_some(Interrupt::Message {
                addr: sync.addr.0,
                data: sync.data,
            }));
            let wire = self.caps.wires;
            self.send(wire.then_some(Interrupt::Wire(Wire::CMD_SYNC.0)));
        }
        Next::Go
    }
}

/// The translations that a command forgets, if it is one to forget any.
fn scope(command: &Command, caps: &Caps) -> Option<Scope> {
    // Without stage 2 every VMID is 0.
    let domain = |vmid| if caps.idr0.s2p() { vmid } else { 0 };
    let space = |asid: u16| Pasid::truncate(u32::from(asid));
    Some(match *command {
        Command::TlbiNhAll { vmid } => Scope::FirstStage(domain(vmid), Whose::All, Span::ALL),
        Command::TlbiNhAsid { vmid, asid } => {
            Scope::FirstStage(domain(vmid), Whose::Pasid(space(asid)), Span::ALL)
        }
        Command::TlbiNhVa {
            vmid,
            asid,
            addresses,
        } => Scope::FirstStage(
            domain(vmid),
            Whose::PasidAndGlobal(space(asid)),
            virtual_span(&addresses),
        ),
        Command::TlbiNhVaa { vmid, addresses } => {
            Scope::FirstStage(domain(vmid), Whose::All, virtual_span(&addresses))
        }
        Command::TlbiS12Vmall { vmid } => Scope::Domain(vmid),
        Command::TlbiS2Ipa { vmid, addresses } => Scope::SecondStage(vmid, span(&addresses)),
        Command::TlbiNsnhAll => Scope::Global,
        _ => return None,
    })
}

fn span(addresses: &Addresses) -> Span {
    Span {
        first: addresses.first,
        last: addresses.last(),
    }
}

/// What addresses of stage 1 cover: their top byte does not count, and is what it is without a tag.
fn virtual_span(addresses: &Addresses) -> Span {
    let canonical = |addr: u64| ((addr << 8).cast_signed() >> 8).cast_unsigned();
    let (first, last) = (addresses.first, addresses.last());
    if last - first >= 1 << 56 {
        return Span::ALL;
    }
    let (first, last) = (canonical(first), canonical(last));
    Span {
        first,
        // A span that goes beyond the last address ends there.
        last: if last < first { u64::MAX } else { last },
    }
}
