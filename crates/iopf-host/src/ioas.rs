//! I/O address spaces: what stage 2 is made from.

use crate::iommufd::{Hold, Iommufd, Object};
use crate::request::{Refused, Request};
use crate::sys::{self, Mapping};
use bitflags::bitflags;
use iommufd_bindings as iommu;
use iopf::Iova;
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::{Arc, Mutex, PoisonError};

bitflags! {
    /// What devices may do with mapped memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u32 {
        /// Write it.
        const WRITE = iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE;
        /// Read it.
        const READ = iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE;
    }
}

/// Memory of this process, by the address that devices have for it.
type Mapped = Mutex<BTreeMap<u64, Arc<Mapping>>>;

/// An I/O address space.
///
/// It keeps what is mapped into it: page tables that are made later pin memory by its address in
/// this process, so that none may be put to another use meanwhile.
#[derive(Debug)]
pub struct Ioas {
    object: Arc<Object>,
    mapped: Arc<Mapped>,
}

/// What addresses an I/O address space can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IovaRanges {
    /// First and last address of each range, in bytes, in order.
    pub ranges: Vec<(Iova, Iova)>,
    /// What start and length of a mapping must be a multiple of, in bytes.
    pub alignment: u64,
}

impl Ioas {
    /// An empty one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(iommufd: &Iommufd) -> Result<Self, Refused> {
        let mut block = iommu::iommu_ioas_alloc::default();
        sys::call(iommufd, &mut block)?;
        let mapped = Arc::new(Mapped::default());
        let holds = vec![Hold::from(mapped.clone())];
        Ok(Self {
            object: Object::new(iommufd, block.out_ioas_id, holds),
            mapped,
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.object.id()
    }

    /// The iommufd that it is in.
    #[must_use]
    pub fn iommufd(&self) -> &Iommufd {
        self.object.iommufd()
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// Maps all of `memory` from `at` on. Its pages are pinned as long as page tables are made from
    /// this address space, and it is kept until it is unmapped or the address space goes.
    ///
    /// # Errors
    /// The kernel's: `EEXIST` where something is mapped, `EINVAL` out of range or unaligned,
    /// `ENOMEM` at the limit of locked memory.
    pub fn map(&self, at: Iova, memory: &Arc<Mapping>, rights: Rights) -> Result<(), Refused> {
        self.map_part(at, memory, 0..memory.len() as u64, rights)
    }

    /// Maps a part of `memory`, by its bytes, from `at` on; the rest as of [`Self::map`].
    ///
    /// # Errors
    /// The kernel's, as of [`Self::map`]; `EINVAL` where the part is not inside of the memory.
    pub fn map_part(
        &self,
        at: Iova,
        memory: &Arc<Mapping>,
        part: Range<u64>,
        rights: Rights,
    ) -> Result<(), Refused> {
        // Held over the request, so that the list says what the kernel has.
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        sys::ioas_map(
            self.object.iommufd(),
            self.id(),
            at.0,
            rights.bits(),
            memory,
            part,
        )?;
        mapped.insert(at.0, memory.clone());
        Ok(())
    }

    /// Maps `len` bytes of a memfd, from byte `start` of it on, at `at`. The kernel keeps the file.
    ///
    /// # Errors
    /// The kernel's, as of [`Self::map`]; `ENOTTY` before Linux 6.13.
    pub fn map_file(
        &self,
        at: Iova,
        file: impl AsFd,
        start: u64,
        len: u64,
        rights: Rights,
    ) -> Result<(), Refused> {
        let mut block = iommu::iommu_ioas_map_file {
            flags: rights.bits() | iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA,
            ioas_id: self.id(),
            fd: file.as_fd().as_raw_fd(),
            start,
            length: len,
            iova: at.0,
            ..Default::default()
        };
        sys::call(self.object.iommufd(), &mut block)
    }

    /// Unmaps `len` bytes from `at` on; how many bytes were mapped there. Device TLBs have
    /// forgotten them when this returns. From 0, `u64::MAX` is everything.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` where nothing is mapped, or a mapping reaches out of the range. What
    /// came before that one is unmapped; its memory is kept until the address space goes.
    pub fn unmap(&self, at: Iova, len: u64) -> Result<u64, Refused> {
        let mut block = iommu::iommu_ioas_unmap {
            ioas_id: self.id(),
            iova: at.0,
            length: len,
            ..Default::default()
        };
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        sys::call(self.object.iommufd(), &mut block)?;
        // All that start here end here too, or the kernel would have refused.
        let last = at.0.saturating_add(len.saturating_sub(1));
        mapped.retain(|start, _| !(at.0..=last).contains(start));
        Ok(block.length)
    }

    /// What addresses it can have. Devices that are attached make it less.
    ///
    /// # Errors
    /// The kernel's.
    pub fn iova_ranges(&self) -> Result<IovaRanges, Refused> {
        let mut ranges = Vec::new();
        loop {
            match sys::iova_ranges(self.object.iommufd(), self.id(), &mut ranges) {
                // Now there is room, unless a device came just then.
                Err(Refused {
                    request: Request::IoasIovaRanges,
                    errno: rustix::io::Errno::MSGSIZE,
                }) => {}
                Err(other) => return Err(other),
                Ok(alignment) => {
                    let both =
                        |range: &iommu::iommu_iova_range| (Iova(range.start), Iova(range.last));
                    return Ok(IovaRanges {
                        ranges: ranges.iter().map(both).collect(),
                        alignment,
                    });
                }
            }
        }
    }
}
