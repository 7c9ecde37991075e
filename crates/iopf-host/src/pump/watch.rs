//! What the pump sleeps for: an epoll(7) set, which is changed only when something else is wanted.

use super::source::Source;
use crate::{Errno, FaultFile};
use rustix::event::{Timespec, epoll};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The number of the commands' descriptor in the set, above those of the queues.
const COMMANDS: u64 = 64;

/// Every queue, and the commands.
const MOST: usize = 65;

/// What is readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    /// Queues, a bit each.
    pub(super) queues: u64,
    pub(super) commands: bool,
}

impl Ready {
    /// Nobody has looked.
    pub(super) const UNKNOWN: Self = Self {
        queues: u64::MAX,
        commands: true,
    };

    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// The set. It is level-triggered.
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Watch {
    /// A set of the commands alone.
    pub(super) fn new(commands: BorrowedFd<'_>) -> Result<Self, Errno> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let number = epoll::EventData::new_u64(COMMANDS);
        epoll::add(&set, commands, number, epoll::EventFlags::IN)?;
        Ok(Self(set))
    }

    /// Takes the queue in the given place in or out of the set, as it is wanted.
    pub(super) fn follow<F: FaultFile>(
        &self,
        place: usize,
        source: &mut Source<F>,
        wanted: bool,
    ) -> Result<(), Errno> {
        if wanted == source.watched {
            return Ok(());
        }
        let file = source.queue.file();
        // Out of it altogether: an error or a hang-up is told of whoever is in.
        source.watched = false;
        if wanted {
            let number = epoll::EventData::new_u64(place as u64);
            epoll::add(&self.0, file, number, epoll::EventFlags::IN)?;
            source.watched = true;
            Ok(())
        } else {
            epoll::delete(&self.0, file)
        }
    }

    /// Waits until something is readable, or for `timeout`. An error or a hang-up counts as readable:
    /// the read tells what it is.
    #[inline]
    pub(super) fn wait(&self, timeout: Option<&Timespec>) -> Result<Ready, Errno> {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; MOST];
        let events = match epoll::wait(&self.0, &mut room, timeout) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error),
        };
        let mut ready = Ready::default();
        for event in events {
            match event.data.u64() {
                COMMANDS => ready.commands = true,
                place => ready.queues |= 1 << place,
            }
        }
        Ok(ready)
    }
}
