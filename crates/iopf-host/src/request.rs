//! What the kernel is asked for, and what it says no with.

use iommufd_bindings as iommu;
use rustix::io::Errno;
use std::fmt;
use thiserror::Error;
use vfio_bindings::bindings::vfio;

#[cfg(test)]
mod tests;

/// A request to iommufd or to vfio's character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Request {
    /// An object goes.
    Destroy,
    /// An I/O address space is made.
    IoasAlloc,
    /// What addresses an I/O address space can have.
    IoasIovaRanges,
    /// Memory is mapped.
    IoasMap,
    /// A part of a memfd is mapped.
    IoasMapFile,
    /// Memory is unmapped.
    IoasUnmap,
    /// Page tables are made.
    HwptAlloc,
    /// Caches forget entries of nested page tables.
    HwptInvalidate,
    /// What the IOMMU of a device can do.
    GetHwInfo,
    /// A fault queue is made.
    FaultQueueAlloc,
    /// A virtual IOMMU is made.
    ViommuAlloc,
    /// A device gets a number on a virtual IOMMU.
    VdeviceAlloc,
    /// A queue of a virtual IOMMU's events is made.
    VeventqAlloc,
    /// One of the operations of the kernel's self-test.
    TestCommand,
    /// A device is bound to an iommufd.
    BindIommufd,
    /// A device, or one PASID of it, is put on page tables.
    AttachIommufdPt,
    /// A device, or one PASID of it, is taken off its page tables.
    DetachIommufdPt,
    /// Where a region of a device is.
    GetRegionInfo,
    /// A device is reset.
    DeviceReset,
}

impl Request {
    /// Its number below the type, which is `;` for both interfaces.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Destroy => iommu::IOMMUFD_CMD_DESTROY,
            Self::IoasAlloc => iommu::IOMMUFD_CMD_IOAS_ALLOC,
            Self::IoasIovaRanges => iommu::IOMMUFD_CMD_IOAS_IOVA_RANGES,
            Self::IoasMap => iommu::IOMMUFD_CMD_IOAS_MAP,
            Self::IoasMapFile => iommu::IOMMUFD_CMD_IOAS_MAP_FILE,
            Self::IoasUnmap => iommu::IOMMUFD_CMD_IOAS_UNMAP,
            Self::HwptAlloc => iommu::IOMMUFD_CMD_HWPT_ALLOC,
            Self::HwptInvalidate => iommu::IOMMUFD_CMD_HWPT_INVALIDATE,
            Self::GetHwInfo => iommu::IOMMUFD_CMD_GET_HW_INFO,
            Self::FaultQueueAlloc => iommu::IOMMUFD_CMD_FAULT_QUEUE_ALLOC,
            Self::ViommuAlloc => iommu::IOMMUFD_CMD_VIOMMU_ALLOC,
            Self::VdeviceAlloc => iommu::IOMMUFD_CMD_VDEVICE_ALLOC,
            Self::VeventqAlloc => iommu::IOMMUFD_CMD_VEVENTQ_ALLOC,
            // drivers/iommu/iommufd/iommufd_test.h
            Self::TestCommand => iommu::IOMMUFD_CMD_BASE + 32,
            Self::GetRegionInfo => vfio::VFIO_BASE + 8,
            Self::DeviceReset => vfio::VFIO_BASE + 11,
            Self::BindIommufd => vfio::VFIO_BASE + 18,
            Self::AttachIommufdPt => vfio::VFIO_BASE + 19,
            Self::DetachIommufdPt => vfio::VFIO_BASE + 20,
        }
    }

    /// Its name in the kernel's headers, less the prefix.
    const fn name(self) -> &'static str {
        match self {
            Self::Destroy => "IOMMU_DESTROY",
            Self::IoasAlloc => "IOMMU_IOAS_ALLOC",
            Self::IoasIovaRanges => "IOMMU_IOAS_IOVA_RANGES",
            Self::IoasMap => "IOMMU_IOAS_MAP",
            Self::IoasMapFile => "IOMMU_IOAS_MAP_FILE",
            Self::IoasUnmap => "IOMMU_IOAS_UNMAP",
            Self::HwptAlloc => "IOMMU_HWPT_ALLOC",
            Self::HwptInvalidate => "IOMMU_HWPT_INVALIDATE",
            Self::GetHwInfo => "IOMMU_GET_HW_INFO",
            Self::FaultQueueAlloc => "IOMMU_FAULT_QUEUE_ALLOC",
            Self::ViommuAlloc => "IOMMU_VIOMMU_ALLOC",
            Self::VdeviceAlloc => "IOMMU_VDEVICE_ALLOC",
            Self::VeventqAlloc => "IOMMU_VEVENTQ_ALLOC",
            Self::TestCommand => "IOMMU_TEST_CMD",
            Self::BindIommufd => "VFIO_DEVICE_BIND_IOMMUFD",
            Self::AttachIommufdPt => "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
            Self::DetachIommufdPt => "VFIO_DEVICE_DETACH_IOMMUFD_PT",
            Self::GetRegionInfo => "VFIO_DEVICE_GET_REGION_INFO",
            Self::DeviceReset => "VFIO_DEVICE_RESET",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kernel said no to a request. Nothing has changed, unless the call that gives it says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{request}: {errno}{}", Advice(self.advice()))]
pub struct Refused {
    /// What was asked for.
    pub request: Request,
    /// The kernel's answer.
    pub errno: Errno,
}

/// What can be done about it, behind a colon.
struct Advice(Option<&'static str>);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

impl Refused {
    /// What it most likely means and what to do about it, where the request and the number say so.
    ///
    /// Source: Linux 7.3.4, `drivers/iommu/iommufd/{main,eventq,viommu,hw_pagetable,device}.c` and
    /// `drivers/vfio/`.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        Some(match (self.request, self.errno) {
            (_, Errno::MFILE) => "this process has too many files open: raise RLIMIT_NOFILE",
            (_, Errno::NFILE) => "this machine has too many files open: raise fs.file-max",
            (Request::VeventqAlloc, Errno::NOTTY) => {
                "this kernel has no vEVENTQ: it came with Linux 6.15"
            }
            (Request::ViommuAlloc | Request::VdeviceAlloc, Errno::NOTTY) => {
                "this kernel has no virtual IOMMUs in iommufd: they came with Linux 6.13"
            }
            (Request::FaultQueueAlloc, Errno::NOTTY) => {
                "this kernel has no fault queues in iommufd: they came with Linux 6.11"
            }
            (Request::TestCommand, Errno::NOTTY) => "this kernel has no CONFIG_IOMMUFD_TEST",
            (_, Errno::NOTTY) => "this kernel, or this file, does not know the request",
            (Request::ViommuAlloc, Errno::OPNOTSUPP) => {
                "the IOMMU of this device has no virtual IOMMU of this type"
            }
            (Request::ViommuAlloc, Errno::INVAL) => {
                "it stands on page tables that are a nest parent"
            }
            (Request::VeventqAlloc, Errno::EXIST) => "this virtual IOMMU has a queue of this type",
            (Request::VeventqAlloc, Errno::INVAL) => "the depth is 1 to 524288",
            (Request::VdeviceAlloc, Errno::EXIST) => {
                "the device has a number, or another device has this one"
            }
            (Request::HwptAlloc, Errno::OPNOTSUPP) => {
                "the IOMMU of this device has no such page tables; a nest parent cannot have a fault queue"
            }
            (Request::AttachIommufdPt, Errno::NODEV) => {
                "tables with a fault queue need PRI, and the device or its IOMMU has none"
            }
            (Request::BindIommufd, Errno::INVAL) => {
                "a device is opened once, and its DMA must be coherent with caches"
            }
            (Request::BindIommufd, Errno::BUSY) => {
                "it, or a device of its IOMMU group, is in use by a driver or by a group of vfio"
            }
            (Request::BindIommufd, Errno::PERM) => {
                "without interrupt remapping, iommufd.allow_unsafe_interrupts=1 is needed"
            }
            (Request::IoasMap | Request::IoasMapFile, Errno::NOMEM) => {
                "pages are pinned: raise RLIMIT_MEMLOCK"
            }
            (Request::IoasMap | Request::IoasMapFile, Errno::EXIST) => {
                "something is mapped at this address"
            }
            (Request::IoasUnmap, Errno::NOENT) => {
                "a part of a mapping cannot be unmapped, and nothing is mapped elsewhere"
            }
            (Request::Destroy, Errno::BUSY) => "something still stands on the object",
            _ => return None,
        })
    }
}
