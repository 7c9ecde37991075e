//! The objects of iommufd, owned: each destroys in the kernel what it names.
//!
//! Source: Linux `include/uapi/linux/iommufd.h`.

use crate::reply::{Context as _, Done, Failure};
use crate::sys::{self, Mapping};
use iommufd_bindings as iommu;
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

/// Where iommufd is.
const DEVICE: &str = "/dev/iommu";

/// An open `/dev/iommu`: the name space of all objects below.
#[derive(Debug)]
pub(super) struct Iommufd(File);

impl Iommufd {
    /// Opens it.
    pub(super) fn open() -> Result<Rc<Self>, Failure> {
        let file = File::options().read(true).write(true).open(DEVICE);
        Ok(Rc::new(Self(file.context(DEVICE)?)))
    }
}

impl AsFd for Iommufd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An object that dies with its handle.
#[derive(Debug)]
struct Object {
    iommufd: Rc<Iommufd>,
    id: u32,
}

impl Drop for Object {
    fn drop(&mut self) {
        let mut block = iommu::iommu_destroy {
            id: self.id,
            ..Default::default()
        };
        // Where it fails the kernel frees the object when the last descriptor is closed.
        let _ = sys::call(&*self.iommufd, &mut block);
    }
}

/// An I/O address space: what stage 2 is made from.
#[derive(Debug)]
pub(super) struct Ioas(Object);

impl Ioas {
    /// An empty one.
    pub(super) fn new(iommufd: &Rc<Iommufd>) -> Result<Self, Failure> {
        let mut block = iommu::iommu_ioas_alloc::default();
        sys::call(&**iommufd, &mut block).context("IOAS_ALLOC")?;
        Ok(Self(Object {
            iommufd: iommufd.clone(),
            id: block.out_ioas_id,
        }))
    }

    /// Unmaps `len` bytes from `at` on.
    pub(super) fn unshare(&self, at: u64, len: u64) -> Done {
        let mut block = iommu::iommu_ioas_unmap {
            ioas_id: self.0.id,
            iova: at,
            length: len,
            ..Default::default()
        };
        sys::call(&*self.0.iommufd, &mut block).context("IOAS_UNMAP")
    }

    /// Maps `memory` from `at` on, to be read and written.
    pub(super) fn share(&self, at: u64, memory: &Mapping) -> Done {
        sys::share(&*self.0.iommufd, self.0.id, at, memory).context("IOAS_MAP")
    }
}

/// Where the page requests come out that tables could not serve.
#[derive(Debug)]
pub(super) struct FaultQueue {
    // In this order: while the descriptor is open the kernel does not destroy the object.
    pub(super) file: File,
    object: Object,
}

impl FaultQueue {
    /// An empty one.
    pub(super) fn new(iommufd: &Rc<Iommufd>) -> Result<Self, Failure> {
        let (id, descriptor) = sys::fault_queue(&**iommufd).context("FAULT_QUEUE_ALLOC")?;
        Ok(Self {
            file: descriptor.into(),
            object: Object {
                iommufd: iommufd.clone(),
                id,
            },
        })
    }
}

/// Page tables a device can be attached to, a "HWPT".
#[derive(Debug)]
pub(super) struct Hwpt(Object);

impl Hwpt {
    fn alloc(iommufd: &Rc<Iommufd>, block: iommu::iommu_hwpt_alloc) -> Result<Self, Failure> {
        // Whoever uses PASIDs says so for all tables of the device.
        let mut block = iommu::iommu_hwpt_alloc {
            flags: block.flags | iommu::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_PASID,
            ..block
        };
        sys::call(&**iommufd, &mut block).context("HWPT_ALLOC")?;
        Ok(Self(Object {
            iommufd: iommufd.clone(),
            id: block.out_hwpt_id,
        }))
    }

    /// The stage 2 that nested tables stand on.
    pub(super) fn parent(ioas: &Ioas, device: u32) -> Result<Self, Failure> {
        let block = iommu::iommu_hwpt_alloc {
            flags: iommu::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_NEST_PARENT,
            dev_id: device,
            pt_id: ioas.0.id,
            ..Default::default()
        };
        Self::alloc(&ioas.0.iommufd, block)
    }

    /// A stage 1 of four levels whose first table is at `root` of the parent's address space; page
    /// requests go to `queue`, or to nobody.
    pub(super) fn nested(
        parent: &Self,
        device: u32,
        root: u64,
        queue: Option<&FaultQueue>,
    ) -> Result<Self, Failure> {
        let data = iommu::iommu_hwpt_vtd_s1 {
            pgtbl_addr: root,
            addr_width: 48,
            ..Default::default()
        };
        let block = iommu::iommu_hwpt_alloc {
            flags: queue.map_or(0, |_| {
                iommu::iommufd_hwpt_alloc_flags_IOMMU_HWPT_FAULT_ID_VALID
            }),
            dev_id: device,
            pt_id: parent.0.id,
            data_type: iommu::iommu_hwpt_data_type_IOMMU_HWPT_DATA_VTD_S1,
            data_len: u32::try_from(size_of_val(&data)).unwrap_or_default(),
            data_uptr: sys::address_of(&data),
            fault_id: queue.map_or(0, |queue| queue.object.id),
            ..Default::default()
        };
        Self::alloc(&parent.0.iommufd, block)
    }

    /// The number of the object.
    pub(super) fn id(&self) -> u32 {
        self.0.id
    }

    /// Says that entries of a nested table have changed, for `pages` pages of 4 KiB from `at` on.
    pub(super) fn invalidate(&self, at: u64, pages: u64) -> Result<(), Errno> {
        let range = iommu::iommu_hwpt_vtd_s1_invalidate {
            addr: at,
            npages: pages,
            ..Default::default()
        };
        let mut block = iommu::iommu_hwpt_invalidate {
            hwpt_id: self.0.id,
            data_uptr: sys::address_of(&range),
            data_type: iommu::iommu_hwpt_invalidate_data_type_IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
            entry_len: u32::try_from(size_of_val(&range)).unwrap_or_default(),
            entry_num: 1,
            ..Default::default()
        };
        // Of one range the kernel does nothing or everything, and says which by its status.
        sys::call(&*self.0.iommufd, &mut block)
    }
}
