//! Arm System Memory Management Unit version 3 (SMMUv3): layouts.
//!
//! Source: Arm System Memory Management Unit Architecture Specification, IHI 0070, by section name;
//! each position is checked against Linux `drivers/iommu/arm/arm-smmu-v3` where Linux has it, and
//! against a second author where it does not.

pub mod pte;
pub mod tables;
