//! Devices through vfio's character device.
//!
//! Source: Linux `include/uapi/linux/vfio.h`; `Documentation/driver-api/vfio.rst`, "VFIO Device cdev
//! Example".

use crate::hwpt::Hwpt;
use crate::ioas::Ioas;
use crate::iommufd::{Device, Hold, Iommufd, Object};
use crate::request::Refused;
use crate::sys::{self, Mapping};
use bitflags::bitflags;
use iopf::Pasid;
use iopf::engine::DeviceId;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use vfio_bindings::bindings::vfio;

#[cfg(test)]
mod tests;

/// Where PCI functions are, and where vfio's devices are.
const FUNCTIONS: &str = "/sys/bus/pci/devices";
const DEVICES: &str = "/dev/vfio/devices";

/// The COMMAND register and its Bus Master bit: Linux `include/uapi/linux/pci_regs.h`.
const COMMAND: u64 = 4;
const BUS_MASTER: u16 = 1 << 2;

/// Why a device could not be had or used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VfioError {
    /// There is no such function.
    #[error("{}: no such device", path.display())]
    NoFunction {
        /// Where it would be.
        path: PathBuf,
    },
    /// The function is not vfio's.
    #[error("{}: driven by {}, not by vfio", path.display(), driver.as_deref().unwrap_or("nothing"))]
    NotVfio {
        /// Where it is.
        path: PathBuf,
        /// The name of its driver, if it has one.
        driver: Option<String>,
    },
    /// The function is vfio's, but has no character device.
    #[error("{}: vfio has no character device of it: CONFIG_VFIO_DEVICE_CDEV is off", path.display())]
    NoCdev {
        /// Where it is.
        path: PathBuf,
    },
    /// open(2) failed: `EACCES` and `EPERM` for permission, `EBUSY` where somebody has it.
    #[error("{}: {errno}", path.display())]
    Open {
        /// What was opened.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The kernel said no to a request.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The device has no such bytes.
    #[error("region {index} has {size:#x} bytes, none at {at:#x} and {len:#x} on")]
    OutsideRegion {
        /// The region.
        index: u32,
        /// Its bytes.
        size: u64,
        /// The first byte that was asked for.
        at: u64,
        /// Bytes that were asked for.
        len: u64,
    },
    /// A region could not be read, written or mapped.
    #[error("region {index}: {errno}")]
    Region {
        /// The region.
        index: u32,
        /// Why.
        errno: Errno,
    },
}

bitflags! {
    /// What can be done with a region.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct RegionFlags: u32 {
        /// Read.
        const READ = vfio::VFIO_REGION_INFO_FLAG_READ;
        /// Written.
        const WRITE = vfio::VFIO_REGION_INFO_FLAG_WRITE;
        /// Mapped.
        const MMAP = vfio::VFIO_REGION_INFO_FLAG_MMAP;
        // Later kernels say more.
        const _ = !0;
    }
}

/// A part of a device that is reached through its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its number: BAR 0 to 5, 6 the ROM, 7 the configuration space.
    pub index: u32,
    /// What can be done with it.
    pub flags: RegionFlags,
    /// Its bytes; 0 where the device has none.
    pub size: u64,
    /// Where it starts in the file, in bytes.
    pub offset: u64,
}

/// A device that is bound to an iommufd. Closing it takes it off its tables.
///
/// # Answers and attachments
///
/// [`attach`](Self::attach), [`detach`](Self::detach), a reset and closing the device have the
/// kernel answer page requests that wait, and their cookies are given out again at once. An answer
/// that was meant for one of them and is written afterwards completes a different group, with no
/// error anywhere. These calls are plain: **call them only while no answer is on its way**. Where a
/// [`Pump`](crate::Pump) runs, that is inside of [`PumpHandle::exclusive`](crate::PumpHandle::exclusive)
/// and by its [`attach`](crate::Pump::attach), [`replace`](crate::Pump::replace) and
/// [`detach`](crate::Pump::detach), which write and forget answers first; whoever writes answers
/// himself has to see to it.
#[derive(Debug)]
pub struct VfioDevice(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    // In this order: closing the device takes it off its tables, and then these are let go of.
    file: OwnedFd,
    id: DeviceId,
    attached: Mutex<BTreeMap<Option<Pasid>, Hold>>,
    _iommufd: Iommufd,
}

/// The character device of the function whose folder in sysfs this is.
fn cdev(function: &Path) -> Result<PathBuf, VfioError> {
    let path = function.to_owned();
    if !function.exists() {
        return Err(VfioError::NoFunction { path });
    }
    let link = std::fs::read_link(function.join("driver")).ok();
    let driver = link.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
    match std::fs::read_dir(function.join("vfio-dev")) {
        Ok(mut names) => match names.next() {
            Some(Ok(name)) => Ok(Path::new(DEVICES).join(name.file_name())),
            _ => Err(VfioError::NoCdev { path }),
        },
        // Drivers of vfio for one kind of device have other names, but they have the folder.
        Err(_) if driver.as_deref() == Some("vfio-pci") => Err(VfioError::NoCdev { path }),
        Err(_) => Err(VfioError::NotVfio { path, driver }),
    }
}

impl VfioDevice {
    /// Opens the PCI function of this name, `0000:00:04.0`, and binds it.
    ///
    /// # Errors
    /// [`VfioError`], which says what is missing.
    pub fn open_pci(name: &str, iommufd: &Iommufd) -> Result<Self, VfioError> {
        Self::open_function(&Path::new(FUNCTIONS).join(name), iommufd)
    }

    /// Opens the PCI function whose folder in sysfs this is, and binds it.
    ///
    /// # Errors
    /// [`VfioError`], which says what is missing.
    pub fn open_function(folder: &Path, iommufd: &Iommufd) -> Result<Self, VfioError> {
        Self::open(&cdev(folder)?, iommufd)
    }

    /// Opens a character device of vfio, `/dev/vfio/devices/vfio0`, and binds it.
    ///
    /// # Errors
    /// [`VfioError::Open`], [`VfioError::Refused`].
    pub fn open(path: &Path, iommufd: &Iommufd) -> Result<Self, VfioError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty());
        let file = file.map_err(|errno| VfioError::Open {
            path: path.to_owned(),
            errno,
        })?;
        Ok(Self::bind(file, iommufd)?)
    }

    /// Binds a device that somebody else has opened and passed on.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` where it is open elsewhere, `EBUSY` where a driver or a group of vfio
    /// has it or a device of its IOMMU group, `EPERM` where interrupts cannot be kept apart.
    pub fn bind(file: OwnedFd, iommufd: &Iommufd) -> Result<Self, Refused> {
        let mut block = vfio::vfio_device_bind_iommufd {
            iommufd: iommufd.as_fd().as_raw_fd(),
            ..Default::default()
        };
        sys::call(&file, &mut block)?;
        Ok(Self(Arc::new(Bound {
            file,
            id: DeviceId(block.out_devid),
            attached: Mutex::default(),
            _iommufd: iommufd.clone(),
        })))
    }

    fn attach_to(&self, pasid: Option<Pasid>, tables: &Arc<Object>) -> Result<(), Refused> {
        let mut block = vfio::vfio_device_attach_iommufd_pt {
            flags: pasid.map_or(0, |_| vfio::VFIO_DEVICE_ATTACH_PASID),
            pt_id: tables.id(),
            pasid: pasid.map_or(0, Pasid::get),
            ..Default::default()
        };
        // Held over the request, so that the list says what the kernel has.
        let mut attached = self.attached();
        sys::call(&self.0.file, &mut block)?;
        attached.insert(pasid, tables.hold());
        Ok(())
    }

    /// Puts the device, or one PASID of it, on these tables, in place of those it is on. All devices
    /// of its IOMMU group go with it.
    ///
    /// In place of others, this answers what waits: see [above](Self#answers-and-attachments).
    ///
    /// # Errors
    /// The kernel's: `ENODEV` where the tables have a fault queue and the device or its IOMMU has no
    /// PRI, `EINVAL` for a virtual function with PRI or for a PASID where not all tables of the
    /// device are made for PASIDs.
    pub fn attach(&self, pasid: Option<Pasid>, tables: &Hwpt) -> Result<(), Refused> {
        self.attach_to(pasid, tables.object())
    }

    /// Puts the device on tables of the kernel's choice that map what `ioas` does, without a fault
    /// queue.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach_ioas(&self, ioas: &Ioas) -> Result<(), Refused> {
        self.attach_to(None, ioas.object())
    }

    /// Takes the device, or one PASID of it, off its tables.
    ///
    /// This answers what waits: see [above](Self#answers-and-attachments).
    ///
    /// # Errors
    /// The kernel's.
    pub fn detach(&self, pasid: Option<Pasid>) -> Result<(), Refused> {
        let mut block = vfio::vfio_device_detach_iommufd_pt {
            flags: pasid.map_or(0, |_| vfio::VFIO_DEVICE_DETACH_PASID),
            pasid: pasid.map_or(0, Pasid::get),
            ..Default::default()
        };
        let mut attached = self.attached();
        sys::call(&self.0.file, &mut block)?;
        attached.remove(&pasid);
        Ok(())
    }

    fn attached(&self) -> std::sync::MutexGuard<'_, BTreeMap<Option<Pasid>, Hold>> {
        self.0
            .attached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the device. Linux answers nothing: what the device asked for stays in the queue, and
    /// the device counts its groups from 0 again, so that an answer may meet a new group.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` or `ENOTTY` where it cannot be reset.
    pub fn reset(&self) -> Result<(), Refused> {
        sys::reset(&self.0.file)
    }

    /// Where a region is.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` where there is none.
    pub fn region(&self, index: u32) -> Result<Region, Refused> {
        let mut block = vfio::vfio_region_info {
            index,
            ..Default::default()
        };
        sys::call(&self.0.file, &mut block)?;
        Ok(Region {
            index,
            flags: RegionFlags::from_bits_retain(block.flags),
            size: block.size,
            offset: block.offset,
        })
    }

    /// Maps `len` bytes of a BAR, from byte `at` on, a multiple of the page size. The device is not
    /// closed before the mapping goes.
    ///
    /// # Errors
    /// [`VfioError::OutsideRegion`], [`VfioError::Region`].
    pub fn map_bar(&self, bar: u8, at: u64, len: usize) -> Result<Mapping, VfioError> {
        let region = self.region(bar.into())?;
        let start = region.place(at, len)?;
        let mapping = Mapping::new(&self.0.file, start, len);
        let mapping = mapping.map_err(|errno| region.failed(errno))?;
        Ok(mapping.of(self.hold()))
    }

    /// Reads the configuration space from byte `at` on.
    ///
    /// # Errors
    /// [`VfioError::OutsideRegion`], [`VfioError::Region`].
    pub fn read_config(&self, at: u64, into: &mut [u8]) -> Result<(), VfioError> {
        let region = self.region(vfio::VFIO_PCI_CONFIG_REGION_INDEX)?;
        let start = region.place(at, into.len())?;
        let len = into.len();
        let came = rustix::io::pread(&self.0.file, into, start);
        region.whole(came, len)
    }

    /// Writes to the configuration space from byte `at` on. vfio keeps some of it to itself.
    ///
    /// # Errors
    /// [`VfioError::OutsideRegion`], [`VfioError::Region`].
    pub fn write_config(&self, at: u64, bytes: &[u8]) -> Result<(), VfioError> {
        let region = self.region(vfio::VFIO_PCI_CONFIG_REGION_INDEX)?;
        let start = region.place(at, bytes.len())?;
        let came = rustix::io::pwrite(&self.0.file, bytes, start);
        region.whole(came, bytes.len())
    }

    /// Lets a PCI function do DMA, or no more. vfio-pci takes the right away when it opens one.
    ///
    /// # Errors
    /// [`VfioError::Region`].
    pub fn set_bus_master(&self, on: bool) -> Result<(), VfioError> {
        let mut word = [0; 2];
        self.read_config(COMMAND, &mut word)?;
        let old = u16::from_le_bytes(word);
        let new = match on {
            true => old | BUS_MASTER,
            false => old & !BUS_MASTER,
        };
        self.write_config(COMMAND, &new.to_le_bytes())
    }
}

impl Region {
    /// Where in the file `len` bytes from byte `at` of the region on are.
    fn place(&self, at: u64, len: usize) -> Result<u64, VfioError> {
        let len = len as u64;
        let end = at.checked_add(len).filter(|end| *end <= self.size);
        end.and(self.offset.checked_add(at))
            .ok_or(VfioError::OutsideRegion {
                index: self.index,
                size: self.size,
                at,
                len,
            })
    }

    fn failed(&self, errno: Errno) -> VfioError {
        VfioError::Region {
            index: self.index,
            errno,
        }
    }

    /// What came of an access that is done as a whole or not at all.
    fn whole(&self, came: Result<usize, Errno>, len: usize) -> Result<(), VfioError> {
        match came {
            Ok(done) if done == len => Ok(()),
            Ok(_) => Err(self.failed(Errno::IO)),
            Err(errno) => Err(self.failed(errno)),
        }
    }
}

impl Device for VfioDevice {
    fn id(&self) -> DeviceId {
        self.0.id
    }

    fn hold(&self) -> Hold {
        self.0.clone().into()
    }
}

/// The character device, for what is not here: interrupts, features.
impl AsFd for VfioDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}
