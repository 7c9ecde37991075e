//! Virtual IOMMU models.
