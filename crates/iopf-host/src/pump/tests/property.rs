//! Whatever happens, in whatever order: every group ends once, nothing is lost uncounted, and no
//! answer reaches a group it was not meant for.

use super::*;
use crate::fake::{BadRead, BadWrite};
use iopf::Pasid;
use iopf::engine::DeviceId;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One thing that happens. Devices are small numbers; a handle is named by the how-manieth it was.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A group of so many pages.
    Fault(u32, bool, u32),
    /// The pump's turn.
    Turn,
    Wait(u64),
    /// A resolver's late answer.
    Answer(usize, bool),
    Refuse(usize),
    Detach(u32, bool),
    Attach(u32, bool),
    Replace(u32, bool),
    /// The kernel says no to a detach or a replace.
    RefusedDetach(u32, bool),
    Remove(u32),
    Add(u32, u8),
    BadRead(u8),
    BadWrite(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || (0u32..3, any::<bool>());
    prop_oneof![
        6 => (who(), 1u32..5).prop_map(|((d, p), n)| Step::Fault(d, p, n)),
        6 => Just(Step::Turn),
        2 => (0u64..1500).prop_map(Step::Wait),
        4 => (0usize..64, any::<bool>()).prop_map(|(h, y)| Step::Answer(h, y)),
        1 => (0usize..64).prop_map(Step::Refuse),
        1 => who().prop_map(|(d, p)| Step::Detach(d, p)),
        2 => who().prop_map(|(d, p)| Step::Attach(d, p)),
        1 => who().prop_map(|(d, p)| Step::Replace(d, p)),
        1 => who().prop_map(|(d, p)| Step::RefusedDetach(d, p)),
        1 => (0u32..3).prop_map(Step::Remove),
        2 => (0u32..3, any::<u8>()).prop_map(|(d, r)| Step::Add(d, r)),
        1 => any::<u8>().prop_map(Step::BadRead),
        1 => any::<u8>().prop_map(Step::BadWrite),
    ]
}

/// The world, and what a book-keeper knows of it from outside.
struct Story {
    world: World,
    now: u64,
    handles: Vec<Handle>,
    given: Receiver<Handle>,
    giver: Sender<Handle>,
    domain: u32,
    /// Groups that came, and those that ended.
    groups: u64,
    ended: BTreeMap<u64, Response>,
}

fn pasid(has: bool) -> Option<Pasid> {
    has.then(|| Pasid::truncate(5))
}

impl Story {
    fn new() -> Self {
        let (giver, given) = channel();
        let mut story = Self {
            world: World::new(policy().with_max_pages(24)),
            now: 0,
            handles: Vec::new(),
            given,
            giver,
            domain: 100,
            groups: 0,
            ended: BTreeMap::new(),
        };
        for device in 0..3 {
            story.act(Step::Add(device, 2));
            story.act(Step::Attach(device, false));
        }
        story
    }

    fn attachment(&mut self) -> Attachment {
        self.domain += 1;
        Attachment::new(DomainId(self.domain))
    }

    fn resolver(&self, kind: u8) -> Serving {
        match kind % 6 {
            0 => yes().into(),
            1 => Serving::Deny,
            4 => {
                let mut left = 2;
                Decide(move |_: &Group, _: Pages<'_>| {
                    left -= 1;
                    assert!(left > 0, "a resolver's own mistake");
                    Decision::Answer(Response::Success)
                })
                .into()
            }
            _ => {
                let giver = self.giver.clone();
                Decide(move |group: &Group, _: Pages<'_>| {
                    giver.send(group.handle).expect("the story listens");
                    Decision::Later
                })
                .into()
            }
        }
    }

    fn handle(&self, nth: usize) -> Option<Handle> {
        let len = self.handles.len();
        (len > 0).then(|| self.handles[len - 1 - nth % len])
    }

    fn act(&mut self, step: Step) {
        let file = self.world.file.clone();
        let now = self.now;
        match step {
            Step::Fault(device, of_pasid, pages) => {
                file.fault(dev_id(device), pasid(of_pasid), pages);
                self.groups += 1;
            }
            Step::Turn => self.world.serve(now),
            Step::Wait(time) => {
                self.now += time;
                self.world.serve(self.now);
            }
            Step::Answer(nth, good) => {
                if let Some(handle) = self.handle(nth) {
                    let response = if good {
                        Response::Success
                    } else {
                        Response::Invalid
                    };
                    self.world.pump.handle().answer(handle, response).unwrap();
                }
            }
            Step::Refuse(nth) => {
                if let Some(handle) = self.handle(nth) {
                    self.world.pump.handle().refuse(handle).unwrap();
                }
            }
            Step::Detach(device, of_pasid) => {
                let kernel = || Ok::<_, Infallible>(file.detach(dev_id(device), pasid(of_pasid)));
                let id = DeviceId(device);
                let said = self.world.pump.detach(id, pasid(of_pasid), kernel);
                self.finish(said.map(drop), || {
                    file.detach(dev_id(device), pasid(of_pasid));
                });
            }
            Step::RefusedDetach(device, of_pasid) => {
                let id = DeviceId(device);
                let kernel = || Err::<(), _>(());
                let said = self.world.pump.detach(id, pasid(of_pasid), kernel);
                assert!(said.is_err());
                if let Err(ChangeError::Unwritten(_)) = said {
                    self.retry(|| {
                        file.detach(dev_id(device), pasid(of_pasid));
                    });
                }
            }
            Step::Attach(device, of_pasid) => {
                let attachment = self.attachment();
                let kernel = || {
                    file.attach(dev_id(device), pasid(of_pasid));
                    Ok::<_, Infallible>(())
                };
                let id = DeviceId(device);
                let pasid = pasid(of_pasid);
                let _ = self.world.pump.attach(id, pasid, attachment, kernel);
            }
            Step::Replace(device, of_pasid) => {
                let attachment = self.attachment();
                let pasid = pasid(of_pasid);
                let change = || {
                    file.detach(dev_id(device), pasid);
                    file.attach(dev_id(device), pasid);
                };
                let kernel = || {
                    change();
                    Ok::<_, Infallible>(())
                };
                let id = DeviceId(device);
                let said = self.world.pump.replace(id, pasid, attachment, kernel);
                self.finish(said, change);
            }
            Step::Remove(device) => {
                let gone = || {
                    file.detach(dev_id(device), None);
                    file.detach(dev_id(device), pasid(true));
                };
                let kernel = || {
                    gone();
                    Ok::<_, Infallible>(())
                };
                let said = self.world.pump.remove_device(DeviceId(device), kernel);
                self.finish(said.map(drop), gone);
            }
            Step::Add(device, kind) => {
                let serving = self.resolver(kind);
                let id = DeviceId(device);
                let config = DeviceConfig {
                    credits: 8,
                    ..DeviceConfig::default()
                };
                if self.world.pump.add_device(id, config, serving).is_ok() {
                    let queue = self.world.queue;
                    assert!(self.world.pump.route(queue, dev_id(device), id));
                }
            }
            Step::BadRead(kind) => {
                let bad = [Errno::NOMEM, Errno::IO, Errno::FAULT, Errno::INTR];
                let error = bad[usize::from(kind) % bad.len()];
                file.bad_reads([BadRead::Fail(error)]);
            }
            Step::BadWrite(kind) => {
                let bad = [
                    BadWrite::Fail(Errno::IO),
                    BadWrite::Fail(Errno::FAULT),
                    BadWrite::Take(8),
                    BadWrite::Take(16),
                ];
                file.bad_writes([bad[usize::from(kind) % bad.len()]]);
            }
        }
        self.handles.extend(self.given.try_iter());
        self.look();
    }

    /// After a change that could not write its answers: does as its documentation says.
    fn finish(&mut self, said: Result<(), ChangeError<Infallible>>, kernel: impl FnOnce()) {
        if let Err(ChangeError::Unwritten(_)) = said {
            self.retry(kernel);
        }
    }

    fn retry(&mut self, kernel: impl FnOnce()) {
        // Whoever tries again later has devices that go on asking.
        for device in 0..3 {
            self.world.file.fault(dev_id(device), None, 1);
            self.groups += 1;
        }
        // The first turn may write what is left, the next one reads.
        for _ in 0..2 {
            self.now += 1_000_000_000;
            self.world.serve(self.now);
        }
        // Each bad write is used up by one try.
        while self.world.pump.flush().is_err() {}
        kernel();
    }

    /// Looks at what ended, and at the books.
    fn look(&mut self) {
        for end in self.world.file.ended() {
            assert!(end.group < self.groups);
            let before = self.ended.insert(end.group, end.response);
            assert_eq!(before, None, "group {} ended twice", end.group);
        }
        assert_eq!(
            self.world.file.calls().refused,
            0,
            "no answer went to a group that was gone"
        );
        self.world.books_agree();
        let (held, _) = self.world.pump.engine().pages_held();
        assert!(held <= 24);
        let unwritten = self.world.pump.queue(self.world.queue).unwrap().unwritten();
        let (_, read) = self.world.file.waiting();
        assert!(unwritten <= read, "each answer has a group that waits");
    }

    fn end(mut self) {
        self.world.file.bad_writes([]);
        // What is written and read badly is used up.
        for _ in 0..200 {
            self.now += 1_000_000_000;
            self.act(Step::Turn);
        }
        let stopped = self.world.pump.stop();
        assert_eq!(stopped.unwritten, 0);
        for device in 0..3 {
            for of_pasid in [false, true] {
                self.world.file.detach(dev_id(device), pasid(of_pasid));
            }
        }
        self.look();
        let all: Vec<u64> = (0..self.groups).collect();
        let ended: Vec<u64> = self.ended.keys().copied().collect();
        assert_eq!(all, ended, "every group ended");
        assert_eq!(self.world.pump.engine().totals().held, 0);
        assert_eq!(
            self.world.losses(),
            self.world.pump.engine().totals().losses.total()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_group_ends_once_and_nothing_is_lost_uncounted(steps in vec(step(), 0..150)) {
        let mut story = Story::new();
        for step in steps {
            story.act(step);
        }
        story.end();
    }
}
