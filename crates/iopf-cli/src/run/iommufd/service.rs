//! The pump with its devices, and what it comes to.

use super::attach::{Attached, Made, check, make};
use super::event::{Event, Events};
use super::look::Looker;
use super::memory::{Memory, OnDemand};
use super::plan::{Plan, Resolver as Choice};
use super::report::{Report, Row};
use super::watch::{Watch, Watched, nanos};
use crate::exit::Stop;
use crate::step::Hex;
use iopf::Engine;
use iopf::engine::{
    Attachment, Counts, DeviceConfig, DeviceId, DomainId, Group, Pages, Policy, Stray, Verdict,
};
use iopf::resolve::{Course, Decision, LogAndDeny, Resolver, StallAndInspect};
use iopf_host::forward::{ForwardResolver, ForwardServer};
use iopf_host::pump::{Notice, Serving};
use iopf_host::{FaultQueue, Pump, PumpHandle, Shared};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often counts of lines are looked at.
const BEAT: Duration = Duration::from_millis(200);

/// Devices of one run, and so cases that wait to be shown, at most.
const CASES: usize = 64;

/// A resolver, with a count of what it was handed.
#[derive(Debug)]
struct Counted<R> {
    resolver: R,
    handed: Arc<AtomicU64>,
    watch: Arc<Watch>,
}

impl<R: Resolver> Resolver for Counted<R> {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        self.handed.fetch_add(1, Ordering::Relaxed);
        let decision = self.resolver.group(group, pages);
        if let Decision::Answer(_) | Decision::Refuse = decision {
            self.watch
                .step("answer given", group.device, group.index.0, String::new);
        } else {
            self.watch.step(
                "answer comes later",
                group.device,
                group.index.0,
                String::new,
            );
        }
        decision
    }

    fn stray(&mut self, stray: &Stray) -> Verdict {
        self.resolver.stray(stray)
    }
}

/// Devices that are attached and served.
pub(super) struct Service {
    // In this order: the pump and its descriptor, the server of another process, the devices.
    pump: Pump<Watched>,
    forward: Option<ForwardServer>,
    look: Option<Shared<StallAndInspect<Looker>>>,
    course: Course,
    devices: Vec<(Attached, Arc<AtomicU64>)>,
    memory: Option<Memory>,
    watch: Arc<Watch>,
    events: Arc<Events>,
    resolver: &'static str,
    groups: Option<u64>,
}

/// What serves one more device.
enum Source {
    Deny,
    Memory(Memory),
    Look(Shared<StallAndInspect<Looker>>),
    Forward(ForwardResolver),
}

impl Source {
    fn serving(&self, watch: &Arc<Watch>, handed: &Arc<AtomicU64>) -> Serving {
        let (watch, handed) = (watch.clone(), handed.clone());
        match self {
            Self::Deny => counted(LogAndDeny, watch, handed),
            Self::Memory(memory) => {
                let resolver = OnDemand {
                    memory: memory.clone(),
                    watch: watch.clone(),
                };
                counted(resolver, watch, handed)
            }
            Self::Look(shared) => counted(shared.clone(), watch, handed),
            Self::Forward(resolver) => counted(resolver.clone(), watch, handed),
        }
    }
}

fn counted(
    resolver: impl Resolver + Send + 'static,
    watch: Arc<Watch>,
    handed: Arc<AtomicU64>,
) -> Serving {
    Counted {
        resolver,
        handed,
        watch,
    }
    .into()
}

impl Service {
    /// Opens, attaches, and starts the devices.
    ///
    /// # Errors
    /// What is missing, as a sentence.
    pub(super) fn start(plan: &Plan, events: &Arc<Events>) -> Result<Self, Stop> {
        let Made {
            devices,
            ioas,
            faults,
        } = make(plan)?;
        let names: BTreeMap<_, _> = devices.iter().map(|d| (d.id(), d.name.clone())).collect();
        let memory = match plan.resolver.window() {
            Some(window) => Some(Memory::new(window, &ioas)?),
            None => None,
        };
        let behind = match plan.resolver {
            Choice::Forward { .. } => memory.clone(),
            _ => None,
        };
        let watch = Watch::new(events, names, plan.trace, behind);
        let engine = Engine::new(Policy::default().with_timeout(Some(plan.deadline)));
        let told = events.clone();
        let names = watch.clone();
        let pump = Pump::new(engine, move |notice| tell(&notice, &names, &told));
        let mut pump = pump.map_err(|e| Stop::host(format_args!("no pump: {e}")))?;
        let mut forward = None;
        let mut look = None;
        let mut course = Course::Terminate;
        let source = match (&plan.resolver, &memory) {
            (Choice::Inspect { resume }, _) => {
                if *resume {
                    course = Course::Resume;
                }
                let spaces = spaces(&devices)?;
                let looker = Looker {
                    spaces,
                    watch: watch.clone(),
                    events: events.clone(),
                };
                let shared = Shared::new(StallAndInspect::new(looker, CASES));
                look = Some(shared.clone());
                Source::Look(shared)
            }
            (Choice::Forward { socket, .. }, _) => {
                let (server, resolver) = ForwardServer::serve(socket, pump.handle())
                    .map_err(|e| Stop::host(format_args!("{}: {e}", socket.display())))?;
                forward = Some(server);
                Source::Forward(resolver)
            }
            (Choice::Memory(_), Some(memory)) => Source::Memory(memory.clone()),
            (Choice::Memory(_) | Choice::Deny, _) => Source::Deny,
        };
        let queue = pump
            .add_queue(FaultQueue::new(Watched::new(faults, &watch)))
            .map_err(Stop::host)?;
        let mut served = Vec::new();
        for attached in devices {
            let id = attached.id();
            let handed = Arc::default();
            pump.add_device(id, DeviceConfig::default(), source.serving(&watch, &handed))
                .map_err(Stop::host)?;
            pump.route(queue, id.0, id);
            let attachment = Attachment::new(DomainId(attached.tables()));
            let refused = |error: iopf_host::pump::ChangeError<String>| match error {
                iopf_host::pump::ChangeError::Kernel(why) => Stop::host(why),
                other => Stop::host(other),
            };
            pump.attach(id, None, attachment, || attached.attach())
                .map_err(refused)?;
            if let Some(pasid) = plan.pasid {
                pump.attach(id, Some(pasid), attachment, || attached.attach_pasid(pasid))
                    .map_err(refused)?;
            }
            served.push((attached, handed));
        }
        if let Some(window) = plan.resolver.window() {
            check(&ioas, window)?;
        }
        for (attached, _) in &served {
            attached.start().map_err(Stop::host)?;
        }
        events.say(Event::Serving {
            devices: plan.devices.clone(),
            pasid: plan.pasid.map(iopf::Pasid::get),
            resolver: plan.resolver.name(),
            memory: plan.resolver.window().map(|w| (Hex(w.start.0), w.len)),
            socket: match &plan.resolver {
                Choice::Forward { socket, .. } => Some(socket.clone()),
                _ => None,
            },
            deadline_ns: nanos(plan.deadline),
        });
        Ok(Self {
            pump,
            forward,
            look,
            course,
            devices: served,
            memory,
            watch,
            events: events.clone(),
            resolver: plan.resolver.name(),
            groups: plan.groups,
        })
    }

    /// A way to stop it from another thread.
    pub(super) fn handle(&self) -> PumpHandle<Watched> {
        self.pump.handle()
    }

    /// What it has counted so far, for the live line.
    pub(super) fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    /// Serves until it is told to stop, then answers what it holds and takes the devices off their
    /// tables.
    ///
    /// # Errors
    /// Those of poll(2).
    pub(super) fn run(mut self) -> Result<Report, Stop> {
        while !self.pump.is_stopping() {
            self.pump
                .turn(Some(BEAT))
                .map_err(|e| Stop::host(format_args!("waiting for faults: {e}")))?;
            self.decide();
            self.watch.end_intervals(self.events.elapsed());
            let (_, answered) = self.watch.groups();
            if self.groups.is_some_and(|most| answered >= most) {
                break;
            }
        }
        Ok(self.stop())
    }

    /// Lets go the devices that were looked at.
    fn decide(&mut self) {
        let Some(look) = &self.look else { return };
        let mut stands = Vec::new();
        let mut look = look.lock();
        while let Some(case) = look.poll_case() {
            stands.push(case.device());
        }
        let course = self.course;
        let answers: Vec<_> = stands
            .into_iter()
            .flat_map(|id| look.decide(id, |_| course))
            .collect();
        drop(look);
        if answers.is_empty() {
            return;
        }
        self.pump.with_engine(|now, engine| {
            for (handle, response) in answers {
                // An error says that the deadline was faster.
                let _ = engine.answer(now, handle, response);
            }
        });
        // What does not get written is told, and tried again.
        let _ = self.pump.flush();
    }

    fn stop(mut self) -> Report {
        let clients = self.forward.take().map(|server| {
            let counts = server.counts();
            [counts.clients, counts.dropped, counts.abandoned]
        });
        let mut rows = Vec::new();
        for (attached, handed) in &self.devices {
            let id = attached.id();
            let counts = self.pump.engine().counts(id).unwrap_or_default();
            let removed = self.pump.remove_device(id, || attached.detach());
            let given_up = match removed {
                Ok((departed, ())) => departed.given_up,
                Err(error) => {
                    // What it held was given up all the same.
                    self.events.note(format_args!("{}: {error}", attached.name));
                    counts.held
                }
            };
            rows.push((
                id,
                attached.name.clone(),
                counts,
                given_up,
                handed.load(Ordering::Relaxed),
            ));
        }
        // What was lost after that is told here.
        let _ = self.pump.stop();
        self.watch.end_intervals(Duration::MAX);
        let totals = self.pump.engine().totals();
        let pumped = self.pump.counts();
        let (mut books, unanswered) = self.watch.close();
        let row = |(id, device, counts, given_up, handed): (DeviceId, String, Counts, u64, u64)| {
            let books = books.remove(&id).unwrap_or_default();
            let answered = books.success + books.invalid;
            let at_once = books.groups.saturating_sub(handed);
            Row {
                device,
                pages: books.pages,
                groups: books.groups,
                success: books.success,
                invalid: books.invalid,
                by_resolver: answered.saturating_sub(at_once + counts.late + given_up),
                by_deadline: counts.late,
                by_departure: given_up,
                at_once,
                discarded: counts.losses.discarded,
                refused: counts.losses.refused,
                p50_ns: books.latency.quantile(50),
                p99_ns: books.latency.quantile(99),
                max_ns: books.latency.max(),
            }
        };
        Report {
            schema: 1,
            resolver: self.resolver,
            elapsed_ns: nanos(self.events.elapsed()),
            devices: rows.into_iter().map(row).collect(),
            mapped: self.memory.as_ref().map(Memory::pages),
            strangers: pumped.strangers,
            lost: totals.losses.lost.saturating_sub(pumped.strangers),
            too_late: pumped.late,
            unanswered,
            clients,
            lines_lost: self.events.lost(),
        }
    }
}

/// The devices' configuration spaces.
fn spaces(devices: &[Attached]) -> Result<BTreeMap<DeviceId, File>, Stop> {
    let open = |device: &Attached| {
        let path = format!("/sys/bus/pci/devices/{}/config", device.name);
        let file = File::open(&path).map_err(|e| Stop::host(format_args!("{path}: {e}")))?;
        Ok((device.id(), file))
    };
    devices.iter().map(open).collect()
}

/// Says what is no answer.
fn tell(notice: &Notice, watch: &Watch, events: &Events) {
    match notice {
        Notice::Loss(loss) => {
            let who = loss
                .device
                .map_or_else(|| "devices that are gone".to_owned(), |id| watch.name(id));
            events.note(format_args!(
                "{who}: {} pages lost, refused or dropped",
                loss.losses.total()
            ));
        }
        // Unrecoverable faults do not come out of a fault queue.
        Notice::Log(_) => {}
        Notice::Read { error, .. } => events.note(format_args!("reading faults: {error}")),
        Notice::Write { error, .. } => events.note(format_args!("writing answers: {error}")),
        Notice::Panicked { device, message } => {
            events.note(format_args!(
                "{}: its resolver panicked: {message}",
                watch.name(*device)
            ));
        }
    }
}
