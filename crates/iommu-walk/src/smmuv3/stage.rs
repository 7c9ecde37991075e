//! From an address to memory, through stage 1, stage 2, or both.
//!
//! Spec: IHI 0070, "Address sizes", "Event queue record priorities", "Translation tables and Access
//! flag/Dirty state", "PCIe permission attribute interpretation"; DDI 0487, "Translation process".

mod regime;
mod rights;

pub(super) use regime::Regime;

use super::cause::{Cause, Class};
use super::config::{admit, refuse};
use super::space::{Context, Override, Space, Switches, Top};
use super::{Failure, Unit};
use crate::TableMem;
use crate::format::{Leaf, Slot, Stop, descend};
use crate::outcome::{Outcome, Rights, Translation};
use crate::stage::{First, Lower, Nested, Stages, Trip};
use crate::trail::{Recorder, Stage, Updates};
use iommu_wire::smmuv3::pte::{Stage1Entry, Stage2Entry, TableEntry};
use iopf::{Access, Dma, DmaKind, Gpa};

const ALL: Access = Access::RW.union(Access::EXEC);

/// The translation of a request whose address is left as it is.
#[inline]
pub(super) fn identity(unit: &Unit, dma: &Dma, perms: Access) -> Translation {
    let addr = dma.addr.0;
    Translation {
        pa: Gpa(addr),
        page_shift: unit.output_bits().min(30),
        cut_from: 0,
        rights: Rights {
            user: ALL,
            privileged: ALL,
        },
        perms,
        dirty: true,
        snoop: true,
        global: false,
    }
}

/// What a request asks of the tables.
///
/// One byte, so that it stays in a register.
// Bits 3:0 are as in `Access`: what it must be granted, or, of a translation request, would like; and
// privileged. Bit 4: it is a translation request. Bits 6:5: INSTCFG, for what a translation request is told.
#[derive(Clone, Copy)]
struct Ask(u8);

impl Ask {
    const TRANSLATION: u8 = 1 << 4;
    const READS_DATA: u8 = 1 << 5;
    const READS_INSTRUCTIONS: u8 = 1 << 6;

    #[inline(always)]
    fn new(space: &Space, dma: &Dma) -> Self {
        let effective = space.stream.effective(dma.access, dma.pasid);
        match dma.kind {
            DmaKind::Translation { no_write } => {
                Self::translation_request(space, dma, no_write, effective.contains(Access::PRIV))
            }
            _ => Self(effective.bits()),
        }
    }

    #[cold]
    fn translation_request(space: &Space, dma: &Dma, no_write: bool, privileged: bool) -> Self {
        let mut wanted = Access::READ;
        wanted.set(Access::WRITE, !no_write);
        wanted.set(
            Access::EXEC,
            dma.pasid.is_some() && dma.access.contains(Access::EXEC),
        );
        wanted.set(Access::PRIV, privileged);
        let reads = match space.stream.instruction() {
            Override::Incoming => 0,
            Override::Clear => Self::READS_DATA,
            Override::Set => Self::READS_INSTRUCTIONS,
        };
        Self(wanted.bits() | reads | Self::TRANSLATION)
    }

    #[inline(always)]
    const fn wanted(self) -> Access {
        Access::from_bits_retain(self.0 & 7)
    }

    #[inline(always)]
    const fn privileged(self) -> bool {
        self.0 & Access::PRIV.bits() != 0
    }

    #[inline(always)]
    const fn translation(self) -> bool {
        self.0 & Self::TRANSLATION != 0
    }

    /// What the request may do with these rights; `None` where that is not enough.
    #[inline(always)]
    fn weigh(self, rights: Rights) -> Option<Access> {
        let granted = rights.of(self.privileged());
        if !self.translation() {
            return granted.contains(self.wanted()).then_some(granted);
        }
        let perms = self.told(granted).intersection(self.wanted());
        perms.intersects(Access::RW).then_some(perms)
    }

    /// What a translation request is told of rights. "Permission attributes granted in ATS Translation
    /// Completions".
    #[cold]
    fn told(self, granted: Access) -> Access {
        let mut told = granted.intersection(Access::RW);
        let execute = granted.contains(Access::EXEC);
        if self.0 & Self::READS_DATA != 0 {
            told.set(Access::EXEC, told.contains(Access::READ));
            return told;
        }
        if self.0 & Self::READS_INSTRUCTIONS != 0 {
            told.set(Access::READ, execute);
        }
        // Execute takes read.
        told.set(Access::EXEC, execute && told.contains(Access::READ));
        told
    }
}

/// Walks page tables.
///
/// `updates` receives access flags and dirty states to write, also those of entries that the walk used
/// before it failed. Checks that depend on the request are made here, so `space` may come out of a cache,
/// its two parts one by one; the context descriptor has to be the one that
/// [`Stream::substream`](super::Stream::substream) names. Translated requests do not get here: see
/// [`translated`](super::translated).
///
/// # Errors
/// [`Failure`] of a stage 1 or stage 2 table, or one that keeps the request out of this space.
#[inline]
pub fn walk<M: TableMem, R: Recorder>(
    unit: &Unit,
    space: &Space,
    mem: &M,
    dma: &Dma,
    updates: &mut Updates,
    recorder: &mut R,
) -> Result<Outcome, Failure> {
    if let Err(cause) = admit(&space.stream, dma.kind) {
        return Err(refuse(&space.stream, dma, cause));
    }
    let ask = Ask::new(space, dma);
    let input = dma.addr.0;
    let second = space.stream.second;
    match &space.context {
        None if second.is_none() => bypass(unit, space, dma),
        None => {
            if input >> unit.output_bits() != 0 {
                return Err(refuse(&space.stream, dma, Cause::InputSize));
            }
            let regime = Regime::new(second, second, space.stream.word2);
            let mut walker = walker(&regime, mem, ask, input, updates, recorder);
            match walker.second(second) {
                Ok(translation) => Ok(Outcome::Memory(translation)),
                Err(Stop) => Err(space.failed(dma, walker.trip.failure.as_ref())),
            }
        }
        Some(context) => {
            let (first, input) = match range(context, input, ask.privileged()) {
                Ok(found) => found,
                Err(cause) => {
                    let mut failure = refuse(&space.stream, dma, cause);
                    space.gate(&mut failure);
                    return Err(failure);
                }
            };
            let regime = Regime::new(first, second, space.stream.word2);
            let mut walker = walker(&regime, mem, ask, input, updates, recorder);
            if second.is_none() {
                match walker.first(first, context.switches()) {
                    Ok(translation) => Ok(Outcome::Memory(translation)),
                    Err(Stop) => Err(space.failed(dma, walker.trip.failure.as_ref())),
                }
            } else {
                match walker.both(first, context.switches(), second) {
                    Ok(translation) => Ok(Outcome::Memory(translation)),
                    Err(Stop) => Err(space.failed(dma, walker.trip.failure.as_ref())),
                }
            }
        }
    }
}

/// No stage translates: the address is left as it is.
#[cold]
fn bypass(unit: &Unit, space: &Space, dma: &Dma) -> Result<Outcome, Failure> {
    if dma.addr.0 >> unit.output_bits() != 0 {
        return Err(refuse(&space.stream, dma, Cause::InputSize));
    }
    // A translation request has no PASID, and so asks for no execute.
    let perms = match dma.kind {
        DmaKind::Translation { .. } => Access::RW,
        _ => ALL,
    };
    Ok(Outcome::Memory(identity(unit, dma, perms)))
}

/// The range that an address is in, and its part that counts.
#[inline(always)]
fn range(context: &Context, input: u64, privileged: bool) -> Result<(Top, u64), Cause> {
    let switches = context.switches();
    let upper = input >> 55 & 1 != 0;
    let (top, ignored, disabled) = if upper {
        (
            context.upper,
            Switches::UPPER_TOP_BYTE_IGNORED,
            Switches::UPPER_USER_DISABLED,
        )
    } else {
        (
            context.lower,
            Switches::LOWER_TOP_BYTE_IGNORED,
            Switches::LOWER_USER_DISABLED,
        )
    };
    if top.is_none() {
        return Err(Cause::FirstDisabled);
    }
    // All bits above the range are as bit 55 is, but for the top byte if it does not count.
    let above = if upper { !input } else { input };
    let above = if switches.contains(ignored) {
        above << 8 >> 8
    } else {
        above
    };
    if above >> (top.bits() & 63) != 0 {
        return Err(Cause::FirstOutside);
    }
    if switches.contains(disabled) && !privileged {
        return Err(Cause::FirstUserDisabled);
    }
    Ok((top, input & !(!0 << (top.bits() & 63))))
}

/// One request on its way through the page tables.
struct Walker<'a, M, R> {
    ask: Ask,
    /// The part of the address that counts.
    input: u64,
    trip: Trip<'a, Regime, M, R>,
}

#[inline(always)]
fn walker<'a, M: TableMem, R: Recorder>(
    regime: &'a Regime,
    mem: &'a M,
    ask: Ask,
    input: u64,
    updates: &'a mut Updates,
    recorder: &'a mut R,
) -> Walker<'a, M, R> {
    Walker {
        ask,
        input,
        trip: Trip {
            unit: regime,
            mem,
            recorder,
            updates,
            given: Class::Input,
            failure: None,
        },
    }
}

impl<M: TableMem, R: Recorder> Walker<'_, M, R> {
    /// Whether a write through this page is under way.
    #[inline(always)]
    fn writes(&self, perms: Access) -> bool {
        self.ask.wanted().contains(Access::WRITE) && perms.contains(Access::WRITE)
    }

    /// A clear access flag is a fault, or is to be set.
    #[inline(always)]
    fn access_flag(
        &mut self,
        leaf: &Leaf,
        switches: Switches,
        guest: Option<Gpa>,
    ) -> Result<(), Stop> {
        const SPARED: Switches = Switches::HARDWARE_ACCESS.union(Switches::ACCESS_FLAG_IGNORED);
        if leaf.raw & Stage1Entry::ACCESSED == 0 && !switches.intersects(SPARED) {
            return Err(self.access_fault(leaf, guest));
        }
        Ok(())
    }

    #[cold]
    fn access_fault(&mut self, leaf: &Leaf, guest: Option<Gpa>) -> Stop {
        let slot = self
            .trip
            .slot(Stage::First, leaf.here, leaf.physical, leaf.raw);
        let guest = guest.and(Some(slot.at));
        let bits = Stage1Entry::ACCESSED;
        self.trip
            .blame(Cause::FirstAccessFlag, Stage::First, &slot, bits, guest)
    }

    /// What is due in a stage 1 leaf.
    #[inline(always)]
    fn due(switches: Switches, clean: bool, write: bool) -> u64 {
        let mut bits = 0;
        if switches.contains(Switches::HARDWARE_ACCESS) {
            bits |= Stage1Entry::ACCESSED;
        }
        if clean && write {
            bits |= super::formats::WRITABLE;
        }
        bits
    }

    /// Stage 1 alone.
    #[inline(always)]
    fn first(&mut self, top: Top, switches: Switches) -> Result<Translation, Stop> {
        let format = self.trip.unit.first();
        let mut tables = First {
            mem: self.trip.mem,
            trip: &mut self.trip,
            top: top.table().levels,
            accessed: 0,
        };
        let (root, levels) = (top.table().root.0, top.table().levels);
        let leaf = descend(
            format,
            format.usual(0),
            &mut tables,
            root,
            levels,
            self.input,
        )?;
        self.access_flag(&leaf, switches, None)?;
        let clean = rights::clean(&leaf, switches);
        let rights = rights::first(&leaf, clean, switches);
        let Some(perms) = self.ask.weigh(rights) else {
            return Err(self.first_denied(&leaf, rights, top, None));
        };
        let write = self.writes(perms);
        let due = Self::due(switches, clean, write);
        if due & !leaf.raw != 0 {
            self.trip.mark_first(leaf.here, leaf.raw, due)?;
        }
        Ok(Translation {
            pa: Gpa(leaf.address(format, self.input)),
            page_shift: leaf.shift,
            cut_from: 0,
            rights,
            perms,
            dirty: write || !clean,
            snoop: true,
            global: leaf.raw & Stage1Entry::NOT_GLOBAL == 0,
        })
    }

    /// Stage 1 does not grant what the request asks for.
    #[cold]
    fn first_denied(&mut self, leaf: &Leaf, rights: Rights, top: Top, second: Option<Top>) -> Stop {
        let wanted = self.ask.wanted();
        let granted = rights.of(self.ask.privileged());
        let missing = wanted.difference(granted);
        // The bits that decided, in the page's entry and in those of tables above it.
        let (cause, page, tables) = if missing.contains(Access::EXEC)
            && !(self.ask.translation() && granted.intersects(Access::RW))
            && !missing.intersects(Access::RW)
        {
            let bits = if self.ask.privileged() {
                (
                    Stage1Entry::PRIVILEGED_EXECUTE_NEVER,
                    TableEntry::PRIVILEGED_EXECUTE_NEVER,
                )
            } else {
                (
                    Stage1Entry::USER_EXECUTE_NEVER,
                    TableEntry::USER_EXECUTE_NEVER,
                )
            };
            (Cause::FirstExecuteDenied, bits.0, bits.1)
        } else if self.ask.privileged() && !granted.contains(Access::READ) {
            (Cause::FirstPrivilegedDenied, Stage1Entry::USER, 0)
        } else if !self.ask.privileged() && !rights.user.contains(Access::READ) {
            (
                Cause::FirstUserDenied,
                Stage1Entry::USER,
                TableEntry::NO_USER,
            )
        } else {
            (
                Cause::FirstWriteDenied,
                Stage1Entry::READ_ONLY,
                TableEntry::READ_ONLY,
            )
        };
        let trip = &mut self.trip;
        let (guilty, bits): (Option<Slot>, u64) = if leaf.any & tables != 0 {
            let second = second.map(Top::table);
            let guilty = trip.guilty_first(top.table(), second, self.input, tables, true);
            (guilty, tables)
        } else {
            let slot = trip.slot(Stage::First, leaf.here, leaf.physical, leaf.raw);
            (Some(slot), page)
        };
        let guest = second.and(guilty.as_ref().map(|slot| slot.at));
        trip.refuse(cause, Stage::First, guilty, bits, guest)
    }

    /// Stage 2 alone: the address is an intermediate one.
    #[inline(always)]
    fn second(&mut self, top: Top) -> Result<Translation, Stop> {
        let lower = self.trip.lower(top.table());
        let at = Gpa(self.input);
        let leaf = self.trip.second(&lower, self.input, Some(at), 0)?;
        let rights = rights::second(&leaf, self.trip.unit.execute_levels());
        let Some(perms) = self.ask.weigh(rights) else {
            return Err(self.second_denied(&leaf, rights, at));
        };
        let dirty = self.mark_second(&leaf, &lower, perms, at)?;
        Ok(Translation {
            pa: Gpa(leaf.address(self.trip.unit.second(), self.input)),
            page_shift: leaf.shift,
            cut_from: 0,
            rights,
            perms,
            dirty,
            snoop: true,
            global: false,
        })
    }

    /// Sets what is due in the stage 2 leaf of the request's own address. Says whether a later write finds
    /// nothing due.
    #[inline(always)]
    fn mark_second(
        &mut self,
        leaf: &Leaf,
        lower: &Lower,
        perms: Access,
        at: Gpa,
    ) -> Result<bool, Stop> {
        let clean = leaf.every & !leaf.raw & Stage2Entry::WRITE != 0;
        let write = self.writes(perms);
        let bits = lower.accessed | if clean && write { lower.dirty } else { 0 };
        if bits & !leaf.raw != 0 {
            self.trip.mark_second(leaf.here, leaf.raw, bits, Some(at))?;
        }
        Ok(write || !clean)
    }

    /// Stage 2 does not grant what the request asks for.
    #[cold]
    fn second_denied(&mut self, leaf: &Leaf, rights: Rights, at: Gpa) -> Stop {
        let missing = self
            .ask
            .wanted()
            .difference(rights.of(self.ask.privileged()));
        let (cause, bits) = if missing.contains(Access::WRITE) && !self.ask.translation() {
            (Cause::IpaWriteDenied, Stage2Entry::WRITE)
        } else if missing.contains(Access::READ) {
            (Cause::IpaReadDenied, Stage2Entry::READ)
        } else {
            let bits = Stage2Entry::EXECUTE_NEVER | Stage2Entry::EXECUTE_NEVER_LOW;
            (Cause::IpaExecuteDenied, bits)
        };
        let slot = self
            .trip
            .slot(Stage::Second, leaf.here, leaf.physical, leaf.raw);
        self.trip.blame(cause, Stage::Second, &slot, bits, Some(at))
    }

    /// Stage 1 over stage 2.
    #[inline(never)]
    fn both(&mut self, top: Top, switches: Switches, second: Top) -> Result<Translation, Stop> {
        let lower = self.trip.lower(second.table());
        let format = self.trip.unit.first();
        self.trip.given = Class::Table;
        let mut tables = Nested::new(&mut self.trip, top.table(), &lower, 0);
        let (root, levels) = (top.table().root.0, top.table().levels);
        let leaf = descend(
            format,
            format.usual(0),
            &mut tables,
            root,
            levels,
            self.input,
        )?;
        let under = tables.under;
        self.access_flag(&leaf, switches, Some(Gpa(leaf.here.at)))?;
        let clean = rights::clean(&leaf, switches);
        let mut rights = rights::first(&leaf, clean, switches);
        let Some(first_perms) = self.ask.weigh(rights) else {
            return Err(self.first_denied(&leaf, rights, top, Some(second)));
        };

        self.trip.given = Class::Input;
        let address = leaf.address(format, self.input);
        let at = Gpa(address);
        let page = self.trip.second(&lower, address, Some(at), 0)?;
        let below = rights::second(&page, self.trip.unit.execute_levels());
        // A translation request is told of what both stages grant.
        let common = Rights {
            user: rights.user.intersection(below.user),
            privileged: rights.privileged.intersection(below.privileged),
        };
        let Some(perms) = self.ask.weigh(common) else {
            return Err(self.second_denied(&page, below, at));
        };
        let perms = perms.intersection(first_perms);
        rights = common;

        self.trip.given = Class::Table;
        let write = self.writes(perms);
        let due = Self::due(switches, clean, write);
        if due & !leaf.raw != 0 {
            self.trip
                .mark_nested(leaf.here, leaf.physical, leaf.raw, &under, due)?;
        }
        self.trip.given = Class::Input;
        let dirty = self.mark_second(&page, &lower, perms, at)?;
        Ok(Translation {
            pa: Gpa(page.address(self.trip.unit.second(), address)),
            page_shift: page.shift.min(leaf.shift),
            cut_from: if page.shift < leaf.shift {
                leaf.shift
            } else {
                0
            },
            rights,
            perms,
            dirty: dirty && (write || !clean),
            snoop: true,
            global: leaf.raw & Stage1Entry::NOT_GLOBAL == 0,
        })
    }
}
