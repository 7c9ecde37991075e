mod held;

use super::*;
use crate::{Memory, OnFault, Op, Via};
use iopf::Gpa;
use std::fmt::Write;
use testkit::{FakeClock, FakeIommu, Ram};
use viommu_api::PageRequestOutcome;

const RID: Rid = Rid(0x10);
const PASID: Option<Pasid> = Pasid::new(5);

/// A device, what is around it, and a transcript of what it did.
struct Bench {
    iommu: Arc<FakeIommu>,
    ram: Ram,
    device: Device,
    clock: FakeClock,
}

impl Bench {
    fn new(config: Config) -> Self {
        let iommu = Arc::new(FakeIommu::new());
        let ram = Ram::new(4 << 20).unwrap();
        let memory = Arc::new(Memory(ram.memory()));
        let device = Device::new(RID, config, Ports::of(iommu.clone()), memory);
        Self {
            iommu,
            ram,
            device,
            clock: FakeClock::new(),
        }
    }

    /// Steps until idle and tells what came out.
    fn run(&self) -> String {
        let mut log = String::new();
        for _ in 0..100 {
            if self.device.step(self.clock.now()) != Step::Worked {
                break;
            }
        }
        for (_, r) in self.iommu.take_requests() {
            let last = if r.last { " last" } else { "" };
            writeln!(log, "ask {} {} group {}{last}", r.addr, r.access, r.group.0).unwrap();
        }
        while let Some(a) = self.device.poll_answer() {
            writeln!(log, "group {} {:?} {:?}", a.group.0, a.response, a.waited).unwrap();
        }
        while let Some(c) = self.device.poll_completion() {
            writeln!(log, "job {} {:?} moved {:#x}", c.id.0, c.status, c.moved).unwrap();
        }
        log
    }

    /// Steps until idle; how many pages were requested meanwhile.
    fn run_until_idle(&self) -> usize {
        for _ in 0..100 {
            if self.device.step(self.clock.now()) != Step::Worked {
                break;
            }
        }
        self.iommu.take_requests().len()
    }

    fn map(&self, at: u64, to: u64, perms: Access) {
        self.iommu.map(PASID, Iova(at), Gpa(to), perms);
    }

    fn answer(&self, group: u32, response: Response) {
        self.device
            .page_response(PASID, GroupIndex(group), response);
    }
}

fn read(from: u64, len: u32) -> Job {
    Job::new(
        PASID,
        Op::Read {
            from: Iova(from),
            len,
        },
    )
}

#[test]
fn a_copy_onto_untouched_pages_asks_for_them_and_goes_on() {
    let bench = Bench::new(Config::default());
    bench.ram.write(Gpa(0x20_0000), &[7; 0x2000]);
    let copy = Op::Copy {
        from: Iova(0x1000),
        to: Iova(0x8800),
        len: 0x2000,
    };
    bench.device.submit(Job::new(PASID, copy)).unwrap();
    assert_eq!(
        bench.run(),
        "ask 0x1000 r group 0\n\
         ask 0x8000 w group 0\n\
         ask 0x9000 w group 0\n\
         ask 0x2000 r group 0\n\
         ask 0xa000 w group 0 last\n"
    );
    for (page, to) in [(1, 0x20_0000), (2, 0x20_1000)] {
        bench.map(page << 12, to, Access::READ);
    }
    for (page, to) in [(8, 0x30_0000), (9, 0x30_1000), (10, 0x30_2000)] {
        bench.map(page << 12, to, Access::RW);
    }
    bench.clock.advance(Duration::from_micros(3));
    bench.answer(0, Response::Success);
    assert_eq!(
        bench.run(),
        "group 0 Some(Success) 3µs\njob 0 Done moved 0x2000\n"
    );
    let mut copied = [0; 0x2000];
    bench.ram.read(Gpa(0x30_0800), &mut copied);
    assert_eq!(copied, [7; 0x2000]);
}

#[test]
fn a_group_stays_within_the_allocation_and_the_next_job_waits_for_credits() {
    let bench = Bench::new(Config {
        allocation: 3,
        ..Config::default()
    });
    bench.device.submit(read(0x1000, 0x8000)).unwrap();
    bench.device.submit(read(0x10_0000, 0x1000)).unwrap();
    let log = bench.run();
    assert_eq!(log.matches("ask").count(), 3);
    assert_eq!(log.matches("last").count(), 1);
    bench.answer(0, Response::Invalid);
    assert_eq!(
        bench.run(),
        "ask 0x100000 r group 1 last\n\
         group 0 Some(Invalid) 0ns\n\
         job 0 Invalid(iova:0x1000) moved 0x0\n"
    );
}

#[test]
fn a_failure_turns_page_requests_off_until_a_reset() {
    let bench = Bench::new(Config::default());
    bench.device.submit(read(0x1000, 8)).unwrap();
    bench.run();
    bench.answer(0, Response::Failure);
    bench.device.submit(read(0x2000, 8)).unwrap();
    assert_eq!(
        bench.run(),
        "group 0 Some(Failure) 0ns\n\
         job 0 Failure(iova:0x1000) moved 0x0\n\
         job 1 NoTranslation(iova:0x2000) moved 0x0\n"
    );
    assert!(!bench.device.pri_enabled());
    bench.device.reset_pri();
    bench.device.submit(read(0x2000, 8)).unwrap();
    assert_eq!(bench.run(), "ask 0x2000 r group 1 last\n");
}

#[test]
fn a_group_without_an_answer_is_given_up_and_a_late_answer_harms_nobody() {
    let bench = Bench::new(Config {
        timeout: Duration::from_millis(5),
        ..Config::default()
    });
    bench.device.submit(read(0x1000, 8)).unwrap();
    bench.run();
    bench.clock.advance(Duration::from_millis(5));
    assert_eq!(
        bench.run(),
        "group 0 None 5ms\njob 0 NoAnswer(iova:0x1000) moved 0x0\n"
    );
    bench.device.submit(read(0x2000, 8)).unwrap();
    assert_eq!(bench.run(), "ask 0x2000 r group 1 last\n");
    bench.answer(0, Response::Invalid);
    assert_eq!(bench.run(), "");
    assert_eq!(bench.device.stats().unexpected_responses, 0);
    bench.answer(0, Response::Invalid);
    assert_eq!(bench.device.stats().unexpected_responses, 1);
}

#[test]
fn success_without_a_mapping_is_asked_again_at_a_growing_distance_and_not_for_ever() {
    let bench = Bench::new(Config {
        attempts: 2,
        backoff: Duration::from_micros(10),
        ..Config::default()
    });
    bench.device.submit(read(0x1000, 8)).unwrap();
    bench.run();
    bench.answer(0, Response::Success);
    assert!(bench.run().starts_with("ask 0x1000 r group 1 last\n"));
    bench.answer(1, Response::Success);
    assert_eq!(bench.run(), "group 1 Some(Success) 0ns\n");
    bench.clock.advance(Duration::from_micros(20));
    assert_eq!(bench.run(), "ask 0x1000 r group 2 last\n");
    bench.answer(2, Response::Success);
    bench.run();
    bench.clock.advance(Duration::from_micros(40));
    assert_eq!(bench.run(), "job 0 NoProgress(iova:0x1000) moved 0x0\n");
}

#[test]
fn after_an_invalidation_the_translation_is_fetched_anew() {
    let bench = Bench::new(Config::default());
    bench.map(0x1000, 0x20_0000, Access::READ);
    bench.ram.write(Gpa(0x20_0000), &[1]);
    bench.ram.write(Gpa(0x21_0000), &[2]);
    let fetch = || {
        bench.device.submit(read(0x1000, 1)).unwrap();
        while bench.device.step(Duration::ZERO) == Step::Worked {}
        bench.device.poll_completion().unwrap().data
    };
    assert_eq!(fetch(), [1]);
    bench.map(0x1000, 0x21_0000, Access::READ);
    assert_eq!(fetch(), [1], "cached, and nobody said otherwise");
    bench.device.invalidate(&Invalidation {
        pasid: PASID,
        global: false,
        addr: Iova(0x1000),
        size_shift: 12,
    });
    assert_eq!(fetch(), [2]);
}

#[test]
fn an_immediate_answer_and_a_dropped_request_are_both_survived() {
    let bench = Bench::new(Config {
        timeout: Duration::from_millis(1),
        ..Config::default()
    });
    let now = PageRequestOutcome::Answered(Response::Invalid);
    bench.iommu.outcome_next(now);
    bench.iommu.outcome_next(PageRequestOutcome::Dropped);
    bench.device.submit(read(0x1000, 8)).unwrap();
    bench.device.submit(read(0x2000, 8)).unwrap();
    bench.run();
    bench.clock.advance(Duration::from_millis(1));
    let log = bench.run();
    assert!(log.contains("job 1 NoAnswer(iova:0x2000)"), "{log}");
    assert_eq!(bench.device.stats().answered, [0, 1, 0]);
    assert_eq!(bench.device.pending(), 0);
}

#[test]
fn refused_jobs_leave_the_device_as_it_was() {
    let bench = Bench::new(Config {
        jobs: 1,
        max_len: 0x1000,
        ..Config::default()
    });
    assert_eq!(bench.device.submit(read(0, 0)), Err(Refused::Empty));
    let long = Refused::TooLong {
        len: 0x1001,
        max: 0x1000,
    };
    assert_eq!(bench.device.submit(read(0, 0x1001)), Err(long));
    let wraps = Refused::Wraps {
        at: Iova(u64::MAX),
        len: 2,
    };
    assert_eq!(bench.device.submit(read(u64::MAX, 2)), Err(wraps));
    assert!(bench.device.submit(read(0, 1)).is_ok());
    assert_eq!(bench.device.submit(read(0, 1)), Err(Refused::Full(1)));
    assert_eq!(bench.device.pending(), 1);
}

#[test]
fn an_aborted_job_with_a_group_under_way_ends_with_its_answer() {
    let bench = Bench::new(Config::default());
    bench.device.submit(read(0x1000, 8)).unwrap();
    bench.run();
    bench.device.submit(read(0x2000, 8)).unwrap();
    bench.device.abort(PASID);
    assert_eq!(bench.run(), "job 1 Aborted moved 0x0\n");
    assert_eq!(bench.device.outstanding(PASID), 1);
    bench.answer(0, Response::Success);
    assert_eq!(
        bench.run(),
        "group 0 Some(Success) 0ns\njob 0 Aborted moved 0x0\n"
    );
    assert_eq!(bench.device.outstanding(PASID), 0);
}

#[test]
fn untranslated_requests_stop_at_the_first_page_the_iommu_refuses() {
    let bench = Bench::new(Config::default());
    bench.map(0x1000, 0x20_0000, Access::RW);
    let op = Op::Write {
        to: Iova(0x1ffc),
        data: vec![9; 8],
    };
    let job = Job {
        via: Via::Untranslated,
        ..Job::new(PASID, op)
    };
    bench.device.submit(job).unwrap();
    assert_eq!(bench.run(), "job 0 Blocked(iova:0x2000) moved 0x4\n");
    assert_eq!(bench.device.stats().blocked, 1);
}

fn touch(at: u64, len: u32) -> Op {
    Op::Touch { at: Iova(at), len }
}

#[test]
fn an_invalid_answer_ends_the_job_at_the_page_it_was_about() {
    let bench = Bench::new(Config::default());
    let op = Op::Write {
        to: Iova(0x1800),
        data: vec![7; 0x2800],
    };
    bench.device.submit(Job::new(PASID, op)).unwrap();
    assert_eq!(
        bench.run(),
        "ask 0x1000 w group 0\nask 0x2000 w group 0\nask 0x3000 w group 0 last\n"
    );
    // Software mapped the first page and gave up at the second, as Linux does.
    bench.map(0x1000, 0x20_0000, Access::RW);
    bench.answer(0, Response::Invalid);
    assert_eq!(bench.run_until_idle(), 0, "nothing is asked twice");
    let end = bench.device.poll_completion().unwrap();
    assert_eq!(end.status, Status::Invalid(Iova(0x2000)));
    assert_eq!(end.failed, Some((Iova(0x2000), Access::WRITE)));
    assert_eq!(end.moved, 0x800);
}

#[test]
fn a_job_that_does_not_wait_ends_at_the_side_that_is_missing() {
    let bench = Bench::new(Config::default());
    bench.map(0x1000, 0x20_0000, Access::READ);
    bench.map(0x8000, 0x30_0000, Access::READ);
    let op = Op::Copy {
        from: Iova(0x1010),
        to: Iova(0x8020),
        len: 16,
    };
    let job = Job {
        on_fault: OnFault::Stop,
        ..Job::new(PASID, op)
    };
    bench.device.submit(job).unwrap();
    assert_eq!(bench.run_until_idle(), 0, "no page is requested");
    let end = bench.device.poll_completion().unwrap();
    assert_eq!(end.status, Status::NoTranslation(Iova(0x8020)));
    assert_eq!(end.failed, Some((Iova(0x8020), Access::WRITE)));
}

#[test]
fn touching_pages_requests_them_and_leaves_memory_alone() {
    let bench = Bench::new(Config::default());
    bench.ram.write(Gpa(0x30_0000), &[7; 0x1000]);
    bench.map(0x8000, 0x30_0000, Access::RW);
    bench
        .device
        .submit(Job::new(PASID, touch(0x8fff, 2)))
        .unwrap();
    assert_eq!(bench.run(), "ask 0x9000 w group 0 last\n");
    bench.map(0x9000, 0x30_1000, Access::RW);
    bench.answer(0, Response::Success);
    assert_eq!(
        bench.run(),
        "group 0 Some(Success) 0ns\njob 0 Done moved 0x2\n"
    );
    assert_eq!(bench.device.cached(), 2);
    let mut page = [0; 0x1000];
    bench.ram.read(Gpa(0x30_0000), &mut page);
    assert_eq!(page, [7; 0x1000]);
}

#[test]
fn a_cancelled_job_stays_cancelled_when_page_requests_are_reset() {
    let bench = Bench::new(Config::default());
    // One that still waits for its answer, and one that has it and was not stepped since.
    for page in [0x1000, 0x2000] {
        bench.device.submit(read(page, 8)).unwrap();
    }
    bench.run();
    bench.answer(1, Response::Success);
    bench.device.abort(PASID);
    bench.device.reset_pri();
    assert_eq!(
        bench.run(),
        "group 1 Some(Success) 0ns\n\
         job 0 Aborted moved 0x0\n\
         job 1 Aborted moved 0x0\n"
    );
}

/// Something that happens while the IOMMU has a request in hand, once.
type Event = fn(&Device);

/// An IOMMU that lets something happen before it answers.
struct Meanwhile {
    iommu: Arc<FakeIommu>,
    device: std::sync::OnceLock<Arc<Device>>,
    event: Mutex<Option<Event>>,
}

impl Meanwhile {
    /// A device behind it.
    fn device(event: Event, ats: bool) -> (Arc<Device>, Arc<FakeIommu>, Ram) {
        let iommu = Arc::new(FakeIommu::new());
        let ram = Ram::new(4 << 20).unwrap();
        let meanwhile = Arc::new(Self {
            iommu: iommu.clone(),
            device: std::sync::OnceLock::new(),
            event: Mutex::new(Some(event)),
        });
        let mut ports = Ports::of(iommu.clone());
        if ats {
            ports.ats = meanwhile.clone();
        } else {
            ports.translate = meanwhile.clone();
        }
        let memory = Arc::new(Memory(ram.memory()));
        let device = Arc::new(Device::new(RID, Config::default(), ports, memory));
        meanwhile.device.set(device.clone()).unwrap();
        (device, iommu, ram)
    }

    fn happens(&self) {
        let event = self.event.lock().unwrap().take();
        if let Some(event) = event {
            event(self.device.get().unwrap());
        }
    }
}

impl Translate for Meanwhile {
    fn with_translation(
        &self,
        dma: &iopf::Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), viommu_api::Blocked> {
        self.happens();
        // Translation is off by now: every address is one of memory.
        each(Gpa(dma.addr.0), len);
        Ok(())
    }
}

impl Ats for Meanwhile {
    fn translation_request(&self, dma: &iopf::Dma) -> viommu_api::AtsCompletion {
        let completion = self.iommu.translation_request(dma);
        self.happens();
        completion
    }
}

#[test]
fn an_access_that_is_overtaken_by_a_reset_or_a_switch_leaves_memory_alone() {
    let events: [(Event, Status); 3] = [
        (|device| device.reset(), Status::Aborted),
        (|device| device.set_bus_master(false), Status::BusMasterOff),
        (|device| device.set_pasid(false), Status::PasidOff),
    ];
    for (event, status) in events {
        let (device, _, ram) = Meanwhile::device(event, false);
        let write = Op::Write {
            to: Iova(0x1000),
            data: vec![7; 16],
        };
        let job = Job {
            via: Via::Untranslated,
            ..Job::new(PASID, write)
        };
        device.submit(job).unwrap();
        assert_eq!(device.step(Duration::ZERO), Step::Worked);
        assert_eq!(device.poll_completion().unwrap().status, status);
        let mut there = [1; 16];
        ram.read(Gpa(0x1000), &mut there);
        assert_eq!(there, [0; 16]);
    }
}

#[test]
fn a_translation_that_is_overtaken_by_a_reset_or_a_switch_is_not_kept() {
    let events: [(Event, Status); 4] = [
        (|device| device.reset(), Status::Aborted),
        (|device| device.set_bus_master(false), Status::BusMasterOff),
        (|device| device.set_pasid(false), Status::PasidOff),
        (
            |device| device.set_ats(false),
            Status::Blocked(Iova(0x1000)),
        ),
    ];
    for (event, status) in events {
        let (device, iommu, _ram) = Meanwhile::device(event, true);
        // The first page is missing, so that the others are looked at for one group.
        for page in 2..8 {
            iommu.map(PASID, Iova(page << 12), Gpa(page << 12), Access::RW);
        }
        device.submit(read(0x1000, 0x7000)).unwrap();
        while device.step(Duration::ZERO) == Step::Worked {}
        assert_eq!(device.poll_completion().unwrap().status, status);
        assert_eq!(
            (device.cached(), iommu.translations()),
            (0, 1),
            "{status:?}"
        );
        assert_eq!(iommu.take_requests(), []);
    }
}

/// Memory that takes its time: a read waits until the test goes on.
struct Slow {
    entered: std::sync::mpsc::SyncSender<()>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl PhysicalMemory for Slow {
    fn read(&self, _: Gpa, into: &mut [u8]) -> Result<(), viommu_api::BusError> {
        self.entered.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        into.fill(7);
        Ok(())
    }

    fn write(&self, _: Gpa, _: &[u8]) -> Result<(), viommu_api::BusError> {
        Ok(())
    }
}

#[test]
fn no_switch_and_no_reset_waits_for_memory() {
    let iommu = Arc::new(FakeIommu::new());
    iommu.map(PASID, Iova(0x1000), Gpa(0x1000), Access::READ);
    let (entered, enters) = std::sync::mpsc::sync_channel(1);
    let (lets, go_on) = std::sync::mpsc::sync_channel(1);
    let go_on = Mutex::new(go_on);
    let memory = Arc::new(Slow { entered, go_on });
    let device = Device::new(RID, Config::default(), Ports::of(iommu), memory);
    device.submit(read(0x1000, 8)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| device.step(Duration::ZERO));
        enters.recv().unwrap();
        // With the access under way; were one of these to wait for it, nobody would go on.
        device.set_ats(false);
        device.set_pasid(false);
        device.set_bus_master(false);
        device.reset();
        lets.send(()).unwrap();
    });
    assert_eq!(device.cached(), 0);
    assert_eq!(device.poll_completion().unwrap().status, Status::Done);
}

#[test]
fn a_job_under_way_goes_on_untranslated_when_ats_is_turned_off_and_caches_nothing() {
    let bench = Bench::new(Config::default());
    for page in 1..=40 {
        bench.map(page << 12, page << 12, Access::READ);
    }
    bench.device.submit(read(0x1000, 40 << 12)).unwrap();
    assert_eq!(bench.device.step(bench.clock.now()), Step::Worked);
    assert_eq!(
        (bench.device.cached(), bench.iommu.translations()),
        (16, 16)
    );
    bench.device.set_ats(false);
    assert_eq!(bench.run(), "job 0 Done moved 0x28000\n");
    assert_eq!((bench.device.cached(), bench.iommu.translations()), (0, 16));
    bench.device.set_ats(true);
    bench.device.submit(read(0x1000, 8)).unwrap();
    bench.run();
    assert_eq!((bench.device.cached(), bench.iommu.translations()), (1, 17));
}
