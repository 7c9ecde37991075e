//! The three drivers that the project comes from, and an address space: each in the pump.

use super::world::{Setting, World, until};
use iopf::engine::{DeviceId, Group, Pages, Stray};
use iopf::resolve::{AddressSpace, Course, Inspect, LogAndDeny, Recover, StallAndInspect};
use iopf::{Access, Iova, LogWhat, Pasid, Reason, Response, Unrecoverable};
use iopf_host::pump::Notice;
use iopf_host::space::{Area, Space};
use iopf_host::{Shared, Worker};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const LONG: Duration = Duration::from_secs(600);
const PASID: Option<Pasid> = Pasid::new(5);

fn crash(addr: u64) -> Unrecoverable {
    Unrecoverable {
        reason: Reason(6),
        pasid: None,
        access: Access::WRITE,
        addr: Some(Iova(addr)),
        fetch_addr: None,
    }
}

/// The device's unrecoverable fault comes in by the pump's thread.
fn report(world: &World, id: u32, addr: u64) {
    let reported = world
        .handle
        .exclusive(move |pump| pump.report(DeviceId(id), &crash(addr)));
    reported.unwrap().unwrap();
}

fn verdicts(world: &World, id: u32) -> iopf::engine::Verdicts {
    let counts = world
        .handle
        .exclusive(move |pump| pump.engine().counts(DeviceId(id)));
    counts.unwrap().unwrap().verdicts
}

#[test]
fn log_and_deny_denies_and_tells_within_its_budget() {
    let mut setting = Setting::new(LONG);
    setting.device(1, PASID, LogAndDeny);
    let mut world = setting.run();
    let group = world.ask(1, PASID, &[(0x1000, Access::READ)]);
    assert_eq!(world.wait(group), Response::Invalid);
    for n in 0..1000 {
        report(&world, 1, 0x1000 * n);
    }
    until("a thousand verdicts", || {
        (verdicts(&world, 1).logged == 1000).then_some(())
    });
    world.stop();
    let lines: Vec<_> = world
        .notices
        .try_iter()
        .filter_map(|notice| match notice {
            Notice::Log(line) => Some(line.what),
            _ => None,
        })
        .collect();
    let told = lines
        .iter()
        .filter(|what| matches!(what, LogWhat::Fault(_)))
        .count();
    assert!(
        (1..100).contains(&told),
        "{told} lines for a thousand faults"
    );
    assert!(matches!(lines[0], LogWhat::Fault(fault) if fault == crash(0)));
}

/// A remote processor that crashes: its firmware runs, or does not.
#[derive(Default)]
struct Processor {
    boots: AtomicU32,
}

#[test]
fn a_crash_is_recovered_once_and_the_endpoint_attached_anew() {
    // The driver's recovery runs on a thread of its own; the crash notice wakes it.
    let (notice, crashes) = mpsc::channel::<DeviceId>();
    let recover = Shared::new(Recover::new(move |stray: &Stray| {
        // The test may be over.
        let _ = notice.send(stray.device);
    }));
    let mut setting = Setting::new(LONG);
    setting.device(1, None, recover.clone());
    let mut world = setting.run();
    let processor = Arc::new(Processor::default());

    for round in 1..=2 {
        // A crash throws faults until it is over.
        for n in 0..5 {
            report(&world, 1, 0x1000 * n);
        }
        let down = crashes.recv_timeout(super::world::PATIENCE).unwrap();
        assert_eq!(down, DeviceId(1));
        until("five verdicts", || {
            (verdicts(&world, 1).recovered == 5 * round).then_some(())
        });
        assert!(crashes.try_recv().is_err(), "one notice a crash");

        // Detach, reset, boot, attach: between two turns, so that no fault comes in between.
        let (file, core) = (world.file.clone(), processor.clone());
        let recovered = world.handle.exclusive(move |pump| {
            let attachment = pump.engine().attachment(down, None).unwrap().unwrap();
            pump.detach(down, None, || {
                file.detach(1, None);
                Ok::<_, Infallible>(())
            })
            .unwrap();
            core.boots.fetch_add(1, Ordering::SeqCst);
            pump.attach(down, None, attachment, || {
                file.attach(1, None);
                Ok::<_, Infallible>(())
            })
            .unwrap();
        });
        recovered.unwrap();
        recover.lock().recovered(down);
        assert_eq!(u64::from(processor.boots.load(Ordering::SeqCst)), round);
    }
    // It is back: a page request comes through, and is denied as ever.
    let group = world.ask(1, None, &[(0x1000, Access::READ)]);
    assert_eq!(world.wait(group), Response::Invalid);
}

/// Registers of a device, as its driver reads them.
struct Registers(Arc<AtomicU32>);

impl Inspect for Registers {
    type State = (u32, Vec<Iova>);

    fn stalled(&mut self, _: &Group, pages: Pages<'_>) -> Self::State {
        let status = self.0.load(Ordering::SeqCst);
        (status, pages.map(|page| page.addr).collect())
    }

    fn passed(&mut self, stray: &Stray) -> Self::State {
        let status = self.0.load(Ordering::SeqCst);
        (status, stray.fault.addr.into_iter().collect())
    }
}

#[test]
fn a_stalled_device_waits_for_a_decision_from_another_thread() {
    let status = Arc::new(AtomicU32::new(0x51));
    let stall = Shared::new(StallAndInspect::new(Registers(status.clone()), 8));
    let mut setting = Setting::new(LONG);
    setting.device(1, None, stall.clone());
    let mut world = setting.run();
    for (course, expected) in [
        (Course::Resume, Response::Success),
        (Course::Terminate, Response::Invalid),
    ] {
        let asked = [(0x1000, Access::READ), (0x2000, Access::READ)];
        let first = world.ask(1, None, &asked);
        let second = world.ask(1, None, &[(0x3000, Access::WRITE)]);
        let case = until("a case", || stall.lock().poll_case());
        assert_eq!(case.state, (0x51, vec![Iova(0x1000), Iova(0x2000)]));
        until("both groups read", || {
            (world.file.waiting() == (0, 2)).then_some(())
        });
        // The second is delivered by the time the pump takes a command.
        world.handle.exclusive(|_| ()).unwrap();
        assert_eq!((world.answer(first), world.answer(second)), (None, None));
        for (handle, response) in stall.lock().decide(case.device(), |_| course) {
            world.handle.answer(handle, response).unwrap();
        }
        assert_eq!(world.wait(first), expected);
        assert_eq!(world.wait(second), expected);
    }
    report(&world, 1, 0x7000);
    let case = until("a case", || stall.lock().poll_case());
    assert_eq!(case.state, (0x51, vec![Iova(0x7000)]));
}

#[test]
fn an_address_space_of_this_process_is_populated_by_a_worker() {
    let page = 4096;
    let memory = Arc::new(MmapRegion::new(16 * page).unwrap());
    let mut space = Space::new();
    let area = Area::shared(memory.clone(), Access::RW);
    let base = area.iova.0;
    space.add(PASID.unwrap(), area).unwrap();

    let mut setting = Setting::new(LONG);
    let worker = Worker::spawn("space", 16, setting.handle(), AddressSpace(space)).unwrap();
    setting.device(1, PASID, worker);
    let mut world = setting.run();
    let all: Vec<_> = (0..8)
        .map(|n| (base + n * page as u64, Access::WRITE))
        .collect();
    let group = world.ask(1, PASID, &all);
    let outside = world.ask(1, PASID, &[(base + 16 * page as u64, Access::READ)]);
    let right = world.ask(1, PASID, &[(base, Access::EXEC)]);
    let other = world.ask(1, None, &[(base, Access::READ)]);
    assert_eq!(world.wait(group), Response::Success);
    assert_eq!(world.wait(outside), Response::Invalid);
    assert_eq!(world.wait(right), Response::Invalid);
    assert_eq!(world.wait(other), Response::Invalid, "no PASID");
    // The device writes where it may now; this process reads it.
    let slice = memory.as_volatile_slice();
    slice.write_slice(b"from the device", 7 * page).unwrap();
    let mut bytes = [0; 15];
    slice.read_slice(&mut bytes, 7 * page).unwrap();
    assert_eq!(&bytes, b"from the device");
}
