//! Scripts against the DMA engine.

use super::{Step, page_request_outcome, steps};
use crate::dma_engine::{DmaEngine, Setup};
use crate::{BusError, Config, PhysicalMemory, Ports};
use iopf::{Access, Dma, DmaKind, Gpa, GroupIndex, Iova, PageRequest, Pasid, Response, Rid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use viommu_api::{
    Ats, AtsCompletion, Blocked, Endpoint, Granted, InterruptKind, Invalidation, IrqSink,
    PageRequestOutcome, PciFunction, Pri, Translate,
};

/// Addresses below this are mapped and have memory.
const MAPPED: u64 = 1 << 20;

const DEVICE: Rid = Rid(0x20);

/// Steps of the engine that one step of a script may take.
const WORK: usize = 64;

/// The IOMMU, the memory and the interrupt controller.
#[derive(Debug, Default)]
struct World {
    /// The guest allows DMA, or has broken the device so that it does not ask.
    allowed: AtomicBool,
}

impl World {
    fn check(&self) {
        assert!(self.allowed.load(Ordering::Relaxed), "without Bus Master");
    }
}

impl PhysicalMemory for World {
    fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), BusError> {
        into.fill(0x5a);
        reach(at, into.len())
    }

    fn write(&self, at: Gpa, from: &[u8]) -> Result<(), BusError> {
        reach(at, from.len())
    }
}

fn reach(at: Gpa, len: usize) -> Result<(), BusError> {
    assert!(len <= 4096, "more than a page");
    match at.0.checked_add(len as u64) {
        Some(end) if end <= MAPPED => Ok(()),
        _ => Err(BusError { at, len }),
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
        if dma.kind != DmaKind::Translated && dma.addr.0 >= MAPPED {
            return Err(Blocked::aborted(dma.addr));
        }
        each(Gpa(dma.addr.0), len);
        Ok(())
    }
}

impl Ats for World {
    fn translation_request(&self, dma: &Dma) -> AtsCompletion {
        self.check();
        match dma.addr.0 >> 12 & 0xff {
            0xfe => AtsCompletion::UnsupportedRequest,
            0xfd => AtsCompletion::CompleterAbort,
            page => AtsCompletion::Success {
                granted: Granted {
                    pa: Gpa(dma.addr.0),
                    page_shift: 12,
                    perms: if dma.addr.0 < MAPPED && page & 7 != 7 {
                        Access::RW
                    } else {
                        Access::empty()
                    },
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
        assert!(vector < 8, "vector {vector}");
    }
}

/// Plays a script against the DMA engine.
///
/// # Panics
/// When it sends anything that configuration space forbids, writes outside of a page, or does not
/// come to rest after a reset.
pub fn dma_engine(data: &[u8]) {
    let world = Arc::new(World::default());
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
    let Ok(engine) = DmaEngine::new(setup) else {
        return;
    };
    let mut now = Duration::ZERO;
    let mut unruly = false;
    for step in steps(data) {
        play(&engine, &step, &mut now, &mut unruly);
        let mut command = [0];
        engine.read_config(4, &mut command);
        let allowed = unruly || command[0] & 4 != 0;
        world.allowed.store(allowed, Ordering::Relaxed);
    }
    engine.reset();
    assert_eq!((engine.busy(), engine.cached()), (0, 0));
    world.allowed.store(false, Ordering::Relaxed);
    let rest = (0..64).any(|_| engine.step(now) == crate::Step::Idle(None));
    assert!(rest, "still at work after a reset");
}

fn play(engine: &DmaEngine, step: &Step, now: &mut Duration, unruly: &mut bool) {
    let pasid = (step.detail & 0x20 != 0).then(|| Pasid::truncate(u32::from(step.number)));
    match step.kind % 8 {
        0 => {
            let channel = u64::from(step.number % 9) * 0x1000;
            let offset = channel + u64::from(step.at & 0xfff);
            engine.write_bar(0, offset, step.data());
            for flags in (0..8u64).map(|channel| channel * 0x1000 + 0x60) {
                let mut byte = [0];
                engine.read_bar(0, flags, &mut byte);
                *unruly |= byte[0] & 4 != 0;
            }
        }
        1 => {
            let [bar, ..] = step.number.to_le_bytes();
            let mut bytes = [0; 16];
            engine.read_bar(bar, u64::from(step.at), &mut bytes);
        }
        2 => engine.write_config(step.config_offset(), step.data()),
        3 => {
            let mut bytes = [0; 16];
            engine.read_config(step.config_offset(), &mut bytes);
        }
        4 => {
            *now += Duration::from_millis(u64::from(step.detail));
            for _ in 0..WORK {
                if engine.step(*now) != crate::Step::Worked {
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
            engine.page_response(pasid, GroupIndex(step.at & 0x1ff), response);
        }
        6 => engine.invalidate(&Invalidation {
            pasid,
            global: step.detail & 0x40 != 0,
            addr: Iova(step.word()),
            size_shift: step.detail % 65,
        }),
        _ if step.detail == 0xff => engine.reset(),
        _ => engine.write_bar(1, u64::from(step.at & 0xfff), step.data()),
    }
}
