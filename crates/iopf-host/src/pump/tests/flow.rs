//! Faults that go through, wait, and come too late.

use super::*;
use crate::Worker;
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid};
use std::thread;
use std::time::Instant;

#[test]
fn one_fault_takes_one_read_and_one_write() {
    let mut world = World::new(policy());
    world.device(1, yes());
    for group in 0..3 {
        world.fault(1, 2);
        world.pump.turn(None).unwrap();
        assert_eq!(world.ended().0, [(group, Response::Success)]);
    }
    let calls = world.file.calls();
    assert_eq!((calls.reads, calls.writes, calls.refused), (3, 3, 0));
    assert_eq!(world.pump.counts().turns, 3);
    world.books_agree();
}

#[test]
fn sixty_four_waiting_groups_take_one_read_and_one_write() {
    let mut world = World::new(policy());
    world.device(1, yes());
    for _ in 0..64 {
        world.fault(1, 1);
    }
    world.pump.turn(None).unwrap();
    assert_eq!(world.ended().0.len(), 64);
    let calls = world.file.calls();
    assert_eq!((calls.reads, calls.writes), (1, 1));
}

#[test]
fn an_answer_from_another_thread_wakes_the_pump() {
    let mut world = World::new(Policy::default());
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    let pump = world.pump.handle();
    let other = thread::spawn(move || {
        let handle = handles.recv().unwrap();
        pump.answer(handle, Response::Success).unwrap();
    });
    while world.ended().0.is_empty() {
        world.pump.turn(None).unwrap();
    }
    other.join().unwrap();
    assert_eq!(world.pump.counts().late, 0);
}

#[test]
fn a_resolver_that_never_answers_costs_its_group_the_deadline_and_nobody_else_anything() {
    let mut world = World::new(policy());
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.device(2, yes());
    world.fault(1, 1);
    world.fault(2, 1);
    world.serve(0);
    assert_eq!(world.ended().0, [(1, Response::Success)]);
    assert_eq!(world.pump.next_due(), Some(Tick(TIMEOUT)));
    world.serve(TIMEOUT);
    assert_eq!(world.ended().0, [(0, Response::Invalid)]);
    // Its answer, at last, changes nothing.
    let handle = handles.recv().unwrap();
    world
        .pump
        .handle()
        .answer(handle, Response::Success)
        .unwrap();
    world.serve(TIMEOUT + 1);
    assert_eq!(world.ended().0, []);
    assert_eq!(world.pump.counts().late, 1);
    assert_eq!(world.file.calls().refused, 0);
    world.books_agree();
}

#[test]
fn a_blocked_worker_delays_nobody_and_its_device_gets_invalid_by_the_deadline() {
    let mut world = World::new(policy());
    let (gate, open) = channel::<()>();
    let (began, beginning) = channel();
    let blocking = Decide(move |_: &Group, pages: Pages<'_>| {
        began.send(pages.len()).unwrap();
        open.recv().unwrap();
        Decision::Answer(Response::Success)
    });
    let worker = Worker::spawn("blocked", 2, world.pump.handle(), blocking).unwrap();
    world.device(1, worker);
    world.device(2, yes());
    world.fault(1, 3);
    world.serve(0);
    assert_eq!(beginning.recv().unwrap(), 3);
    // Two wait in the worker's own queue, the next is refused.
    for _ in 0..3 {
        world.fault(1, 1);
    }
    world.fault(2, 1);
    world.serve(1);
    assert_eq!(
        world.ended().0,
        [(3, Response::Invalid), (4, Response::Success)]
    );
    world.serve(TIMEOUT);
    assert_eq!(world.ended().0, [(0, Response::Invalid)]);
    world.serve(TIMEOUT + 1);
    assert_eq!(
        world.ended().0,
        [(1, Response::Invalid), (2, Response::Invalid)]
    );
    // All its answers come too late.
    for _ in 0..3 {
        gate.send(()).unwrap();
    }
    while world.pump.counts().late < 3 {
        world.pump.turn(None).unwrap();
    }
    assert_eq!(world.ended().0, []);
    world.books_agree();
}

#[test]
fn a_worker_answers_and_fills_its_lists_again() {
    let mut world = World::new(Policy::default());
    let decide = |_: &Group, pages: Pages<'_>| {
        let first = pages.clone().next().map(|page| page.addr);
        assert_eq!((pages.len(), first), (2, Some(Iova(0x1000))));
        Decision::Answer(Response::Success)
    };
    let worker = Worker::spawn("willing", 4, world.pump.handle(), Decide(decide)).unwrap();
    world.device(1, worker);
    for group in 0..20 {
        world.fault(1, 2);
        let mut ended = Vec::new();
        while ended.is_empty() {
            world.pump.turn(None).unwrap();
            ended = world.ended().0;
        }
        assert_eq!(ended, [(group, Response::Success)]);
    }
}

#[test]
fn with_nothing_to_do_it_sleeps() {
    let mut world = World::new(Policy::default().with_timeout(Some(Duration::from_millis(50))));
    world.device(1, yes());
    let (file, handle) = (world.file.clone(), world.pump.handle());
    let mut pump = world.pump;
    let thread = thread::spawn(move || pump.run().unwrap());
    file.fault(dev_id(1), None, 1);
    while file.ended().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    // The group's deadline is looked at once, though it was answered.
    thread::sleep(Duration::from_millis(100));
    let turns = |handle: &PumpHandle<FakeFile>| handle.exclusive(|pump| pump.counts().turns);
    let before = turns(&handle).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(
        turns(&handle).unwrap(),
        before + 1,
        "the turn of the question"
    );
    handle.stop().unwrap();
    thread.join().unwrap();
}

#[test]
fn a_turn_waits_no_longer_than_it_is_told() {
    let mut world = World::new(policy());
    let start = Instant::now();
    world.pump.turn(Some(Duration::from_millis(20))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
    world.pump.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(world.pump.counts().turns, 2);
}

#[test]
fn a_deadline_is_kept_though_the_turn_before_was_long_ago() {
    let timeout = Duration::from_millis(60);
    let mut world = World::new(Policy::default().with_timeout(Some(timeout)));
    let (resolver, _handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    assert!(world.pump.turn(None).unwrap());
    thread::sleep(timeout);
    // It is due: nothing is waited for.
    assert!(world.pump.turn(Some(Duration::from_secs(600))).unwrap());
    assert_eq!(world.ended().0, [(0, Response::Invalid)]);
}

#[test]
fn a_full_engine_is_no_reason_to_read_or_to_spin() {
    let mut world = World::new(policy().with_max_pages(3));
    let (resolver, handles) = later();
    world.device(1, resolver);
    for _ in 0..5 {
        world.fault(1, 1);
    }
    world.serve(0);
    let fds = world.pump.poll_fds().count();
    assert_eq!(fds, 1, "commands only");
    assert_eq!(world.file.waiting(), (2, 3));
    let reads = world.file.calls().reads;
    world.serve(1);
    assert_eq!(world.file.calls().reads, reads);
    // Room for one: one more is read in the turn that makes it, or the next.
    let first = handles.recv().unwrap();
    world
        .pump
        .handle()
        .answer(first, Response::Success)
        .unwrap();
    world.serve(2);
    world.serve(3);
    assert_eq!(world.file.waiting(), (1, 3));
    // Without an answer, the deadline makes room.
    world.serve(TIMEOUT + 3);
    world.serve(TIMEOUT + 4);
    assert_eq!(world.file.waiting().0, 0);
    world.serve(3 * TIMEOUT);
    assert_eq!(world.file.waiting(), (0, 0));
    assert_eq!(world.ended().0.len(), 5);
    world.books_agree();
}

#[test]
fn a_group_larger_than_the_room_left_waits_for_more() {
    let mut world = World::new(policy().with_max_pages(4));
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.fault(1, 2);
    world.fault(1, 3);
    world.serve(0);
    world.serve(1);
    assert_eq!(world.file.waiting(), (1, 1));
    assert_eq!(world.pump.poll_fds().count(), 1);
    let first = handles.recv().unwrap();
    world
        .pump
        .handle()
        .answer(first, Response::Success)
        .unwrap();
    world.serve(2);
    world.serve(3);
    assert_eq!(world.file.waiting(), (0, 1));
    // One that will never fit is told, and no reason to spin either.
    world.fault(1, 5);
    world.serve(TIMEOUT + 3);
    world.serve(TIMEOUT + 4);
    let queue = world.queue;
    let error = ReadError::GroupTooLarge(4);
    assert_eq!(
        world.notices.try_iter().collect::<Vec<_>>(),
        [Notice::Read { queue, error }]
    );
    assert_eq!(world.pump.poll_fds().count(), 1);
    assert_eq!(world.pump.next_due(), Some(Tick(TIMEOUT + 4 + 10_000_000)));
}

#[test]
fn pages_of_another_pasid_are_refused_and_the_group_resolved_without_them() {
    let mut world = World::new(policy());
    let (addrs, seen) = channel();
    world.device(
        1,
        Decide(move |_: &Group, pages: Pages<'_>| {
            addrs
                .send(pages.map(|page| page.addr.0).collect::<Vec<_>>())
                .unwrap();
            Decision::Answer(Response::Success)
        }),
    );
    let five = Pasid::new(5);
    world.attach(1, five);
    for (pasid, addr, last) in [(five, 1, false), (None, 2, false), (None, 3, true)] {
        let page = PageRequest {
            pasid,
            group: GroupIndex(8),
            addr: Iova(addr),
            access: Access::READ,
            last,
            response_needs_pasid: false,
            private_data: [0; 2],
        };
        world.file.page(dev_id(1), page);
    }
    world.serve(0);
    assert_eq!(seen.recv().unwrap(), [2, 3]);
    assert_eq!(world.ended().0, [(0, Response::Success)]);
    assert_eq!(world.losses(), 1);
    world.books_agree();
}

#[test]
fn a_storm_beyond_the_credits_of_a_device_is_refused_and_leaves_another_alone() {
    let mut world = World::new(policy());
    let (resolver, _handles) = later();
    world.device(1, resolver);
    world.device(2, yes());
    for _ in 0..600 {
        world.fault(1, 1);
    }
    let quiet = world.fault(2, 1);
    for now in 0..8 {
        world.serve(now);
    }
    let (ended, _) = world.ended();
    assert!(ended.contains(&(quiet, Response::Success)));
    assert_eq!(ended.len(), 600 - 512 + 1);
    assert_eq!(world.losses(), 600 - 512);
    world.books_agree();
}

#[test]
fn an_answer_given_through_the_engine_between_two_turns_is_not_slept_over() {
    let mut world = World::new(Policy::default().with_timeout(None));
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    world.pump.turn(None).unwrap();
    let handle = handles.recv().unwrap();
    let said = world
        .pump
        .with_engine(|now, engine| engine.answer(now, handle, Response::Success));
    assert_eq!(said, Ok(()));
    // It is due: nothing is waited for.
    assert!(world.pump.turn(Some(Duration::from_secs(60))).unwrap());
    assert_eq!(world.ended().0, [(0, Response::Success)]);
    assert_eq!(world.pump.next_due(), None);
}

#[test]
fn a_worker_of_a_pump_that_has_stopped_begins_no_more_groups() {
    let mut world = World::new(policy());
    let (gate, open) = channel::<()>();
    let (began, beginning) = channel();
    let blocking = Decide(move |_: &Group, _: Pages<'_>| {
        began.send(()).unwrap();
        open.recv().unwrap();
        Decision::Answer(Response::Success)
    });
    let worker = Worker::spawn("left", 4, world.pump.handle(), blocking).unwrap();
    world.device(1, worker);
    for _ in 0..3 {
        world.fault(1, 1);
    }
    world.serve(0);
    beginning.recv().unwrap();
    assert_eq!(world.pump.stop().given_up, 3);
    for _ in 0..3 {
        // It may be gone after the first.
        let _ = gate.send(());
    }
    // Its thread ends, and drops the resolver.
    assert_eq!(beginning.iter().count(), 0);
}

#[test]
fn a_deadline_ends_a_wait_and_the_next_one_does_too() {
    let mut world = World::new(Policy::default().with_timeout(Some(Duration::from_millis(5))));
    let (resolver, _handles) = later();
    world.device(1, resolver);
    for group in 0..3 {
        world.fault(1, 1);
        let mut ended = Vec::new();
        while ended.is_empty() {
            let long = Some(Duration::from_secs(60));
            assert!(world.pump.turn(long).unwrap(), "it slept over it");
            ended = world.ended().0;
        }
        assert_eq!(ended, [(group, Response::Invalid)]);
    }
    // Timers are armed when needed and read when they fire: now it sleeps.
    let turns = world.pump.counts().turns;
    assert!(!world.pump.turn(Some(Duration::from_millis(50))).unwrap());
    assert_eq!(world.pump.counts().turns, turns + 1);
}
