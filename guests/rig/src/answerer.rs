//! Those who are compared: each waits for page requests and answers them.

use crate::Outcome;
use crate::mock::{Mock, again};
use iopf::Response;
use iopf::engine::{
    Attachment, DeviceConfig, DomainId, Engine, Group, Pages, Policy, Stray, Verdict,
};
use iopf::resolve::{Decision, Resolver};
use iopf_host::pump::QueueId;
use iopf_host::{Device as _, FaultFd, FaultQueue, Pump, RawAnswer, RawFault};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::OwnedFd;

/// Somebody who answers.
pub(crate) trait Answerer {
    /// Waits until there is something to answer, and answers; how many groups.
    fn turn(&mut self) -> Outcome<usize>;
}

/// The smallest loop that is right for groups of one page: poll, read, write.
#[derive(Debug)]
pub(crate) struct Smallest(pub(crate) OwnedFd);

/// The records of a read as bytes, without a crate's help.
const FAULT: usize = size_of::<RawFault>();

impl Answerer for Smallest {
    #[inline]
    fn turn(&mut self) -> Outcome<usize> {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None)?;
        let mut fault = [0; FAULT];
        if rustix::io::read(&self.0, &mut fault)? == 0 {
            return Ok(0);
        }
        // The cookie is the last word of the record.
        let [.., a, b, c, d] = fault;
        let answer = [a, b, c, d, 0, 0, 0, 0];
        debug_assert_eq!(RawAnswer::SUCCESS, 0);
        rustix::io::write(&self.0, &answer)?;
        Ok(1)
    }
}

/// The pump, with the engine's default policy, and a resolver that has nothing to think about: what
/// is left is what the pump itself costs.
#[derive(Debug)]
pub(crate) struct Pumped {
    pump: Pump<FaultFd>,
    queue: QueueId,
    answered: u64,
}

/// Says yes.
#[derive(Debug)]
struct Yes;

impl Resolver for Yes {
    fn group(&mut self, _: &Group, _: Pages<'_>) -> Decision {
        Decision::Answer(Response::Success)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Unhandled
    }
}

impl Pumped {
    fn new(mock: &Mock, file: OwnedFd) -> Outcome<Self> {
        let device = mock.device.id();
        let mut pump = Pump::new(Engine::new(Policy::default()), |_| ())?;
        let queue = pump
            .add_queue(FaultQueue::new(file.into()))
            .map_err(|_| "the pump takes no queue")?;
        pump.add_device(device, DeviceConfig::default(), Yes)?;
        pump.route(queue, device.0, device);
        // The kernel has attached the device before.
        let attached = pump.attach(device, None, Attachment::new(DomainId(1)), || {
            Outcome::Ok(())
        });
        attached.map_err(|error| error.to_string())?;
        Ok(Self {
            pump,
            queue,
            answered: 0,
        })
    }
}

impl Answerer for Pumped {
    fn turn(&mut self) -> Outcome<usize> {
        self.pump.turn(None)?;
        let queue = self.pump.queue(self.queue).ok_or("no queue")?;
        let before = std::mem::replace(&mut self.answered, queue.counts().answered);
        Ok(usize::try_from(self.answered - before)?)
    }
}

/// Everyone who is compared.
pub(crate) const WHO: [&str; 2] = ["smallest", "pump"];

/// The answerer of that name, on this file.
pub(crate) fn named(who: &str, mock: &Mock, file: &FaultFd) -> Outcome<Box<dyn Answerer>> {
    let file = again(file)?;
    Ok(match who {
        "smallest" => Box::new(Smallest(file)),
        "pump" => Box::new(Pumped::new(mock, file)?),
        _ => return Err(format!("nobody is called {who}").into()),
    })
}
