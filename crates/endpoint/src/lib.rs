//! Device models that do DMA behind a virtual IOMMU.
//!
//! [`Device`] is a PCIe function's data path: a DMA engine, a device TLB ([`Atc`]) that honours
//! invalidations, and a page request interface that keeps within its allocation. It talks to an
//! IOMMU through the traits of `viommu_api` ([`Ports`]) and implements `viommu_api::Endpoint` to
//! hear what the guest sends down the invalidation queue.
//!
//! PCI functions stand on it or beside it: [`dma_engine`], which guest programs drive;
//! [`virtio_rng`] and [`dsa`], which Linux has drivers for; and [`IommuFunction`], an IOMMU's
//! registers, with [`AmdviFunction`] beside it where software looks for the IOMMU on PCI. [`pci`] is the configuration space that they show to a guest.
//!
//! Nothing here spawns a thread or reads a clock: a caller steps a device and tells it the time. A
//! function tells its caller through a [`Waker`] that there is something to step for.
//!
//! Not modelled: DMA atomics.
#![forbid(unsafe_code)]

mod atc;
mod device;
pub mod dma_engine;
pub mod dsa;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod gate;
mod groups;
mod iommu;
mod job;
mod memory;
pub mod pci;
mod queue;
mod stalls;
pub mod virtio_rng;

pub use atc::{Atc, Hit, Space};
pub use device::{Config, Device, Ports, Signals, Step};
pub use groups::MAX_GROUPS;
pub use iommu::{AmdviCapability, AmdviFunction, IommuFunction};
pub use job::{
    Broken, Completion, GroupAnswer, Job, JobId, OnFault, Op, Refused, Stats, Status, Via,
};
pub use memory::Memory;
pub use viommu_api::{BusError, PhysicalMemory};

/// Tells whoever steps a function that it has something to do. It may be called from any thread and
/// must not block, nor step the function itself.
pub type Waker = std::sync::Arc<dyn Fn() + Send + Sync>;
