//! Why a command is answered with an error. The connection goes on.

use super::header::{Command, Errno};
use super::names::{IrqIndex, Region};

/// What is wrong with a command, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a command that this side serves.
    #[error("{0} is not served")]
    Unknown(Command),
    /// The payload has another length than the command's.
    #[error("{command} has {len} bytes after its header; it needs {need}")]
    Length {
        /// The command.
        command: Command,
        /// Bytes after the header.
        len: usize,
        /// Bytes that the command's own fields ask for.
        need: usize,
    },
    /// `argsz` leaves no room for the answer, or for the request itself.
    #[error("{command} has argsz {argsz}; it needs {need}")]
    ArgSize {
        /// The command.
        command: Command,
        /// The field.
        argsz: u32,
        /// The least that will do.
        need: u32,
    },
    /// Flags that are not defined, contradict each other, or are missing.
    #[error("{command} has flags {flags:#x}")]
    Flags {
        /// The command.
        command: Command,
        /// The field.
        flags: u32,
    },
    /// The wrong number of descriptors.
    #[error("{command} comes with {found} descriptors; it takes {takes}")]
    Descriptors {
        /// The command.
        command: Command,
        /// Descriptors that came.
        found: usize,
        /// Descriptors that fit the command.
        takes: usize,
    },
    /// More data than was agreed on.
    #[error("{command} moves {count} bytes; the limit is {limit}")]
    Count {
        /// The command.
        command: Command,
        /// The bytes asked for.
        count: u64,
        /// The limit.
        limit: u32,
    },
    /// No region of that number.
    #[error("there is no region {0}")]
    NoRegion(u32),
    /// The access leaves the region.
    #[error("{count} bytes at {offset:#x} leave the {size:#x} bytes of {region}")]
    OutOfRegion {
        /// The region.
        region: Region,
        /// First byte of the access.
        offset: u64,
        /// Bytes of the access.
        count: u32,
        /// Bytes of the region.
        size: u64,
    },
    /// No kind of interrupt of that number.
    #[error("there is no interrupt index {0}")]
    NoIrqIndex(u32),
    /// The vectors leave those of their kind.
    #[error("vectors {start}+{count} of {index}; it has {have}")]
    Vectors {
        /// The kind.
        index: IrqIndex,
        /// First vector.
        start: u32,
        /// Number of vectors.
        count: u32,
        /// Vectors of this kind.
        have: u32,
    },
    /// A kind of interrupt that can't be masked this way.
    #[error("{0} cannot be masked by a message")]
    NotMaskable(IrqIndex),
    /// Addresses, offsets and sizes of maps are multiples of 4096, and sizes are not 0.
    #[error(
        "{command} of {size:#x} bytes at {address:#x}, offset {offset:#x}, is not made of pages"
    )]
    Unaligned {
        /// The command.
        command: Command,
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
        /// Offset in the file.
        offset: u64,
    },
    /// The range, or its place in the file, goes beyond the last address.
    #[error("{command} of {size:#x} bytes at {address:#x}, offset {offset:#x}, wraps round")]
    Wraps {
        /// The command.
        command: Command,
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
        /// Offset in the file.
        offset: u64,
    },
    /// Another major version.
    #[error("version {major}.{minor} is proposed; this is version 0.0")]
    Version {
        /// Proposed major version.
        major: u16,
        /// Proposed minor version.
        minor: u16,
    },
    /// The version data is not the JSON it should be.
    #[error("the version data is not what it should be: {0}")]
    VersionData(&'static str),
    /// The version was agreed on already.
    #[error("VERSION comes a second time")]
    VersionAgain,
    /// Something else came before the version.
    #[error("{0} comes before VERSION")]
    VersionFirst(Command),
}

impl Refusal {
    /// The error number of the reply, as libvfio-user chooses it: `EINVAL` for what makes no sense,
    /// with numbers of their own for what is not served and for what is too much.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Unknown(_) | Self::NotMaskable(_) => Errno::ENOTSUP,
            Self::Count { .. } => Errno::E2BIG,
            _ => Errno::EINVAL,
        }
    }

    /// The connection can't go on after this.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Version { .. } | Self::VersionData(_) | Self::VersionFirst(_)
        )
    }
}
