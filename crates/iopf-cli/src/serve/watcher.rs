//! Listens to the unit: captures, log lines, the steps of page requests.

use super::captures::Captures;
use super::event::{Event, Events, Step};
use super::log::Log;
use super::machine::Unit;
use iommu_walk::vtd::Failure;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use viommu::Watch;
use viommu::arch::Interrupt;
use viommu::vtd::{Diagnostic, Notice};
use viommu_api::PageRequestOutcome;

/// What is done with what the unit says.
pub(super) struct Watcher {
    pub(super) events: Arc<Events>,
    pub(super) captures: Option<Captures>,
    pub(super) log: Option<Mutex<Log>>,
    pub(super) trace: bool,
    /// Set once the unit is there.
    pub(super) unit: OnceLock<Weak<Unit>>,
    pub(super) messages: AtomicU64,
}

impl Watcher {
    pub(super) fn log(&self) -> Option<MutexGuard<'_, Log>> {
        let log = self.log.as_ref()?;
        Some(log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fault(&self, fault: &Diagnostic) {
        if let Some(captures) = &self.captures
            && let Some(unit) = self.unit.get().and_then(Weak::upgrade)
            && let Some(event) = captures.take(&unit.walk_unit(), unit.ram(), fault)
        {
            self.events.say(event);
        }
        if let Some(mut log) = self.log() {
            let code = fault.failure.cause.reason().0;
            log.fault(self.events.elapsed(), &fault.dma, code, &self.events);
        }
    }

    /// Says a step of a page request, with the time it is now.
    pub(super) fn step(
        &self,
        step: &'static str,
        device: Option<String>,
        group: Option<u32>,
        note: String,
    ) {
        let nanos = self.events.elapsed().as_nanos();
        self.events.say(Event::Step(Step {
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
            step,
            device,
            group,
            note,
        }));
    }

    fn trace(&self, notice: Notice<'_>) {
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
                self.step(
                    step,
                    Some(requester.to_string()),
                    Some(request.group.0),
                    note,
                );
            }
            Notice::Interrupt(Interrupt::Message { addr, data }) => {
                let note = format!("{data:#x} written to {addr:#x}");
                self.step("interrupt message to the guest", None, None, note);
            }
            Notice::Interrupt(Interrupt::Vector(vector)) => {
                let note = format!("vector {vector}");
                self.step("interrupt message to the guest", None, None, note);
            }
            Notice::Tail => {
                let step = "the guest has moved the tail of its invalidation queue";
                self.step(step, None, None, String::new());
            }
            Notice::Response(response) => {
                let device = Some(response.requester.to_string());
                let note = format!("{:?}", response.response);
                self.step("group answered", device, Some(response.group.0), note);
            }
            Notice::Fault(fault) => {
                let dma = &fault.dma;
                let note = format!("{} at {}", dma.access, dma.addr);
                self.step("fault", Some(dma.requester.to_string()), None, note);
            }
        }
    }
}

impl Watch<Failure> for Watcher {
    fn notice(&self, notice: Notice<'_>) {
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
