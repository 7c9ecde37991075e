//! A PCI function through vfio's character device.
//!
//! Source: Linux `include/uapi/linux/vfio.h`.

use super::objects::{Hwpt, Iommufd};
use crate::reply::{Context as _, Done, Failure};
use crate::sys::{self, Mapping};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use vfio_bindings::bindings::vfio;

/// The COMMAND register and its Bus Master bit: Linux include/uapi/linux/pci_regs.h.
const COMMAND: u64 = 4;
const BUS_MASTER: u16 = 1 << 2;

/// A function that is bound to an iommufd. Closing it takes it off every table.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    id: u32,
}

impl Device {
    /// Opens the function in the folder `sysfs`, whose driver is vfio-pci, binds it, and lets it do
    /// DMA.
    pub(super) fn open(sysfs: &Path, iommufd: &Iommufd) -> Result<Self, Failure> {
        let folder = sysfs.join("vfio-dev");
        let mut names = fs::read_dir(&folder).context(folder.display())?;
        let name = names.next().transpose()?.map(|entry| entry.file_name());
        let name = name.ok_or_else(|| Failure::new("vfio has no device of it"))?;
        let path = Path::new("/dev/vfio/devices").join(name);
        let file = File::options().read(true).write(true).open(&path);
        let file = file.context(path.display())?;
        let mut block = vfio::vfio_device_bind_iommufd {
            iommufd: iommufd.as_fd().as_raw_fd(),
            ..Default::default()
        };
        sys::call(&file, &mut block).context("BIND_IOMMUFD")?;
        let device = Self {
            file,
            id: block.out_devid,
        };
        // vfio-pci clears it when the device is opened.
        let config = device.region(vfio::VFIO_PCI_CONFIG_REGION_INDEX)?.offset + COMMAND;
        let mut word = [0; 2];
        device.file.read_exact_at(&mut word, config)?;
        let on = u16::from_le_bytes(word) | BUS_MASTER;
        device.file.write_all_at(&on.to_le_bytes(), config)?;
        Ok(device)
    }

    /// Its number in the iommufd.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    fn region(&self, index: u32) -> Result<vfio::vfio_region_info, Failure> {
        let mut block = vfio::vfio_region_info {
            index,
            ..Default::default()
        };
        sys::call(&self.file, &mut block).context("GET_REGION_INFO")?;
        Ok(block)
    }

    /// Maps `len` bytes of BAR 0 from `offset` on.
    pub(super) fn map(&self, offset: u64, len: usize) -> Result<Mapping, Failure> {
        let region = self.region(vfio::VFIO_PCI_BAR0_REGION_INDEX)?;
        if len as u64 + offset > region.size {
            return Err(Failure::new(format!(
                "BAR 0 has {:#x} bytes only",
                region.size
            )));
        }
        Mapping::new(&self.file, region.offset + offset, len).context("mapping BAR 0")
    }

    /// Resets the function.
    pub(super) fn reset(&self) -> Done {
        sys::reset(&self.file).context("DEVICE_RESET")
    }

    /// Puts the device, or one PASID of it, on these tables, in place of those it is on.
    pub(super) fn attach(&self, pasid: Option<u32>, tables: &Hwpt) -> Done {
        let mut block = vfio::vfio_device_attach_iommufd_pt {
            flags: pasid.map_or(0, |_| vfio::VFIO_DEVICE_ATTACH_PASID),
            pt_id: tables.id(),
            pasid: pasid.unwrap_or(0),
            ..Default::default()
        };
        sys::call(&self.file, &mut block).context("ATTACH_IOMMUFD_PT")
    }

    /// Takes the device, or one PASID of it, off its tables.
    pub(super) fn detach(&self, pasid: Option<u32>) -> Done {
        let mut block = vfio::vfio_device_detach_iommufd_pt {
            flags: pasid.map_or(0, |_| vfio::VFIO_DEVICE_DETACH_PASID),
            pasid: pasid.unwrap_or(0),
            ..Default::default()
        };
        sys::call(&self.file, &mut block).context("DETACH_IOMMUFD_PT")
    }
}
