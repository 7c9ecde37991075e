//! The pump over a fault file in memory, in told time unless a thread is part of the story.

mod bad;
mod changes;
mod flow;
mod property;

use super::*;
use crate::FaultQueue;
use crate::fake::{Ended, FakeFile};
use iopf::engine::{
    Attachment, DeviceConfig, DomainId, Group, Handle, Pages, Policy, Stray, Verdict,
};
use iopf::resolve::{Decision, LogAndDeny, Resolver};
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A closure that decides about groups.
struct Decide<D>(D);

impl<D: FnMut(&Group, Pages<'_>) -> Decision> Resolver for Decide<D> {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        (self.0)(group, pages)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}

fn always(decision: Decision) -> impl Resolver + Send {
    Decide(move |_: &Group, _: Pages<'_>| decision)
}

fn yes() -> impl Resolver + Send {
    always(Decision::Answer(Response::Success))
}

/// A resolver that answers later, and the handles it was given.
fn later() -> (impl Resolver + Send, Receiver<Handle>) {
    let (sender, handles) = channel();
    let decide = move |group: &Group, _: Pages<'_>| {
        sender.send(group.handle).expect("the test listens");
        Decision::Later
    };
    (Decide(decide), handles)
}

const TIMEOUT: u64 = 1000;

fn policy() -> Policy {
    Policy::default().with_timeout(Some(Duration::from_nanos(TIMEOUT)))
}

/// A pump over one file, and what it told.
struct World {
    pump: Pump<FakeFile>,
    file: FakeFile,
    queue: QueueId,
    notices: Receiver<Notice>,
}

/// How the file knows the device of a pump's.
const fn dev_id(device: u32) -> u32 {
    device + 100
}

impl World {
    fn new(policy: Policy) -> Self {
        let file = FakeFile::new();
        let (sink, notices): (Sender<Notice>, _) = channel();
        let sink = move |notice| drop(sink.send(notice));
        let mut pump = Pump::new(Engine::new(policy), sink).unwrap();
        let queue = pump.add_queue(FaultQueue::new(file.clone())).unwrap();
        Self {
            pump,
            file,
            queue,
            notices,
        }
    }

    /// A device with its function attached.
    fn device(&mut self, device: u32, serving: impl Into<Serving>) {
        let id = DeviceId(device);
        self.pump
            .add_device(id, DeviceConfig::default(), serving)
            .unwrap();
        assert!(self.pump.route(self.queue, dev_id(device), id));
        self.attach(device, None);
    }

    fn attach(&mut self, device: u32, pasid: Option<iopf::Pasid>) {
        let file = self.file.clone();
        let kernel = || {
            file.attach(dev_id(device), pasid);
            Ok::<_, Infallible>(())
        };
        let attachment = Attachment::new(DomainId(device));
        let id = DeviceId(device);
        self.pump.attach(id, pasid, attachment, kernel).unwrap();
    }

    fn fault(&self, device: u32, pages: u32) -> u64 {
        self.file.fault(dev_id(device), None, pages)
    }

    fn serve(&mut self, now: u64) {
        self.pump.serve(Tick(now));
    }

    /// Groups and their answers since the last call; the kernel's own are in the second list.
    fn ended(&self) -> (Vec<(u64, Response)>, Vec<u64>) {
        let (kernel, ours): (Vec<Ended>, Vec<Ended>) =
            self.file.ended().into_iter().partition(|end| end.by_kernel);
        (
            ours.iter().map(|end| (end.group, end.response)).collect(),
            kernel.iter().map(|end| end.group).collect(),
        )
    }

    fn losses(&self) -> u64 {
        let told = self.notices.try_iter();
        told.map(|notice| match notice {
            Notice::Loss(report) => report.losses.total(),
            _ => 0,
        })
        .sum()
    }

    /// Every page that was read is in the engine's books.
    fn books_agree(&self) {
        let read = self.pump.queue(self.queue).unwrap().counts().pages;
        let totals = self.pump.engine().totals();
        assert_eq!(read, totals.reported + totals.losses.lost);
        assert_eq!(
            totals.reported,
            totals.completed + totals.losses.refused + totals.losses.discarded + totals.held
        );
    }
}
