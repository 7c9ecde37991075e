//! The header in front of every message, and the open codes in it.
//!
//! Spec: vfio-user, "Header" and "Commands".

use super::Limits;
use super::payload::RawHeader;
use std::fmt;

/// Bytes of a header.
pub const HEADER_SIZE: usize = 16;

const TYPE_MASK: u32 = 0xf;
const TYPE_COMMAND: u32 = 0;
const TYPE_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// What a message asks for. Any number is a value; the named ones are the ones we act on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command(pub u16);

impl Command {
    /// Version and capabilities; the first message of a connection.
    pub const VERSION: Self = Self(1);
    /// The client makes memory available.
    pub const DMA_MAP: Self = Self(2);
    /// The client takes memory away.
    pub const DMA_UNMAP: Self = Self(3);
    /// What kind of device this is.
    pub const GET_INFO: Self = Self(4);
    /// One region of the device.
    pub const GET_REGION_INFO: Self = Self(5);
    /// One kind of interrupt of the device.
    pub const GET_IRQ_INFO: Self = Self(7);
    /// Where interrupts go.
    pub const SET_IRQS: Self = Self(8);
    /// Reads a region.
    pub const REGION_READ: Self = Self(9);
    /// Writes a region.
    pub const REGION_WRITE: Self = Self(10);
    /// The server reads the client's memory.
    pub const DMA_READ: Self = Self(11);
    /// The server writes the client's memory.
    pub const DMA_WRITE: Self = Self(12);
    /// Device reset.
    pub const RESET: Self = Self(13);

    /// The specification's name, without its prefix.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::VERSION => "VERSION",
            Self::DMA_MAP => "DMA_MAP",
            Self::DMA_UNMAP => "DMA_UNMAP",
            Self::GET_INFO => "DEVICE_GET_INFO",
            Self::GET_REGION_INFO => "DEVICE_GET_REGION_INFO",
            Self::GET_IRQ_INFO => "DEVICE_GET_IRQ_INFO",
            Self::SET_IRQS => "DEVICE_SET_IRQS",
            Self::REGION_READ => "REGION_READ",
            Self::REGION_WRITE => "REGION_WRITE",
            Self::DMA_READ => "DMA_READ",
            Self::DMA_WRITE => "DMA_WRITE",
            Self::RESET => "DEVICE_RESET",
            _ => return None,
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {}", self.0),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An error number as Linux defines it, in a reply. Any number is a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub u32);

impl Errno {
    /// Not permitted.
    pub const EPERM: Self = Self(1);
    /// Nothing there.
    pub const ENOENT: Self = Self(2);
    /// Input or output failed.
    pub const EIO: Self = Self(5);
    /// More than was agreed on.
    pub const E2BIG: Self = Self(7);
    /// Out of memory.
    pub const ENOMEM: Self = Self(12);
    /// The descriptor does not allow it.
    pub const EACCES: Self = Self(13);
    /// In use.
    pub const EBUSY: Self = Self(16);
    /// There is something already.
    pub const EEXIST: Self = Self(17);
    /// Makes no sense.
    pub const EINVAL: Self = Self(22);
    /// No room for another one.
    pub const ENOSPC: Self = Self(28);
    /// Not something this server does.
    pub const ENOTSUP: Self = Self(95);
    /// Not answered in time.
    pub const ETIMEDOUT: Self = Self(110);

    /// The name in errno(3), for those named here.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::EPERM => "EPERM",
            Self::ENOENT => "ENOENT",
            Self::EIO => "EIO",
            Self::E2BIG => "E2BIG",
            Self::ENOMEM => "ENOMEM",
            Self::EACCES => "EACCES",
            Self::EBUSY => "EBUSY",
            Self::EEXIST => "EEXIST",
            Self::EINVAL => "EINVAL",
            Self::ENOSPC => "ENOSPC",
            Self::ENOTSUP => "ENOTSUP",
            Self::ETIMEDOUT => "ETIMEDOUT",
            _ => return None,
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a message asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A command.
    Command {
        /// The sender wants no reply, not even for an error.
        no_reply: bool,
    },
    /// A reply to the command with the same number.
    Reply {
        /// The command failed. The number is optional and may be 0.
        error: Option<Errno>,
    },
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's number for the message, echoed in the reply; need not be unique.
    pub id: u16,
    /// What is asked for, or what is answered.
    pub command: Command,
    /// Bytes of the message, this header included.
    pub size: u32,
    /// Command or reply.
    pub kind: Kind,
}

/// A header that leaves no way to go on: where the next message begins is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A message is at least its header.
    #[error("message {id} ({command}) claims {size} bytes, less than its header of 16")]
    Short {
        /// The sender's number.
        id: u16,
        /// What it asks for.
        command: Command,
        /// The size claimed.
        size: u32,
    },
    /// Longer than any message this side takes.
    #[error("message {id} ({command}) claims {size} bytes, more than the limit of {limit}")]
    Long {
        /// The sender's number.
        id: u16,
        /// What it asks for.
        command: Command,
        /// The size claimed.
        size: u32,
        /// The limit.
        limit: u32,
    },
    /// Neither command nor reply.
    #[error("message {id} ({command}) has type {kind}, neither command nor reply")]
    Type {
        /// The sender's number.
        id: u16,
        /// What it asks for.
        command: Command,
        /// The type bits.
        kind: u32,
    },
}

impl Header {
    /// A command.
    #[must_use]
    pub const fn command(id: u16, command: Command, size: u32, no_reply: bool) -> Self {
        Self {
            id,
            command,
            size,
            kind: Kind::Command { no_reply },
        }
    }

    /// A reply to `self`.
    #[must_use]
    pub const fn reply(&self, size: u32, error: Option<Errno>) -> Self {
        Self {
            id: self.id,
            command: self.command,
            size,
            kind: Kind::Reply { error },
        }
    }

    /// Reads a header and checks the size it claims against `limits`.
    ///
    /// # Errors
    /// When the stream can't be followed any further.
    pub fn decode(raw: &RawHeader, limits: &Limits) -> Result<Self, HeaderError> {
        let (id, command, size) = (raw.id.get(), Command(raw.command.get()), raw.size.get());
        if (size as usize) < HEADER_SIZE {
            return Err(HeaderError::Short { id, command, size });
        }
        let limit = limits.max_message();
        if size > limit {
            return Err(HeaderError::Long {
                id,
                command,
                size,
                limit,
            });
        }
        let flags = raw.flags.get();
        let kind = match flags & TYPE_MASK {
            TYPE_COMMAND => Kind::Command {
                no_reply: flags & NO_REPLY != 0,
            },
            TYPE_REPLY => Kind::Reply {
                error: (flags & ERROR != 0).then(|| Errno(raw.error.get())),
            },
            kind => return Err(HeaderError::Type { id, command, kind }),
        };
        Ok(Self {
            id,
            command,
            size,
            kind,
        })
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> RawHeader {
        let (flags, error) = match self.kind {
            Kind::Command { no_reply: false } => (TYPE_COMMAND, 0),
            Kind::Command { no_reply: true } => (TYPE_COMMAND | NO_REPLY, 0),
            Kind::Reply { error: None } => (TYPE_REPLY, 0),
            Kind::Reply { error: Some(errno) } => (TYPE_REPLY | ERROR, errno.0),
        };
        RawHeader {
            id: self.id.into(),
            command: self.command.0.into(),
            size: self.size.into(),
            flags: flags.into(),
            error: error.into(),
        }
    }
}
