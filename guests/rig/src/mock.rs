//! A mock device of the kernel's, on page tables with a fault queue.

use crate::Outcome;
use iopf::{Iova, Pasid};
use iopf_host::selftest::{MockDevice, Tables};
use iopf_host::{FaultFd, FaultQueueObject, Hwpt, HwptFlags, Ioas, Iommufd};
use std::os::fd::{AsFd as _, OwnedFd};

/// `enum iommu_hwpt_pgfault_perm`: read and write.
const READ_WRITE: u32 = 3;

/// The device and what it stands on.
#[derive(Debug)]
pub(crate) struct Mock {
    pub(crate) device: MockDevice,
    groups: u32,
}

impl Mock {
    /// A device whose page requests come out of the file.
    pub(crate) fn new() -> Outcome<(Self, FaultFd)> {
        let iommufd = Iommufd::open()?;
        let ioas = Ioas::new(&iommufd)?;
        let device = MockDevice::new(&ioas)?;
        let (queue, file) = FaultQueueObject::new(&iommufd)?;
        let id = iopf_host::Device::id(&device);
        let tables = Hwpt::paging(&ioas, id, HwptFlags::empty(), Some(&queue))?;
        device.replace(Tables::Hwpt(&tables))?;
        Ok((Self { device, groups: 0 }, file))
    }

    /// Has the device ask for one page, in a group of its own.
    pub(crate) fn ask(&mut self) -> Outcome<()> {
        self.groups = (self.groups + 1) % 512;
        let at = Iova(0x1000 * u64::from(self.groups));
        let none: Option<Pasid> = None;
        Ok(self
            .device
            .trigger_page_request(none, self.groups, READ_WRITE, at)?)
    }
}

/// The same open file under another number.
pub(crate) fn again(file: &FaultFd) -> Outcome<OwnedFd> {
    Ok(file.as_fd().try_clone_to_owned()?)
}
