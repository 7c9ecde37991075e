//! The device: registers, memory, interrupts and endpoints put together, for any architecture.
//!
//! Locks are never held across a call out: interrupts are raised, endpoints called and sessions waited
//! for with no lock held. What an architecture does about a register write, and with a command of its
//! queue, is its own ([`Arch::act`], [`Arch::step`]).

use crate::arch::{Arch, GroupAnswer, Interrupt, Parts, Ram};
use crate::diagnostics::{Counters, Diagnostic, Diagnostics};
use crate::mem::GuestRam;
use crate::session::Sessions;
use crate::translate::Translator;
use crate::watch::{Notice, Watch, Watcher};
use iopf::Rid;
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use viommu_api::{Endpoint, Invalidation, Registers, Resume, StallTag};
use zerocopy::FromBytes;

/// Commands that one register access works off at most, and as many again for each that leaves its own to
/// it: more than a queue holds, so that what nobody adds to is worked off to its end.
const BUDGET: u32 = 1 << 16;

/// What a unit is made of.
#[derive(Debug)]
pub struct Setup<X: Arch, A> {
    /// What it can do.
    pub config: X::Config,
    /// The guest's memory.
    pub ram: GuestRam<A>,
}

/// A virtual IOMMU.
///
/// Any number of threads use it at once: virtual processors through [`Registers`], devices through
/// [`Translate`](viommu_api::Translate), [`Ats`](viommu_api::Ats) and [`Pri`](viommu_api::Pri).
pub struct Unit<X: Arch, A> {
    pub(crate) ram: GuestRam<A>,
    sink: Arc<X::Sink>,
    pub(crate) watcher: Watcher<X::Failure>,
    endpoints: RwLock<HashMap<Rid, Weak<dyn Endpoint>, FxBuildHasher>>,
    pub(crate) sessions: Sessions,
    pub(crate) translator: Translator<X>,
    state: Mutex<State<X>>,
    /// The command queue has work that nobody is at.
    waiting: AtomicBool,
    pub(crate) caps: X::Caps,
}

impl<X: Arch, A> std::fmt::Debug for Unit<X, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unit")
            .field("caps", &self.caps)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

/// What the register lock guards.
#[derive(Debug)]
pub(crate) struct State<X: Arch> {
    pub(crate) regs: X::Regs,
    pub(crate) diagnostics: Diagnostics<X::Failure>,
    /// Some thread works off the command queue.
    draining: bool,
    /// Another has left its commands to that thread since it last looked.
    left: bool,
}

/// What to do after a step through the command queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There may be more.
    Go,
    /// It is empty, or stands still: the device was told so.
    Stop,
}

impl<X: Arch, A> Unit<X, A> {
    pub(crate) fn state(&self) -> MutexGuard<'_, State<X>> {
        // A panic under the lock is a defect of ours; the registers are still registers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn endpoint(&self, requester: Rid) -> Option<Arc<dyn Endpoint>> {
        let endpoints = self
            .endpoints
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        endpoints.get(&requester).and_then(Weak::upgrade)
    }

    /// Puts a function behind the unit: it hears the guest's device-TLB invalidations and page
    /// group responses for as long as it lives. One that was there before is replaced.
    pub fn attach(&self, requester: Rid, endpoint: Weak<dyn Endpoint>) {
        self.endpoints
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(requester, endpoint);
    }

    /// Takes a function away.
    pub fn detach(&self, requester: Rid) {
        self.endpoints
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&requester);
    }

    /// The guest's memory.
    #[must_use]
    pub const fn ram(&self) -> &GuestRam<A> {
        &self.ram
    }

    /// The unit as a walk sees it now: to explain a fault, or to write a capture.
    #[must_use]
    pub fn walk_unit(&self) -> X::Walk {
        self.translator.walk()
    }

    /// Exact counts since the unit was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state().diagnostics.counters
    }

    /// The last faults, oldest first, and forgets them. At most 256 are kept;
    /// [`Counters::forgotten`] says how many were not.
    #[must_use]
    pub fn take_diagnostics(&self) -> Vec<Diagnostic<X::Failure>> {
        self.state().diagnostics.take()
    }

    /// Waits for the accesses under way, which may use what was just invalidated.
    ///
    /// From inside a session, which only a device has, it returns at once: registers that a device
    /// writes in the middle of its own access are no register writes of the guest's.
    pub(crate) fn quiesce(&self) {
        let _ = self.sessions.quiesce();
    }

    /// The command queue is left alone until somebody calls [`Self::drain`].
    pub(crate) fn rest(&self, mut state: MutexGuard<'_, State<X>>) -> Next {
        state.draining = false;
        Next::Stop
    }

    /// Has a function forget translations. `false`: there is no such function.
    pub(crate) fn invalidate_device(&self, requester: Rid, what: &Invalidation) -> bool {
        let endpoint = self.endpoint(requester);
        if let Some(endpoint) = &endpoint {
            endpoint.invalidate(what);
        }
        endpoint.is_some()
    }

    /// Hands the guest's answer to a page group on.
    pub(crate) fn respond(&self, answer: &GroupAnswer) {
        let endpoint = self.endpoint(answer.requester);
        {
            let counters = &mut self.state().diagnostics.counters;
            match endpoint {
                Some(_) => counters.responses += 1,
                None => counters.responses_lost += 1,
            }
        }
        // Before the endpoint: what it does next is noticed on a thread of its own.
        self.watcher.notice(Notice::Response(answer));
        if let Some(endpoint) = endpoint {
            endpoint.page_response(answer.pasid, answer.group, answer.response);
        }
    }
}

impl<X: Arch, A> Unit<X, A> {
    /// Lets a held request go.
    pub(crate) fn let_go(&self, requester: Rid, tag: StallTag, how: Resume) {
        let endpoint = self.endpoint(requester);
        {
            let counters = &mut self.state().diagnostics.counters;
            match endpoint {
                Some(_) => counters.resumed += 1,
                None => counters.resumed_lost += 1,
            }
        }
        // As for a response.
        self.watcher.notice(Notice::Resume {
            requester,
            tag,
            how,
        });
        if let Some(endpoint) = endpoint {
            endpoint.resume(tag, how);
        }
    }
}

impl<X: Arch, A: Ram> Unit<X, A> {
    /// A unit as after power-on: translation off, interrupts masked.
    ///
    /// # Errors
    /// When the configuration asks for what the model does not do.
    pub fn new(setup: Setup<X, A>, sink: Arc<X::Sink>) -> Result<Self, X::Refused> {
        let Parts {
            caps,
            regs,
            walk,
            iotlb_entries,
        } = X::parts(&setup.config)?;
        Ok(Self {
            ram: setup.ram,
            sink,
            watcher: Watcher::default(),
            endpoints: RwLock::default(),
            sessions: Sessions::new(),
            translator: Translator::new(walk, iotlb_entries),
            state: Mutex::new(State {
                regs,
                diagnostics: Diagnostics::new(),
                draining: false,
                left: false,
            }),
            waiting: AtomicBool::new(false),
            caps,
        })
    }

    /// Has `watch` told of what happens from now on.
    #[must_use]
    pub fn watched(mut self, watch: Arc<dyn Watch<X::Failure>>) -> Self {
        self.watcher = Watcher(Some(watch));
        self
    }

    pub(crate) fn send(&self, interrupt: Option<Interrupt>) {
        if let Some(interrupt) = interrupt {
            X::deliver(&self.sink, &self.ram, interrupt);
            self.watcher.notice(Notice::Interrupt(interrupt));
        }
    }

    /// Returns the unit to its state after power-on. Endpoints and counts stay.
    pub fn reset(&self) {
        let mut state = self.state();
        let mut held = X::release(&mut state.regs);
        let walk = X::reset(&mut state.regs, &self.translator.walk());
        self.translator.configure(walk);
        drop(state);
        self.translator.forget_all();
        self.quiesce();
        // What was under way may have been held since.
        held.append(&mut X::release(&mut self.state().regs));
        for (requester, tag) in held {
            self.let_go(requester, tag, Resume::Abort);
        }
    }

    /// Works the command queue off, unless another thread is at it: that one then does this one's
    /// work too.
    ///
    /// Not from inside a session: a thread cannot wait for itself, and an endpoint may hold there
    /// what its own invalidation needs. The end of the session comes back here.
    pub(crate) fn drain(&self) {
        if self.sessions.inside() {
            self.waiting.store(true, Ordering::SeqCst);
            return;
        }
        {
            let mut state = self.state();
            if state.draining {
                state.left = true;
                return;
            }
            state.draining = true;
        }
        loop {
            self.state().left = false;
            for _ in 0..BUDGET {
                if let Next::Stop = X::step(self) {
                    return;
                }
            }
            let mut state = self.state();
            // Whoever left its commands here may wait for a word in memory, and touch no register again.
            if !state.left {
                state.draining = false;
                break;
            }
        }
        self.waiting.store(true, Ordering::SeqCst);
    }

    /// Goes on with a queue that was left.
    #[inline]
    pub(crate) fn resume(&self) {
        if self.waiting.load(Ordering::Relaxed) && self.waiting.swap(false, Ordering::SeqCst) {
            self.drain();
        }
    }
}

impl<X: Arch, A: Ram> Registers for Unit<X, A> {
    fn size(&self) -> u64 {
        X::window(&self.caps)
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        self.resume();
        let state = self.state();
        for (index, byte) in data.iter_mut().enumerate() {
            // Past the end of everything there is nothing.
            let at = offset.saturating_add(index as u64);
            let word = X::read(&state.regs, at & !3).to_le_bytes();
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
                let stopped = X::stopped(&state.regs);
                let effect = X::write(&mut state.regs, at, u32::from_le(value));
                let stops = !stopped && X::stopped(&state.regs);
                state.diagnostics.counters.queue_errors += u64::from(stops);
                effect
            };
            if at == X::TAIL {
                self.watcher.notice(Notice::Tail);
            }
            X::act(self, effect);
        }
    }
}
