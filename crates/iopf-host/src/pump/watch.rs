//! What a pump waits for: queues, commands and time, in one epoll set.
//!
//! The set changes only when a queue comes, goes, or is left out for a while, and the timer only when
//! something is due earlier than before, so that a turn makes one system call to wait. A deadline as
//! the call's own timeout would have the kernel, and the pump before it, read the clock at each turn.

use crate::clock::Clock;
use crate::{Errno, FaultFile};
use iopf::engine::Tick;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Numbers of events, above those of the queues.
const COMMANDS: u64 = 64;
const TIME: u64 = 65;

/// Every queue, the commands, and the timer.
const MOST: usize = 66;

const _: () = assert!(super::Pump::<crate::FaultFd>::MAX_QUEUES as u64 == COMMANDS);

/// What there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    /// Queues to read, a bit each.
    pub(super) queues: u64,
    pub(super) commands: bool,
    /// Something may be due; otherwise nothing is.
    pub(super) due: bool,
    /// Somebody looked: what is here is readable.
    pub(super) polled: bool,
}

impl Ready {
    /// Nobody looked, so that it may be anything.
    pub(super) const UNKNOWN: Self = Self {
        queues: u64::MAX,
        commands: true,
        due: true,
        polled: false,
    };

    /// One queue, which nobody looked at.
    pub(super) fn perhaps(queue: u8) -> Self {
        Self {
            queues: 1 << queue,
            ..Self::default()
        }
    }

    /// The queue, if it is one.
    #[inline]
    pub(super) fn only_queue(self) -> Option<u8> {
        let lowest = self.queues.trailing_zeros();
        let one = self.queues.is_power_of_two();
        one.then(|| u8::try_from(lowest).ok()).flatten()
    }

    pub(super) fn any(self) -> bool {
        self.queues != 0 || self.commands
    }
}

/// The set.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer fires; `u64::MAX`: never.
    armed: u64,
    /// Queues that are in the set, a bit each.
    queues: u64,
}

impl Watch {
    /// A set without queues; `commands` is readable while there are commands.
    pub(super) fn new(commands: BorrowedFd<'_>) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        for (file, number) in [(commands, COMMANDS), (timer.as_fd(), TIME)] {
            let data = epoll::EventData::new_u64(number);
            epoll::add(&epoll, file, data, epoll::EventFlags::IN)?;
        }
        Ok(Self {
            epoll,
            timer,
            armed: u64::MAX,
            queues: 0,
        })
    }

    /// The set itself: readable while anything in it is.
    #[cfg(feature = "tokio")]
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Has the queue of `slot` in the set from now on, or not.
    ///
    /// One that is not wanted is taken out of it: one without events would still tell of hang-ups.
    pub(super) fn set(
        &mut self,
        slot: usize,
        file: &impl FaultFile,
        wanted: bool,
    ) -> Result<(), Errno> {
        let bit = 1 << slot;
        if wanted == (self.queues & bit != 0) {
            return Ok(());
        }
        if wanted {
            let data = epoll::EventData::new_u64(slot as u64);
            epoll::add(&self.epoll, file, data, epoll::EventFlags::IN)?;
            self.queues |= bit;
        } else {
            self.forget(slot, file);
        }
        Ok(())
    }

    /// The queue of `slot` is not in the set any more.
    pub(super) fn forget(&mut self, slot: usize, file: &impl FaultFile) {
        // All that it can say is that it is not there.
        let _ = epoll::delete(&self.epoll, file);
        self.queues &= !(1 << slot);
    }

    /// Sees to it that a wait ends at `due`, if it has not ended before.
    #[inline]
    pub(super) fn arm(&mut self, clock: Clock, due: Option<Tick>) -> Result<(), Errno> {
        match due {
            Some(due) if due.0 < self.armed => self.set_timer(clock, due),
            _ => Ok(()),
        }
    }

    #[cold]
    fn set_timer(&mut self, clock: Clock, due: Tick) -> Result<(), Errno> {
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = Itimerspec {
            it_interval: none,
            it_value: clock.timespec(due),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &time)?;
        self.armed = due.0;
        Ok(())
    }

    /// Waits until something is ready, the timer fires, or at most for `timeout`.
    #[inline]
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<Ready, Errno> {
        // Later than a time can say is never.
        let timeout = timeout.and_then(|wait| Timespec::try_from(wait).ok());
        let mut room = [MaybeUninit::<epoll::Event>::uninit(); MOST];
        let events = match epoll::wait(&self.epoll, &mut room, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error),
        };
        let mut ready = Ready {
            polled: true,
            ..Ready::default()
        };
        for event in events {
            // An error or a hang-up counts as readable: the read tells what it is.
            match event.data.u64() {
                COMMANDS => ready.commands = true,
                TIME => {
                    ready.due = true;
                    self.fired();
                }
                slot => ready.queues |= 1 << slot,
            }
        }
        Ok(ready)
    }

    #[cold]
    fn fired(&mut self) {
        // It is not readable any more. Nothing to read is as good.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        self.armed = u64::MAX;
    }
}
