//! AMD-Vi: from a requester, a PASID and an address to memory.
//!
//! Spec: AMD I/O Virtualization Technology (IOMMU) Specification, 48882, "Device Table", "I/O Page
//! Tables for Host Translations", "I/O Page Tables for Guest Translations", "Guest CR3 Table" and
//! "Event Logging". The text itself was not at hand: what is here is what other authors make of it
//! (Linux, FreeBSD, VirtualBox, QEMU, OpenVMM), and each [`Cause`] says whether one of them
//! [confirms](Cause::confirmed) it.
//!
//! A translation has two halves, so that a model can put its caches between them: [`read_space`]
//! turns a requester into a [`Space`] (device table cache), [`walk`] turns a PASID and an address in it
//! into a [`Translation`] (IOTLB). [`translate`] is both. Here the *first* stage is the guest tables of
//! version 2, which turn a guest virtual address into a guest physical one, and the *second* the host
//! tables of version 1.
//!
//! Order of checks: each entry is read, then tested for presence, then for reserved bits. An entry of
//! a host table that denies the request ends the walk there, as the device table entry does before any
//! table is read; what lies below it is not looked at. Then come its level and the size of its page.
//! The rights of a guest table are weighed at the end, as processors do. Of an atomic operation that
//! lacks both rights, the missing write is reported.
//!
//! A request that carries no [`READ`](iopf::Access::READ), [`WRITE`](iopf::Access::WRITE) or
//! [`EXEC`](iopf::Access::EXEC) is a zero-length read; one that carries read and write is an atomic
//! operation.
//!
//! Not modelled: secure ATS (SATS is reserved), interrupt remapping, port I/O and system management
//! requests, the U bit of a host entry, page migration, `HADUpdate`, SEV-SNP, virtualised IOMMUs, memory
//! types, MARC, and translation requests for more than one page.

mod cause;
mod config;
mod failure;
mod space;
mod stage;
mod unit;

pub use crate::Completion;
pub use crate::outcome::{Outcome, PageTable, Rights, Translation};
pub use cause::{Cause, PAGE_REQUEST_ANSWER};
pub use config::{page_request, read_space, translated};
pub use failure::{Applied, Detail, Failure, Flags, apply};
pub use space::{DomainId, GuestTables, Space, Switches};
pub use stage::{special, walk};
pub use unit::Unit;

use crate::{Recorder, TableMem, Updates};
use iopf::{Access, Dma, DmaKind, Iova};

/// Whether `addr` lies in the interrupt range, 0xfee0_0000–0xfeef_ffff.
#[must_use]
#[inline]
pub const fn in_interrupt_range(addr: Iova) -> bool {
    addr.0 >> 20 == 0xfee
}

/// Whether `addr` lies in the reserved HyperTransport range, `FD_0000_0000h`–`FF_FFFF_FFFFh`.
#[must_use]
#[inline]
pub const fn in_hypertransport_range(addr: Iova) -> bool {
    matches!(addr.0 >> 32, 0xfd..=0xff)
}

/// Whether `addr` lies in a range that a unit may treat specially: see [`special`]. No translation
/// holds for a page that reaches into one, unless that page has 4 KiB.
#[must_use]
#[inline]
pub const fn in_special_range(addr: Iova) -> bool {
    in_interrupt_range(addr) || in_hypertransport_range(addr)
}

/// Translates one request, all the way.
///
/// `updates` receives the accessed and dirty bits to set, also those of entries that the walk used
/// before it failed; hand them to [`apply`]. It is cleared first.
///
/// # Errors
/// The [`Failure`] that the guest's own tables call for.
#[inline]
pub fn translate<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    updates: &mut Updates,
    recorder: &mut R,
) -> Result<Outcome, Failure> {
    updates.clear();
    if !unit.enabled() {
        return match dma.kind {
            DmaKind::Untranslated => Ok(Outcome::Memory(stage::identity(dma, Access::RW, 30))),
            _ => Err(Failure::with(Cause::Disabled, Detail::default())),
        };
    }
    if in_special_range(dma.addr)
        && !matches!(dma.kind, DmaKind::Translation { .. })
        && let Some(outcome) = special(unit, dma)?
    {
        return Ok(outcome);
    }
    let space = read_space(unit, mem, dma, recorder)?;
    if dma.kind == DmaKind::Translated {
        return translated(unit, &space, dma).map(Outcome::Memory);
    }
    walk(unit, &space, mem, dma, updates, recorder)
}
