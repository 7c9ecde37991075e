//! The mistakes scenario: a guest that gets its tables wrong, one way at a time.
//!
//! Each case has a machine of its own. The guest makes one mistake, a device does one thing, and
//! what counts is what the guest can read about it afterwards: a fault record with the reason the
//! specification gives, or none where the specification says so. The expectations are typed from
//! the tables of fault conditions, not taken from the code that records them.

mod legacy;
mod scalable;
mod special;

use super::args::Plan;
use super::clock::Clock;
use super::collect;
use super::machine::{Machine, TestResult};
use super::progress::Progress;
use super::report::{Mistake, Scenario};
use endpoint::{Completion, Device, Job, Op, Status, Step, Via};
use iopf::{Gpa, Iova, Pasid, Rid};
use std::sync::Arc;
use std::time::Duration;
use testkit::Driver;
use testkit::paging::{Format, PageTable};
use testkit::vtd::numbers::{FS_P, FS_RW, FS_US, FS_XD, PE_NXE, PE_WPE, SS_R, SS_W};
use testkit::vtd::tables::{first_stage, second_stage};
use testkit::vtd::{Seen, Setup};

/// The device that does what it is told.
const DEVICE: Rid = Rid(0x0018);
/// Its domain in legacy mode, and of second-stage entries.
const DOMAIN: u16 = 7;
/// A PASID with a first-stage table, and one with a second-stage table.
const FIRST: u32 = 5;
const SECOND: u32 = 6;
/// What the tables map: a page to read and write, and one to read.
const WRITABLE: u64 = 0x1_0000;
const READ_ONLY: u64 = 0x1_1000;
/// What they do not map.
const NOTHING: u64 = 0x1_2000;
/// Memory ends long before.
const NOWHERE: u64 = 0x7_0000_0000;

/// What the device does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Read,
    Write,
    Fetch,
    PrivilegedRead,
}

#[derive(Clone, Copy, Debug)]
struct Shot {
    act: Act,
    pasid: Option<u32>,
    at: u64,
    via: Via,
}

impl Shot {
    const fn new(act: Act, at: u64) -> Self {
        Self {
            act,
            pasid: None,
            at,
            via: Via::Untranslated,
        }
    }

    const fn pasid(mut self, pasid: u32) -> Self {
        self.pasid = Some(pasid);
        self
    }

    const fn via(mut self, via: Via) -> Self {
        self.via = via;
        self
    }

    fn job(self) -> Job {
        let at = Iova(self.at);
        let op = match self.act {
            Act::Write => Op::Write {
                to: at,
                data: vec![1; 8],
            },
            _ => Op::Read { from: at, len: 8 },
        };
        Job {
            privileged: matches!(self.act, Act::PrivilegedRead),
            execute: matches!(self.act, Act::Fetch),
            via: self.via,
            ..Job::new(self.pasid.map(Pasid::truncate), op)
        }
    }
}

/// What the guest must find in its fault records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// One record with this reason, and the page address of the shot.
    Record(u8),
    /// No record at all.
    Nothing,
}

/// One mistake.
struct Case {
    name: &'static str,
    scalable: bool,
    spoil: fn(&Lab) -> TestResult<()>,
    shot: Shot,
    expect: Expect,
}

/// A machine with one device and tables that are right to begin with.
struct Lab {
    machine: Arc<Machine>,
    device: Arc<Device>,
    /// Second stage; the only table in legacy mode.
    second: PageTable,
    /// First stage, scalable mode only.
    first: PageTable,
    clock: Clock,
}

impl Lab {
    fn new(scalable: bool) -> TestResult<Self> {
        let setup = Setup {
            scalable,
            ..Setup::default()
        };
        let machine = Machine::boot(Machine::everything(), setup, 8 << 20)?;
        let config = endpoint::Config {
            timeout: Duration::from_millis(200),
            ..endpoint::Config::default()
        };
        let device = machine.device(DEVICE, config);
        let second = PageTable::new(&machine.ram, Format::VtdSecond, 4)?;
        let first = PageTable::new(&machine.ram, Format::Processor, 4)?;
        for (at, write) in [(WRITABLE, true), (READ_ONLY, false)] {
            let frame = machine.ram.frame()?;
            let ss = SS_R | if write { SS_W } else { 0 };
            second.map(Iova(at), frame, ss, 1)?;
            let fs = FS_P | FS_US | FS_XD | if write { FS_RW } else { 0 };
            first.map(Iova(at), frame, fs, 1)?;
        }
        let lab = Self {
            machine,
            device,
            second,
            first,
            clock: Clock::start(),
        };
        if scalable {
            let guest = &lab.machine.guest;
            guest.probe(DEVICE, true, 0)?;
            lab.set_first(PE_NXE | PE_WPE)?;
            let entry = second_stage(lab.second.root(), 2, DOMAIN);
            guest.set_pasid(DEVICE, Pasid::truncate(SECOND), &entry)?;
        } else {
            lab.machine.guest.attach(DEVICE, 1, &lab.second, DOMAIN)?;
        }
        Ok(lab)
    }

    /// Rewrites the entry of [`FIRST`] with other flags.
    fn set_first(&self, flags: u64) -> TestResult<()> {
        let entry = first_stage(self.first.root(), 4, 1, flags);
        self.machine
            .guest
            .set_pasid(DEVICE, Pasid::truncate(FIRST), &entry)?;
        Ok(())
    }

    /// Changes a word of a table, and flushes everything as a guest should.
    fn poke(&self, slot: Gpa, change: impl FnOnce(u64) -> u64) -> TestResult<()> {
        let ram = &self.machine.ram;
        ram.store(slot, change(ram.load(slot)));
        self.machine.guest.flush_everything()?;
        Ok(())
    }

    /// The slot of a page-table entry.
    fn slot(&self, table: &PageTable, at: u64, level: u8) -> TestResult<Gpa> {
        Ok(table.slot(Iova(at), level).ok_or("no such table")?)
    }

    /// Tells the IOMMU where the root table is, whatever the driver thinks.
    fn set_root(&self, value: u64) -> TestResult<()> {
        let guest = &self.machine.guest;
        Ok(guest.set_root(value)?)
    }

    fn context(&self) -> TestResult<Gpa> {
        Ok(self.machine.guest.root().context_slot(DEVICE)?)
    }

    /// The directory slot and the table slot of a PASID.
    fn pasid(&self, pasid: u32) -> TestResult<(Gpa, Gpa)> {
        let pasid = Pasid::truncate(pasid);
        Ok(self.machine.guest.pasid_slots(DEVICE, pasid)?)
    }

    /// Runs one job to its end, with the guest serving interrupts.
    fn run(&self, job: Job) -> TestResult<Completion> {
        self.device.submit(job)?;
        let end = self.clock.now() + Duration::from_secs(5);
        while self.clock.now() < end {
            let step = self.device.step(self.clock.now());
            self.machine.guest.service();
            if let Some(completion) = self.device.poll_completion() {
                return Ok(completion);
            }
            if step != Step::Worked {
                std::thread::yield_now();
            }
        }
        Err("the job never ended".into())
    }

    /// What the guest's fault records say.
    fn records(&self) -> Vec<Seen> {
        let log = self.machine.guest.poll_faults();
        log.latest.iter().copied().collect()
    }
}

fn words(code: u8) -> String {
    format!("{code:#04x} {}", collect::name(code))
}

fn play_case(case: &Case) -> TestResult<(Mistake, Arc<Machine>)> {
    let lab = Lab::new(case.scalable)?;
    (case.spoil)(&lab)?;
    let completion = lab.run(case.shot.job())?;
    let records = lab.records();
    let expected = match case.expect {
        Expect::Record(code) => words(code),
        Expect::Nothing => "no record".to_owned(),
    };
    let seen = match records.as_slice() {
        [] => "no record".to_owned(),
        [one] => words(one.reason),
        more => format!("{} records", more.len()),
    };
    let place = records.first().is_none_or(|record| {
        record.rid == DEVICE
            && record.addr.0 == case.shot.at & !0xfff
            && record.pasid == case.shot.pasid.map(Pasid::truncate)
    });
    let failed = completion.status != Status::Done;
    let ok = expected == seen && place && failed;
    let mistake = Mistake {
        name: case.name.to_owned(),
        expected,
        seen: if place {
            seen
        } else {
            format!("{seen}, of another device, address or PASID")
        },
        device: told(completion.status),
        guest_log: records.first().map(ToString::to_string).unwrap_or_default(),
        ok,
    };
    Ok((mistake, lab.machine))
}

/// How a job ended, in words.
fn told(status: Status) -> String {
    match status {
        Status::Done => "done".to_owned(),
        Status::Blocked(at) => format!("blocked at {at}"),
        Status::NoTranslation(at) => format!("no translation for {at}"),
        Status::Invalid(at) => format!("page request for {at} answered Invalid"),
        Status::Failure(at) => format!("page request for {at} answered Failure"),
        Status::NoAnswer(at) => format!("page request for {at} not answered"),
        Status::NoProgress(at) => format!("no progress at {at}"),
        Status::UnsupportedRequest(at) => format!("translation of {at}: Unsupported Request"),
        Status::CompleterAbort(at) => format!("translation of {at}: Completer Abort"),
        Status::BusError(at) => format!("no memory at {at}"),
        Status::Aborted => "aborted".to_owned(),
        Status::BusMasterOff => "bus master off".to_owned(),
        Status::PasidOff => "PASIDs off".to_owned(),
    }
}

/// A case that does not fit the table.
type Special = fn() -> TestResult<Mistake>;

/// Plays it.
pub(crate) fn play(_plan: &Plan, progress: &mut dyn Progress) -> TestResult<Scenario> {
    let clock = Clock::start();
    let mut scenario = Scenario::new("mistakes");
    let cases: Vec<&Case> = legacy::CASES.iter().chain(scalable::CASES).collect();
    let total = cases.len() + special::CASES.len();
    let mut faults = 0;
    let mut logged = 0;
    for case in cases {
        let (mistake, machine) = play_case(case).map_err(|e| format!("{}: {e}", case.name))?;
        scenario.mistakes.push(mistake);
        let log = machine.guest.faults();
        faults += machine.unit.counters().recorded;
        logged += log.total();
        collect::merge(&mut scenario.faults, collect::faults(&log));
        progress.at(scenario.mistakes.len() as u64);
    }
    for special in special::CASES {
        scenario.mistakes.push(special()?);
        progress.at(scenario.mistakes.len() as u64);
    }
    let right = scenario.mistakes.iter().filter(|m| m.ok).count();
    scenario.check(
        "every mistake is told to the guest with the reason the specification gives",
        right == total,
        format!("{right} of {total}"),
    );
    scenario.check(
        "the guest reads each record the IOMMU made, once",
        faults == logged,
        format!("{faults} recorded, {logged} read"),
    );
    Ok(scenario.close(clock.nanos()))
}

/// How many cases there are.
pub(crate) fn total() -> u64 {
    (legacy::CASES.len() + scalable::CASES.len() + special::CASES.len()) as u64
}
