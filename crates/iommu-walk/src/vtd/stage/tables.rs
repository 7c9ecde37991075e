//! How each stage reaches its tables, what the use of an entry sets, and whom a failure blames.

use crate::format::{Format, Here, Leaf, Problem, Slot, Stop, Tables, descend};
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
    pub(super) switches: Switches,
    /// The request wants to write: which of two conditions an empty legacy entry is.
    pub(super) write: bool,
    pub(super) failure: Option<Failure>,
}

impl<M: TableMem, R: Recorder> Trip<'_, M, R> {
    /// Ends the walk with no entry to blame.
    #[cold]
    pub(super) fn fail(&mut self, cause: Cause) -> Stop {
        let hidden = self.switches.contains(Switches::FAULTS_HIDDEN);
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
        if self.unit.noncoherent_walks() && !self.switches.contains(Switches::COHERENT) {
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
        slot: &Slot,
        under: Option<&Leaf>,
        bits: u64,
    ) -> Result<(), Stop> {
        let guest = Some(slot.at);
        if let Some(leaf) = under {
            if leaf.every & self.unit.second_write() == 0 {
                let cause = Cause::FirstEntryWriteDenied;
                return Err(self.blame(cause, Stage::First, slot, bits & !slot.raw, guest));
            }
            let second = &self.unit.second;
            let dirty = second.accessed | second.dirty;
            if self.switches.contains(Switches::SECOND_ACCESSED) && dirty & !leaf.raw != 0 {
                let below = leaf.slot(second);
                self.mark(Stage::Second, &below, dirty, guest)?;
            }
        }
        self.mark(Stage::First, slot, bits, guest)
    }

    /// The bits that the use of a second-stage entry sets.
    #[inline(always)]
    pub(super) fn second_accessed(&self) -> u64 {
        if self.switches.contains(Switches::SECOND_ACCESSED) {
            self.unit.second.accessed
        } else {
            0
        }
    }

    /// Walks the second stage; it has to grant something.
    #[inline(always)]
    pub(super) fn second(
        &mut self,
        table: PageTable,
        input: u64,
        guest: Option<Gpa>,
    ) -> Result<Leaf, Stop> {
        let unit = self.unit;
        let accessed = self.second_accessed();
        let mut tables = Second {
            trip: self,
            top: table.levels,
            accessed,
            guest,
        };
        let (root, levels) = (table.root.0, table.levels);
        let usual = unit.second.usual(accessed);
        let leaf = descend(&unit.second, usual, &mut tables, root, levels, input)?;
        if leaf.every & unit.second.present == 0 {
            return Err(tables.nothing_in_common(&leaf));
        }
        Ok(leaf)
    }

    /// Walks the second stage for the first entry that lacks `bits`, without leaving a trace.
    #[cold]
    pub(super) fn guilty_second(&self, table: PageTable, input: u64, bits: u64) -> Option<Slot> {
        let mut trip = self.silent();
        let mut trip = trip.trip();
        let tables = Second {
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
                    trip: &mut trip,
                    top: first.levels,
                    accessed: 0,
                };
                guilty(format, tables, first, input, bits, has)
            }
            Some(second) => {
                let tables = Nested {
                    top: first.levels,
                    accessed: 0,
                    second,
                    beyond: trip.beyond(second),
                    trip: &mut trip,
                    under: None,
                };
                guilty(format, tables, first, input, bits, has)
            }
        }
    }

    /// First-stage address bits that the second stage does not take as input.
    #[inline(always)]
    pub(super) fn beyond(&self, second: PageTable) -> u64 {
        self.unit.first.address & !0 << self.unit.input_bits(second.levels)
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
            switches: Switches::empty(),
            write: false,
            failure: None,
        }
    }
}

/// The first stage on its own: its tables lie straight in memory.
pub(super) struct First<'t, 'a, M, R> {
    pub(super) trip: &'t mut Trip<'a, M, R>,
    /// The level of the top table.
    pub(super) top: u8,
    /// Bits that every entry must have when it has been used.
    pub(super) accessed: u64,
}

impl<M: TableMem, R: Recorder> First<'_, '_, M, R> {
    /// An entry lacks bits that its use sets.
    #[cold]
    fn mark(&mut self, here: Here, physical: u64, raw: u64) -> Result<(), Stop> {
        let slot = here.slot(&self.trip.unit.first, physical, raw);
        self.trip.mark(Stage::First, &slot, self.accessed, None)
    }
}

impl<M: TableMem, R: Recorder> Tables for First<'_, '_, M, R> {
    #[inline(always)]
    fn locate(&mut self, here: Here) -> Result<u64, Stop> {
        Ok(here.at)
    }

    #[inline(always)]
    fn load(&self, physical: u64) -> Result<u64, Unreachable> {
        self.trip.mem.load(Gpa(physical))
    }

    #[inline(always)]
    fn unusual(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) -> Result<(), Stop> {
        if !leaf && self.accessed & !raw != 0 {
            self.mark(here, physical, raw)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) {
        self.trip.passed(Stage::First, here, physical, raw, leaf);
    }

    #[cold]
    fn faulty(&mut self, here: Here, physical: u64, raw: u64, problem: Problem) -> Stop {
        let slot = here.slot(&self.trip.unit.first, physical, raw);
        let cause = first_cause(slot.level == self.top, problem);
        self.trip.fault(cause, Stage::First, &slot, problem, None)
    }
}

const fn first_cause(top: bool, problem: Problem) -> Cause {
    match problem {
        Problem::Unreadable if top => Cause::FirstTopUnreadable,
        Problem::Unreadable => Cause::FirstEntryUnreadable,
        Problem::NotPresent => Cause::FirstEntryNotPresent,
        Problem::Reserved(_) => Cause::FirstEntryReserved,
    }
}

/// The second stage: its tables lie straight in memory.
struct Second<'t, 'a, M, R> {
    trip: &'t mut Trip<'a, M, R>,
    top: u8,
    accessed: u64,
    /// The guest physical address under way, in a nested walk.
    guest: Option<Gpa>,
}

impl<M: TableMem, R: Recorder> Second<'_, '_, M, R> {
    /// An entry lacks bits that its use sets.
    #[cold]
    fn mark(&mut self, here: Here, physical: u64, raw: u64) -> Result<(), Stop> {
        let slot = here.slot(&self.trip.unit.second, physical, raw);
        self.trip
            .mark(Stage::Second, &slot, self.accessed, self.guest)
    }

    /// Every entry grants something, but no right is granted by all.
    #[cold]
    fn nothing_in_common(&mut self, leaf: &Leaf) -> Stop {
        let format = &self.trip.unit.second;
        let slot = leaf.slot(format);
        let cause = self.cause(false, Problem::NotPresent);
        let bits = format.present & !slot.raw;
        self.trip
            .blame(cause, Stage::Second, &slot, bits, self.guest)
    }

    fn cause(&self, top: bool, problem: Problem) -> Cause {
        if self.trip.switches.contains(Switches::SCALABLE) {
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
                Problem::NotPresent if self.trip.write => Cause::LegacyWriteDenied,
                Problem::NotPresent => Cause::LegacyReadDenied,
                Problem::Reserved(_) => Cause::LegacyEntryReserved,
            }
        }
    }
}

impl<M: TableMem, R: Recorder> Tables for Second<'_, '_, M, R> {
    #[inline(always)]
    fn locate(&mut self, here: Here) -> Result<u64, Stop> {
        Ok(here.at)
    }

    #[inline(always)]
    fn load(&self, physical: u64) -> Result<u64, Unreachable> {
        self.trip.mem.load(Gpa(physical))
    }

    #[inline(always)]
    fn unusual(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) -> Result<(), Stop> {
        if !leaf && self.accessed & !raw != 0 {
            self.mark(here, physical, raw)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) {
        self.trip.passed(Stage::Second, here, physical, raw, leaf);
    }

    #[cold]
    fn faulty(&mut self, here: Here, physical: u64, raw: u64, problem: Problem) -> Stop {
        let slot = here.slot(&self.trip.unit.second, physical, raw);
        let cause = self.cause(slot.level == self.top, problem);
        self.trip
            .fault(cause, Stage::Second, &slot, problem, self.guest)
    }
}

/// The first stage over the second: each of its tables is reached through the second.
pub(super) struct Nested<'t, 'a, M, R> {
    pub(super) trip: &'t mut Trip<'a, M, R>,
    /// The level of the first stage's top table.
    pub(super) top: u8,
    pub(super) accessed: u64,
    pub(super) second: PageTable,
    /// Address bits that the second stage does not take as input.
    pub(super) beyond: u64,
    /// The second stage's leaf for the entry read last.
    pub(super) under: Option<Leaf>,
}

impl<M: TableMem, R: Recorder> Nested<'_, '_, M, R> {
    /// An entry lacks bits that its use sets.
    #[cold]
    fn mark(&mut self, here: Here, physical: u64, raw: u64) -> Result<(), Stop> {
        let slot = here.slot(&self.trip.unit.first, physical, raw);
        let under = self.under;
        self.trip.mark_nested(&slot, under.as_ref(), self.accessed)
    }

    /// The second stage does not grant what reading a first-stage table takes.
    #[cold]
    fn refuse(&mut self, slot: &Slot, read: bool) -> Stop {
        let unit = self.trip.unit;
        let (cause, bits) = match (read, slot.level == self.top) {
            (true, _) => (Cause::FirstEntryWriteDenied, unit.second_write()),
            (false, true) => (Cause::FirstTopReadDenied, unit.second_read()),
            (false, false) => (Cause::FirstEntryReadDenied, unit.second_read()),
        };
        let guilty = self.trip.guilty_second(self.second, slot.at.0, bits);
        let guest = Some(slot.at);
        self.trip.refuse(cause, Stage::Second, guilty, bits, guest)
    }

    /// An entry holds an address that the second stage does not take as input.
    #[cold]
    fn refuse_address(&mut self, slot: &Slot, bits: u64) -> Stop {
        self.trip.record(Stage::First, slot, Verdict::Invalid);
        let guest = Some(slot.at);
        self.trip
            .blame(Cause::FirstEntryWidth, Stage::First, slot, bits, guest)
    }
}

impl<M: TableMem, R: Recorder> Tables for Nested<'_, '_, M, R> {
    #[inline(always)]
    fn locate(&mut self, here: Here) -> Result<u64, Stop> {
        let at = here.at;
        let leaf = self.trip.second(self.second, at, Some(Gpa(at)))?;
        let unit = self.trip.unit;
        let accessed = self.trip.second_accessed();
        let read = leaf.every & unit.second_read() != 0;
        // With accessed and dirty flags on, even reading a first-stage table takes write permission.
        let write = accessed == 0 || leaf.every & unit.second_write() != 0;
        if !(read && write) {
            let slot = here.slot(&unit.first, at, 0);
            return Err(self.refuse(&slot, read));
        }
        if accessed & !leaf.raw != 0 {
            let below = leaf.slot(&unit.second);
            self.trip
                .mark(Stage::Second, &below, accessed, Some(Gpa(at)))?;
        }
        let physical = leaf.address(&unit.second, at);
        self.under = Some(leaf);
        Ok(physical)
    }

    #[inline(always)]
    fn load(&self, physical: u64) -> Result<u64, Unreachable> {
        self.trip.mem.load(Gpa(physical))
    }

    #[inline(always)]
    fn unusual(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) -> Result<(), Stop> {
        if !leaf && self.accessed & !raw != 0 {
            self.mark(here, physical, raw)?;
        }
        if raw & self.beyond != 0 {
            let slot = here.slot(&self.trip.unit.first, physical, raw);
            return Err(self.refuse_address(&slot, raw & self.beyond));
        }
        Ok(())
    }

    #[inline(always)]
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) {
        self.trip.passed(Stage::First, here, physical, raw, leaf);
    }

    #[cold]
    fn faulty(&mut self, here: Here, physical: u64, raw: u64, problem: Problem) -> Stop {
        let slot = here.slot(&self.trip.unit.first, physical, raw);
        let cause = first_cause(slot.level == self.top, problem);
        let guest = Some(slot.at);
        self.trip.fault(cause, Stage::First, &slot, problem, guest)
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
