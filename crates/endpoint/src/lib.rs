//! Device models that do DMA behind a virtual IOMMU.
//!
//! [`Device`] is a PCIe function's data path: a DMA engine, a device TLB ([`Atc`]) that honours
//! invalidations, and a page request interface that keeps within its allocation. It talks to an
//! IOMMU through the traits of `viommu_api` ([`Ports`]) and implements `viommu_api::Endpoint` to
//! hear what the guest sends down the invalidation queue.
//!
//! Nothing here spawns a thread or reads a clock: a caller steps a device and tells it the time.
//!
//! Not modelled: PCI configuration space, interrupts of the function itself, DMA atomics.
#![forbid(unsafe_code)]

mod atc;
mod device;
mod groups;
mod job;
mod memory;
mod queue;

pub use atc::{Atc, Hit, Space};
pub use device::{Config, Device, Ports, Step};
pub use groups::MAX_GROUPS;
pub use job::{Completion, GroupAnswer, Job, JobId, OnFault, Op, Refused, Stats, Status, Via};
pub use memory::Memory;
pub use viommu_api::{BusError, PhysicalMemory};
