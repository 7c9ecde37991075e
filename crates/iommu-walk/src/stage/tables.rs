//! The tables of each stage, as the walk meets them.

use super::{Lower, Stages, Trip, Under};
use crate::format::{Format, Geometry, Here, Problem, Stop, Tables, descend};
use crate::trail::{Recorder, Stage};
use crate::{PageTable, TableMem, Unreachable};
use iopf::Gpa;

// What follows is taken apart into registers, so it must not be lent to anything out of line: the
// cold functions are those of `Trip`.

/// The first stage on its own: its tables lie straight in memory.
pub(crate) struct First<'t, 'a, U: Stages, M, R> {
    pub(crate) mem: &'a M,
    pub(crate) trip: &'t mut Trip<'a, U, M, R>,
    /// The level of the top table.
    pub(crate) top: u8,
    /// Bits that every entry must have when it has been used.
    pub(crate) accessed: u64,
}

impl<U: Stages, M: TableMem, R: Recorder> Tables for First<'_, '_, U, M, R> {
    #[inline(always)]
    fn locate(&mut self, here: Here) -> Result<u64, Stop> {
        Ok(here.at)
    }

    #[inline(always)]
    fn load(&self, physical: u64) -> Result<u64, Unreachable> {
        self.mem.load(Gpa(physical))
    }

    #[inline(always)]
    fn unusual(&mut self, here: Here, _: u64, raw: u64, leaf: bool) -> Result<(), Stop> {
        if !leaf && self.accessed & !raw != 0 {
            self.trip.mark_first(here, raw, self.accessed)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) {
        self.trip.passed(Stage::First, here, physical, raw, leaf);
    }

    #[inline(always)]
    fn faulty(&mut self, here: Here, physical: u64, raw: u64, problem: Problem) -> Stop {
        let top = self.top;
        self.trip
            .first_faulty(here, physical, raw, top, problem, None)
    }
}

/// The second stage: its tables lie straight in memory.
pub(super) struct Second<'t, 'a, U: Stages, M, R> {
    pub(super) mem: &'a M,
    pub(super) trip: &'t mut Trip<'a, U, M, R>,
    pub(super) top: u8,
    pub(super) accessed: u64,
    /// Bits that the request cannot do without; none, where rights are weighed at the end.
    pub(super) wanted: u64,
    /// The guest physical address under way, in a nested walk.
    pub(super) guest: Option<Gpa>,
}

impl<U: Stages, M: TableMem, R: Recorder> Tables for Second<'_, '_, U, M, R> {
    const SKIPS: bool = U::SKIPS;

    #[inline(always)]
    fn locate(&mut self, here: Here) -> Result<u64, Stop> {
        Ok(here.at)
    }

    #[inline(always)]
    fn load(&self, physical: u64) -> Result<u64, Unreachable> {
        self.mem.load(Gpa(physical))
    }

    #[inline(always)]
    fn unusual(&mut self, here: Here, _: u64, raw: u64, leaf: bool) -> Result<(), Stop> {
        if self.wanted & !raw != 0 {
            let missing = self.wanted & !raw;
            return Err(self.trip.second_refused(here, raw, missing, self.guest));
        }
        if !leaf && !U::SKIPS {
            return self.leads(here, raw);
        }
        Ok(())
    }

    #[inline(always)]
    fn leads(&mut self, here: Here, raw: u64) -> Result<(), Stop> {
        if self.accessed & !raw != 0 {
            self.trip
                .mark_second(here, raw, self.accessed, self.guest)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) {
        self.trip.passed(Stage::Second, here, physical, raw, leaf);
    }

    #[inline(always)]
    fn faulty(&mut self, here: Here, _: u64, raw: u64, problem: Problem) -> Stop {
        self.trip
            .second_faulty(here, raw, self.top, problem, self.guest)
    }
}

/// The first stage over the second: each of its tables is reached through the second.
pub(crate) struct Nested<'t, 'a, 'l, U: Stages, M, R> {
    mem: &'a M,
    trip: &'t mut Trip<'a, U, M, R>,
    /// The level of the first stage's top table.
    top: u8,
    accessed: u64,
    lower: &'l Lower,
    /// Bits of the second stage that reading a first-stage table takes.
    needed: u64,
    /// Address bits that the second stage does not take as input.
    pub(crate) beyond: u64,
    /// The second stage's leaf for the entry read last.
    pub(crate) under: Under,
}

impl<'t, 'a, 'l, U: Stages, M: TableMem, R: Recorder> Nested<'t, 'a, 'l, U, M, R> {
    #[inline(always)]
    pub(crate) fn new(
        trip: &'t mut Trip<'a, U, M, R>,
        first: PageTable,
        lower: &'l Lower,
        accessed: u64,
    ) -> Self {
        let unit = trip.unit;
        Self {
            mem: trip.mem,
            trip,
            top: first.levels,
            accessed,
            lower,
            needed: unit.table_rights(lower.accessed),
            beyond: unit.beyond(lower.table.levels),
            under: Under {
                here: Here { at: 0, level: 0 },
                raw: 0,
                every: 0,
            },
        }
    }
}

impl<U: Stages, M: TableMem, R: Recorder> Tables for Nested<'_, '_, '_, U, M, R> {
    #[inline(always)]
    fn locate(&mut self, here: Here) -> Result<u64, Stop> {
        let at = here.at;
        let leaf = self.trip.second(self.lower, at, Some(Gpa(at)), 0)?;
        let unit = self.trip.unit;
        if self.needed & !leaf.every != 0 {
            let read = leaf.every & unit.second_read() != 0;
            let second = self.lower.table;
            return Err(self.trip.refuse_table(here, self.top, second, read));
        }
        let accessed = self.lower.accessed;
        if accessed & !leaf.raw != 0 {
            self.trip
                .mark_second(leaf.here, leaf.raw, accessed, Some(Gpa(at)))?;
        }
        self.under = Under {
            here: leaf.here,
            raw: leaf.raw,
            every: leaf.every,
        };
        Ok(leaf.address(unit.second(), at))
    }

    #[inline(always)]
    fn load(&self, physical: u64) -> Result<u64, Unreachable> {
        self.mem.load(Gpa(physical))
    }

    #[inline(always)]
    fn unusual(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) -> Result<(), Stop> {
        if !leaf && self.accessed & !raw != 0 {
            let under = self.under;
            self.trip
                .mark_nested(here, physical, raw, &under, self.accessed)?;
        }
        let beyond = raw & self.beyond;
        if beyond != 0 {
            return Err(self.trip.refuse_address(here, physical, raw, beyond));
        }
        Ok(())
    }

    #[inline(always)]
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) {
        self.trip.passed(Stage::First, here, physical, raw, leaf);
    }

    #[inline(always)]
    fn faulty(&mut self, here: Here, physical: u64, raw: u64, problem: Problem) -> Stop {
        let (top, guest) = (self.top, Some(Gpa(here.at)));
        self.trip
            .first_faulty(here, physical, raw, top, problem, guest)
    }
}

/// A stage walked again to find out who refused.
struct Again<T> {
    tables: T,
    bits: u64,
    /// Whether a guilty entry has one of the bits, or lacks them all.
    has: bool,
    /// A page's entry grants, and a table's denies.
    apart: bool,
    found: Option<Entry>,
}

/// An entry that was found: where it is, its physical address, its content.
type Entry = (Here, u64, u64);

impl<T: Tables> Tables for Again<T> {
    const SKIPS: bool = T::SKIPS;

    fn locate(&mut self, here: Here) -> Result<u64, Stop> {
        self.tables.locate(here)
    }
    fn load(&self, physical: u64) -> Result<u64, Unreachable> {
        self.tables.load(physical)
    }
    fn unusual(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) -> Result<(), Stop> {
        self.passed(here, physical, raw, leaf);
        self.tables.unusual(here, physical, raw, leaf)
    }
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) {
        if self.apart && leaf == self.has {
            return;
        }
        if (raw & self.bits != 0) == self.has && self.found.is_none() {
            self.found = Some((here, physical, raw));
        }
    }
    fn faulty(&mut self, here: Here, physical: u64, raw: u64, problem: Problem) -> Stop {
        self.tables.faulty(here, physical, raw, problem)
    }
}

/// Walks from a table, with so many levels, for an input.
#[cold]
pub(super) fn guilty<T: Tables, G: Geometry>(
    format: &Format<G>,
    tables: T,
    (root, levels, input): (u64, u8, u64),
    bits: u64,
    has: bool,
) -> Option<Entry> {
    let mut again = Again {
        tables,
        bits,
        has,
        apart: G::GRANULES,
        found: None,
    };
    // How it ends does not matter: it has been walked before.
    let _ = descend(format, format.usual(0), &mut again, root, levels, input);
    again.found
}
