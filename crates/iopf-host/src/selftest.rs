//! Mock devices of a kernel with CONFIG_IOMMUFD_TEST.
//!
//! They have an IOMMU of the kernel's own making with fault queues, PASIDs, nesting and virtual
//! IOMMUs, and report what they are told to. For tests.
//!
//! Source: Linux `drivers/iommu/iommufd/iommufd_test.h`, `selftest.c`.

use crate::hwpt::Hwpt;
use crate::ioas::Ioas;
use crate::iommufd::{Device, Hold, Object};
use crate::request::Refused;
use crate::sys::{self, TestCommand};
use iopf::engine::DeviceId;
use iopf::{Iova, Pasid};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const REPLACE: u32 = 10;
const MOCK_DOMAIN_FLAGS: u32 = 12;
const TRIGGER_IOPF: u32 = 15;
const TRIGGER_VEVENT: u32 = 17;
const PASID_ATTACH: u32 = 18;
const PASID_REPLACE: u32 = 19;
const PASID_DETACH: u32 = 20;

/// `MOCK_FLAGS_DEVICE_PASID`.
const WITH_PASIDS: u32 = 1 << 2;

/// What a mock device can be attached to.
#[derive(Clone, Copy, Debug)]
pub enum Tables<'a> {
    /// Page tables of the kernel's choice, without a fault queue.
    Ioas(&'a Ioas),
    /// These.
    Hwpt(&'a Hwpt),
}

impl Tables<'_> {
    fn object(&self) -> &Arc<Object> {
        match self {
            Self::Ioas(ioas) => ioas.object(),
            Self::Hwpt(hwpt) => hwpt.object(),
        }
    }
}

/// A mock device, bound and attached.
#[derive(Debug)]
pub struct MockDevice(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    // In this order: the device goes off its tables, and then these are let go of.
    object: Arc<Object>,
    device: DeviceId,
    attached: Mutex<BTreeMap<Option<Pasid>, Hold>>,
}

impl MockDevice {
    /// One that is attached to tables of the kernel's choice, and has PASIDs of 20 bits.
    ///
    /// # Errors
    /// The kernel's: `ENOTTY` without CONFIG_IOMMUFD_TEST.
    pub fn new(ioas: &Ioas) -> Result<Self, Refused> {
        let iommufd = ioas.object().iommufd();
        let mut block = TestCommand::new(MOCK_DOMAIN_FLAGS, ioas.id(), [0, 0, 0, WITH_PASIDS]);
        sys::call(iommufd, &mut block)?;
        let [standing, _, device, ..] = block.words;
        let attached = BTreeMap::from([(None, ioas.object().hold())]);
        Ok(Self(Arc::new(Bound {
            object: Object::new(iommufd, standing, Vec::new()),
            device: DeviceId(device),
            attached: Mutex::new(attached),
        })))
    }

    fn tell<const N: usize>(
        &self,
        operation: u32,
        id: u32,
        words: [u32; N],
    ) -> Result<(), Refused> {
        let mut block = TestCommand::new(operation, id, words);
        sys::call(self.0.object.iommufd(), &mut block)
    }

    /// Puts the device on other tables.
    ///
    /// # Errors
    /// The kernel's.
    pub fn replace(&self, tables: Tables<'_>) -> Result<(), Refused> {
        let mut attached = self.attached();
        let object = tables.object();
        self.tell(REPLACE, self.0.object.id(), [object.id()])?;
        attached.insert(None, object.hold());
        Ok(())
    }

    /// Puts one PASID on tables, in place of those it is on.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` where tables of the device are not made for PASIDs; `ENOMEM` every
    /// other time for PASID 1024, which is made so.
    pub fn attach_pasid(&self, pasid: Pasid, tables: Tables<'_>) -> Result<(), Refused> {
        let mut attached = self.attached();
        let operation = match attached.contains_key(&Some(pasid)) {
            true => PASID_REPLACE,
            false => PASID_ATTACH,
        };
        let object = tables.object();
        self.tell(operation, self.0.object.id(), [pasid.get(), object.id()])?;
        attached.insert(Some(pasid), object.hold());
        Ok(())
    }

    /// Takes one PASID off its tables.
    ///
    /// # Errors
    /// The kernel's.
    pub fn detach_pasid(&self, pasid: Pasid) -> Result<(), Refused> {
        let mut attached = self.attached();
        self.tell(PASID_DETACH, self.0.object.id(), [pasid.get()])?;
        attached.remove(&Some(pasid));
        Ok(())
    }

    /// Reports a page request of one page, the last of its group, with `perm` as
    /// `enum iommu_hwpt_pgfault_perm` has it. That nobody takes it is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn trigger_page_request(
        &self,
        pasid: Option<Pasid>,
        group: u32,
        perm: u32,
        addr: Iova,
    ) -> Result<(), Refused> {
        let [low, high] = halves(addr.0);
        let pasid = pasid.map_or(0, Pasid::get);
        let words = [self.0.device.0, pasid, group, perm, low, high];
        self.tell(TRIGGER_IOPF, 0, words)
    }

    /// Reports an event to the virtual IOMMU that the device has a number on.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` where the device is on no nested tables of such a virtual IOMMU or its
    /// number is 0, `EOPNOTSUPP` where there is no queue.
    pub fn trigger_event(&self) -> Result<(), Refused> {
        self.tell(TRIGGER_VEVENT, 0, [self.0.device.0])
    }

    fn attached(&self) -> std::sync::MutexGuard<'_, BTreeMap<Option<Pasid>, Hold>> {
        self.0
            .attached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for MockDevice {
    fn id(&self) -> DeviceId {
        self.0.device
    }

    fn hold(&self) -> Hold {
        self.0.clone().into()
    }
}

/// A number as two words in memory.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}
