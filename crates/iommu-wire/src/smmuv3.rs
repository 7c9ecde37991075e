//! Arm System Memory Management Unit, version 3 (SMMUv3): layouts.
//!
//! Source: Arm System Memory Management Unit Architecture Specification, IHI 0070, by section name, and
//! for every field a second author: Linux `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.h`, QEMU
//! `hw/arm/smmuv3-internal.h`, FreeBSD `sys/arm64/iommu/smmu_reg.h`. What only one of them has is marked
//! UNCONFIRMED. Only what the Non-secure programming interface shows is here.

pub mod command;
pub mod event;
pub mod page_request;
pub mod pte;
pub mod regs;
pub mod tables;
