//! Walks of IOMMU configuration and page tables, with the whole trail of a failure.
