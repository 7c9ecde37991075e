//! A socket for one function: clients come one after the other.

use crate::codec::{Command, Errno};
use crate::connection::{Disconnect, Function, refuse_busy, serve_link};
use crate::socket::Link;
use rustix::fs::{FileType, Stat, stat};
use std::fmt::Display;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a client waits for the one before it to be gone.
const SUCCESSION: Duration = Duration::from_secs(1);

/// What happens on a socket.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// A client is connected; the version is not agreed on yet.
    Connected {
        /// Its process; 0 where that is not known.
        process: u32,
    },
    /// The client is gone, the function reset.
    Disconnected {
        /// Why.
        why: &'a Disconnect,
    },
    /// A command was answered with an error.
    Refused {
        /// Which.
        command: Command,
        /// The error number of the reply.
        errno: Errno,
        /// What was wrong, in one line.
        why: &'a dyn Display,
    },
    /// A client came while another is connected, or another process has functions of the guest, and
    /// was turned away.
    Busy {
        /// Its process; 0 where that is not known.
        process: u32,
    },
}

impl Display for Event<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connected { process } => write!(f, "process {process} is connected"),
            Self::Disconnected { why } => write!(f, "disconnected: {why}"),
            Self::Refused {
                command,
                errno,
                why,
            } => write!(f, "{command} answered with {errno}: {why}"),
            Self::Busy { process } => {
                write!(
                    f,
                    "process {process} turned away: another client is connected"
                )
            }
        }
    }
}

impl std::fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Display::fmt(self, f)
    }
}

/// Hears what happens on a socket. Called from the socket's threads, one event at a time for a
/// connection; what it does delays the client.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Nobody listens.
impl Observer for () {
    fn event(&self, _: &Event<'_>) {}
}

/// Why a socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{path}: another server listens on this socket")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The file system or the kernel said no.
    #[error("{path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

#[derive(Debug, Default)]
struct Slot {
    /// The connection that is served.
    current: Option<Arc<Link>>,
    stopping: bool,
}

#[derive(Debug)]
struct Shared {
    function: Function,
    listener: UnixListener,
    slot: Mutex<Slot>,
    vacated: Condvar,
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one function on one Unix socket: one client at a time, the next one after it is gone.
///
/// Dropping it is [`stop`](Self::stop).
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
    /// The socket file, to remove no other.
    file: Option<(u64, u64)>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `path`. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When somebody listens there, or the socket can't be made.
    pub fn bind(path: &Path, function: Function) -> Result<Self, BindError> {
        let io = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_socket(path) => {
                match UnixStream::connect(path) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        std::fs::remove_file(path).map_err(io)?;
                        UnixListener::bind(path).map_err(io)?
                    }
                    Ok(_) => {
                        let path = path.to_owned();
                        return Err(BindError::InUse { path });
                    }
                    Err(_) => return Err(io(error)),
                }
            }
            bound => bound.map_err(io)?,
        };
        let shared = Arc::new(Shared {
            function,
            listener,
            slot: Mutex::default(),
            vacated: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("vfio-user accept".to_owned())
            .spawn(move || accept(&accepting))
            .map_err(io)?;
        Ok(Self {
            shared,
            file: identity(path),
            path: path.to_owned(),
            thread: Some(thread),
        })
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the connection and the threads, and removes the socket file.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let current = {
            let mut slot = self.shared.slot();
            slot.stopping = true;
            slot.current.clone()
        };
        self.shared.vacated.notify_all();
        if let Some(link) = current {
            link.close();
        }
        // Wakes the thread in accept(2). Nothing else can be wrong with a listening socket.
        let _ = rustix::net::shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        // A panic there was reported by its own thread.
        let _ = thread.join();
        if self.file.is_some() && identity(&self.path) == self.file {
            // Somebody may have been faster.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Connecting to a plain file is refused too, and that is no reason to remove it.
fn is_socket(path: &Path) -> bool {
    stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let Stat { st_dev, st_ino, .. } = stat(path).ok()?;
    Some((st_dev, st_ino))
}

/// The accepting thread: owns the threads of connections.
fn accept(shared: &Arc<Shared>) {
    let mut serving: Option<JoinHandle<()>> = None;
    loop {
        let accepted = shared.listener.accept();
        if shared.slot().stopping {
            break;
        }
        match accepted {
            Ok((stream, _)) => receive_client(shared, stream, &mut serving),
            // No descriptor left, or the client gave up: not for ever.
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
    if let Some(serving) = serving {
        // A panic there was reported by its own thread.
        let _ = serving.join();
    }
}

fn receive_client(shared: &Arc<Shared>, stream: UnixStream, serving: &mut Option<JoinHandle<()>>) {
    let process = process_of(&stream);
    let link = Arc::new(Link::new(stream, &shared.function.limits));
    let waited = shared
        .vacated
        .wait_timeout_while(shared.slot(), SUCCESSION, |slot| {
            slot.current.is_some() && !slot.stopping
        });
    let (mut slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
    if slot.stopping {
        return;
    }
    if slot.current.is_some() {
        drop(slot);
        refuse_busy(&link, &shared.function.limits);
        shared.function.observer.event(&Event::Busy { process });
        return;
    }
    slot.current = Some(Arc::clone(&link));
    drop(slot);
    if let Some(before) = serving.take() {
        // It has given up its place, so it is about to end.
        let _ = before.join();
    }
    let shared_there = Arc::clone(shared);
    let spawned = thread::Builder::new()
        .name("vfio-user".to_owned())
        .spawn(move || {
            let vacate = Vacate(&shared_there);
            serve_link(&link, &shared_there.function, process);
            drop(vacate);
        });
    match spawned {
        Ok(thread) => *serving = Some(thread),
        Err(_) => {
            shared.slot().current = None;
        }
    }
}

/// The process at the other end; 0 where the kernel does not say.
pub(crate) fn process_of(stream: &UnixStream) -> u32 {
    rustix::net::sockopt::socket_peercred(stream)
        .map_or(0, |peer| peer.pid.as_raw_nonzero().get().unsigned_abs())
}

/// Gives the place up, also when a function panics.
struct Vacate<'a>(&'a Shared);

impl Drop for Vacate<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.0.slot().current.take() {
            link.close();
        }
        self.0.vacated.notify_all();
    }
}
