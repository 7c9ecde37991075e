//! Device models that do DMA behind a virtual IOMMU.
