//! A virtual AMD IOMMU (AMD-Vi).
//!
//! Spec: AMD I/O Virtualization Technology (IOMMU) Specification, 48882. Written so that the unmodified
//! Linux driver (`drivers/iommu/amd`) binds to it, with host tables (version 1) and guest tables
//! (version 2). The text itself was not at hand: `docs/arch/amdvi.md` has the source of each rule, and
//! says which of them rest on one author or on a guess.
//!
//! [`AmdviUnit`] is the device, a [`Unit`](crate::Unit) for [`Amdvi`]. Its registers are storage with
//! rules and no device behind them (`regs`, `commands`, `log`); writing one says what must happen next,
//! and `device` is the only file that makes it happen. Translations use the caches that hardware has:
//! device table entries (`cache`) and the IOTLB ([`crate::iotlb`]), each holding what it holds until the
//! guest invalidates it. A fault is never cached.
//!
//! | modelled | not modelled |
//! |---|---|
//! | host tables, guest tables, nested; exclusion range; device table segments | interrupt remapping, guest virtual APIC: `GASup` is claimed for Linux's sake and does nothing, `XTSup` is 0 |
//! | command buffer, illegal commands, completion waits, device TLB time-outs | commands for hardware-assisted guest IOMMUs |
//! | event log and PPR log with overflow and restart, automatic responses, SA and SE | second logs, early overflow warnings, stop markers |
//! | hardware event registers | performance counters, SMI filters, MARC, SEV-SNP |
//! | one MSI for event log, PPR log and completion waits | MSI registers in the register window (`MsiCapMmioSup`) |
//!
//! # Bounds
//! A command costs at most one look at each set of the IOTLB, whatever range it names. One register access
//! works off at most 65,536 commands, and as many again for each write of the tail that comes meanwhile: a
//! processor that waits for memory alone is not left waiting. A log holds at most 32,768 entries.

mod cache;
mod commands;
mod config;
mod device;
mod log;
mod record;
mod regs;
mod spaces;

pub use crate::refused::Refused;
pub use config::{Config, Guest, PageRequests};
pub use record::{Record, fault_event};

use iommu_walk::amdvi::Failure;
use iommu_wire::amdvi::regs::{ExtendedFeatures, ExtendedFeatures2};

/// AMD-Vi, as an architecture of [`Unit`](crate::Unit).
#[derive(Debug)]
pub enum Amdvi {}

/// An IOMMU.
pub type AmdviUnit<A> = crate::Unit<Amdvi, A>;

/// What an IOMMU is made of.
pub type Setup<A> = crate::Setup<Amdvi, A>;

/// A fault of the guest's own making, as the walk found it.
pub type Diagnostic = crate::Diagnostic<Failure>;

/// Something that happened in an IOMMU.
pub type Notice<'a> = crate::Notice<'a, Failure>;

/// What an IOMMU can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    features: ExtendedFeatures,
    features2: ExtendedFeatures2,
    /// IotlbSup, which is in the PCI capability and in no register.
    device_tlb: bool,
}
