//! Scripts against the DSA.

use super::{Step, page_request_outcome, steps};
use crate::dsa::{Dsa, Setup, VECTORS};
use crate::{BusError, Config, PhysicalMemory, Ports};
use iopf::{Access, Dma, DmaKind, Gpa, GroupIndex, Iova, PageRequest, Pasid, Response, Rid};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use viommu_api::{
    Ats, AtsCompletion, Blocked, Endpoint, Granted, InterruptKind, Invalidation, IrqSink,
    PageRequestOutcome, PciFunction, Pri, Translate,
};

/// Addresses below this are mapped and have memory.
const MEMORY: usize = 1 << 16;

const DEVICE: Rid = Rid(0x38);

/// Steps of the function that one step of a script may take.
const WORK: usize = 64;

/// The IOMMU, the memory and the interrupt controller.
#[derive(Debug)]
struct World {
    allowed: AtomicBool,
    memory: Mutex<Vec<u8>>,
}

impl World {
    fn check(&self) {
        assert!(self.allowed.load(Ordering::Relaxed), "without Bus Master");
    }

    fn memory(&self) -> MutexGuard<'_, Vec<u8>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PhysicalMemory for World {
    fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), BusError> {
        assert!(into.len() <= 4096, "more than a page");
        let (start, len) = (usize::try_from(at.0).unwrap_or(usize::MAX), into.len());
        let memory = self.memory();
        let from = memory.get(start..start.saturating_add(len));
        into.copy_from_slice(from.ok_or(BusError { at, len })?);
        Ok(())
    }

    fn write(&self, at: Gpa, from: &[u8]) -> Result<(), BusError> {
        assert!(from.len() <= 4096, "more than a page");
        let (start, len) = (usize::try_from(at.0).unwrap_or(usize::MAX), from.len());
        let mut memory = self.memory();
        let into = memory.get_mut(start..start.saturating_add(len));
        into.ok_or(BusError { at, len })?.copy_from_slice(from);
        Ok(())
    }
}

fn perms(at: Iova) -> Access {
    match at.0 >> 12 {
        // One page that is never there, and one that may only be read.
        5 | 0x10.. => Access::empty(),
        6 => Access::READ,
        _ => Access::RW,
    }
}

impl Translate for World {
    fn with_translation(
        &self,
        dma: &Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked> {
        self.check();
        if dma.kind != DmaKind::Translated && !perms(dma.addr).contains(dma.access - Access::PRIV) {
            return Err(Blocked::aborted(dma.addr));
        }
        each(Gpa(dma.addr.0), len);
        Ok(())
    }
}

impl Ats for World {
    fn translation_request(&self, dma: &Dma) -> AtsCompletion {
        self.check();
        match dma.addr.0 >> 12 {
            0xfe => AtsCompletion::UnsupportedRequest,
            0xfd => AtsCompletion::CompleterAbort,
            _ => AtsCompletion::Success {
                granted: Granted {
                    pa: Gpa(dma.addr.0),
                    page_shift: 12,
                    perms: perms(dma.addr),
                },
                global: false,
            },
        }
    }
}

impl Pri for World {
    fn page_request(&self, requester: Rid, request: &PageRequest) -> PageRequestOutcome {
        self.check();
        assert_eq!(requester, DEVICE);
        page_request_outcome(request)
    }
}

impl IrqSink for World {
    fn raise(&self, kind: InterruptKind, vector: u16) {
        assert_eq!(kind, InterruptKind::Msix);
        assert!(vector < VECTORS, "vector {vector}");
    }
}

/// Plays a script against a DSA with two work queues and two engines enabled.
///
/// # Panics
/// When it sends anything that configuration space forbids, reaches beyond a page, gives a status
/// that the specification does not have, or does not come to rest after a reset.
pub fn dsa(data: &[u8]) {
    let world = Arc::new(World {
        allowed: AtomicBool::new(true),
        memory: Mutex::new(vec![0; MEMORY]),
    });
    let setup = Setup {
        rid: DEVICE,
        config: Config {
            attempts: 3,
            timeout: Duration::from_millis(50),
            ..Config::default()
        },
        ports: Ports::of(world.clone()),
        memory: world.clone(),
        irq: world.clone(),
        waker: Arc::new(|| {}),
    };
    let Ok(dsa) = Dsa::new(setup) else {
        return;
    };
    bring_up(&dsa);
    let mut now = Duration::ZERO;
    for step in steps(data) {
        play(&dsa, &world, &step, &mut now);
        let mut command = [0];
        dsa.read_config(4, &mut command);
        let allowed = command[0] & 4 != 0;
        world.allowed.store(allowed, Ordering::Relaxed);
        check(&dsa);
    }
    dsa.reset();
    assert_eq!(dsa.cached(), 0);
    world.allowed.store(false, Ordering::Relaxed);
    let rest = (0..64).any(|_| dsa.step(now) == crate::Step::Idle(None));
    assert!(rest, "still at work after a reset");
}

/// As a driver leaves it when a process has its queue.
fn bring_up(dsa: &Dsa) {
    let config: [(u16, u16); 8] = [
        (0x04, 6),
        (0x7e, 0x8000),
        (0x11e, 5),
        (0x106, 0x8000),
        (0x10c, 2),
        (0x114, 64),
        (0x116, 0),
        (0x10c, 1),
    ];
    for (at, value) in config {
        dsa.write_config(at, &value.to_le_bytes());
    }
    let registers: [(u64, u32); 9] = [
        (0x88, 3),
        (0x600, 3),
        (0x620, 3),
        (0x800, 16),
        (0x808, 1 | 1 << 1 | 5 << 8 | 1 << 28),
        (0x80c, 24 | 5 << 5),
        (0x820, 4),
        (0x828, 1 | 6 << 8 | 1 << 28),
        (0x82c, 12 | 5 << 5),
    ];
    for (at, value) in registers {
        dsa.write_bar(0, at, &value.to_le_bytes());
    }
    for command in [1u32 << 20, 6 << 20, 6 << 20 | 1] {
        dsa.write_bar(0, 0xa0, &command.to_le_bytes());
        while dsa.step(Duration::ZERO) == crate::Step::Worked {}
    }
}

/// What registers may show at any time.
fn check(dsa: &Dsa) {
    let read = |at| {
        let mut bytes = [0; 4];
        dsa.read_bar(0, at, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    let status = read(0xa8);
    assert!(status & 0x7fff_ff00 == 0, "command status {status:#x}");
    let error = read(0xc0);
    if error & 1 != 0 {
        let code = error >> 8 & 0xff;
        let known = matches!(code, 3..=6 | 0x10..=0x22 | 0x51..=0x53);
        assert!(known, "software error {error:#x}");
    }
    for wq in 0..8 {
        let state = read(0x818 + 32 * wq);
        assert!(state >> 30 < 3 && state & 0xffff <= 128, "wq {state:#x}");
    }
}

fn play(dsa: &Dsa, world: &World, step: &Step, now: &mut Duration) {
    let pasid = (step.detail & 0x20 != 0).then(|| Pasid::truncate(u32::from(step.number)));
    match step.kind % 10 {
        0 => dsa.write_bar(0, u64::from(step.at & 0x1_ffff), step.data()),
        1 => {
            let portal = u64::from(step.number % 9) * 0x4000;
            dsa.write_bar(2, portal + u64::from(step.at & 0x3fff), step.data());
        }
        2 => dsa.write_config(step.config_offset(), step.data()),
        3 => {
            let ([bar, ..], mut bytes) = (step.number.to_le_bytes(), [0; 16]);
            dsa.read_bar(bar, u64::from(step.at), &mut bytes);
            dsa.read_config(step.config_offset(), &mut bytes);
        }
        4 => {
            *now += Duration::from_millis(u64::from(step.detail));
            for _ in 0..WORK {
                if dsa.step(*now) != crate::Step::Worked {
                    break;
                }
            }
        }
        5 => {
            let response = match step.detail & 3 {
                0 => Response::Failure,
                1 => Response::Invalid,
                _ => Response::Success,
            };
            dsa.page_response(pasid, GroupIndex(step.at & 0x1ff), response);
        }
        6 => dsa.invalidate(&Invalidation {
            pasid,
            global: step.detail & 0x40 != 0,
            addr: Iova(step.word()),
            size_shift: step.detail % 65,
        }),
        7 => {
            // A descriptor in one step, so that a script gets far.
            let wq = u64::from(step.detail >> 7);
            dsa.write_bar(2, wq * 0x4000 + 0x1000, &descriptor(step));
        }
        8 => {
            let at = usize::try_from(step.at).unwrap_or(0) % (MEMORY - 64);
            let mut memory = world.memory();
            let (from, len) = (step.data(), step.data().len());
            memory[at..at + len].copy_from_slice(from);
            if step.detail & 0x80 != 0 {
                memory[at..at + 64].copy_from_slice(&descriptor(step));
            }
        }
        _ if step.detail == 0xff => dsa.reset(),
        // A command.
        _ => {
            let command = step.at & 0x8000_ffff | u32::from(step.detail & 0xf) << 20;
            dsa.write_bar(0, 0xa0, &command.to_le_bytes());
        }
    }
}

/// Operation and flags from `number`, size from `at`, the addresses from the value: the page of the
/// record, then the two buffers.
fn descriptor(step: &Step) -> [u8; 64] {
    let [operation, flags] = step.number.to_le_bytes();
    let [record, _, f0, f1, f2, s0, s1, s2] = step.value;
    let mut bytes = [0; 64];
    bytes[4] = flags;
    bytes[7] = operation & 0xf;
    if flags & 4 != 0 {
        bytes[8..10].copy_from_slice(&(u16::from(record) << 5).to_le_bytes());
    }
    bytes[16..19].copy_from_slice(&[f0, f1, f2]);
    bytes[24..27].copy_from_slice(&[s0, s1, s2]);
    bytes[32..36].copy_from_slice(&(step.at >> 8).to_le_bytes());
    if flags & 0x10 != 0 {
        bytes[36] = step.at.to_le_bytes()[0];
    }
    bytes
}
