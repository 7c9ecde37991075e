//! A DMA engine as a PCI function: the endpoint that guest programs drive.
//!
//! PCI IDs 0x494f:0x5046, not assigned by the PCI-SIG; class 0x088000, which no Linux driver claims.
//! BAR 0 has 8 channels of 4 KiB, so that a process can map one; BAR 1 has the MSI-X table.
//!
//! # A channel
//! Little-endian. Reserved bits read as zero. What is written while an order is under way counts for
//! the next one.
//!
//! | offset | bits | name | meaning |
//! |---|---|---|---|
//! | 0x000 | 32 RO | ID | 0x46504f49 |
//! | 0x004 | 32 RO | VERSION | 1 |
//! | 0x008 | 64 | SRC | first address read, or page requested |
//! | 0x010 | 64 | DST | first address written |
//! | 0x018 | 32 | LEN | bytes, 1 to 16 MiB |
//! | 0x01c | 32 | PASID | 19:0 the PASID, 31 use it |
//! | 0x020 | 32 | CONTROL | below |
//! | 0x024 | 32 RO | STATUS | 1:0 state, 15:8 error, 31:16 pages requested (saturating) |
//! | 0x028 | 64 RO | FAULT_ADDR | address of the first failure |
//! | 0x030 | 64 RO | MOVED | bytes moved, or groups answered |
//! | 0x038 | 64 | PATTERN | for FILL and VERIFY |
//! | 0x040 | 32 | REQUESTER | 15:0 the requester ID to claim, 31 claim it; path 1 only |
//! | 0x044 | 32 | REPEAT | 0 or 1: once; n: n times, counting errors |
//! | 0x048 | 64 | STRIDE | added to SRC and DST before each repeat |
//! | 0x050 | 32 RO | ERRORS | repeats that failed |
//! | 0x054 | 32 RO | CHECK | READ: CRC32C of the last repeat; VERIFY: wrong bytes |
//! | 0x058 | 64 RO | NANOS | from when the worker saw GO to the end |
//! | 0x060 | 32 | FLAGS | 0 ignore invalidations (all of the function while set), 1 PAGE_REQUESTS beyond the allocation and without waiting, 2 DMA though Bus Master is off |
//! | 0x064 | 32 RO | EVER | orders completed |
//! | 0x800 | | window | 2 KiB of data |
//!
//! CONTROL: 3:0 what (1 READ to the window, 2 WRITE from it, repeated, 3 COPY, 4 FILL, 5 VERIFY,
//! 6 PAGE_REQUESTS, 7 STOP_MARKER), 4 privileged, 5 execute, 7:6 path (0 ATS and page requests,
//! 1 untranslated, 2 as if translated, 3 through the host's IOMMU), 8 interrupt at the end (vector:
//! the channel), 9 page requests ask to write, 31 GO.
//!
//! State: 0 idle, 1 busy, 2 done, 3 error. Errors: 1 blocked, 2 no translation, 3 answered Invalid,
//! 4 answered Response Failure, 5 not answered, 6 no progress, 7 Unsupported Request, 8 Completer
//! Abort, 9 no memory there, 10 aborted, 11 bad parameters, 12 Bus Master off, 13 PASID or page
//! requests not enabled. Errors 10 to 13 end an order, whatever REPEAT says.
//!
//! With [`Signals::Pin`] there is no MSI-X and no BAR 1, and no order interrupts.
//!
//! Not modelled: chains of orders, DMA atomics, interrupts other than MSI-X.

mod function;
mod regs;
mod run;

use crate::gate::Gate;
use crate::pci::{
    AtsCapability, Bar, Builder, ConfigSpace, Identity, Impossible, MsixCapability, MsixTable,
    PasidCapability, Port, PriCapability,
};
use crate::{Config, Device, PhysicalMemory, Ports, Signals, Stats, Step, Waker};
use iopf::Rid;
use regs::{Order, Outcome, Progress, Regs};
use run::{Gates, Run};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;
use viommu_api::{InterruptKind, IrqSink};

/// Channels of the engine.
pub const CHANNELS: u16 = 8;

const COUNT: usize = CHANNELS as usize;

/// Bytes of a channel.
const CHANNEL: u64 = 0x1000;

/// BAR 0: the channels. BAR 1: the MSI-X table, and its pending bits in the middle.
const BAR_CHANNELS: u8 = 0;
const BAR_MSIX: u8 = 1;
const MSIX_SIZE: u64 = 0x1000;

const IDENTITY: Identity = Identity {
    vendor: 0x494f,
    device: 0x5046,
    class: 0x08_8000,
    revision: 1,
    subsystem_vendor: 0x494f,
    subsystem: 0x5046,
};

/// Bits of a PASID.
const PASID_WIDTH: u8 = 20;

/// The function: its registers and configuration space, on top of a [`Device`].
///
/// No access to a BAR does DMA: GO wakes the worker through the [`Waker`], and whoever calls
/// [`step`](Self::step) does the work. Configuration space gates it: without Bus Master nothing is
/// sent, without ATS requests leave untranslated, without PRI no page is asked for, and a PASID
/// needs to be enabled.
pub struct DmaEngine {
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
    channels: [Channel; COUNT],
    /// Moves with every reset, so that the worker drops what it was doing.
    generation: u64,
}

struct Channel {
    regs: Regs,
    busy: bool,
    ordered: Option<Order>,
}

/// What the worker has in hand.
#[derive(Default)]
struct Worker {
    generation: u64,
    runs: [Option<Run>; COUNT],
}

impl fmt::Debug for DmaEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaEngine")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Everything around a function that does DMA.
pub struct Setup {
    /// Its requester ID.
    pub rid: Rid,
    /// Sizes and times. [`Config::allocation`] is the capacity of its page request interface.
    pub config: Config,
    /// The IOMMU.
    pub ports: Ports,
    /// Physical memory.
    pub memory: Arc<dyn PhysicalMemory>,
    /// Where its interrupts go.
    pub irq: Arc<dyn IrqSink>,
    /// Called when there is work for the function's `step`, from a thread that may hold locks of the
    /// IOMMU's caller.
    pub waker: Waker,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("rid", &self.rid)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn space(config: &Config) -> Result<ConfigSpace, Impossible> {
    let half = u32::try_from(MSIX_SIZE / 2).unwrap_or_default();
    let mut builder = Builder::new(IDENTITY)
        .bar(BAR_CHANNELS, Bar::memory32(CHANNEL * u64::from(CHANNELS)))
        .express(Port::Integrated, true);
    if config.signals == Signals::Messages {
        builder = builder
            .bar(BAR_MSIX, Bar::memory32(MSIX_SIZE))
            .msix(MsixCapability {
                vectors: CHANNELS,
                table: (BAR_MSIX, 0),
                pending: (BAR_MSIX, half),
            });
    }
    builder
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
            execute: true,
            privileged: true,
        })
        .build()
}

impl DmaEngine {
    /// An engine in its state after power-on.
    ///
    /// # Errors
    /// When [`Config::allocation`] is 0.
    pub fn new(setup: Setup) -> Result<Self, Impossible> {
        let config = space(&setup.config)?;
        let channel = || Channel {
            regs: Regs::new(),
            busy: false,
            ordered: None,
        };
        let device = Config {
            // Those of the channels, and those of a reset that nobody has collected yet.
            jobs: setup.config.jobs.max(2 * COUNT),
            ..setup.config
        };
        let engine = Self {
            device: Device::new(setup.rid, device, setup.ports, setup.memory),
            irq: setup.irq,
            waker: setup.waker,
            state: Mutex::new(State {
                config: Gate::new(config),
                msix: MsixTable::new(CHANNELS),
                channels: std::array::from_fn(|_| channel()),
                generation: 0,
            }),
            worker: Mutex::new(Worker::default()),
        };
        engine.power_on(&mut engine.state());
        Ok(engine)
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

    /// Channels with an order under way.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.state().channels.iter().filter(|c| c.busy).count()
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
        let mut worked = self.begin(&mut worker, now);
        let stepped = self.device.step(now);
        worked |= stepped == Step::Worked;
        worked |= self.collect(&mut worker, now);
        worked |= self.ask(&mut worker, now);
        if worked { Step::Worked } else { stepped }
    }

    /// Takes up what was ordered, and drops what a reset has taken away.
    fn begin(&self, worker: &mut Worker, now: Duration) -> bool {
        let orders = {
            let mut state = self.state();
            if worker.generation != state.generation {
                worker.generation = state.generation;
                worker.runs = Default::default();
            }
            state
                .channels
                .each_mut()
                .map(|channel| channel.ordered.take())
        };
        let mut worked = false;
        for (index, order) in orders.into_iter().enumerate() {
            let Some(order) = order else { continue };
            worked = true;
            let run = Run::new(order, now);
            worker.runs[index] = self.launch(worker.generation, index, run, now);
        }
        worked
    }

    /// Starts a repeat of a run.
    fn launch(&self, generation: u64, index: usize, mut run: Run, now: Duration) -> Option<Run> {
        let gates = Gates::of(&self.state().config);
        // No lock is held over this: it may copy 16 MiB.
        let job = run.prepare(&gates, &self.device);
        let mut over = None;
        let run = {
            let mut state = self.state();
            if state.generation != generation {
                return None;
            }
            if let Some(job) = job {
                run.start(&self.device, job);
            }
            self.settle(&mut state, index, run, now, &mut over)
        };
        self.interrupt(over);
        run
    }

    /// Shows where a run stands; a run that is over is not given back.
    fn settle(
        &self,
        state: &mut State,
        index: usize,
        mut run: Run,
        now: Duration,
        over: &mut Option<usize>,
    ) -> Option<Run> {
        let ended = run.progress.outcome != Outcome::Busy;
        if ended {
            run.progress.nanos = run.elapsed(now);
        }
        let channel = &mut state.channels[index];
        channel.regs.show(&run.progress);
        if !ended {
            return Some(run);
        }
        channel.busy = false;
        channel.regs.count();
        if run.order.interrupt && state.config.msix().enabled && state.config.bus_master() {
            *over = Some(index);
        }
        None
    }

    /// Takes note of jobs and groups that are over.
    fn collect(&self, worker: &mut Worker, now: Duration) -> bool {
        let mut worked = false;
        while let Some(completion) = self.device.poll_completion() {
            worked = true;
            let mut runs = worker.runs.iter_mut();
            let index = runs.position(|r| r.as_ref().is_some_and(|r| r.job == Some(completion.id)));
            // A job whose order was reset away.
            let Some(index) = index else { continue };
            let Some(mut run) = worker.runs[index].take() else {
                continue;
            };
            // No lock is held over this: it looks at every byte.
            run.take_completion(&completion);
            worker.runs[index] = self.go_on(worker.generation, index, run, &completion.data, now);
        }
        while let Some(answer) = self.device.poll_answer() {
            worked = true;
            for run in worker.runs.iter_mut().flatten() {
                run.take_answer(&answer);
            }
        }
        worked
    }

    /// Repeats or ends a run.
    fn go_on(
        &self,
        generation: u64,
        index: usize,
        mut run: Run,
        data: &[u8],
        now: Duration,
    ) -> Option<Run> {
        if run.next_repeat() {
            return self.launch(generation, index, run, now);
        }
        let mut over = None;
        let run = {
            let mut state = self.state();
            if state.generation != generation {
                return None;
            }
            if run.shows_data() {
                state.channels[index].regs.fill_window(data);
            }
            self.settle(&mut state, index, run, now, &mut over)
        };
        self.interrupt(over);
        run
    }

    /// Sends page requests for the channels that were ordered to.
    fn ask(&self, worker: &mut Worker, now: Duration) -> bool {
        let mut worked = false;
        for index in 0..COUNT {
            let Some(mut run) = worker.runs[index].take_if(|r| r.asks()) else {
                continue;
            };
            // No lock of ours is held: the IOMMU may answer at once.
            let sent = run.send(&self.device, now);
            worked |= sent;
            let over = run.asked_all(&self.device);
            worked |= over;
            worker.runs[index] = if over {
                self.go_on(worker.generation, index, run, &[], now)
            } else {
                Some(run)
            };
        }
        worked
    }

    fn interrupt(&self, channel: Option<usize>) {
        if let Some(vector) = channel.and_then(|index| u16::try_from(index).ok()) {
            self.irq.raise(InterruptKind::Msix, vector);
        }
    }

    /// Puts everything but the configuration space into its state after power-on.
    fn power_on(&self, state: &mut State) {
        state.generation += 1;
        state.msix.reset();
        for channel in &mut state.channels {
            channel.regs.reset();
            channel.busy = false;
            channel.ordered = None;
        }
        state.config.switch(&self.device);
        self.device.reset();
        self.device.set_pri(false, 0);
        self.device.set_deaf(false);
        state.config.start_over(&self.device);
    }
}

impl Channel {
    /// Takes a write; true when it is the start of an order.
    fn write(&mut self, offset: u16, data: &[u8]) -> bool {
        let go = self.regs.write(offset, data);
        if !go || self.busy {
            return false;
        }
        self.busy = true;
        self.ordered = Some(self.regs.order());
        self.regs.show(&Progress {
            outcome: Outcome::Busy,
            ..Progress::default()
        });
        true
    }
}

#[cfg(test)]
mod tests;
