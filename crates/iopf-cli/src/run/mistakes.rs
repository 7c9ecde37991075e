//! The mistakes scenario: a guest that gets its tables wrong, one way at a time.
//!
//! Each case has a machine of its own. The guest makes one mistake, a device does one thing, and
//! what counts is what the guest can read about it afterwards: a fault record with the reason the
//! specification gives, or none where the specification says so. The expectations are typed from
//! the tables of fault conditions, not taken from the code that records them.

mod amdvi;
mod smmuv3;
mod special;
mod vtd;

use super::arch::{Scripted, Seen};
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
use testkit::paging::PageTable;

/// The domain of tables that are the IOMMU's own.
const DOMAIN: u16 = 7;
/// A PASID that has a processor's table.
const FIRST: u32 = 5;
/// What the tables map: a page to read and write, and one to read.
const WRITABLE: u64 = 0x1_0000;
const READ_ONLY: u64 = 0x1_1000;
/// What they do not map.
const NOTHING: u64 = 0x1_2000;
/// Memory ends long before.
const NOWHERE: u64 = 0x7_0000_0000;

/// What the device does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Read,
    Write,
    Fetch,
    PrivilegedRead,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shot {
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
pub(crate) enum Expect<R> {
    /// One record that says this.
    Record(R),
    /// No record at all.
    Nothing,
}

/// One mistake.
pub(crate) struct Case<X: Spoilt> {
    name: &'static str,
    start: X::Start,
    spoil: fn(&Lab<X>) -> TestResult<()>,
    shot: Shot,
    expect: Expect<X::Told>,
}

/// A mistake of which the guest must find one record.
const fn case<X: Spoilt>(
    name: &'static str,
    start: X::Start,
    record: X::Told,
    shot: Shot,
    spoil: fn(&Lab<X>) -> TestResult<()>,
) -> Case<X> {
    Case {
        name,
        start,
        spoil,
        shot,
        expect: Expect::Record(record),
    }
}

/// A mistake of which the guest must find no record; the device gets an error all the same.
const fn quiet<X: Spoilt>(
    name: &'static str,
    start: X::Start,
    shot: Shot,
    spoil: fn(&Lab<X>) -> TestResult<()>,
) -> Case<X> {
    Case {
        name,
        start,
        spoil,
        shot,
        expect: Expect::Nothing,
    }
}

/// A case that does not fit the table.
type Special = fn() -> TestResult<Mistake>;

/// An architecture whose tables a guest can get wrong.
pub(crate) trait Spoilt: Scripted {
    /// What a guest has before it makes its mistake.
    type Start: Copy + 'static;
    /// Tables that are right to begin with.
    type Tables;
    /// What a record must say, beside whose it is.
    type Told: Copy + 'static;

    /// The device that does what it is told.
    const DEVICE: Rid;
    /// A start where [`FIRST`] has a processor's table.
    const PROCESS: Self::Start;

    /// A unit that can do everything.
    fn everything() -> Self::Config;

    /// How the guest is set up for a start.
    fn setup(start: Self::Start) -> Self::Setup;

    /// Makes the tables, and gives them to the device.
    ///
    /// # Errors
    /// When memory or the guest's queue does not suffice.
    fn tables(machine: &Machine<Self>, start: Self::Start) -> TestResult<Self::Tables>;

    /// The processor's table of [`FIRST`].
    fn first(tables: &Self::Tables) -> &PageTable;

    /// What a record must say, in words.
    fn words(record: Self::Told) -> String;

    /// What a record says, in the same words.
    fn seen(seen: &Seen<Self>) -> String;

    /// Whether a record is of the device, the PASID or domain, and the address that it must be of.
    ///
    /// # Errors
    /// Where a table that the address is of is not there.
    fn fits(lab: &Lab<Self>, seen: &Seen<Self>, shot: Shot, record: Self::Told)
    -> TestResult<bool>;

    /// The mistakes, in the order in which they are played.
    fn cases() -> Vec<&'static Case<Self>>;

    /// Those with more than one act that only this architecture has.
    const SPECIAL: &'static [Special];
}

/// A machine with one device and tables that are right to begin with.
pub(crate) struct Lab<X: Spoilt> {
    machine: Arc<Machine<X>>,
    device: Arc<Device>,
    tables: X::Tables,
    clock: Clock,
}

impl<X: Spoilt> Lab<X> {
    fn new(start: X::Start) -> TestResult<Self> {
        let machine = Machine::<X>::boot(X::everything(), X::setup(start), 8 << 20)?;
        let config = endpoint::Config {
            timeout: Duration::from_millis(200),
            ..endpoint::Config::default()
        };
        let device = machine.device(X::DEVICE, config);
        let tables = X::tables(&machine, start)?;
        Ok(Self {
            machine,
            device,
            tables,
            clock: Clock::start(),
        })
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
    fn records(&self) -> Vec<Seen<X>> {
        let log = self.machine.guest.poll_faults();
        log.latest.iter().copied().collect()
    }
}

fn play_case<X: Spoilt>(case: &Case<X>) -> TestResult<(Mistake, Arc<Machine<X>>)> {
    let lab = Lab::<X>::new(case.start)?;
    (case.spoil)(&lab)?;
    let completion = lab.run(case.shot.job())?;
    let records = lab.records();
    let expected = match case.expect {
        Expect::Record(record) => X::words(record),
        Expect::Nothing => "no record".to_owned(),
    };
    let seen = match records.as_slice() {
        [] => "no record".to_owned(),
        [one] => X::seen(one),
        more => format!("{} records", more.len()),
    };
    let place = match (records.first(), case.expect) {
        (Some(seen), Expect::Record(record)) => X::fits(&lab, seen, case.shot, record)?,
        _ => true,
    };
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

/// What came of a mistake with more than one act.
fn outcome(name: &str, expected: &str, seen: String, device: String, guest_log: String) -> Mistake {
    Mistake {
        name: name.to_owned(),
        expected: expected.to_owned(),
        ok: seen == expected,
        seen,
        device,
        guest_log,
    }
}

/// Plays it.
pub(crate) fn play<X: Spoilt>(_plan: &Plan, progress: &mut dyn Progress) -> TestResult<Scenario> {
    let clock = Clock::start();
    let mut scenario = Scenario::new("mistakes");
    let mut faults = 0;
    let mut logged = 0;
    for case in X::cases() {
        let (mistake, machine) = play_case(case).map_err(|e| format!("{}: {e}", case.name))?;
        scenario.mistakes.push(mistake);
        let log = machine.guest.faults();
        faults += machine.unit.counters().recorded;
        logged += log.total();
        collect::merge(&mut scenario.faults, collect::faults::<X>(&log));
        progress.at(scenario.mistakes.len() as u64);
    }
    for special in X::SPECIAL.iter().chain(special::both::<X>()) {
        scenario.mistakes.push(special()?);
        progress.at(scenario.mistakes.len() as u64);
    }
    let total = total::<X>();
    let right = scenario.mistakes.iter().filter(|m| m.ok).count() as u64;
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
pub(crate) fn total<X: Spoilt>() -> u64 {
    (X::cases().len() + X::SPECIAL.len() + special::both::<X>().len()) as u64
}
