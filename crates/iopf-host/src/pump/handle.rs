//! The way into a pump from other threads.

use super::{Notice, Pump};
use iopf::Response;
use iopf::engine::{Handle, Verdict};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Commands that wait for the pump at most; whoever gives one more waits too.
pub(super) const COMMANDS: usize = 1024;

type Call<F> = Box<dyn FnOnce(&mut Pump<F>) + Send>;

pub(super) enum Command<F> {
    Answer(Handle, Response),
    Refuse(Handle),
    Judge(Handle, Verdict),
    Tell(Notice),
    Call(Call<F>),
    Stop,
}

/// A command did not get to the pump, or its result not back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The pump is gone, or has stopped since the handle was made.
    #[error("the pump is gone")]
    Gone,
    /// The pump would have to wait for itself: the call comes from a resolver or from another call
    /// on its own thread.
    #[error("the pump cannot wait for itself")]
    Inside,
    /// The call panicked on the pump's thread.
    #[error("the call panicked")]
    Panicked,
}

/// Brings answers and commands to a [`Pump`] from any thread.
///
/// All but [`exclusive`](Self::exclusive) return at once, as long as fewer than 1,024 commands
/// wait. What is sent before the pump goes or [`stop`](Pump::stop)s is taken or dropped, never done
/// twice; what is sent after that is refused.
pub struct PumpHandle<F> {
    commands: SyncSender<Command<F>>,
    waker: Arc<Waker>,
}

impl<F> Clone for PumpHandle<F> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<F> fmt::Debug for PumpHandle<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PumpHandle")
    }
}

/// An eventfd that is readable while there are commands to take.
#[derive(Debug)]
pub(super) struct Waker {
    event: OwnedFd,
    /// The eventfd was written and not read since.
    set: AtomicBool,
    /// The thread that began the last turn, as [`here`] names it; 0: none did.
    pump: AtomicUsize,
}

/// A number for this thread, as long as it lives; never 0. It takes no call.
#[inline]
fn here() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Waker {
    fn wake(&self) {
        if !self.set.swap(true, Ordering::AcqRel) {
            // The count is far from its end, so the only error left is that of a closed one.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    fn is_pump(&self) -> bool {
        self.pump.load(Ordering::Relaxed) == here()
    }
}

/// The pump's end.
pub(super) struct Inbox<F> {
    commands: Receiver<Command<F>>,
    waker: Arc<Waker>,
    back: SyncSender<Command<F>>,
}

impl<F> fmt::Debug for Inbox<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

impl<F> Inbox<F> {
    pub(super) fn new() -> Result<Self, Errno> {
        let (back, commands) = sync_channel(COMMANDS);
        let waker = Arc::new(Waker {
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            set: AtomicBool::new(false),
            pump: AtomicUsize::new(0),
        });
        Ok(Self {
            commands,
            waker,
            back,
        })
    }

    pub(super) fn handle(&self) -> PumpHandle<F> {
        PumpHandle {
            commands: self.back.clone(),
            waker: Arc::clone(&self.waker),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.event.as_fd()
    }

    /// Whoever waits for a command, or has a handle, is told that nobody takes any.
    pub(super) fn close(&mut self) {
        (self.back, self.commands) = sync_channel(COMMANDS);
    }

    /// This thread takes the turns from now on.
    #[inline]
    pub(super) fn belongs_here(&self) {
        // Only this thread needs to see it: to another it makes no difference.
        self.waker.pump.store(here(), Ordering::Relaxed);
    }

    /// There are commands to take, or about to be.
    #[inline]
    pub(super) fn is_called(&self) -> bool {
        self.waker.set.load(Ordering::Acquire)
    }

    /// The eventfd is not readable any more, until the next command.
    pub(super) fn calm(&self) {
        // Nothing to read is as good.
        let _ = rustix::io::read(&self.waker.event, &mut [0; 8]);
        // A command whose sender found the flag set was sent before, and is found by `next`.
        self.waker.set.swap(false, Ordering::AcqRel);
    }

    pub(super) fn next(&self) -> Option<Command<F>> {
        self.commands.try_recv().ok()
    }

    /// There is more to take than one turn should.
    pub(super) fn again(&self) {
        self.waker.wake();
    }
}

impl<F: 'static> PumpHandle<F> {
    fn send(&self, command: Command<F>) -> Result<(), HandleError> {
        match self.commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Disconnected(_)) => return Err(HandleError::Gone),
            Err(TrySendError::Full(_)) if self.waker.is_pump() => return Err(HandleError::Inside),
            Err(TrySendError::Full(command)) => {
                // They were sent before this one, so the pump is awake or about to be.
                let sent = self.commands.send(command);
                sent.map_err(|_| HandleError::Gone)?;
            }
        }
        self.waker.wake();
        Ok(())
    }

    /// Answers a group. If it was answered before, by its deadline or a detach, that is counted and
    /// nothing else happens.
    ///
    /// # Errors
    /// [`HandleError`], but not [`HandleError::Panicked`].
    pub fn answer(&self, group: Handle, response: Response) -> Result<(), HandleError> {
        self.send(Command::Answer(group, response))
    }

    /// Refuses a group: see [`Engine::refuse`](iopf::Engine::refuse).
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn refuse(&self, group: Handle) -> Result<(), HandleError> {
        self.send(Command::Refuse(group))
    }

    /// Judges an unrecoverable fault.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn judge(&self, fault: Handle, verdict: Verdict) -> Result<(), HandleError> {
        self.send(Command::Judge(fault, verdict))
    }

    /// Hands a notice to the pump's sink.
    pub(crate) fn tell(&self, notice: Notice) -> Result<(), HandleError> {
        self.send(Command::Tell(notice))
    }

    /// Runs `call` on the pump's thread, between two turns: nothing is read, resolved or answered
    /// meanwhile. Waits for its result.
    ///
    /// This is how address spaces are attached, replaced and removed while faults come: see
    /// [`Pump::detach`].
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn exclusive<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Pump<F>) -> T + Send + 'static,
    ) -> Result<T, HandleError> {
        if self.waker.is_pump() {
            return Err(HandleError::Inside);
        }
        let (sender, result) = sync_channel(1);
        self.send(Command::Call(Box::new(move |pump| {
            let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call(pump)));
            // Whoever asked may have gone.
            let _ = sender.send(called.map_err(|_| HandleError::Panicked));
        })))?;
        // Dropped unrun where the pump went or stopped.
        result.recv().map_err(|_| HandleError::Gone)?
    }

    /// Tells the pump to stop: [`Pump::run`] answers all it holds INVALID and returns. Does not
    /// wait for it.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn stop(&self) -> Result<(), HandleError> {
        self.send(Command::Stop)
    }
}
