//! The kernel's objects: devices on page tables that map nothing, with a fault queue.

use super::missing::{self, Facts};
use super::plan::{Plan, Window};
use crate::exit::Stop;
use iopf::Pasid;
use iopf::engine::DeviceId;
use iopf_host::{
    Device as _, FaultFd, FaultQueueObject, Hwpt, HwptFlags, Ioas, Iommufd, Refused, VfioDevice,
};
use std::sync::Arc;

/// A device and the tables made for it.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) name: String,
    // In this order: the device is closed before its tables are let go of.
    device: VfioDevice,
    tables: Hwpt,
    pasid: Option<Pasid>,
}

impl Attached {
    pub(super) fn id(&self) -> DeviceId {
        self.device.id()
    }

    pub(super) fn tables(&self) -> u32 {
        self.tables.id()
    }

    /// Puts the device itself on its tables, so that page requests come.
    pub(super) fn attach(&self) -> Result<(), String> {
        let done = self.device.attach(None, &self.tables);
        done.map_err(|refused| missing::refusal(&self.name, &refused))
    }

    /// Puts its PASID on them as well, if there is to be one.
    pub(super) fn attach_pasid(&self, pasid: Pasid) -> Result<(), String> {
        let done = self.device.attach(Some(pasid), &self.tables);
        done.map_err(|refused| missing::refusal(&self.name, &refused))
    }

    /// Lets it do DMA. vfio-pci takes the right away when it opens a device.
    pub(super) fn start(&self) -> Result<(), String> {
        let done = self.device.set_bus_master(true);
        done.map_err(|error| format!("{}: {error}", self.name))
    }

    /// Stops its DMA and takes it off its tables.
    pub(super) fn detach(&self) -> Result<(), Refused> {
        // A device that is gone does none.
        let _ = self.device.set_bus_master(false);
        if let Some(pasid) = self.pasid {
            self.device.detach(Some(pasid))?;
        }
        self.device.detach(None)
    }
}

/// Everything that was made, before anything is attached.
pub(super) struct Made {
    pub(super) devices: Vec<Attached>,
    pub(super) ioas: Arc<Ioas>,
    pub(super) faults: FaultFd,
}

/// Opens the devices and makes their tables.
///
/// # Errors
/// What is missing, as a sentence.
pub(super) fn make(plan: &Plan) -> Result<Made, Stop> {
    let facts = Facts::here();
    let iommufd = Iommufd::open().map_err(|error| Stop::host(missing::iommufd(&error, &facts)))?;
    let ioas = Arc::new(Ioas::new(&iommufd).map_err(Stop::host)?);
    let (queue, faults) = FaultQueueObject::new(&iommufd).map_err(Stop::host)?;
    let flags = match plan.pasid {
        Some(_) => HwptFlags::PASID,
        None => HwptFlags::empty(),
    };
    let mut devices = Vec::new();
    for name in &plan.devices {
        let device = VfioDevice::open_pci(name, &iommufd)
            .map_err(|error| Stop::host(missing::device(name, &error, &facts)))?;
        if let Some(pasid) = plan.pasid {
            let info = iommufd.hw_info(device.id()).map_err(Stop::host)?;
            // The kernel takes the attachment of a PASID to a device without, and does nothing.
            if u64::from(pasid.get()) >> info.pasid_bits != 0 {
                return Err(Stop::host(format_args!(
                    "{name}: PASID {}: the device and its IOMMU have {} bits of PASID",
                    pasid.get(),
                    info.pasid_bits
                )));
            }
        }
        let tables = Hwpt::paging(&ioas, device.id(), flags, Some(&queue))
            .map_err(|refused| Stop::host(missing::refusal(name, &refused)))?;
        devices.push(Attached {
            name: name.clone(),
            device,
            tables,
            pasid: plan.pasid,
        });
    }
    Ok(Made {
        devices,
        ioas,
        faults,
    })
}

/// Whether devices that are attached can have these addresses at all.
///
/// # Errors
/// A sentence with the addresses that they can have.
pub(super) fn check(ioas: &Ioas, window: &Window) -> Result<(), Stop> {
    let all = ioas.iova_ranges().map_err(Stop::host)?;
    let (first, last) = (window.start.0, window.start.0 + (window.len - 1));
    if all
        .ranges
        .iter()
        .any(|(from, to)| from.0 <= first && last <= to.0)
    {
        return Ok(());
    }
    let ranges = all
        .ranges
        .iter()
        .map(|(from, to)| format!("{:#x} to {:#x}", from.0, to.0));
    Err(Stop::host(format_args!(
        "--iova and --memory: {first:#x} to {last:#x} is not free; these devices can have {}",
        ranges.collect::<Vec<_>>().join(", ")
    )))
}
