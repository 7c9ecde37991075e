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

/// Every queue, the commands, and the timer: a bit each.
const MOST: usize = 64;
const COMMANDS: u64 = 1 << 63;
const TIME: u64 = 1 << 62;
const QUEUES: u64 = TIME - 1;

const _: () = assert!(1 << super::Pump::<crate::FaultFd>::MAX_QUEUES == TIME);

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    bits: u64,
    polled: bool,
}

impl Ready {
    const NONE: Self = Self {
        bits: 0,
        polled: true,
    };

    /// Nobody looked, so that it may be anything.
    pub(super) const UNKNOWN: Self = Self {
        bits: u64::MAX,
        polled: false,
    };

    /// Queues to read, a bit each.
    #[inline]
    pub(super) fn queues(self) -> u64 {
        self.bits & QUEUES
    }

    /// There are commands.
    #[inline]
    pub(super) fn commands(self) -> bool {
        self.bits & COMMANDS != 0
    }

    /// Something may be due; otherwise nothing is.
    #[inline]
    pub(super) fn may_be_due(self) -> bool {
        self.bits & (TIME | COMMANDS) != 0
    }

    /// The same, or something is due if `due`.
    #[inline]
    pub(super) fn or_due(self, due: bool) -> Self {
        let bits = self.bits | if due { TIME } else { 0 };
        Self { bits, ..self }
    }

    /// Somebody looked: what is here is readable.
    #[inline]
    pub(super) fn is_polled(self) -> bool {
        self.polled
    }

    /// Somebody looked, and nothing has changed since.
    #[inline]
    pub(super) fn is_sure(self) -> bool {
        self.polled && !self.commands()
    }

    /// Something is readable.
    #[inline]
    pub(super) fn any(self) -> bool {
        self.bits & !TIME != 0
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
            let data = epoll::EventData::new_u64(bit);
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
            Err(Errno::INTR) => return Ok(Ready::NONE),
            Err(error) => return Err(error),
        };
        // An error or a hang-up counts as readable: the read tells what it is.
        let [first, more @ ..] = events else {
            return Ok(Ready::NONE);
        };
        let mut bits = first.data.u64();
        for event in more {
            bits |= event.data.u64();
        }
        if bits & TIME != 0 {
            self.fired();
        }
        Ok(Ready {
            bits,
            ..Ready::NONE
        })
    }

    #[cold]
    fn fired(&mut self) {
        // It is not readable any more. Nothing to read is as good.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        self.armed = u64::MAX;
    }
}
