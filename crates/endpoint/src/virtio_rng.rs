//! A virtio entropy device as a PCI function, for a stock driver to read random bytes through the
//! IOMMU.
//!
//! Spec: Virtual I/O Device (VIRTIO) 1.2, "Virtio Over PCI Bus", "Split Virtqueues", "Entropy Device".
//! It offers `VIRTIO_F_VERSION_1` and `VIRTIO_F_ACCESS_PLATFORM` and works with nothing less: the
//! second makes Linux use DMA addresses, which the IOMMU translates.
//!
//! BAR 0 has the structures: common configuration at 0, interrupt status at 0x1000, notifications at
//! 0x3000. BAR 1 has the MSI-X table, where there is one. An entropy device has no configuration of its own.
//!
//! Not modelled: the legacy interface, packed rings, event indices, queue reset, ATS.

mod common;
mod function;
mod queue;

use crate::pci::{
    Bar, Builder, ConfigSpace, Identity, Impossible, MsixCapability, MsixTable, Port,
};
use crate::{Signals, Step, Waker};
use common::{Common, NO_VECTOR};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use viommu_api::{InterruptKind, IrqSink};
use vm_memory::GuestAddressSpace;

/// The vendor and device IDs of a virtio 1.0 entropy device: 0x1040 plus its type, 4. Linux asks
/// nothing of the class.
const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1044,
    class: 0x00_ff00,
    revision: 1,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

const BAR_STRUCTURES: u8 = 0;
const BAR_MSIX: u8 = 1;
const STRUCTURES: u64 = 0x4000;
const ISR: u64 = 0x1000;
const NOTIFY: u64 = 0x3000;
const MSIX_SIZE: u32 = 0x1000;
/// Table entries: one for the configuration, one for the queue.
const VECTORS: u16 = 2;

/// Bits of the interrupt status.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// Where random bytes come from.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// The function. `A` is the address space that its driver's addresses mean: guest memory behind an
/// IOMMU.
///
/// No access to a BAR does DMA: a notification wakes the worker through the [`Waker`], and whoever
/// calls [`step`](Self::step) serves the queue. A ring that makes no sense or an address that the
/// IOMMU refuses sets `DEVICE_NEEDS_RESET` and stops the queue until the driver resets the device.
pub struct VirtioRng<A> {
    memory: A,
    irq: Arc<dyn IrqSink>,
    waker: Waker,
    state: Mutex<State>,
    /// Held while a thread steps. Taken before `state`, never inside it.
    worker: Mutex<Worker>,
}

struct State {
    config: ConfigSpace,
    msix: MsixTable,
    common: Common,
    isr: u8,
    /// A notification that the worker has not seen.
    kicked: bool,
    /// The worker uses the rings at the moment.
    working: bool,
    /// Moves with every reset, so that the worker forgets its queue.
    generation: u64,
}

struct Worker {
    entropy: Entropy,
    generation: u64,
    queue: Option<virtio_queue::Queue>,
}

impl<A> fmt::Debug for VirtioRng<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VirtioRng")
    }
}

/// A virtio PCI capability: its type, where the structure lies in BAR 0, and what follows.
fn capability(builder: Builder, kind: u8, offset: u64, length: u32, rest: &[u8]) -> Builder {
    let size = u8::try_from(16 + rest.len()).unwrap_or(u8::MAX);
    let mut body = vec![size, kind, BAR_STRUCTURES, 0, 0, 0];
    body.extend(u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(rest);
    // The window into the BARs (type 5) is moved and used by the guest.
    let mask = |i| {
        if kind == 5 && (i == 2 || i >= 6) {
            0xff
        } else {
            0
        }
    };
    let writable: Vec<u8> = (0..body.len()).map(mask).collect();
    builder.vendor(&body, &writable)
}

fn space(signals: Signals) -> Result<ConfigSpace, Impossible> {
    let mut builder = Builder::new(IDENTITY)
        .bar(BAR_STRUCTURES, Bar::memory32(STRUCTURES))
        .intx()
        .express(Port::Integrated, false);
    if signals == Signals::Messages {
        builder = builder
            .bar(BAR_MSIX, Bar::memory32(u64::from(MSIX_SIZE)))
            .msix(MsixCapability {
                vectors: VECTORS,
                table: (BAR_MSIX, 0),
                pending: (BAR_MSIX, MSIX_SIZE / 2),
            });
    }
    builder = capability(builder, 1, 0, common::SIZE, &[]);
    // All queues are notified at one place: a multiplier of 0.
    builder = capability(builder, 2, NOTIFY, 4, &[0; 4]);
    builder = capability(builder, 3, ISR, 1, &[]);
    builder = capability(builder, 5, 0, 0, &[0; 4]);
    builder.build()
}

impl<A: GuestAddressSpace> VirtioRng<A> {
    /// A device that fills the driver's buffers from `entropy`. It has a pin in either case; with
    /// [`Signals::Messages`], MSI-X too.
    ///
    /// # Errors
    /// None that can happen: the configuration space is the same each time.
    pub fn new(
        memory: A,
        entropy: Entropy,
        irq: Arc<dyn IrqSink>,
        waker: Waker,
        signals: Signals,
    ) -> Result<Self, Impossible> {
        Ok(Self {
            memory,
            irq,
            waker,
            state: Mutex::new(State {
                config: space(signals)?,
                msix: MsixTable::new(VECTORS),
                common: Common::default(),
                isr: 0,
                kicked: false,
                working: false,
                generation: 0,
            }),
            worker: Mutex::new(Worker {
                entropy,
                generation: 0,
                queue: None,
            }),
        })
    }

    /// Serves some of what the driver has offered. One thread does the work: another that comes
    /// meanwhile is told that there is nothing to do.
    pub fn step(&self) -> Step {
        let mut worker = match self.worker.try_lock() {
            Ok(worker) => worker,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Step::Idle(None),
        };
        if !self.begin(&mut worker) {
            return Step::Idle(None);
        }
        let Worker {
            entropy,
            generation,
            queue,
        } = &mut *worker;
        let memory = self.memory.memory();
        let stopped = || {
            let state = self.state();
            state.generation != *generation || !state.config.bus_master()
        };
        let served = match queue {
            Some(queue) => queue::serve(queue, &memory, entropy, &stopped),
            None => Err(queue::Broken),
        };
        let more = served.is_ok_and(|served| served.more);
        let interrupt = self.end(&worker, served);
        if let Some((kind, vector)) = interrupt {
            self.irq.raise(kind, vector);
        }
        if more {
            Step::Worked
        } else {
            // A notification may have come meanwhile.
            let kicked = self.state().may_work();
            if kicked {
                Step::Worked
            } else {
                Step::Idle(None)
            }
        }
    }

    /// Takes a notification up, if there is one; false when there is nothing to do.
    fn begin(&self, worker: &mut Worker) -> bool {
        let mut state = self.state();
        if worker.generation != state.generation {
            worker.generation = state.generation;
            worker.queue = None;
        }
        if !state.may_work() {
            return false;
        }
        state.kicked = false;
        state.working = true;
        if worker.queue.is_none() {
            worker.queue = queue::open(&state.common.queue);
        }
        true
    }

    /// Takes note of what was served; returns the interrupt to raise.
    fn end(
        &self,
        worker: &Worker,
        served: Result<queue::Served, queue::Broken>,
    ) -> Option<(InterruptKind, u16)> {
        let mut state = self.state();
        state.working = false;
        state.common.linger(0);
        if worker.generation != state.generation {
            return None;
        }
        match served {
            Ok(served) => {
                state.kicked |= served.more;
                let vector = state.common.queue.vector;
                if served.used {
                    state.raise(ISR_QUEUE, vector)
                } else {
                    None
                }
            }
            Err(queue::Broken) => {
                state.common.needs_reset();
                let vector = state.common.config_vector;
                state.raise(ISR_CONFIG, vector)
            }
        }
    }
}

impl<A> VirtioRng<A> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there is a notification, and a driver that is ready for its consequences.
    fn may_work(&self) -> bool {
        self.kicked && self.config.bus_master() && self.common.is_live()
    }

    /// The interrupt that tells the driver of `cause`.
    fn raise(&mut self, cause: u8, vector: u16) -> Option<(InterruptKind, u16)> {
        if self.config.msix().enabled {
            let send = vector != NO_VECTOR && self.config.bus_master();
            return send.then_some((InterruptKind::Msix, vector));
        }
        self.isr |= cause;
        self.config.set_intx(true);
        (!self.config.intx_disabled()).then_some((InterruptKind::Intx, 0))
    }

    /// What the driver's reset and each other reset have in common.
    fn reset_device(&mut self) {
        let before = self.common.reset();
        // A second reset before the first is complete finds a status of 0; the first one's stays.
        if self.working && before != 0 {
            self.common.linger(before);
        }
        self.isr = 0;
        self.config.set_intx(false);
        self.kicked = false;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests;
