//! The server's thread: one client after the other, one request after the other.

use super::wire::{Greeting, Header, MAGIC, MAX_READ, MAX_REQUEST, READ, WRITE};
use super::{Queue, Ready, WithEngine};
use crate::Errno;
use iopf::resolve::RECORD;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, accept_with,
    recv, send, sendmsg,
};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use zerocopy::{FromBytes, IntoBytes};

/// How a client went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// By itself.
    Closed,
    /// It broke the protocol, or does not take what it is sent.
    Dropped,
    /// The server, or the engine, is at its end.
    Ended,
}

/// Waits until `file` is readable; `false`: this is the end.
fn wait(file: impl AsFd, ended: &OwnedFd) -> bool {
    loop {
        let mut files = [
            PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
        ];
        match poll(&mut files, None) {
            Ok(_) if !files[1].revents().is_empty() => return false,
            Ok(_) if !files[0].revents().is_empty() => return true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Serves clients until the end.
pub(super) fn run(queue: &Queue, engine: &impl WithEngine, listener: &OwnedFd, ended: &OwnedFd) {
    while wait(listener, ended) {
        let client = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(client) => client,
            // It went before it was accepted.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => continue,
            // No descriptor to spare: whoever has some may give one back.
            Err(_) => {
                std::thread::sleep(std::time::Duration::from_millis(100));
                continue;
            }
        };
        let left = serve(queue, engine, &client, ended);
        let shared = queue.clone();
        let abandoned = engine.with_engine(move |now, engine| {
            let mut state = shared.state();
            state.ready = None;
            state.counts.dropped += u64::from(left == Left::Dropped);
            let abandoned = state.forward.abandoned(now, engine) as u64;
            state.counts.abandoned += abandoned;
        });
        if left == Left::Ended || abandoned.is_none() {
            return;
        }
    }
}

/// Serves one client.
fn serve(queue: &Queue, engine: &impl WithEngine, client: &OwnedFd, ended: &OwnedFd) -> Left {
    queue.state().counts.clients += 1;
    let Ok(ready) = Ready::new() else {
        return Left::Dropped;
    };
    let Ok(theirs) = ready.theirs().try_clone_to_owned() else {
        return Left::Dropped;
    };
    let shared = queue.clone();
    let shown = engine.with_engine(move |_, engine| {
        let mut state = shared.state();
        state.ready = Some(ready);
        state.show(engine);
    });
    if shown.is_none() {
        return Left::Ended;
    }
    // Now it shows what there is.
    if greet(client, &theirs).is_err() {
        return Left::Dropped;
    }
    drop(theirs);
    let mut request = vec![0; MAX_REQUEST];
    while wait(client, ended) {
        // The true length comes back, so that a longer message shows.
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let len = match recv(client, &mut request[..], flags) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Left::Closed,
            Ok((_, len)) => len,
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(_) => return Left::Dropped,
        };
        let reply = match request
            .get(..len)
            .map(|message| answer(queue, engine, message))
        {
            Some(Said::Reply(reply)) => reply,
            Some(Said::Nonsense) | None => return Left::Dropped,
            Some(Said::Ended) => return Left::Ended,
        };
        // A client that has one request under way has room for the reply.
        match send(client, &reply, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Left::Closed,
            Err(_) => return Left::Dropped,
        }
    }
    Left::Ended
}

pub(super) fn greet(client: &OwnedFd, ready: &OwnedFd) -> Result<(), Errno> {
    let files = [ready.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // There is room for one.
    control.push(SendAncillaryMessage::ScmRights(&files));
    let greeting = Greeting { magic: MAGIC };
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let parts = [IoSlice::new(greeting.as_bytes())];
    sendmsg(client, &parts, &mut control, flags).map(|_| ())
}

/// What there is to say to a message.
enum Said {
    Reply(Vec<u8>),
    Nonsense,
    /// The engine is gone.
    Ended,
}

fn answer(queue: &Queue, engine: &impl WithEngine, message: &[u8]) -> Said {
    let Ok((header, rest)) = Header::read_from_prefix(message) else {
        return Said::Nonsense;
    };
    let Ok(bytes) = usize::try_from(header.value.get()) else {
        return Said::Nonsense;
    };
    let reply = match header.kind.get() {
        READ if rest.is_empty() => read(queue, engine, bytes),
        WRITE if rest.len() == bytes => write(queue, engine, rest),
        _ => return Said::Nonsense,
    };
    reply.map_or(Said::Ended, Said::Reply)
}

/// Reads for a buffer of so many bytes.
fn read(queue: &Queue, engine: &impl WithEngine, bytes: usize) -> Option<Vec<u8>> {
    // A size that is wrong stays wrong.
    let count = if bytes.is_multiple_of(RECORD) {
        bytes.min(MAX_READ)
    } else {
        bytes
    };
    let shared = queue.clone();
    engine.with_engine(move |_, engine| {
        let mut state = shared.state();
        let mut reply = Header::bytes(READ, 0).as_bytes().to_vec();
        let read = state.forward.read(engine, count, |_, record| {
            reply.extend(record);
            Ok(())
        });
        let header = match read {
            Ok(bytes) => Header::bytes(READ, bytes),
            Err(error) => Header::error(READ, error.errno()),
        };
        state.show(engine);
        reply.splice(..size_of::<Header>(), header.as_bytes().iter().copied());
        reply
    })
}

/// Takes answers.
fn write(queue: &Queue, engine: &impl WithEngine, answers: &[u8]) -> Option<Vec<u8>> {
    let (shared, answers) = (queue.clone(), answers.to_vec());
    engine.with_engine(move |now, engine| {
        let mut state = shared.state();
        let header = match state.forward.write_from(now, engine, &answers) {
            Ok(bytes) => Header::bytes(WRITE, bytes),
            Err(error) => Header::error(WRITE, error.errno()),
        };
        state.show(engine);
        header.as_bytes().to_vec()
    })
}
