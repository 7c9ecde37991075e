//! PCI Express messages that concern an IOMMU.

pub mod pri;
