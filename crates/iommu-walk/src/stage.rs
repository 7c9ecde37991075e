//! What the stages of a walk share, whatever the architecture: how each reaches its tables, what the
//! use of an entry sets, and whom a failure blames.
//!
//! An architecture states its formats and its conditions ([`Stages`]); the walks are written once.

mod demand;
mod tables;

pub(crate) use demand::Demand;
pub(crate) use tables::{First, Nested};

use crate::format::{Format, Geometry, Here, Leaf, Problem, Slot, Stop, Usual, descend};
use crate::trail::{Raw, Recorder, Stage, Step, Table, Updates, Verdict};
use crate::{Failure, PageTable, TableMem};
use iopf::Gpa;
use tables::{Second, guilty};

/// Where an entry that names its next level does so.
const NEXT_LEVEL: u64 = 0b111 << 9;

/// Bits that the use of second-stage entries sets; none, where hardware keeps out of it.
#[derive(Clone, Copy)]
pub(crate) struct Marks {
    /// In each entry on the way.
    pub(crate) accessed: u64,
    /// Besides, in the entry that maps a page that is written to.
    pub(crate) dirty: u64,
}

/// An architecture's page tables, and what it calls that which can go wrong in them.
pub(crate) trait Stages: Sized {
    /// A condition.
    type Cause: Copy;
    /// What a walk knows of its address space and its request.
    type Given: Copy;
    /// Second-stage entries name the level they lead to, and may skip some.
    const SKIPS: bool;
    /// How large pages and tables are, in both stages. With [`Granules`](crate::format::Granules), the
    /// use of an entry that points to a table sets nothing in it.
    type Geometry: Geometry;
    /// A first-stage entry's accessed or dirty bit is due, and the second stage does not let it be
    /// set.
    const MARK_DENIED: Self::Cause;
    /// A first-stage entry holds an address that the second stage does not take as input.
    const TOO_WIDE: Self::Cause;

    /// The format of first-stage tables.
    fn first(&self) -> &Format<Self::Geometry>;
    /// The format of second-stage tables.
    fn second(&self) -> &Format<Self::Geometry>;
    /// The second-stage bit that grants read.
    fn second_read(&self) -> u64;
    /// The second-stage bit that grants write.
    fn second_write(&self) -> u64;
    /// Bits of an address in a first-stage entry that a second stage with this many levels does not
    /// take as input.
    fn beyond(&self, levels: u8) -> u64;
    /// How many entries a table of this level has, as a power of two.
    #[inline(always)]
    fn index_bits(&self, stage: Stage, level: u8) -> u8 {
        let _ = level;
        match stage {
            Stage::First => self.first().geometry.stride(),
            Stage::Second => self.second().geometry.stride(),
        }
    }
    /// The table that a second-stage walk of `input` starts from, where that is not always the same.
    #[inline(always)]
    fn second_root(&self, table: PageTable, input: u64) -> u64 {
        let _ = input;
        table.root.0
    }
    /// Whether a second-stage walk of `input` may begin.
    #[inline(always)]
    fn second_input(&self, given: Self::Given, input: u64) -> Result<(), Self::Cause> {
        let _ = (given, input);
        Ok(())
    }
    /// What a second-stage leaf grants, in [`every`](Leaf::every), unless it is of no use as it is: then
    /// a condition, and the bits that decided.
    #[inline(always)]
    fn second_leaf(&self, given: Self::Given, leaf: Leaf) -> Result<Leaf, (Self::Cause, u64)> {
        let _ = given;
        Ok(leaf)
    }
    /// What second-stage bits it takes to read a first-stage table, where the use of second-stage
    /// entries sets the bits `accessed`.
    fn table_rights(&self, accessed: u64) -> u64;
    /// What the use of second-stage entries sets.
    fn second_marks(&self, given: Self::Given) -> Marks;
    /// Whether an entry's accessed and dirty bits may be set.
    fn may_mark(&self, given: Self::Given, stage: Stage) -> Result<(), Self::Cause>;

    /// For a walk that leaves no trace.
    fn blind() -> Self::Given;
    /// Whether an entry on the way asks for no record of faults.
    fn hidden(given: Self::Given) -> bool;
    /// What is wrong with a first-stage entry; `top` if it is of the top table.
    fn first_cause(top: bool, problem: Problem) -> Self::Cause;
    /// What is wrong with a second-stage entry.
    fn second_cause(given: Self::Given, top: bool, problem: Problem) -> Self::Cause;
    /// The second stage does not grant what the request needs: write, or read.
    fn denied(given: Self::Given, write: bool) -> Self::Cause;
    /// The second stage lets a first-stage table be read, but that takes more; or it does not.
    fn table_denied(given: Self::Given, top: bool, readable: bool) -> Self::Cause;
}

/// What all stages of one walk share. A method that returns [`Stop`] leaves the reason in `failure`.
pub(crate) struct Trip<'a, U: Stages, M, R> {
    pub(crate) unit: &'a U,
    pub(crate) mem: &'a M,
    pub(crate) recorder: &'a mut R,
    pub(crate) updates: &'a mut Updates,
    pub(crate) given: U::Given,
    pub(crate) failure: Option<Failure<U::Cause>>,
}

impl<'a, U: Stages, M: TableMem, R: Recorder> Trip<'a, U, M, R> {
    /// Ends the walk with no entry to blame.
    #[cold]
    pub(crate) fn fail(&mut self, cause: U::Cause) -> Stop {
        let hidden = U::hidden(self.given);
        self.failure = Some(Failure::new(cause).hidden(hidden));
        Stop
    }

    /// Ends the walk: `bits` of an entry decided.
    #[cold]
    pub(crate) fn blame(
        &mut self,
        cause: U::Cause,
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
        cause: U::Cause,
        stage: Stage,
        slot: &Slot,
        problem: Problem,
        guest: Option<Gpa>,
    ) -> Stop {
        let format = self.format(stage);
        let (bits, verdict) = match problem {
            Problem::Unreadable => (0, Verdict::Unreadable),
            Problem::NotPresent => (format.present, Verdict::NotPresent),
            Problem::Reserved(bits) => (bits, Verdict::Reserved),
            Problem::Size => (NEXT_LEVEL | format.address, Verdict::Invalid),
            Problem::Level | Problem::Skipped => (NEXT_LEVEL, Verdict::Invalid),
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
    pub(crate) fn refuse(
        &mut self,
        cause: U::Cause,
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

    pub(crate) fn format(&self, stage: Stage) -> &'a Format<U::Geometry> {
        match stage {
            Stage::First => self.unit.first(),
            Stage::Second => self.unit.second(),
        }
    }

    /// The entry, for whoever wants to know more.
    #[inline(always)]
    pub(crate) fn slot(&self, stage: Stage, here: Here, physical: u64, raw: u64) -> Slot {
        let bits = self.unit.index_bits(stage, here.level);
        let inverted = self.format(stage).geometry.inverted();
        here.slot(inverted, bits, physical, raw)
    }

    #[inline(always)]
    pub(crate) fn record(&mut self, stage: Stage, slot: &Slot, verdict: Verdict) {
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
            let verdict = if leaf { Verdict::Leaf } else { Verdict::Next };
            self.record(stage, &self.slot(stage, here, physical, raw), verdict);
        }
    }

    /// Asks for bits that an entry lacks.
    #[cold]
    pub(crate) fn mark(
        &mut self,
        stage: Stage,
        slot: &Slot,
        bits: u64,
        guest: Option<Gpa>,
    ) -> Result<(), Stop> {
        if let Err(cause) = self.unit.may_mark(self.given, stage) {
            return Err(self.blame(cause, stage, slot, bits & !slot.raw, guest));
        }
        let inverted = self.format(stage).geometry.inverted();
        self.updates
            .add(stage, slot.physical, slot.raw, bits, inverted);
        Ok(())
    }

    /// Asks for bits of a first-stage entry, which is a write as the second stage sees it; `under`
    /// is the second stage's leaf for that entry.
    #[cold]
    pub(crate) fn mark_nested(
        &mut self,
        here: Here,
        physical: u64,
        raw: u64,
        under: &Under,
        bits: u64,
    ) -> Result<(), Stop> {
        let slot = self.slot(Stage::First, here, physical, raw);
        let guest = Some(slot.at);
        if under.every & self.unit.second_write() == 0 {
            let cause = U::MARK_DENIED;
            return Err(self.blame(cause, Stage::First, &slot, bits & !raw, guest));
        }
        let marks = self.unit.second_marks(self.given);
        let dirty = marks.accessed | marks.dirty;
        if dirty & !under.raw != 0 {
            self.mark_second(under.here, under.raw, dirty, guest)?;
        }
        self.mark(Stage::First, &slot, bits, guest)
    }

    /// Prepares walks of the second stage from this table.
    #[inline(always)]
    pub(crate) fn lower(&self, table: PageTable) -> Lower {
        let Marks { accessed, dirty } = self.unit.second_marks(self.given);
        Lower {
            table,
            accessed,
            dirty,
            usual: self
                .unit
                .second()
                .usual(if U::Geometry::GRANULES { 0 } else { accessed }),
        }
    }

    /// Walks the second stage; it has to grant something. An entry without one of the bits `wanted`
    /// ends the walk, whatever lies below it.
    #[inline(always)]
    pub(crate) fn second(
        &mut self,
        lower: &Lower,
        input: u64,
        guest: Option<Gpa>,
        wanted: u64,
    ) -> Result<Leaf, Stop> {
        let unit = self.unit;
        if U::Geometry::GRANULES
            && let Err(cause) = unit.second_input(self.given, input)
        {
            return Err(self.not_taken(cause, guest));
        }
        let mut tables = Second {
            mem: self.mem,
            trip: self,
            top: lower.table.levels,
            accessed: if U::Geometry::GRANULES {
                0
            } else {
                lower.accessed
            },
            wanted,
            guest,
        };
        let root = unit.second_root(lower.table, input);
        let levels = lower.table.levels;
        let leaf = descend(unit.second(), lower.usual, &mut tables, root, levels, input)?;
        if leaf.every & unit.second().present == 0 {
            return Err(self.nothing_in_common(leaf.here, leaf.raw, guest));
        }
        if !U::Geometry::GRANULES {
            return Ok(leaf);
        }
        match unit.second_leaf(self.given, leaf) {
            Ok(leaf) => Ok(leaf),
            Err((cause, bits)) => Err(self.unusable(cause, leaf.here, leaf.raw, bits, guest)),
        }
    }

    /// The second stage does not take an address as input.
    #[cold]
    fn not_taken(&mut self, cause: U::Cause, guest: Option<Gpa>) -> Stop {
        self.fail(cause);
        if let Some(failure) = &mut self.failure {
            failure.stage = Some(Stage::Second);
            failure.guest_addr = guest;
        }
        Stop
    }

    /// A second-stage leaf is of no use, whatever it grants.
    #[cold]
    fn unusable(
        &mut self,
        cause: U::Cause,
        here: Here,
        raw: u64,
        bits: u64,
        guest: Option<Gpa>,
    ) -> Stop {
        let slot = self.slot(Stage::Second, here, here.at, raw);
        self.blame(cause, Stage::Second, &slot, bits, guest)
    }

    /// Every second-stage entry grants something, but no right is granted by all.
    #[cold]
    fn nothing_in_common(&mut self, here: Here, raw: u64, guest: Option<Gpa>) -> Stop {
        let slot = self.slot(Stage::Second, here, here.at, raw);
        let cause = U::second_cause(self.given, false, Problem::NotPresent);
        let bits = self.unit.second().present & !raw;
        self.blame(cause, Stage::Second, &slot, bits, guest)
    }

    /// Ends the walk at a second-stage entry that lacks a right.
    #[cold]
    fn second_refused(&mut self, here: Here, raw: u64, bits: u64, guest: Option<Gpa>) -> Stop {
        let slot = self.slot(Stage::Second, here, here.at, raw);
        self.record(Stage::Second, &slot, Verdict::Refused);
        let cause = U::denied(self.given, bits & self.unit.second_write() != 0);
        self.blame(cause, Stage::Second, &slot, bits, guest)
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
        let slot = self.slot(Stage::Second, here, here.at, raw);
        let cause = U::second_cause(self.given, here.level == top, problem);
        self.fault(cause, Stage::Second, &slot, problem, guest)
    }

    /// Asks for bits of a second-stage entry.
    #[cold]
    pub(crate) fn mark_second(
        &mut self,
        here: Here,
        raw: u64,
        bits: u64,
        guest: Option<Gpa>,
    ) -> Result<(), Stop> {
        let slot = self.slot(Stage::Second, here, here.at, raw);
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
        let slot = self.slot(Stage::First, here, physical, raw);
        let cause = U::first_cause(here.level == top, problem);
        self.fault(cause, Stage::First, &slot, problem, guest)
    }

    /// Asks for bits of a first-stage entry.
    #[cold]
    pub(crate) fn mark_first(&mut self, here: Here, raw: u64, bits: u64) -> Result<(), Stop> {
        let slot = self.slot(Stage::First, here, here.at, raw);
        self.mark(Stage::First, &slot, bits, None)
    }

    /// The second stage does not grant what reading a first-stage table takes.
    #[cold]
    fn refuse_table(&mut self, here: Here, top: u8, second: PageTable, read: bool) -> Stop {
        let unit = self.unit;
        let cause = U::table_denied(self.given, here.level == top, read);
        let bits = if read {
            unit.second_write()
        } else {
            unit.second_read()
        };
        let guilty = self.guilty_second(second, here.at, bits);
        self.refuse(cause, Stage::Second, guilty, bits, Some(Gpa(here.at)))
    }

    /// An entry holds an address that the second stage does not take as input.
    #[cold]
    fn refuse_address(&mut self, here: Here, physical: u64, raw: u64, bits: u64) -> Stop {
        let slot = self.slot(Stage::First, here, physical, raw);
        self.record(Stage::First, &slot, Verdict::Invalid);
        let guest = Some(slot.at);
        self.blame(U::TOO_WIDE, Stage::First, &slot, bits, guest)
    }

    /// Walks the second stage for the first entry that lacks `bits`, without leaving a trace.
    #[cold]
    pub(crate) fn guilty_second(&self, table: PageTable, input: u64, bits: u64) -> Option<Slot> {
        let mut trip = self.silent();
        let mut trip = trip.trip();
        let tables = Second {
            mem: trip.mem,
            trip: &mut trip,
            top: table.levels,
            accessed: 0,
            wanted: 0,
            guest: None,
        };
        let root = self.unit.second_root(table, input);
        let walk = (root, table.levels, input);
        let (here, physical, raw) = guilty(self.unit.second(), tables, walk, bits, false)?;
        Some(self.slot(Stage::Second, here, physical, raw))
    }

    /// Walks the first stage for the first entry that lacks `bits`, or has one if `has`.
    #[cold]
    pub(crate) fn guilty_first(
        &self,
        first: PageTable,
        second: Option<PageTable>,
        input: u64,
        bits: u64,
        has: bool,
    ) -> Option<Slot> {
        let mut trip = self.silent();
        let mut trip = trip.trip();
        let format = self.unit.first();
        let walk = (first.root.0, first.levels, input);
        let found = match second {
            None => {
                let tables = First {
                    mem: trip.mem,
                    trip: &mut trip,
                    top: first.levels,
                    accessed: 0,
                };
                guilty(format, tables, walk, bits, has)
            }
            Some(second) => {
                let lower = trip.lower(second);
                let tables = Nested::new(&mut trip, first, &lower, 0);
                guilty(format, tables, walk, bits, has)
            }
        };
        let (here, physical, raw) = found?;
        Some(self.slot(Stage::First, here, physical, raw))
    }

    fn silent(&self) -> Silent<'_, U, M> {
        Silent {
            unit: self.unit,
            mem: self.mem,
            recorder: (),
            updates: Updates::new(),
        }
    }
}

/// What a walk needs that records nothing and changes nothing.
struct Silent<'a, U, M> {
    unit: &'a U,
    mem: &'a M,
    recorder: (),
    updates: Updates,
}

impl<U: Stages, M: TableMem> Silent<'_, U, M> {
    fn trip(&mut self) -> Trip<'_, U, M, ()> {
        Trip {
            unit: self.unit,
            mem: self.mem,
            recorder: &mut self.recorder,
            updates: &mut self.updates,
            given: U::blind(),
            failure: None,
        }
    }
}

/// The second stage as a walk needs it, prepared once for all that a nested walk takes.
pub(crate) struct Lower {
    pub(crate) table: PageTable,
    /// The bits that the use of an entry sets.
    pub(crate) accessed: u64,
    /// The bits that a write sets besides in the entry that maps its page.
    pub(crate) dirty: u64,
    usual: Usual,
}

/// The second stage's leaf for a first-stage entry.
#[derive(Clone, Copy)]
pub(crate) struct Under {
    here: Here,
    raw: u64,
    every: u64,
}
