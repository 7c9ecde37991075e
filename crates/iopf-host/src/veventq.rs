//! The events of a virtual IOMMU, as the kernel tells them: vEVENTQ.
//!
//! Each event, also one that was lost, has the next of 2^31 sequence numbers, the first of which is
//! 0. Losses show as a gap before the next event, or, where nothing came after them, as a header
//! without an event. [`Decoder`] reads the records and counts; [`Veventq`] is the file.
//!
//! Source: Linux `include/uapi/linux/iommufd.h`, `struct iommufd_vevent_header`;
//! `drivers/iommu/iommufd/eventq.c`, `iommufd_veventq_fops_read`.

mod decode;

pub use decode::{Counts, Decoder, Malformed, Record};

use crate::iommufd::Object;
use crate::request::Refused;
use crate::sys;
use crate::viommu::Viommu;
use iommufd_bindings as iommu;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

#[cfg(test)]
mod tests;

/// The kind of a queue, and how long an event of it is. The kernel does not tell the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VeventqKind {
    number: u32,
    payload: u16,
}

impl VeventqKind {
    /// Arm SMMUv3: event records of 32 bytes, with the virtual stream ID in place of the real.
    pub const SMMUV3: Self = Self::new(1, 32);
    /// Nvidia's extension of it: error maps of 16 bytes.
    pub const TEGRA241_CMDQV: Self = Self::new(2, 16);
    /// The kernel's self-test: the device's virtual ID, 4 bytes.
    pub const SELFTEST: Self = Self::new(0xbeef_beef, 4);

    /// The kind `number` of `enum iommu_veventq_type`, whose events have `payload` bytes behind
    /// their header.
    #[must_use]
    pub const fn new(number: u32, payload: u16) -> Self {
        Self { number, payload }
    }

    /// The number of the kind.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Bytes of an event behind its header.
    #[must_use]
    pub const fn payload(self) -> usize {
        self.payload as usize
    }
}

/// Why there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VeventqError {
    /// read(2) or poll(2) failed.
    #[error("reading the queue: {0}")]
    File(Errno),
    /// The next record does not fit into any buffer there should be: its kind has other events.
    #[error("a record is longer than {room} bytes")]
    TooLong {
        /// Bytes of the buffer that the kernel found too short.
        room: usize,
    },
    /// What was read makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Records that a read makes room for, at first.
const RECORDS: usize = 64;

/// How often in a row an interrupted read is made again.
const INTERRUPTED: u32 = 16;

/// Bytes that a buffer grows to.
const LONGEST: usize = 1 << 20;

/// A queue of one kind of a virtual IOMMU's events. There is one reader: each read takes `&mut`, and
/// the kernel keeps no order between two.
#[derive(Debug)]
pub struct Veventq {
    // In this order: while the descriptor is open, the kernel does not destroy the object.
    descriptor: OwnedFd,
    object: Arc<Object>,
    decoder: Decoder,
    buffer: Buffer,
}

/// What was read and is not decoded yet.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Reads where nothing is left; whether there is something now. A record that does not fit has
    /// it grow.
    fn fill(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<bool, VeventqError> {
        let mut interrupted = 0;
        while self.start == self.end {
            (self.start, self.end) = (0, 0);
            match read(&mut self.bytes) {
                Ok(0) => return Ok(false),
                Ok(len) => self.end = len.min(self.bytes.len()),
                Err(Errno::INTR) if interrupted < INTERRUPTED => interrupted += 1,
                // The only other cause of it, fewer bytes than a header, is none: see `new`.
                Err(Errno::INVAL) if self.bytes.len() < LONGEST => {
                    self.bytes.resize(2 * self.bytes.len(), 0);
                }
                Err(Errno::INVAL) => {
                    let room = self.bytes.len();
                    return Err(VeventqError::TooLong { room });
                }
                Err(errno) => return Err(VeventqError::File(errno)),
            }
        }
        Ok(true)
    }

    fn new(room: usize) -> Self {
        Self {
            bytes: vec![0; room.max(decode::HEADER)],
            start: 0,
            end: 0,
        }
    }
}

impl Veventq {
    /// A queue of `kind` that holds up to `depth` events, 1 to 2^19; those that come when it is full
    /// are lost, and counted.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` for the depth, `EEXIST` where there is one of this kind, `ENOTTY`
    /// before Linux 6.15.
    pub fn new(viommu: &Viommu, kind: VeventqKind, depth: u32) -> Result<Self, Refused> {
        let block = iommu::iommu_veventq_alloc {
            viommu_id: viommu.id(),
            type_: kind.number,
            veventq_depth: depth,
            ..Default::default()
        };
        let viommu = viommu.object();
        let (id, descriptor) = sys::veventq(viommu.iommufd(), block)?;
        Ok(Self {
            descriptor,
            object: Object::new(viommu.iommufd(), id, vec![viommu.hold()]),
            decoder: Decoder::new(kind),
            buffer: Buffer::new(RECORDS * (decode::HEADER + kind.payload())),
        })
    }

    /// Reads with so many bytes of room at first, in place of 64 records. What does not fit has the
    /// buffer grow.
    #[must_use]
    pub fn with_room(mut self, bytes: usize) -> Self {
        self.buffer = Buffer::new(bytes);
        self
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.object.id()
    }

    /// Bytes that a read has room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.buffer.bytes.len()
    }

    /// The next record, or `None` where there is none now. It never waits.
    ///
    /// # Errors
    /// [`VeventqError`]. After one of [`Malformed`], reading goes on where records start again; what
    /// was skipped is counted as lost with the next record.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, VeventqError> {
        let Self {
            descriptor,
            decoder,
            buffer,
            ..
        } = self;
        if !buffer.fill(|into| rustix::io::read(&*descriptor, into))? {
            return Ok(None);
        }
        let bytes = &buffer.bytes[buffer.start..buffer.end];
        let mut rest = bytes;
        let record = decoder.decode(&mut rest);
        buffer.start += bytes.len() - rest.len();
        Ok(record.transpose()?)
    }

    /// Waits until there is a record; false where none came within `patience`, which is without end
    /// where it is `None`.
    ///
    /// # Errors
    /// [`VeventqError::File`].
    pub fn wait(&self, patience: Option<Duration>) -> Result<bool, VeventqError> {
        if self.buffer.start < self.buffer.end {
            return Ok(true);
        }
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut ready = [PollFd::new(&self.descriptor, PollFlags::IN)];
        match poll(&mut ready, patience.as_ref()) {
            Ok(_) => Ok(ready[0].revents().contains(PollFlags::IN)),
            // Somebody wants to be heard: so much for patience.
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(VeventqError::File(errno)),
        }
    }

    /// What came and what did not, so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.decoder.counts()
    }
}

/// For poll(2) and its like. It is level-triggered; what was read but not yet decoded does not show,
/// so call [`Veventq::next_record`] until there is none.
impl AsFd for Veventq {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
