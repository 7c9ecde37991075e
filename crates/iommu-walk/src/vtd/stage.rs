//! From an address to memory, through the first stage, the second, or both.
//!
//! Spec: Intel VT-d, "First-Stage Translation", "Second-Stage Translation", "Nested Translation",
//! "Pass-through Translation" and "Handling Requests to Interrupt Address Range".

mod given;

use super::space::{AddressSpace, Switches, Translate};
use super::unit::{Mode, Unit};
use super::{Cause, Failure, caps, in_interrupt_range};
use crate::TableMem;
use crate::format::{Leaf, Slot, Stop, descend};
use crate::outcome::{Outcome, PageTable, Rights, Translation};
use crate::stage::{Demand, First, Nested, Stages, Trip};
use crate::trail::{Recorder, Stage, Updates};
use given::Given;
use iopf::{Access, Dma, DmaKind, Gpa, Iova};

/// User/supervisor, in a first-stage entry.
const USER: u64 = 1 << 2;
/// Read/write, in a first-stage entry.
const WRITABLE: u64 = 1 << 1;
/// Execute-disable, in a first-stage entry.
const NO_EXECUTE: u64 = 1 << 63;
/// Extended-accessed, in a first-stage entry.
const EXTENDED_ACCESSED: u64 = 1 << 10;
/// With one of these, the first stage may grant more than read and write to users.
const MORE_RIGHTS: Switches = Switches::SUPERVISOR.union(Switches::EXECUTE);
/// Snoop, in a second-stage entry that maps a page.
const SNOOP: u64 = 1 << 11;

/// What a request asks of a VT-d unit.
#[inline(always)]
fn demand(unit: &Unit, space: &AddressSpace, dma: &Dma) -> Demand {
    Demand::new(
        dma,
        || space.switches.contains(Switches::RID_PRIVILEGED),
        || unit.has(caps::ECAP_NWFS),
        || unit.cap() & caps::CAP_ZLR != 0,
    )
}

/// Says what becomes of a request to the interrupt range, before any table is read.
#[inline]
pub(super) fn interrupt_message(unit: &Unit, dma: &Dma) -> Result<Option<Outcome>, Failure> {
    if !in_interrupt_range(dma.addr)
        || dma.pasid.is_some()
        || !matches!(dma.kind, DmaKind::Untranslated)
    {
        return Ok(None);
    }
    if dma.access.intersects(Access::READ.union(Access::EXEC)) {
        // Reads and atomic operations there are blocked, and reported. (A unit that remaps
        // interrupts may report them as interrupt requests gone wrong, reason 0x29.)
        return Err(Failure::new(match unit.mode() {
            Mode::Scalable => Cause::InterruptRange,
            _ => Cause::LegacyInterruptRange,
        }));
    }
    Ok(Some(Outcome::InterruptRange))
}

/// The translation of a request whose address is left as it is.
#[inline]
pub(super) fn identity(unit: &Unit, dma: &Dma, perms: Access) -> Translation {
    let huge = unit.cap() & (caps::CAP_SSLPS_1G | caps::CAP_FS1GP) != 0;
    let shift = if huge { 30 } else { 21 }.min(unit.haw());
    let addr = dma.addr.0;
    Translation {
        pa: Gpa(addr),
        page_shift: if near_interrupts(addr, shift) {
            12
        } else {
            shift
        },
        cut_from: 0,
        rights: Rights {
            user: perms,
            privileged: perms,
        },
        perms,
        dirty: true,
        snoop: false,
        global: false,
    }
}

/// Whether the page of this size around `pa` reaches into the interrupt range.
#[inline(always)]
const fn near_interrupts(pa: u64, shift: u8) -> bool {
    // No page is larger than 1 GiB, and few lie in the fourth.
    if pa >> 30 != 0xfee0_0000 >> 30 {
        return false;
    }
    // The range is 1 MiB: a larger page holds all of it or nothing, a smaller one lies in it or not.
    let shift = if shift > 20 { shift & 63 } else { 20 };
    pa >> shift == 0xfee0_0000 >> shift
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
    let demand = demand(unit, space, dma);
    let mut walker = Walker {
        demand,
        input: dma.addr.0,
        trip: Trip {
            unit,
            mem,
            recorder,
            updates,
            given: Given::new(space.switches, demand.write()),
            failure: None,
        },
    };
    if demand.special() || dma.kind == DmaKind::Translated {
        if let Err(cause) = admit(space.switches, dma, demand) {
            walker.trip.fail(cause);
            return Err(walker.failed());
        }
        if demand.translation() && dma.pasid.is_none() && in_interrupt_range(dma.addr) {
            return Ok(Outcome::InterruptRange);
        }
    }
    // Each on its own: brought together, the results would go through memory.
    match space.translate {
        Translate::First(table) => match walker.first(table) {
            Ok(translation) => Ok(Outcome::Memory(translation)),
            Err(Stop) => Err(walker.failed()),
        },
        Translate::Second(table) => match walker.second(table) {
            Ok(translation) => Ok(Outcome::Memory(translation)),
            Err(Stop) => Err(walker.failed()),
        },
        Translate::Nested { first, second } => walker.nested(first, second),
        Translate::PassThrough => match walker.pass_through(dma) {
            Ok(translation) => Ok(Outcome::Memory(translation)),
            Err(Stop) => Err(walker.failed()),
        },
    }
}

/// Checks that depend on the request and on nothing but the address space.
#[cold]
fn admit(switches: Switches, dma: &Dma, demand: Demand) -> Result<(), Cause> {
    if !matches!(dma.kind, DmaKind::Untranslated) && !switches.contains(Switches::DEVICE_TLB) {
        return Err(if switches.contains(Switches::SCALABLE) {
            Cause::DeviceTlbDisabled
        } else {
            Cause::AddressTypeBlocked
        });
    }
    if demand.wanted().contains(Access::EXEC) && !switches.contains(Switches::EXECUTE) {
        return Err(Cause::ExecuteDisabled);
    }
    if demand.privileged()
        && switches.contains(Switches::SCALABLE)
        && !switches.contains(Switches::SUPERVISOR)
    {
        return Err(Cause::SupervisorDisabled);
    }
    Ok(())
}

/// Read and write from the low two bits of an entry.
#[inline(always)]
const fn low_rights(entry: u64) -> Access {
    Access::from_bits_retain((entry & 3) as u8)
}

/// One request on its way through the page tables.
struct Walker<'a, M, R> {
    demand: Demand,
    input: u64,
    trip: Trip<'a, Unit, M, R>,
}

impl<M: TableMem, R: Recorder> Walker<'_, M, R> {
    /// The failure that a method left behind.
    #[cold]
    fn failed(&mut self) -> Failure {
        let left = self.trip.failure.take();
        left.unwrap_or(Failure::new(Cause::ModeUnsupported))
    }

    #[inline(always)]
    fn has(&self, switch: Switches) -> bool {
        self.trip.given.has(switch)
    }

    /// What the second stage grants. Execute is not its business: it goes with read.
    #[inline(always)]
    fn second_rights(&self, every: u64) -> Access {
        // Read and write are neighbours, in the order of `Access`.
        let mut access = low_rights(every >> self.trip.unit.second_shift());
        if self.has(Switches::EXECUTE) && access.contains(Access::READ) {
            access = access.union(Access::EXEC);
        }
        access
    }

    /// What the first stage grants.
    #[inline(always)]
    fn first_rights(&self, leaf: &Leaf) -> Rights {
        // P and R/W are where `Access` has read and write.
        let granted = low_rights(leaf.every);
        let mut rights = Rights::default();
        if leaf.every & USER != 0 {
            rights.user = granted;
        }
        if self.trip.given.has(MORE_RIGHTS) {
            self.add_rights(&mut rights, granted, leaf.every, leaf.any);
        }
        rights
    }

    /// Adds what supervisors and execute requests get.
    #[inline(never)]
    fn add_rights(&self, rights: &mut Rights, granted: Access, every: u64, any: u64) {
        if self.has(Switches::SUPERVISOR) {
            rights.privileged = if self.has(Switches::WRITE_PROTECT) {
                granted
            } else {
                Access::RW
            };
        }
        if self.has(Switches::EXECUTE) {
            self.add_execute(rights, any, every & USER != 0);
        }
    }

    fn add_execute(&self, rights: &mut Rights, any: u64, user: bool) {
        if self.has(Switches::NO_EXECUTE) && any & NO_EXECUTE != 0 {
            return;
        }
        if user {
            rights.user.insert(Access::EXEC);
        }
        if self.has(Switches::SUPERVISOR) && !(user && self.has(Switches::SMEP)) {
            rights.privileged.insert(Access::EXEC);
        }
    }

    /// Legacy mode, or scalable mode without a first stage.
    #[inline(always)]
    fn second(&mut self, table: PageTable) -> Result<Translation, Stop> {
        let unit = self.trip.unit;
        if self.input >> unit.input_bits(table.levels) != 0 {
            return Err(self.fail(Cause::SecondAddressWidth, Cause::LegacyAddressWidth));
        }
        let lower = self.trip.lower(table);
        let leaf = self.trip.second(&lower, self.input, None, 0)?;
        let rights = self.second_rights(leaf.every);
        let perms = self.weigh_second(rights, table, self.input, None)?;
        let pa = leaf.address(&unit.second, self.input);
        let page_shift = self.output(pa, leaf.shift)?;
        let dirty = self.mark_second(&leaf, lower.accessed, perms, None)?;
        let privileged = if self.has(Switches::SCALABLE) && !self.has(Switches::SUPERVISOR) {
            Access::empty()
        } else {
            rights
        };
        Ok(Translation {
            pa: Gpa(pa),
            page_shift,
            cut_from: 0,
            rights: Rights {
                user: rights,
                privileged,
            },
            perms,
            dirty,
            snoop: self.has(Switches::SNOOP) || leaf.raw & SNOOP != 0,
            global: false,
        })
    }

    /// Ends the walk, by one of two causes: in scalable mode, or in legacy mode.
    #[cold]
    fn fail(&mut self, scalable: Cause, legacy: Cause) -> Stop {
        let cause = if self.has(Switches::SCALABLE) {
            scalable
        } else {
            legacy
        };
        self.trip.fail(cause)
    }

    /// Sets the accessed and dirty bits of the second-stage leaf. Says whether it is dirty now.
    #[inline(always)]
    fn mark_second(
        &mut self,
        leaf: &Leaf,
        accessed: u64,
        perms: Access,
        guest: Option<Gpa>,
    ) -> Result<bool, Stop> {
        if accessed == 0 {
            return Ok(true);
        }
        let format = &self.trip.unit.second;
        let write = self.demand.write() && perms.contains(Access::WRITE);
        let bits = if write {
            accessed | format.dirty
        } else {
            accessed
        };
        let dirty = write || leaf.raw & format.dirty != 0;
        if bits & !leaf.raw != 0 {
            self.trip.mark_second(leaf.here, leaf.raw, bits, guest)?;
        }
        Ok(dirty)
    }

    /// Weighs what the second stage grants against the request.
    #[inline(always)]
    fn weigh_second(
        &mut self,
        granted: Access,
        table: PageTable,
        input: u64,
        guest: Option<Gpa>,
    ) -> Result<Access, Stop> {
        let wanted = self.demand.wanted();
        if self.demand.translation() {
            let perms = granted.intersection(wanted);
            if perms.intersects(Access::RW) {
                return Ok(perms);
            }
        } else if granted.contains(wanted)
            || self.demand.zero_length() && granted.contains(Access::WRITE)
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
    ) -> Stop {
        let write = self.demand.write() && !granted.contains(Access::WRITE);
        let unit = self.trip.unit;
        let cause = Unit::denied(self.trip.given, write);
        let bits = if write {
            unit.second_write()
        } else {
            unit.second_read()
        };
        let guilty = self.trip.guilty_second(table, input, bits);
        self.trip.refuse(cause, Stage::Second, guilty, bits, guest)
    }

    /// As an output, the interrupt range is out of bounds. Gives the size of the page that is clear
    /// of it.
    #[inline(always)]
    fn output(&mut self, pa: u64, shift: u8) -> Result<u8, Stop> {
        if !near_interrupts(pa, shift) {
            return Ok(shift);
        }
        self.near_interrupts(pa)
    }

    #[cold]
    fn near_interrupts(&mut self, pa: u64) -> Result<u8, Stop> {
        // A translation request is for the whole page, at least in scalable mode.
        let whole = self.demand.translation() && self.has(Switches::SCALABLE);
        if whole || in_interrupt_range(Iova(pa)) {
            return Err(self.fail(Cause::InterruptRange, Cause::LegacyInterruptRange));
        }
        Ok(12)
    }

    /// The bits that the use of a first-stage entry sets.
    #[inline(always)]
    fn first_accessed(&self) -> u64 {
        let accessed = self.trip.unit.first.accessed;
        if self.has(Switches::EXTENDED_ACCESSED) {
            accessed | EXTENDED_ACCESSED
        } else {
            accessed
        }
    }

    /// The input of the first stage must be canonical.
    #[inline(always)]
    fn canonical(&mut self, levels: u8) -> Result<(), Stop> {
        let unused = 52u8.wrapping_sub(levels.wrapping_mul(9)) & 63;
        let input = self.input.cast_signed();
        if input << unused >> unused == input {
            Ok(())
        } else {
            Err(self.trip.fail(Cause::NotCanonical))
        }
    }

    #[inline(always)]
    fn first(&mut self, table: PageTable) -> Result<Translation, Stop> {
        self.canonical(table.levels)?;
        let unit = self.trip.unit;
        let accessed = self.first_accessed();
        let format = if self.has(Switches::NO_EXECUTE) {
            &unit.first
        } else {
            &unit.first_without_nx
        };
        let mut tables = First {
            mem: self.trip.mem,
            trip: &mut self.trip,
            top: table.levels,
            accessed,
        };
        let (root, levels) = (table.root.0, table.levels);
        let usual = format.usual(accessed);
        let leaf = descend(format, usual, &mut tables, root, levels, self.input)?;
        let rights = self.first_rights(&leaf);
        let perms = match self.weigh_first(rights) {
            Ok(perms) => perms,
            Err(cause) => return Err(self.first_denied(cause, table, None)),
        };
        let pa = leaf.address(format, self.input);
        let page_shift = self.output(pa, leaf.shift)?;
        let write = self.demand.write() && perms.contains(Access::WRITE);
        let bits = if write {
            accessed | format.dirty
        } else {
            accessed
        };
        if bits & !leaf.raw != 0 {
            self.trip.mark_first(leaf.here, leaf.raw, bits)?;
        }
        Ok(Translation {
            pa: Gpa(pa),
            page_shift,
            cut_from: 0,
            rights,
            perms,
            dirty: write || leaf.raw & format.dirty != 0,
            snoop: self.has(Switches::SNOOP),
            global: false,
        })
    }

    /// Weighs what the first stage grants against the request.
    #[inline(always)]
    fn weigh_first(&self, rights: Rights) -> Result<Access, Cause> {
        let granted = rights.of(self.demand.privileged());
        let wanted = self.demand.wanted();
        if granted.contains(wanted) {
            return Ok(if self.demand.translation() {
                wanted
            } else {
                granted
            });
        }
        self.weigh_shortage(granted)
    }

    #[cold]
    fn weigh_shortage(&self, granted: Access) -> Result<Access, Cause> {
        let wanted = self.demand.wanted();
        // Read is never missing but for a user at a supervisor's page.
        if !granted.contains(Access::READ) {
            Err(Cause::UserDenied)
        } else if self.demand.translation() {
            Ok(granted.intersection(wanted))
        } else if wanted.difference(granted).contains(Access::WRITE) {
            Err(Cause::WriteDenied)
        } else {
            Err(Cause::ExecuteDenied)
        }
    }

    #[cold]
    fn first_denied(&mut self, cause: Cause, first: PageTable, second: Option<PageTable>) -> Stop {
        let (bits, has) = match cause {
            Cause::UserDenied => (USER, false),
            Cause::WriteDenied => (WRITABLE, false),
            _ if self.has(Switches::NO_EXECUTE) => (NO_EXECUTE, true),
            _ => (USER, true),
        };
        let trip = &mut self.trip;
        let guilty = trip.guilty_first(first, second, self.input, bits, has);
        let guest = second.and(guilty.as_ref().map(|slot: &Slot| slot.at));
        trip.refuse(cause, Stage::First, guilty, bits, guest)
    }

    #[inline(never)]
    fn nested(&mut self, first: PageTable, second: PageTable) -> Result<Outcome, Failure> {
        match self.both(first, second) {
            Ok(translation) => Ok(Outcome::Memory(translation)),
            Err(Stop) => Err(self.failed()),
        }
    }

    #[inline(always)]
    fn both(&mut self, first: PageTable, second: PageTable) -> Result<Translation, Stop> {
        self.canonical(first.levels)?;
        let unit = self.trip.unit;
        let accessed = self.first_accessed();
        let format = if self.has(Switches::NO_EXECUTE) {
            &unit.first
        } else {
            &unit.first_without_nx
        };
        let lower = self.trip.lower(second);
        let mut tables = Nested::new(&mut self.trip, first, &lower, accessed);
        let beyond = tables.beyond;
        let (root, levels) = (first.root.0, first.levels);
        let usual = format.usual(accessed).without(beyond);
        let leaf = descend(format, usual, &mut tables, root, levels, self.input)?;
        let under = tables.under;
        let mut rights = self.first_rights(&leaf);
        let first_perms = match self.weigh_first(rights) {
            Ok(perms) => perms,
            Err(cause) => return Err(self.first_denied(cause, first, Some(second))),
        };

        let guest = leaf.address(format, self.input);
        let at = Some(Gpa(guest));
        let page = self.trip.second(&lower, guest, at, 0)?;
        let below = self.second_rights(page.every);
        let perms = self
            .weigh_second(below, second, guest, at)?
            .intersection(first_perms);
        if self.demand.translation() && !perms.intersects(Access::RW) {
            return Err(self.second_denied(below, second, guest, at));
        }
        let pa = page.address(&unit.second, guest);
        let page_shift = self.output(pa, page.shift.min(leaf.shift))?;

        let write = self.demand.write() && perms.contains(Access::WRITE);
        let bits = if write {
            accessed | format.dirty
        } else {
            accessed
        };
        if bits & !leaf.raw != 0 {
            self.trip
                .mark_nested(leaf.here, leaf.physical, leaf.raw, &under, bits)?;
        }
        let dirty = self.mark_second(&page, lower.accessed, perms, at)?;
        rights.user = rights.user.intersection(below);
        rights.privileged = rights.privileged.intersection(below);
        Ok(Translation {
            pa: Gpa(pa),
            page_shift,
            cut_from: 0,
            rights,
            perms,
            dirty: dirty && (write || leaf.raw & format.dirty != 0),
            snoop: self.has(Switches::SNOOP) || page.raw & SNOOP != 0,
            global: false,
        })
    }

    #[inline(never)]
    fn pass_through(&mut self, dma: &Dma) -> Result<Translation, Stop> {
        let unit = self.trip.unit;
        if self.input & unit.above_haw != 0 {
            return Err(self.fail(Cause::PassThroughWidth, Cause::LegacyPassThroughWidth));
        }
        if in_interrupt_range(dma.addr) {
            return Err(self.fail(Cause::InterruptRange, Cause::LegacyInterruptRange));
        }
        let mut perms = Access::RW;
        perms.set(Access::EXEC, self.has(Switches::EXECUTE));
        let mut translation = identity(unit, dma, perms);
        if self.has(Switches::SCALABLE) && !self.has(Switches::SUPERVISOR) {
            translation.rights.privileged = Access::empty();
        }
        if self.demand.translation() {
            translation.perms = perms.intersection(self.demand.wanted());
        }
        translation.snoop = self.has(Switches::SNOOP);
        Ok(translation)
    }
}
