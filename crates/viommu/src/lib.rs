//! Virtual IOMMU models.
#![forbid(unsafe_code)]

pub mod iotlb;
pub mod mem;
pub mod session;
pub mod vm_memory;
pub mod vtd;
