//! One connected socket: whole messages, from any thread, with bounded patience.

use crate::codec::{
    Command, Errno, HEADER_SIZE, Limits, Reply, Request, decode_reply, encode_request,
};
use crate::inbox::{Inbox, TooManyDescriptors};
use crate::requests::{Answer, POSTED, Requests};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use std::cell::Cell;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a posted write waits for a client that does not read.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
/// How long a DMA by message waits for its replies, however many messages it takes: a device may be
/// inside a translation session all that time. QEMU itself gives up after 5 s.
const ANSWER: Duration = Duration::from_secs(2);

thread_local! {
    /// This thread serves a connection: it must not wait for a client.
    static SERVING: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as one that serves a connection, for as long as the mark lives.
pub(crate) struct ServingMark(bool);

impl ServingMark {
    pub(crate) fn new() -> Self {
        Self(SERVING.replace(true))
    }
}

impl Drop for ServingMark {
    fn drop(&mut self) {
        SERVING.set(self.0);
    }
}

/// A message that did not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The client does not read.
    Stalled,
    /// The connection is over.
    Closed,
}

/// What a read of the socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Something.
    Bytes,
    /// The client left.
    End,
    /// More descriptors than were agreed on.
    TooManyDescriptors,
    /// The socket failed.
    Failed(rustix::io::Errno),
}

/// The writing half of a connection, and the commands that wait for a reply on it.
///
/// Every message is one write under one turn, so that messages of several threads don't mix.
#[derive(Debug)]
pub(crate) struct Link {
    stream: UnixStream,
    /// Somebody is in the middle of a message.
    busy: Mutex<bool>,
    free: Condvar,
    /// The last posted write ran out of patience: the next ones don't wait.
    stalled: AtomicBool,
    closed: AtomicBool,
    transfer: AtomicU32,
    requests: Mutex<Requests>,
    answered: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole at every point where a thread could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(crate) fn new(stream: UnixStream, limits: &Limits) -> Self {
        Self {
            stream,
            busy: Mutex::new(false),
            free: Condvar::new(),
            stalled: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            transfer: AtomicU32::new(0),
            requests: Mutex::new(Requests::new(limits.max_pending)),
            answered: Condvar::new(),
        }
    }

    /// A read that takes longer than this fails.
    pub(crate) fn limit_reads(&self, patience: Duration) {
        // Without it a read takes as long as the client likes, and the connection still ends.
        let _ = self.stream.set_read_timeout(Some(patience));
    }

    /// Ends the connection: every thread that waits on it returns.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // It may be gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
        drop(lock(&self.busy));
        self.free.notify_all();
        drop(lock(&self.requests));
        self.answered.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What the client takes in one message, in bytes of data; until this is called it gets none.
    pub(crate) fn agree(&self, transfer: u32) {
        self.transfer.store(transfer, Ordering::Release);
    }

    /// Reads once, blocking.
    pub(crate) fn receive(&self, inbox: &mut Inbox<OwnedFd>) -> Received {
        let mut control = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut control);
        let message = loop {
            let mut space = [IoSliceMut::new(inbox.space())];
            match recvmsg(
                &self.stream,
                &mut space,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Received::End,
                Err(errno) => return Received::Failed(errno),
                Ok(message) => break message,
            }
        };
        let descriptors = control.drain().flat_map(|item| match item {
            RecvAncillaryMessage::ScmRights(list) => Some(list).into_iter().flatten(),
            _ => None.into_iter().flatten(),
        });
        if let Err(TooManyDescriptors) = inbox.filled(message.bytes, descriptors) {
            return Received::TooManyDescriptors;
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Received::TooManyDescriptors;
        }
        if message.bytes == 0 {
            return Received::End;
        }
        Received::Bytes
    }

    /// Sends a whole message, waiting as long as it takes.
    pub(crate) fn reply(&self, message: &[u8]) -> Result<(), Unsent> {
        self.send(message, None)
    }

    /// Sends a DMA_WRITE that wants no reply, waiting no longer than [`PATIENCE`] — and not at all
    /// while a client keeps not reading.
    pub(crate) fn post(&self, address: u64, data: &[u8]) -> Result<(), Unsent> {
        if self.transfer.load(Ordering::Acquire) < len(data) {
            return Err(Unsent::Closed);
        }
        let mut message = Vec::with_capacity(HEADER_SIZE + 16 + data.len());
        let request = Request::DmaWrite { address, data };
        encode_request(POSTED, true, &request, &mut message);
        lock(&self.requests).post();
        let patience = match self.stalled.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => PATIENCE,
        };
        let sent = self.send(&message, Some(patience));
        self.stalled
            .store(sent == Err(Unsent::Stalled), Ordering::Relaxed);
        sent
    }

    fn send(&self, message: &[u8], patience: Option<Duration>) -> Result<(), Unsent> {
        let mut busy = lock(&self.busy);
        if !*busy {
            // The usual case: one system call, nobody in the way.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.stream, message, flags) {
                Ok(sent) if sent == message.len() => return Ok(()),
                Ok(sent) => {
                    *busy = true;
                    drop(busy);
                    let deadline = patience.map(|patience| Instant::now() + patience);
                    return self.finish(message, sent, deadline);
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Unsent::Closed),
            }
        }
        let deadline = patience.map(|patience| Instant::now() + patience);
        while *busy {
            if self.is_closed() {
                return Err(Unsent::Closed);
            }
            busy = match left(deadline) {
                None => self.free.wait(busy).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Err(Unsent::Stalled),
                Some(left) => {
                    let waited = self.free.wait_timeout(busy, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *busy = true;
        drop(busy);
        self.finish(message, 0, deadline)
    }

    /// Sends from `sent` on; this thread has the turn.
    fn finish(
        &self,
        message: &[u8],
        mut sent: usize,
        deadline: Option<Instant>,
    ) -> Result<(), Unsent> {
        let outcome = loop {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.stream, &message[sent..], flags) {
                Ok(more) => sent += more,
                Err(rustix::io::Errno::AGAIN) => {
                    let left = left(deadline);
                    if left == Some(Duration::ZERO) {
                        break Err(Unsent::Stalled);
                    }
                    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
                    let mut ready = [PollFd::new(&self.stream, PollFlags::OUT)];
                    // Interrupted or not, the next send tells.
                    let _ = poll(&mut ready, timeout.as_ref());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break Err(Unsent::Closed),
            }
            if sent == message.len() {
                break Ok(());
            }
        };
        *lock(&self.busy) = false;
        self.free.notify_one();
        if outcome == Err(Unsent::Stalled) && sent > 0 {
            // Half a message is out: nothing after it could be understood.
            self.close();
            return Err(Unsent::Closed);
        }
        outcome
    }

    /// Hands a reply to whoever waits for it.
    pub(crate) fn answer(&self, id: u16, command: Command, result: Result<&[u8], Errno>) -> Answer {
        let answer = lock(&self.requests).answer(id, command, result);
        self.answered.notify_all();
        answer
    }

    /// One command and its reply; `None` when it failed, was not answered by `deadline`, or when this
    /// thread must not wait.
    fn ask(&self, request: &Request<'_>, deadline: Instant) -> Option<Vec<u8>> {
        if SERVING.get() {
            return None;
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return None;
        }
        let id = lock(&self.requests).issue(request.command())?;
        let mut message = Vec::new();
        encode_request(id, false, request, &mut message);
        let sent = self.send(&message, Some(patience)).is_ok();
        let mut requests = lock(&self.requests);
        loop {
            if let Some(result) = requests.take(id) {
                return result.ok();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !sent || left.is_zero() || self.is_closed() {
                break;
            }
            let waited = self.answered.wait_timeout(requests, left);
            requests = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        requests.abandon(id, sent);
        None
    }

    fn piece(&self) -> usize {
        self.transfer.load(Ordering::Acquire) as usize
    }
}

/// Memory of the client that is reached by messages only.
pub(crate) trait ByMessage: Send + Sync + std::fmt::Debug {
    /// Fills `into`; `false` if the client refused, is gone, or must not be waited for.
    fn read(&self, address: u64, into: &mut [u8]) -> bool;
    /// Stores `from`; `false` as for reads.
    fn write(&self, address: u64, from: &[u8]) -> bool;
}

impl ByMessage for Link {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let (piece, deadline) = (self.piece(), Instant::now() + ANSWER);
        piece > 0
            && into.chunks_mut(piece).enumerate().all(|(at, chunk)| {
                let address = address + (at * piece) as u64;
                let count = len(chunk);
                let answer = self.ask(&Request::DmaRead { address, count }, deadline);
                let reply = answer
                    .as_deref()
                    .map(|a| decode_reply(Command::DMA_READ, a));
                match reply {
                    Some(Ok(Reply::DmaRead { data, .. })) if data.len() == chunk.len() => {
                        chunk.copy_from_slice(data);
                        true
                    }
                    _ => false,
                }
            })
    }

    fn write(&self, address: u64, from: &[u8]) -> bool {
        let (piece, deadline) = (self.piece(), Instant::now() + ANSWER);
        piece > 0
            && from.chunks(piece).enumerate().all(|(at, data)| {
                let address = address + (at * piece) as u64;
                let request = Request::DmaWrite { address, data };
                self.ask(&request, deadline).is_some()
            })
    }
}

fn len(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

/// Time until `deadline`; `None` means for ever.
fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}
