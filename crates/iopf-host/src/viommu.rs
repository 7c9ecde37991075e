//! Virtual IOMMUs, and what devices are called there.

use crate::hwpt::Hwpt;
use crate::iommufd::{Device, Object};
use crate::request::Refused;
use crate::sys;
use iommufd_bindings as iommu;
use iopf::engine::DeviceId;
use std::sync::Arc;

/// The kind of a virtual IOMMU: `enum iommu_viommu_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViommuKind(pub u32);

impl ViommuKind {
    /// Arm SMMUv3.
    pub const SMMUV3: Self = Self(iommu::iommu_viommu_type_IOMMU_VIOMMU_TYPE_ARM_SMMUV3);
    /// The kernel's self-test: `drivers/iommu/iommufd/iommufd_test.h`.
    pub const SELFTEST: Self = Self(0xdead_beef);
}

/// A virtual IOMMU: the part of a physical one that a guest sees.
#[derive(Debug)]
pub struct Viommu(Arc<Object>);

impl Viommu {
    /// One on `parent`, backed by the IOMMU of `device`.
    ///
    /// # Errors
    /// The kernel's: `EOPNOTSUPP` where that IOMMU has none of this kind, `EINVAL` where `parent` is
    /// no nest parent, `ENOTTY` before Linux 6.13.
    pub fn new(parent: &Hwpt, device: DeviceId, kind: ViommuKind) -> Result<Self, Refused> {
        Self::with_data(parent, device, kind, &mut [])
    }

    /// The same with data of its kind, which the kernel reads and may write.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn with_data(
        parent: &Hwpt,
        device: DeviceId,
        kind: ViommuKind,
        data: &mut [u8],
    ) -> Result<Self, Refused> {
        let block = iommu::iommu_viommu_alloc {
            type_: kind.0,
            dev_id: device.0,
            hwpt_id: parent.id(),
            ..Default::default()
        };
        let parent = parent.object();
        let id = sys::viommu(parent.iommufd(), block, data)?;
        Ok(Self(Object::new(parent.iommufd(), id, vec![parent.hold()])))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.0
    }
}

/// What a device is called on a virtual IOMMU. Its events are told under this number.
///
/// It keeps the device bound: were the device closed first, the kernel would take the name away and
/// never give its object number out again.
#[derive(Debug)]
pub struct Vdevice(Arc<Object>);

impl Vdevice {
    /// Calls `device` `virtual_id` on `viommu`: a stream ID, a requester ID.
    ///
    /// # Errors
    /// The kernel's: `EEXIST` where the device has a name or another has this one, `EINVAL` where
    /// it is behind another IOMMU.
    pub fn new(viommu: &Viommu, device: &dyn Device, virtual_id: u64) -> Result<Self, Refused> {
        let mut block = iommu::iommu_vdevice_alloc {
            viommu_id: viommu.id(),
            dev_id: device.id().0,
            virt_id: virtual_id,
            ..Default::default()
        };
        let iommufd = viommu.0.iommufd();
        sys::call(iommufd, &mut block)?;
        let holds = vec![viommu.0.hold(), device.hold()];
        Ok(Self(Object::new(iommufd, block.out_vdevice_id, holds)))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

#[cfg(test)]
impl Viommu {
    pub(crate) fn pretend(iommufd: &crate::Iommufd, id: u32) -> Self {
        Self(iommufd.pretend(id, Vec::new()))
    }
}
