//! Those who are compared: each waits for page requests and answers them.

use crate::Outcome;
use crate::mock::{Mock, again};
use iopf::Response;
use iopf::engine::{
    Attachment, DeviceConfig, DomainId, Engine, Group, Pages, Policy, Stray, Verdict,
};
use iopf::resolve::{Decision, Resolver};
use iopf_host::pump::{Notice, QueueId};
use iopf_host::{Device as _, FaultFd, FaultQueue, Pump, RawAnswer, RawFault};
use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, poll};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        take(&self.0)
    }
}

/// Reads one page request and answers it.
#[inline]
fn take(file: &OwnedFd) -> Outcome<usize> {
    let mut fault = [0; FAULT];
    if rustix::io::read(file, &mut fault)? == 0 {
        return Ok(0);
    }
    // The cookie is the last word of the record.
    let [.., a, b, c, d] = fault;
    let [e, f, g, h] = RawAnswer::SUCCESS.to_ne_bytes();
    rustix::io::write(file, &[a, b, c, d, e, f, g, h])?;
    Ok(1)
}

/// The same with epoll(7), and a second descriptor that is never ready, as a pump has one to be woken.
#[derive(Debug)]
pub(crate) struct Epoll {
    epoll: OwnedFd,
    file: OwnedFd,
    _other: OwnedFd,
}

impl Epoll {
    fn new(file: OwnedFd) -> Outcome<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let other = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        for (number, file) in [(0, &file), (1, &other)] {
            let data = epoll::EventData::new_u64(number);
            epoll::add(&epoll, file, data, epoll::EventFlags::IN)?;
        }
        Ok(Self {
            epoll,
            file,
            _other: other,
        })
    }
}

impl Answerer for Epoll {
    fn turn(&mut self) -> Outcome<usize> {
        let none = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        epoll::wait(&self.epoll, &mut [none; 4], None)?;
        take(&self.file)
    }
}

/// The pump, with the engine's default policy, and a resolver that has nothing to think about: what
/// is left is what the pump itself costs.
#[derive(Debug)]
pub(crate) struct Pumped {
    pump: Pump<FaultFd>,
    queue: QueueId,
    decided: Arc<AtomicUsize>,
    before: usize,
}

/// Says yes, and counts.
#[derive(Debug)]
struct Yes(Arc<AtomicUsize>);

impl Resolver for Yes {
    fn group(&mut self, _: &Group, _: Pages<'_>) -> Decision {
        // One thread counts: a load and a store are enough.
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count + 1, Ordering::Relaxed);
        Decision::Answer(Response::Success)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Unhandled
    }
}

impl Pumped {
    /// One that serves this device; `sink` hears what is no answer.
    pub(crate) fn new(
        mock: &Mock,
        file: OwnedFd,
        sink: impl FnMut(Notice) + Send + 'static,
    ) -> Outcome<Self> {
        let device = mock.device.id();
        let mut pump = Pump::new(Engine::new(Policy::default()), sink)?;
        let queue = pump
            .add_queue(FaultQueue::new(file.into()))
            .map_err(|_| "the pump takes no queue")?;
        let decided = Arc::new(AtomicUsize::new(0));
        pump.add_device(device, DeviceConfig::default(), Yes(decided.clone()))?;
        pump.route(queue, device.0, device);
        // The kernel has attached the device before.
        let attached = pump.attach(device, None, Attachment::new(DomainId(1)), || {
            Outcome::Ok(())
        });
        attached.map_err(|error| error.to_string())?;
        Ok(Self {
            pump,
            queue,
            decided,
            before: 0,
        })
    }

    /// Answers that the kernel has taken.
    pub(crate) fn answered(&self) -> u64 {
        let queue = self.pump.queue(self.queue);
        queue.map_or(0, |queue| queue.counts().answered)
    }
}

impl Answerer for Pumped {
    fn turn(&mut self) -> Outcome<usize> {
        self.pump.turn(None)?;
        let decided = self.decided.load(Ordering::Relaxed);
        Ok(decided - std::mem::replace(&mut self.before, decided))
    }
}

/// Everyone who is compared.
pub(crate) const WHO: [&str; 3] = ["smallest", "epoll", "pump"];

/// The answerer of that name, on this file.
pub(crate) fn named(who: &str, mock: &Mock, file: &FaultFd) -> Outcome<Box<dyn Answerer>> {
    let file = again(file)?;
    Ok(match who {
        "smallest" => Box::new(Smallest(file)),
        "epoll" => Box::new(Epoll::new(file)?),
        "pump" => Box::new(Pumped::new(mock, file, |_| ())?),
        _ => return Err(format!("nobody is called {who}").into()),
    })
}
