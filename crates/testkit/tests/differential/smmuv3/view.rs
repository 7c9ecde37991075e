//! A part of a walk of QEMU's, by itself: one address through stage 2.

use super::Smmuv3;
use super::record::{CLASS, Event, OF_TABLE, READ, STAGE_2, TABLE_READ};
use crate::harness::{BUSY, Case, End, Walking};
use iommu_walk::smmuv3::{Cause, Failure, Gate, Outcome, Second, translate};
use iopf::{Access, Dma, Gpa, Iova};

/// STE.Config for stage 2 alone.
const SECOND_ONLY: u64 = 0b110 << 1;
const CONFIG: u64 = 0b111 << 1;

/// What goes through stage 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Where the stream table entry is.
    pub(crate) stream: u64,
    /// An intermediate physical address.
    pub(crate) address: u64,
    pub(crate) of: Of,
}

/// What the address is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// A table that TTB0 or TTB1 points to.
    TopTable,
    /// Another table of stage 1. QEMU takes a fault for one of stage 1.
    Table {
        /// CD.R.
        recorded: bool,
    },
    /// The output of stage 1.
    Output,
}

/// Walks it, and ends as QEMU does. That a table has been found is no end: then there is no record, in
/// a list that no case leaves empty.
pub(crate) fn walk(view: View, walking: Walking<'_, Smmuv3>) -> (End<Smmuv3>, Option<Failure>) {
    let Walking { case, unit, .. } = walking;
    let mut memory = case.memory.clone();
    let entry = memory.word(view.stream);
    *entry = *entry & !CONFIG | SECOND_ONLY;
    let whole = case.dma();
    let dma = Dma {
        addr: Iova(view.address),
        access: match view.of {
            Of::Output => whole.access,
            Of::TopTable | Of::Table { .. } => Access::READ,
        },
        ..whole
    };
    let unit = unit.of(case.setup);
    let result = translate(&unit, &memory, &dma, walking.updates, walking.trail);
    // Stage 1 has done its part, so that it is stage 2 that an address is too wide for.
    let result = result.map_err(|failure| match failure.cause {
        Cause::InputSize => Failure {
            guest_addr: Some(Gpa(view.address)),
            ..Failure::with(Cause::IpaOutside, failure.detail)
        },
        _ => failure,
    });
    let end = match &result {
        Ok(Outcome::Memory(to)) if view.of == Of::Output && to.pa.0 < BUSY => End::Memory(to.pa.0),
        Ok(_) if view.of == Of::Output => End::Nothing,
        Ok(_) => End::Fault(Vec::new()),
        Err(failure) => failed(view, case, failure),
    };
    (end, result.err())
}

/// How QEMU ends where stage 2 fails so.
pub(crate) fn failed(view: View, case: &Case<Smmuv3>, failure: &Failure) -> End<Smmuv3> {
    let gated = failure.cause.gate() != Gate::Always;
    let hidden = match view.of {
        Of::Table { recorded } => gated && !recorded,
        Of::TopTable | Of::Output => failure.hidden,
    };
    if hidden {
        return End::Nothing;
    }
    let mut event = Event::of(&case.dma(), failure);
    let [_, how, _, other] = &mut event.0;
    match view.of {
        Of::TopTable => *how = READ | STAGE_2 | OF_TABLE,
        Of::Table { .. } => *how = *how & !(STAGE_2 | CLASS | TABLE_READ) | OF_TABLE,
        Of::Output => {}
    }
    let fetch = failure.cause.second_address() == Second::Fetch;
    if !fetch || matches!(view.of, Of::Table { .. }) {
        *other = view.address;
    }
    End::Fault(vec![event])
}
