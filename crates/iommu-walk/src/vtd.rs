//! Intel VT-d: from a requester, a PASID and an address to memory.
//!
//! Spec: Intel VT-d, revision 5.10, "DMA Remapping", "Support For Device-TLBs" and "Translation
//! Structure Formats"; what revision 4.1 took out (execute requests: ERE, NXE, SMEP, the XD bit) is
//! there for units that still report `ECAP_REG.ERS`.
//!
//! A translation has two halves, so that a model can put its caches between them:
//! [`read_context`] and [`read_space`] turn a requester and PASID into an [`AddressSpace`] (context
//! and PASID cache), [`walk`] turns an address in it into a [`Translation`] (IOTLB). [`translate`]
//! is both.
//!
//! Order of checks: each entry is read, then tested for presence, then for reserved bits, then for
//! values the unit does not support, then against the request. A page walk looks for a valid
//! translation first and weighs access rights after it ("Access Rights": *valid translation, but
//! its access rights do not permit the access*), so a missing or malformed lower entry is reported
//! even where an upper one already denies the access. Of an atomic operation that lacks both
//! rights, the missing write is reported.
//!
//! A request that carries no [`READ`](iopf::Access::READ), [`WRITE`](iopf::Access::WRITE) or
//! [`EXEC`](iopf::Access::EXEC) is a zero-length read; one that carries read and write is an atomic
//! operation.
//!
//! Not modelled: host permission tables, memory types, interrupt remapping, and translation
//! requests for more than one page.

mod caps;
mod cause;
mod config;
mod failure;
mod space;
mod stage;
mod unit;

pub use crate::Completion;
pub use crate::outcome::{Outcome, PageTable, Rights, Translation};
pub use cause::{Cause, PAGE_REQUEST_ANSWER};
pub use config::{Context, configure, page_request, read_context, read_space, translated};
pub use failure::{Applied, Failure, apply};
pub use space::{AddressSpace, DomainId, Switches, Translate};
pub use stage::walk;
pub use unit::{Mode, Unit};

use crate::{Recorder, TableMem, Updates};
use iopf::{Access, Dma, DmaKind, Iova};

/// Whether `addr` lies in the interrupt range, 0xfee0_0000–0xfeef_ffff.
///
/// Requests without a PASID to it are no DMA: test before looking into an IOTLB.
#[must_use]
#[inline]
pub const fn in_interrupt_range(addr: Iova) -> bool {
    addr.0 >> 20 == 0xfee
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
            DmaKind::Untranslated => Ok(Outcome::Memory(stage::identity(unit, dma, Access::RW))),
            _ => Err(Failure::new(Cause::Disabled)),
        };
    }
    if let Some(outcome) = stage::interrupt_message(unit, dma)? {
        return Ok(outcome);
    }
    if dma.kind == DmaKind::Translated {
        return config::through(unit, mem, dma, recorder).map(Outcome::Memory);
    }
    let space = configure(unit, mem, dma, recorder)?;
    walk(unit, &space, mem, dma, updates, recorder)
}
