//! Virtual IOMMU models.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod iotlb;
pub mod mem;
pub mod session;
pub mod vm_memory;
pub mod vtd;
