//! The storm: one device floods the IOMMU, and another one's work goes on.
//!
//! The flooder obeys nothing: it sends requests that cannot be translated as fast as it can, and
//! page requests in groups that no queue holds. What counts is that the victim's copies are right,
//! that memory stays flat, and that every fault is either read by the guest or in a count of what
//! was lost, to the last one. A second flood goes at the engine, where the host's log must stay short.

mod flooder;

use super::arch::Scripted;
use super::args::Plan;
use super::clock::Clock;
use super::collect;
use super::host::Host;
use super::machine::{Machine, TestResult};
use super::progress::Progress;
use super::report::Scenario;
use super::rng::Rng;
use super::workload::{Behind, Books, HOST_DEVICE, Lane, run_devices};
use flooder::{Flooder, Sent};
use iopf::{Access, Dma, DmaKind, GroupIndex, Iova, PageRequest, Pasid, Rid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use testkit::{Driver, Mm};
use viommu_api::{Pri, Translate};

/// Pages the victim copies during the storm.
pub(crate) const PAGES: u64 = 2_000;
/// Bad requests sent at least.
const FAULTS: u64 = 100_000;
/// Faults that the engine is told of, and pages it is asked for.
const STRAYS: u64 = 100_000;

const VICTIM: Rid = Rid(0x0008);
const FLOODER: Rid = Rid(0x0010);
const REGIONS: u64 = 0x7000_0000_0000;

/// Plays it.
pub(crate) fn play<X: Scripted>(plan: &Plan, progress: &mut dyn Progress) -> TestResult<Scenario> {
    let clock = Clock::start();
    let mut scenario = Scenario::new("storm");
    at_the_guest::<X>(plan, progress, clock, &mut scenario)?;
    at_the_engine(plan, clock, &mut scenario)?;
    Ok(scenario.close(clock.nanos()))
}

fn at_the_guest<X: Scripted>(
    plan: &Plan,
    progress: &mut dyn Progress,
    clock: Clock,
    scenario: &mut Scenario,
) -> TestResult<()> {
    let machine = Machine::<X>::boot(X::config(), X::small_queues(), 128 << 20)?;
    let victim = machine.device(VICTIM, endpoint::Config::default());
    let flooder = Flooder::behind(&machine, FLOODER);
    for rid in [VICTIM, FLOODER] {
        machine.guest.probe_sva(rid)?;
    }
    let mm = machine.guest.process(Pasid::truncate(1))?;
    for rid in [VICTIM, FLOODER] {
        machine.guest.bind(rid, &mm)?;
    }
    let mut rng = Rng::new(plan.seed);
    let mut lanes: Vec<Lane> = (0..3)
        .map(|lane| {
            let kernel = Arc::new(Behind(machine.clone()));
            let base = Iova(REGIONS + (lane << 24));
            Lane::new(&victim, &mm, kernel, base, rng.next())
        })
        .collect();
    let devices = [victim];
    let work = Plan {
        pages: PAGES,
        seconds: None,
        ..*plan
    };
    let (stop, calm) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut books = Books::default();
    // Nobody reads yet, so that both queues overflow for certain.
    let first = flooder.burst(&mut rng);
    let (outcome, sent) = thread::scope(|scope| {
        let (machine, devices, stop, calm) = (&machine, &devices, &stop, &calm);
        scope.spawn(move || run_devices(devices, clock, stop));
        scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                machine.guest.service_within(Duration::from_millis(1));
            }
        });
        // It must outlive its flood: the guest goes on telling it what to forget.
        let flooder = &flooder;
        let storm = scope.spawn(move || flooder.flood(first, rng.next(), FAULTS, calm));
        let outcome = books.drive(&mut lanes, devices, &work, progress);
        calm.store(true, Ordering::Release);
        let sent = storm.join();
        stop.store(true, Ordering::Release);
        (outcome, sent)
    });
    outcome?;
    let sent = sent.map_err(|_| "the flooding thread died")?;
    for lane in &mut lanes {
        lane.end(&mut books.totals)?;
    }
    // What was raised last may not have been served yet.
    while machine.guest.service() {}
    machine.guest.drain(FLOODER, Pasid::truncate(1))?;
    books.devices(&devices, scenario);
    books.judge(scenario);
    books.rows(scenario);
    tell(&machine, &sent, scenario);
    Ok(())
}

/// Compares what was sent with what was read and what was lost.
fn tell<X: Scripted>(machine: &Machine<X>, sent: &Sent, scenario: &mut Scenario) {
    let log = machine.guest.poll_faults();
    let counters = machine.unit.counters();
    let prq = machine.guest.page_requests();
    scenario.faults = collect::faults::<X>(&log);
    collect::losses(machine, scenario);
    let read = log.total();
    scenario.check(
        "every bad request is read by the guest or counted as lost",
        sent.faults + counters.stalled == counters.faults && sent.faults == read + counters.lost,
        format!(
            "{} sent = {read} read + {} lost",
            sent.faults, counters.lost
        ),
    );
    // An IOMMU refuses what comes while the guest restarts its queue.
    collect::let_go(machine, scenario);
    let lost = counters.page_requests_lost + counters.page_requests_refused;
    let victims: u64 = scenario.devices.iter().map(|d| d.pages_requested).sum();
    scenario.check(
        "every page request is read by the guest or counted as lost",
        sent.pages + victims == prq.requests + lost && counters.page_requests == prq.requests,
        format!(
            "{} sent = {} read + {} lost",
            sent.pages + victims,
            prq.requests,
            lost
        ),
    );
    scenario.check(
        "both overflow bits were seen, and are clear again",
        log.overflows > 0 && prq.overflows > 0 && !machine.guest.overflow_pending(),
        format!(
            "faults {} times, page requests {} times",
            log.overflows, prq.overflows
        ),
    );
    let kept = log.latest.len() as u64;
    scenario.check(
        "the guest's log stays short, and says how much it left out",
        kept <= 256 && kept + log.suppressed == read,
        format!("{kept} kept, {} suppressed", log.suppressed),
    );
    let remembered = machine.unit.take_diagnostics().len() as u64;
    scenario.check(
        "what the host keeps for diagnosis stays short",
        remembered <= 256 && remembered + counters.forgotten == counters.faults,
        format!("{remembered} kept, {} forgotten", counters.forgotten),
    );
    flat(sent, scenario);
}

/// Growth that counts as none: allocators and thread stacks move by themselves.
const SLACK: u64 = 8 << 20;

fn flat(sent: &Sent, scenario: &mut Scenario) {
    let what = "memory stays flat while the storm lasts";
    match (sent.memory_early, sent.memory_late) {
        (Some(early), Some(late)) => scenario.check(
            what,
            late <= early + SLACK,
            format!("{} KiB, then {} KiB", early >> 10, late >> 10),
        ),
        _ => scenario.check(what, true, "this system does not say"),
    }
}

/// A device served by the engine that sends nothing but faults.
fn at_the_engine(plan: &Plan, clock: Clock, scenario: &mut Scenario) -> TestResult<()> {
    let ram = Arc::new(testkit::Ram::new(4 << 20)?);
    let mm = Arc::new(Mm::new(&ram, Pasid::truncate(1), 4)?);
    let host = Host::new(clock, HOST_DEVICE, mm)?;
    let mut rng = Rng::new(plan.seed);
    let pasid = Some(Pasid::truncate(1));
    for count in 0..STRAYS {
        let dma = Dma {
            requester: HOST_DEVICE,
            pasid,
            kind: DmaKind::Untranslated,
            addr: Iova(rng.next() & 0x7fff_ffff_f000),
            access: Access::WRITE,
        };
        let _blocked = host.with_translation(&dma, 8, &mut |_, _| {});
        if count % 64 == 0 {
            while host.pump() {}
        }
    }
    while host.pump() {}
    for count in 0..STRAYS {
        // Groups that are never completed: they may hold no more than the device's credits.
        let page = PageRequest {
            pasid,
            group: GroupIndex(u32::try_from(count & 0x1ff).unwrap_or(0)),
            addr: Iova(rng.next() & 0x7fff_ffff_f000),
            access: Access::READ,
            last: false,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        let _dropped = host.page_request(HOST_DEVICE, &page);
    }
    let (held, room) = host.held();
    let log = host.close();
    let counts = host.counts();
    scenario.check(
        "the engine holds no more than the device's credits",
        held <= 512 && room <= 1024,
        format!("{held} of {STRAYS} pages held"),
    );
    let losses = counts.losses;
    scenario.check(
        "the engine's books balance",
        counts.reported == 2 * STRAYS
            && counts.reported
                == counts.completed + losses.refused + losses.discarded + counts.held,
        format!(
            "{} reported = {} completed + {} refused + {} discarded + {} held",
            counts.reported, counts.completed, losses.refused, losses.discarded, counts.held
        ),
    );
    let judged = counts.verdicts.logged;
    scenario.check(
        "the host's log stays short, and says how much it left out",
        log.lines.len() < 64 && log.written + log.suppressed == judged,
        format!(
            "{judged} faults = {} written + {} suppressed",
            log.written, log.suppressed
        ),
    );
    scenario.lost(
        "page requests the engine refused: no credit",
        losses.refused,
    );
    scenario.lost(
        "pages of unfinished groups the engine dropped",
        losses.discarded,
    );
    scenario.lost("faults kept out of the host's log", log.suppressed);
    scenario.host_log = log.lines;
    Ok(())
}
