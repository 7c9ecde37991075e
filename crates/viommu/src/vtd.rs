//! A virtual Intel VT-d remapping unit.
//!
//! Spec: Intel VT-d, revisions 3.0 to 5.10. Written so that the unmodified Linux driver
//! (`drivers/iommu/intel`) binds to it, in legacy and in scalable mode.
//!
//! [`VtdUnit`] is the device. Its registers are storage with rules and no device behind them
//! (`regs`, `events`, `commands`, `page_requests`); writing one says what must happen next, and
//! `device` is the only file that makes it happen. Translations (`translate`) use the caches that
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
mod diagnostics;
mod embed;
mod events;
mod inject;
mod interrupt;
mod memo;
mod page_requests;
mod ports;
mod record;
mod regs;
mod translate;
mod watch;

pub use config::{Config, Refused, Scalable, Widths};
pub use device::{Setup, VtdUnit};
pub use diagnostics::{Counters, Diagnostic};
pub use embed::OpenSession;
pub use inject::Injection;
pub use record::{fault_event, request_type};
pub use watch::{Notice, Watch};
