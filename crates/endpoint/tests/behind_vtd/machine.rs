//! A scripted guest with the VT-d model under it, and a DMA engine behind that.

use endpoint::dma_engine::{DmaEngine, Setup};
use endpoint::{Config, Memory, Ports, Step};
use iopf::{Pasid, Rid};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use testkit::vtd::{self, Guest};
use testkit::{Driver, Interrupts, Mm, Ram};
use viommu::mem::GuestRam;
use viommu::vtd::VtdUnit;
use viommu_api::{Endpoint, InterruptKind, IrqSink, PciFunction};
use vm_memory::GuestMemoryMmap;

pub(crate) type Unit = VtdUnit<Arc<GuestMemoryMmap>>;

pub(crate) const ENGINE: Rid = Rid(0x0020); // 00:04.0

#[derive(Default)]
pub(crate) struct Irqs(pub(crate) Mutex<Vec<(InterruptKind, u16)>>);

impl IrqSink for Irqs {
    fn raise(&self, kind: InterruptKind, vector: u16) {
        self.0.lock().unwrap().push((kind, vector));
    }
}

pub(crate) struct Machine {
    pub(crate) ram: Arc<Ram>,
    pub(crate) unit: Arc<Unit>,
    pub(crate) guest: Guest,
    pub(crate) engine: Arc<DmaEngine>,
}

impl Machine {
    pub(crate) fn new(scalable: bool) -> Self {
        let ram = Arc::new(Ram::new(64 << 20).unwrap());
        let irqs = Arc::new(Interrupts::new());
        let setup = viommu::vtd::Setup {
            config: viommu::vtd::Config::default(),
            ram: GuestRam::new(ram.memory()),
        };
        let unit = Arc::new(VtdUnit::new(setup, irqs.clone()).unwrap());
        let setup = vtd::Setup {
            scalable,
            ..vtd::Setup::default()
        };
        let guest = Guest::boot(unit.clone(), ram.clone(), irqs, setup).unwrap();
        let setup = Setup {
            rid: ENGINE,
            config: Config::default(),
            ports: Ports::of(unit.clone()),
            memory: Arc::new(Memory(ram.memory())),
            irq: Arc::new(Irqs::default()),
            waker: Arc::new(|| {}),
        };
        let engine = Arc::new(DmaEngine::new(setup).unwrap());
        let endpoint: Arc<dyn Endpoint> = engine.clone();
        let endpoint: Weak<dyn Endpoint> = Arc::downgrade(&endpoint);
        unit.attach(ENGINE, endpoint);
        engine.write_config(0x04, &[6, 0]);
        Self {
            ram,
            unit,
            guest,
            engine,
        }
    }

    /// Bound to an address space, with everything on, as Linux does it.
    pub(crate) fn shared() -> (Self, Arc<Mm>) {
        let machine = Self::new(true);
        machine.guest.probe(ENGINE, true, 0).unwrap();
        let mm = Arc::new(Mm::new(&machine.ram, Pasid::truncate(5), 4).unwrap());
        machine.guest.bind(ENGINE, &mm).unwrap();
        for (at, bytes) in [
            (0x11e, [1, 0]),
            (0x106, [0, 0x80]),
            (0x10c, [2, 0]),
            (0x114, [64, 0]),
            (0x10c, [1, 0]),
        ] {
            machine.engine.write_config(at, &bytes);
        }
        (machine, mm)
    }

    pub(crate) fn go(&self, channel: u64, pasid: u32, control: u32, from: u64, to: u64, len: u32) {
        let base = channel * 0x1000;
        let put = |at: u64, bytes: &[u8]| self.engine.write_bar(0, base + at, bytes);
        put(0x08, &from.to_le_bytes());
        put(0x10, &to.to_le_bytes());
        put(0x18, &len.to_le_bytes());
        put(0x1c, &pasid.to_le_bytes());
        put(0x20, &(control | 1 << 31).to_le_bytes());
    }

    pub(crate) fn u32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.engine.read_bar(0, at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Steps the engine and lets the guest handle its interrupts until nothing is under way.
    pub(crate) fn run(&self) {
        let start = Instant::now();
        while self.engine.busy() > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "never over");
            if self.engine.step(start.elapsed()) != Step::Worked {
                self.guest.service();
            }
        }
    }
}
