//! A virtual Intel VT-d remapping unit.
//!
//! Spec: Intel VT-d, revisions 3.0 to 5.10. Written so that the unmodified Linux driver
//! (`drivers/iommu/intel`) binds to it, in legacy and in scalable mode.
//!
//! [`VtdUnit`] is the device, a [`Unit`](crate::Unit) for [`Vtd`]. Its registers are storage with rules
//! and no device behind them
//! (`regs`, `events`, `commands`, `page_requests`); writing one says what must happen next, and
//! `device` is the only file that makes it happen. Translations use the caches that
//! hardware has: contexts and PASID entries (`cache`) and the IOTLB ([`crate::iotlb`]), each holding
//! what it holds until the guest invalidates it. A fault is never cached.
//!
//! | modelled | not modelled |
//! |---|---|
//! | legacy and scalable mode; first, second, nested stage; pass-through; abort-DMA mode | interrupt remapping and posting: `GCMD.IRE`, `SIRTP` and `CFI` do nothing, as `ECAP.IR` says |
//! | device-TLBs, page requests, page group responses, draining | advanced fault logging, compression of faults of one requester |
//! | register-based and queued invalidation, 128- and 256-bit descriptors | caching mode, write-buffer flushing, protected memory regions |
//! | fault, invalidation and page request events as MSI | memory types, performance monitoring, enhanced and virtual commands |
//! | invalidation queue errors and time-outs (no endpoint answers for the device) | invalidation completion errors: no endpoint can send a completion it was not asked for |

mod cache;
mod commands;
mod config;
mod device;
mod events;
mod interrupt;
mod page_requests;
mod record;
mod regs;
mod spaces;

pub use crate::refused::Refused;
pub use config::{Config, Scalable, Widths};
pub use record::{fault_event, request_type};

use iommu_walk::vtd::Failure;
use iommu_wire::vtd::regs::{Cap, Ecap};

/// VT-d, as an architecture of [`Unit`](crate::Unit).
#[derive(Debug)]
pub enum Vtd {}

/// A remapping unit.
pub type VtdUnit<A> = crate::Unit<Vtd, A>;

/// What a remapping unit is made of.
pub type Setup<A> = crate::Setup<Vtd, A>;

/// A fault of the guest's own making, as the walk found it.
pub type Diagnostic = crate::Diagnostic<Failure>;

/// Something that happened in a remapping unit.
pub type Notice<'a> = crate::Notice<'a, Failure>;

/// What a unit can do: CAP_REG and ECAP_REG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    cap: Cap,
    ecap: Ecap,
}
