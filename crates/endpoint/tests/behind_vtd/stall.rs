//! A driver that looks before it lets go: the DMA engine behind the VT-d model stands still for a
//! page, its registers and what its page table says are captured, then somebody decides.

use super::machine::{ENGINE, Machine};
use endpoint::Step;
use iopf::engine::{
    Attachment, Delivery, DeviceConfig, DeviceId, DomainId, Engine, Group, Pages, Policy, Stray,
    Tick,
};
use iopf::resolve::{Case, Course, Inspect, StallAndInspect, serve};
use iopf::{Access, Fault, Iova, PageRequest, Reason, Response, Unrecoverable};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::{Backing, Driver as _, Mm, PageGroup, Prot};
use viommu_api::PciFunction;

const DEVICE: DeviceId = DeviceId(ENGINE.0);
const BASE: u64 = 0x7f00_0000_0000;

/// What the driver keeps of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Captured {
    /// The first address.
    at: Option<Iova>,
    /// STATUS of channels 0 and 1.
    status: [u32; 2],
    /// DST and LEN of channel 0.
    order: (u64, u32),
    /// The lowest entry of the page table for the first address, where the tables above exist.
    leaf: Option<u64>,
}

/// Reads registers and page tables.
struct Driver {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
}

impl Driver {
    fn capture(&self, addr: Option<Iova>) -> Captured {
        let machine = &self.machine;
        let mut dst = [0; 8];
        machine.engine.read_bar(0, 0x10, &mut dst);
        let slot = addr.and_then(|at| self.mm.table().slot(at, 1));
        Captured {
            at: addr,
            status: [machine.u32(0x24), machine.u32(0x1024)],
            order: (u64::from_le_bytes(dst), machine.u32(0x18)),
            leaf: slot.map(|slot| machine.ram.load(slot)),
        }
    }
}

impl Inspect for Driver {
    type State = Captured;

    fn stalled(&mut self, _: &Group, mut pages: Pages<'_>) -> Captured {
        self.capture(pages.next().map(|page| page.addr))
    }

    fn passed(&mut self, stray: &Stray) -> Captured {
        self.capture(stray.fault.addr)
    }
}

/// The guest's kernel: the engine in the place of its I/O page fault core, and the driver.
struct Kernel {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    engine: Engine,
    driver: StallAndInspect<Driver>,
    now: Tick,
}

impl Kernel {
    fn new() -> Self {
        let (machine, mm) = Machine::shared();
        let machine = Arc::new(machine);
        mm.mmap(Iova(BASE), 16, Prot::RW, Backing::Zero);
        machine.engine.write_bar(0, 0x38, &[0x5a; 8]);
        let mut engine = Engine::new(Policy::default());
        engine.add_device(DEVICE, DeviceConfig::default()).unwrap();
        let attachment = Attachment::new(DomainId(1));
        engine.attach(DEVICE, Some(mm.pasid()), attachment).unwrap();
        engine.attach(DEVICE, None, attachment).unwrap();
        let driver = Driver {
            machine: machine.clone(),
            mm: mm.clone(),
        };
        Self {
            machine,
            mm,
            engine,
            driver: StallAndInspect::new(driver, 8),
            now: Tick(0),
        }
    }

    /// Fills `len` bytes from the base on, on `channel`.
    fn fill(&self, channel: u64, len: u32) {
        let pasid = 0x8000_0000 | self.mm.pasid().get();
        if channel > 0 {
            let pattern = channel * 0x1000 + 0x38;
            self.machine.engine.write_bar(0, pattern, &[0xc3; 8]);
        }
        self.machine
            .go(channel, pasid, 4, 0, BASE + channel * 0x8000, len);
    }

    /// Steps the device until it stands, and lets the driver see its page requests.
    fn run(&mut self) {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < Duration::from_secs(60), "never stands");
            let worked = self.machine.engine.step(start.elapsed()) == Step::Worked;
            let groups = self.machine.guest.take_groups();
            let quiet = !worked && groups.is_empty();
            for group in &groups {
                self.report(group);
            }
            serve(&mut self.engine, self.now, &mut self.driver, 64);
            self.respond();
            if quiet {
                return;
            }
        }
    }

    fn report(&mut self, group: &PageGroup) {
        for (i, &(addr, access)) in group.pages.iter().enumerate() {
            let page = PageRequest {
                pasid: group.pasid,
                group: group.index,
                addr,
                access,
                last: i + 1 == group.pages.len(),
                response_needs_pasid: true,
                private_data: [0; 2],
            };
            let _kept = self
                .engine
                .report(self.now, DEVICE, &Fault::PageRequest(page))
                .unwrap();
        }
    }

    /// Sends the answers; the responses that went out.
    fn respond(&mut self) -> Vec<Response> {
        let mut sent = Vec::new();
        while let Some(answer) = self.engine.poll_answer() {
            let group = PageGroup {
                rid: ENGINE,
                pasid: answer.pasid,
                index: answer.group,
                pages: Vec::new(),
            };
            let resolved = answer.response == Response::Success;
            self.machine.guest.answer_group(&group, resolved);
            sent.push(answer.response);
        }
        sent
    }

    fn decide(&mut self, course: impl FnMut(&Group) -> Course) -> Vec<Response> {
        for (handle, response) in self.driver.decide(DEVICE, course) {
            self.engine.answer(self.now, handle, response).unwrap();
        }
        self.respond()
    }

    fn case(&mut self) -> Option<Case<Captured>> {
        self.driver.poll_case()
    }
}

const BUSY: u32 = 1;
const DONE: u32 = 2;

#[test]
fn a_stalled_device_is_captured_repaired_and_resumed() {
    let mut kernel = Kernel::new();
    kernel.fill(0, 0x2000);
    kernel.run();
    let Case { fault, state } = kernel.case().unwrap();
    let Delivery::Group(group) = fault else {
        panic!("{fault:?}");
    };
    assert_eq!(group.pasid, Some(kernel.mm.pasid()));
    // It stands in mid-order, and its page table has nothing for the address.
    assert_eq!(state.status[0] & 3, BUSY);
    assert_eq!(state.order, (BASE, 0x2000));
    assert_eq!(state.leaf.unwrap_or(0), 0);
    assert!(kernel.driver.stands(DEVICE));
    // Nothing moves while it stands.
    kernel.run();
    assert_eq!(kernel.machine.u32(0x24) & 3, BUSY);

    for page in [BASE, BASE + 0x1000] {
        kernel.mm.fault(Iova(page), Access::WRITE).unwrap();
    }
    assert_eq!(kernel.decide(|_| Course::Resume), [Response::Success]);
    kernel.run();
    assert_eq!(kernel.machine.u32(0x24) & 0xffff, DONE);
    let mut bytes = [0; 0x2000];
    kernel.mm.read(Iova(BASE), &mut bytes).unwrap();
    assert!(bytes == [0x5a; 0x2000]);
    assert!(kernel.case().is_none());
}

#[test]
fn a_stalled_device_that_is_terminated_sees_invalid() {
    let mut kernel = Kernel::new();
    kernel.fill(0, 64);
    kernel.run();
    assert!(kernel.case().is_some());
    assert_eq!(kernel.decide(|_| Course::Terminate), [Response::Invalid]);
    kernel.run();
    // Error 3: a group was answered Invalid; at the address.
    assert_eq!(kernel.machine.u32(0x24) & 0xffff, 0x0303);
    assert_eq!(kernel.machine.u32(0x2c), 0x7f00);
    assert!(!kernel.mm.is_present(Iova(BASE)));
}

#[test]
fn two_channels_stand_in_one_case_and_each_gets_its_own_decision() {
    let mut kernel = Kernel::new();
    kernel.fill(0, 64);
    kernel.fill(1, 64);
    kernel.run();
    let case = kernel.case().unwrap();
    assert!(kernel.case().is_none(), "the device stands once");
    let Delivery::Group(first) = case.fault else {
        panic!("{:?}", case.fault);
    };
    // The one that opened the case is given up, and the other's page is made present.
    let page = case.state.at.unwrap().0 ^ 0x8000;
    kernel.mm.fault(Iova(page), Access::WRITE).unwrap();
    let mut said = kernel.decide(|group| match group.handle == first.handle {
        true => Course::Terminate,
        false => Course::Resume,
    });
    said.sort_by_key(|response| *response == Response::Success);
    assert_eq!(said, [Response::Invalid, Response::Success]);
    kernel.run();
    let mut ends = [kernel.machine.u32(0x24), kernel.machine.u32(0x1024)].map(|s| s & 0xffff);
    ends.sort_unstable();
    assert_eq!(ends, [DONE, 0x0303]);
}

#[test]
fn a_device_that_nobody_decides_about_is_let_go_by_the_deadline() {
    let mut kernel = Kernel::new();
    kernel.fill(0, 64);
    kernel.run();
    kernel.now = kernel.engine.poll_timeout().unwrap();
    kernel.engine.handle_timeout(kernel.now);
    assert_eq!(kernel.respond(), [Response::Invalid]);
    kernel.run();
    assert_eq!(kernel.machine.u32(0x24) & 0xffff, 0x0303);
    // The driver looks at last, and decides too late.
    assert_eq!(kernel.case().unwrap().state.status[0] & 3, BUSY);
    for (handle, response) in kernel.driver.decide(DEVICE, |_| Course::Resume) {
        assert!(kernel.engine.answer(kernel.now, handle, response).is_err());
    }
    // The next fault is another case.
    kernel.fill(0, 64);
    kernel.run();
    assert!(kernel.case().is_some());
}

#[test]
fn a_transaction_that_is_gone_is_captured_after_the_fact() {
    let mut kernel = Kernel::new();
    // Untranslated, into a page that is mapped but not present: recorded, never resumed.
    let pasid = 0x8000_0000 | kernel.mm.pasid().get();
    kernel.machine.go(0, pasid, 4 | 1 << 6, 0, BASE, 64);
    kernel.run();
    let log = kernel.machine.guest.poll_faults();
    let seen = log.latest.front().unwrap();
    assert_eq!((seen.rid, seen.addr), (ENGINE, Iova(BASE)));
    let fault = Unrecoverable {
        reason: Reason(u32::from(seen.reason)),
        pasid: seen.pasid,
        access: Access::WRITE,
        addr: Some(seen.addr),
        fetch_addr: None,
    };
    let _queued = kernel
        .engine
        .report(kernel.now, DEVICE, &Fault::Unrecoverable(fault))
        .unwrap();
    kernel.run();
    let case = kernel.case().unwrap();
    assert!(matches!(case.fault, Delivery::Stray(stray) if stray.fault == fault));
    // Error 1: blocked. Nothing stands, and no answer is owed.
    assert_eq!(case.state.status[0] & 0xffff, 0x0103);
    assert!(!kernel.driver.stands(DEVICE));
    assert_eq!(kernel.respond(), []);
    assert_eq!(kernel.engine.counts(DEVICE).unwrap().verdicts.logged, 1);
}
