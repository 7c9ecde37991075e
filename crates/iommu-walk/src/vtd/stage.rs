//! From an address to memory, through the first stage, the second, or both.
//!
//! Spec: Intel VT-d, "First-Stage Translation", "Second-Stage Translation", "Nested Translation",
//! "Pass-through Translation" and "Handling Requests to Interrupt Address Range".

use super::space::{AddressSpace, Outcome, PageTable, Rights, Switches, Translate, Translation};
use super::unit::Unit;
use super::{Cause, Failure, caps, in_interrupt_range};
use crate::format::{Format, Leaf, Problem, Slot, Tables, descend};
use crate::trail::{Raw, Recorder, Stage, Step, Table, Updates, Verdict};
use crate::{TableMem, Unreachable};
use iopf::{Access, Dma, DmaKind, Gpa, Iova};

/// User/supervisor, in a first-stage entry.
const USER: u64 = 1 << 2;
/// Read/write, in a first-stage entry.
const WRITABLE: u64 = 1 << 1;
/// Execute-disable, in a first-stage entry.
const NO_EXECUTE: u64 = 1 << 63;
/// Extended-accessed, in a first-stage entry.
const EXTENDED_ACCESSED: u64 = 1 << 10;
/// Snoop, in a second-stage entry that maps a page.
const SNOOP: u64 = 1 << 11;

/// What a request asks of the tables, with its kind and its address space taken into account.
#[derive(Clone, Copy)]
struct Demand {
    /// What it must be granted; for a translation request, what it would like.
    wanted: Access,
    /// It runs in privileged mode.
    privileged: bool,
    /// It is a translation request: it is told what it may do, and fails only if that is nothing.
    translation: bool,
    /// It writes: the dirty bit is due.
    write: bool,
    /// A zero-length read, which a write-only page may serve.
    zero_length: bool,
    addr: Iova,
}

impl Demand {
    #[inline]
    fn new(unit: &Unit, space: &AddressSpace, dma: &Dma) -> Self {
        let translation = matches!(dma.kind, DmaKind::Translation { .. });
        let mut wanted = dma.access.difference(Access::PRIV);
        let mut privileged = dma.access.contains(Access::PRIV);
        if dma.pasid.is_none() {
            // Both flags travel with the PASID: without one there is no execute, and the privilege
            // is the context entry's.
            if wanted.contains(Access::EXEC) {
                wanted = wanted.difference(Access::EXEC).union(Access::READ);
            }
            privileged = space.switches.contains(Switches::RID_PRIVILEGED);
        }
        if let DmaKind::Translation { no_write } = dma.kind {
            wanted = wanted.difference(Access::RW).union(Access::READ);
            if !no_write || !unit.has(caps::ECAP_NWFS) {
                wanted = wanted.union(Access::WRITE);
            }
        }
        let zero_length = wanted.is_empty();
        if zero_length {
            wanted = Access::READ;
        }
        Self {
            wanted,
            privileged,
            translation,
            write: wanted.contains(Access::WRITE),
            zero_length: zero_length && unit.cap() & caps::CAP_ZLR != 0,
            addr: dma.addr,
        }
    }
}

/// Says what becomes of a request to the interrupt range, before any table is read.
#[inline]
pub(super) fn interrupt_message(unit: &Unit, dma: &Dma) -> Result<Option<Outcome>, Failure> {
    if dma.pasid.is_some()
        || !in_interrupt_range(dma.addr)
        || !matches!(dma.kind, DmaKind::Untranslated)
    {
        return Ok(None);
    }
    if dma.access.intersects(Access::READ.union(Access::EXEC)) {
        // Reads and atomic operations there are blocked, and reported.
        return Err(Failure::new(match unit.mode() {
            super::Mode::Scalable => Cause::InterruptRange,
            _ => Cause::LegacyInterruptRange,
        }));
    }
    Ok(Some(Outcome::InterruptRange))
}

/// The translation of a request whose address is left as it is.
#[inline]
pub(super) fn identity(unit: &Unit, dma: &Dma, perms: Access) -> Translation {
    let huge = unit.cap() & (caps::CAP_SSLPS_1G | caps::CAP_FS1GP) != 0;
    let shift = if huge { 30 } else { 21 };
    Translation {
        pa: Gpa(dma.addr.0),
        page_shift: clear_of_interrupts(dma.addr.0, shift.min(unit.haw())),
        rights: Rights {
            user: perms,
            privileged: perms,
        },
        perms,
        dirty: true,
        snoop: false,
    }
}

/// Whether the page of this size around `pa` reaches into the interrupt range.
#[inline]
const fn near_interrupts(pa: u64, shift: u8) -> bool {
    // The range is 1 MiB: a larger page holds all of it or nothing, a smaller one lies in it or not.
    let shift = if shift > 20 { shift & 63 } else { 20 };
    pa >> shift == 0xfee0_0000 >> shift
}

#[inline]
const fn clear_of_interrupts(pa: u64, shift: u8) -> u8 {
    if near_interrupts(pa, shift) {
        12
    } else {
        shift
    }
}

/// Reaches the tables of one stage straight in memory.
struct Direct<'a, M, R> {
    mem: &'a M,
    recorder: &'a mut R,
    updates: &'a mut Updates,
    stage: Stage,
    /// Bits that every entry must have when it has been used.
    accessed: u64,
    switches: Switches,
    /// The request wants to write: which of two conditions an empty legacy entry is.
    write: bool,
    /// The guest physical address under way, of a second stage within a nested walk.
    guest: Option<Gpa>,
}

impl<M: TableMem, R: Recorder> Direct<'_, M, R> {
    #[cold]
    fn cause(&self, slot: &Slot, problem: Problem) -> Cause {
        let scalable = self.switches.contains(Switches::SCALABLE);
        match (self.stage, problem, scalable) {
            (Stage::First, problem, _) => first_cause(slot.top, problem),
            (Stage::Second, Problem::Unreadable, true) if slot.top => Cause::SecondTopUnreadable,
            (Stage::Second, Problem::Unreadable, true) => Cause::SecondEntryUnreadable,
            (Stage::Second, Problem::NotPresent, true) => Cause::SecondNoAccess,
            (Stage::Second, Problem::Reserved(_), true) => Cause::SecondEntryReserved,
            (Stage::Second, Problem::Unreadable, false) if slot.top => Cause::LegacyTopUnreadable,
            (Stage::Second, Problem::Unreadable, false) => Cause::LegacyEntryUnreadable,
            (Stage::Second, Problem::NotPresent, false) if self.write => Cause::LegacyWriteDenied,
            (Stage::Second, Problem::NotPresent, false) => Cause::LegacyReadDenied,
            (Stage::Second, Problem::Reserved(_), false) => Cause::LegacyEntryReserved,
        }
    }

    /// Asks for the bits that the use of an entry sets.
    #[inline]
    fn mark(&mut self, slot: &Slot, bits: u64) -> Result<(), Failure> {
        if bits & !slot.raw == 0 {
            return Ok(());
        }
        self.mark_missing(slot, bits)
    }

    #[cold]
    fn mark_missing(&mut self, slot: &Slot, bits: u64) -> Result<(), Failure> {
        if !self.switches.contains(Switches::COHERENT) {
            let cause = match self.stage {
                Stage::First => Cause::FirstUpdateNotCoherent,
                Stage::Second => Cause::SecondUpdateNotCoherent,
            };
            let missing = bits & !slot.raw;
            record(self.recorder, self.stage, slot, Verdict::Refused);
            return Err(blame(
                cause,
                self.stage,
                self.switches,
                slot,
                missing,
                self.guest,
            ));
        }
        self.updates.add(self.stage, slot.physical, slot.raw, bits);
        Ok(())
    }
}

#[cold]
fn first_cause(top: bool, problem: Problem) -> Cause {
    match problem {
        Problem::Unreadable if top => Cause::FirstTopUnreadable,
        Problem::Unreadable => Cause::FirstEntryUnreadable,
        Problem::NotPresent => Cause::FirstEntryNotPresent,
        Problem::Reserved(_) => Cause::FirstEntryReserved,
    }
}

#[cold]
fn blame(
    cause: Cause,
    stage: Stage,
    switches: Switches,
    slot: &Slot,
    bits: u64,
    guest: Option<Gpa>,
) -> Failure {
    let mut failure = Failure::new(cause)
        .hidden(switches.contains(Switches::FAULTS_HIDDEN))
        .at(slot.physical, slot.raw, bits);
    failure.stage = Some(stage);
    failure.level = slot.level;
    failure.guest_addr = guest;
    failure
}

#[cold]
fn fault(
    cause: Cause,
    stage: Stage,
    switches: Switches,
    slot: &Slot,
    problem: Problem,
    present: u64,
    guest: Option<Gpa>,
) -> Failure {
    let bits = match problem {
        Problem::Unreadable => 0,
        Problem::NotPresent => present,
        Problem::Reserved(bits) => bits,
    };
    let mut failure = blame(cause, stage, switches, slot, bits, guest);
    if problem == Problem::Unreadable {
        failure.entry = None;
    }
    failure
}

const fn table_of(stage: Stage) -> Table {
    match stage {
        Stage::First => Table::FirstStage,
        Stage::Second => Table::SecondStage,
    }
}

#[inline]
fn record<R: Recorder>(recorder: &mut R, stage: Stage, slot: &Slot, verdict: Verdict) {
    if R::ACTIVE {
        let read = verdict != Verdict::Unreadable;
        recorder.step(&Step {
            table: table_of(stage),
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

const fn verdict_of(problem: Problem) -> Verdict {
    match problem {
        Problem::Unreadable => Verdict::Unreadable,
        Problem::NotPresent => Verdict::NotPresent,
        Problem::Reserved(_) => Verdict::Reserved,
    }
}

impl<M: TableMem, R: Recorder> Tables for Direct<'_, M, R> {
    type Failure = Failure;

    #[inline]
    fn locate(&mut self, _: &mut Slot) -> Result<(), Failure> {
        Ok(())
    }

    #[inline]
    fn load(&self, physical: Gpa) -> Result<u64, Unreachable> {
        self.mem.load(physical)
    }

    #[cold]
    fn faulty(&mut self, slot: &Slot, problem: Problem) -> Failure {
        record(self.recorder, self.stage, slot, verdict_of(problem));
        let cause = self.cause(slot, problem);
        let present = if self.stage == Stage::First { 1 } else { 3 };
        fault(
            cause,
            self.stage,
            self.switches,
            slot,
            problem,
            present,
            self.guest,
        )
    }

    #[inline]
    fn passed(&mut self, slot: &Slot, leaf: bool) -> Result<(), Failure> {
        if leaf {
            // The caller weighs rights first, and marks after.
            record(self.recorder, self.stage, slot, Verdict::Leaf);
            return Ok(());
        }
        record(self.recorder, self.stage, slot, Verdict::Next);
        self.mark(slot, self.accessed)
    }
}

/// Reaches the tables of a first stage through the second.
struct Nested<'a, M, R> {
    unit: &'a Unit,
    mem: &'a M,
    recorder: &'a mut R,
    updates: &'a mut Updates,
    second: PageTable,
    accessed: u64,
    switches: Switches,
    /// The second stage's leaf for the entry under way.
    under: Option<Leaf>,
}

impl<M: TableMem, R: Recorder> Nested<'_, M, R> {
    /// Asks for bits of a first-stage entry, which is a write as the second stage sees it.
    #[inline]
    fn mark(&mut self, slot: &Slot, under: Option<Leaf>, bits: u64) -> Result<(), Failure> {
        if bits & !slot.raw == 0 {
            return Ok(());
        }
        self.mark_missing(slot, under, bits)
    }

    #[cold]
    fn mark_missing(&mut self, slot: &Slot, under: Option<Leaf>, bits: u64) -> Result<(), Failure> {
        let mut refuse = |cause| {
            let missing = bits & !slot.raw;
            record(self.recorder, Stage::First, slot, Verdict::Refused);
            let guest = Some(slot.at);
            Err(blame(
                cause,
                Stage::First,
                self.switches,
                slot,
                missing,
                guest,
            ))
        };
        if !self.switches.contains(Switches::COHERENT) {
            return refuse(Cause::FirstUpdateNotCoherent);
        }
        let Some(under) = under else { return Ok(()) };
        let second = &self.unit.second;
        if under.every & self.unit.second_write() == 0 {
            return refuse(Cause::FirstEntryWriteDenied);
        }
        self.updates
            .add(Stage::First, slot.physical, slot.raw, bits);
        if self.switches.contains(Switches::SECOND_ACCESSED) && under.slot.raw & second.dirty == 0 {
            let dirty = second.accessed | second.dirty;
            let at = under.slot.physical;
            self.updates.add(Stage::Second, at, under.slot.raw, dirty);
        }
        Ok(())
    }
}

impl<M: TableMem, R: Recorder> Tables for Nested<'_, M, R> {
    type Failure = Failure;

    #[inline]
    fn locate(&mut self, slot: &mut Slot) -> Result<(), Failure> {
        let mut direct = Direct {
            mem: self.mem,
            recorder: &mut *self.recorder,
            updates: &mut *self.updates,
            stage: Stage::Second,
            accessed: second_accessed(self.unit, self.switches),
            switches: self.switches,
            write: false,
            guest: Some(slot.at),
        };
        let format = &self.unit.second;
        let leaf = second_leaf(self.unit, &mut direct, self.second, slot.at.0)?;
        let read = leaf.every & self.unit.second_read() != 0;
        // With accessed and dirty flags on, even reading a first-stage table takes write permission.
        let write = !self.switches.contains(Switches::SECOND_ACCESSED)
            || leaf.every & self.unit.second_write() != 0;
        if !(read && write) {
            let cause = match (read, slot.top) {
                (false, true) => Cause::FirstTopReadDenied,
                (false, false) => Cause::FirstEntryReadDenied,
                (true, _) => Cause::FirstEntryWriteDenied,
            };
            let bits = if read {
                self.unit.second_write()
            } else {
                self.unit.second_read()
            };
            return Err(self.refused(slot, cause, bits));
        }
        direct.mark(&leaf.slot, direct.accessed)?;
        slot.physical = Gpa(leaf.address(format, slot.at.0));
        self.under = Some(leaf);
        Ok(())
    }

    #[inline]
    fn load(&self, physical: Gpa) -> Result<u64, Unreachable> {
        self.mem.load(physical)
    }

    #[cold]
    fn faulty(&mut self, slot: &Slot, problem: Problem) -> Failure {
        record(self.recorder, Stage::First, slot, verdict_of(problem));
        let cause = first_cause(slot.top, problem);
        let guest = Some(slot.at);
        fault(cause, Stage::First, self.switches, slot, problem, 1, guest)
    }

    #[inline]
    fn passed(&mut self, slot: &Slot, leaf: bool) -> Result<(), Failure> {
        let beyond =
            slot.raw & self.unit.first.address & !0 << self.unit.input_bits(self.second.levels);
        if beyond != 0 {
            record(self.recorder, Stage::First, slot, Verdict::Invalid);
            let guest = Some(slot.at);
            let cause = Cause::FirstEntryWidth;
            return Err(blame(
                cause,
                Stage::First,
                self.switches,
                slot,
                beyond,
                guest,
            ));
        }
        if leaf {
            record(self.recorder, Stage::First, slot, Verdict::Leaf);
            return Ok(());
        }
        record(self.recorder, Stage::First, slot, Verdict::Next);
        let under = self.under;
        self.mark(slot, under, self.accessed)
    }
}

impl<M: TableMem, R: Recorder> Nested<'_, M, R> {
    /// The second stage does not grant what reading a first-stage table takes.
    #[cold]
    fn refused(&mut self, slot: &Slot, cause: Cause, bits: u64) -> Failure {
        let guest = Some(slot.at);
        let found = culprit_second(self.unit, self.mem, self.second, slot.at.0, bits);
        match found {
            Some(found) => blame(cause, Stage::Second, self.switches, &found, bits, guest),
            None => {
                let mut failure =
                    Failure::new(cause).hidden(self.switches.contains(Switches::FAULTS_HIDDEN));
                failure.guest_addr = guest;
                failure
            }
        }
    }
}

/// The bits that the use of a second-stage entry sets.
#[inline]
fn second_accessed(unit: &Unit, switches: Switches) -> u64 {
    if switches.contains(Switches::SECOND_ACCESSED) {
        unit.second.accessed
    } else {
        0
    }
}

/// The second stage's leaf for `input`, if it grants anything at all.
#[inline]
fn second_leaf<M: TableMem, R: Recorder>(
    unit: &Unit,
    tables: &mut Direct<'_, M, R>,
    table: PageTable,
    input: u64,
) -> Result<Leaf, Failure> {
    let leaf = descend(&unit.second, tables, table.root, table.levels, input, 0)?;
    if leaf.every & unit.second.present == 0 {
        return Err(nothing_in_common(tables, &leaf, unit.second.present));
    }
    Ok(leaf)
}

/// Every entry grants something, but no right is granted by all.
#[cold]
fn nothing_in_common<M: TableMem, R: Recorder>(
    tables: &mut Direct<'_, M, R>,
    leaf: &Leaf,
    rights: u64,
) -> Failure {
    let cause = tables.cause(&leaf.slot, Problem::NotPresent);
    blame(
        cause,
        Stage::Second,
        tables.switches,
        &leaf.slot,
        rights & !leaf.slot.raw,
        tables.guest,
    )
}

/// Remembers the first entry of one stage that lacks some bits, or has them.
struct Culprit {
    bits: u64,
    found: Option<Slot>,
}

impl Culprit {
    const fn new(bits: u64) -> Self {
        Self { bits, found: None }
    }
}

/// A stage walked again to find out who denied, without leaving a trace.
struct Again<'a, T> {
    tables: &'a mut T,
    culprit: Culprit,
    /// What a guilty entry has of `culprit.bits`: nothing, or something.
    guilty_if_set: bool,
}

impl<T: Tables> Tables for Again<'_, T> {
    type Failure = T::Failure;

    fn locate(&mut self, slot: &mut Slot) -> Result<(), T::Failure> {
        self.tables.locate(slot)
    }
    fn load(&self, physical: Gpa) -> Result<u64, Unreachable> {
        self.tables.load(physical)
    }
    fn faulty(&mut self, slot: &Slot, problem: Problem) -> T::Failure {
        self.tables.faulty(slot, problem)
    }
    fn passed(&mut self, slot: &Slot, leaf: bool) -> Result<(), T::Failure> {
        let set = slot.raw & self.culprit.bits != 0;
        if set == self.guilty_if_set && self.culprit.found.is_none() {
            self.culprit.found = Some(*slot);
        }
        self.tables.passed(slot, leaf)
    }
}

/// Walks once more for the first entry that is guilty of a refusal. The guest may have changed its
/// tables since; then nobody is.
#[cold]
fn culprit<T: Tables>(
    format: &Format,
    tables: &mut T,
    table: PageTable,
    input: u64,
    bits: u64,
    guilty_if_set: bool,
) -> Option<Slot> {
    let mut again = Again {
        tables,
        culprit: Culprit::new(bits),
        guilty_if_set,
    };
    let _ = descend(format, &mut again, table.root, table.levels, input, 0);
    again.culprit.found
}

#[cold]
fn culprit_second<M: TableMem>(
    unit: &Unit,
    mem: &M,
    table: PageTable,
    input: u64,
    bits: u64,
) -> Option<Slot> {
    let mut tables = Direct {
        mem,
        recorder: &mut (),
        updates: &mut Updates::new(),
        stage: Stage::Second,
        accessed: 0,
        switches: Switches::empty(),
        write: false,
        guest: None,
    };
    culprit(&unit.second, &mut tables, table, input, bits, false)
}

/// Walks page tables.
///
/// `updates` receives accessed and dirty bits to set, also those of entries that the walk used
/// before it failed. Checks that depend on the request are made again, so `space` may come out of
/// a cache. Translated requests do not get here: see [`translated`](super::translated).
///
/// # Errors
/// [`Failure`] of an `LSL`, `LGN`, `SFL`, `SSL` or `SGN` condition, of `SPT.5` or `SPT.6`, or one
/// that keeps the request out of this address space.
#[inline]
pub fn walk<M: TableMem, R: Recorder>(
    unit: &Unit,
    space: &AddressSpace,
    mem: &M,
    dma: &Dma,
    updates: &mut Updates,
    recorder: &mut R,
) -> Result<Outcome, Failure> {
    let demand = Demand::new(unit, space, dma);
    admit(space, dma, &demand)?;
    if demand.translation && dma.pasid.is_none() && in_interrupt_range(dma.addr) {
        return Ok(Outcome::InterruptRange);
    }
    let mut walker = Walker {
        unit,
        space,
        mem,
        demand,
        updates,
        recorder,
    };
    let translation = match space.translate {
        Translate::Second(table) => walker.second(table)?,
        Translate::First(table) => walker.first(table)?,
        Translate::Nested { first, second } => walker.nested(first, second)?,
        Translate::PassThrough => walker.pass_through(dma)?,
    };
    Ok(Outcome::Memory(translation))
}

/// Checks that depend on the request and on nothing but the address space.
#[inline]
fn admit(space: &AddressSpace, dma: &Dma, demand: &Demand) -> Result<(), Failure> {
    let switches = space.switches;
    let scalable = switches.contains(Switches::SCALABLE);
    let cause =
        if !matches!(dma.kind, DmaKind::Untranslated) && !switches.contains(Switches::DEVICE_TLB) {
            if scalable {
                Cause::DeviceTlbDisabled
            } else {
                Cause::AddressTypeBlocked
            }
        } else if demand.wanted.contains(Access::EXEC) && !switches.contains(Switches::EXECUTE) {
            Cause::ExecuteDisabled
        } else if demand.privileged && scalable && !switches.contains(Switches::SUPERVISOR) {
            Cause::SupervisorDisabled
        } else {
            return Ok(());
        };
    Err(plain(cause, switches))
}

#[cold]
fn plain(cause: Cause, switches: Switches) -> Failure {
    Failure::new(cause).hidden(switches.contains(Switches::FAULTS_HIDDEN))
}

/// One request on its way through the page tables.
struct Walker<'a, M, R> {
    unit: &'a Unit,
    space: &'a AddressSpace,
    mem: &'a M,
    demand: Demand,
    updates: &'a mut Updates,
    recorder: &'a mut R,
}

impl<M: TableMem, R: Recorder> Walker<'_, M, R> {
    #[inline]
    fn direct(&mut self, stage: Stage, accessed: u64, guest: Option<Gpa>) -> Direct<'_, M, R> {
        Direct {
            mem: self.mem,
            recorder: self.recorder,
            updates: self.updates,
            stage,
            accessed,
            switches: self.space.switches,
            write: self.demand.write,
            guest,
        }
    }

    #[inline]
    fn scalable(&self) -> bool {
        self.space.switches.contains(Switches::SCALABLE)
    }

    /// What the second stage grants. Execute is not its business: it goes with read.
    #[inline]
    fn second_rights(&self, every: u64) -> Rights {
        let mut access = Access::empty();
        access.set(Access::READ, every & self.unit.second_read() != 0);
        access.set(Access::WRITE, every & self.unit.second_write() != 0);
        if access.contains(Access::READ) && self.space.switches.contains(Switches::EXECUTE) {
            access = access.union(Access::EXEC);
        }
        Rights {
            user: access,
            privileged: access,
        }
    }

    /// What the first stage grants.
    #[inline]
    fn first_rights(&self, leaf: &Leaf) -> Rights {
        let switches = self.space.switches;
        let user = leaf.every & USER != 0;
        let write = leaf.every & WRITABLE != 0;
        let execute = switches.contains(Switches::EXECUTE)
            && !(switches.contains(Switches::NO_EXECUTE) && leaf.any & NO_EXECUTE != 0);
        let mut rights = Rights::default();
        if user {
            rights.user.insert(Access::READ);
            rights.user.set(Access::WRITE, write);
            rights.user.set(Access::EXEC, execute);
        }
        if switches.contains(Switches::SUPERVISOR) {
            let protect = switches.contains(Switches::WRITE_PROTECT);
            let smep = switches.contains(Switches::SMEP);
            rights.privileged.insert(Access::READ);
            rights.privileged.set(Access::WRITE, write || !protect);
            rights
                .privileged
                .set(Access::EXEC, execute && !(smep && user));
        }
        rights
    }

    /// Legacy mode, or scalable mode without a first stage.
    #[inline]
    fn second(&mut self, table: PageTable) -> Result<Translation, Failure> {
        let input = self.demand.addr.0;
        let scalable = self.scalable();
        if input >> self.unit.input_bits(table.levels) != 0 {
            let cause = if scalable {
                Cause::SecondAddressWidth
            } else {
                Cause::LegacyAddressWidth
            };
            return Err(plain(cause, self.space.switches));
        }
        let accessed = second_accessed(self.unit, self.space.switches);
        let unit = self.unit;
        let mut tables = self.direct(Stage::Second, accessed, None);
        let leaf = second_leaf(unit, &mut tables, table, input)?;
        let rights = self.second_rights(leaf.every);
        let perms = self.weigh_second(rights, table, input, None)?;
        let pa = leaf.address(&unit.second, input);
        let page_shift = self.output(pa, leaf.shift)?;
        let dirty = self.mark_second(&leaf, perms, None)?;
        Ok(Translation {
            pa: Gpa(pa),
            page_shift,
            rights,
            perms,
            dirty,
            snoop: self.snoop(leaf.slot.raw),
        })
    }

    #[inline]
    fn snoop(&self, second_leaf: u64) -> bool {
        self.space.switches.contains(Switches::SNOOP) || second_leaf & SNOOP != 0
    }

    /// Sets the accessed and dirty bits of the second-stage leaf. Says whether it is dirty now.
    #[inline]
    fn mark_second(
        &mut self,
        leaf: &Leaf,
        perms: Access,
        guest: Option<Gpa>,
    ) -> Result<bool, Failure> {
        let accessed = second_accessed(self.unit, self.space.switches);
        if accessed == 0 {
            return Ok(true);
        }
        let write = self.demand.write && perms.contains(Access::WRITE);
        let dirty = self.unit.second.dirty;
        let bits = if write { accessed | dirty } else { accessed };
        self.direct(Stage::Second, accessed, guest)
            .mark(&leaf.slot, bits)?;
        Ok(write || leaf.slot.raw & dirty != 0)
    }

    /// Weighs what the second stage grants against the request.
    #[inline]
    fn weigh_second(
        &mut self,
        rights: Rights,
        table: PageTable,
        input: u64,
        guest: Option<Gpa>,
    ) -> Result<Access, Failure> {
        let granted = rights.of(self.demand.privileged);
        let read = self
            .demand
            .wanted
            .intersects(Access::READ.union(Access::EXEC));
        if self.demand.translation {
            let perms = granted.intersection(self.demand.wanted);
            if perms.intersects(Access::RW) {
                return Ok(perms);
            }
        } else if (!self.demand.write || granted.contains(Access::WRITE))
            && (!read
                || granted.contains(Access::READ)
                || self.demand.zero_length && granted.contains(Access::WRITE))
        {
            return Ok(granted);
        }
        Err(self.second_denied(granted, table, input, guest))
    }

    #[cold]
    fn second_denied(
        &mut self,
        granted: Access,
        table: PageTable,
        input: u64,
        guest: Option<Gpa>,
    ) -> Failure {
        let write = self.demand.write && !granted.contains(Access::WRITE);
        let (cause, bits) = match (self.scalable(), write) {
            (true, true) => (Cause::WriteDenied, self.unit.second_write()),
            (true, false) => (Cause::ReadDenied, self.unit.second_read()),
            (false, true) => (Cause::LegacyWriteDenied, self.unit.second_write()),
            (false, false) => (Cause::LegacyReadDenied, self.unit.second_read()),
        };
        match culprit_second(self.unit, self.mem, table, input, bits) {
            Some(slot) => blame(
                cause,
                Stage::Second,
                self.space.switches,
                &slot,
                bits,
                guest,
            ),
            None => plain(cause, self.space.switches),
        }
    }

    /// The interrupt range as an output is out of bounds.
    #[inline]
    fn output(&self, pa: u64, shift: u8) -> Result<u8, Failure> {
        if !near_interrupts(pa, shift) {
            return Ok(shift);
        }
        let scalable = self.scalable();
        // A translation request is for the whole page, at least in scalable mode.
        if in_interrupt_range(Iova(pa)) || scalable && self.demand.translation {
            let cause = if scalable {
                Cause::InterruptRange
            } else {
                Cause::LegacyInterruptRange
            };
            return Err(plain(cause, self.space.switches));
        }
        Ok(12)
    }

    #[inline]
    fn first_accessed(&self) -> u64 {
        if self.space.switches.contains(Switches::EXTENDED_ACCESSED) {
            self.unit.first.accessed | EXTENDED_ACCESSED
        } else {
            self.unit.first.accessed
        }
    }

    /// Reserved bits of first-stage entries that depend on the address space: execute-disable, on a
    /// unit that knows it, where it is not enabled.
    #[inline]
    fn first_reserved(&self) -> u64 {
        if self.unit.has(caps::ECAP_ERS) && !self.space.switches.contains(Switches::NO_EXECUTE) {
            NO_EXECUTE
        } else {
            0
        }
    }

    #[inline]
    fn canonical(&self, levels: u8) -> Result<(), Failure> {
        let unused = 64 - (12 + 9 * u32::from(levels.clamp(1, 5)));
        let input = self.demand.addr.0.cast_signed();
        if input << unused >> unused == input {
            Ok(())
        } else {
            Err(plain(Cause::NotCanonical, self.space.switches))
        }
    }

    #[inline]
    fn first(&mut self, table: PageTable) -> Result<Translation, Failure> {
        self.canonical(table.levels)?;
        let unit = self.unit;
        let input = self.demand.addr.0;
        let (accessed, reserved) = (self.first_accessed(), self.first_reserved());
        let mut tables = self.direct(Stage::First, accessed, None);
        let leaf = descend(
            &unit.first,
            &mut tables,
            table.root,
            table.levels,
            input,
            reserved,
        )?;
        let rights = self.first_rights(&leaf);
        let perms = match self.weigh_first(rights) {
            Ok(perms) => perms,
            Err(cause) => return Err(self.first_denied(cause, table)),
        };
        let pa = leaf.address(&unit.first, input);
        let page_shift = self.output(pa, leaf.shift)?;
        let write = self.demand.write && perms.contains(Access::WRITE);
        let bits = self.first_leaf_bits(write);
        self.direct(Stage::First, accessed, None)
            .mark(&leaf.slot, bits)?;
        Ok(Translation {
            pa: Gpa(pa),
            page_shift,
            rights,
            perms,
            dirty: write || leaf.slot.raw & unit.first.dirty != 0,
            snoop: self.snoop(0),
        })
    }

    #[inline]
    fn first_leaf_bits(&self, write: bool) -> u64 {
        let accessed = self.first_accessed();
        if write {
            accessed | self.unit.first.dirty
        } else {
            accessed
        }
    }

    /// Weighs what the first stage grants against the request.
    #[inline]
    fn weigh_first(&self, rights: Rights) -> Result<Access, Cause> {
        let granted = rights.of(self.demand.privileged);
        let wanted = self.demand.wanted;
        if self.demand.translation {
            // Read is never missing but for a user at a supervisor's page.
            return if granted.contains(Access::READ) {
                Ok(granted.intersection(wanted))
            } else {
                Err(Cause::UserDenied)
            };
        }
        if granted.contains(wanted) {
            return Ok(granted);
        }
        Err(if !granted.contains(Access::READ) {
            Cause::UserDenied
        } else if wanted.contains(Access::WRITE) && !granted.contains(Access::WRITE) {
            Cause::WriteDenied
        } else {
            Cause::ExecuteDenied
        })
    }

    #[cold]
    fn first_denied(&mut self, cause: Cause, table: PageTable) -> Failure {
        let input = self.demand.addr.0;
        let (bits, guilty_if_set) = self.guilt(cause);
        let mut tables = Direct {
            mem: self.mem,
            recorder: &mut (),
            updates: &mut Updates::new(),
            stage: Stage::First,
            accessed: 0,
            switches: self.space.switches,
            write: false,
            guest: None,
        };
        let found = culprit(
            &self.unit.first,
            &mut tables,
            table,
            input,
            bits,
            guilty_if_set,
        );
        match found {
            Some(slot) => blame(cause, Stage::First, self.space.switches, &slot, bits, None),
            None => plain(cause, self.space.switches),
        }
    }

    #[cold]
    fn nested_denied(&mut self, cause: Cause, first: PageTable, second: PageTable) -> Failure {
        let input = self.demand.addr.0;
        let (bits, guilty_if_set) = self.guilt(cause);
        let mut tables = Nested {
            unit: self.unit,
            mem: self.mem,
            recorder: &mut (),
            updates: &mut Updates::new(),
            second,
            accessed: 0,
            switches: self.space.switches.difference(Switches::SECOND_ACCESSED),
            under: None,
        };
        let found = culprit(
            &self.unit.first,
            &mut tables,
            first,
            input,
            bits,
            guilty_if_set,
        );
        match found {
            Some(slot) => {
                let guest = Some(slot.at);
                blame(cause, Stage::First, self.space.switches, &slot, bits, guest)
            }
            None => plain(cause, self.space.switches),
        }
    }

    /// The first-stage bits that a refusal is about, and whether it is their presence.
    fn guilt(&self, cause: Cause) -> (u64, bool) {
        match cause {
            Cause::UserDenied => (USER, false),
            Cause::WriteDenied => (WRITABLE, false),
            _ if self.space.switches.contains(Switches::NO_EXECUTE) => (NO_EXECUTE, true),
            _ => (USER, true),
        }
    }

    #[inline]
    fn nested(&mut self, first: PageTable, second: PageTable) -> Result<Translation, Failure> {
        self.canonical(first.levels)?;
        let unit = self.unit;
        let input = self.demand.addr.0;
        let (accessed, reserved) = (self.first_accessed(), self.first_reserved());
        let mut tables = Nested {
            unit,
            mem: self.mem,
            recorder: &mut *self.recorder,
            updates: &mut *self.updates,
            second,
            accessed,
            switches: self.space.switches,
            under: None,
        };
        let leaf = descend(
            &unit.first,
            &mut tables,
            first.root,
            first.levels,
            input,
            reserved,
        )?;
        let under = tables.under;
        let first_rights = self.first_rights(&leaf);
        let first_perms = match self.weigh_first(first_rights) {
            Ok(perms) => perms,
            Err(cause) => return Err(self.nested_denied(cause, first, second)),
        };

        let guest = leaf.address(&unit.first, input);
        let at = Some(Gpa(guest));
        let marks = second_accessed(unit, self.space.switches);
        let mut tables = self.direct(Stage::Second, marks, at);
        let page = second_leaf(unit, &mut tables, second, guest)?;
        let second_rights = self.second_rights(page.every);
        let perms = self
            .weigh_second(second_rights, second, guest, at)?
            .intersection(first_perms);
        if self.demand.translation && !perms.intersects(Access::RW) {
            return Err(self.second_denied(second_rights.user, second, guest, at));
        }
        let pa = page.address(&unit.second, guest);
        let page_shift = self.output(pa, page.shift.min(leaf.shift))?;

        let write = self.demand.write && perms.contains(Access::WRITE);
        let bits = self.first_leaf_bits(write);
        Nested {
            unit,
            mem: self.mem,
            recorder: &mut *self.recorder,
            updates: &mut *self.updates,
            second,
            accessed,
            switches: self.space.switches,
            under: None,
        }
        .mark(&leaf.slot, under, bits)?;
        let second_dirty = self.mark_second(&page, perms, at)?;
        Ok(Translation {
            pa: Gpa(pa),
            page_shift,
            rights: Rights {
                user: first_rights.user.intersection(second_rights.user),
                privileged: first_rights
                    .privileged
                    .intersection(second_rights.privileged),
            },
            perms,
            dirty: second_dirty && (write || leaf.slot.raw & unit.first.dirty != 0),
            snoop: self.snoop(page.slot.raw),
        })
    }

    #[inline]
    fn pass_through(&mut self, dma: &Dma) -> Result<Translation, Failure> {
        let scalable = self.scalable();
        let switches = self.space.switches;
        if dma.addr.0 & self.unit.above_haw != 0 {
            let cause = if scalable {
                Cause::PassThroughWidth
            } else {
                Cause::LegacyPassThroughWidth
            };
            return Err(plain(cause, switches));
        }
        if in_interrupt_range(dma.addr) {
            let cause = if scalable {
                Cause::InterruptRange
            } else {
                Cause::LegacyInterruptRange
            };
            return Err(plain(cause, switches));
        }
        let mut perms = Access::RW;
        perms.set(Access::EXEC, switches.contains(Switches::EXECUTE));
        let mut translation = identity(self.unit, dma, perms);
        if !switches.contains(Switches::SUPERVISOR) && scalable {
            translation.rights.privileged = Access::empty();
        }
        if self.demand.translation {
            translation.perms = perms.intersection(self.demand.wanted);
        }
        translation.snoop = self.snoop(0);
        Ok(translation)
    }
}
