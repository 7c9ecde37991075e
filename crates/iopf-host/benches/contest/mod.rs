//! The two who are compared.

use iopf::Response;
use iopf::engine::{
    Attachment, DeviceConfig, DeviceId, DomainId, Engine, Group, Pages, Policy, Stray, Verdict,
};
use iopf::resolve::{Decision, Resolver};
use iopf_host::fake::Mill;
use iopf_host::{FaultFile, FaultQueue, Pump};
use rustix::event::{PollFd, PollFlags, poll};
use std::convert::Infallible;

/// The device of the contest, as the file has it.
const DEVICE: u32 = 7;

/// A resolver that resolves everything.
struct Yes;

impl Resolver for Yes {
    fn group(&mut self, _: &Group, _: Pages<'_>) -> Decision {
        Decision::Answer(Response::Success)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}

/// A pump over a file.
pub(crate) struct Contest {
    pub(crate) pump: Pump<Mill>,
    pub(crate) mill: Mill,
}

impl Contest {
    pub(crate) fn new() -> Self {
        let mill = Mill::new(DEVICE);
        let engine = Engine::new(Policy::default());
        let mut pump = Pump::new(engine, |_| ()).expect("a descriptor");
        let queue = FaultQueue::new(mill.clone());
        let queue = pump.add_queue(queue).expect("room");
        let id = DeviceId(1);
        pump.add_device(id, DeviceConfig::default(), Yes)
            .expect("room");
        assert!(pump.route(queue, DEVICE, id));
        let attachment = Attachment::new(DomainId(1));
        pump.attach(id, None, attachment, || Ok::<_, Infallible>(()))
            .expect("room");
        let mut contest = Self { pump, mill };
        // Buffers grow, the first chunk of the slab is taken.
        for _ in 0..10 {
            contest.mill.supply(64);
            contest.pump.turn(None).expect("poll");
        }
        contest
    }
}

/// The smallest loop that is right for groups of one page: one turn of it.
pub(crate) fn smallest(file: &Mill) {
    poll(&mut [PollFd::new(file, PollFlags::IN)], None).expect("poll");
    let mut fault = [0; 40];
    if file.read(&mut fault).expect("a group") == 0 {
        return;
    }
    // The cookie is the last word of the record; SUCCESS is 0.
    let [.., a, b, c, d] = fault;
    let answer = [a, b, c, d, 0, 0, 0, 0];
    assert_eq!(file.write(&answer), Ok(8));
}
