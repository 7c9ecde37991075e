//! Intel Virtualization Technology for Directed I/O (VT-d): layouts.
//!
//! Source: Intel VT-d Architecture Specification, revisions 3.0 to 4.1, by section name; every
//! position is checked in the tests against the masks of a second author (Linux
//! `drivers/iommu/intel`, VirtualBox `include/VBox/iommu-intel.h`).

pub mod command;
pub mod event;
pub mod page_request;
pub mod pte;
pub mod regs;
pub mod tables;
