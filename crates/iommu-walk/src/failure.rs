//! The end of a walk that found no translation, and what becomes of a walk's updates.

use crate::{Stage, TableMemMut, Update, Updates};
use iopf::Gpa;

/// Why and where a walk ended without a translation.
///
/// `C` is an architecture's list of conditions; `D` what only its record needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<C, D = ()> {
    /// The condition.
    pub cause: C,
    /// The tables ask for no record of conditions that may be suppressed (VT-d: FPD was set in an
    /// entry on the path; AMD-Vi: SA of the device table entry).
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
    /// What only this architecture's record needs.
    pub detail: D,
}

impl<C: Copy> Failure<C> {
    /// A failure that no entry is to blame for.
    #[must_use]
    #[cold]
    pub const fn new(cause: C) -> Self {
        Self::with(cause, ())
    }

    /// The same failure with an architecture's own detail.
    #[must_use]
    pub(crate) fn detailed<D>(&self, detail: D) -> Failure<C, D> {
        Failure {
            cause: self.cause,
            hidden: self.hidden,
            level: self.level,
            stage: self.stage,
            entry_addr: self.entry_addr,
            entry: self.entry,
            bits: self.bits,
            guest_addr: self.guest_addr,
            detail,
        }
    }
}

impl<C: Copy, D: Copy> Failure<C, D> {
    /// A failure that no entry is to blame for, with an architecture's own detail.
    #[must_use]
    #[cold]
    pub const fn with(cause: C, detail: D) -> Self {
        Self {
            cause,
            hidden: false,
            level: 0,
            stage: None,
            entry_addr: None,
            entry: None,
            bits: 0,
            guest_addr: None,
            detail,
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

    /// Blames an entry whose bits could not be set.
    #[must_use]
    pub(crate) const fn unset(mut self, update: &Update) -> Self {
        self.stage = Some(update.stage);
        self.at(update.addr, update.old, update.new ^ update.old)
    }
}

/// How a request that met a fault condition is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Completion {
    /// Unsupported Request.
    UnsupportedRequest,
    /// Completer Abort.
    CompleterAbort,
    /// A translation request succeeds, without read and write permission.
    NoAccess,
}

/// What became of the updates of a walk; `F` is the architecture's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied<F> {
    /// Every bit is set.
    Done,
    /// The guest changed an entry meanwhile: walk again.
    Retry,
    /// An entry could not be written.
    Failed(F),
}

/// Sets the bits a walk asked for, each entry in one atomic access; `failure` is told the stage
/// whose entry could not be written.
pub(crate) fn apply<M: TableMemMut, C: Copy, D: Copy>(
    updates: &Updates,
    mem: &M,
    failure: impl FnOnce(Stage) -> Failure<C, D>,
) -> Applied<Failure<C, D>> {
    for update in updates.as_slice() {
        match mem.compare_exchange(update.addr, update.old, update.new) {
            Ok(true) => {}
            Ok(false) => return Applied::Retry,
            Err(_) => return Applied::Failed(failure(update.stage).unset(update)),
        }
    }
    Applied::Done
}
