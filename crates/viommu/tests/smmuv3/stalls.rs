//! Stalled transactions: how they come about, and everything that ends them.

use crate::bed::AtEnd;
use crate::rig::{
    A, ALL_ON, AT, CFGI_STE, CMDQ_CONS, CMDQEN, CONTEXTS, CR0, DEVICE, EVENT_MESSAGE, EVENTQ_BASE,
    EVENTQ_CONS, EVENTQ_PROD, EVENTQEN, EVENTS, GERROR, GERROR_MESSAGE, GERRORN, Heard, PAGE, R,
    RW, Rig, S, SMMUEN, STALL_TERM, STE, SYNC, TABLES, resume, second, stalling,
};
use iopf::{Access, Dma, Iova, Rid};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use viommu::smmuv3::{Config, StallModel};
use viommu_api::{Blocked, Ending, Resume, StallTag};

/// An address that nothing is mapped at.
const NOWHERE: u64 = 0x9000;

fn stalled(tag: u16, addr: u64) -> Blocked {
    Blocked {
        at: Iova(addr),
        end: Ending::Stalled(StallTag(tag)),
    }
}

fn aborted(addr: u64) -> Blocked {
    Blocked::aborted(Iova(addr))
}

/// What a read of one byte ends with.
fn read(rig: &Rig, addr: u64) -> Blocked {
    let dma = rig.dma(None, addr, Access::READ);
    rig.access(&dma, 1).expect_err("nothing is mapped there")
}

/// The event of a read at `addr` that is stalled: F_TRANSLATION, CLASS IN, RnW.
fn event(tag: u64, addr: u64) -> [u64; 4] {
    [
        0x10 | 0x20 << 32,
        tag | 1 << 31 | 1 << 35 | 2 << 40,
        addr,
        0,
    ]
}

fn resumed(tag: u16, how: Resume) -> Heard {
    Heard::Resume(StallTag(tag), how)
}

#[test]
fn a_fault_is_held_until_software_says_what_next() {
    let rig = stalling(Config::default());
    for (turn, (response, how)) in (0..).zip([
        (1, Resume::Retry),
        (2, Resume::Abort),
        (0, Resume::Ignore),
        // Retry and abort: retry.
        (3, Resume::Retry),
    ]) {
        assert_eq!(read(&rig, NOWHERE), stalled(turn, NOWHERE));
        assert_eq!(rig.raised(), [EVENT_MESSAGE]);
        assert_eq!(rig.take_events(), [event(u64::from(turn), NOWHERE)]);
        assert_eq!(rig.ear.take(), []);
        rig.queue(&[resume(response, u64::from(turn))]);
        assert_eq!(rig.ear.take(), [resumed(turn, how)]);
    }
    let counters = rig.unit.counters();
    assert_eq!((counters.stalled, counters.resumed), (4, 4));
    assert_eq!((counters.recorded, counters.lost), (4, 0));
}

#[test]
fn the_event_of_a_stalled_write_says_all_of_it() {
    let rig = stalling(Config::default());
    // A privileged write of substream 3 to a page of unprivileged ones that is read-only.
    rig.put(TABLES + 0x3008, PAGE | RW | 1 << 7);
    let dma = rig.dma(Some(3), AT | 0x123, Access::WRITE | Access::PRIV);
    assert_eq!(rig.access(&dma, 4), Err(stalled(0, AT | 0x123)));
    assert_eq!(
        rig.take_events(),
        [[
            // F_PERMISSION, SSV, SubstreamID.
            0x13 | 1 << 11 | 3 << 12 | 0x20 << 32,
            // Stall, PnU, CLASS IN.
            1 << 31 | 1 << 33 | 2 << 40,
            AT | 0x123,
            0,
        ]]
    );
}

#[test]
fn only_the_transaction_that_is_named_goes_on() {
    let rig = stalling(Config::default());
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    rig.submit(&[
        // Another tag, another stream, a tag that none can have.
        resume(1, 1),
        [0x44 | 1 << 12 | 0x21 << 32, 0],
        resume(1, 0xffff),
        [0x45 | 0x21 << 32, 0],
    ]);
    assert_eq!(rig.ear.take(), []);
    rig.submit(&[resume(2, 0), resume(1, 0)]);
    assert_eq!(rig.ear.take(), [resumed(0, Resume::Abort)], "once");
}

#[test]
fn a_stream_is_rid_of_all_its_transactions_at_once() {
    let rig = stalling(Config::default());
    for tag in 0..3 {
        assert_eq!(read(&rig, NOWHERE), stalled(tag, NOWHERE));
    }
    // arm_smmu_remove_master, or a detach: no new ones, then those that are there.
    rig.put(STE, rig.get(STE) & !1);
    rig.submit(&[CFGI_STE, STALL_TERM]);
    let all: Vec<Heard> = (0..3).map(|tag| resumed(tag, Resume::Abort)).collect();
    assert_eq!(rig.ear.take(), all);
    assert_eq!(read(&rig, NOWHERE), aborted(NOWHERE));
    rig.submit(&[resume(1, 0), STALL_TERM]);
    assert_eq!(rig.ear.take(), []);
}

#[test]
fn an_event_of_a_stalled_transaction_is_never_lost() {
    let rig = stalling(Config::default());
    for tag in 0..16 {
        assert_eq!(read(&rig, NOWHERE), stalled(tag, NOWHERE));
    }
    // The queue is full: transactions stall, and their events wait.
    for tag in 16..20 {
        assert_eq!(read(&rig, 0xa000), stalled(tag, 0xa000));
    }
    assert_eq!(rig.r32(EVENTQ_PROD), 0x10, "nothing was lost");
    assert_eq!(rig.raised(), [EVENT_MESSAGE]);
    // Software cannot know of them.
    rig.queue(&[resume(1, 16)]);
    assert_eq!(rig.ear.take(), []);
    // One place, one event.
    rig.w32(EVENTQ_CONS, 1);
    assert_eq!(rig.event(0), event(16, 0xa000));
    assert_eq!(rig.r32(EVENTQ_PROD), 0x11);
    // All of them, and then the queue has room.
    rig.take_events();
    assert_eq!(rig.take_events().len(), 3);
    assert_eq!(rig.raised(), [EVENT_MESSAGE], "it was empty");
    assert_eq!(read(&rig, NOWHERE), stalled(20, NOWHERE));
    assert_eq!(rig.unit.counters().lost, 0);
}

#[test]
fn an_event_that_waited_over_a_sync_is_made_anew() {
    let rig = stalling(Config::default());
    for tag in 0..17 {
        assert_eq!(read(&rig, NOWHERE), stalled(tag, NOWHERE));
    }
    rig.submit(&[]);
    assert_eq!(rig.ear.take(), []);
    // The device tries again, and may find something else.
    rig.take_events();
    assert_eq!(rig.ear.take(), [resumed(16, Resume::Retry)]);
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0]);
    rig.submit(&[resume(1, 16)]);
    assert_eq!(rig.ear.take(), [], "it is gone");
}

#[test]
fn other_events_do_not_overtake_those_that_wait_but_may_be_lost() {
    let rig = stalling(Config::default());
    for tag in 0..17 {
        assert_eq!(read(&rig, NOWHERE), stalled(tag, NOWHERE));
    }
    // C_BAD_STREAMID of a stream beyond the table.
    let stray = Dma {
        requester: Rid(0x40),
        ..rig.dma(None, AT, Access::READ)
    };
    assert_eq!(rig.access(&stray, 1), Err(aborted(AT)));
    assert_eq!(rig.r32(EVENTQ_PROD), 1 << 31 | 0x10, "overflow");
    assert_eq!(rig.unit.counters().lost, 1);
    assert_eq!(rig.take_events().len(), 16);
    assert_eq!(rig.r32(EVENTQ_CONS), 1 << 31 | 0x10);
    assert_eq!(rig.take_events(), [event(16, NOWHERE)]);
}

#[test]
fn events_wait_while_the_queue_is_off() {
    let rig = stalling(Config::default());
    rig.w32(CR0, ALL_ON & !EVENTQEN);
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    assert_eq!(rig.r32(EVENTQ_PROD), 0);
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.raised(), [EVENT_MESSAGE]);
    assert_eq!(rig.take_events(), [event(0, NOWHERE)]);
}

#[test]
fn events_wait_while_their_memory_is_gone() {
    let rig = stalling(Config::default());
    rig.w32(CR0, ALL_ON & !EVENTQEN);
    rig.w64(EVENTQ_BASE, 0x1000_0000 | 4);
    rig.w32(CR0, ALL_ON);
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    assert_eq!(rig.r32(GERROR), 1 << 2);
    assert_eq!(rig.raised(), [GERROR_MESSAGE]);
    assert_eq!(read(&rig, 0xa000), stalled(1, 0xa000));
    assert_eq!(rig.raised(), []);
    rig.w32(CR0, ALL_ON & !EVENTQEN);
    rig.w64(EVENTQ_BASE, EVENTS | 4);
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.r32(EVENTQ_PROD), 0, "the error is not acknowledged");
    rig.w32(GERRORN, 1 << 2);
    assert_eq!(rig.take_events(), [event(0, NOWHERE), event(1, 0xa000)]);
}

#[test]
fn translation_switched_off_ends_every_stall() {
    let rig = stalling(Config::default());
    for tag in 0..18 {
        assert_eq!(read(&rig, NOWHERE), stalled(tag, NOWHERE));
    }
    rig.w32(CR0, CMDQEN | EVENTQEN);
    let all: Vec<Heard> = (0..18).map(|tag| resumed(tag, Resume::Abort)).collect();
    assert_eq!(rig.ear.take(), all);
    rig.take_events();
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0], "nothing waits");
    rig.w32(CR0, CMDQEN | EVENTQEN | SMMUEN);
    assert_eq!(read(&rig, NOWHERE), stalled(18, NOWHERE));
}

#[test]
fn a_reset_ends_every_stall() {
    let rig = stalling(Config::default());
    for tag in 0..17 {
        assert_eq!(read(&rig, NOWHERE), stalled(tag, NOWHERE));
    }
    rig.unit.reset();
    let all: Vec<Heard> = (0..17).map(|tag| resumed(tag, Resume::Abort)).collect();
    assert_eq!(rig.ear.take(), all);
    rig.start();
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0]);
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
}

#[test]
fn a_fault_for_which_there_is_no_place_ends_as_if_it_had_not_to_stall() {
    let rig = stalling(Config {
        stalls: 2,
        ..Config::default()
    });
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    assert_eq!(read(&rig, NOWHERE), stalled(1, NOWHERE));
    assert_eq!(read(&rig, NOWHERE), aborted(NOWHERE));
    let events = rig.take_events();
    assert_eq!(events[2][1], 1 << 35 | 2 << 40, "Stall is clear");
    rig.submit(&[resume(1, 1)]);
    assert_eq!(read(&rig, NOWHERE), stalled(1, NOWHERE));
}

#[test]
fn a_fault_for_which_there_is_no_place_is_ignored_where_the_context_has_it_so() {
    let rig = stalling(Config {
        stalls: 1,
        ..Config::default()
    });
    rig.put(CONTEXTS, rig.get(CONTEXTS) & !A);
    rig.submit(&[CFGI_STE]);
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    let ignored = Blocked {
        at: Iova(NOWHERE),
        end: Ending::Ignored,
    };
    assert_eq!(read(&rig, NOWHERE), ignored);
}

#[test]
fn a_retry_of_what_was_mapped_meanwhile_is_served() {
    let rig = stalling(Config::default());
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    rig.put(TABLES + 0x3000 + 9 * 8, PAGE | RW);
    rig.submit(&[resume(1, 0)]);
    assert_eq!(rig.ear.take(), [resumed(0, Resume::Retry)]);
    assert_eq!(rig.read_at(None, NOWHERE), Some(PAGE));
}

#[test]
fn stage_2_stalls_by_its_own_switch() {
    let rig = second(Config::default());
    // S2S, no ATS.
    rig.put(STE + 8, 1 << 44);
    rig.second_words(crate::rig::STAGE2, 7, 1 << 57);
    rig.submit(&[CFGI_STE]);
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    // S2, and the address that it refused.
    assert_eq!(
        rig.take_events(),
        [[
            0x10 | 0x20 << 32,
            1 << 31 | 1 << 35 | 1 << 39 | 2 << 40,
            NOWHERE,
            NOWHERE
        ]]
    );
}

#[test]
fn every_fault_stalls_where_the_unit_forces_it() {
    let rig = stalling(Config {
        stall_model: StallModel::FORCED,
        ..Config::default()
    });
    assert_eq!(rig.r32(0) >> 24 & 3, 2);
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    // A context descriptor without S is none: C_BAD_CD.
    rig.context(CONTEXTS, TABLES, 5, R | A);
    rig.submit(&[CFGI_STE]);
    assert_eq!(read(&rig, AT), aborted(AT));
    assert_eq!(rig.take_events()[1][0], 0x0a | 0x20 << 32);
}

#[test]
fn no_fault_stalls_where_the_unit_cannot() {
    let rig = stalling(Config {
        stall_model: StallModel::TERMINATE,
        stalls: 0,
        ..Config::default()
    });
    assert_eq!(read(&rig, NOWHERE), aborted(NOWHERE));
    assert_eq!(rig.take_events()[0][0], 0x0a | 0x20 << 32, "C_BAD_CD");
    // Nor where the stream forbids it: S1STALLD.
    let rig = stalling(Config::default());
    rig.put(STE + 8, rig.get(STE + 8) | 1 << 27);
    rig.submit(&[CFGI_STE]);
    assert_eq!(read(&rig, NOWHERE), aborted(NOWHERE));
    assert_eq!(rig.take_events()[0][0], 0x0a | 0x20 << 32);
}

#[test]
fn a_stall_is_recorded_even_if_faults_are_not() {
    let rig = stalling(Config::default());
    // S without R.
    rig.context(CONTEXTS, TABLES, 5, S | A);
    rig.submit(&[CFGI_STE]);
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    assert_eq!(rig.take_events(), [event(0, NOWHERE)]);
}

#[test]
fn what_always_aborts_ignores_nothing() {
    let rig = stalling(Config {
        always_abort: true,
        ..Config::default()
    });
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    rig.submit(&[resume(0, 0)]);
    assert_eq!(rig.ear.take(), [resumed(0, Resume::Abort)]);
}

#[test]
fn what_does_not_wait_is_not_held() {
    let rig = stalling(Config::default());
    // A fault that the host met.
    let dma = rig.dma(None, NOWHERE, Access::READ);
    assert!(rig.unit.tell(&dma).is_some());
    assert_eq!(rig.take_events()[0][1], 1 << 35 | 2 << 40);
    assert_eq!(rig.unit.counters().stalled, 0);
}

#[test]
fn a_transaction_of_an_endpoint_that_is_gone_is_let_go_all_the_same() {
    let rig = stalling(Config::default());
    assert_eq!(read(&rig, NOWHERE), stalled(0, NOWHERE));
    rig.unit.detach(DEVICE);
    rig.queue(&[resume(1, 0), SYNC]);
    assert_eq!(rig.r32(CMDQ_CONS) >> 24, 0);
    let counters = rig.unit.counters();
    assert_eq!((counters.resumed, counters.resumed_lost), (0, 1));
}

#[test]
fn after_a_detach_nothing_of_the_old_configuration_is_held() {
    let rig = stalling(Config {
        stalls: 64,
        ..Config::default()
    });
    let entry = rig.get(STE);
    rig.put(STE, entry & !1);
    rig.submit(&[CFGI_STE]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (rig, stop) = (&rig, &stop);
            scope.spawn(move || {
                let dma = rig.dma(None, NOWHERE, Access::READ);
                while !stop.load(Ordering::Acquire) {
                    assert!(rig.access(&dma, 1).is_err());
                }
            });
        }
        let _end = AtEnd(|| stop.store(true, Ordering::Release));
        for turn in 0..50 {
            // Read first: all the places may be taken before this thread runs again.
            let before = rig.unit.counters().stalled;
            rig.put(STE, entry);
            let start = Instant::now();
            while rig.unit.counters().stalled == before {
                assert!(start.elapsed().as_secs() < 300, "nobody asks any more");
                std::thread::yield_now();
            }
            // No new ones, then those that are there.
            rig.put(STE, entry & !1);
            rig.submit(&[CFGI_STE]);
            rig.submit(&[STALL_TERM]);
            let counters = rig.unit.counters();
            assert_eq!(counters.stalled, counters.resumed, "turn {turn}");
            rig.take_events();
        }
    });
}
