//! The Linux host's half of I/O page faults.
//!
//! [`Iommufd`] is an open `/dev/iommu`. In it are [`Ioas`] (mapped memory), [`Hwpt`] (page tables),
//! [`FaultQueueObject`] (where page requests come out), [`Viommu`] and [`Vdevice`] (what a guest sees
//! of an IOMMU and its devices) and [`Veventq`] (that IOMMU's events). [`VfioDevice`] is a device
//! that is attached to page tables. [`FaultFile`] is the seam to whoever answers: the kernel's fault
//! descriptor, or something that behaves like it. [`FaultQueue`] reads whole groups from one and gives
//! their answers. [`Pump`] drives the engine of [`iopf`] with any number of them; a resolver that may
//! block sits behind a [`Worker`], one that others must reach is [`Shared`].
//!
//! ```no_run
//! use iopf_host::{FaultQueue, FaultQueueObject, Hwpt, HwptFlags, Ioas, Iommufd, Stage1, VfioDevice};
//! use iopf_host::Device as _;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let iommufd = Iommufd::open()?;
//! let device = VfioDevice::open_pci("0000:00:04.0", &iommufd)?;
//! // Stage 2: what is mapped here, the guest's stage 1 can lie in.
//! let ioas = Ioas::new(&iommufd)?;
//! let parent = Hwpt::paging(&ioas, device.id(), HwptFlags::NEST_PARENT, None)?;
//! // Stage 1, whose page requests come out of a queue.
//! let (object, file) = FaultQueueObject::new(&iommufd)?;
//! let stage1 = Stage1::Vtd { flags: 0, table: iopf::Gpa(0x1000), width: 48 };
//! let tables = Hwpt::nested(&parent, device.id(), HwptFlags::empty(), &stage1, Some(&object))?;
//! device.attach(None, &tables)?;
//! device.set_bus_master(true)?;
//! let queue = FaultQueue::new(file);
//! # Ok(())
//! # }
//! ```
//!
//! # Drop order
//!
//! Handles may be dropped in any order. The kernel does not destroy an object that something stands
//! on, so each handle holds what its object stands on: the object is destroyed first, then what it
//! stands on is let go of, then the iommufd. A descriptor is closed before the object it belongs to
//! ([`FaultFd`], [`Veventq`]); a device is closed, which takes it off its tables, before the tables
//! it was on are let go of ([`VfioDevice`]). What the kernel would not destroy all the same is
//! counted ([`Iommufd::left_behind`]).
//!
//! # Why not the crate `iommufd-ioctls`
//!
//! Its version 0.4.0 has no fault queue, no IOAS map of memory, no VT-d or AMD stage 1; its reader
//! of vEVENTQ records knows two record types, counts a lost-events header one short and what is lost
//! before the first record not at all. The argument blocks come from `iommufd-bindings`, as its do.

mod clock;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod fault_queue;
mod file;
pub mod forward;
mod hw_info;
mod hwpt;
mod ioas;
mod iommufd;
pub mod postcopy;
pub mod pump;
pub mod queue;
mod record;
mod request;
#[cfg(feature = "selftest")]
pub mod selftest;
mod shared;
pub mod space;
mod sys;
pub mod veventq;
mod vfio;
mod viommu;
mod worker;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

pub use clock::Clock;
pub use fault_queue::FaultQueueObject;
pub use file::{Errno, FaultFd, FaultFile};
pub use hw_info::{Capabilities, HwInfo, IommuKind};
pub use hwpt::{Hwpt, HwptFlags, InvalidateError, NestParent, Stage1, VtdRange};
pub use ioas::{Ioas, IovaRanges, Rights};
pub use iommufd::{Device, Hold, Iommufd, OpenError};
pub use pump::{Pump, PumpHandle};
pub use queue::{FaultQueue, ReadError, WriteError};
pub use record::{RawAnswer, RawFault};
pub use request::{Refused, Request};
pub use shared::Shared;
pub use sys::{Mapping, Outside, Width};
pub use veventq::Veventq;
pub use vfio::{Region, RegionFlags, VfioDevice, VfioError};
pub use viommu::{Vdevice, Viommu, ViommuKind};
pub use worker::Worker;

/// The snippets of the page on resolvers are built.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/resolvers.md")]
struct Resolvers;
