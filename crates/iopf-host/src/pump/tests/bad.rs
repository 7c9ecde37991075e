//! Files, resolvers and callers that misbehave.

use super::*;
use crate::RawFault;
use crate::fake::{BadRead, BadWrite};
use iopf::engine::LossReport;
use rustix::event::{PollFd, PollFlags};
use zerocopy::IntoBytes;

#[test]
fn a_resolver_that_panics_is_replaced_by_denial_and_harms_nobody_else() {
    let mut world = World::new(policy());
    world.device(
        1,
        Decide(|group: &Group, _: Pages<'_>| -> Decision {
            panic!("no idea what group {} is", group.index.0)
        }),
    );
    world.device(2, yes());
    world.fault(1, 1);
    world.fault(2, 1);
    world.fault(1, 1);
    world.serve(0);
    assert_eq!(
        world.ended().0,
        [
            (0, Response::Invalid),
            (1, Response::Success),
            (2, Response::Invalid)
        ]
    );
    let told: Vec<_> = world.notices.try_iter().collect();
    let panicked = Notice::Panicked {
        device: DeviceId(1),
        message: "no idea what group 7 is".to_owned(),
    };
    assert_eq!(told, [panicked]);
    assert_eq!(world.pump.counts().panics, 1);
    // Another resolver brings it back.
    let old = world.pump.serve_by(DeviceId(1), yes()).unwrap();
    assert!(matches!(old, Serving::Deny));
    world.fault(1, 1);
    world.serve(1);
    assert_eq!(world.ended().0, [(3, Response::Success)]);
}

#[test]
fn a_worker_whose_resolver_panics_refuses_from_then_on() {
    let mut world = World::new(Policy::default());
    let panics = Decide(|_: &Group, _: Pages<'_>| -> Decision { panic!("in a worker") });
    let worker = crate::Worker::spawn("panics", 4, world.pump.handle(), panics).unwrap();
    world.device(1, worker);
    world.fault(1, 1);
    world.fault(1, 1);
    let mut ended = Vec::new();
    while ended.len() < 2 {
        world.pump.turn(None).unwrap();
        ended.extend(world.ended().0);
    }
    assert_eq!(ended, [(0, Response::Invalid), (1, Response::Invalid)]);
    assert_eq!(world.pump.counts().panics, 1);
}

#[test]
fn a_queue_that_cannot_be_read_is_tried_again_in_growing_pauses() {
    let mut world = World::new(Policy::default());
    world.device(1, yes());
    world.fault(1, 1);
    world.file.bad_reads(vec![BadRead::Fail(Errno::NOMEM); 9]);
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..9 {
        world.serve(now);
        assert_eq!(world.pump.poll_fds().count(), 1);
        let due = world.pump.next_due().unwrap().0;
        // Nothing is tried before.
        world.serve(due - 1);
        pauses.push((due - now) / 1_000_000);
        now = due;
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    assert_eq!(world.file.calls().reads, 9);
    let (queue, error) = (world.queue, ReadError::Io(Errno::NOMEM));
    let told: Vec<_> = world.notices.try_iter().collect();
    assert_eq!(told, vec![Notice::Read { queue, error }; 9]);
    world.serve(now);
    assert_eq!(world.ended().0, [(0, Response::Success)]);
    assert_eq!(world.pump.poll_fds().count(), 2);
    // The next error starts at the shortest pause again.
    world.file.bad_reads([BadRead::Fail(Errno::IO)]);
    world.serve(now);
    assert_eq!(world.pump.next_due(), Some(Tick(now + 10_000_000)));
}

#[test]
fn answers_that_cannot_be_written_are_kept_and_nothing_is_read_meanwhile() {
    let mut world = World::new(policy());
    world.device(1, yes());
    world.fault(1, 1);
    world.file.bad_writes([BadWrite::Fail(Errno::IO); 2]);
    world.serve(0);
    world.fault(1, 1);
    world.serve(1);
    assert_eq!(world.pump.poll_fds().count(), 1);
    assert_eq!(
        (world.file.calls().reads, world.file.calls().writes),
        (1, 1)
    );
    world.serve(10_000_000);
    assert_eq!(
        (world.file.calls().reads, world.file.calls().writes),
        (1, 2)
    );
    world.serve(30_000_000);
    assert_eq!(world.ended().0, [(0, Response::Success)]);
    world.serve(30_000_001);
    assert_eq!(world.ended().0, [(1, Response::Success)]);
    assert_eq!(world.notices.try_iter().count(), 2);
}

#[test]
fn one_queue_that_fails_leaves_another_alone() {
    let mut world = World::new(policy());
    world.device(1, yes());
    let other = FakeFile::new();
    let queue = world.pump.add_queue(FaultQueue::new(other.clone()));
    assert!(world.pump.route(queue.unwrap(), 7, DeviceId(1)));
    other.attach(7, None);
    world.file.bad_reads([BadRead::Fail(Errno::IO)]);
    other.fault(7, None, 1);
    world.serve(0);
    other.fault(7, None, 1);
    world.serve(1);
    assert_eq!(other.ended().len(), 2);
}

#[test]
fn pages_that_are_no_group_are_answered_invalid_and_told_as_lost() {
    let mut world = World::new(policy());
    world.device(1, yes());
    let raw = |cookie, flags| RawFault {
        flags,
        dev_id: dev_id(1),
        cookie,
        ..RawFault::default()
    };
    let records = [raw(1, 0), raw(1, 0), raw(0, 2)];
    world
        .file
        .bad_reads([BadRead::Bytes(records.as_bytes().to_vec())]);
    world.serve(0);
    assert_eq!(world.file.calls().writes, 1, "INVALID for cookie 1");
    let told: Vec<_> = world.notices.try_iter().collect();
    let Ok([Notice::Loss(LossReport { device, losses })]) = <[Notice; 1]>::try_from(told) else {
        panic!("one loss is told");
    };
    assert_eq!((device, losses.lost), (Some(DeviceId(1)), 3));
    world.books_agree();
}

#[test]
fn a_device_that_nobody_routes_is_answered_invalid_and_counted() {
    let mut world = World::new(policy());
    world.file.attach(55, None);
    world.file.fault(55, None, 3);
    world.serve(0);
    assert_eq!(world.ended().0, [(0, Response::Invalid)]);
    assert_eq!(world.pump.counts().strangers, 3);
    assert_eq!(world.losses(), 3);
    world.books_agree();
}

#[test]
fn a_call_that_would_wait_for_itself_is_refused() {
    let mut world = World::new(policy());
    world.device(1, yes());
    let handle = world.pump.handle();
    let inner = handle.clone();
    let thread = std::thread::spawn(move || handle.exclusive(move |_| inner.exclusive(|_| ())));
    while !thread.is_finished() {
        world.pump.turn(Some(Duration::from_millis(5))).unwrap();
    }
    assert_eq!(thread.join().unwrap(), Ok(Err(HandleError::Inside)));
}

#[test]
fn a_resolver_that_calls_its_own_pump_is_refused_in_the_first_turn_too() {
    let mut world = World::new(policy());
    let handle = world.pump.handle();
    world.device(
        1,
        Decide(move |_: &Group, _: Pages<'_>| {
            assert_eq!(handle.exclusive(|_| ()), Err(HandleError::Inside));
            Decision::Answer(Response::Success)
        }),
    );
    world.fault(1, 1);
    world.serve(0);
    assert_eq!(world.ended().0, [(0, Response::Success)]);
}

#[test]
fn a_call_that_panics_is_told_so_and_the_pump_goes_on() {
    let mut world = World::new(policy());
    world.device(1, yes());
    let handle = world.pump.handle();
    let thread = std::thread::spawn(move || handle.exclusive(|_| panic!("a call")));
    while !thread.is_finished() {
        world.pump.turn(Some(Duration::from_millis(5))).unwrap();
    }
    assert_eq!(thread.join().unwrap(), Err::<(), _>(HandleError::Panicked));
    world.fault(1, 1);
    world.serve(0);
    assert_eq!(world.ended().0, [(0, Response::Success)]);
}

#[test]
fn a_handle_outlives_its_pump_and_says_so() {
    let world = World::new(policy());
    let handle = world.pump.handle();
    let waiting = handle.clone();
    // Sent before the pump goes, and never run.
    let thread = std::thread::spawn(move || waiting.exclusive(|_| ()));
    std::thread::sleep(Duration::from_millis(20));
    drop(world);
    assert_eq!(thread.join().unwrap(), Err(HandleError::Gone));
    assert_eq!(handle.stop(), Err(HandleError::Gone));
    assert_eq!(
        handle.answer(Handle::from_bits(1), Response::Success),
        Err(HandleError::Gone)
    );
}

#[test]
fn more_commands_than_there_is_room_for_wait_and_none_is_lost() {
    let mut world = World::new(policy());
    let handle = world.pump.handle();
    let thread = std::thread::spawn(move || {
        for bits in 0..5000 {
            let said = handle.answer(Handle::from_bits(bits), Response::Success);
            said.unwrap();
        }
    });
    while world.pump.counts().late < 5000 {
        world.pump.turn(None).unwrap();
    }
    thread.join().unwrap();
}

#[test]
fn a_log_line_goes_to_the_sink() {
    let mut world = World::new(policy());
    world.device(1, LogAndDeny);
    let fault = Unrecoverable {
        reason: iopf::Reason(5),
        pasid: None,
        access: iopf::Access::WRITE,
        addr: None,
        fetch_addr: None,
    };
    world.pump.report(DeviceId(1), &fault).unwrap();
    let told: Vec<_> = world.notices.try_iter().collect();
    assert!(matches!(told[..], [Notice::Log(_)]), "{told:?}");
}

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn whoever_asks_a_pump_that_has_stopped_is_told_and_does_not_wait() {
    let mut world = World::new(policy());
    let (sender, said) = channel();
    let ask = |handle: PumpHandle<FakeFile>| {
        let sender = sender.clone();
        std::thread::spawn(move || sender.send(handle.exclusive(|_| ())).unwrap());
    };
    // Asked before the stop: its command is there.
    ask(world.pump.handle());
    let inbox = world.pump.poll_fds().last().unwrap();
    let mut fds = [PollFd::from_borrowed_fd(inbox, PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, None), Ok(1));
    let handle = world.pump.handle();
    world.pump.stop();
    assert_eq!(said.recv_timeout(PATIENCE), Ok(Err(HandleError::Gone)));
    // And after it.
    ask(handle.clone());
    assert_eq!(said.recv_timeout(PATIENCE), Ok(Err(HandleError::Gone)));
    let answer = handle.answer(Handle::from_bits(1), Response::Success);
    assert_eq!(answer, Err(HandleError::Gone));
}

#[test]
fn a_thread_that_had_the_pump_before_may_ask_it() {
    let mut world = World::new(policy());
    world.pump.turn(Some(Duration::ZERO)).unwrap();
    let handle = world.pump.handle();
    let mut pump = world.pump;
    let thread = std::thread::spawn(move || pump.run().unwrap());
    let start = std::time::Instant::now();
    // Until the other thread has it.
    while handle.exclusive(|_| ()) == Err(HandleError::Inside) {
        assert!(start.elapsed() < PATIENCE, "still inside");
        std::thread::sleep(Duration::from_millis(1));
    }
    handle.stop().unwrap();
    thread.join().unwrap();
}

/// Panics when it is dropped.
struct Sore;

impl Drop for Sore {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

fn panics_twice() -> impl Resolver + Send {
    let sore = Sore;
    Decide(move |_: &Group, _: Pages<'_>| -> Decision {
        let _sore = &sore;
        panic!("at work")
    })
}

#[test]
fn a_resolver_that_panics_and_again_when_it_is_dropped_harms_nobody_else() {
    let mut world = World::new(Policy::default());
    world.device(1, panics_twice());
    world.device(2, yes());
    let worker = crate::Worker::spawn("sore", 4, world.pump.handle(), panics_twice());
    world.device(3, worker.unwrap());
    for device in 1..=3 {
        world.fault(device, 1);
    }
    let mut ended = Vec::new();
    while ended.len() < 3 {
        world.pump.turn(None).unwrap();
        ended.extend(world.ended().0);
    }
    ended.sort_unstable_by_key(|(group, _)| *group);
    assert_eq!(
        ended,
        [
            (0, Response::Invalid),
            (1, Response::Success),
            (2, Response::Invalid)
        ]
    );
    assert_eq!(world.pump.engine().totals().late, 0);
    assert_eq!(world.pump.counts().panics, 2);
    world.books_agree();
}

#[test]
fn a_file_that_is_readable_and_brings_nothing_is_not_asked_all_the_time() {
    let mut world = World::new(policy());
    world.device(1, yes());
    world.fault(1, 1);
    // Nothing, or less than a record.
    let bad = (0..4000).map(|n| BadRead::Bytes(vec![0; n % 40]));
    world.file.bad_reads(bad);
    for _ in 0..3000 {
        world.pump.turn(Some(Duration::ZERO)).unwrap();
    }
    let reads = world.file.calls().reads;
    assert!((1001..2000).contains(&reads), "{reads} reads");
    let queue = world.queue;
    let error = ReadError::Empty;
    let told: Vec<_> = world.notices.try_iter().collect();
    assert!(told.contains(&Notice::Read { queue, error }), "{told:?}");
}
