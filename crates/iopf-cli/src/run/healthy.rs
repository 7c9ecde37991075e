//! The healthy scenario: shared virtual addressing, from untouched pages to unmapped ones.
//!
//! Devices copy memory of processes that nobody touched before, so every page comes by page request;
//! the CPU compares every byte afterwards. Meanwhile mappings go away under running copies, with
//! the flushes that belong to it, and what they were mapped to is poisoned: a stale translation
//! anywhere shows as wrong bytes or as a damaged poison.

use super::arch::{Scripted, Seen};
use super::args::Plan;
use super::clock::Clock;
use super::collect;
use super::host::Host;
use super::machine::{Machine, TestResult};
use super::progress::Progress;
use super::report::Scenario;
use super::rng::Rng;
use super::workload::{Behind, Beside, Books, HOST_DEVICE, Lane, run_devices};
use endpoint::{Device, Job, Op, Via};
use iopf::{Access, Dma, DmaKind, Iova, Pasid, Rid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use testkit::{Backing, Driver, FaultLog, Mm};
use viommu_api::{Ats, AtsCompletion, Translate};

/// Address spaces that each device is bound to.
const PASIDS: u32 = 2;
/// Copies under way at a time in each of them.
const LANES: u64 = 2;
/// Where the regions of an address space start, and how far they are apart.
const REGIONS: u64 = 0x7000_0000_0000;
const STRIDE: u64 = 1 << 24;

/// Everything that takes part.
struct Stage<X: Scripted> {
    machine: Arc<Machine<X>>,
    host: Arc<Host>,
    /// The last one is the host's.
    devices: Vec<Arc<Device>>,
    lanes: Vec<Lane>,
    /// What the guest bound to what.
    bindings: Vec<(Arc<Device>, Arc<Mm>)>,
}

fn set_up<X: Scripted>(plan: &Plan, clock: Clock) -> TestResult<Stage<X>> {
    let machine = Machine::<X>::boot(X::config(), X::Setup::default(), 256 << 20)?;
    let mut devices = Vec::new();
    let mut lanes = Vec::new();
    let mut bindings = Vec::new();
    let mut rng = Rng::new(plan.seed);
    for index in 0..plan.devices {
        let rid = Rid::new(0, index + 1, 0).ok_or("no such device number")?;
        devices.push(machine.device(rid, endpoint::Config::default()));
        machine.guest.probe_sva(rid)?;
    }
    let mut number = 1;
    for (index, device) in devices.iter().enumerate() {
        for _ in 0..PASIDS {
            let pasid = Pasid::truncate(number);
            number += 1;
            let mm = machine.guest.process(pasid)?;
            machine.guest.bind(device.rid(), &mm)?;
            bindings.push((device.clone(), mm.clone()));
            // A neighbour shares it, so that one unmapping has two device TLBs to reach.
            if let Some(other) = devices.get((index + 1) % devices.len())
                && other.rid() != device.rid()
            {
                machine.guest.bind(other.rid(), &mm)?;
                bindings.push((other.clone(), mm.clone()));
                let kernel = Arc::new(Behind(machine.clone()));
                let base = Iova(REGIONS + LANES * STRIDE);
                lanes.push(Lane::new(other, &mm, kernel, base, rng.next()));
            }
            for lane in 0..LANES {
                let kernel = Arc::new(Behind(machine.clone()));
                let base = Iova(REGIONS + lane * STRIDE);
                lanes.push(Lane::new(device, &mm, kernel, base, rng.next()));
            }
        }
    }
    let mm = Arc::new(Mm::new(&machine.ram, Pasid::truncate(number), 4)?);
    let host = Host::new(clock, HOST_DEVICE, mm.clone())?;
    let device = host.device(endpoint::Config::default(), machine.memory());
    for lane in 0..LANES {
        let kernel = Arc::new(Beside(device.clone()));
        let base = Iova(REGIONS + lane * STRIDE);
        lanes.push(Lane::new(&device, &mm, kernel, base, rng.next()));
    }
    devices.push(device);
    Ok(Stage {
        machine,
        host,
        devices,
        lanes,
        bindings,
    })
}

/// Plays it.
pub(crate) fn play<X: Scripted>(plan: &Plan, progress: &mut dyn Progress) -> TestResult<Scenario> {
    let clock = Clock::start();
    let mut stage = set_up::<X>(plan, clock)?;
    let stop = AtomicBool::new(false);
    let mut books = Books::default();
    let Stage {
        machine,
        host,
        devices,
        lanes,
        ..
    } = &mut stage;
    let (machine, host, devices) = (&*machine, &*host, &**devices);
    let outcome = thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || run_devices(devices, clock, stop));
        scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                machine.guest.service_within(Duration::from_millis(1));
            }
        });
        scope.spawn(move || {
            host.wake_this_thread();
            while !stop.load(Ordering::Acquire) {
                if !host.pump() {
                    thread::park_timeout(Duration::from_millis(1));
                }
            }
        });
        let outcome = books.drive(lanes, devices, plan, progress);
        stop.store(true, Ordering::Release);
        outcome
    });
    outcome?;
    for lane in lanes.iter_mut() {
        lane.end(&mut books.totals)?;
    }
    let end = tear_down(&stage, clock)?;
    Ok(report(&stage, &books, &end, clock))
}

/// What unbinding every device left behind.
struct End<S> {
    /// What the guest knew of faults then.
    log: FaultLog<S>,
    bindings: u64,
    /// Groups that were under way when their binding was taken away.
    interrupted: u64,
    unanswered: u64,
    translating: u64,
    cached: u64,
}

/// Where the last jobs go, away from all others, each to a page of its own.
const LAST: Iova = Iova(0x6000_0000_0000);

/// Ends each binding while a page request of it is under way, as when a process is killed.
fn tear_down<X: Scripted>(stage: &Stage<X>, clock: Clock) -> TestResult<End<Seen<X>>> {
    let mut end = End {
        log: FaultLog::default(),
        bindings: 0,
        interrupted: 0,
        unanswered: 0,
        translating: 0,
        cached: 0,
    };
    let guest = &stage.machine.guest;
    for (device, mm) in &stage.bindings {
        let (rid, pasid) = (device.rid(), mm.pasid());
        let from = Iova(LAST.0 + end.bindings * 4096);
        // Every second time there is no such memory.
        if end.bindings % 2 == 0 {
            mm.mmap(from, 1, Access::READ, Backing::Zero);
        }
        let mut job = Job::new(Some(pasid), Op::Read { from, len: 8 });
        if guest.stalls(rid) {
            job.via = Via::Untranslated;
        }
        let waiting = || device.outstanding(Some(pasid)) as u64 + collect::stalled(device);
        device.submit(job)?;
        device.step(clock.now());
        end.interrupted += waiting();
        device.abort(Some(pasid));
        guest.unbind(rid, pasid)?;
        end.bindings += 1;
        end.unanswered += waiting();
    }
    end.log = guest.poll_faults();
    for (device, mm) in &stage.bindings {
        end.translating += u64::from(translates(stage, device.rid(), mm.pasid()));
        end.cached += device.cached() as u64;
    }
    Ok(end)
}

/// Whether a device still gets through with a PASID. A guest may have a record of the attempt.
fn translates<X: Scripted>(stage: &Stage<X>, requester: Rid, pasid: Pasid) -> bool {
    let unit = &stage.machine.unit;
    let asked = |kind| Dma {
        requester,
        pasid: Some(pasid),
        kind,
        addr: LAST,
        access: Access::READ,
    };
    if stage.machine.guest.stalls(requester) {
        let dma = asked(DmaKind::Untranslated);
        return unit.with_translation(&dma, 8, &mut |_, _| {}).is_ok();
    }
    let answer = unit.translation_request(&asked(DmaKind::Translation { no_write: true }));
    matches!(answer, AtsCompletion::Success { granted, .. } if !granted.perms.is_empty())
}

fn report<X: Scripted>(
    stage: &Stage<X>,
    books: &Books,
    end: &End<Seen<X>>,
    clock: Clock,
) -> Scenario {
    let mut scenario = Scenario::new("healthy");
    books.devices(&stage.devices, &mut scenario);
    scenario.faults = collect::faults::<X>(&end.log);
    books.rows(&mut scenario);
    books.judge(&mut scenario);
    let recorded = end.log.total();
    scenario.check(
        "the guest records no unrecoverable fault",
        recorded == 0,
        format!("{recorded} recorded"),
    );
    let retried: u64 = scenario.stalls.iter().map(|row| row.retried).sum();
    let by_guest = books.by_guest.counts[0] + retried;
    let resolved = by_guest > 0 && books.by_engine.counts[0] > 0;
    scenario.check(
        "guest and engine both resolve page requests",
        resolved && books.by_guest.counts[3] + books.by_engine.counts[3] == 0,
        "none unanswered",
    );
    collect::let_go(&stage.machine, &mut scenario);
    scenario.check(
        "a page request under way is answered before its PASID is gone",
        end.interrupted == end.bindings && end.unanswered == 0,
        format!(
            "{} unbound, {} of them interrupted, {} unanswered",
            end.bindings, end.interrupted, end.unanswered
        ),
    );
    scenario.check(
        "after unbinding nothing translates and no device TLB holds anything",
        end.translating == 0 && end.cached == 0,
        format!("{} translate, {} cached", end.translating, end.cached),
    );
    collect::losses(&stage.machine, &mut scenario);
    let held = stage.host.held().0;
    scenario.check(
        "the engine holds nothing at the end",
        held == 0,
        format!("{held} pages"),
    );
    scenario.close(clock.nanos())
}
