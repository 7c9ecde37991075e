//! AMD I/O Virtualization Technology (AMD-Vi): layouts.
//!
//! Source: AMD I/O Virtualization Technology (IOMMU) Specification, 48882, by section name. The text
//! itself was not at hand: every position is what at least two authors agree on (Linux
//! `drivers/iommu/amd`, VirtualBox `include/VBox/iommu-amd.h`, FreeBSD `sys/x86/iommu/amd_reg.h`, Xen
//! `xen/drivers/passthrough/amd/iommu-defs.h`, QEMU `hw/i386/amd_iommu.h`). What only one of them has
//! is marked UNCONFIRMED.

pub mod command;
pub mod event;
pub mod ppr;
pub mod pte;
pub mod regs;
pub mod tables;
