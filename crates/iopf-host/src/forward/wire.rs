//! The messages: little-endian, a header each, at most [`MAX_MESSAGE`] bytes.
//!
//! | message | from | bytes |
//! |---|---|---|
//! | greeting | server | [`Greeting`], with one descriptor |
//! | read | client | [`Header`]: READ, the size of the buffer |
//! | write | client | [`Header`]: WRITE, the size of the answers; the answers |
//! | reply | server | [`Header`]: the request's kind, what it returned; after a read, the records |

use iopf::resolve::{ANSWER, RECORD};
use zerocopy::byteorder::little_endian::{I32, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Pages of the largest group that is forwarded: what a message holds.
pub const MAX_PAGES: usize = 3276;

/// Bytes of the records in one message.
pub(super) const MAX_READ: usize = MAX_PAGES * RECORD;
/// Bytes of the answers in one message.
pub(super) const MAX_WRITE: usize = 4096 * ANSWER;
/// Bytes of the largest message. A socket's default buffer is 208 KiB.
pub(super) const MAX_MESSAGE: usize = size_of::<Header>() + MAX_READ;
/// Bytes of the largest message of a client.
pub(super) const MAX_REQUEST: usize = size_of::<Header>() + MAX_WRITE;

/// "IOPF", and the version.
pub(super) const MAGIC: [u8; 8] = *b"IOPF\x01\0\0\0";

/// What the server says first. It comes with one descriptor: readable while there is
/// something to read.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Greeting {
    pub(super) magic: [u8; 8],
}

/// Kinds of request.
pub(super) const READ: u32 = 1;
pub(super) const WRITE: u32 = 2;

/// What a message begins with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    /// [`READ`] or [`WRITE`].
    pub(super) kind: U32,
    /// Of a request: bytes. Of a reply: bytes, or below 0 an error number of Linux.
    pub(super) value: I32,
}

const _: () = assert!(size_of::<Header>() == 8 && size_of::<Greeting>() == 8);

impl Header {
    /// A request or reply about so many bytes.
    pub(super) fn bytes(kind: u32, bytes: usize) -> Self {
        Self {
            kind: U32::new(kind),
            value: I32::new(i32::try_from(bytes).unwrap_or(i32::MAX)),
        }
    }

    /// The reply that something failed.
    pub(super) fn error(kind: u32, errno: i32) -> Self {
        Self {
            kind: U32::new(kind),
            value: I32::new(-errno),
        }
    }
}
