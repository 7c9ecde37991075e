//! How each stage reaches its tables, what the use of an entry sets, and whom a failure blames.

use crate::format::{Format, Here, Leaf, Problem, Slot, Stop, Tables, Usual, descend};
use crate::trail::{Raw, Recorder, Stage, Step, Table, Updates, Verdict};
use crate::vtd::space::{PageTable, Switches};
use crate::vtd::{Cause, Failure, Unit};
use crate::{TableMem, Unreachable};
use iopf::Gpa;

/// What all stages of one walk share. A method that returns [`Stop`] leaves the reason in `failure`.
pub(super) struct Trip<'a, M, R> {
    pub(super) unit: &'a Unit,
    pub(super) mem: &'a M,
    pub(super) recorder: &'a mut R,
    pub(super) updates: &'a mut Updates,
    pub(super) given: Given,
    pub(super) failure: Option<Failure>,
}

/// The switches of the address space, and whether the request wants to write.
///
/// As wide as it is loaded: a load that is wider than the store before it has to wait.
#[derive(Clone, Copy)]
pub(super) struct Given(u32);

impl Given {
    const WRITE: u32 = 1 << 16;

    #[inline(always)]
    pub(super) const fn new(switches: Switches, write: bool) -> Self {
        let write = if write { Self::WRITE } else { 0 };
        Self(switches.bits() as u32 | write)
    }

    /// Whether any of these switches is on.
    #[inline(always)]
    pub(super) const fn has(self, switches: Switches) -> bool {
        self.0 & switches.bits() as u32 != 0
    }

    /// Which of two conditions an empty legacy entry is.
    const fn write(self) -> bool {
        self.0 & Self::WRITE != 0
    }
}

impl<M: TableMem, R: Recorder> Trip<'_, M, R> {
    /// Ends the walk with no entry to blame.
    #[cold]
    pub(super) fn fail(&mut self, cause: Cause) -> Stop {
        let hidden = self.given.has(Switches::FAULTS_HIDDEN);
        self.failure = Some(Failure::new(cause).hidden(hidden));
        Stop
    }

    /// Ends the walk: `bits` of an entry decided.
    #[cold]
    pub(super) fn blame(
        &mut self,
        cause: Cause,
        stage: Stage,
        slot: &Slot,
        bits: u64,
        guest: Option<Gpa>,
    ) -> Stop {
        self.fail(cause);
        if let Some(failure) = &mut self.failure {
            *failure = failure.at(slot.physical, slot.raw, bits);
            failure.stage = Some(stage);
            failure.level = slot.level;
            failure.guest_addr = guest;
        }
        Stop
    }

    /// Ends the walk at a faulty entry.
    #[cold]
    fn fault(
        &mut self,
        cause: Cause,
        stage: Stage,
        slot: &Slot,
        problem: Problem,
        guest: Option<Gpa>,
    ) -> Stop {
        let format = match stage {
            Stage::First => &self.unit.first,
            Stage::Second => &self.unit.second,
        };
        let (bits, verdict) = match problem {
            Problem::Unreadable => (0, Verdict::Unreadable),
            Problem::NotPresent => (format.present, Verdict::NotPresent),
            Problem::Reserved(bits) => (bits, Verdict::Reserved),
        };
        self.record(stage, slot, verdict);
        self.blame(cause, stage, slot, bits, guest);
        if let (Problem::Unreadable, Some(failure)) = (problem, &mut self.failure) {
            failure.entry = None;
        }
        Stop
    }

    /// Ends the walk with a refusal, and finds out which entry it is due to. The guest may have
    /// changed its tables since; then nobody is.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        cause: Cause,
        stage: Stage,
        guilty: Option<Slot>,
        bits: u64,
        guest: Option<Gpa>,
    ) -> Stop {
        match guilty {
            Some(slot) => self.blame(cause, stage, &slot, bits, guest),
            None => {
                self.fail(cause);
                if let Some(failure) = &mut self.failure {
                    failure.guest_addr = guest;
                }
                Stop
            }
        }
    }

    #[inline(always)]
    pub(super) fn record(&mut self, stage: Stage, slot: &Slot, verdict: Verdict) {
        if R::ACTIVE {
            let read = verdict != Verdict::Unreadable;
            self.recorder.step(&Step {
                table: match stage {
                    Stage::First => Table::FirstStage,
                    Stage::Second => Table::SecondStage,
                },
                level: slot.level,
                index: slot.index,
                addr: slot.physical,
                guest_addr: (slot.at != slot.physical).then_some(slot.at),
                raw: if read {
                    Raw::new(&[slot.raw])
                } else {
                    Raw::NONE
                },
                verdict,
            });
        }
    }

    #[inline(always)]
    fn passed(&mut self, stage: Stage, here: Here, physical: u64, raw: u64, leaf: bool) {
        if R::ACTIVE {
            let format = match stage {
                Stage::First => &self.unit.first,
                Stage::Second => &self.unit.second,
            };
            let verdict = if leaf { Verdict::Leaf } else { Verdict::Next };
            self.record(stage, &here.slot(format, physical, raw), verdict);
        }
    }

    /// Asks for bits that an entry lacks.
    #[cold]
    pub(super) fn mark(
        &mut self,
        stage: Stage,
        slot: &Slot,
        bits: u64,
        guest: Option<Gpa>,
    ) -> Result<(), Stop> {
        if self.unit.noncoherent_walks() && !self.given.has(Switches::COHERENT) {
            let cause = match stage {
                Stage::First => Cause::FirstUpdateNotCoherent,
                Stage::Second => Cause::SecondUpdateNotCoherent,
            };
            return Err(self.blame(cause, stage, slot, bits & !slot.raw, guest));
        }
        self.updates.add(stage, slot.physical, slot.raw, bits);
        Ok(())
    }

    /// Asks for bits of a first-stage entry, which is a write as the second stage sees it; `under`
    /// is the second stage's leaf for that entry.
    #[cold]
    pub(super) fn mark_nested(
        &mut self,
        here: Here,
        physical: u64,
        raw: u64,
        under: &Under,
        bits: u64,
    ) -> Result<(), Stop> {
        let slot = here.slot(&self.unit.first, physical, raw);
        let guest = Some(slot.at);
        if under.every & self.unit.second_write() == 0 {
            let cause = Cause::FirstEntryWriteDenied;
            return Err(self.blame(cause, Stage::First, &slot, bits & !raw, guest));
        }
        let second = &self.unit.second;
        let dirty = second.accessed | second.dirty;
        if self.given.has(Switches::SECOND_ACCESSED) && dirty & !under.raw != 0 {
            self.mark_second(under.here, under.raw, dirty, guest)?;
        }
        self.mark(Stage::First, &slot, bits, guest)
    }

    /// Prepares walks of the second stage from this table.
    #[inline(always)]
    pub(super) fn lower(&self, table: PageTable) -> Lower {
        let second = &self.unit.second;
        let accessed = if self.given.has(Switches::SECOND_ACCESSED) {
            second.accessed
        } else {
            0
        };
        Lower {
            table,
            accessed,
            usual: second.usual(accessed),
        }
    }

    /// Walks the second stage; it has to grant something.
    #[inline(always)]
    pub(super) fn second(
        &mut self,
        lower: &Lower,
        input: u64,
        guest: Option<Gpa>,
    ) -> Result<Leaf, Stop> {
        let unit = self.unit;
        let mut tables = Second {
            mem: self.mem,
            trip: self,
            top: lower.table.levels,
            accessed: lower.accessed,
            guest,
        };
        let (root, levels) = (lower.table.root.0, lower.table.levels);
        let leaf = descend(&unit.second, lower.usual, &mut tables, root, levels, input)?;
        if leaf.every & unit.second.present == 0 {
            return Err(self.nothing_in_common(leaf.here, leaf.raw, guest));
        }
        Ok(leaf)
    }

    /// Every second-stage entry grants something, but no right is granted by all.
    #[cold]
    fn nothing_in_common(&mut self, here: Here, raw: u64, guest: Option<Gpa>) -> Stop {
        let format = &self.unit.second;
        let slot = here.slot(format, here.at, raw);
        let cause = self.second_cause(false, Problem::NotPresent);
        let bits = format.present & !raw;
        self.blame(cause, Stage::Second, &slot, bits, guest)
    }

    fn second_cause(&self, top: bool, problem: Problem) -> Cause {
        if self.given.has(Switches::SCALABLE) {
            match problem {
                Problem::Unreadable if top => Cause::SecondTopUnreadable,
                Problem::Unreadable => Cause::SecondEntryUnreadable,
                Problem::NotPresent => Cause::SecondNoAccess,
                Problem::Reserved(_) => Cause::SecondEntryReserved,
            }
        } else {
            match problem {
                Problem::Unreadable if top => Cause::LegacyTopUnreadable,
                Problem::Unreadable => Cause::LegacyEntryUnreadable,
                Problem::NotPresent if self.given.write() => Cause::LegacyWriteDenied,
                Problem::NotPresent => Cause::LegacyReadDenied,
                Problem::Reserved(_) => Cause::LegacyEntryReserved,
            }
        }
    }

    /// Ends the walk at a faulty second-stage entry.
    #[cold]
    fn second_faulty(
        &mut self,
        here: Here,
        raw: u64,
        top: u8,
        problem: Problem,
        guest: Option<Gpa>,
    ) -> Stop {
        let slot = here.slot(&self.unit.second, here.at, raw);
        let cause = self.second_cause(here.level == top, problem);
        self.fault(cause, Stage::Second, &slot, problem, guest)
    }

    /// Asks for bits of a second-stage entry.
    #[cold]
    pub(super) fn mark_second(
        &mut self,
        here: Here,
        raw: u64,
        bits: u64,
        guest: Option<Gpa>,
    ) -> Result<(), Stop> {
        let slot = here.slot(&self.unit.second, here.at, raw);
        self.mark(Stage::Second, &slot, bits, guest)
    }

    /// Ends the walk at a faulty first-stage entry.
    #[cold]
    fn first_faulty(
        &mut self,
        here: Here,
        physical: u64,
        raw: u64,
        top: u8,
        problem: Problem,
        guest: Option<Gpa>,
    ) -> Stop {
        let slot = here.slot(&self.unit.first, physical, raw);
        let cause = match problem {
            Problem::Unreadable if here.level == top => Cause::FirstTopUnreadable,
            Problem::Unreadable => Cause::FirstEntryUnreadable,
            Problem::NotPresent => Cause::FirstEntryNotPresent,
            Problem::Reserved(_) => Cause::FirstEntryReserved,
        };
        self.fault(cause, Stage::First, &slot, problem, guest)
    }

    /// Asks for bits of a first-stage entry.
    #[cold]
    pub(super) fn mark_first(&mut self, here: Here, raw: u64, bits: u64) -> Result<(), Stop> {
        let slot = here.slot(&self.unit.first, here.at, raw);
        self.mark(Stage::First, &slot, bits, None)
    }

    /// The second stage does not grant what reading a first-stage table takes.
    #[cold]
    fn refuse_table(&mut self, here: Here, top: u8, second: PageTable, read: bool) -> Stop {
        let unit = self.unit;
        let (cause, bits) = match (read, here.level == top) {
            (true, _) => (Cause::FirstEntryWriteDenied, unit.second_write()),
            (false, true) => (Cause::FirstTopReadDenied, unit.second_read()),
            (false, false) => (Cause::FirstEntryReadDenied, unit.second_read()),
        };
        let guilty = self.guilty_second(second, here.at, bits);
        self.refuse(cause, Stage::Second, guilty, bits, Some(Gpa(here.at)))
    }

    /// An entry holds an address that the second stage does not take as input.
    #[cold]
    fn refuse_address(&mut self, here: Here, physical: u64, raw: u64, bits: u64) -> Stop {
        let slot = here.slot(&self.unit.first, physical, raw);
        self.record(Stage::First, &slot, Verdict::Invalid);
        let guest = Some(slot.at);
        self.blame(Cause::FirstEntryWidth, Stage::First, &slot, bits, guest)
    }

    /// Walks the second stage for the first entry that lacks `bits`, without leaving a trace.
    #[cold]
    pub(super) fn guilty_second(&self, table: PageTable, input: u64, bits: u64) -> Option<Slot> {
        let mut trip = self.silent();
        let mut trip = trip.trip();
        let tables = Second {
            mem: trip.mem,
            trip: &mut trip,
            top: table.levels,
            accessed: 0,
            guest: None,
        };
        guilty(&self.unit.second, tables, table, input, bits, false)
    }

    /// Walks the first stage for the first entry that lacks `bits`, or has one if `has`.
    #[cold]
    pub(super) fn guilty_first(
        &self,
        first: PageTable,
        second: Option<PageTable>,
        input: u64,
        bits: u64,
        has: bool,
    ) -> Option<Slot> {
        let mut trip = self.silent();
        let mut trip = trip.trip();
        let format = &self.unit.first;
        match second {
            None => {
                let tables = First {
                    mem: trip.mem,
                    trip: &mut trip,
                    top: first.levels,
                    accessed: 0,
                };
                guilty(format, tables, first, input, bits, has)
            }
            Some(second) => {
                let lower = trip.lower(second);
                let tables = Nested::new(&mut trip, first, &lower, 0);
                guilty(format, tables, first, input, bits, has)
            }
        }
    }

    fn silent(&self) -> Silent<'_, M> {
        Silent {
            unit: self.unit,
            mem: self.mem,
            recorder: (),
            updates: Updates::new(),
        }
    }
}

/// What a walk needs that records nothing and changes nothing.
struct Silent<'a, M> {
    unit: &'a Unit,
    mem: &'a M,
    recorder: (),
    updates: Updates,
}

impl<M: TableMem> Silent<'_, M> {
    fn trip(&mut self) -> Trip<'_, M, ()> {
        Trip {
            unit: self.unit,
            mem: self.mem,
            recorder: &mut self.recorder,
            updates: &mut self.updates,
            given: Given::new(Switches::empty(), false),
            failure: None,
        }
    }
}

/// The second stage as a walk needs it, prepared once for all that a nested walk takes.
pub(super) struct Lower {
    pub(super) table: PageTable,
    /// The bits that the use of an entry sets.
    pub(super) accessed: u64,
    usual: Usual,
}

/// The second stage's leaf for a first-stage entry.
#[derive(Clone, Copy)]
pub(super) struct Under {
    here: Here,
    raw: u64,
    every: u64,
}

// What follows is taken apart into registers, so it must not be lent to anything out of line: the
// cold functions are those of `Trip`.

/// The first stage on its own: its tables lie straight in memory.
pub(super) struct First<'t, 'a, M, R> {
    pub(super) mem: &'a M,
    pub(super) trip: &'t mut Trip<'a, M, R>,
    /// The level of the top table.
    pub(super) top: u8,
    /// Bits that every entry must have when it has been used.
    pub(super) accessed: u64,
}

impl<M: TableMem, R: Recorder> Tables for First<'_, '_, M, R> {
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
struct Second<'t, 'a, M, R> {
    mem: &'a M,
    trip: &'t mut Trip<'a, M, R>,
    top: u8,
    accessed: u64,
    /// The guest physical address under way, in a nested walk.
    guest: Option<Gpa>,
}

impl<M: TableMem, R: Recorder> Tables for Second<'_, '_, M, R> {
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
pub(super) struct Nested<'t, 'a, 'l, M, R> {
    mem: &'a M,
    trip: &'t mut Trip<'a, M, R>,
    /// The level of the first stage's top table.
    top: u8,
    accessed: u64,
    lower: &'l Lower,
    /// Bits of the second stage that reading a first-stage table takes.
    needed: u64,
    /// Address bits that the second stage does not take as input.
    pub(super) beyond: u64,
    /// The second stage's leaf for the entry read last.
    pub(super) under: Under,
}

impl<'t, 'a, 'l, M: TableMem, R: Recorder> Nested<'t, 'a, 'l, M, R> {
    #[inline(always)]
    pub(super) fn new(
        trip: &'t mut Trip<'a, M, R>,
        first: PageTable,
        lower: &'l Lower,
        accessed: u64,
    ) -> Self {
        let unit = trip.unit;
        // With accessed and dirty flags on, even reading a first-stage table takes write permission.
        let write = if lower.accessed == 0 {
            0
        } else {
            unit.second_write()
        };
        Self {
            mem: trip.mem,
            trip,
            top: first.levels,
            accessed,
            lower,
            needed: unit.second_read() | write,
            beyond: unit.first.address & !0 << unit.input_bits(lower.table.levels),
            under: Under {
                here: Here { at: 0, level: 0 },
                raw: 0,
                every: 0,
            },
        }
    }
}

impl<M: TableMem, R: Recorder> Tables for Nested<'_, '_, '_, M, R> {
    #[inline(always)]
    fn locate(&mut self, here: Here) -> Result<u64, Stop> {
        let at = here.at;
        let leaf = self.trip.second(self.lower, at, Some(Gpa(at)))?;
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
        Ok(leaf.address(&unit.second, at))
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
struct Again<'f, T> {
    format: &'f Format,
    tables: T,
    bits: u64,
    /// Whether a guilty entry has one of the bits, or lacks them all.
    has: bool,
    found: Option<Slot>,
}

impl<T: Tables> Tables for Again<'_, T> {
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
    fn passed(&mut self, here: Here, physical: u64, raw: u64, _: bool) {
        if (raw & self.bits != 0) == self.has && self.found.is_none() {
            self.found = Some(here.slot(self.format, physical, raw));
        }
    }
    fn faulty(&mut self, here: Here, physical: u64, raw: u64, problem: Problem) -> Stop {
        self.tables.faulty(here, physical, raw, problem)
    }
}

#[cold]
fn guilty<T: Tables>(
    format: &Format,
    tables: T,
    table: PageTable,
    input: u64,
    bits: u64,
    has: bool,
) -> Option<Slot> {
    let mut again = Again {
        format,
        tables,
        bits,
        has,
        found: None,
    };
    let (root, levels) = (table.root.0, table.levels);
    // How it ends does not matter: it has been walked before.
    let _ = descend(format, format.usual(0), &mut again, root, levels, input);
    again.found
}
