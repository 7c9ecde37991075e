//! A fault of the host becomes a page request in a guest's VT-d queue, and the guest's page-group
//! response the answer on the fault descriptor.
//!
//! The descriptor is one in memory; the guest is scripted, and drives the unit as Linux does. The same
//! on the kernel's own descriptor: `crates/testkit/tests/rig_inject.rs`.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy};
use iopf::resolve::Injector;
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Reason, Response, Rid, Unrecoverable};
use iopf_host::fake::FakeFile;
use iopf_host::pump::{PumpCounts, Stopped};
use iopf_host::{FaultQueue, Pump, PumpHandle, Shared};
use iopf_rig::join::{self, Answers};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use testkit::vtd::numbers::page_group_response;
use testkit::vtd::{Guest, Setup};
use testkit::{Backing, Driver, Interrupts, Mm, Prot, Ram};
use viommu::Injection;
use viommu::mem::GuestRam;
use viommu::vtd::{Vtd, VtdUnit};
use vm_memory::GuestMemoryMmap;

type Memory = Arc<GuestMemoryMmap>;
type Unit = VtdUnit<Memory>;

const RID: Rid = Rid(0x0020); // 00:04.0
const DEVICE: DeviceId = DeviceId(RID.0);
const PASID: Pasid = Pasid::truncate(5);
/// The number of the iommufd object.
const DEV_ID: u32 = 3;
const BASE: u64 = 0x7f00_0000_0000;
/// Mapped pages from the base on.
const PAGES: u64 = 64;
const LONG: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(60);

const NESTED: Attachment = Attachment {
    nested: true,
    ..Attachment::new(DomainId(1))
};

struct Machine {
    ram: Arc<Ram>,
    irqs: Arc<Interrupts>,
    unit: Arc<Unit>,
    guest: Guest,
    mm: Arc<Mm>,
    file: FakeFile,
    injector: Shared<Injector<Injection<Vtd, Memory>>>,
    answers: Arc<Answers>,
    pump: PumpHandle<FakeFile>,
    ended: HashMap<u64, Response>,
    thread: Option<JoinHandle<Stopped>>,
}

/// The guest's kernel comes up, and binds the device to an address space.
fn boot(unit: &Arc<Unit>, ram: &Arc<Ram>, irqs: &Arc<Interrupts>, order: u8) -> (Guest, Arc<Mm>) {
    let setup = Setup {
        scalable: true,
        prq_order: order,
    };
    let guest = Guest::boot(unit.clone(), ram.clone(), irqs.clone(), setup).unwrap();
    guest.probe(RID, true, 0).unwrap();
    let mm = Arc::new(Mm::new(ram, PASID, 4).unwrap());
    mm.mmap(Iova(BASE), PAGES, Prot::RW, Backing::Zero);
    guest.bind(RID, &mm).unwrap();
    (guest, mm)
}

impl Machine {
    /// The guest's page request queue has `4096 << order` bytes.
    fn new(timeout: Duration, order: u8) -> Self {
        let ram = Arc::new(Ram::new(64 << 20).unwrap());
        let irqs = Arc::new(Interrupts::new());
        let setup = viommu::vtd::Setup {
            config: viommu::vtd::Config::default(),
            ram: GuestRam::new(ram.memory()),
        };
        let unit = Arc::new(VtdUnit::new(setup, irqs.clone()).unwrap());

        let policy = Policy::default().with_timeout(Some(timeout));
        let mut pump = Pump::new(Engine::new(policy), drop).unwrap();
        let file = FakeFile::new();
        let queue = pump.add_queue(FaultQueue::new(file.clone())).unwrap();
        let injector = join::injector(&unit);
        let config = DeviceConfig::default();
        pump.add_device(DEVICE, config, injector.clone()).unwrap();
        assert!(pump.route(queue, DEV_ID, DEVICE));
        for space in [None, Some(PASID)] {
            let kernel = || {
                file.attach(DEV_ID, space);
                Ok::<_, Infallible>(())
            };
            pump.attach(DEVICE, space, NESTED, kernel).unwrap();
        }
        let handle = pump.handle();
        let answers = join::join(&unit, RID, DEVICE, injector.clone(), handle.clone());
        let (guest, mm) = boot(&unit, &ram, &irqs, order);
        let thread = thread::spawn(move || pump.run().unwrap());
        Self {
            ram,
            irqs,
            unit,
            guest,
            mm,
            file,
            injector,
            answers,
            pump: handle,
            ended: HashMap::new(),
            thread: Some(thread),
        }
    }

    /// The device asks for these pages of its address space, in group `index`, once: how it ends is
    /// found under `number`.
    fn ask(&self, number: u64, index: u32, pages: &[u64]) {
        for (i, addr) in pages.iter().enumerate() {
            let page = PageRequest {
                pasid: Some(PASID),
                group: GroupIndex(index),
                addr: Iova(*addr),
                access: Access::WRITE,
                last: i + 1 == pages.len(),
                response_needs_pasid: true,
                private_data: [number, 0],
            };
            self.file.page(DEV_ID, page);
        }
    }

    fn ended(&mut self, number: u64) -> Option<Response> {
        for ended in self.file.ended() {
            let twice = self.ended.insert(ended.group, ended.response);
            assert_eq!(twice, None, "group {} was answered twice", ended.group);
        }
        self.ended.get(&number).copied()
    }

    /// Waits for the end of a group, while the guest does nothing.
    fn wait(&mut self, number: u64) -> Response {
        self.wait_with(number, |_| ())
    }

    /// Waits for the end of a group, while the guest handles its interrupts.
    fn serve(&mut self, number: u64) -> Response {
        self.wait_with(number, |machine| {
            machine.guest.service();
        })
    }

    fn wait_with(&mut self, number: u64, meanwhile: impl Fn(&Self)) -> Response {
        let start = Instant::now();
        loop {
            if let Some(response) = self.ended(number) {
                return response;
            }
            assert!(start.elapsed() < PATIENCE, "group {number} never ends");
            meanwhile(self);
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until as many page requests came into the guest's queue.
    fn queued(&self, requests: u64) {
        let start = Instant::now();
        while self.unit.counters().page_requests < requests {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.unit.counters());
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn counts(&self) -> PumpCounts {
        self.pump.exclusive(|pump| pump.counts()).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be gone already, with a message of its own.
        let _ = self.pump.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_guest_resolves_a_fault_of_the_hosts_descriptor() {
    let mut machine = Machine::new(LONG, 4);
    // Four pages in a group; the guest makes them present and says so.
    let pages: Vec<u64> = (0..4).map(|page| BASE + page * 0x1000).collect();
    machine.ask(1, 7, &pages);
    assert_eq!(machine.serve(1), Response::Success);
    assert!(pages.iter().all(|page| machine.mm.is_present(Iova(*page))));
    // What its process may not touch, it refuses.
    machine.ask(2, 8, &[BASE, BASE + PAGES * 0x1000]);
    assert_eq!(machine.serve(2), Response::Invalid);
    // Many at once, each index for itself.
    for number in 0..100 {
        let page = BASE + number % PAGES * 0x1000;
        machine.ask(100 + number, 16 + u32::try_from(number).unwrap(), &[page]);
    }
    for number in 0..100 {
        assert_eq!(machine.serve(100 + number), Response::Success);
    }
    let seen = machine.guest.page_requests();
    assert_eq!((seen.requests, seen.success, seen.invalid), (106, 101, 1));
    assert_eq!(machine.counts().late, 0);
}

#[test]
fn a_guest_that_never_answers_leaves_it_to_the_deadline_and_its_late_answer_hits_nothing() {
    let mut machine = Machine::new(Duration::from_millis(50), 4);
    machine.ask(1, 7, &[BASE]);
    assert_eq!(machine.wait(1), Response::Invalid);
    // It still owes that answer, so another group of that index is not for it.
    machine.ask(2, 7, &[BASE + 0x1000]);
    assert_eq!(machine.wait(2), Response::Invalid);
    machine.queued(1);
    let start = Instant::now();
    while machine.counts().late == 0 {
        machine.guest.service();
        assert!(start.elapsed() < PATIENCE);
    }
    let seen = machine.guest.page_requests();
    assert_eq!(
        (seen.requests, seen.success),
        (1, 1),
        "it never saw the second"
    );
    // An answer to nothing at all, of a PASID that nobody has.
    let wild = page_group_response(RID.pci(), Some(99), 7, 0);
    machine.guest.submit(&[wild]).unwrap();
    assert_eq!(machine.counts().late, 1);
    assert_eq!(machine.answers.lost(), 0);
}

#[test]
fn a_guest_that_is_slow_but_sure_resolves_the_next_group_of_the_index() {
    let mut machine = Machine::new(LONG, 4);
    for round in 0..20 {
        machine.ask(round, 7, &[BASE + round * 0x1000]);
        machine.queued(round + 1);
        assert_eq!(machine.ended(round), None, "nobody spoke for the guest");
        assert_eq!(machine.serve(round), Response::Success);
    }
}

#[test]
fn a_full_queue_has_the_device_ask_again_and_nothing_is_lost() {
    let mut machine = Machine::new(LONG, 0);
    // 128 entries, one of which stays free; the guest does not look.
    for number in 0..130 {
        let page = BASE + number % PAGES * 0x1000;
        machine.ask(number, u32::try_from(number).unwrap(), &[page]);
    }
    // What found no room is answered at once: SUCCESS without the page, so the device retries.
    for number in 127..130 {
        assert_eq!(machine.wait(number), Response::Success);
        assert_eq!(machine.ended(number - 127), None);
    }
    for number in 0..127 {
        assert_eq!(machine.serve(number), Response::Success);
    }
    let seen = machine.guest.page_requests();
    assert_eq!((seen.requests, seen.overflows), (127, 1));
    machine.ask(500, 127, &[BASE]);
    assert_eq!(machine.serve(500), Response::Success);
}

#[test]
fn a_guest_that_was_reset_is_forgotten_and_the_next_one_answers() {
    let mut machine = Machine::new(LONG, 4);
    machine.ask(1, 7, &[BASE]);
    machine.ask(2, 8, &[BASE + 0x1000]);
    machine.queued(2);
    // The virtual machine is reset: the host takes the device off, then puts it back.
    let (file, injector) = (machine.file.clone(), machine.injector.clone());
    let reset = machine.pump.exclusive(move |pump| {
        for space in [None, Some(PASID)] {
            let kernel = || {
                file.detach(DEV_ID, space);
                Ok::<_, Infallible>(())
            };
            pump.detach(DEVICE, space, kernel).unwrap();
        }
        injector.lock().forget(DEVICE);
        for space in [None, Some(PASID)] {
            let kernel = || {
                file.attach(DEV_ID, space);
                Ok::<_, Infallible>(())
            };
            pump.attach(DEVICE, space, NESTED, kernel).unwrap();
        }
    });
    reset.unwrap();
    assert_eq!(machine.wait(1), Response::Invalid);
    assert_eq!(machine.wait(2), Response::Invalid);
    // The interrupt of before the reset is nobody's.
    machine.unit.reset();
    let _old = machine.irqs.take();
    (machine.guest, machine.mm) = boot(&machine.unit, &machine.ram, &machine.irqs, 4);
    machine.ask(3, 7, &[BASE]);
    assert_eq!(machine.serve(3), Response::Success);
    assert_eq!(
        machine.guest.page_requests().requests,
        1,
        "only the new one"
    );
    assert_eq!(machine.counts().late, 0);
}

#[test]
fn an_unrecoverable_fault_is_told_in_the_guests_own_terms_or_vanishes() {
    let machine = Machine::new(LONG, 4);
    machine.mm.fault(Iova(BASE), Access::WRITE).unwrap();
    let tell = |addr: u64| {
        let fault = Unrecoverable {
            reason: Reason(0x1234), // the host's, of its own tables
            pasid: Some(PASID),
            access: Access::WRITE,
            addr: Some(Iova(addr)),
            fetch_addr: None,
        };
        let told = machine
            .pump
            .exclusive(move |pump| pump.report(DEVICE, &fault));
        told.unwrap().unwrap();
    };
    tell(BASE); // present by now
    tell(BASE + 0x5000);
    let start = Instant::now();
    let verdicts = loop {
        let counts = machine.pump.exclusive(|pump| pump.engine().counts(DEVICE));
        let verdicts = counts.unwrap().unwrap().verdicts;
        if verdicts.injected + verdicts.vanished == 2 {
            break verdicts;
        }
        assert!(start.elapsed() < PATIENCE);
    };
    assert_eq!((verdicts.injected, verdicts.vanished), (1, 1));
    let log = machine.guest.poll_faults();
    assert_eq!(log.total(), 1);
    let seen = log.latest.front().unwrap();
    assert_eq!((seen.rid, seen.addr), (RID, Iova(BASE + 0x5000)));
    // First stage, not present: the reason of the guest's tables.
    assert_eq!(seen.reason, 0x71);
}
