//! The pump in a runtime of one thread, beside other tasks.

use crate::fake::FakeFile;
use crate::{FaultQueue, Pump, PumpHandle};
use iopf::Response;
use iopf::engine::{
    Attachment, DeviceConfig, DeviceId, DomainId, Engine, Group, Handle, Pages, Policy, Stray,
    Verdict,
};
use iopf::resolve::{Decision, Resolver};
use std::convert::Infallible;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

/// Resolves, or answers later.
enum Serve {
    Yes,
    Later(Sender<Handle>),
}

impl Resolver for Serve {
    fn group(&mut self, group: &Group, _: Pages<'_>) -> Decision {
        match self {
            Self::Yes => Decision::Answer(Response::Success),
            Self::Later(handles) => {
                handles.send(group.handle).expect("the test listens");
                Decision::Later
            }
        }
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

fn pump(policy: Policy, resolver: Serve) -> (Pump<FakeFile>, FakeFile) {
    let file = FakeFile::new();
    let mut pump = Pump::new(Engine::new(policy), |_| ()).unwrap();
    add(&mut pump, &file, 1, resolver);
    (pump, file)
}

/// Adds a queue over `file`, and a device behind it.
fn add(pump: &mut Pump<FakeFile>, file: &FakeFile, device: u32, resolver: Serve) {
    let queue = pump.add_queue(FaultQueue::new(file.clone())).unwrap();
    let id = DeviceId(device);
    pump.add_device(id, DeviceConfig::default(), resolver)
        .unwrap();
    assert!(pump.route(queue, device, id));
    let kernel = || {
        file.attach(device, None);
        Ok::<_, Infallible>(())
    };
    pump.attach(id, None, Attachment::new(DomainId(1)), kernel)
        .unwrap();
}

/// Waits until `done`, and leaves the thread to other tasks meanwhile.
async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Runs `pump` beside `story`, which stops it.
fn beside(mut pump: Pump<FakeFile>, story: impl Future<Output = ()>) -> Pump<FakeFile> {
    runtime().block_on(async {
        let handle = pump.handle();
        let story = async {
            story.await;
            handle.stop().unwrap();
        };
        let (stopped, ()) = tokio::join!(pump.run_async(), story);
        assert_eq!(stopped.unwrap().unwritten, 0);
    });
    pump
}

#[test]
fn faults_are_answered_beside_other_tasks_and_more_than_a_buffer_of_them() {
    let (pump, file) = pump(Policy::default(), Serve::Yes);
    let mut ended = 0;
    let pump = beside(pump, async {
        for groups in [1, 3, 400] {
            // More than one read takes, with one edge.
            for _ in 0..groups {
                file.fault(1, None, 1);
            }
            let mut left = groups;
            until(|| {
                left -= file.ended().len();
                left == 0
            })
            .await;
            ended += groups;
        }
    });
    assert_eq!(pump.engine().totals().completed, ended as u64);
}

#[test]
fn with_nothing_to_do_it_takes_no_turns() {
    let (pump, file) = pump(
        Policy::default().with_timeout(Some(Duration::from_millis(20))),
        Serve::Yes,
    );
    let before = pump.counts().turns;
    let pump = beside(pump, async {
        file.fault(1, None, 1);
        until(|| file.ended().len() == 1).await;
        sleep(Duration::from_millis(300)).await;
    });
    // The fault, the look that found no more, the deadline's look, the stop, a look after each.
    let turns = pump.counts().turns - before;
    assert!(turns <= 8, "{turns} turns");
}

#[test]
fn a_deadline_wakes_it_and_a_late_answer_does_no_harm() {
    let (sender, handles) = channel();
    let policy = Policy::default().with_timeout(Some(Duration::from_millis(10)));
    let (pump, file) = pump(policy, Serve::Later(sender));
    let handle: PumpHandle<_> = pump.handle();
    let pump = beside(pump, async {
        file.fault(1, None, 1);
        let mut ended = Vec::new();
        until(|| {
            ended.extend(file.ended());
            !ended.is_empty()
        })
        .await;
        assert_eq!(ended[0].response, Response::Invalid);
        let late = handles.recv().unwrap();
        handle.answer(late, Response::Success).unwrap();
    });
    assert_eq!(pump.counts().late, 1);
}

#[test]
fn queues_that_come_and_go_are_watched_and_forgotten() {
    let (pump, first) = pump(Policy::default(), Serve::Yes);
    let second = FakeFile::new();
    let handle = pump.handle();
    let watched = second.clone();
    let change = std::thread::spawn(move || {
        handle.exclusive(move |pump| {
            let first = pump.queues().next();
            let gone = first.and_then(|id| pump.remove_queue(id));
            add(pump, &watched, 2, Serve::Yes);
            gone
        })
    });
    let pump = beside(pump, async {
        until(|| change.is_finished()).await;
        // Still readable, and nobody's business any more.
        first.fault(1, None, 1);
        second.fault(2, None, 1);
        until(|| second.ended().len() == 1).await;
        sleep(Duration::from_millis(100)).await;
    });
    assert!(change.join().unwrap().unwrap().is_some());
    assert!(pump.counts().turns < 50, "{}", pump.counts().turns);
    assert_eq!(first.waiting(), (1, 0));
}

#[test]
fn a_full_engine_is_no_reason_to_take_turns() {
    let (sender, handles) = channel();
    let policy = Policy::default().with_max_pages(2);
    let (pump, file) = pump(policy, Serve::Later(sender));
    let handle = pump.handle();
    let pump = beside(pump, async {
        for _ in 0..5 {
            file.fault(1, None, 1);
        }
        until(|| file.waiting() == (3, 2)).await;
        sleep(Duration::from_millis(100)).await;
        let mut ended = 0;
        until(|| {
            for late in handles.try_iter() {
                handle.answer(late, Response::Success).unwrap();
            }
            ended += file.ended().len();
            ended == 5
        })
        .await;
    });
    assert!(pump.counts().turns < 50, "{}", pump.counts().turns);
}
