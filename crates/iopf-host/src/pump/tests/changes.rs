//! Queues, devices and attachments that change while faults wait.

use super::*;
use crate::FaultFd;
use crate::ReadError;
use crate::fake::BadWrite;
use crate::pump::change::ChangeError;
use crate::queue::WriteError;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

impl World {
    fn detach(&mut self, device: u32) -> Result<usize, ChangeError<Infallible>> {
        let file = self.file.clone();
        let kernel = || Ok(file.detach(dev_id(device), None));
        self.pump.detach(DeviceId(device), None, kernel)
    }
}

#[test]
fn a_late_answer_never_reaches_the_group_that_has_the_cookie_now() {
    let mut world = World::new(policy());
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    world.serve(0);
    let old = handles.recv().unwrap();
    // Ours is written before the kernel could answer, so it has nothing left to answer.
    assert_eq!(world.detach(1), Ok(0));
    assert_eq!(world.ended(), (vec![(0, Response::Invalid)], vec![]));
    world.attach(1, None);
    world.fault(1, 1);
    world.serve(1);
    // The same cookie: it was the lowest free one. The old answer comes now.
    let new = handles.recv().unwrap();
    let handle = world.pump.handle();
    handle.answer(old, Response::Success).unwrap();
    world.serve(2);
    assert_eq!(world.ended().0, []);
    assert_eq!(world.pump.counts().late, 1);
    handle.answer(new, Response::Success).unwrap();
    world.serve(3);
    assert_eq!(world.ended().0, [(1, Response::Success)]);
    assert_eq!(world.file.calls().refused, 0);
}

#[test]
fn an_answer_given_before_a_detach_is_written_before_it() {
    let mut world = World::new(Policy::default());
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    world.serve(0);
    let old = handles.recv().unwrap();
    let pump = world.pump.handle();
    let file = world.file.clone();
    let thread = std::thread::spawn(move || {
        pump.answer(old, Response::Success).unwrap();
        pump.exclusive(move |pump| {
            let kernel = || Ok::<_, Infallible>(file.detach(dev_id(1), None));
            pump.detach(DeviceId(1), None, kernel)
        })
    });
    while !thread.is_finished() {
        world.pump.turn(Some(Duration::from_millis(5))).unwrap();
    }
    assert_eq!(thread.join().unwrap(), Ok(Ok(0)));
    assert_eq!(world.ended(), (vec![(0, Response::Success)], vec![]));
}

#[test]
fn what_was_not_read_is_the_kernels_to_answer() {
    let mut world = World::new(policy());
    world.device(1, yes());
    world.fault(1, 1);
    assert_eq!(world.detach(1), Ok(1));
    world.serve(0);
    assert_eq!(world.ended(), (vec![], vec![0]));
    world.books_agree();
}

#[test]
fn without_a_way_to_write_the_kernel_is_not_called() {
    let mut world = World::new(policy());
    let (resolver, _handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    world.serve(0);
    world.file.bad_writes([BadWrite::Fail(Errno::IO)]);
    let error = ChangeError::Unwritten(WriteError::Io(Errno::IO));
    assert_eq!(world.detach(1), Err(error));
    assert_eq!(world.file.waiting(), (0, 1));
    world.pump.flush().unwrap();
    assert_eq!(world.file.detach(dev_id(1), None), 0);
    assert_eq!(world.ended(), (vec![(0, Response::Invalid)], vec![]));
}

#[test]
fn a_refusal_of_the_kernel_leaves_the_engine_as_it_was() {
    let mut world = World::new(policy());
    world.device(1, yes());
    let id = DeviceId(1);
    let new = Attachment::new(DomainId(9));
    let no = || Err::<(), _>("EBUSY");
    let refused = Err(ChangeError::Kernel("EBUSY"));
    assert_eq!(world.pump.detach(id, None, no), refused);
    assert_eq!(world.pump.replace(id, None, new, no), refused);
    let five = iopf::Pasid::new(5);
    assert_eq!(world.pump.attach(id, five, new, no), refused);
    let engine = world.pump.engine();
    assert_eq!(
        engine.attachment(id, None),
        Ok(Some(Attachment::new(DomainId(1))))
    );
    assert_eq!(engine.attachment(id, five), Ok(None));
    world.fault(1, 1);
    world.serve(0);
    assert_eq!(world.ended().0, [(0, Response::Success)]);
}

#[test]
fn a_refusal_of_the_engine_never_gets_to_the_kernel() {
    let mut world = World::new(policy());
    world.device(1, yes());
    let kernel = || -> Result<(), ()> { panic!("called") };
    let new = Attachment::new(DomainId(9));
    let five = iopf::Pasid::new(5);
    for id in [DeviceId(1), DeviceId(2)] {
        let calls = [
            world.pump.detach(id, five, kernel),
            world.pump.replace(id, five, new, kernel),
            world
                .pump
                .attach(id, if id.0 == 1 { None } else { five }, new, kernel),
        ];
        assert!(
            calls
                .iter()
                .all(|call| matches!(call, Err(ChangeError::Engine(_))))
        );
    }
}

#[test]
fn a_replace_gives_up_what_waits_for_the_old_and_goes_on_with_the_new() {
    let mut world = World::new(policy());
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    world.serve(0);
    let file = world.file.clone();
    let kernel = || {
        let ended = file.detach(dev_id(1), None);
        file.attach(dev_id(1), None);
        Ok::<_, Infallible>(ended)
    };
    let new = Attachment::new(DomainId(9));
    let replaced = world.pump.replace(DeviceId(1), None, new, kernel);
    assert_eq!(replaced, Ok(0));
    assert_eq!(world.ended().0, [(0, Response::Invalid)]);
    world.fault(1, 1);
    world.serve(1);
    let handle = handles.iter().nth(1).unwrap();
    world
        .pump
        .handle()
        .answer(handle, Response::Success)
        .unwrap();
    world.serve(2);
    assert_eq!(world.ended().0, [(1, Response::Success)]);
}

#[test]
fn a_device_that_leaves_is_answered_first_and_its_resolver_dropped() {
    let mut world = World::new(policy());
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.device(2, yes());
    world.fault(1, 1);
    world.serve(0);
    let file = world.file.clone();
    let kernel = || Ok::<_, Infallible>(file.detach(dev_id(1), None));
    let (departed, by_kernel) = world.pump.remove_device(DeviceId(1), kernel).unwrap();
    assert_eq!((departed.given_up, by_kernel), (1, 0));
    assert_eq!(world.ended().0, [(0, Response::Invalid)]);
    assert_eq!(handles.iter().count(), 1, "the resolver is gone");
    world.fault(2, 1);
    world.serve(1);
    assert_eq!(world.ended().0, [(1, Response::Success)]);
    world.books_agree();
}

#[test]
fn a_queue_that_was_removed_is_not_answered_through_its_successor() {
    let mut world = World::new(policy());
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    world.serve(0);
    let removed = world.pump.remove_queue(world.queue).unwrap();
    assert!(world.pump.queue(world.queue).is_none());
    assert!(!world.pump.route(world.queue, 1, DeviceId(1)));
    let other = FakeFile::new();
    let id = world
        .pump
        .add_queue(FaultQueue::new(other.clone()))
        .unwrap();
    assert!(world.pump.route(id, 7, DeviceId(1)));
    other.attach(7, None);
    other.fault(7, None, 1);
    world.serve(1);
    for handle in handles.try_iter() {
        world
            .pump
            .handle()
            .answer(handle, Response::Success)
            .unwrap();
    }
    world.serve(2);
    assert_eq!(world.pump.counts().orphaned, 1);
    assert_eq!((other.ended().len(), world.ended().0.len()), (1, 0));
    assert_eq!(removed.counts().groups, 1);
}

#[test]
fn there_is_room_for_so_many_queues_and_a_refused_one_comes_back() {
    let mut world = World::new(policy());
    for _ in 1..Pump::<FakeFile>::MAX_QUEUES {
        world
            .pump
            .add_queue(FaultQueue::new(FakeFile::new()))
            .unwrap();
    }
    world.pump.turn(Some(Duration::ZERO)).unwrap();
    let one_more = FaultQueue::new(FakeFile::new());
    assert!(world.pump.add_queue(one_more).is_err());
    assert!(world.pump.remove_queue(world.queue).is_some());
    let one_more = FakeFile::new();
    let id = world
        .pump
        .add_queue(FaultQueue::new(one_more.clone()))
        .unwrap();
    assert!(id != world.queue, "a name is not used again");
    one_more.attach(3, None);
    one_more.fault(3, None, 1);
    world.pump.turn(None).unwrap();
    assert_eq!(one_more.ended().len(), 1);
}

#[test]
fn stopping_answers_what_it_holds_and_says_how_many() {
    let mut world = World::new(Policy::default());
    let (resolver, _handles) = later();
    world.device(1, resolver);
    world.device(2, yes());
    for _ in 0..3 {
        world.fault(1, 2);
    }
    world.fault(2, 1);
    world.serve(0);
    world.fault(1, 1);
    world.pump.handle().stop().unwrap();
    let stopped = world.pump.run().unwrap();
    // `run` took a turn first, in which the last group was read.
    assert_eq!(
        stopped,
        Stopped {
            given_up: 4,
            unwritten: 0
        }
    );
    assert_eq!(world.file.waiting(), (0, 0));
    world.books_agree();
    assert_eq!(world.pump.engine().pages_held().0, 0);
}

#[test]
fn stopping_with_a_file_that_takes_nothing_says_what_is_left() {
    let mut world = World::new(policy());
    let (resolver, _handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    world.serve(0);
    world.file.bad_writes([BadWrite::Fail(Errno::IO)]);
    assert_eq!(
        world.pump.stop(),
        Stopped {
            given_up: 1,
            unwritten: 1
        }
    );
}

#[test]
fn a_pump_that_has_stopped_forgets_whose_faults_were_whose() {
    let mut world = World::new(policy());
    world.device(1, Serving::Deny);
    world.device(2, Serving::Deny);
    world.pump.stop();
    // They come back in another order, and nobody says by which queue.
    for (device, serving) in [(2, Serving::from(yes())), (1, Serving::Deny)] {
        let id = DeviceId(device);
        let config = DeviceConfig::default();
        world.pump.add_device(id, config, serving).unwrap();
        let attachment = Attachment::new(DomainId(device));
        let kernel = || Ok::<_, Infallible>(());
        world.pump.attach(id, None, attachment, kernel).unwrap();
    }
    world.fault(1, 1);
    world.fault(2, 1);
    world.serve(0);
    assert_eq!(
        world.ended().0,
        [(0, Response::Invalid), (1, Response::Invalid)]
    );
    assert_eq!(world.pump.counts().strangers, 2);
}

#[test]
fn between_a_replace_that_was_not_written_and_the_kernels_call_nothing_is_left_to_wait() {
    let mut world = World::new(policy());
    let (resolver, handles) = later();
    world.device(1, resolver);
    world.fault(1, 1);
    world.serve(0);
    world.file.bad_writes([BadWrite::Fail(Errno::IO)]);
    let id = DeviceId(1);
    let new = Attachment::new(DomainId(9));
    let never = || -> Result<(), Infallible> { panic!("called") };
    let error = ChangeError::Unwritten(WriteError::Io(Errno::IO));
    assert_eq!(world.pump.replace(id, None, new, never), Err(error));
    world.pump.flush().unwrap();
    // The kernel has the old tables still, and a fault comes by them.
    world.fault(1, 1);
    world.serve(20_000_000);
    assert_eq!(handles.try_iter().count(), 1, "only the first was resolved");
    assert_eq!(
        world.ended().0,
        [(0, Response::Invalid), (1, Response::Invalid)]
    );
    // So the kernel has nothing to answer that we would answer too.
    let file = world.file.clone();
    let kernel = || {
        let ended = file.detach(dev_id(1), None);
        file.attach(dev_id(1), None);
        Ok::<_, Infallible>(ended)
    };
    assert_eq!(world.pump.attach(id, None, new, kernel), Ok(0));
    world.fault(1, 1);
    world.serve(20_000_001);
    assert_eq!(handles.try_iter().count(), 1);
    world.books_agree();
}

#[test]
fn a_queue_that_takes_no_answers_keeps_no_device_of_another_from_leaving() {
    let mut world = World::new(policy());
    world.device(1, yes());
    let other = FakeFile::new();
    let queue = world.pump.add_queue(FaultQueue::new(other.clone()));
    let queue = queue.unwrap();
    let (resolver, _handles) = later();
    let id = DeviceId(2);
    let config = DeviceConfig::default();
    world.pump.add_device(id, config, resolver).unwrap();
    assert!(world.pump.route(queue, 7, id));
    let attach = || {
        other.attach(7, None);
        Ok::<_, Infallible>(())
    };
    let attachment = Attachment::new(DomainId(2));
    world.pump.attach(id, None, attachment, attach).unwrap();
    other.fault(7, None, 1);
    world.fault(1, 1);
    world.serve(0);
    other.bad_writes([BadWrite::Fail(Errno::IO); 9]);
    // Its own change is not made.
    let never = || -> Result<(), Infallible> { panic!("called") };
    let unwritten = |said| matches!(said, Err(ChangeError::Unwritten(_)));
    assert!(unwritten(world.pump.detach(id, None, never)));
    // Another's is, as long as the queue brings none of its faults.
    assert_eq!(world.detach(1), Ok(0));
    world.attach(1, None);
    // Nor is it when faults of the queue's number are another's by now.
    assert!(world.pump.route(queue, 7, DeviceId(1)));
    let gone = world.pump.remove_device(id, never).map(drop);
    assert!(unwritten(gone));
}

#[test]
fn a_queue_whose_file_cannot_be_waited_for_is_refused_and_comes_back() {
    let file = || tempfile::tempfile().unwrap();
    let mut pump = Pump::<FaultFd>::new(Engine::new(policy()), drop).unwrap();
    let regular = FaultQueue::new(FaultFd::from(OwnedFd::from(file())));
    let refused = pump.add_queue(regular).unwrap_err();
    assert!(
        matches!(refused, AddQueueError::Unwatched(_, Errno::PERM)),
        "{refused:?}"
    );
    assert_eq!(pump.queues().count(), 0);
    assert_eq!(pump.turn(Some(Duration::ZERO)), Ok(false));
}

/// A file that fails its reads, and cannot be waited for once it was taken out of the set.
#[derive(Debug)]
struct Fickle {
    event: OwnedFd,
    regular: OwnedFd,
    shown: AtomicU32,
}

impl AsFd for Fickle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // In and out again.
        match self.shown.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => self.event.as_fd(),
            _ => self.regular.as_fd(),
        }
    }
}

impl FaultFile for Fickle {
    fn read(&self, _: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::IO)
    }

    fn write(&self, _: &[u8]) -> Result<usize, Errno> {
        Err(Errno::IO)
    }
}

#[test]
fn a_queue_that_cannot_be_waited_for_any_more_pauses_and_the_pump_goes_on() {
    let (sender, notices) = channel();
    let sink = move |notice| drop(sender.send(notice));
    let mut pump = Pump::new(Engine::new(policy()), sink).unwrap();
    let fickle = Fickle {
        event: eventfd(1, EventfdFlags::CLOEXEC).unwrap(),
        regular: tempfile::tempfile().unwrap().into(),
        shown: AtomicU32::new(0),
    };
    let queue = pump.add_queue(FaultQueue::new(fickle)).unwrap();
    // The read fails, and after its pause the file is another.
    let mut told = Vec::new();
    let enough = Instant::now() + Duration::from_secs(60);
    while told.len() < 3 && Instant::now() < enough {
        assert!(pump.turn(Some(Duration::from_millis(20))).is_ok());
        told.extend(notices.try_iter());
    }
    let of = |error| Notice::Read {
        queue,
        error: ReadError::Io(error),
    };
    assert_eq!(told, [of(Errno::IO), of(Errno::PERM), of(Errno::PERM)]);
}

#[test]
fn the_same_descriptor_is_not_two_queues_and_may_come_again_when_it_has_left() {
    let mut world = World::new(policy());
    let same = || FaultQueue::new(world.file.clone());
    let refused = world.pump.add_queue(same()).unwrap_err();
    assert!(
        matches!(refused, AddQueueError::Unwatched(_, Errno::EXIST)),
        "{refused:?}"
    );
    let again = same();
    world.pump.remove_queue(world.queue).unwrap();
    world.queue = world.pump.add_queue(again).unwrap();
    world.device(1, yes());
    world.fault(1, 1);
    assert!(world.pump.turn(Some(Duration::from_secs(60))).unwrap());
    assert_eq!(world.ended().0, [(0, Response::Success)]);
}
