//! Listens to the unit: captures, log lines, the steps of page requests.

use super::arch::{Serve, Unit};
use super::captures::Captures;
use super::event::Events;
use super::log::Log;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use viommu::arch::Interrupt;
use viommu::{Diagnostic, Notice, Watch};
use viommu_api::{PageRequestOutcome, StallTag};

/// What is done with what the unit says.
pub(super) struct Watcher<X: Serve> {
    pub(super) events: Arc<Events>,
    pub(super) captures: Option<Captures<X>>,
    pub(super) log: Option<Mutex<Log>>,
    pub(super) trace: bool,
    /// Set once the unit is there.
    pub(super) unit: OnceLock<Weak<Unit<X>>>,
    pub(super) messages: AtomicU64,
}

impl<X: Serve> Watcher<X> {
    pub(super) fn log(&self) -> Option<MutexGuard<'_, Log>> {
        let log = self.log.as_ref()?;
        Some(log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fault(&self, fault: &Diagnostic<X::Failure>) {
        if let Some(captures) = &self.captures
            && let Some(unit) = self.unit.get().and_then(Weak::upgrade)
            && let Some(event) = captures.take(&unit.walk_unit(), unit.ram(), fault)
        {
            self.events.say(event);
        }
        if let Some(mut log) = self.log() {
            let code = X::reason(&fault.failure).code;
            log.fault(self.events.elapsed(), &fault.dma, code, &self.events);
        }
    }

    fn trace(&self, notice: Notice<'_, X::Failure>) {
        let events = &self.events;
        match notice {
            Notice::PageRequest {
                requester,
                request,
                outcome,
            } => {
                let step = match outcome {
                    PageRequestOutcome::Queued => "page request queued for the guest",
                    PageRequestOutcome::Answered(_) => "page request answered by the unit",
                    PageRequestOutcome::Dropped => "page request dropped",
                };
                let mut note = format!("{} at {}", request.access, request.addr);
                if let Some(pasid) = request.pasid {
                    note += &format!(", pasid {pasid}");
                }
                if request.last {
                    note += ", last of its group";
                }
                events.step(
                    step,
                    Some(requester.to_string()),
                    Some(request.group.0),
                    note,
                );
            }
            Notice::Interrupt(Interrupt::Message { addr, data }) => {
                let note = format!("{data:#x} written to {addr:#x}");
                events.step("interrupt message to the guest", None, None, note);
            }
            Notice::Interrupt(Interrupt::Vector(vector)) => {
                let note = format!("vector {vector}");
                events.step("interrupt message to the guest", None, None, note);
            }
            Notice::Interrupt(Interrupt::Wire(wire)) => {
                let note = format!("wire {wire}");
                events.step("interrupt to the guest", None, None, note);
            }
            Notice::Tail => {
                let step = "the guest has moved the tail of its command queue";
                events.step(step, None, None, X::NAMES.queue.to_owned());
            }
            Notice::Response(response) => {
                let device = Some(response.requester.to_string());
                let note = format!("{:?}", response.response);
                events.step("group answered", device, Some(response.group.0), note);
            }
            Notice::Fault(fault) => {
                let dma = &fault.dma;
                let mut note = format!("{} at {}", dma.access, dma.addr);
                if let Some(StallTag(tag)) = fault.stalled {
                    note += &format!(", held as {tag}");
                }
                events.step("fault", Some(dma.requester.to_string()), None, note);
            }
            Notice::Resume {
                requester,
                tag: StallTag(tag),
                how,
            } => {
                let note = format!("{tag}: {how:?}");
                events.step(
                    "held request let go",
                    Some(requester.to_string()),
                    None,
                    note,
                );
            }
        }
    }
}

impl<X: Serve> Watch<X::Failure> for Watcher<X> {
    fn notice(&self, notice: Notice<'_, X::Failure>) {
        if let Notice::Interrupt(_) = notice {
            self.messages.fetch_add(1, Ordering::Relaxed);
        }
        if let Notice::Fault(fault) = notice {
            self.fault(fault);
        }
        if self.trace {
            self.trace(notice);
        }
    }
}
