//! The pump as a future, for programs around tokio.
//!
//! What the pump waits for is an epoll set, so that the runtime watches one descriptor. The set is
//! level-triggered; tokio watches it for edges, and hears that it may wait for the next one only after
//! a turn that found nothing to do.

use super::{Pump, Stopped};
use crate::clock::until;
use crate::{FaultFile, sys};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd as _;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;

/// Lets other tasks of the thread go first.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<F: FaultFile + 'static> Pump<F> {
    /// [`run`](Self::run) as a future. Dropped before it is ready, it leaves the pump between two
    /// turns. One [`turn`](Self::turn) is one step: other tasks of the thread wait for it, and a
    /// resolver that would block belongs on a [`Worker`](crate::Worker).
    ///
    /// # Errors
    /// Those of epoll(7); nothing was stopped.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn run_async(&mut self) -> io::Result<Stopped> {
        let set = sys::watch(self.watch.as_fd().try_clone_to_owned()?)?;
        while !self.stopping {
            self.settle();
            let due = self.next_due().map(|due| until(self.clock.now(), due));
            let ready = match due {
                None => Some(set.readable().await?),
                Some(due) => match timeout(due, set.readable()).await {
                    Ok(ready) => Some(ready?),
                    Err(_) => None,
                },
            };
            let worked = self.turn(Some(Duration::ZERO))?;
            if let Some(mut ready) = ready
                && !worked
            {
                ready.clear_ready();
            } else {
                // A device that never stops asking must not keep the thread.
                yield_now().await;
            }
        }
        Ok(self.stop())
    }
}

#[cfg(test)]
mod tests;
