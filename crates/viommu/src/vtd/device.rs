//! The device: registers, memory, interrupts and endpoints put together.
//!
//! The only file that turns an [`Effect`] into action. Locks are never held across a call out:
//! messages are sent, endpoints called and sessions waited for with no lock held.

use super::commands::{Place, accept};
use super::config::{Config, Refused};
use super::diagnostics::{Counters, Diagnostic, Diagnostics};
use super::interrupt::Msi;
use super::regs::{Effect, Regs};
use super::translate::Translator;
use super::watch::{Notice, Watch, Watcher};
use crate::mem::GuestRam;
use crate::session::Sessions;
use iommu_walk::vtd::Unit;
use iommu_wire::vtd::command::{Command, DeviceTlb, GroupResponse, Range, RawCommand, Wait};
use iommu_wire::vtd::regs::{Cap, Ecap, QueueError, offset};
use iopf::{Pasid, Response, Rid};
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use viommu_api::{Endpoint, Invalidation, MsiSink, Registers};
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};
use zerocopy::{FromBytes, IntoBytes};

/// Descriptors that one register access works off at most; the next access goes on.
const BUDGET: u32 = 1 << 16;

/// What a unit is made of.
#[derive(Debug)]
pub struct Setup<A> {
    /// What it can do.
    pub config: Config,
    /// The guest's memory.
    pub ram: GuestRam<A>,
}

/// A remapping unit.
///
/// Any number of threads use it at once: virtual processors through [`Registers`], devices through
/// [`Translate`](viommu_api::Translate), [`Ats`](viommu_api::Ats) and [`Pri`](viommu_api::Pri).
pub struct VtdUnit<A> {
    pub(super) ram: GuestRam<A>,
    msi: Arc<dyn MsiSink>,
    pub(super) watcher: Watcher,
    endpoints: RwLock<HashMap<u16, Weak<dyn Endpoint>, FxBuildHasher>>,
    pub(super) sessions: Sessions,
    pub(super) translator: Translator,
    state: Mutex<State>,
    /// The invalidation queue has work that nobody is at.
    waiting: AtomicBool,
    cap: Cap,
    pub(super) ecap: Ecap,
}

impl<A> std::fmt::Debug for VtdUnit<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VtdUnit")
            .field("cap", &self.cap)
            .field("ecap", &self.ecap)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) regs: Regs,
    pub(super) diagnostics: Diagnostics,
    /// Some thread works off the invalidation queue.
    draining: bool,
    /// A device-TLB invalidation went to a function that is not there.
    unanswered: Option<u16>,
}

/// What to do after a step through the invalidation queue.
enum Next {
    Go,
    Stop,
}

impl<A> VtdUnit<A> {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a defect of ours; the registers are still registers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, msi: Option<Msi>) {
        if let Some(msi) = msi {
            self.msi.msi(msi.addr, msi.data);
            self.watcher.notice(msi.into());
        }
    }

    fn endpoint(&self, requester: Rid) -> Option<Arc<dyn Endpoint>> {
        let endpoints = self
            .endpoints
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        endpoints.get(&requester.0).and_then(Weak::upgrade)
    }

    /// Puts a function behind the unit: it hears the guest's device-TLB invalidations and page
    /// group responses for as long as it lives. One that was there before is replaced.
    pub fn attach(&self, requester: Rid, endpoint: Weak<dyn Endpoint>) {
        self.endpoints
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(requester.0, endpoint);
    }

    /// Takes a function away.
    pub fn detach(&self, requester: Rid) {
        self.endpoints
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&requester.0);
    }

    /// The guest's memory.
    #[must_use]
    pub const fn ram(&self) -> &GuestRam<A> {
        &self.ram
    }

    /// CAP_REG.
    #[must_use]
    pub const fn cap(&self) -> Cap {
        self.cap
    }

    /// ECAP_REG.
    #[must_use]
    pub const fn ecap(&self) -> Ecap {
        self.ecap
    }

    /// The unit as a walk sees it now: to explain a fault, or to write a capture.
    #[must_use]
    pub fn walk_unit(&self) -> Unit {
        self.translator.unit()
    }

    /// Exact counts since the unit was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state().diagnostics.counters
    }

    /// The last faults, oldest first, and forgets them. At most 256 are kept;
    /// [`Counters::forgotten`] says how many were not.
    #[must_use]
    pub fn take_diagnostics(&self) -> Vec<Diagnostic> {
        self.state().diagnostics.take()
    }
}

impl<A> VtdUnit<A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync,
{
    /// A unit as after power-on: translation off, interrupts masked.
    ///
    /// # Errors
    /// When the configuration asks for what the model does not do.
    pub fn new(setup: Setup<A>, msi: Arc<dyn MsiSink>) -> Result<Self, Refused> {
        let (cap, ecap) = setup.config.registers()?;
        Ok(Self {
            ram: setup.ram,
            msi,
            watcher: Watcher::default(),
            endpoints: RwLock::default(),
            sessions: Sessions::new(),
            translator: Translator::new(cap, ecap, &setup.config),
            state: Mutex::new(State {
                regs: Regs::new(cap, ecap),
                diagnostics: Diagnostics::new(),
                draining: false,
                unanswered: None,
            }),
            waiting: AtomicBool::new(false),
            cap,
            ecap,
        })
    }

    /// Has `watch` told of what happens from now on.
    #[must_use]
    pub fn watched(mut self, watch: Arc<dyn Watch>) -> Self {
        self.watcher = Watcher(Some(watch));
        self
    }

    /// Returns the unit to its state after power-on. Endpoints and counts stay.
    pub fn reset(&self) {
        let mut state = self.state();
        state.regs.reset();
        state.unanswered = None;
        let root = state.regs.root_in_force();
        self.translator.configure(root, false);
        drop(state);
        self.translator.forget_all();
        self.quiesce();
    }

    /// Waits for the accesses under way, which may use what was just invalidated.
    ///
    /// From inside a session, which only a device has, it returns at once: registers that a device
    /// writes in the middle of its own access are no register writes of the guest's.
    fn quiesce(&self) {
        let _ = self.sessions.quiesce();
    }

    fn act(&self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Send(msi) => self.send(Some(msi)),
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
                        self.translator.configure(root, on);
                        on
                    };
                    // A unit with scalable mode forgets everything when translation goes off.
                    let off = translation && !on && self.ecap.smts();
                    if root && self.cap.esrtps() || off {
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
                self.translator.forget_contexts(scope);
                self.quiesce();
                self.state().regs.contexts_forgotten();
            }
            Effect::ForgetTranslations(scope) => {
                self.translator.forget_translations(scope);
                self.quiesce();
                self.state().regs.translations_forgotten();
            }
        }
    }

    /// Works the invalidation queue off, unless another thread is at it: that one then does this
    /// one's work too.
    ///
    /// Not from inside a session: a thread cannot wait for itself, and an endpoint may hold there
    /// what its own invalidation needs. The end of the session comes back here.
    fn drain(&self) {
        if self.sessions.inside() {
            self.waiting.store(true, Ordering::SeqCst);
            return;
        }
        {
            let mut state = self.state();
            if state.draining {
                return;
            }
            state.draining = true;
        }
        for _ in 0..BUDGET {
            if let Next::Stop = self.step() {
                return;
            }
        }
        self.state().draining = false;
        self.waiting.store(true, Ordering::SeqCst);
    }

    /// Goes on with a queue that was left.
    #[inline]
    pub(super) fn resume(&self) {
        if self.waiting.load(Ordering::Relaxed) && self.waiting.swap(false, Ordering::SeqCst) {
            self.drain();
        }
    }

    /// One descriptor.
    fn step(&self) -> Next {
        let state = self.state();
        let mode = state.regs.mode();
        let next = if state.regs.events.queue_stopped() {
            Ok(None)
        } else {
            state.regs.queue.next(mode, self.ecap)
        };
        let fetch = match next {
            Ok(Some(fetch)) => fetch,
            Ok(None) => return self.rest(state, None),
            Err(error) => return self.rest(state, Some(error)),
        };
        let place = state.regs.queue.place();
        let mut raw = RawCommand::default();
        let bytes = raw.as_mut_bytes();
        let len = if fetch.wide { 32 } else { 16 };
        let fetched = bytes
            .get_mut(..len)
            .is_some_and(|bytes| self.ram.read(fetch.at, bytes).is_ok());
        if !fetched {
            return self.rest(state, Some(QueueError::FETCH));
        }
        let command = match accept(&raw, mode, self.cap, self.ecap) {
            Ok(command) => command,
            Err(error) => return self.rest(state, Some(error)),
        };
        drop(state);
        self.execute(place, &command)
    }

    /// The queue is empty, stopped, or at an error.
    fn rest(&self, mut state: MutexGuard<'_, State>, error: Option<QueueError>) -> Next {
        let late = state.unanswered.take();
        if error.is_some() || late.is_some() {
            state.diagnostics.counters.queue_errors += 1;
        }
        let events = &mut state.regs.events;
        let stop = error.and_then(|error| events.queue_error(error));
        // A device that does not answer is late whatever comes behind it in the queue.
        let late = late.and_then(|source| events.timeout(source));
        let msi = stop.or(late);
        state.draining = false;
        drop(state);
        self.send(msi);
        Next::Stop
    }

    /// Does what the descriptor at `place` says.
    fn execute(&self, place: Place, command: &Command) -> Next {
        match *command {
            Command::ContextCache(scope) => self.translator.forget_contexts(scope),
            Command::PasidCache(scope) => self.translator.forget_pasids(scope),
            Command::Iotlb { scope, .. } => self.translator.forget_translations(scope),
            Command::PasidIotlb {
                domain,
                pasid,
                pages,
            } => {
                let range = pages.map(|pages| pages.range);
                self.translator
                    .forget_pasid_translations(domain, pasid, range);
            }
            Command::DeviceTlb(tlb) => self.device_tlb(place, &tlb, None, false),
            Command::PasidDeviceTlb { tlb, pasid, global } => {
                self.device_tlb(place, &tlb, Some(pasid), global);
            }
            Command::GroupResponse(response) => self.respond(&response),
            Command::Wait(wait) => return self.wait(place, &wait),
            // Not accepted, so never here.
            Command::InterruptCache(_) | Command::StreamResponse { .. } | Command::Other(_) => {}
        }
        self.done(&mut self.state(), place);
        Next::Go
    }

    /// Moves on from the descriptor at `place`, unless software has reset the queue meanwhile.
    fn done(&self, state: &mut State, place: Place) {
        if state.regs.queue.place() == place {
            state.regs.queue.advance();
        }
    }

    fn device_tlb(&self, place: Place, tlb: &DeviceTlb, pasid: Option<Pasid>, global: bool) {
        let Some(endpoint) = self.endpoint(tlb.source) else {
            let mut state = self.state();
            // A queue that was reset meanwhile waits for nothing.
            if state.regs.queue.place() == place {
                state.unanswered.get_or_insert(tlb.source.0);
            }
            return;
        };
        let Range { addr, size_shift } = tlb.range;
        endpoint.invalidate(&Invalidation {
            pasid,
            global,
            addr,
            size_shift,
        });
    }

    fn respond(&self, response: &GroupResponse) {
        let endpoint = self.endpoint(response.requester);
        {
            let counters = &mut self.state().diagnostics.counters;
            match endpoint {
                Some(_) => counters.responses += 1,
                None => counters.responses_lost += 1,
            }
        }
        // Before the endpoint: what it does next is noticed on a thread of its own.
        self.watcher.notice(Notice::Response(response));
        if let Some(endpoint) = endpoint {
            endpoint.page_response(
                response.pasid,
                response.group,
                Response::from(response.code),
            );
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
        if let Some(source) = state.unanswered.take() {
            // The wait is over without having come true.
            self.done(&mut state, place);
            state.diagnostics.counters.queue_errors += 1;
            state.draining = false;
            let msi = state.regs.events.timeout(source);
            drop(state);
            self.send(msi);
            return Next::Stop;
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
        self.send(msi);
        Next::Go
    }
}

impl<A> Registers for VtdUnit<A>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync,
{
    fn size(&self) -> u64 {
        Regs::window(self.cap, self.ecap)
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        self.resume();
        let state = self.state();
        for (index, byte) in data.iter_mut().enumerate() {
            // Past the end of everything there is nothing.
            let at = offset.saturating_add(index as u64);
            let word = state.regs.read(at & !3).to_le_bytes();
            let lane = usize::from(at.to_le_bytes()[0] & 3);
            *byte = word.get(lane).copied().unwrap_or(0);
        }
    }

    /// Accesses that are not made of aligned 32-bit parts are ignored: hardware asks for those.
    fn write(&self, offset: u64, data: &[u8]) {
        self.resume();
        if !offset.is_multiple_of(4) || !data.len().is_multiple_of(4) {
            return;
        }
        for (index, part) in data.chunks_exact(4).enumerate() {
            let at = offset.checked_add(index as u64 * 4);
            let (Some(at), Ok(value)) = (at, u32::read_from_bytes(part)) else {
                return;
            };
            let effect = {
                let mut state = self.state();
                let stopped = state.regs.events.queue_stopped();
                let effect = state.regs.write(at, u32::from_le(value));
                let stops = !stopped && state.regs.events.queue_stopped();
                state.diagnostics.counters.queue_errors += u64::from(stops);
                effect
            };
            if at == offset::IQT {
                self.watcher.notice(Notice::Tail);
            }
            self.act(effect);
        }
    }
}

#[cfg(test)]
mod tests;
