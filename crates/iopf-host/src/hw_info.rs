//! What the IOMMU of a device can do.

use crate::iommufd::Iommufd;
use crate::request::Refused;
use crate::sys;
use bitflags::bitflags;
use iommufd_bindings as iommu;
use iopf::engine::DeviceId;

bitflags! {
    /// What every kind of IOMMU can be asked for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Capabilities: u64 {
        /// It can note which pages were written.
        const DIRTY_TRACKING = iommu::iommufd_hw_capabilities_IOMMU_HW_CAP_DIRTY_TRACKING as u64;
        /// The device may ask to execute under a PASID.
        const PASID_EXEC = iommu::iommufd_hw_capabilities_IOMMU_HW_CAP_PCI_PASID_EXEC as u64;
        /// The device may ask with privilege under a PASID.
        const PASID_PRIV = iommu::iommufd_hw_capabilities_IOMMU_HW_CAP_PCI_PASID_PRIV as u64;
        /// The device's ATS cannot be used.
        const ATS_NOT_SUPPORTED =
            iommu::iommufd_hw_capabilities_IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED as u64;
        // Later kernels say more.
        const _ = !0;
    }
}

/// A kind of IOMMU: `enum iommu_hw_info_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IommuKind(pub u32);

impl IommuKind {
    /// One that says nothing of itself.
    pub const NONE: Self = Self(iommu::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_NONE);
    /// Intel VT-d.
    pub const VTD: Self = Self(iommu::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_INTEL_VTD);
    /// Arm SMMUv3.
    pub const SMMUV3: Self = Self(iommu::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
    /// AMD-Vi.
    pub const AMD: Self = Self(iommu::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_AMD);
    /// The kernel's self-test: `drivers/iommu/iommufd/iommufd_test.h`.
    pub const SELFTEST: Self = Self(0xfeed_beef);
}

/// What the kernel says of the IOMMU of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HwInfo {
    /// Which it is.
    pub kind: IommuKind,
    /// What its kind has to say: `struct iommu_hw_info_vtd` and so on.
    pub data: Vec<u8>,
    /// Bits of a PASID, 0 to 20; 0 is no PASID.
    pub pasid_bits: u8,
    /// What every kind has.
    pub capabilities: Capabilities,
}

/// Bytes that the kernel is given at first: more than any kind has in Linux 7.3.
const ROOM: usize = 256;

impl Iommufd {
    /// What the IOMMU of `device` can do.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` where no such device is bound here.
    pub fn hw_info(&self, device: DeviceId) -> Result<HwInfo, Refused> {
        let mut data = vec![0; ROOM];
        loop {
            let (info, kind) = sys::hw_info(self, device.0, &mut data)?;
            let len = usize::try_from(info.data_len).unwrap_or(usize::MAX);
            if len > data.len() {
                data = vec![0; len];
                continue;
            }
            data.truncate(len);
            return Ok(HwInfo {
                kind: IommuKind(kind),
                data,
                pasid_bits: info.out_max_pasid_log2,
                capabilities: Capabilities::from_bits_retain(info.out_capabilities),
            });
        }
    }
}

impl HwInfo {
    /// The capability and extended capability registers of a VT-d unit.
    #[must_use]
    pub fn vtd(&self) -> Option<(u64, u64)> {
        // struct iommu_hw_info_vtd: flags, reserved, cap, ecap.
        let word = |at| {
            let bytes = self.data.get(at..at + 8)?;
            Some(u64::from_ne_bytes(bytes.try_into().ok()?))
        };
        (self.kind == IommuKind::VTD).then_some(())?;
        Some((word(8)?, word(16)?))
    }
}
