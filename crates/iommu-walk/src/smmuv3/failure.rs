//! The end of a walk that found no translation, and what its event says.

use super::Cause;
use super::cause::{Gate, Second};
use crate::{Stage, TableMemMut, Updates};
use iopf::{DmaKind, Gpa};

bitflags::bitflags! {
    /// What only an SMMUv3 event needs, and what becomes of the request.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Detail: u8 {
        /// `PnU`: the request was privileged, as the stream table entry has it (PRIVCFG).
        const PRIVILEGED = 1 << 0;
        /// `InD`: an instruction was read, as the stream table entry has it (INSTCFG).
        const INSTRUCTION = 1 << 1;
        /// The request stalls (S or `S2S`): it is not answered before software says how. Only an
        /// untranslated one does.
        const STALL = 1 << 2;
        /// Unless it stalls, the request is not aborted (A of the context descriptor is clear): it reads
        /// zero, and what it writes is ignored.
        const IGNORED = 1 << 3;
        /// Events of the stream that are alike may be merged (MEV).
        const MERGE = 1 << 4;
    }
}

/// Why and where a walk of SMMUv3's tables ended without a translation.
///
/// `hidden`: R or `S2R` is clear, and the request does not stall; or, of a `C_BAD_STREAMID`, RECINVSID is.
/// `level` is counted from 1, the level of pages, to 4; the architecture's own is 4 less that. In
/// `guest_addr` is the input of stage 2, also where that is the only stage.
pub type Failure = crate::Failure<Cause, Detail>;

/// What became of the updates of a walk of SMMUv3's tables.
pub type Applied = crate::Applied<Failure>;

impl Failure {
    /// Whether a request of this kind leaves an event: the condition is one that is recorded, and nothing
    /// suppresses it.
    #[must_use]
    pub const fn recorded(&self, kind: DmaKind) -> bool {
        self.cause.recorded(kind) && !self.hidden
    }

    /// Whether R, `S2R` or RECINVSID suppresses the event.
    #[must_use]
    pub const fn suppressed(&self) -> bool {
        self.hidden
    }

    /// Whether a request of this kind stalls.
    #[must_use]
    pub const fn stalls(&self, kind: DmaKind) -> bool {
        matches!(kind, DmaKind::Untranslated) && self.detail.contains(Detail::STALL)
    }

    /// Whether a request of this kind reads zero and writes nothing, rather than being aborted.
    #[must_use]
    pub const fn ignored(&self, kind: DmaKind) -> bool {
        matches!(kind, DmaKind::Untranslated)
            && self.detail.contains(Detail::IGNORED)
            && !self.detail.contains(Detail::STALL)
    }

    /// The address that the event has besides that of the request: `FetchAddr`, bits 2:0 clear, or IPA.
    /// How many bits of an IPA a record has is for the record to say.
    #[must_use]
    pub fn second_address(&self) -> Option<Gpa> {
        match self.cause.second_address() {
            Second::Nothing => None,
            Second::Fetch => self.entry_addr,
            Second::Intermediate => self.guest_addr,
        }
    }

    /// Puts in what the configuration says of a fault: R, S and A of the stage that is to blame.
    pub(super) const fn gate(&mut self, first: Faults, second: Faults) {
        let faults = match self.cause.gate() {
            Gate::Always => return,
            Gate::First => first,
            Gate::Second => second,
        };
        self.hidden = !faults.record && !faults.stall;
        if faults.stall {
            self.detail = self.detail.union(Detail::STALL);
        }
        if !faults.abort {
            self.detail = self.detail.union(Detail::IGNORED);
        }
    }
}

/// What a fault of one stage leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) record: bool,
    pub(super) stall: bool,
    pub(super) abort: bool,
}

/// Writes what a walk asked for, each entry in one atomic access.
///
/// A walk that failed may have updates too; whether they could be written changes nothing about its
/// failure. `detail` is what is known of the request: see [`Space::detail`](super::Space::detail).
pub fn apply<M: TableMemMut>(updates: &Updates, mem: &M, detail: Detail) -> Applied {
    crate::failure::apply(updates, mem, |stage| {
        let cause = match stage {
            Stage::First => Cause::FirstUpdateFailed,
            Stage::Second => Cause::IpaUpdateFailed,
        };
        Failure::with(cause, detail)
    })
}
