use crate::rig::{AT, PAGE, QUEUE, Rig, SIZE, STATUS, legacy, scalable};
use iopf::{Access, Rid};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use viommu::vtd::Config;
use viommu_api::Translate;

const IQE: u32 = 1 << 4;
const ITE: u32 = 1 << 6;
const WAIT: [u64; 2] = [2 << 32 | 1 << 5 | 5, STATUS];
const FAULT: (u64, u32) = (0xfee0_1000, 0x30);

fn narrow() -> Rig {
    legacy(Config {
        scalable: None,
        ..Config::default()
    })
}

/// IQERCD_REG.
fn error(rig: &Rig) -> u64 {
    rig.r64(0xb0)
}

#[test]
fn the_queue_wraps() {
    let rig = narrow();
    for _ in 0..600 {
        rig.submit(&[[1 << 4 | 2, 0]]);
    }
    assert_eq!(rig.r32(0x34), 0);
}

#[test]
fn a_wait_may_raise_an_interrupt_once() {
    let rig = narrow();
    rig.queue(&[[1 << 4 | 5, 0], [1 << 4 | 5, 0]]);
    assert_eq!(rig.messages(), [(0xfee0_1000, 0x32)]);
    assert_eq!(rig.r32(0x9c), 1);
    rig.w32(0x9c, 1);
    assert_eq!(rig.r32(0x9c), 0);
    rig.queue(&[[1 << 4 | 5, 0]]);
    assert_eq!(rig.messages(), [(0xfee0_1000, 0x32)]);
}

#[test]
fn an_unknown_descriptor_stops_the_queue_until_linux_replaces_it() {
    let rig = narrow();
    let at = rig.r64(0x80);
    rig.put(STATUS, 0);
    rig.queue(&[[0xb, 0], WAIT]);
    assert_eq!(rig.r32(0x34), IQE);
    assert_eq!(error(&rig), 3);
    assert_eq!(rig.r64(0x80), at, "the head is at the descriptor");
    assert_eq!(rig.messages(), [FAULT]);
    assert_eq!(rig.get(STATUS), 0);
    // More work changes nothing.
    rig.queue(&[WAIT]);
    assert_eq!(rig.get(STATUS), 0);
    // qi_check_fault() copies the wait over the bad descriptor and clears IQE.
    rig.put(QUEUE + at, WAIT[0]);
    rig.put(QUEUE + at + 8, WAIT[1]);
    rig.w32(0x34, IQE);
    assert_eq!(rig.get(STATUS), 2);
    assert_eq!(rig.r64(0x80), rig.r64(0x88));
    assert_eq!((rig.r32(0x34), error(&rig)), (0, 0));
    assert_eq!(rig.unit.counters().queue_errors, 1);
}

#[test]
fn each_error_has_its_number() {
    // Reserved bits, and a granularity that is none.
    for descriptor in [[1 << 8 | 5, 0], [1 << 4 | 1, 1], [0x1, 0], [0x2, 0]] {
        let rig = narrow();
        rig.queue(&[descriptor]);
        assert_eq!(error(&rig), 4, "{descriptor:x?}");
    }
    // Types this unit has no use for: interrupt entries always; PASIDs and pages without scalable
    // mode; a stream response always.
    for kind in [4, 6, 7, 8, 9, 0xa, 0] {
        let rig = narrow();
        rig.queue(&[[kind, 0]]);
        assert_eq!(error(&rig), 3, "type {kind}");
    }
    // A tail beyond the queue.
    let rig = narrow();
    rig.w32(0x88, 0x1000);
    assert_eq!(error(&rig), 1);
    // A queue without memory.
    let rig = narrow();
    rig.w64(0x90, SIZE);
    rig.w32(0x88, 0x500);
    assert_eq!(error(&rig), 2);
    // 256-bit descriptors without scalable mode.
    let rig = narrow();
    rig.w64(0x90, QUEUE | 1 << 11);
    assert_eq!(error(&rig), 5);
    // 128-bit descriptors in scalable mode.
    let rig = scalable(Config::default());
    rig.w64(0x90, QUEUE);
    rig.w32(0x88, 0x500);
    assert_eq!(error(&rig), 5);
    // A tail between 256-bit descriptors.
    let rig = scalable(Config::default());
    rig.w32(0x88, 0x510);
    assert_eq!(error(&rig), 6);
    assert_eq!(rig.unit.counters().queue_errors, 1);
    // 128-bit descriptors in abort-DMA mode.
    let rig = legacy(Config {
        abort_dma: true,
        ..Config::default()
    });
    rig.w64(0x90, QUEUE);
    rig.w64(0x20, 0x1000 | 3 << 10);
    rig.w32(0x18, 1 << 31 | 1 << 30 | 1 << 26);
    rig.w32(0x88, 0x500);
    assert_eq!(error(&rig), 5);
    // What scalable mode has, in legacy mode of a unit that has both.
    for kind in [6, 7, 8, 9] {
        let rig = legacy(Config::default());
        rig.queue(&[[2 << 4 | kind, 0]]);
        assert_eq!(error(&rig), 3, "type {kind}");
    }
    // A table mode that is none, or none of this unit's.
    for (rig, mode) in [
        (scalable(Config::default()), 2),
        (scalable(Config::default()), 3),
        (narrow(), 1),
    ] {
        rig.w64(0x20, 0x1000 | mode << 10);
        rig.w32(0x18, 1 << 31 | 1 << 30 | 1 << 26);
        rig.w32(0x88, 0x500);
        assert_eq!(error(&rig), 7, "{mode}");
    }
}

#[test]
fn a_device_that_is_not_there_times_out_and_its_wait_does_not_come_true() {
    let rig = narrow();
    rig.put(STATUS, 0);
    // Device-TLB invalidation of 00:1f.0, everything.
    rig.queue(&[[0x00f8 << 32 | 3, 0x7fff_ffff_ffff_f001], WAIT, WAIT]);
    assert_eq!(rig.r32(0x34), ITE);
    assert_eq!(error(&rig), 0x00f8 << 32, "ITESID");
    assert_eq!(rig.get(STATUS), 0);
    assert_eq!(rig.messages(), [FAULT]);
    assert_eq!(rig.r64(0x80) + 16, rig.r64(0x88), "the first wait is over");
    rig.w32(0x34, ITE);
    assert_eq!(rig.get(STATUS), 2, "the second came true");
    assert_eq!(rig.r32(0x34), 0);
}

#[test]
fn a_time_out_without_a_wait_is_reported_at_the_end_of_the_queue() {
    let rig = narrow();
    rig.queue(&[[0x00f8 << 32 | 3, 0]]);
    assert_eq!(rig.r32(0x34), ITE);
    assert_eq!(rig.r64(0x80), rig.r64(0x88));
}

#[test]
fn a_time_out_and_a_bad_descriptor_behind_it_are_both_reported() {
    let rig = narrow();
    rig.queue(&[[0x00f8 << 32 | 3, 0], [0xb, 0], WAIT]);
    assert_eq!(rig.r32(0x34), IQE | ITE);
    assert_eq!(error(&rig), 0x00f8 << 32 | 3);
    assert_eq!(rig.messages(), [FAULT], "one event for both");
    assert_eq!(rig.unit.counters().queue_errors, 1, "it stopped once");
    // Either alone keeps the queue where it is.
    rig.put(QUEUE + rig.r64(0x80), 1 << 4 | 2);
    rig.put(STATUS, 0);
    rig.w32(0x34, ITE);
    assert_eq!((rig.r32(0x34), rig.get(STATUS)), (IQE, 0));
    rig.w32(0x34, IQE);
    assert_eq!((rig.r32(0x34), rig.get(STATUS)), (0, 2));
}

#[test]
fn switching_the_queue_off_returns_its_head() {
    let rig = narrow();
    assert_ne!(rig.r64(0x80), 0);
    rig.w32(0x18, 1 << 31);
    assert_eq!(rig.r64(0x80), 0);
    rig.w32(0x88, 0);
    rig.w32(0x18, 1 << 31 | 1 << 26);
    assert_eq!(rig.r64(0x80), 0);
}

#[test]
fn descriptors_written_before_the_queue_is_on_run_when_it_is() {
    let rig = narrow();
    rig.w32(0x18, 1 << 31);
    rig.put(QUEUE, WAIT[0]);
    rig.put(QUEUE + 8, WAIT[1]);
    rig.put(STATUS, 0);
    rig.w32(0x88, 16);
    assert_eq!(rig.get(STATUS), 0);
    rig.w32(0x18, 1 << 31 | 1 << 26);
    assert_eq!(rig.get(STATUS), 2);
}

#[test]
fn a_wait_comes_true_only_after_the_accesses_under_way() {
    let rig = narrow();
    let (inside, waited) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dma = rig.dma(None, AT, Access::READ);
            let access = rig.unit.with_translation(&dma, 1, &mut |_, _| {
                inside.store(true, Ordering::SeqCst);
                let until = Instant::now() + Duration::from_millis(100);
                while Instant::now() < until {
                    assert!(
                        !waited.load(Ordering::SeqCst),
                        "the wait came true too soon"
                    );
                    std::thread::yield_now();
                }
                inside.store(false, Ordering::SeqCst);
            });
            assert_eq!(access, Ok(()));
        });
        while !inside.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        rig.submit(&[[1 << 4 | 2, 0]]);
        assert!(!inside.load(Ordering::SeqCst));
        waited.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_wait_queued_from_within_an_access_comes_true_at_its_end() {
    let rig = narrow();
    rig.put(STATUS, 0);
    let dma = rig.dma(None, AT, Access::READ);
    let access = rig.unit.with_translation(&dma, 1, &mut |_, _| {
        rig.queue(&[[1 << 4 | 2, 0], WAIT]);
        assert_eq!(rig.get(STATUS), 0);
    });
    assert_eq!(access, Ok(()));
    assert_eq!(rig.get(STATUS), 2);
}

#[test]
fn an_endpoint_hears_nothing_in_the_middle_of_its_own_access() {
    let rig = narrow();
    let dma = rig.dma(None, AT, Access::READ);
    let access = rig.unit.with_translation(&dma, 1, &mut |_, _| {
        // Its own device-TLB, everything; and another access, which ends inside this one.
        rig.queue(&[[0x20 << 32 | 3, 0x7fff_ffff_ffff_f001]]);
        assert_eq!(rig.read_at(None, AT), Some(PAGE));
        assert_eq!(rig.ear.take(), []);
    });
    assert_eq!(access, Ok(()));
    assert_eq!(rig.ear.take().len(), 1);
}

#[test]
fn register_based_invalidation_finishes_and_says_what_it_did() {
    let rig = narrow();
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    // DMA_CCMD_ICC | DMA_CCMD_GLOBAL_INVL.
    rig.w64(0x28, 1 << 63 | 1 << 61);
    assert_eq!(
        rig.r64(0x28) >> 59,
        0b0101,
        "CIRG and CAIG are 1, ICC is clear"
    );
    // DMA_TLB_IVT | DMA_TLB_DSI_FLUSH | DID(5).
    rig.w64(0xf8, 1 << 63 | 2 << 60 | 5 << 32);
    assert_eq!(
        rig.r64(0xf8) >> 57,
        0b001_0010,
        "IIRG and IAIG are 2, IVT is clear"
    );
    assert_eq!(Rid(0x20), crate::rig::DEVICE);
}

#[test]
fn a_queue_that_grows_wider_has_no_head_between_two_descriptors() {
    let rig = legacy(Config::default());
    rig.w32(0x18, 1 << 31);
    rig.w32(0x88, 0);
    rig.w64(0x90, QUEUE);
    rig.w32(0x18, 1 << 31 | 1 << 26);
    rig.put(QUEUE, WAIT[0]);
    rig.put(QUEUE + 8, WAIT[1]);
    rig.w32(0x88, 0x10);
    assert_eq!(rig.r64(0x80), 0x10);
    rig.w64(0x90, QUEUE | 1 << 11);
    assert_eq!(rig.r64(0x80), 0, "bit 4 is always zero");
    // The tail is between two descriptors, which is an error once it is looked at.
    rig.w32(0x18, 1 << 31);
    rig.w32(0x18, 1 << 31 | 1 << 26);
    assert_eq!(error(&rig), 6);
    rig.put(STATUS, 0);
    rig.put(QUEUE + 16, 0);
    rig.put(QUEUE + 24, 0);
    rig.w32(0x88, 0x20);
    rig.w32(0x34, IQE);
    assert_eq!((rig.get(STATUS), rig.r64(0x80)), (2, 0x20));
}

/// Lets a wait of 2 at the start of the queue hang on an access under way, runs `meanwhile`, and
/// ends the access.
fn while_a_wait_hangs(rig: &Rig, meanwhile: impl Fn() + Sync) {
    rig.w32(0x18, 1 << 31);
    rig.w32(0x88, 0x10);
    rig.put(QUEUE, WAIT[0]);
    rig.put(QUEUE + 8, WAIT[1]);
    rig.put(STATUS, 0);
    let inside = AtomicBool::new(false);
    let release = AtomicBool::new(false);
    let until = |flag: &AtomicBool| {
        while !flag.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dma = rig.dma(None, AT, Access::READ);
            let access = rig.unit.with_translation(&dma, 1, &mut |_, _| {
                inside.store(true, Ordering::SeqCst);
                until(&release);
            });
            assert_eq!(access, Ok(()));
        });
        until(&inside);
        scope.spawn(|| rig.w32(0x18, 1 << 31 | 1 << 26));
        std::thread::sleep(Duration::from_millis(50));
        scope.spawn(&meanwhile);
        std::thread::sleep(Duration::from_millis(50));
        release.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_wait_of_a_queue_that_was_reset_writes_nothing() {
    let rig = narrow();
    while_a_wait_hangs(&rig, || rig.unit.reset());
    assert_eq!(rig.get(STATUS), 0);
    assert_eq!(rig.r64(0x80), 0);
}

#[test]
fn a_new_queue_starts_at_its_first_descriptor_whatever_the_old_one_waited_for() {
    let rig = narrow();
    while_a_wait_hangs(&rig, || {
        rig.w32(0x18, 1 << 31);
        rig.w32(0x88, 0);
        rig.put(QUEUE, 7 << 32 | 1 << 5 | 5);
        rig.w32(0x18, 1 << 31 | 1 << 26);
        rig.w32(0x88, 0x10);
    });
    assert_eq!(rig.get(STATUS), 7);
    assert_eq!(rig.r64(0x80), 0x10);
}
