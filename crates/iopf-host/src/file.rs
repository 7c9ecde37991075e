//! A file that hands out page requests and takes their answers.

use crate::iommufd::Hold;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Why a [`FaultFile`] did not do as asked.
pub use rustix::io::Errno;

/// A file with the read, write and poll semantics of iommufd's fault descriptor.
///
/// What is read are whole groups of `struct iommu_hwpt_pgfault` (40 bytes each); what is written
/// are `struct iommu_hwpt_page_response` (8 bytes each), one for each group, named by its cookie.
/// It never waits: nothing to read is 0 bytes. The descriptor ([`AsFd`]) is for poll(2) alone: it
/// is readable exactly while there is something to read.
///
/// Source: Linux `include/uapi/linux/iommufd.h`; `drivers/iommu/iommufd/eventq.c`,
/// `iommufd_fault_fops_read`, `_write`, `_poll`.
pub trait FaultFile: AsFd {
    /// Reads as many whole groups as fit; how many bytes they take.
    ///
    /// # Errors
    /// [`Errno::INVAL`]: the first group is larger than `buffer`. [`Errno::SPIPE`]: the length is
    /// no multiple of a record's. Others as read(2).
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// Gives answers, in order; how many bytes of them were taken. An error shows only where the
    /// first record meets it.
    ///
    /// # Errors
    /// [`Errno::INVAL`]: the first record names no group that waits, or a code that cannot be
    /// said. [`Errno::SPIPE`]: the length is no multiple of a record's. Others as write(2).
    fn write(&self, answers: &[u8]) -> Result<usize, Errno>;
}

/// The kernel's fault descriptor.
///
/// Closing it answers nothing; while it is open, so is the iommufd it belongs to.
#[derive(Debug)]
pub struct FaultFd {
    // In this order: while the descriptor is open, the kernel does not destroy the object.
    descriptor: OwnedFd,
    _object: Option<Hold>,
}

impl FaultFd {
    /// The descriptor of an object of this process.
    pub(crate) fn of_object(descriptor: OwnedFd, object: Hold) -> Self {
        Self {
            descriptor,
            _object: Some(object),
        }
    }
}

/// A descriptor whose object is somebody else's.
impl From<OwnedFd> for FaultFd {
    fn from(descriptor: OwnedFd) -> Self {
        Self {
            descriptor,
            _object: None,
        }
    }
}

impl AsFd for FaultFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl FaultFile for FaultFd {
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.descriptor, buffer)
    }

    fn write(&self, answers: &[u8]) -> Result<usize, Errno> {
        rustix::io::write(&self.descriptor, answers)
    }
}

impl<T: FaultFile + ?Sized> FaultFile for Box<T> {
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        (**self).read(buffer)
    }

    fn write(&self, answers: &[u8]) -> Result<usize, Errno> {
        (**self).write(answers)
    }
}
