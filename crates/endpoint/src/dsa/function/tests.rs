//! The function as a driver and a process see it.

mod batch;
mod bring_up;
mod commands;
mod faults;
mod hostile;
mod operations;

use super::*;
use crate::{Memory, Ports};
use iopf::{Access, GroupIndex, Pasid, Response, Rid};
use std::sync::atomic::{AtomicU32, Ordering};
use testkit::{FakeClock, FakeIommu, Ram};
use viommu_api::{Endpoint, PciFunction};

const RID: Rid = Rid(0x30);
const PASID: Option<Pasid> = Pasid::new(5);

// Registers and commands, typed from the specification.
const GENCFG: u64 = 0x80;
const GENCTRL: u64 = 0x88;
const GENSTS: u64 = 0x90;
const INTCAUSE: u64 = 0x98;
const CMD: u64 = 0xa0;
const CMDSTATUS: u64 = 0xa8;
const SWERROR: u64 = 0xc0;
const PERMISSIONS: u64 = 0x400;
const GROUP_TABLE: u64 = 0x600;
const WQ_TABLE: u64 = 0x800;

const ENABLE_DEVICE: u32 = 1 << 20;
const DISABLE_DEVICE: u32 = 2 << 20;
const DRAIN_ALL: u32 = 3 << 20;
const ABORT_ALL: u32 = 4 << 20;
const RESET_DEVICE: u32 = 5 << 20;
const ENABLE_WQ: u32 = 6 << 20;
const DISABLE_WQ: u32 = 7 << 20;
const DRAIN_WQ: u32 = 8 << 20;
const RESET_WQ: u32 = 10 << 20;
const DRAIN_PASID: u32 = 11 << 20;
const ABORT_PASID: u32 = 12 << 20;
const INTERRUPT: u32 = 1 << 31;

// Flags, as in include/uapi/linux/idxd.h.
const FENCE: u32 = 0x1;
const BOF: u32 = 0x2;
const CRAV: u32 = 0x4;
const RCR: u32 = 0x8;
const RCI: u32 = 0x10;
const CR: u32 = 0x80;

#[derive(Default)]
struct Irqs(Mutex<Vec<u16>>);

impl IrqSink for Irqs {
    fn raise(&self, kind: InterruptKind, vector: u16) {
        assert_eq!(kind, InterruptKind::Msix);
        self.0.lock().unwrap().push(vector);
    }
}

/// 64 bytes, written field by field at the offsets of the specification.
#[derive(Clone, Copy, Debug)]
struct Desc([u8; 64]);

impl Desc {
    fn new(operation: u8, flags: u32) -> Self {
        let mut desc = Self([0; 64]);
        desc.0[7] = operation;
        desc.0[4..7].copy_from_slice(&flags.to_le_bytes()[..3]);
        desc
    }

    fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn record(self, at: u64) -> Self {
        self.put(8, &at.to_le_bytes())
    }

    fn first(self, at: u64) -> Self {
        self.put(16, &at.to_le_bytes())
    }

    fn second(self, at: u64) -> Self {
        self.put(24, &at.to_le_bytes())
    }

    fn size(self, size: u32) -> Self {
        self.put(32, &size.to_le_bytes())
    }

    fn handle(self, handle: u16) -> Self {
        self.put(36, &handle.to_le_bytes())
    }
}

/// What a completion record says.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    status: u8,
    result: u8,
    completed: u32,
    fault: u64,
}

struct Bench {
    iommu: Arc<FakeIommu>,
    ram: Ram,
    irqs: Arc<Irqs>,
    wakes: Arc<AtomicU32>,
    clock: FakeClock,
    dsa: Dsa,
}

/// Where completion records go: a mapped page.
const RECORDS: u64 = 0x1_0000;
/// Physical pages of the process begin here.
const PHYSICAL: u64 = 0x20_0000;

impl Bench {
    /// After power-on.
    fn cold() -> Self {
        let iommu = Arc::new(FakeIommu::new());
        let ram = Ram::new(32 << 20).unwrap();
        let irqs = Arc::new(Irqs::default());
        let wakes = Arc::new(AtomicU32::new(0));
        let woken = wakes.clone();
        let dsa = Dsa::new(Setup {
            rid: RID,
            config: Config::default(),
            ports: Ports::of(iommu.clone()),
            memory: Arc::new(Memory(ram.memory())),
            irq: irqs.clone(),
            waker: Arc::new(move || {
                woken.fetch_add(1, Ordering::SeqCst);
            }),
        });
        Self {
            iommu,
            ram,
            irqs,
            wakes,
            clock: FakeClock::new(),
            dsa: dsa.unwrap(),
        }
    }

    /// The PCI switches as Linux leaves them with an IOMMU that does SVA.
    fn pci_enable(&self) {
        self.dsa.write_config(0x04, &[6, 0]); // memory, bus master
        self.dsa.write_config(0x7e, &0x8000u16.to_le_bytes()); // MSI-X
        self.dsa.write_config(0x11e, &[5, 0]); // PASID, privileged
        self.dsa.write_config(0x106, &[0, 0x80]); // ATS
        self.dsa.write_config(0x10c, &[2, 0]); // PRI: reset, allocation, enable
        self.dsa.write_config(0x114, &64u32.to_le_bytes());
        self.dsa.write_config(0x10c, &[1, 0]);
    }

    /// A dedicated work queue 0 of 16 entries for PASID 5, with block on fault, enabled; and the page
    /// for completion records.
    fn new() -> Self {
        let bench = Self::cold();
        bench.pci_enable();
        bench.set(GENCTRL, 3);
        bench.set64(GROUP_TABLE, 1);
        bench.set64(GROUP_TABLE + 32, 1);
        bench.set(WQ_TABLE, 16);
        bench.set(WQ_TABLE + 8, 1 | 1 << 1 | 5 << 8 | 1 << 28);
        bench.set(WQ_TABLE + 12, 21 | 5 << 5);
        assert_eq!(bench.command(ENABLE_DEVICE), 0);
        assert_eq!(bench.command(ENABLE_WQ), 0);
        bench.map(RECORDS, Access::RW);
        bench
    }

    fn set(&self, at: u64, value: u32) {
        self.dsa.write_bar(0, at, &value.to_le_bytes());
    }

    fn set64(&self, at: u64, value: u64) {
        self.dsa.write_bar(0, at, &value.to_le_bytes());
    }

    fn get(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.dsa.read_bar(0, at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn get64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.dsa.read_bar(0, at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn state(&self) -> u32 {
        self.get(GENSTS) & 3
    }

    fn wq_state(&self, wq: u64) -> u32 {
        self.get(WQ_TABLE + 32 * wq + 24) >> 30
    }

    /// Steps until idle.
    fn run(&self) {
        for _ in 0..1_000_000 {
            if let Step::Idle(_) = self.dsa.step(self.clock.now()) {
                return;
            }
        }
        panic!("never idle");
    }

    /// Carries out a command and gives its status.
    fn command(&self, command: u32) -> u32 {
        self.set(CMD, command);
        assert_eq!(self.get(CMDSTATUS), 1 << 31, "it is not done on the spot");
        self.run();
        self.get(CMDSTATUS)
    }

    fn interrupts(&self) -> Vec<u16> {
        std::mem::take(&mut *self.irqs.0.lock().unwrap())
    }

    /// The physical page behind a page of the process.
    fn physical(at: u64) -> Gpa {
        Gpa(PHYSICAL + (at & 0xff_ffff))
    }

    fn map(&self, at: u64, perms: Access) {
        self.iommu.map(PASID, Iova(at), Self::physical(at), perms);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.ram.write(Self::physical(at), bytes);
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(Self::physical(at), &mut bytes);
        bytes
    }

    /// Stores a descriptor to the limited portal of a work queue, as a processor without MOVDIR64B.
    fn store(&self, wq: u64, desc: &Desc) {
        let portal = wq * 4 * 4096 + 4096;
        for (at, word) in (portal..).step_by(8).zip(desc.0.chunks(8)) {
            self.dsa.write_bar(2, at, word);
        }
    }

    /// Submits a descriptor to work queue 0 with a completion record, and runs as far as it goes.
    fn submit(&self, desc: Desc) -> Record {
        self.write(RECORDS, &[0; 32]);
        self.store(0, &desc.record(RECORDS));
        self.run();
        self.record(RECORDS)
    }

    fn record(&self, at: u64) -> Record {
        let bytes = self.read(at, 32);
        Record {
            status: bytes[0],
            result: bytes[1],
            completed: u32::from_le_bytes(bytes[4..8].try_into().unwrap()),
            fault: u64::from_le_bytes(bytes[8..16].try_into().unwrap()),
        }
    }

    /// The pages that were requested since the last time, with what for.
    fn asked(&self) -> Vec<(u64, Access)> {
        let requests = self.iommu.take_requests();
        requests.iter().map(|(_, r)| (r.addr.0, r.access)).collect()
    }

    fn answer(&self, group: u32, response: Response) {
        self.dsa.page_response(PASID, GroupIndex(group), response);
        self.run();
    }

    /// Error code in the software error register; it is acknowledged.
    fn error(&self) -> Option<u8> {
        let head = self.get64(SWERROR);
        self.set64(SWERROR, 3);
        (head & 1 != 0).then(|| head.to_le_bytes()[1])
    }
}

fn done(status: u8) -> Record {
    Record {
        status,
        result: 0,
        completed: 0,
        fault: 0,
    }
}

const MOVE: u8 = 3;
const FILL: u8 = 4;
const COMPARE: u8 = 5;
const COMPARE_PATTERN: u8 = 6;
