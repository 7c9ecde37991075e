//! A virtual Arm SMMUv3.
//!
//! Spec: Arm System Memory Management Unit Architecture Specification, SMMU architecture version 3,
//! IHI 0070. Written so that the unmodified Linux driver (`drivers/iommu/arm/arm-smmu-v3`) binds to it, with
//! stage 1, stage 2 and both, substreams, device TLBs and page requests, and stalls.
//! `docs/arch/smmuv3.md` has the source of each rule.
//!
//! [`Smmuv3Unit`] is the device, a [`Unit`](crate::Unit) for [`Smmuv3`]. Its registers are storage with
//! rules and no device behind them (`regs`, `commands`, `queue`, `stalls`, `interrupt`); writing one says
//! what must happen next, and `device` is the only file that makes it happen. Translations use the caches
//! that hardware has: configuration (`cache`) and the IOTLB ([`crate::iotlb`]), each holding what it holds
//! until the guest invalidates it. A fault is never cached.
//!
//! | modelled | not modelled |
//! |---|---|
//! | stage 1, stage 2, nested; granules of 4, 16 and 64 KiB; HTTU | AArch32 tables, big-endian tables, 52-bit addresses |
//! | linear and two-level stream tables and tables of context descriptors; substreams | the hypervisor's own translations (EL2), the Secure and the Realm interface |
//! | Command queue, illegal commands, ranges in invalidations, CMD_SYNC by message, wire and SEV | Enhanced Command queues, broadcast TLB maintenance (BTM) |
//! | stalls, CMD_RESUME, CMD_STALL_TERM; STALL_MODEL 0, 1 and 2; TERM_MODEL | a transaction that waits for a place among the stalled |
//! | Event queue and PRI queue with overflow and aborts; page requests, automatic responses | event merging (MEV), E_PAGE_REQUEST |
//! | global errors; messages and wires | MSI aborts: a message that nobody takes raises no error |
//! | ATS, full | split-stage ATS (EATS 10b), ATOS, MPAM, DPT, RAS, performance counters |
//!
//! # Bounds
//! A command costs at most one look at each set of the IOTLB, or at each configuration entry that is
//! cached, of which there are at most 8,192, or at each stalled transaction (STALL_MAX, at most 65,535),
//! whatever range it names. One register access works off at most 65,536 commands, and as many again for
//! each write of the producer index that comes meanwhile. An Event queue or PRI queue holds at most 524,288
//! entries, of which one access writes as many as there are stalled transactions.

mod cache;
mod commands;
mod config;
mod device;
mod interrupt;
mod queue;
mod record;
mod regs;
mod spaces;
mod stalls;

pub use crate::refused::Refused;
pub use config::{Ats, Config, Granules, TableUpdates};
pub use interrupt::Wire;
pub use iommu_wire::smmuv3::regs::StallModel;
pub use record::{Record, fault_event};

use iommu_walk::smmuv3::Failure;
use iommu_wire::smmuv3::regs::{Idr0, Idr1, Idr3, Idr5};

/// Arm SMMUv3, as an architecture of [`Unit`](crate::Unit).
#[derive(Debug)]
pub enum Smmuv3 {}

/// An SMMU.
pub type Smmuv3Unit<A> = crate::Unit<Smmuv3, A>;

/// What an SMMU is made of.
pub type Setup<A> = crate::Setup<Smmuv3, A>;

/// A fault of the guest's own making, as the walk found it.
pub type Diagnostic = crate::Diagnostic<Failure>;

/// Something that happened in an SMMU.
pub type Notice<'a> = crate::Notice<'a, Failure>;

/// What an SMMU can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    idr0: Idr0,
    idr1: Idr1,
    idr3: Idr3,
    idr5: Idr5,
    /// There are wires for interrupts, which no register shows.
    wires: bool,
}

impl Caps {
    /// Whether a VMID is one. Without stage 2 all of them are 0.
    const fn vmid(&self, vmid: u16) -> bool {
        !self.idr0.s2p() || self.idr0.vmid16() || vmid < 0x100
    }

    /// Whether an ASID is one.
    const fn asid(&self, asid: u16) -> bool {
        self.idr0.asid16() || asid < 0x100
    }
}
