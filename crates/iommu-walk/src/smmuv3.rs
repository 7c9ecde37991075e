//! SMMUv3: from a stream, a substream and an address to memory.
//!
//! Spec: Arm System Memory Management Unit Architecture Specification, IHI 0070, by section name, and, for
//! VMSAv8-64 tables, Arm Architecture Reference Manual for A-profile, DDI 0487. Each [`Cause`] says whether
//! its event is [confirmed](Cause::confirmed).
//!
//! A requester is a stream (StreamID), a PASID a substream (SubstreamID). A translation has two halves, so
//! that a model can put its caches between them: [`read_space`] turns stream and substream into a [`Space`]
//! (configuration cache; [`read_stream`] and [`read_context`] are its two parts), [`walk`] turns an address
//! in it into a [`Translation`] (TLB). [`translate`] is both. Here the *first* stage is stage 1, from
//! virtual to intermediate addresses, and the *second* stage 2, from intermediate to physical ones.
//!
//! Order of checks: "Event queue record priorities". An entry is read, then tested for validity, then for
//! an address that is too wide; of one that maps a page, then the access flag, then the rights.
//!
//! A request that carries [`EXEC`](iopf::Access::EXEC) reads instructions, one that carries read and write
//! is an atomic operation, and one that carries none of read, write and execute reads: it has no length,
//! which is no matter here.
//!
//! Not modelled: what [`Unit`] lists, Secure and Realm streams, memory types and shareability (device
//! memory is told apart for `S2PTW` only), MPAM, the Contiguous and CONT hints, conflicts in caches, and
//! translation requests for more than one page.

mod cause;
mod config;
mod failure;
mod formats;
mod space;
mod stage;
mod unit;

pub use crate::Completion;
pub use crate::outcome::{Outcome, PageTable, Rights, Translation};
pub use cause::{Cause, Class, Gate, PAGE_REQUEST_ANSWER, Second};
pub use config::{
    admit, page_request, read_context, read_space, read_stream, response_with_pasid, translated,
};
pub use failure::{Applied, Detail, Failure, apply};
pub use space::{Context, Override, Space, Stream, Substream, Switches};
pub use stage::walk;
pub use unit::{Features, StallModel, Unit};

use crate::{Recorder, TableMem, Updates};
use iopf::{Access, Dma, DmaKind};

/// Translates one request, all the way.
///
/// `updates` receives the access flags and dirty states to write, also those of entries that the walk used
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
    if dma.kind == DmaKind::Translated {
        let stream = if unit.enabled() && unit.checks_translated() {
            Some(read_stream(unit, mem, dma.requester, recorder)?)
        } else {
            None
        };
        return translated(unit, stream.as_ref(), dma).map(Outcome::Memory);
    }
    if !unit.enabled() {
        return disabled(unit, dma);
    }
    let space = read_space(unit, mem, dma, updates, recorder)?;
    walk(unit, &space, mem, dma, updates, recorder)
}

/// Translation is off.
#[cold]
fn disabled(unit: &Unit, dma: &Dma) -> Result<Outcome, Failure> {
    let cause = if dma.kind != DmaKind::Untranslated {
        Cause::GlobalTranslationRequest
    } else if unit.aborts() {
        Cause::GlobalAbort
    } else if dma.addr.0 >> unit.output_bits() != 0 {
        Cause::GlobalAddressSize
    } else {
        let all = Access::RW.union(Access::EXEC);
        return Ok(Outcome::Memory(stage::identity(unit, dma, all)));
    };
    Err(Failure::with(cause, Detail::empty()))
}
