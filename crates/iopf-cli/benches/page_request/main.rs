//! What is our share of one page request, from the device's fault to its next attempt?
//!
//! The parts of `iopf serve` in one process with a client: a device with a thread of its own, a
//! VT-d unit in scalable mode, the IOMMU function behind a listening Unix socket, guest memory that
//! came as a sealed descriptor. The client is a scripted guest, whose registers and interrupts go
//! over that socket. Each round is a DMA to a page that is not there.
//!
//! | row | question | target |
//! |---|---|---|
//! | raised to message written | page request to the unit, its descriptor in the guest's queue, DMA_WRITE into the socket | – |
//! | tail received to retried | the write of the invalidation queue's tail at the IOMMU function, the answer to the device, its thread awake and asking again | – |
//! | our share | the two together, round by round | ≤ 20 µs |
//!
//! Once with all threads on one processor, which is what the target is held to, and once as the kernel
//! places them: where a thread sleeps on another, idle processor, waking it may take longer than the
//! target by itself, as the yardstick shows.
//!
//! What lies between the two is the guest's. The rows of the client have the socket in them too:
//! what it takes to wake the thread that reads there, the client's or ours, and to decode the message.
//! The yardsticks are what the kernel takes for a wake-up and for a message, in the same run.

mod client;
mod marks;

use client::Client;
use endpoint::{Config, Device, IommuFunction, Job, Op, Ports, Status, Step};
use iopf::{Access, Iova, Pasid, Rid};
use marks::{Asked, Lap, Mark, Marks, Reached, Sent, Woken};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};
use testkit::vtd::{Guest, Setup};
use testkit::{Backing, Driver, Interrupts, Mm, Ram};
use vfio_user_server::codec::Limits;
use vfio_user_server::{Function, GuestMap, MapLimits, Port, Server};
use viommu::mem::GuestRam;
use viommu::vtd::{self, VtdUnit};
use viommu_api::{Endpoint, Registers};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

const DEVICE: Rid = Rid(0x20);
const FROM: Iova = Iova(0x7000_0000);
const MEMORY: u64 = 64 << 20;
const SOON: Duration = Duration::from_secs(5);
/// Rounds before those that count.
const WARM: u64 = 500;
const ROUNDS: u64 = 8000;
const TARGET: u64 = 20_000;
/// Between two samples of a yardstick: about a round, so that threads and caches are as cold.
const IDLE: Duration = Duration::from_micros(100);

/// Everything that is set up once.
struct Bed {
    guest: Guest,
    device: Arc<Woken>,
    mm: Arc<Mm>,
    marks: Arc<Marks>,
    server: Server,
    stop: Arc<AtomicBool>,
}

/// Guest memory as QEMU's `memory-backend-memfd` makes it.
fn sealed(size: u64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("memory", flags).expect("a memfd");
    ftruncate(&file, size).expect("room");
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).expect("seals");
    file.into()
}

fn bed(dir: &std::path::Path, pages: u64) -> Bed {
    let marks = Arc::new(Marks::new());
    let map = Arc::new(GuestMap::new(MapLimits::default()));
    let port = Arc::new(Port::new());
    let parts = vtd::Setup {
        config: vtd::Config::default(),
        ram: GuestRam::new(map.space()),
    };
    let sink = Sent {
        sink: port.clone(),
        marks: marks.clone(),
    };
    let unit = Arc::new(VtdUnit::new(parts, Arc::new(sink)).expect("a good configuration"));

    let asked = Arc::new(Asked {
        iommu: unit.clone(),
        marks: marks.clone(),
    });
    let ports = Ports {
        ats: asked.clone(),
        pri: asked,
        ..Ports::of(unit.clone())
    };
    let device = Arc::new(Woken {
        device: Arc::new(Device::new(DEVICE, Config::default(), ports, map.clone())),
        worker: OnceLock::new(),
        marks: marks.clone(),
    });
    let weak: Weak<Woken> = Arc::downgrade(&device);
    unit.attach(DEVICE, weak as Weak<dyn Endpoint>);

    let registers = unit.clone();
    let function = IommuFunction::new(unit.clone(), move || registers.reset());
    let function = Function {
        device: Arc::new(Reached {
            function: function.expect("a small register file"),
            marks: marks.clone(),
        }),
        port,
        guest: map,
        observer: Arc::new(()),
        limits: Limits::default(),
    };
    let server = Server::bind(&dir.join("iommu.sock"), function).expect("a socket");

    let memory = sealed(MEMORY);
    let size = usize::try_from(MEMORY).expect("64 bits");
    let file = FileOffset::new(memory.try_clone().expect("a descriptor"), 0);
    let seen = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), size, Some(file))]);
    let ram = Arc::new(Ram::over(Arc::new(seen.expect("a mapping"))));
    let irqs = Arc::new(Interrupts::new());
    let client = Client::new(
        server.path(),
        &memory,
        irqs.clone(),
        marks.clone(),
        unit.size(),
    );
    let guest = Guest::boot(Arc::new(client), ram.clone(), irqs, Setup::default());
    let guest = guest.expect("the guest boots");
    let mm = Arc::new(Mm::new(&ram, Pasid::truncate(5), 4).expect("tables"));
    mm.mmap(FROM, pages, Access::RW, Backing::Zero);
    guest.probe(DEVICE, true, 0).expect("a context entry");
    guest.bind(DEVICE, &mm).expect("a PASID entry");

    let stop = Arc::new(AtomicBool::new(false));
    let (stepped, stopped) = (device.device.clone(), stop.clone());
    let worker = thread::spawn(move || step(&stepped, &stopped));
    assert!(device.worker.set(worker.thread().clone()).is_ok());
    Bed {
        guest,
        device,
        mm,
        marks,
        server,
        stop,
    }
}

/// A device's thread, as `iopf serve` has one.
fn step(device: &Device, stop: &AtomicBool) {
    let start = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        let now = start.elapsed();
        match device.step(now) {
            Step::Worked => {}
            Step::Idle(None) => thread::park(),
            Step::Idle(Some(until)) => thread::park_timeout(until.saturating_sub(now)),
        }
    }
}

impl Bed {
    fn wake(&self) {
        if let Some(worker) = self.device.worker.get() {
            worker.unpark();
        }
    }

    /// One DMA to the `page`-th page, which nobody has touched.
    fn round(&self, page: u64) -> Lap {
        let to = Iova(FROM.0 + page * 4096);
        let data = (page ^ 0x5a5a_5a5a).to_le_bytes();
        self.marks.take();
        let write = Op::Write {
            to,
            data: data.to_vec(),
        };
        let job = Job::new(Some(self.mm.pasid()), write);
        self.device.device.submit(job).expect("a slot is free");
        self.wake();
        assert!(self.guest.service_within(SOON), "no interrupt came");
        let deadline = Instant::now() + SOON;
        let done = loop {
            if let Some(done) = self.device.device.poll_completion() {
                break done;
            }
            assert!(Instant::now() < deadline, "the job does not end");
            // Asleep: a client that spins would take a processor from the device's thread.
            thread::sleep(IDLE);
        };
        assert_eq!((done.status, done.pages_requested), (Status::Done, 1));
        let (at, _) = self.mm.translate(to).expect("a page");
        let mut stored = [0; 8];
        self.mm.ram().read(at, &mut stored);
        assert_eq!(stored, data);
        self.marks.take()
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
        drop(self.guest);
        self.server.stop();
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// From `unpark` on one thread to the return of `park` on another, while the first waits. `place` runs
/// on the second before it parks.
fn wake_ups(rounds: u64, place: impl FnOnce() + Send + 'static) -> Vec<u64> {
    let start = Instant::now();
    let (rang, heard) = channel();
    let bell = Arc::new(AtomicBool::new(false));
    let ringing = bell.clone();
    let sleeper = thread::spawn(move || {
        place();
        for _ in 0..rounds {
            while !ringing.swap(false, Ordering::AcqRel) {
                thread::park();
            }
            if rang.send(nanos(start)).is_err() {
                return;
            }
        }
    });
    let times = (0..rounds).map(|_| {
        thread::sleep(IDLE);
        let before = nanos(start);
        bell.store(true, Ordering::Release);
        sleeper.thread().unpark();
        heard.recv().expect("the sleeper").saturating_sub(before)
    });
    let times = times.collect();
    sleeper.join().expect("it has ended");
    times
}

/// A message of 36 bytes into a socket, at whose other end a thread waits.
fn sends(rounds: u64) -> Vec<u64> {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let reader = thread::spawn(move || {
        let mut message = [0; 36];
        while theirs.read_exact(&mut message).is_ok() {}
    });
    let times = (0..rounds)
        .map(|_| {
            thread::sleep(IDLE);
            let before = Instant::now();
            ours.write_all(&[0; 36]).expect("a peer");
            nanos(before)
        })
        .collect();
    drop(ours);
    reader.join().expect("it has ended");
    times
}

/// Prints median and tails, and returns the median.
fn row(name: &str, mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let micros = |percent| Duration::from_nanos(at(percent)).as_secs_f64() * 1e6;
    let (half, ninety, tail) = (micros(50), micros(90), micros(99));
    println!("  {name:<46} {half:8.2} {ninety:8.2} {tail:8.2}");
    at(50)
}

fn main() {
    let is = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    if is("--list") {
        return;
    }
    // A test run only looks whether it works.
    let (warm, rounds) = if is("--bench") {
        (WARM, ROUNDS)
    } else {
        (0, 20)
    };
    let every = sched_getaffinity(None).expect("a set of processors");
    let mut each = (0..CpuSet::MAX_CPU).filter(|cpu| every.is_set(*cpu));
    let (first, second) = (each.next().expect("a processor"), each.next());
    only(first);
    println!("all threads on one processor, {rounds} rounds, in µs:");
    yardsticks(rounds, None);
    let median = measure(warm, rounds);
    let verdict = if median <= TARGET { "met" } else { "missed" };
    println!("  target for the median of our share, 20 µs: {verdict}");
    sched_setaffinity(None, &every).expect("as it was");
    println!("threads where the kernel puts them, {rounds} rounds, in µs:");
    yardsticks(rounds, second.map(|second| (first, second)));
    sched_setaffinity(None, &every).expect("as it was");
    measure(warm, rounds);
}

/// Keeps this thread, and those it starts from now on, on one processor.
fn only(processor: usize) {
    let mut one = CpuSet::new();
    one.set(processor);
    sched_setaffinity(None, &one).expect("a processor that it may use");
}

/// What the kernel takes, on the processors that this thread may use, and from one to another.
fn yardsticks(rounds: u64, apart: Option<(usize, usize)>) {
    println!("  {:<46} {:>8} {:>8} {:>8}", "", "median", "90 %", "99 %");
    row("yardstick: a message into a socket", sends(rounds));
    match apart {
        None => {
            row("yardstick: waking a parked thread", wake_ups(rounds, || ()));
        }
        Some((here, there)) => {
            only(here);
            let times = wake_ups(rounds, move || only(there));
            row("yardstick: waking one on another processor", times);
        }
    }
}

/// Plays the rounds, and gives the median of our share in nanoseconds.
fn measure(warm: u64, rounds: u64) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let bed = bed(dir.path(), warm + rounds);
    for page in 0..warm {
        bed.round(page);
    }
    let laps: Vec<Lap> = (warm..warm + rounds).map(|page| bed.round(page)).collect();
    let requests = bed.guest.page_requests();
    assert_eq!(requests.success, warm + rounds, "{requests:?}");
    assert_eq!(bed.guest.poll_faults().tallies.len(), 0);
    bed.end();

    let between = |from, to| laps.iter().map(|lap| lap.between(from, to)).collect();
    row("raised to queued", between(Mark::Raised, Mark::Queued));
    row(
        "queued to message written",
        between(Mark::Queued, Mark::Written),
    );
    row(
        "raised to message written",
        between(Mark::Raised, Mark::Written),
    );
    row(
        "tail received to answer",
        between(Mark::Tail, Mark::Answered),
    );
    row(
        "tail received to retried",
        between(Mark::Tail, Mark::Retried),
    );
    let share = laps.iter().map(|lap| {
        lap.between(Mark::Raised, Mark::Written) + lap.between(Mark::Tail, Mark::Retried)
    });
    let median = row("our share", share.collect());
    row(
        "client: raised to message read",
        between(Mark::Raised, Mark::Arrived),
    );
    row(
        "client: tail sent to retried",
        between(Mark::Sent, Mark::Retried),
    );
    row(
        "all, the guest's part included",
        between(Mark::Raised, Mark::Retried),
    );
    median
}
