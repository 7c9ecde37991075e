//! The pump as a future, for programs around tokio.
//!
//! What the pump waits for is kept in an epoll set, so that the runtime watches one descriptor. The
//! set is level-triggered; tokio watches it for edges, and hears that it may wait for the next one
//! only after a turn that found nothing to do.

use super::{Pump, QueueId, Stopped};
use crate::clock::until;
use crate::{Errno, FaultFile, sys};
use rustix::event::epoll;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// The epoll set, and which queues are in it.
#[derive(Debug)]
struct Set {
    epoll: AsyncFd<OwnedFd>,
    queues: Vec<(QueueId, bool)>,
}

const fn events(wanted: bool) -> epoll::EventFlags {
    if wanted {
        epoll::EventFlags::IN
    } else {
        epoll::EventFlags::empty()
    }
}

impl Set {
    fn new<F: FaultFile + 'static>(pump: &Pump<F>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let nobody = epoll::EventData::new_u64(0);
        epoll::add(&epoll, pump.inbox.as_fd(), nobody, events(true))?;
        let mut queues = Vec::new();
        let room = pump.engine.room();
        for source in pump.sources.iter().flatten() {
            let wanted = source.wanted(room);
            epoll::add(&epoll, source.queue.file(), nobody, events(wanted))?;
            queues.push((source.id, wanted));
        }
        let epoll = sys::watch(epoll)?;
        Ok(Self { epoll, queues })
    }

    /// Takes over which queues are wanted; `false`: there are others than before.
    fn follow<F: FaultFile + 'static>(&mut self, pump: &Pump<F>) -> Result<bool, Errno> {
        let room = pump.engine.room();
        let mut known = self.queues.iter_mut();
        for source in pump.sources.iter().flatten() {
            let Some((_, was)) = known.next().filter(|(id, _)| *id == source.id) else {
                return Ok(false);
            };
            let wanted = source.wanted(room);
            if wanted != *was {
                *was = wanted;
                let nobody = epoll::EventData::new_u64(0);
                epoll::modify(
                    self.epoll.get_ref(),
                    source.queue.file(),
                    nobody,
                    events(wanted),
                )?;
            }
        }
        Ok(known.next().is_none())
    }
}

impl<F: FaultFile + 'static> Pump<F> {
    /// [`run`](Self::run) as a future. Dropped before it is ready, it leaves the pump between two
    /// turns. One [`turn`](Self::turn) is one step: other tasks of the thread wait for it, and a
    /// resolver that would block belongs on a [`Worker`](crate::Worker).
    ///
    /// # Errors
    /// Those of epoll(7) and poll(2); nothing was stopped.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn run_async(&mut self) -> io::Result<Stopped> {
        let mut set = Set::new(self)?;
        while !self.stopping {
            if !set.follow(self)? {
                set = Set::new(self)?;
            }
            let due = self.next_due().map(|due| until(self.clock.now(), due));
            let ready = match due {
                None => Some(set.epoll.readable().await?),
                Some(due) => match timeout(due, set.epoll.readable()).await {
                    Ok(ready) => Some(ready?),
                    Err(_) => None,
                },
            };
            let worked = self.turn(Some(Duration::ZERO))?;
            if let Some(mut ready) = ready
                && !worked
            {
                ready.clear_ready();
            }
        }
        Ok(self.stop())
    }
}

#[cfg(test)]
mod tests;
