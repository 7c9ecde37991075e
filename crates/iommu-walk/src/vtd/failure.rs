//! The end of a walk that found no translation.

use super::Cause;
use crate::{Stage, TableMemMut, Updates};
use iopf::{DmaKind, Gpa};

/// Why and where a walk ended without a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The condition.
    pub cause: Cause,
    /// FPD was set in an entry on the path.
    pub hidden: bool,
    /// The page-table level, 1 being the lowest; 0 where no page table is to blame.
    pub level: u8,
    /// The stage whose page table is to blame, if one is.
    pub stage: Option<Stage>,
    /// The entry to blame, as a physical address.
    pub entry_addr: Option<Gpa>,
    /// The word of that entry that decided, as it was read; `None` where it could not be read.
    pub entry: Option<u64>,
    /// The bits of `entry` that decided: reserved ones that are set, a field with a value that will
    /// not do, or ones that would have to be set and are not.
    pub bits: u64,
    /// In a nested walk, the guest physical address under way: of a first-stage entry, or of the
    /// page.
    pub guest_addr: Option<Gpa>,
}

impl Failure {
    /// A failure that no entry is to blame for.
    #[must_use]
    #[cold]
    pub const fn new(cause: Cause) -> Self {
        Self {
            cause,
            hidden: false,
            level: 0,
            stage: None,
            entry_addr: None,
            entry: None,
            bits: 0,
            guest_addr: None,
        }
    }

    /// Blames a word of an entry.
    #[must_use]
    pub(crate) const fn at(mut self, addr: Gpa, word: u64, bits: u64) -> Self {
        self.entry_addr = Some(addr);
        self.entry = Some(word);
        self.bits = bits;
        self
    }

    /// Blames an entry that could not be read.
    #[must_use]
    pub(crate) const fn unreadable(mut self, addr: Gpa) -> Self {
        self.entry_addr = Some(addr);
        self
    }

    #[must_use]
    pub(crate) const fn hidden(mut self, hidden: bool) -> Self {
        self.hidden = hidden;
        self
    }

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

/// What became of the updates of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Every bit is set.
    Done,
    /// The guest changed an entry meanwhile: walk again.
    Retry,
    /// An entry could not be written.
    Failed(Failure),
}

/// Sets the bits a walk asked for, each entry in one atomic access.
///
/// A walk that failed may have updates too; whether they could be set changes nothing about its
/// failure. `hidden` is the walk's [`Switches::FAULTS_HIDDEN`](super::Switches::FAULTS_HIDDEN).
pub fn apply<M: TableMemMut>(updates: &Updates, mem: &M, hidden: bool) -> Applied {
    for update in updates.as_slice() {
        match mem.compare_exchange(update.addr, update.old, update.new) {
            Ok(true) => {}
            Ok(false) => return Applied::Retry,
            Err(_) => {
                let cause = match update.stage {
                    Stage::First => Cause::FirstUpdateFailed,
                    Stage::Second => Cause::SecondUpdateFailed,
                };
                let mut failure = Failure::new(cause).hidden(hidden).at(
                    update.addr,
                    update.old,
                    update.new & !update.old,
                );
                failure.stage = Some(update.stage);
                return Applied::Failed(failure);
            }
        }
    }
    Applied::Done
}
