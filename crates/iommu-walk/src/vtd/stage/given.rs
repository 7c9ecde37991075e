//! VT-d's page tables, and what it calls that which can go wrong in them.

use crate::format::{Format, Pages4K, Problem};
use crate::stage::{Marks, Stages};
use crate::trail::Stage;
use crate::vtd::space::Switches;
use crate::vtd::{Cause, Unit};

/// The switches of the address space, and whether the request wants to write.
///
/// As wide as it is loaded: a load that is wider than the store before it has to wait.
#[derive(Clone, Copy)]
pub(crate) struct Given(u32);

impl Given {
    const WRITE: u32 = 1 << 16;

    #[inline(always)]
    pub(crate) const fn new(switches: Switches, write: bool) -> Self {
        let write = if write { Self::WRITE } else { 0 };
        Self(switches.bits() as u32 | write)
    }

    /// Whether any of these switches is on.
    #[inline(always)]
    pub(crate) const fn has(self, switches: Switches) -> bool {
        self.0 & switches.bits() as u32 != 0
    }

    /// Which of two conditions an empty legacy entry is.
    const fn write(self) -> bool {
        self.0 & Self::WRITE != 0
    }
}

impl Stages for Unit {
    type Cause = Cause;
    type Given = Given;
    type Geometry = Pages4K;
    const SKIPS: bool = false;
    const MARK_DENIED: Cause = Cause::FirstEntryWriteDenied;
    const TOO_WIDE: Cause = Cause::FirstEntryWidth;

    #[inline(always)]
    fn first(&self) -> &Format {
        &self.first
    }

    #[inline(always)]
    fn second(&self) -> &Format {
        &self.second
    }

    #[inline(always)]
    fn second_read(&self) -> u64 {
        Self::second_read(self)
    }

    #[inline(always)]
    fn second_write(&self) -> u64 {
        Self::second_write(self)
    }

    #[inline(always)]
    fn beyond(&self, levels: u8) -> u64 {
        self.first.address & !0 << self.input_bits(levels)
    }

    #[inline(always)]
    fn table_rights(&self, accessed: u64) -> u64 {
        // With accessed and dirty flags on, even reading a first-stage table takes write permission.
        let write = if accessed == 0 {
            0
        } else {
            Self::second_write(self)
        };
        Self::second_read(self) | write
    }

    #[inline(always)]
    fn second_marks(&self, given: Given) -> Marks {
        if given.has(Switches::SECOND_ACCESSED) {
            Marks {
                accessed: self.second.accessed,
                dirty: self.second.dirty,
            }
        } else {
            Marks {
                accessed: 0,
                dirty: 0,
            }
        }
    }

    #[inline(always)]
    fn may_mark(&self, given: Given, stage: Stage) -> Result<(), Cause> {
        if self.noncoherent_walks() && !given.has(Switches::COHERENT) {
            return Err(match stage {
                Stage::First => Cause::FirstUpdateNotCoherent,
                Stage::Second => Cause::SecondUpdateNotCoherent,
            });
        }
        Ok(())
    }

    fn blind() -> Given {
        Given::new(Switches::empty(), false)
    }

    #[inline(always)]
    fn hidden(given: Given) -> bool {
        given.has(Switches::FAULTS_HIDDEN)
    }

    fn first_cause(top: bool, problem: Problem) -> Cause {
        match problem {
            Problem::Unreadable if top => Cause::FirstTopUnreadable,
            Problem::Unreadable => Cause::FirstEntryUnreadable,
            Problem::NotPresent => Cause::FirstEntryNotPresent,
            // The others are of entries that name their next level: no entry of VT-d does.
            Problem::Reserved(_) | Problem::Level | Problem::Size | Problem::Skipped => {
                Cause::FirstEntryReserved
            }
        }
    }

    fn second_cause(given: Given, top: bool, problem: Problem) -> Cause {
        let scalable = given.has(Switches::SCALABLE);
        match problem {
            Problem::Unreadable if scalable && top => Cause::SecondTopUnreadable,
            Problem::Unreadable if scalable => Cause::SecondEntryUnreadable,
            Problem::Unreadable if top => Cause::LegacyTopUnreadable,
            Problem::Unreadable => Cause::LegacyEntryUnreadable,
            Problem::NotPresent if scalable => Cause::SecondNoAccess,
            Problem::NotPresent => Self::denied(given, given.write()),
            // See above.
            Problem::Reserved(_) | Problem::Level | Problem::Size | Problem::Skipped => {
                if scalable {
                    Cause::SecondEntryReserved
                } else {
                    Cause::LegacyEntryReserved
                }
            }
        }
    }

    fn denied(given: Given, write: bool) -> Cause {
        match (given.has(Switches::SCALABLE), write) {
            (true, true) => Cause::WriteDenied,
            (true, false) => Cause::ReadDenied,
            (false, true) => Cause::LegacyWriteDenied,
            (false, false) => Cause::LegacyReadDenied,
        }
    }

    fn table_denied(_: Given, top: bool, readable: bool) -> Cause {
        match (readable, top) {
            (true, _) => Cause::FirstEntryWriteDenied,
            (false, true) => Cause::FirstTopReadDenied,
            (false, false) => Cause::FirstEntryReadDenied,
        }
    }
}
