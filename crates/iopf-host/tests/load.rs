//! Devices that leave, come back and change their tables while faults pour in: real threads, real
//! time, a fault file in memory.

use iopf::Response;
use iopf::engine::{
    Attachment, DeviceConfig, DeviceId, DomainId, Engine, Group, Pages, Policy, Stray, Verdict,
};
use iopf::resolve::{Decision, Resolver};
use iopf_host::fake::FakeFile;
use iopf_host::pump::Serving;
use iopf_host::{FaultQueue, Pump, PumpHandle, Worker};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

struct Yes;

impl Resolver for Yes {
    fn group(&mut self, _: &Group, _: Pages<'_>) -> Decision {
        Decision::Answer(Response::Success)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}

const DEVICES: u32 = 4;
const CHANGES: u32 = 200;

/// Adds a device with its attachment, served here or by a thread of its own.
fn arrive(pump: &PumpHandle<FakeFile>, file: &FakeFile, device: u32, change: u32) {
    let serving: Serving = if change.is_multiple_of(2) {
        Yes.into()
    } else {
        let worker = Worker::spawn("yes", 8, pump.clone(), Yes);
        worker.expect("a thread").into()
    };
    let file = file.clone();
    let said = pump.exclusive(move |pump| {
        let id = DeviceId(device);
        pump.add_device(id, DeviceConfig::default(), serving)
            .expect("it had left");
        // There is one queue.
        let queue = pump.queues().next().expect("a queue");
        assert!(pump.route(queue, device, id));
        let attachment = Attachment::new(DomainId(change));
        pump.attach(id, None, attachment, || {
            file.attach(device, None);
            Ok::<_, Infallible>(())
        })
        .expect("nothing is attached");
    });
    said.expect("the pump runs");
}

fn leave(pump: &PumpHandle<FakeFile>, file: &FakeFile, device: u32) {
    let file = file.clone();
    let said = pump.exclusive(move |pump| {
        let gone = || Ok::<_, Infallible>(file.detach(device, None));
        pump.remove_device(DeviceId(device), gone).map(drop)
    });
    said.expect("the pump runs").expect("it was there");
}

fn replace(pump: &PumpHandle<FakeFile>, file: &FakeFile, device: u32, change: u32) {
    let file = file.clone();
    let said = pump.exclusive(move |pump| {
        let attachment = Attachment::new(DomainId(1000 + change));
        pump.replace(DeviceId(device), None, attachment, || {
            file.detach(device, None);
            file.attach(device, None);
            Ok::<_, Infallible>(())
        })
    });
    said.expect("the pump runs").expect("it was there");
}

#[test]
fn devices_leave_and_change_under_load_and_every_group_ends_once() {
    let file = FakeFile::new();
    let mut pump = Pump::new(Engine::new(Policy::default()), |_| ()).unwrap();
    pump.add_queue(FaultQueue::new(file.clone())).unwrap();
    let handle = pump.handle();
    let pump = thread::spawn(move || {
        let stopped = pump.run();
        (pump, stopped)
    });

    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..DEVICES)
        .map(|device| {
            let (file, done) = (file.clone(), Arc::clone(&done));
            thread::spawn(move || {
                let mut groups = 0u64;
                while !done.load(Ordering::Relaxed) {
                    file.fault(device, None, 1 + device);
                    groups += 1;
                    // A device that is not attached would do nothing but ask.
                    if groups.is_multiple_of(8) {
                        thread::sleep(Duration::from_micros(100));
                    }
                }
                groups
            })
        })
        .collect();
    let changes: Vec<_> = (0..DEVICES)
        .map(|device| {
            let (pump, file) = (handle.clone(), file.clone());
            thread::spawn(move || {
                for change in 0..CHANGES {
                    arrive(&pump, &file, device, change);
                    replace(&pump, &file, device, change);
                    thread::sleep(Duration::from_millis(1));
                    leave(&pump, &file, device);
                }
            })
        })
        .collect();
    for thread in changes {
        thread.join().unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let groups: u64 = load.into_iter().map(|thread| thread.join().unwrap()).sum();
    handle.stop().unwrap();
    let (pump, stopped) = pump.join().unwrap();
    let stopped = stopped.unwrap();
    assert_eq!(
        (stopped.given_up, stopped.unwritten),
        (0, 0),
        "all had left"
    );

    let ended = file.ended();
    let numbers: BTreeSet<u64> = ended.iter().map(|end| end.group).collect();
    assert_eq!(ended.len() as u64, groups, "every group ended");
    assert_eq!(numbers.len() as u64, groups, "and none twice");
    assert_eq!(file.calls().refused, 0, "no answer came too late");
    let good = ended.iter().filter(|end| end.response == Response::Success);
    let by_pump = ended.iter().filter(|end| !end.by_kernel).count();
    println!(
        "{groups} groups: {} resolved, {by_pump} answered by the pump, {} late answers of workers, \
         {} turns",
        good.count(),
        pump.counts().late,
        pump.counts().turns,
    );
    assert!(by_pump > 0);
    let queue = pump.queues().next().unwrap();
    let read = pump.queue(queue).unwrap().counts().pages;
    let totals = pump.engine().totals();
    assert_eq!(read, totals.reported + totals.losses.lost);
    assert_eq!(totals.held, 0);
}
