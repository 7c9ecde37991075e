//! A log: a ring in guest memory that the unit writes, with its pointers, status bits and interrupt.
//! The event log and the PPR log are both one.
//!
//! Spec: 48882, "Event Logging", "Peripheral Page Request (PPR) Logging", "Command and Event Log Pointer
//! Registers". Where software may only write while a log stands still, what it writes while the log runs
//! is ignored, as VirtualBox does (`DevIommuAmd.cpp`).

use crate::arch::Ram;
use crate::mem::GuestRam;
use iommu_wire::amdvi::regs::{RingBase, RingPointer};
use iopf::Gpa;

/// An interrupt condition behind its enable bit. It is raised when both have come true, and again
/// only after one of them was not.
#[derive(Debug, Default)]
pub(super) struct Line {
    enabled: bool,
    raised: bool,
}

impl Line {
    /// The condition is now `is`. Says whether an interrupt is due.
    #[must_use]
    pub(super) fn condition(&mut self, is: bool) -> bool {
        let now = is && self.enabled;
        let due = now && !self.raised;
        self.raised = now;
        due
    }

    /// The enable bit, while the condition is `is`. Says whether an interrupt is due.
    #[must_use]
    pub(super) fn enable(&mut self, on: bool, is: bool) -> bool {
        self.enabled = on;
        self.condition(is)
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// It lies in the log. `true`: an interrupt is due.
    Yes(bool),
    /// There was no room: the log has overflowed and stands still. `true`: an interrupt is due.
    Overflow(bool),
    /// The log stands still, or there is no memory behind it.
    Off,
}

/// A log.
///
/// It is full when one more entry would make the tail equal to the head. An entry that finds it full
/// sets the overflow bit and stops the log; entries are lost until software switches it off and on. One
/// that is lost after software has cleared the bit sets it again (UNCONFIRMED): Linux clears it together
/// with the others, and would never hear of an overflow that came in between
/// (`amd_iommu_handle_irq`).
#[derive(Debug, Default)]
pub(super) struct Log {
    base: RingBase,
    head: u16,
    tail: u16,
    on: bool,
    running: bool,
    /// It stands still because it has overflowed.
    stalled: bool,
    overflow: bool,
    logged: bool,
    line: Line,
}

/// Bytes of an entry.
const ENTRY: u64 = 16;

impl Log {
    /// Switches the log on or off. Coming on, it starts to run, and an overflow is over.
    pub(super) fn switch(&mut self, on: bool) {
        if on != self.on {
            self.stalled = false;
            self.overflow &= !on;
            self.running = on && self.base.entries().is_some();
        }
        self.on = on;
    }

    /// The interrupt enable bit. Says whether an interrupt is due.
    #[must_use]
    pub(super) fn enable_interrupt(&mut self, on: bool) -> bool {
        let pending = self.pending();
        self.line.enable(on, pending)
    }

    const fn pending(&self) -> bool {
        self.logged || self.overflow
    }

    /// Puts an entry into the log, low word first. The tail moves after the entry lies in memory, whose
    /// low word, with the code that Linux waits for, is written last.
    #[inline]
    pub(super) fn push<A: Ram>(&mut self, ram: &GuestRam<A>, entry: [u64; 2]) -> Logged {
        let (true, Some(entries)) = (self.running, self.base.entries()) else {
            return self.refuse();
        };
        let next = (self.tail + 1) & (entries - 1);
        if next == self.head {
            self.overflow = true;
            self.running = false;
            self.stalled = true;
            let pending = self.pending();
            return Logged::Overflow(self.line.condition(pending));
        }
        let written = self.place().map(|at| ram.store_words(at, entry));
        if !matches!(written, Some(Ok(()))) {
            return Logged::Off;
        }
        self.tail = next;
        self.logged = true;
        let pending = self.pending();
        Logged::Yes(self.line.condition(pending))
    }

    /// An entry comes while the log stands still.
    #[cold]
    fn refuse(&mut self) -> Logged {
        if !self.stalled || self.overflow {
            return Logged::Off;
        }
        self.overflow = true;
        let pending = self.pending();
        Logged::Overflow(self.line.condition(pending))
    }

    fn place(&self) -> Option<Gpa> {
        let offset = u64::from(self.tail) * ENTRY;
        self.base.base().checked_add(offset)
    }

    /// Whether entries can be logged: EventLogRun, PprLogRun.
    pub(super) const fn running(&self) -> bool {
        self.running
    }
    /// Whether it stands still because it has overflowed, whatever became of the overflow bit.
    pub(super) const fn stalled(&self) -> bool {
        self.stalled
    }
    /// EventOverflow, PprOverflow.
    pub(super) const fn overflow(&self) -> bool {
        self.overflow
    }
    /// EventLogInt, PprInt.
    pub(super) const fn logged(&self) -> bool {
        self.logged
    }

    /// Software writes ones to status bits.
    pub(super) fn clear(&mut self, overflow: bool, logged: bool) {
        self.overflow &= !overflow;
        self.logged &= !logged;
        let pending = self.pending();
        // What is cleared raises nothing.
        let _ = self.line.condition(pending);
    }

    /// The base address register.
    pub(super) const fn base(&self) -> u64 {
        self.base.into_bits()
    }
    /// The head pointer register.
    pub(super) fn head(&self) -> u64 {
        RingPointer::new().with_index(self.head).into_bits()
    }
    /// The tail pointer register.
    pub(super) fn tail(&self) -> u64 {
        RingPointer::new().with_index(self.tail).into_bits()
    }

    /// Writes the base address register: both pointers return to the start.
    pub(super) fn set_base(&mut self, value: u64) {
        if !self.running {
            self.base = ring_base(value);
            self.head = 0;
            self.tail = 0;
        }
    }

    /// Writes the head pointer register.
    pub(super) fn set_head(&mut self, value: u64) {
        if let Some(index) = ring_index(self.base, value) {
            self.head = index;
        }
    }

    /// Writes the tail pointer register, as software does before it switches the log on.
    pub(super) fn set_tail(&mut self, value: u64) {
        if let (false, Some(index)) = (self.running, ring_index(self.base, value)) {
            self.tail = index;
        }
    }
}

/// The fields of a ring's base address register.
pub(super) const fn ring_base(value: u64) -> RingBase {
    let value = RingBase::from_bits(value);
    RingBase::new()
        .with_page(value.page())
        .with_length(value.length())
}

/// The index that a pointer register is written with, unless it lies outside the ring. A ring without
/// a length takes every index: it cannot run.
pub(super) fn ring_index(base: RingBase, value: u64) -> Option<u16> {
    let index = RingPointer::from_bits(value).index();
    base.entries()
        .is_none_or(|entries| index < entries)
        .then_some(index)
}

#[cfg(test)]
mod tests;
