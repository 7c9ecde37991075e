//! The function: joins registers, portals, work queues and engines with a [`Device`]. The only file
//! here that turns effects into action.

mod command;
mod pci;

use super::engine::{Engines, Order, Queues};
use super::error::{SoftwareError, code};
use super::portal::{self, Portals};
use super::regs::{DeviceState, Regs, offset};
use super::run::Report;
use super::tables::WqState;
use super::{CHUNK, ENGINES, VECTORS};
use crate::dma_engine::Setup;
use crate::gate::Gate;
use crate::job::{Completion, Job, JobId, Op, Status};
use crate::pci::{
    AtsCapability, Bar, Builder, ConfigSpace, Identity, Impossible, MsixCapability, MsixTable,
    PasidCapability, Port, PriCapability,
};
use crate::{Config, Device, Stats, Step, Waker};
use command::Pending;
use iopf::{Gpa, Iova};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;
use viommu_api::{InterruptKind, IrqSink};

/// BAR 0: the registers. BAR 2: the portals.
const BAR_REGISTERS: u8 = 0;
const BAR_PORTALS: u8 = 2;
const REGISTERS_SIZE: u64 = 0x1_0000;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x0b25,
    class: 0x08_8000,
    revision: 0,
    subsystem_vendor: 0x8086,
    subsystem: 0,
};

/// Bits of a PASID.
const PASID_WIDTH: u8 = 20;

/// A Data Streaming Accelerator behind an IOMMU.
///
/// No access to a BAR does DMA or carries out a command: it wakes the worker through the [`Waker`],
/// and whoever calls [`step`](Self::step) does the work.
///
/// Promises: every descriptor that is accepted ends once, by its completion record, an error in the
/// software error register, or an abort; when a drain, disable or reset command is done, no DMA of
/// the descriptors it names follows; after a reset of the function no DMA of older descriptors
/// begins.
pub struct Dsa {
    device: Device,
    irq: Arc<dyn IrqSink>,
    waker: Waker,
    state: Mutex<State>,
    /// Held while a thread steps. Taken before `state`, never inside it.
    worker: Mutex<Worker>,
}

/// What the guest sees, and what it has ordered.
struct State {
    config: Gate,
    msix: MsixTable,
    regs: Regs,
    portals: Portals,
    queues: Queues,
    command: Option<Pending>,
    /// Moves with every reset, so that the worker drops what it was doing.
    generation: u64,
}

/// What the worker has in hand.
#[derive(Default)]
struct Worker {
    generation: u64,
    engines: Engines,
    jobs: BTreeMap<JobId, usize>,
}

impl fmt::Debug for Dsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dsa")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

fn space(config: &Config) -> Result<ConfigSpace, Impossible> {
    let place = |at: u64| (BAR_REGISTERS, u32::try_from(at).unwrap_or(u32::MAX));
    Builder::new(IDENTITY)
        .bar(BAR_REGISTERS, Bar::memory64(REGISTERS_SIZE))
        .bar(BAR_PORTALS, Bar::memory64(portal::SIZE))
        .express(Port::Integrated, true)
        .msix(MsixCapability {
            vectors: VECTORS,
            table: place(offset::MSIX_TABLE),
            pending: place(offset::MSIX_PENDING),
        })
        .ats(AtsCapability {
            queue_depth: 0,
            global_invalidate: true,
        })
        .pri(PriCapability {
            capacity: config.allocation,
            response_needs_pasid: config.answers_by_pasid,
        })
        .pasid(PasidCapability {
            width: PASID_WIDTH,
            execute: false,
            privileged: true,
        })
        .build()
}

impl Dsa {
    /// A function in its state after power-on.
    ///
    /// # Errors
    /// When [`Config::allocation`] is 0.
    pub fn new(setup: Setup) -> Result<Self, Impossible> {
        let config = space(&setup.config)?;
        let device = Config {
            // Those of an engine, and those of a reset that nobody has collected yet.
            jobs: setup.config.jobs.max(4 * ENGINES),
            max_len: setup.config.max_len.max(CHUNK),
            // A descriptor asks for all that it misses next, as far as it may.
            group_pages: setup.config.allocation,
            ..setup.config
        };
        let dsa = Self {
            device: Device::new(setup.rid, device, setup.ports, setup.memory),
            irq: setup.irq,
            waker: setup.waker,
            state: Mutex::new(State {
                config: Gate::new(config),
                msix: MsixTable::new(VECTORS),
                regs: Regs::default(),
                portals: Portals::default(),
                queues: Queues::default(),
                command: None,
                generation: 0,
            }),
            worker: Mutex::new(Worker::default()),
        };
        dsa.power_on(&mut dsa.state());
        Ok(dsa)
    }

    /// Its data path, for statistics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.device.stats()
    }

    /// Translations in its TLB.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.device.cached()
    }

    /// Makes it ignore invalidations from now on, or obey them again: a broken device.
    pub fn set_deaf(&self, deaf: bool) {
        self.device.set_deaf(deaf);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one bounded amount of work at time `now`, measured from any fixed start. One thread does
    /// the work: another that comes meanwhile is told that there is nothing to do.
    pub fn step(&self, now: Duration) -> Step {
        let mut worker = match self.worker.try_lock() {
            Ok(worker) => worker,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Step::Idle(None),
        };
        let mut worked = self.begin(&mut worker);
        let stepped = self.device.step(now);
        worked |= stepped == Step::Worked;
        worked |= self.collect(&mut worker);
        if worked { Step::Worked } else { stepped }
    }

    /// Carries out commands, gives idle engines work, and drops what a reset has taken away.
    fn begin(&self, worker: &mut Worker) -> bool {
        let mut vectors = Vec::new();
        let worked = {
            let mut state = self.state();
            let state = &mut *state;
            if worker.generation != state.generation {
                *worker = Worker {
                    generation: state.generation,
                    ..Worker::default()
                };
            }
            let commanded = self.command(state, worker, &mut vectors);
            let dispatched = self.dispatch(state, worker, &mut vectors);
            // A descriptor that ended at once may be what a command waits for.
            commanded | dispatched
        };
        self.raise(&vectors);
        worked
    }

    fn dispatch(&self, state: &mut State, worker: &mut Worker, vectors: &mut Vec<u16>) -> bool {
        if !matches!(
            state.regs.state,
            DeviceState::Enabled | DeviceState::Draining
        ) {
            return false;
        }
        let before: Vec<u16> = (0..super::WQS)
            .map(|wq| state.queues.occupancy(wq))
            .collect();
        let mut reports = Vec::new();
        let ats = state.config.ats().enabled;
        let orders = worker
            .engines
            .dispatch(&mut state.queues, &state.regs, ats, &mut reports);
        let mut worked = !orders.is_empty() || !reports.is_empty();
        for (wq, before) in before.into_iter().enumerate() {
            let now = state.queues.occupancy(wq);
            state.regs.wqs[wq].occupancy = now;
            worked |= now != before;
        }
        for order in orders {
            self.order(worker, order, &mut reports);
        }
        self.apply(state, &reports, vectors);
        worked
    }

    /// Hands a job to the device. What it does not take has failed.
    fn order(&self, worker: &mut Worker, order: Order, reports: &mut Vec<Report>) {
        let mut next = Some(order);
        while let Some((engine, job)) = next.take() {
            match self.device.submit(job.clone()) {
                Ok(id) => {
                    worker.jobs.insert(id, engine);
                }
                Err(_) => next = worker.engines.resume(engine, not_taken(&job), reports),
            }
        }
    }

    /// Takes note of jobs that are over.
    fn collect(&self, worker: &mut Worker) -> bool {
        let mut worked = false;
        while let Some(completion) = self.device.poll_completion() {
            worked = true;
            // Not there: a job that a reset took away.
            let Some(engine) = worker.jobs.remove(&completion.id) else {
                continue;
            };
            let mut reports = Vec::new();
            // No lock of what the guest sees is held over this: it may look at every byte.
            let next = worker.engines.resume(engine, completion, &mut reports);
            let mut vectors = Vec::new();
            {
                let mut state = self.state();
                if state.generation != worker.generation {
                    continue;
                }
                if let Some(order) = next {
                    self.order(worker, order, &mut reports);
                }
                self.apply(&mut state, &reports, &mut vectors);
            }
            self.raise(&vectors);
        }
        while self.device.poll_answer().is_some() {}
        worked
    }

    /// Shows what the engines report, and notes the vectors to raise.
    fn apply(&self, state: &mut State, reports: &[Report], vectors: &mut Vec<u16>) {
        for report in reports {
            let vector = match report {
                Report::Error(error) => state.regs.record(error).then_some(0),
                Report::Interrupt(handle) => state.regs.delivers(*handle).then_some(*handle),
            };
            vectors.extend(vector.filter(|_| state.may_interrupt()));
        }
    }

    fn raise(&self, vectors: &[u16]) {
        for &vector in vectors {
            self.irq.raise(InterruptKind::Msix, vector);
        }
    }

    /// Stops until the next reset, because a PCI control moved that must not.
    fn halt(&self, state: &mut State, vectors: &mut Vec<u16>) {
        let error = SoftwareError::new(code::PCI_CHANGE, None);
        let wanted = state.regs.record(&error) | state.regs.halt();
        vectors.extend((wanted && state.may_interrupt()).then_some(0));
        self.drop_work(state);
    }

    /// Forgets every descriptor.
    fn drop_work(&self, state: &mut State) {
        state.generation += 1;
        state.queues = Queues::default();
        state.portals.reset();
        self.device.reset();
    }

    /// Puts everything but the configuration space into its state after power-on.
    fn power_on(&self, state: &mut State) {
        state.regs = Regs::default();
        state.msix.reset();
        state.command = None;
        state.config.switch(&self.device);
        self.drop_work(state);
        let pri = state.config.pri();
        self.device.set_pri(pri.enabled, pri.allocation);
        state.config.start_over(&self.device);
    }
}

impl State {
    fn may_interrupt(&self) -> bool {
        self.config.msix().enabled && self.config.bus_master()
    }

    /// Takes a store to a portal; true if there is something new to do.
    fn store(&mut self, at: u64, data: &[u8], vectors: &mut Vec<u16>) -> bool {
        let Self {
            portals,
            queues,
            regs,
            ..
        } = self;
        let (mut queued, mut interrupt) = (false, false);
        portals.write(at, data, &mut |wq, raw| {
            let config = &mut regs.wqs[wq];
            if config.state != WqState::Enabled || regs.state != DeviceState::Enabled {
                return;
            }
            if queues.submit(wq, raw, config.size) {
                config.occupancy = queues.occupancy(wq);
                queued = true;
            } else {
                let error = SoftwareError::new(code::WQ_FULL, u8::try_from(wq).ok());
                interrupt |= regs.record(&error);
            }
        });
        vectors.extend((interrupt && self.may_interrupt()).then_some(0));
        queued
    }
}

/// The end of a job that the device would not take.
fn not_taken(job: &Job) -> Completion {
    let access = match job.op {
        Op::Read { .. } => job.read_access(),
        _ => job.write_access(),
    };
    Completion {
        id: JobId(u64::MAX),
        pasid: job.pasid,
        status: Status::BusError(Gpa(0)),
        moved: 0,
        data: Vec::new(),
        failed: Some((Iova(0), access)),
        pages_requested: 0,
    }
}

#[cfg(test)]
mod tests;
