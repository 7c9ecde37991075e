//! PCI Express messages that concern an IOMMU.

pub mod ats;
pub mod pri;
