//! The other process's end.

use super::wire::{Greeting, Header, MAGIC, MAX_MESSAGE, MAX_READ, MAX_WRITE, READ, WRITE};
use crate::{Errno, FaultFile};
use iopf::resolve::{ANSWER, RECORD};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, recv, recvmsg, sendmsg, shutdown,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use zerocopy::{FromBytes, IntoBytes};

/// How long a reply may take: a server under load answers in its next turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// There is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The socket. `ENOENT`: there is none at that path; `ECONNREFUSED`: nobody serves it.
    #[error("no connection: {0}")]
    Socket(Errno),
    /// Whoever answers speaks another protocol, or another version of this.
    #[error("no server of page requests answers there")]
    Stranger,
    /// No greeting in time: another client may be connected.
    #[error("no greeting: another client may be connected")]
    Busy,
}

/// A connection and a buffer for a reply.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// A reply is missing or made no sense: nothing more can be said.
    broken: Option<Errno>,
}

/// A fault file that another process serves with a [`ForwardServer`](super::ForwardServer).
///
/// Reading and writing are as with the kernel's descriptor, errors included, and take one round
/// trip each. A read brings at most [`MAX_PAGES`](super::MAX_PAGES) pages, a write takes at most
/// 4,096 answers: more is a short read or a partial write. A server that is gone is `ENODEV`, one
/// that does not reply within 30 s `ETIMEDOUT`, one whose reply makes no sense `EPROTO`; from then
/// on every call fails so, and the descriptor is readable, to have that seen. Then connect again.
///
/// A read with nothing to read may follow a poll that said otherwise: the engine gave the group up in
/// between.
#[derive(Debug)]
pub struct ForwardedFile {
    ready: OwnedFd,
    line: Mutex<Line>,
}

impl ForwardedFile {
    /// Connects to the server at `path`, and waits at most `patience` for its greeting. It serves
    /// one client at a time.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ConnectError> {
        let socket = connect(path).map_err(ConnectError::Socket)?;
        match wait(&socket, patience) {
            Ok(()) => {}
            Err(Errno::TIMEDOUT) => return Err(ConnectError::Busy),
            Err(errno) => return Err(ConnectError::Socket(errno)),
        }
        let ready = greeting(&socket)?;
        Ok(Self {
            ready,
            line: Mutex::new(Line {
                socket,
                buffer: vec![0; MAX_MESSAGE],
                broken: None,
            }),
        })
    }

    /// One request and its reply: what it returned, and what `take` makes of the bytes after it.
    fn ask(
        &self,
        request: &Header,
        data: &[u8],
        take: impl FnOnce(usize, &[u8]) -> bool,
    ) -> Result<usize, Errno> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(errno) = line.broken {
            return Err(errno);
        }
        match line.round_trip(request, data, take) {
            Ok(said) => said,
            Err(errno) => {
                line.broken = Some(errno);
                // The server hears of it, and so does whoever polls. It may have been shut before.
                let _ = shutdown(&line.socket, Shutdown::Both);
                let _ = shutdown(&self.ready, Shutdown::Both);
                Err(errno)
            }
        }
    }
}

impl Line {
    /// What the server said, or the reason why nothing more can be said.
    fn round_trip(
        &mut self,
        request: &Header,
        data: &[u8],
        take: impl FnOnce(usize, &[u8]) -> bool,
    ) -> Result<Result<usize, Errno>, Errno> {
        let gone = |errno| match errno {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Errno::NODEV,
            errno => errno,
        };
        let parts = [IoSlice::new(request.as_bytes()), IoSlice::new(data)];
        let mut none = SendAncillaryBuffer::default();
        sendmsg(&self.socket, &parts, &mut none, SendFlags::NOSIGNAL).map_err(gone)?;
        wait(&self.socket, PATIENCE)?;
        let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        let (_, len) = recv(&self.socket, &mut self.buffer[..], flags).map_err(gone)?;
        if len == 0 {
            return Err(Errno::NODEV);
        }
        let message = self.buffer.get(..len).ok_or(Errno::PROTO)?;
        let (reply, rest) = Header::read_from_prefix(message).map_err(|_| Errno::PROTO)?;
        if reply.kind != request.kind {
            return Err(Errno::PROTO);
        }
        match usize::try_from(reply.value.get()) {
            Ok(bytes) if take(bytes, rest) => Ok(Ok(bytes)),
            Ok(_) => Err(Errno::PROTO),
            // Linux has error numbers up to 4,095.
            Err(_) => match reply.value.get().checked_neg() {
                Some(errno @ 1..=4095) => Ok(Err(Errno::from_raw_os_error(errno))),
                _ => Err(Errno::PROTO),
            },
        }
    }
}

impl AsFd for ForwardedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl FaultFile for ForwardedFile {
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if !buffer.len().is_multiple_of(RECORD) {
            return Err(Errno::SPIPE);
        }
        let most = buffer.len().min(MAX_READ);
        self.ask(&Header::bytes(READ, most), &[], |bytes, records| {
            let fits = bytes <= most && bytes == records.len() && bytes % RECORD == 0;
            if fits {
                buffer[..bytes].copy_from_slice(records);
            }
            fits
        })
    }

    fn write(&self, answers: &[u8]) -> Result<usize, Errno> {
        if !answers.len().is_multiple_of(ANSWER) {
            return Err(Errno::SPIPE);
        }
        let answers = &answers[..answers.len().min(MAX_WRITE)];
        self.ask(
            &Header::bytes(WRITE, answers.len()),
            answers,
            |bytes, rest| bytes <= answers.len() && bytes % ANSWER == 0 && rest.is_empty(),
        )
    }
}

fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Waits until `socket` is readable.
fn wait(socket: &OwnedFd, patience: Duration) -> Result<(), Errno> {
    let start = std::time::Instant::now();
    loop {
        // Later than a time can say is never.
        let left = Timespec::try_from(patience.saturating_sub(start.elapsed())).ok();
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Takes the greeting: the descriptor that came with it.
fn greeting(socket: &OwnedFd) -> Result<OwnedFd, ConnectError> {
    let mut bytes = [0; size_of::<Greeting>() + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let came = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    );
    let came = came.map_err(ConnectError::Socket)?;
    let mut files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect(),
        _ => Vec::new(),
    });
    let file = files.next();
    let greeting = Greeting::read_from_bytes(bytes.get(..came.bytes).unwrap_or_default());
    match (greeting, file) {
        (Ok(Greeting { magic: MAGIC }), Some(file)) => Ok(file),
        _ => Err(ConnectError::Stranger),
    }
}
