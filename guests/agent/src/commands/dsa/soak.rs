//! Mixed traffic on memory that changes all the time: `dsa-soak QUEUE MILLISECONDS SEED
//! [reads|present]`.
//!
//! One process, one work queue, several descriptors under way. Each works on a slot, a piece of memory
//! whose every word is known. Before it is submitted, and in a third of the cases while the device is
//! at it, the slot goes through a change: pages given up, moved, shared with a child, made read-only,
//! replaced. What can be seen then of a translation that should be gone:
//! - the device reads or compares something else than what is there (`brought`, `judge`);
//! - the device gets through where nothing is, or where it may not write (`judge`);
//! - what it wrote is not there (`left`);
//! - it writes to pages that moved away, that a child has kept, or that the kernel has given to
//!   somebody else (`Witness`, `Child`).
//!
//! Each of these ends the command with a line that has `stale:` in it; a descriptor that is not
//! completed ends it with a time-out. With `reads` the device never writes to a slot, and its records
//! and copies go to pages that stay, which is why nothing forks: so even a device that ignores
//! invalidations harms nobody. With `present` every page is there and writable when the device is told,
//! and stays so until it is done: for a queue with ATS disabled, whose requests go through the IOMMU's
//! own TLB and cannot wait for a page. The order of jobs and changes follows from the seed; when
//! the device gets to them does not.
//!
//! `shake MILLISECONDS SEED` has the kernel move pages about, and says how many it moved.

mod job;
mod slot;
mod tally;
mod witness;

use super::queue::Queue;
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use crate::sys::Memory;
use fastrand::Rng;
use job::{Job, Work};
use rustix::mm::Advice;
use slot::{CHANGES, Change, Changed, Kind, PAGE, Rights, Slot};
use std::collections::VecDeque;
use std::fs;
use std::ops::Range;
use std::time::{Duration, Instant};
use tally::Tally;
use witness::{Child, Witness};

/// Descriptors under way at most; the work queue has room for more.
const LANES: usize = 8;

/// Pages of one job at most.
const LONGEST: usize = 32;

/// The slots: kind, pages of each, and how many.
const SLOTS: [(Kind, usize, usize); 4] = [
    (Kind::Small, 4, 16),
    (Kind::Small, 16, 12),
    (Kind::Shared, 16, 6),
    (Kind::Huge, 512, 2),
];

/// Witnesses kept at a time, and children.
const WITNESSES: usize = 6;
const CHILDREN: usize = 4;

/// How long a descriptor may take: longer than the device waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Everything,
    /// The device writes to no slot.
    Reads,
    /// The device finds every page, with every right.
    Present,
}

impl Mode {
    fn allows(self, change: Change) -> bool {
        match self {
            Self::Everything => true,
            Self::Reads => change != Change::Fork,
            // Neither is a child to share the page of the records.
            Self::Present => !matches!(change, Change::Fork | Change::Close | Change::Protect),
        }
    }
}

/// How long the children of a killed process may take to notice.
const RELEASE: Duration = Duration::from_secs(2);

pub(super) fn soak(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let path = args.word("QUEUE")?;
    let time = Duration::from_millis(args.number("MILLISECONDS")?);
    let seed = args.number("SEED")?;
    let mode = match args.next() {
        None => Mode::Everything,
        Some("reads") => Mode::Reads,
        Some("present") => Mode::Present,
        Some(other) => return Err(Failure::usage(format!("not understood: {other}"))),
    };
    args.end()?;
    let began = Instant::now();
    let mut soak = Soak::new(open(path)?, seed, mode)?;
    out.line(format_args!("opened={}", began.elapsed().as_millis()));
    let end = Instant::now() + time;
    let done = soak.run(end);
    out.line(&soak.tally);
    done.context(format_args!("seed {seed}, job {}", soak.tally.jobs()))
}

/// Opens a queue. Where a process was killed, its children have it open until they notice.
fn open(path: &str) -> Result<Queue, Failure> {
    let (busy, end) = (rustix::io::Errno::BUSY, Instant::now() + RELEASE);
    loop {
        match Queue::open(path) {
            Err(failure) if failure.status == busy.raw_os_error() && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

pub(super) fn shake(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let time = Duration::from_millis(args.number("MILLISECONDS")?);
    let mut rng = Rng::with_seed(args.number("SEED")?);
    args.end()?;
    let (before, end) = (migrated()?, Instant::now() + time);
    while Instant::now() < end {
        fs::write("/proc/sys/vm/compact_memory", "1").context("compact_memory")?;
        std::thread::sleep(Duration::from_millis(rng.u64(20..200)));
    }
    out.line(format_args!("migrated={}", migrated()? - before));
    Ok(())
}

/// Pages that the kernel has moved since it started.
fn migrated() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("pgmigrate_success "));
    let line = line.ok_or_else(|| Failure::new("this kernel does not move pages"))?;
    crate::args::number("pgmigrate_success", line)
}

/// Room for one descriptor: memory aside for its data, and what it is.
struct Lane {
    aside: Memory,
    job: Option<(usize, Job, Instant)>,
}

struct Soak {
    queue: Queue,
    rng: Rng,
    mode: Mode,
    /// Values are told apart by who wrote them, and when.
    values: u64,
    slots: Vec<Slot>,
    lanes: Vec<Lane>,
    witnesses: VecDeque<Witness>,
    /// Where children wait for a word.
    talk: Memory,
    tally: Tally,
}

impl Soak {
    fn new(queue: Queue, seed: u64, mode: Mode) -> Result<Self, Failure> {
        let mut slots = Vec::new();
        for (kind, pages, count) in SLOTS {
            for _ in 0..count {
                slots.push(Slot::new(kind, pages)?);
            }
        }
        let lanes = (0..LANES).map(|_| {
            let aside = Memory::anonymous(LONGEST * PAGE)?;
            let job = None;
            Ok(Lane { aside, job })
        });
        Ok(Self {
            queue,
            rng: Rng::with_seed(seed),
            mode,
            values: (seed & 0x7fff) << 48 | 1 << 47,
            slots,
            lanes: lanes.collect::<Result<_, Failure>>()?,
            witnesses: VecDeque::new(),
            talk: Memory::shared(PAGE)?,
            tally: Tally::default(),
        })
    }

    /// Goes on until `end`, then waits for everything and looks at everything.
    fn run(&mut self, end: Instant) -> Done {
        while Instant::now() < end {
            self.step()?;
        }
        while self.lanes.iter().any(|lane| lane.job.is_some()) {
            self.reap()?;
        }
        for index in 0..self.slots.len() {
            self.part_from_child(index)?;
        }
        self.witnesses.iter().try_for_each(Witness::check)
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// A change, a job, perhaps a change under the job.
    fn step(&mut self) -> Done {
        self.reap()?;
        let Some(lane) = self.lanes.iter().position(|lane| lane.job.is_none()) else {
            std::thread::yield_now();
            return Ok(());
        };
        let index = self.rng.usize(..self.slots.len());
        if self.slots[index].busy {
            return Ok(());
        }
        self.prepare(index)?;
        self.submit(lane, index)?;
        let may_race = self.mode != Mode::Present && self.slots[index].rights == Rights::All;
        if may_race && self.rng.u8(..3) == 0 {
            for _ in 0..self.rng.u32(..2000) {
                std::hint::spin_loop();
            }
            self.race(lane, index)?;
        }
        Ok(())
    }

    /// Pages of a slot, `most` at most.
    fn some_pages(&mut self, index: usize, most: usize) -> Range<usize> {
        let pages = self.slots[index].pages();
        let len = self.rng.usize(1..=pages.min(most));
        let start = self.rng.usize(..=pages - len);
        start..start + len
    }

    /// A change that the slot can go through now.
    fn choose(&mut self, index: usize) -> Change {
        let children = self.slots.iter().filter(|slot| slot.child.is_some());
        let may_fork = children.count() < CHILDREN && self.slots[index].child.is_none();
        let kind = self.slots[index].kind;
        loop {
            let (change, _) = CHANGES[self.rng.usize(..CHANGES.len())];
            let fits = change.fits(kind) && self.mode.allows(change);
            if fits && (may_fork || change != Change::Fork) {
                return change;
            }
        }
    }

    /// Changes an idle slot, or leaves it as it is.
    fn prepare(&mut self, index: usize) -> Done {
        if self.slots[index].rights != Rights::All && self.rng.bool() {
            self.slots[index].open()?;
        }
        if self.slots[index].rights != Rights::All || self.rng.bool() {
            return Ok(());
        }
        if self.rng.u8(..64) == 0 {
            return self.retire(index);
        }
        let change = self.choose(index);
        if change == Change::Fork {
            let now = self.slots[index].now.iter();
            let allowed: Vec<_> = now.map(|value| vec![*value]).collect();
            return self.fork(index, &allowed);
        }
        let changed = self.change(index, change)?;
        if let Some(moved) = changed.moved {
            self.watch(moved)?;
        }
        Ok(())
    }

    /// Lets a slot go, and takes another of its kind.
    fn retire(&mut self, index: usize) -> Done {
        self.part_from_child(index)?;
        let (kind, pages) = (self.slots[index].kind, self.slots[index].pages());
        // The old one goes first, so that the new one may get its address.
        self.slots[index].memory = Memory::anonymous(PAGE)?;
        self.tally.retired += 1;
        self.plant(pages)?;
        self.slots[index] = Slot::new(kind, pages)?;
        Ok(())
    }

    fn change(&mut self, index: usize, change: Change) -> Result<Changed, Failure> {
        let (value, pages) = (self.value(), self.some_pages(index, LONGEST));
        let changed = self.slots[index].change(change, pages, value)?;
        self.tally.change(change);
        if change.frees() && self.rng.bool() {
            self.plant(changed.lost.len())?;
        }
        Ok(changed)
    }

    /// Takes pages, which may well be those that were just given back.
    fn plant(&mut self, pages: usize) -> Done {
        let len = pages.min(2 * LONGEST) * PAGE;
        let memory = Memory::anonymous(len)?;
        memory.advise(Advice::LinuxNoHugepage)?;
        let value = self.value();
        memory.set_words(0, len, value);
        self.watch(Witness::new("in pages that the device never had", memory))
    }

    /// Keeps a witness for a while.
    fn watch(&mut self, witness: Witness) -> Done {
        self.tally.witnesses += 1;
        self.witnesses.push_back(witness);
        if self.witnesses.len() > WITNESSES
            && let Some(oldest) = self.witnesses.pop_front()
        {
            oldest.check()?;
        }
        Ok(())
    }

    fn fork(&mut self, index: usize, allowed: &[Vec<u64>]) -> Done {
        let free = (0..PAGE).find(|place| {
            let children = self.slots.iter().filter_map(|slot| slot.child.as_ref());
            children.map(Child::place).all(|taken| taken != *place)
        });
        let slot = &mut self.slots[index];
        let place = free.unwrap_or_default();
        slot.child = Some(Child::fork(&slot.memory, allowed, &self.talk, place)?);
        self.tally.change(Change::Fork);
        Ok(())
    }

    fn part_from_child(&mut self, index: usize) -> Done {
        match self.slots[index].child.take() {
            Some(child) => child.finish(&self.talk),
            None => Ok(()),
        }
    }

    /// Has the device do something with a slot.
    fn submit(&mut self, lane: usize, index: usize) -> Done {
        let mut pages = self.some_pages(index, LONGEST);
        let work = match self.rng.u8(..5) {
            0 | 1 if self.mode != Mode::Reads => Work::Fill(self.value()),
            0 | 2 => Work::Copy,
            3 => Work::Compare,
            _ => {
                let now = &self.slots[index].now;
                let value = now[pages.start];
                let other = now[pages.clone()].iter().position(|other| *other != value);
                pages.end = other.map_or(pages.end, |other| pages.start + other);
                Work::Check(value)
            }
        };
        let (slot, at) = (&mut self.slots[index], &mut self.lanes[lane]);
        if self.mode == Mode::Present {
            slot.touch(pages.clone());
        }
        let job = Job::new(work, slot, pages, &at.aside);
        let descriptor = job.descriptor(slot, &at.aside);
        slot.busy = true;
        at.job = Some((index, job, Instant::now() + PATIENCE));
        self.queue.submit(lane, &descriptor)
    }

    /// Changes a slot that the device works on. Comparisons are left alone: one bit does not tell
    /// what was compared.
    fn race(&mut self, lane: usize, index: usize) -> Done {
        let Some((_, mut job, deadline)) = self.lanes[lane].job.take() else {
            return Ok(());
        };
        if matches!(job.work, Work::Fill(_) | Work::Copy) {
            let change = self.choose(index);
            if change == Change::Fork {
                let slot = &self.slots[index];
                let allowed: Vec<_> = (0..slot.pages()).map(|page| job.now(slot, page)).collect();
                self.fork(index, &allowed)?;
            } else {
                job.raced = Some(self.change(index, change)?);
            }
            self.tally.raced += 1;
        }
        self.lanes[lane].job = Some((index, job, deadline));
        Ok(())
    }

    /// Looks at whatever is done.
    fn reap(&mut self) -> Done {
        for lane in 0..LANES {
            let Some((index, job, deadline)) = self.lanes[lane].job.take() else {
                continue;
            };
            let Some(record) = self.queue.poll(lane) else {
                if Instant::now() > deadline {
                    let timed_out = Failure::from(rustix::io::Errno::TIMEDOUT);
                    return Err(timed_out.at(format_args!("lost: no record of {job:?}")));
                }
                self.lanes[lane].job = Some((index, job, deadline));
                continue;
            };
            let slot = &mut self.slots[index];
            slot.busy = false;
            job.judge(&record, slot)?;
            if job.work == Work::Copy {
                job.brought(&record, slot, &self.lanes[lane].aside)?;
            }
            job.moved()?;
            self.settle(index, &job, record.status)?;
            self.tally.job(&job, record.status);
            if matches!(job.work, Work::Fill(_)) && self.rng.bool() {
                self.part_from_child(index)?;
            }
        }
        Ok(())
    }

    /// Looks at a slot after a job, and takes note of what it holds.
    fn settle(&mut self, index: usize, job: &Job, status: u8) -> Done {
        let slot = &mut self.slots[index];
        if slot.rights == Rights::None {
            return Ok(());
        }
        let pages = match slot.kind {
            Kind::Huge => job.pages.clone(),
            Kind::Small | Kind::Shared => 0..slot.pages(),
        };
        for page in pages {
            match slot.look(page, &job.left(status, slot, page))? {
                Some(value) => slot.now[page] = value,
                // The processor and the device wrote to it at the same time.
                None => {
                    self.values += 1;
                    slot.stamp(page..page + 1, self.values);
                }
            }
        }
        Ok(())
    }
}
