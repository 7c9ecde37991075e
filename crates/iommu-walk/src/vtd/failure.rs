//! The end of a walk that found no translation.

use super::Cause;
use crate::{Stage, TableMemMut, Updates};
use iopf::DmaKind;

/// Why and where a walk of VT-d's tables ended without a translation.
pub type Failure = crate::Failure<Cause>;

/// What became of the updates of a walk of VT-d's tables.
pub type Applied = crate::Applied<Failure>;

impl Failure {
    /// Whether a request of this kind leaves a fault record: the condition is one that is recorded,
    /// and FPD does not suppress it.
    #[must_use]
    pub const fn recorded(&self, kind: DmaKind) -> bool {
        self.cause.recorded(kind) && !self.suppressed()
    }

    /// Whether FPD suppresses the record.
    #[must_use]
    pub const fn suppressed(&self) -> bool {
        self.hidden && self.cause.qualified()
    }
}

/// Sets the bits a walk asked for, each entry in one atomic access.
///
/// A walk that failed may have updates too; whether they could be set changes nothing about its
/// failure. `hidden` is the walk's [`Switches::FAULTS_HIDDEN`](super::Switches::FAULTS_HIDDEN).
pub fn apply<M: TableMemMut>(updates: &Updates, mem: &M, hidden: bool) -> Applied {
    crate::failure::apply(updates, mem, |stage| {
        let cause = match stage {
            Stage::First => Cause::FirstUpdateFailed,
            Stage::Second => Cause::SecondUpdateFailed,
        };
        Failure::new(cause).hidden(hidden)
    })
}
