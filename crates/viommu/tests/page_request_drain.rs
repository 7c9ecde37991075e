//! Draining page requests: an invalidation wait does not complete while one is on its way into the
//! queue, or software would find a request of an address space that it has taken away and drained
//! (Linux `intel_iommu_drain_pasid_prq()`; AMD's driver does not drain, and a completion wait holds all
//! the same).

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Rid};
use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use viommu::mem::GuestRam;
use viommu::{amdvi, vtd};
use viommu_api::{InterruptKind, IrqSink, MsiSink, PageRequestOutcome, Pri, Registers};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryMmap};

type Mmap = GuestMemoryMmap<()>;

const ROOT: u64 = 0x1000;
const CONTEXT: u64 = 0x2000;
const DIRECTORY: u64 = 0x4000;
const QUEUE: u64 = 0x20000;
const PRQ: u64 = 0x30000;
const STATUS: u64 = 0x40000;

thread_local! {
    /// This thread stops where it next asks for the memory map.
    static STOPS: Cell<bool> = const { Cell::new(false) };
}

/// How far the stopped thread is: on its way, stopped, let go.
#[derive(Debug, Default)]
struct Gate(Mutex<u8>, Condvar);

impl Gate {
    fn set(&self, to: u8) {
        *self.0.lock().unwrap() = to;
        self.1.notify_all();
    }
    fn await_at_least(&self, wanted: u8) {
        let state = self.0.lock().unwrap();
        drop(self.1.wait_while(state, |state| *state < wanted).unwrap());
    }
}

/// Guest memory that a thread can be stopped at.
#[derive(Clone, Debug)]
struct Gated(Arc<Mmap>, Arc<Gate>);

impl GuestAddressSpace for Gated {
    type M = Mmap;
    type T = Arc<Mmap>;
    fn memory(&self) -> Arc<Mmap> {
        if STOPS.replace(false) {
            self.1.set(1);
            self.1.await_at_least(2);
        }
        self.0.clone()
    }
}

#[derive(Debug)]
struct Deaf;

impl MsiSink for Deaf {
    fn msi(&self, _: u64, _: u32) {}
}

impl IrqSink for Deaf {
    fn raise(&self, _: InterruptKind, _: u16) {}
}

fn memory() -> Arc<Mmap> {
    Arc::new(Mmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap())
}

fn put(memory: &Mmap, at: u64, word: u64) {
    memory.write_obj(word, GuestAddress(at)).unwrap();
}

#[test]
fn a_wait_does_not_complete_while_a_page_request_is_on_its_way_into_the_queue() {
    let (memory, gate) = (memory(), Arc::new(Gate::default()));
    let setup = vtd::Setup {
        config: vtd::Config::default(),
        ram: GuestRam::new(Gated(memory.clone(), gate.clone())),
    };
    let unit = vtd::VtdUnit::new(setup, Arc::new(Deaf)).unwrap();
    let put = |at, word| put(&memory, at, word);
    // 00:04.0 with P, DTE, PASIDE, PRE; PASID 3 with a first stage of 4 levels, domain 1.
    put(ROOT, CONTEXT | 1);
    put(CONTEXT + 0x20 * 32, DIRECTORY | 0x1d);
    put(DIRECTORY, (DIRECTORY + 0x1000) | 1);
    put(DIRECTORY + 0x1000 + 3 * 64 + 8, 1 << 23 | 1);
    put(DIRECTORY + 0x1000 + 3 * 64 + 16, 0x10000);
    put(DIRECTORY + 0x1000 + 3 * 64, 1 << 6 | 2 << 2 | 1);
    unit.write(0x90, &(QUEUE | 1 << 11).to_le_bytes());
    unit.write(0x18, &(1u32 << 26).to_le_bytes());
    unit.write(0x20, &(ROOT | 1 << 10).to_le_bytes());
    unit.write(0x18, &(1u32 << 26 | 1 << 30).to_le_bytes());
    unit.write(0x18, &(1u32 << 26 | 1 << 31).to_le_bytes());
    unit.write(0xd0, &PRQ.to_le_bytes());
    drains(&unit, &memory, &gate, || {
        // An invalidation wait with page request drain, and its status write.
        put(QUEUE, 2 << 32 | 1 << 7 | 1 << 5 | 5);
        put(QUEUE + 8, STATUS);
        unit.write(0x88, &32u32.to_le_bytes());
    });
}

#[test]
fn a_completion_wait_does_not_complete_while_a_page_request_is_on_its_way_into_the_log() {
    let (memory, gate) = (memory(), Arc::new(Gate::default()));
    let setup = amdvi::Setup {
        config: amdvi::Config::default(),
        ram: GuestRam::new(Gated(memory.clone(), gate.clone())),
    };
    let unit = amdvi::AmdviUnit::new(setup, Arc::new(Deaf)).unwrap();
    let put = |at, word| put(&memory, at, word);
    // 00:04.0 with V, TV, PPR, GV and a guest CR3 table of one level at 0x4000.
    put(ROOT + 0x20 * 32, 4 << 58 | 1 << 55 | 1 << 52 | 3);
    unit.write(0x00, &ROOT.to_le_bytes());
    unit.write(0x08, &(QUEUE | 8 << 56).to_le_bytes());
    unit.write(0x38, &(PRQ | 8 << 56).to_le_bytes());
    // IommuEn, CmdBufEn, PPRLogEn, PPREn, GTEn.
    unit.write(0x18, &0x1_b001_u64.to_le_bytes());
    drains(&unit, &memory, &gate, || {
        put(QUEUE, 1 << 60 | STATUS | 1);
        put(QUEUE + 8, 2);
        unit.write(0x2008, &16u32.to_le_bytes());
    });
}

/// A page request is stopped before it is in the queue, and `wait` makes software wait, which ends with
/// a 2 at [`STATUS`].
fn drains<U: Pri>(unit: &U, memory: &Mmap, gate: &Gate, wait: impl FnOnce() + Send) {
    let status = || memory.read_obj::<u64>(GuestAddress(STATUS)).unwrap();
    thread::scope(|scope| {
        let device = scope.spawn(|| {
            STOPS.set(true);
            let request = PageRequest {
                pasid: Pasid::new(3),
                group: GroupIndex(1),
                addr: Iova(0x7000),
                access: Access::READ,
                last: true,
                response_needs_pasid: true,
                private_data: [0; 2],
            };
            unit.page_request(Rid(0x20), &request)
        });
        gate.await_at_least(1);
        let software = scope.spawn(wait);
        thread::sleep(Duration::from_millis(100));
        let early = status();
        gate.set(2);
        assert_eq!(device.join().unwrap(), PageRequestOutcome::Queued);
        software.join().unwrap();
        assert_eq!(early, 0, "the wait completed under the request");
        assert_eq!(status(), 2, "the wait completed after it");
    });
}
