//! A descriptor that is readable while its owner says so, in the hands of somebody else.

use crate::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Two connected sockets: a byte lies in the one that is given away, or none.
///
/// An eventfd would be simpler, but whoever shares it could clear `O_NONBLOCK` or fill its count, and
/// have its owner wait. Here each call says for itself that it does not wait; the other side can
/// spoil nothing but its own view.
#[derive(Debug)]
pub(super) struct Ready {
    ours: OwnedFd,
    theirs: OwnedFd,
    shown: bool,
}

impl Ready {
    /// Not readable.
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self {
            ours,
            theirs,
            shown: false,
        })
    }

    /// What to give away.
    pub(super) fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// Makes it readable, or not.
    pub(super) fn show(&mut self, readable: bool) {
        if self.shown == readable {
            return;
        }
        self.shown = readable;
        if readable {
            // Without memory it is tried again with the next that there is to show.
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            self.shown = send(&self.ours, &[1], flags).is_ok();
        } else {
            // It fails only if the other side has taken the byte, to its own harm.
            let _ = recv(&self.theirs, &mut [0], RecvFlags::DONTWAIT);
        }
    }
}

#[cfg(test)]
mod tests;
