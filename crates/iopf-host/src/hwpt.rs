//! Page tables that devices are attached to: "hardware page tables", HWPT.

use crate::fault_queue::FaultQueueObject;
use crate::ioas::Ioas;
use crate::iommufd::Object;
use crate::request::Refused;
use crate::sys;
use crate::viommu::Viommu;
use bitflags::bitflags;
use iommufd_bindings as iommu;
use iopf::engine::DeviceId;
use iopf::{Gpa, Iova};
use std::sync::Arc;
use thiserror::Error;

#[cfg(test)]
mod tests;

bitflags! {
    /// What page tables are for.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct HwptFlags: u32 {
        /// Others are nested on them. Never with a fault queue.
        const NEST_PARENT = iommu::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_NEST_PARENT;
        /// The IOMMU notes which pages were written.
        const DIRTY_TRACKING = iommu::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
        /// A device that uses PASIDs can be attached: all of its tables need it.
        const PASID = iommu::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_PASID;
    }
}

/// A stage 1 that a guest wrote. It lies in the address space of what it is nested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage1 {
    /// Intel VT-d.
    Vtd {
        /// `IOMMU_VTD_S1_SRE` 1, `EAFE` 2, `WPE` 4.
        flags: u64,
        /// The first table.
        table: Gpa,
        /// Bits of an address: 48 with four levels, 57 with five.
        width: u32,
    },
    /// AMD: the guest's device table entry.
    AmdGuest {
        /// Its four words, from the lowest address on.
        dte: [u64; 4],
    },
    /// Arm SMMUv3: the guest's stream table entry.
    SmmuV3 {
        /// Its first two words.
        ste: [u64; 2],
    },
    /// The kernel's self-test.
    Selftest {
        /// What its entries hold at first; 0x0badbeef is usual.
        iotlb: u32,
    },
}

impl Stage1 {
    /// `enum iommu_hwpt_data_type`, and the data as it lies in memory.
    fn encode(&self) -> (u32, Vec<u8>) {
        match *self {
            Self::Vtd {
                flags,
                table,
                width,
            } => {
                // struct iommu_hwpt_vtd_s1
                let words = [flags.to_ne_bytes(), table.0.to_ne_bytes()].concat();
                let last = [width.to_ne_bytes(), [0; 4]].concat();
                let kind = iommu::iommu_hwpt_data_type_IOMMU_HWPT_DATA_VTD_S1;
                (kind, [words, last].concat())
            }
            Self::AmdGuest { dte } => (
                iommu::iommu_hwpt_data_type_IOMMU_HWPT_DATA_AMD_GUEST,
                dte.map(u64::to_ne_bytes).concat(),
            ),
            Self::SmmuV3 { ste } => (
                iommu::iommu_hwpt_data_type_IOMMU_HWPT_DATA_ARM_SMMUV3,
                ste.map(u64::to_le_bytes).concat(),
            ),
            // struct iommu_hwpt_selftest: entries, and the default kind of tables.
            Self::Selftest { iotlb } => (0xdead, [iotlb.to_ne_bytes(), [0; 4]].concat()),
        }
    }
}

/// What a stage 1 is nested on.
#[derive(Clone, Copy, Debug)]
pub enum NestParent<'a> {
    /// Page tables with [`HwptFlags::NEST_PARENT`].
    Hwpt(&'a Hwpt),
    /// A virtual IOMMU, which stands on such tables.
    Viommu(&'a Viommu),
}

impl<'a> From<&'a Hwpt> for NestParent<'a> {
    fn from(parent: &'a Hwpt) -> Self {
        Self::Hwpt(parent)
    }
}

impl<'a> From<&'a Viommu> for NestParent<'a> {
    fn from(parent: &'a Viommu) -> Self {
        Self::Viommu(parent)
    }
}

/// Entries of a VT-d stage 1 that have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtdRange {
    /// The first address, aligned to 4 KiB.
    pub addr: Iova,
    /// Pages of 4 KiB; `u64::MAX` with address 0 is everything.
    pub pages: u64,
    /// Only last-level entries have changed.
    pub leaf_only: bool,
}

/// Not every range was invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{refused}, after {done} ranges")]
pub struct InvalidateError {
    /// Ranges that were, from the first on.
    pub done: u32,
    /// What the kernel said of the next.
    #[source]
    pub refused: Refused,
}

/// Page tables. They stay for as long as a device is attached to them, whatever becomes of this
/// handle.
#[derive(Debug)]
pub struct Hwpt(Arc<Object>);

impl Hwpt {
    /// Page tables that map what `ioas` does, for devices behind the IOMMU of `device`. Page
    /// requests go to `faults`, or are answered INVALID by the kernel.
    ///
    /// # Errors
    /// The kernel's: `EOPNOTSUPP` where the IOMMU has no such tables.
    pub fn paging(
        ioas: &Ioas,
        device: DeviceId,
        flags: HwptFlags,
        faults: Option<&FaultQueueObject>,
    ) -> Result<Self, Refused> {
        Self::alloc(ioas.object(), device, flags, faults, (0, &[]))
    }

    /// A stage 1 on `parent`, for devices behind the IOMMU of `device`. Page requests as with
    /// [`Self::paging`].
    ///
    /// # Errors
    /// The kernel's: `EOPNOTSUPP` where the IOMMU does not nest, `EINVAL` for data that it does not
    /// take.
    pub fn nested<'a>(
        parent: impl Into<NestParent<'a>>,
        device: DeviceId,
        flags: HwptFlags,
        stage1: &Stage1,
        faults: Option<&FaultQueueObject>,
    ) -> Result<Self, Refused> {
        let parent = match parent.into() {
            NestParent::Hwpt(hwpt) => &hwpt.0,
            NestParent::Viommu(viommu) => viommu.object(),
        };
        let (kind, data) = stage1.encode();
        Self::alloc(parent, device, flags, faults, (kind, &data))
    }

    fn alloc(
        parent: &Arc<Object>,
        device: DeviceId,
        flags: HwptFlags,
        faults: Option<&FaultQueueObject>,
        (kind, data): (u32, &[u8]),
    ) -> Result<Self, Refused> {
        let with_queue = iommu::iommufd_hwpt_alloc_flags_IOMMU_HWPT_FAULT_ID_VALID;
        let mut block = iommu::iommu_hwpt_alloc {
            flags: flags.bits() | faults.map_or(0, |_| with_queue),
            dev_id: device.0,
            pt_id: parent.id(),
            data_type: kind,
            fault_id: faults.map_or(0, FaultQueueObject::id),
            ..Default::default()
        };
        sys::call_with(parent.iommufd(), &mut block, data)?;
        let queue = faults.map(|queue| queue.object().hold());
        let holds = [parent.hold()].into_iter().chain(queue).collect();
        let id = block.out_hwpt_id;
        Ok(Self(Object::new(parent.iommufd(), id, holds)))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.0
    }

    /// Has caches forget entries of a VT-d stage 1. For a page that was missing this is not
    /// needed; for one that had other rights or another target it comes before the answer.
    ///
    /// # Errors
    /// The kernel's, and how many ranges were done before: `EINVAL` for a range that is unaligned,
    /// or where this is no VT-d stage 1.
    pub fn invalidate_vtd(&self, ranges: &[VtdRange]) -> Result<(), InvalidateError> {
        // struct iommu_hwpt_vtd_s1_invalidate
        let entry = |range: &VtdRange| {
            let flags = u32::from(range.leaf_only);
            let words = [range.addr.0.to_ne_bytes(), range.pages.to_ne_bytes()].concat();
            [words, [flags.to_ne_bytes(), [0; 4]].concat()].concat()
        };
        let data: Vec<u8> = ranges.iter().flat_map(entry).collect();
        let mut block = iommu::iommu_hwpt_invalidate {
            hwpt_id: self.id(),
            data_type: iommu::iommu_hwpt_invalidate_data_type_IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
            entry_len: 24,
            // More than the kernel takes, in any case.
            entry_num: u32::try_from(ranges.len()).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let asked = block.entry_num;
        let came = sys::call_with(self.0.iommufd(), &mut block, &data);
        came.map_err(|refused| InvalidateError {
            // Where the kernel did not get as far as to count, the number is the one it was given.
            done: if block.entry_num == asked {
                0
            } else {
                block.entry_num
            },
            refused,
        })
    }
}
