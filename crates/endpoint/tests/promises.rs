//! The promises of `Device`, under any order of events.

use endpoint::{Config, Device, Job, JobId, Memory, Op, Ports, Refused, Step};
use iopf::{Access, Gpa, GroupIndex, Iova, Pasid, Response, Rid};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use testkit::{FakeClock, FakeIommu, Ram};
use viommu_api::{Endpoint, Invalidation, PageRequestOutcome};

const ALLOCATION: u32 = 6;
const JOBS: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Event {
    Submit {
        pasid: u32,
        page: u64,
        pages: u32,
    },
    Step,
    Map {
        pasid: u32,
        page: u64,
    },
    Unmap {
        pasid: u32,
        page: u64,
    },
    /// Answers the n-th group under way.
    Answer(usize, u8),
    /// Answers whatever was never asked.
    Stray(u32),
    /// The next page request is dropped, or answered at once.
    Next(u8),
    Abort(u32),
    Clock,
}

fn event() -> impl Strategy<Value = Event> {
    let (pasid, page) = (0u32..2, 0u64..8);
    prop_oneof![
        3 => (pasid.clone(), page.clone(), 1u32..5)
            .prop_map(|(pasid, page, pages)| Event::Submit { pasid, page, pages }),
        8 => Just(Event::Step),
        2 => (pasid.clone(), page.clone()).prop_map(|(pasid, page)| Event::Map { pasid, page }),
        1 => (pasid.clone(), page).prop_map(|(pasid, page)| Event::Unmap { pasid, page }),
        4 => (0usize..4, 0u8..8).prop_map(|(n, code)| Event::Answer(n, code)),
        1 => (0u32..600).prop_map(Event::Stray),
        1 => (0u8..2).prop_map(Event::Next),
        1 => pasid.prop_map(Event::Abort),
        1 => Just(Event::Clock),
    ]
}

/// A device, and what somebody who only sees its messages knows of it.
struct Watched {
    iommu: Arc<FakeIommu>,
    device: Device,
    clock: FakeClock,
    /// Pages and PASID of each group under way.
    open: BTreeMap<u32, (u32, Option<Pasid>)>,
    abandoned: BTreeSet<u32>,
    accepted: BTreeSet<JobId>,
    ended: BTreeSet<JobId>,
    /// The IOMMU was told to answer a group itself, and none came back as such yet.
    at_once: bool,
}

impl Watched {
    fn new() -> Self {
        let iommu = Arc::new(FakeIommu::new());
        let ram = Ram::new(2 << 20).expect("two megabytes");
        let config = Config {
            allocation: ALLOCATION,
            group_pages: 4,
            jobs: JOBS,
            attempts: 3,
            timeout: Duration::from_millis(1),
            ..Config::default()
        };
        let memory = Arc::new(Memory(ram.memory()));
        let ports = Ports::of(iommu.clone());
        Self {
            iommu,
            device: Device::new(Rid(8), config, ports, memory),
            clock: FakeClock::new(),
            open: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            accepted: BTreeSet::new(),
            ended: BTreeSet::new(),
            at_once: false,
        }
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Submit { pasid, page, pages } => {
                let op = Op::Read {
                    from: Iova(page << 12),
                    len: pages << 12,
                };
                match self.device.submit(Job::new(Pasid::new(pasid), op)) {
                    Ok(id) => assert!(self.accepted.insert(id)),
                    Err(refused) => {
                        assert_eq!(refused, Refused::Full(JOBS));
                        assert_eq!(self.accepted.len() - self.ended.len(), JOBS);
                    }
                }
            }
            Event::Step => {
                self.device.step(self.clock.now());
            }
            Event::Map { pasid, page } => {
                let to = Gpa((1 << 20) + (page << 12));
                self.iommu
                    .map(Pasid::new(pasid), Iova(page << 12), to, Access::RW);
            }
            Event::Unmap { pasid, page } => {
                let pasid = Pasid::new(pasid);
                self.iommu.unmap(pasid, Iova(page << 12));
                self.device.invalidate(&Invalidation {
                    pasid,
                    global: false,
                    addr: Iova(page << 12),
                    size_shift: 12,
                });
            }
            Event::Answer(n, code) => {
                let group = self.open.iter().nth(n).map(|(g, (_, pasid))| (*g, *pasid));
                if let Some((group, pasid)) = group {
                    let response = match code {
                        0 => Response::Invalid,
                        1 => Response::Failure,
                        _ => Response::Success,
                    };
                    self.open.remove(&group);
                    self.device
                        .page_response(pasid, GroupIndex(group), response);
                    if response == Response::Failure {
                        self.device.reset_pri();
                        self.open.clear();
                        self.abandoned.clear();
                    }
                }
            }
            Event::Stray(group) => {
                if !self.open.contains_key(&group) && !self.abandoned.contains(&group) {
                    let before = self.device.stats().unexpected_responses;
                    self.device
                        .page_response(Pasid::new(1), GroupIndex(group), Response::Success);
                    assert_eq!(self.device.stats().unexpected_responses, before + 1);
                }
            }
            Event::Next(0) => self.iommu.outcome_next(PageRequestOutcome::Dropped),
            Event::Next(_) => {
                self.at_once = true;
                let answer = PageRequestOutcome::Answered(Response::Success);
                self.iommu.outcome_next(answer);
            }
            Event::Abort(pasid) => self.device.abort(Pasid::new(pasid)),
            Event::Clock => {
                self.clock.advance(Duration::from_micros(400));
            }
        }
        self.watch();
    }

    /// Reads the messages the device sent and what it reports.
    fn watch(&mut self) {
        let mut fresh: BTreeMap<u32, (u32, Option<Pasid>)> = BTreeMap::new();
        for (_, request) in self.iommu.take_requests() {
            let group = request.group.0;
            assert!(group < 512);
            assert!(!self.open.contains_key(&group), "an index is used twice");
            assert!(
                !self.abandoned.contains(&group),
                "an index is used too early"
            );
            let entry = fresh.entry(group).or_insert((0, request.pasid));
            entry.0 += 1;
            assert_eq!(entry.1, request.pasid);
        }
        self.open.extend(fresh);
        while let Some(answer) = self.device.poll_answer() {
            if answer.response.is_none() {
                self.open.remove(&answer.group.0);
                self.abandoned.insert(answer.group.0);
            } else if answer.at_once {
                self.open.remove(&answer.group.0);
                self.at_once = false;
            }
        }
        let pages: u32 = self.open.values().map(|(pages, _)| pages).sum();
        // A group that the IOMMU answered at once is over before the device says so.
        if !self.at_once {
            assert!(pages <= ALLOCATION, "{pages} pages under way");
        }
        while let Some(completion) = self.device.poll_completion() {
            assert!(self.accepted.contains(&completion.id));
            assert!(self.ended.insert(completion.id), "a job ends twice");
            assert!(completion.moved >= completion.data.len() as u64);
        }
    }

    /// Lets time pass until nothing is left to wait for.
    fn end(&mut self) {
        for _ in 0..10_000 {
            self.clock.advance(Duration::from_millis(2));
            while self.device.step(self.clock.now()) == Step::Worked {}
            self.watch();
            if self.device.pending() == 0 {
                break;
            }
        }
        assert_eq!(self.accepted, self.ended);
    }
}

proptest! {
    #[test]
    fn every_job_ends_once_and_no_group_index_is_used_twice(
        events in prop::collection::vec(event(), 0..120)
    ) {
        let mut watched = Watched::new();
        for event in events {
            watched.play(event);
        }
        watched.end();
    }
}
