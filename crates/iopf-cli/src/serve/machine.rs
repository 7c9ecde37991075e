//! What is served: memory, unit, functions, their threads and sockets.

use super::arch::{Front, Serve, Unit};
use super::args::Plan;
use super::asked::Asked;
use super::captures::Captures;
use super::command::Socket;
use super::event::{Counts, Event, Events};
use super::functions::{self, Behind};
use super::host::Host;
use super::log::Log;
use super::place::Placed;
use super::told::Told;
use super::watcher::Watcher;
use super::worker::{Bell, Worker};
use crate::exit::Stop;
use endpoint::{Config as EndpointConfig, IommuFunction, Ports, Stats, dma_engine};
use iopf::Rid;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;
use vfio_user_server::codec::Limits;
use vfio_user_server::{Event as Happening, Function, GuestMap, MapLimits};
use vfio_user_server::{Observer, Port, Server};
use viommu::Setup;
use viommu::mem::GuestRam;
use viommu_api::PciFunction;

/// A function with its socket.
struct Served {
    place: Rid,
    kind: &'static str,
    path: PathBuf,
    port: Arc<Port>,
    server: Server,
}

/// Everything that is served.
pub(super) struct Machine<X: Serve> {
    // Fields drop in the order written: no client, then no work, then no functions.
    served: Vec<Served>,
    workers: Vec<Worker>,
    endpoints: Vec<Arc<dyn Behind>>,
    /// Those of all functions: what they counted is wanted after the sockets are gone.
    ports: Vec<Arc<Port>>,
    unit: Arc<Unit<X>>,
    watcher: Arc<Watcher<X>>,
    events: Arc<Events>,
    told: Arc<Told>,
}

/// Tells of what happens on one socket.
struct Ear {
    function: String,
    events: Arc<Events>,
}

impl Observer for Ear {
    fn event(&self, event: &Happening<'_>) {
        let function = self.function.clone();
        let said = match event {
            Happening::Connected { .. } => Event::Connected { function },
            Happening::Disconnected { why } => Event::Disconnected {
                function,
                why: why.to_string(),
            },
            Happening::Refused { .. } | Happening::Busy { .. } => Event::Refused {
                function,
                why: event.to_string(),
            },
        };
        self.events.say_of(&self.function, said);
    }
}

fn host(error: impl std::fmt::Display) -> Stop {
    Stop::host(error)
}

impl<X: Serve> Machine<X> {
    /// Makes everything and starts to listen.
    pub(super) fn start(plan: &Plan, dir: &Path, events: &Arc<Events>) -> Result<Self, Stop> {
        let places: Vec<Rid> = plan.endpoints.iter().map(|(_, rid)| *rid).collect();
        let guest = Arc::new(GuestMap::new(MapLimits {
            trust_unsealed: plan.trust_unsealed,
            ..MapLimits::default()
        }));
        let watcher = Arc::new(watcher(plan, &places, events)?);

        let port = Arc::new(Port::new());
        let setup = Setup {
            config: X::config(plan),
            ram: GuestRam::new(guest.space()),
        };
        let unit = Unit::<X>::new(setup, X::sink(port.clone())).map_err(host)?;
        let unit = Arc::new(unit.watched(watcher.clone()));
        let config = X::config(plan);
        let telling = X::tell(&unit, &config, plan, places.clone());
        let told = Arc::new(Told::new(telling, plan, dir)?);
        // Set once: the watcher was made for this unit.
        let _ = watcher.unit.set(Arc::downgrade(&unit));

        let mut machine = Self {
            served: Vec::new(),
            workers: Vec::new(),
            endpoints: Vec::new(),
            ports: Vec::new(),
            unit: unit.clone(),
            watcher,
            events: events.clone(),
            told: told.clone(),
        };
        let registers = unit.clone();
        let say = events.clone();
        let behind = Arc::new(OnceLock::<Vec<Weak<dyn Behind>>>::new());
        let stopped = behind.clone();
        let function = IommuFunction::new(unit.clone(), move || {
            // A VMM resets one function after the other, and one of this unit is one of the machine.
            // Without translation a function that is still at work reaches all memory: it stops first.
            for function in stopped.get().into_iter().flatten() {
                if let Some(function) = function.upgrade() {
                    function.reset();
                }
            }
            registers.reset();
            let function = "the IOMMU".to_owned();
            say.say_of("the IOMMU", Event::Reset { function });
        });
        let function = Arc::new(function.map_err(host)?);
        let front = X::front(&config, &function).map_err(host)?;
        let placed = Arc::new(Placed {
            function,
            told,
            events: events.clone(),
            seen: Mutex::new(None),
        });
        match front {
            Front::Registers => machine.listen(dir, plan.unit, "iommu", placed, port, &guest)?,
            Front::Function(front) => {
                machine.listen(dir, plan.unit, "iommu", front, port, &guest)?;
                let (place, port) = (Rid(plan.unit.0 | 1), Arc::new(Port::new()));
                machine.listen(dir, place, "registers", placed, port, &guest)?;
            }
        }

        let beyond = Arc::new(Host::new(unit.clone(), &places, events.clone()).map_err(host)?);
        let around = functions::Around {
            unit: &unit,
            space: guest.space(),
            entropy: &plan.entropy,
        };
        let mut ports = Ports::of(unit.clone()).with_host(beyond);
        if plan.trace {
            ports.ats = Arc::new(Asked::new(unit.clone(), events.clone()));
        }
        for &(kind, rid) in &plan.endpoints {
            let port = Arc::new(Port::new());
            let bell = Arc::new(Bell::default());
            let setup = dma_engine::Setup {
                rid,
                config: EndpointConfig {
                    answers_by_pasid: X::ANSWERS_BY_PASID,
                    signals: X::SIGNALS,
                    ..EndpointConfig::default()
                },
                ports: ports.clone(),
                memory: guest.clone(),
                irq: port.clone(),
                waker: bell.waker(),
            };
            let (function, endpoint) = functions::make(kind, setup, &around)?;
            if let Some(endpoint) = &endpoint {
                unit.attach(rid, Arc::downgrade(endpoint));
            }
            let worker = Worker::start(kind.name(), function.clone(), &bell).map_err(host)?;
            machine.workers.push(worker);
            machine.endpoints.push(function.clone());
            machine.listen(dir, rid, kind.name(), function, port, &guest)?;
        }
        // Set once, here.
        let _ = behind.set(machine.endpoints.iter().map(Arc::downgrade).collect());
        Ok(machine)
    }

    fn listen(
        &mut self,
        dir: &Path,
        place: Rid,
        kind: &'static str,
        device: Arc<dyn PciFunction>,
        port: Arc<Port>,
        guest: &Arc<GuestMap>,
    ) -> Result<(), Stop> {
        let path = dir.join(format!(
            "{kind}-{:02x}.{}.sock",
            place.device(),
            place.function()
        ));
        let ear = Ear {
            function: place.to_string(),
            events: self.events.clone(),
        };
        let function = Function {
            device,
            port: port.clone(),
            guest: guest.clone(),
            observer: Arc::new(ear),
            limits: Limits::default(),
        };
        let server = Server::bind(&path, function).map_err(host)?;
        self.ports.push(port.clone());
        self.served.push(Served {
            place,
            kind,
            path,
            port,
            server,
        });
        Ok(())
    }

    /// How the guest is told of the unit.
    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    /// The functions: place, kind, socket.
    pub(super) fn functions(&self) -> impl Iterator<Item = (Rid, &'static str, &Path)> {
        self.served
            .iter()
            .map(|s| (s.place, s.kind, s.path.as_path()))
    }

    /// What QEMU is to connect to.
    pub(super) fn sockets(&self) -> Vec<Socket<'_>> {
        self.functions()
            .map(|(place, _, path)| Socket { place, path })
            .collect()
    }

    /// Functions with a client.
    pub(super) fn connected(&self) -> usize {
        self.served.iter().filter(|s| s.port.is_connected()).count()
    }

    /// To be called now and then: ends the budgets of the log.
    pub(super) fn beat(&self) {
        self.events.end_intervals(self.events.elapsed());
        if let Some(mut log) = self.watcher.log() {
            log.handle_timeout(self.events.elapsed(), &self.events);
        }
    }

    /// What was counted so far.
    pub(super) fn counts(&self) -> Counts {
        let unit = self.unit.counters();
        let ports = self.ports.iter().map(|port| port.counters());
        let stats: Vec<_> = self.endpoints.iter().map(|e| e.stats()).collect();
        let sum = |of: fn(&Stats) -> u64| stats.iter().map(of).sum();
        let (logged, suppressed) = self.watcher.log().map_or((0, 0), |log| log.counts());
        Counts {
            faults: unit.faults,
            recorded: unit.recorded,
            lost: unit.lost,
            kept_back: unit.suppressed,
            page_requests: unit.page_requests,
            page_requests_lost: unit.page_requests_lost,
            page_requests_refused: unit.page_requests_refused,
            page_requests_answered: unit.page_requests_answered,
            responses: unit.responses,
            responses_lost: unit.responses_lost,
            vanished: unit.vanished,
            queue_errors: unit.queue_errors,
            bytes: sum(|s| s.bytes),
            groups: sum(|s| s.groups),
            groups_answered: sum(|s| s.answered.iter().sum()),
            groups_unanswered: sum(|s| s.unanswered),
            answers_unexpected: sum(|s| s.unexpected_responses + s.late_responses),
            invalidations: sum(|s| s.invalidations),
            messages: self.watcher.messages.load(Ordering::Relaxed),
            messages_lost: ports.map(|p| p.messages_lost + p.messages_refused).sum(),
            captures: self.watcher.captures.as_ref().map_or(0, Captures::written),
            logged,
            suppressed,
        }
    }

    /// Lets the clients go, ends the threads, and gives the last counts.
    pub(super) fn stop(mut self) -> Counts {
        for served in std::mem::take(&mut self.served) {
            served.server.stop();
        }
        self.workers.clear();
        if let Some(mut log) = self.watcher.log() {
            log.close(self.events.elapsed(), &self.events);
        }
        self.events.end_intervals(Duration::MAX);
        self.counts()
    }
}

fn watcher<X: Serve>(
    plan: &Plan,
    places: &[Rid],
    events: &Arc<Events>,
) -> Result<Watcher<X>, Stop> {
    let captures = plan.captures.as_deref().map(Captures::new).transpose();
    let log = plan.verbose.then(|| Log::new(places)).transpose();
    Ok(Watcher {
        events: events.clone(),
        captures: captures.map_err(|error| host(format_args!("--capture-dir: {error}")))?,
        log: log.map_err(host)?.map(Mutex::new),
        trace: plan.trace,
        unit: OnceLock::new(),
        messages: AtomicU64::new(0),
    })
}
