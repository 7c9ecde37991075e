//! AMD-Vi's page tables, and what it calls that which can go wrong in them.

use crate::amdvi::{Cause, Switches, Unit};
use crate::format::{Format, Pages4K, Problem};
use crate::stage::{Marks, Stages};
use crate::trail::Stage;
use iommu_wire::amdvi::pte::HostEntry;

/// The switches of the device table entry.
///
/// As wide as it is loaded: a load that is wider than the store before it has to wait.
#[derive(Clone, Copy)]
pub(crate) struct Given(u32);

impl Given {
    #[inline(always)]
    pub(crate) const fn new(switches: Switches) -> Self {
        Self(switches.bits() as u32)
    }

    /// Whether any of these switches is on.
    #[inline(always)]
    pub(crate) const fn has(self, switches: Switches) -> bool {
        self.0 & switches.bits() as u32 != 0
    }
}

impl Stages for Unit {
    type Cause = Cause;
    type Given = Given;
    type Geometry = Pages4K;
    const SKIPS: bool = true;
    const MARK_DENIED: Cause = Cause::GuestTableWriteDenied;
    const TOO_WIDE: Cause = Cause::GuestEntryWidth;

    #[inline(always)]
    fn first(&self) -> &Format {
        &self.guest
    }

    #[inline(always)]
    fn second(&self) -> &Format {
        &self.host
    }

    #[inline(always)]
    fn second_read(&self) -> u64 {
        HostEntry::READ
    }

    #[inline(always)]
    fn second_write(&self) -> u64 {
        HostEntry::WRITE
    }

    #[inline(always)]
    fn beyond(&self, levels: u8) -> u64 {
        self.guest.address & !0 << self.input_bits(levels)
    }

    #[inline(always)]
    fn table_rights(&self, _: u64) -> u64 {
        HostEntry::READ
    }

    #[inline(always)]
    fn second_marks(&self, given: Given) -> Marks {
        let when = |switch, bit| if given.has(switch) { bit } else { 0 };
        Marks {
            accessed: when(Switches::HOST_ACCESSED, HostEntry::ACCESSED),
            dirty: when(Switches::HOST_DIRTY, HostEntry::DIRTY),
        }
    }

    #[inline(always)]
    fn may_mark(&self, _: Given, _: Stage) -> Result<(), Cause> {
        Ok(())
    }

    fn blind() -> Given {
        Given::new(Switches::empty())
    }

    #[inline(always)]
    fn hidden(given: Given) -> bool {
        given.has(Switches::FAULTS_HIDDEN)
    }

    fn first_cause(_: bool, problem: Problem) -> Cause {
        match problem {
            Problem::Unreadable => Cause::GuestEntryUnreadable,
            Problem::NotPresent => Cause::GuestEntryNotPresent,
            // The others are of entries that name their next level: none of a guest table does.
            Problem::Reserved(_) | Problem::Level | Problem::Size | Problem::Skipped => {
                Cause::GuestEntryReserved
            }
        }
    }

    fn second_cause(_: Given, _: bool, problem: Problem) -> Cause {
        match problem {
            Problem::Unreadable => Cause::HostEntryUnreadable,
            Problem::NotPresent => Cause::HostEntryNotPresent,
            Problem::Reserved(_) => Cause::HostEntryReserved,
            Problem::Level => Cause::HostLevel,
            Problem::Size => Cause::HostPageSize,
            Problem::Skipped => Cause::HostSkippedLevels,
        }
    }

    fn denied(_: Given, write: bool) -> Cause {
        if write {
            Cause::HostWriteDenied
        } else {
            Cause::HostReadDenied
        }
    }

    fn table_denied(_: Given, _: bool, readable: bool) -> Cause {
        if readable {
            Cause::GuestTableWriteDenied
        } else {
            Cause::GuestTableReadDenied
        }
    }
}
