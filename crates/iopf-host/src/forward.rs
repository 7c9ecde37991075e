//! Faults for another process: a [`ForwardServer`] serves a queue over a socket, and a
//! [`ForwardedFile`] in the other process is a [`FaultFile`] as the kernel's is.
//!
//! The socket is a Unix one of the kind `SOCK_SEQPACKET`. When a client connects, the server sends a
//! greeting with a descriptor that is readable exactly while there is something to read; then each
//! message of the client, a read or a write, is answered by one message. A client that does anything
//! else, or does not take its answers, is dropped.
//!
//! One client is served at a time, as the kernel's descriptor has one reader; the next waits until
//! the first is gone. What a client has read and not answered when it goes is answered INVALID.
//! What it has not read waits for the next client, or for the deadline.

mod client;
mod ready;
mod serve;
mod wire;

pub use client::{ConnectError, ForwardedFile};
pub use wire::MAX_PAGES;

use crate::{Errno, FaultFile, PumpHandle};
use iopf::Engine;
use iopf::engine::{Group, Pages, Policy, Stray, Tick, Verdict};
use iopf::resolve::{Decision, Forward, Resolver};
use ready::Ready;
use rustix::event::EventfdFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Where the engine is that the forwarded groups wait in.
pub trait WithEngine: Send + 'static {
    /// Runs `act` on the engine, with the time, and sees to it that answers given by it are sent.
    /// `None`: the engine is gone for good.
    ///
    /// It may block for as long as the engine is in use.
    fn with_engine<T: Send + 'static>(
        &self,
        act: impl FnOnce(Tick, &mut Engine) -> T + Send + 'static,
    ) -> Option<T>;
}

impl<F: FaultFile + 'static> WithEngine for PumpHandle<F> {
    fn with_engine<T: Send + 'static>(
        &self,
        act: impl FnOnce(Tick, &mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        self.exclusive(|pump| pump.with_engine(act)).ok()
    }
}

/// What a [`ForwardServer`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardCounts {
    /// Clients that connected.
    pub clients: u64,
    /// Clients that broke the protocol or did not take their answers, and were dropped for it.
    pub dropped: u64,
    /// Groups answered INVALID because the client that had read them was gone.
    pub abandoned: u64,
    /// Groups refused because they have more than [`MAX_PAGES`] pages.
    pub too_large: u64,
}

#[derive(Debug)]
struct State {
    forward: Forward,
    /// Of the client that is connected.
    ready: Option<Ready>,
    counts: ForwardCounts,
    /// The server is gone: nobody will read.
    over: bool,
}

impl State {
    /// Shows the client whether there is something to read.
    fn show(&mut self, engine: &Engine) {
        if let Some(ready) = &mut self.ready {
            ready.show(self.forward.is_readable(engine));
        }
    }
}

/// What the resolver and the thread of the server share. The engine is taken before it, never after.
#[derive(Clone, Debug)]
struct Queue(Arc<Mutex<State>>);

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Queues groups for the client of a [`ForwardServer`]. Unrecoverable faults are logged: the
/// descriptor carries none.
///
/// A group of more than [`MAX_PAGES`] pages is refused: it would not fit into a message. So is every
/// group once the server is dropped.
#[derive(Clone, Debug)]
pub struct ForwardResolver(Queue);

impl Resolver for ForwardResolver {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        let mut state = self.0.state();
        if state.over {
            return Decision::Refuse;
        }
        if group.pages as usize > MAX_PAGES {
            state.counts.too_large += 1;
            return Decision::Refuse;
        }
        let decision = state.forward.group(group, pages);
        if let Some(ready) = &mut state.ready {
            ready.show(true);
        }
        decision
    }

    fn stray(&mut self, stray: &Stray) -> Verdict {
        self.0.state().forward.stray(stray)
    }
}

/// There is no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ServeError {
    /// The socket. `EADDRINUSE`: something has that path; `EINVAL`: the path is too long.
    #[error("no socket: {0}")]
    Socket(Errno),
    /// An event descriptor or the thread.
    #[error("no thread: {0}")]
    Thread(Errno),
}

/// Serves groups to another process, on a thread of its own.
///
/// The engine must play by a policy with the stricter rules ([`Policy::default`]): it answers what
/// the client leaves lying, at the deadline, and cookies are not used twice. So the client may be
/// anybody's; whoever can connect decides about the faults, and about nothing else.
///
/// Dropping it removes the socket and has the thread end: that drops the client and answers INVALID
/// what the client had read. It does not wait for that.
#[derive(Debug)]
pub struct ForwardServer {
    queue: Queue,
    path: PathBuf,
    ended: Arc<OwnedFd>,
}

impl ForwardServer {
    /// Serves at `path`, which must be free, what the resolver is given; with the resolver.
    ///
    /// Who may connect is who may write to `path`: its directory should be the owner's alone.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn serve(
        path: &Path,
        engine: impl WithEngine,
    ) -> Result<(Self, ForwardResolver), ServeError> {
        let ended = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(ServeError::Thread)?;
        // Last of what may fail without a server that removes it.
        let listener = listen(path).map_err(ServeError::Socket)?;
        let queue = Queue(Arc::new(Mutex::new(State {
            forward: Forward::new(&Policy::default()),
            ready: None,
            counts: ForwardCounts::default(),
            over: false,
        })));
        let ended = Arc::new(ended);
        let server = Self {
            queue: queue.clone(),
            path: path.to_owned(),
            ended: ended.clone(),
        };
        let resolver = ForwardResolver(queue.clone());
        std::thread::Builder::new()
            .name("forward".to_owned())
            .spawn(move || serve::run(&queue, &engine, &listener, &ended))
            .map_err(|e| ServeError::Thread(Errno::from_io_error(&e).unwrap_or(Errno::AGAIN)))?;
        Ok((server, resolver))
    }

    /// What was seen so far.
    #[must_use]
    pub fn counts(&self) -> ForwardCounts {
        self.queue.state().counts
    }

    /// Groups that the client has not read, and groups that it has read and not answered; among
    /// them may be some that the engine gave up.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        self.queue.state().forward.held()
    }
}

impl Drop for ForwardServer {
    fn drop(&mut self) {
        self.queue.state().over = true;
        // It can only be full, and then it is readable.
        let _ = rustix::io::write(&self.ended, &1u64.to_ne_bytes());
        // Somebody may have removed it before.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A socket at `path` that takes connections.
fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 4)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
