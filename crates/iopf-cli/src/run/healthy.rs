//! The healthy scenario: shared virtual addressing, from untouched pages to unmapped ones.
//!
//! Devices copy memory of processes that nobody touched before, so every page comes by page request;
//! the CPU compares every byte afterwards. Meanwhile mappings go away under running copies, with
//! the flushes that belong to it, and what they were mapped to is poisoned: a stale translation
//! anywhere shows as wrong bytes or as a damaged poison.

mod lane;

use super::args::Plan;
use super::clock::Clock;
use super::collect;
use super::host::Host;
use super::latency::Histogram;
use super::machine::{Machine, TestResult};
use super::progress::Progress;
use super::report::{AnswerRow, Scenario};
use super::rng::Rng;
use endpoint::{Device, GroupAnswer, JobId, Step};
use iopf::{Iova, Pasid, Response, Rid};
use lane::{Kernel, Lane, Totals};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::vtd::{Mm, Setup};
use viommu_api::{Endpoint, Invalidation};

/// Address spaces that each device is bound to.
const PASIDS: u32 = 2;
/// Copies under way at a time in each of them.
const LANES: u64 = 2;
/// Where the regions of an address space start, and how far they are apart.
const REGIONS: u64 = 0x7000_0000_0000;
const STRIDE: u64 = 1 << 24;

/// The device whose resolver is in this process; behind no virtual IOMMU.
const HOST_DEVICE: Rid = Rid(0x00f8);

/// Flushes through the guest's invalidation queue.
struct Behind(Arc<Machine>);

impl Kernel for Behind {
    fn unmap(&self, mm: &Mm, at: Iova, pages: u64) -> TestResult<Vec<iopf::Gpa>> {
        Ok(self.0.guest.munmap(mm, at, pages)?)
    }
}

/// Flushes by telling the device.
struct Beside(Arc<Device>);

impl Kernel for Beside {
    fn unmap(&self, mm: &Mm, at: Iova, pages: u64) -> TestResult<Vec<iopf::Gpa>> {
        let frames = mm.unmap(at);
        for page in 0..pages {
            self.0.invalidate(&Invalidation {
                pasid: Some(mm.pasid()),
                global: false,
                addr: Iova(at.0 + page * 4096),
                size_shift: 12,
            });
        }
        Ok(frames)
    }
}

/// Everything that takes part.
struct Stage {
    machine: Arc<Machine>,
    host: Arc<Host>,
    /// The last one is the host's.
    devices: Vec<Arc<Device>>,
    lanes: Vec<Lane>,
}

fn set_up(plan: &Plan, clock: Clock) -> TestResult<Stage> {
    let machine = Machine::boot(Machine::sva(), Setup::default(), 256 << 20)?;
    let mut devices = Vec::new();
    let mut lanes = Vec::new();
    let mut rng = Rng::new(plan.seed);
    for index in 0..plan.devices {
        let rid = Rid::new(0, index + 1, 0).ok_or("no such device number")?;
        devices.push(machine.device(rid, endpoint::Config::default()));
        machine.guest.probe(rid, true, 0)?;
    }
    let mut number = 1;
    for (index, device) in devices.iter().enumerate() {
        for _ in 0..PASIDS {
            let pasid = Pasid::truncate(number);
            number += 1;
            let mm = Arc::new(Mm::new(&machine.ram, pasid, 4)?);
            machine.guest.bind(device.rid(), &mm)?;
            // A neighbour shares it, so that one unmapping has two device TLBs to reach.
            if let Some(other) = devices.get((index + 1) % devices.len())
                && other.rid() != device.rid()
            {
                machine.guest.bind(other.rid(), &mm)?;
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
    })
}

/// Steps devices until told to stop.
fn run_devices(devices: &[Arc<Device>], clock: Clock, stop: &AtomicBool) {
    let mut idle = 0u32;
    while !stop.load(Ordering::Acquire) {
        let now = clock.now();
        let mut worked = false;
        for device in devices {
            worked |= device.step(now) == Step::Worked;
        }
        idle = if worked { 0 } else { idle.saturating_add(1) };
        match idle {
            0 => {}
            1..200 => thread::yield_now(),
            _ => thread::sleep(Duration::from_micros(20)),
        }
    }
}

/// What the answers came to, by who gave them.
#[derive(Default)]
struct Answers {
    took: Histogram,
    counts: [u64; 4],
}

impl Answers {
    fn add(&mut self, answer: &GroupAnswer) {
        self.took.add(answer.waited);
        let slot = match answer.response {
            Some(Response::Success) => 0,
            Some(Response::Invalid) => 1,
            Some(Response::Failure) => 2,
            None => 3,
        };
        self.counts[slot] += 1;
    }
}

/// What the main thread keeps book of.
#[derive(Default)]
struct Books {
    totals: Totals,
    by_guest: Answers,
    by_engine: Answers,
}

impl Books {
    /// Runs copies until enough pages were copied or the time is up, and waits for the last one.
    fn drive(
        &mut self,
        lanes: &mut [Lane],
        devices: &[Arc<Device>],
        plan: &Plan,
        progress: &mut dyn Progress,
    ) -> TestResult<()> {
        let begun = Instant::now();
        let limit = plan.seconds.map(Duration::from_secs);
        let mut owners: BTreeMap<(Rid, JobId), usize> = BTreeMap::new();
        let mut moved = Instant::now();
        loop {
            let enough = self.totals.pages >= plan.pages
                || limit.is_some_and(|limit| begun.elapsed() >= limit);
            for (index, lane) in lanes.iter_mut().enumerate() {
                match lane.running() {
                    Some(_) => lane.disturb(&mut self.totals)?,
                    None if !enough => {
                        let id = lane.start()?;
                        owners.insert((lane.rid(), id), index);
                    }
                    None => {}
                }
            }
            let mut worked = false;
            for device in devices {
                while let Some(answer) = device.poll_answer() {
                    self.answers(device.rid()).add(&answer);
                }
                while let Some(completion) = device.poll_completion() {
                    worked = true;
                    let owner = owners.remove(&(device.rid(), completion.id));
                    if let Some(lane) = owner.and_then(|index| lanes.get_mut(index)) {
                        lane.finish(&completion, &mut self.totals)?;
                    }
                }
            }
            progress.at(self.totals.pages.min(plan.pages));
            if enough && owners.is_empty() {
                return Ok(());
            }
            if worked {
                moved = Instant::now();
            } else if moved.elapsed() > PATIENCE {
                return Err("no copy has ended for 30 s".into());
            } else {
                thread::yield_now();
            }
        }
    }

    fn answers(&mut self, rid: Rid) -> &mut Answers {
        if rid == HOST_DEVICE {
            &mut self.by_engine
        } else {
            &mut self.by_guest
        }
    }
}

/// How long nothing may end before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// Plays it.
pub(crate) fn play(plan: &Plan, progress: &mut dyn Progress) -> TestResult<Scenario> {
    let clock = Clock::start();
    let mut stage = set_up(plan, clock)?;
    let stop = AtomicBool::new(false);
    let mut books = Books::default();
    let Stage {
        machine,
        host,
        devices,
        lanes,
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
    Ok(report(&stage, &books, clock))
}

fn report(stage: &Stage, books: &Books, clock: Clock) -> Scenario {
    let mut scenario = Scenario::new("healthy");
    let totals = &books.totals;
    for device in &stage.devices {
        let by = if device.rid() == HOST_DEVICE {
            "host"
        } else {
            "guest"
        };
        let ended = totals.ended.get(&device.rid()).copied().unwrap_or_default();
        scenario.devices.push(collect::device(device, by, ended));
    }
    let log = stage.machine.guest.poll_faults();
    scenario.faults = collect::faults(&log);
    for (by, answers) in [("guest", &books.by_guest), ("engine", &books.by_engine)] {
        let row = AnswerRow::new(by, answers.counts, &answers.took);
        scenario.answers.push(row);
    }
    scenario.check(
        "every copied byte is the byte that was there",
        totals.wrong == 0 && totals.compared > 0,
        format!("{} bytes compared, {} wrong", totals.compared, totals.wrong),
    );
    scenario.check(
        "no device touches a page after its unmapping was flushed",
        totals.damaged == 0 && totals.poisoned > 0,
        format!(
            "{} pages watched, {} damaged",
            totals.poisoned, totals.damaged
        ),
    );
    scenario.check(
        "every copy ends, with success unless its target was unmapped under it",
        totals.unexpected == 0,
        format!(
            "{} done, {} lost their target, {} otherwise{}",
            totals.done,
            totals.invalid,
            totals.unexpected,
            totals.first_unexpected.as_deref().unwrap_or_default(),
        ),
    );
    let recorded = log.total();
    scenario.check(
        "the guest records no unrecoverable fault",
        recorded == 0,
        format!("{recorded} recorded"),
    );
    let resolved = books.by_guest.counts[0] > 0 && books.by_engine.counts[0] > 0;
    scenario.check(
        "guest and engine both resolve page requests",
        resolved && books.by_guest.counts[3] + books.by_engine.counts[3] == 0,
        "none unanswered",
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
