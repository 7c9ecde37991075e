//! The pump as a future, for programs around tokio.
//!
//! The runtime watches one descriptor, the pump's epoll set. The set is level-triggered; tokio
//! watches it for edges, and hears that it may wait for the next one only after a turn that found
//! nothing to do.

use super::{Pump, Stopped};
use crate::{FaultFile, sys};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

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
    /// Those of [`turn`](Self::turn), and of a runtime that takes no descriptor; nothing was stopped.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn run_async(&mut self) -> io::Result<Stopped> {
        let set = sys::watch(self.watch.as_fd().try_clone_to_owned()?)?;
        while !self.stopping {
            let ready = if self.settle()? {
                None
            } else {
                Some(set.readable().await?)
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
