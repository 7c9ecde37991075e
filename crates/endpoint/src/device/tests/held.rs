//! Accesses that the IOMMU holds, or ends in silence.

use super::*;
use viommu_api::Ending;

const TAG: StallTag = StallTag(9);

/// A bench whose pages 0x1000 and 0x3000 are there, and 0x2000 is not; copies 0x10 bytes from or to it.
fn bench(end: Ending, to_missing: bool) -> Bench {
    let bench = Bench::new(Config::default());
    bench.ram.write(Gpa(0x20_0000), &[7; 16]);
    bench.ram.write(Gpa(0x22_0000), &[1; 16]);
    bench.ram.write(Gpa(0x21_0000), &[5; 16]);
    bench.map(0x1000, 0x20_0000, Access::RW);
    bench.map(0x3000, 0x22_0000, Access::RW);
    bench.iommu.end_next(end);
    let (from, to) = if to_missing {
        (Iova(0x1000), Iova(0x2000))
    } else {
        (Iova(0x2000), Iova(0x3000))
    };
    let copy = Op::Copy { from, to, len: 16 };
    let job = Job {
        via: Via::Untranslated,
        ..Job::new(PASID, copy)
    };
    bench.device.submit(job).unwrap();
    bench
}

fn bytes(bench: &Bench, at: u64) -> [u8; 16] {
    let mut there = [0xff; 16];
    bench.ram.read(Gpa(at), &mut there);
    there
}

#[test]
fn an_access_that_is_held_is_made_again_when_it_is_to_be_retried() {
    let bench = bench(Ending::Stalled(TAG), false);
    assert_eq!(bench.run(), "");
    assert_eq!(
        (bench.device.stats().stalls, bench.device.pending()),
        (1, 1)
    );
    bench.map(0x2000, 0x21_0000, Access::RW);
    assert_eq!(bench.run(), "");
    bench.device.resume(TAG, Resume::Retry);
    assert_eq!(bench.run(), "job 0 Done moved 0x10\n");
    assert_eq!(bytes(&bench, 0x22_0000), [5; 16]);
    assert_eq!(bench.device.stats().resumed, [1, 0, 0]);
}

#[test]
fn an_access_that_is_held_and_aborted_ends_its_job() {
    let bench = bench(Ending::Stalled(TAG), true);
    assert_eq!(bench.run(), "");
    bench.device.resume(TAG, Resume::Abort);
    assert_eq!(bench.run(), "job 0 Blocked(iova:0x2000) moved 0x0\n");
    let stats = bench.device.stats();
    assert_eq!((stats.blocked, stats.resumed), (1, [0, 1, 0]));
}

#[test]
fn a_read_that_is_held_and_ignored_gives_zeros() {
    let bench = bench(Ending::Stalled(TAG), false);
    assert_eq!(bench.run(), "");
    bench.device.resume(TAG, Resume::Ignore);
    assert_eq!(bench.run(), "job 0 Done moved 0x10\n");
    assert_eq!(bytes(&bench, 0x22_0000), [0; 16]);
}

#[test]
fn a_write_that_is_held_and_ignored_changes_nothing() {
    let bench = bench(Ending::Stalled(TAG), true);
    assert_eq!(bench.run(), "");
    bench.map(0x2000, 0x21_0000, Access::RW);
    bench.device.resume(TAG, Resume::Ignore);
    assert_eq!(bench.run(), "job 0 Done moved 0x10\n");
    assert_eq!(bytes(&bench, 0x21_0000), [5; 16]);
    // The job before this one was ignored once, and no more.
    let write = Op::Write {
        to: Iova(0x2000),
        data: vec![3; 16],
    };
    let job = Job {
        via: Via::Untranslated,
        ..Job::new(PASID, write)
    };
    bench.device.submit(job).unwrap();
    assert_eq!(bench.run(), "job 1 Done moved 0x10\n");
    assert_eq!(bytes(&bench, 0x21_0000), [3; 16]);
}

#[test]
fn a_copy_both_sides_of_which_are_held_and_ignored_ends() {
    const OTHER: StallTag = StallTag(10);
    let bench = bench(Ending::Stalled(TAG), true);
    // Neither side is there.
    bench.iommu.unmap(PASID, Iova(0x1000));
    assert_eq!(bench.run(), "");
    bench.iommu.end_next(Ending::Stalled(OTHER));
    bench.device.resume(TAG, Resume::Ignore);
    assert_eq!(bench.run(), "");
    bench.device.resume(OTHER, Resume::Ignore);
    assert_eq!(bench.run(), "job 0 Done moved 0x10\n");
    assert_eq!(bench.device.stats().stalls, 2);
}

#[test]
fn an_access_that_ends_in_silence_is_no_error() {
    for to_missing in [false, true] {
        let bench = bench(Ending::Ignored, to_missing);
        assert_eq!(bench.run(), "job 0 Done moved 0x10\n");
        let expected = if to_missing { 1 } else { 0 };
        assert_eq!(bytes(&bench, 0x22_0000), [expected; 16]);
        assert_eq!(bench.device.stats().blocked, 0);
    }
}

/// Holds every access, and has let it go before it says so.
#[derive(Default)]
struct Hasty(std::sync::OnceLock<Arc<Device>>);

impl Translate for Hasty {
    fn with_translation(
        &self,
        dma: &iopf::Dma,
        _: u64,
        _: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), viommu_api::Blocked> {
        self.0.get().unwrap().resume(TAG, Resume::Ignore);
        Err(viommu_api::Blocked {
            at: dma.addr,
            end: Ending::Stalled(TAG),
        })
    }
}

#[test]
fn what_comes_before_the_access_has_returned_counts() {
    let Bench { iommu, ram, .. } = Bench::new(Config::default());
    let hasty = Arc::new(Hasty::default());
    let ports = Ports {
        translate: hasty.clone(),
        ..Ports::of(iommu)
    };
    let memory = Arc::new(Memory(ram.memory()));
    let device = Arc::new(Device::new(RID, Config::default(), ports, memory));
    hasty.0.set(device.clone()).unwrap();
    let job = Job {
        via: Via::Untranslated,
        ..read(0x2000, 16)
    };
    device.submit(job).unwrap();
    while device.step(Duration::ZERO) == Step::Worked {}
    let completion = device.poll_completion().unwrap();
    assert_eq!(
        (completion.status, completion.data),
        (Status::Done, vec![0; 16])
    );
}

#[test]
fn an_answer_to_an_access_that_another_sent_in_this_name_answers_none_of_its_own() {
    let bench = bench(Ending::Stalled(TAG), false);
    bench.device.resume(TAG, Resume::Abort);
    assert_eq!(bench.run(), "");
    bench.map(0x2000, 0x21_0000, Access::RW);
    bench.device.resume(TAG, Resume::Retry);
    assert_eq!(bench.run(), "job 0 Done moved 0x10\n");
}

#[test]
fn a_job_that_is_cancelled_while_its_access_is_held_ends_with_it() {
    let bench = bench(Ending::Stalled(TAG), false);
    assert_eq!(bench.run(), "");
    bench.device.abort(PASID);
    assert_eq!(bench.run(), "");
    bench.device.resume(TAG, Resume::Retry);
    assert_eq!(bench.run(), "job 0 Aborted moved 0x0\n");
}

#[test]
fn a_reset_ends_a_job_whose_access_is_held_and_the_name_is_free_again_once_it_is_let_go() {
    let bench = bench(Ending::Stalled(TAG), false);
    assert_eq!(bench.run(), "");
    bench.device.reset();
    assert_eq!(bench.run(), "job 0 Aborted moved 0x0\n");
    bench.device.resume(TAG, Resume::Abort);

    bench.iommu.end_next(Ending::Stalled(TAG));
    let job = Job {
        via: Via::Untranslated,
        ..read(0x2000, 16)
    };
    bench.device.submit(job).unwrap();
    assert_eq!(bench.run(), "");
    bench.map(0x2000, 0x21_0000, Access::RW);
    bench.device.resume(TAG, Resume::Retry);
    assert_eq!(bench.run(), "job 1 Done moved 0x10\n");
}
