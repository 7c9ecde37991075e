//! From an address to memory, through the guest tables, the host tables, or both.
//!
//! Spec: 48882, "I/O Page Tables for Host Translations", "I/O Page Tables for Guest Translations",
//! "Special Address Controls" and "Exclusion Range".

mod cr3;
mod given;

use super::config::refuse;
use super::space::{GuestTables, Space, Switches};
use super::{Cause, Failure, Unit, in_interrupt_range};
use crate::TableMem;
use crate::format::{Leaf, Slot, Stop, descend};
use crate::outcome::{Outcome, PageTable, Rights, Translation};
use crate::stage::{Demand, First, Lower, Nested, Trip};
use crate::trail::{Recorder, Stage, Updates};
use given::Given;
use iommu_wire::amdvi::pte::HostEntry;
use iopf::{Access, Dma, DmaKind, Gpa, Pasid};

/// User/supervisor, in a guest table entry.
const USER: u64 = 1 << 2;
/// Read/write, in a guest table entry.
const WRITABLE: u64 = 1 << 1;
/// No-execute, in a guest table entry.
const NO_EXECUTE: u64 = 1 << 63;
/// Where a host table entry has read; write is the next.
const RIGHTS: u32 = 61;

/// Says what becomes of a request to a [special range](super::in_special_range), before any table is
/// read; `None` where it is a request like any other.
///
/// # Errors
/// [`Failure`] of a condition of those ranges.
#[cold]
pub fn special(unit: &Unit, dma: &Dma) -> Result<Option<Outcome>, Failure> {
    let cause = if in_interrupt_range(dma.addr) {
        let read = dma.access.is_empty() || dma.access.intersects(Access::READ.union(Access::EXEC));
        match dma.kind {
            DmaKind::Translation { .. } => return Ok(Some(Outcome::InterruptRange)),
            DmaKind::Untranslated if !read => match dma.pasid {
                None => return Ok(Some(Outcome::InterruptRange)),
                Some(_) => Cause::InterruptWithPasid,
            },
            _ => Cause::InterruptRange,
        }
    } else if super::in_hypertransport_range(dma.addr)
        && dma.pasid.is_none()
        && !unit.hypertransport_ignored()
    {
        Cause::HypertransportRange
    } else {
        return Ok(None);
    };
    Err(refuse(cause, &Space::PASS_THROUGH, dma.pasid))
}

/// The translation of a request whose address is left as it is, in a page of at most this size.
#[inline]
pub(super) fn identity(dma: &Dma, rights: Access, shift: u8) -> Translation {
    Translation {
        pa: Gpa(dma.addr.0),
        page_shift: clear_of_ranges(dma.addr.0, shift),
        rights: Rights {
            user: rights,
            privileged: rights,
        },
        perms: rights,
        dirty: true,
        snoop: false,
    }
}

/// The size of the page around `addr` that is clear of the special ranges: this, or 12.
#[inline(always)]
const fn clear_of_ranges(addr: u64, shift: u8) -> u8 {
    // Both ranges are made of whole megabytes: a page as small lies in one or not.
    if shift <= 20 {
        return shift;
    }
    let (first, last) = bounds(addr, shift);
    if touches(first, last, 0xfee0_0000, 0xfeef_ffff)
        || touches(first, last, 0xfd_0000_0000, 0xff_ffff_ffff)
    {
        return 12;
    }
    shift
}

/// The first and the last address of the page of this size around `addr`.
const fn bounds(addr: u64, shift: u8) -> (u64, u64) {
    let offset = !(!0 << (shift & 63));
    (addr & !offset, addr | offset)
}

const fn touches(first: u64, last: u64, from: u64, to: u64) -> bool {
    first <= to && last >= from
}

/// Walks page tables.
///
/// `updates` receives accessed and dirty bits to set, also those of entries that the walk used
/// before it failed. Checks that depend on the request are made here, so `space` may come out of a
/// cache. Translated requests do not get here: see [`translated`](super::translated). The special
/// ranges do not either: see [`special`].
///
/// # Errors
/// [`Failure`] of a guest CR3, guest or host table, or one that keeps the request out of this space.
#[inline]
pub fn walk<M: TableMem, R: Recorder>(
    unit: &Unit,
    space: &Space,
    mem: &M,
    dma: &Dma,
    updates: &mut Updates,
    recorder: &mut R,
) -> Result<Outcome, Failure> {
    let mut demand = Demand::new(dma, || false, || true, || true);
    if demand.special() {
        if !unit.user_supervisor() {
            demand = demand.in_user_mode();
        }
        if demand.translation() && !space.switches.contains(Switches::DEVICE_TLB) {
            return Err(refuse(Cause::DeviceTlbDisabled, space, dma.pasid));
        }
    }
    // What is left are few devices: those without an entry, and those in an exclusion range.
    const TRANSLATED: Switches = Switches::VALID.union(Switches::TRANSLATING);
    if !space.switches.contains(TRANSLATED) || unit.has_exclusion() {
        match untranslated(unit, space, dma, demand) {
            Ok(None) => {}
            Ok(Some(translation)) => return Ok(Outcome::Memory(translation)),
            Err(cause) => return Err(refuse(cause, space, dma.pasid)),
        }
    }
    let mut walker = Walker {
        demand,
        device: space.rights(),
        input: dma.addr.0,
        trip: Trip {
            unit,
            mem,
            recorder,
            updates,
            given: Given::new(space.switches),
            failure: None,
        },
    };
    let result = if space.guest.is_some() || dma.pasid.is_some() {
        walker.with_guest(space, dma.pasid)
    } else {
        match space.host {
            Some(host) => walker.host(host),
            None => walker.unchanged(space),
        }
    };
    match result {
        Ok(mut translation) => {
            if unit.has_exclusion() {
                translation.page_shift = clear_of_exclusion(unit, space, dma, &translation);
            }
            Ok(Outcome::Memory(translation))
        }
        Err(Stop) => Err(walker.failed(space, dma.pasid)),
    }
}

/// A request that no table translates, for its device table entry or for the exclusion range.
#[cold]
fn untranslated(
    unit: &Unit,
    space: &Space,
    dma: &Dma,
    demand: Demand,
) -> Result<Option<Translation>, Cause> {
    const ALL: Access = Access::RW.union(Access::EXEC);
    if !space.switches.contains(Switches::VALID) {
        return Ok(Some(identity(dma, ALL, 30)));
    }
    if !space.switches.contains(Switches::TRANSLATING) {
        return Err(Cause::TranslationDisabled);
    }
    let (first, last) = unit.exclusion_range();
    if excluded(unit, space, dma) && (first..=last).contains(&dma.addr.0) {
        let mut translation = identity(dma, ALL, 12);
        if demand.translation() {
            translation.perms = ALL.intersection(demand.wanted());
        }
        return Ok(Some(translation));
    }
    Ok(None)
}

/// Whether the exclusion range is for this request, wherever it goes. It is about guest physical
/// addresses.
fn excluded(unit: &Unit, space: &Space, dma: &Dma) -> bool {
    unit.has_exclusion()
        && (unit.excludes_all() || space.switches.contains(Switches::EXCLUSION))
        && space.guest_pasid(dma.pasid).is_none()
}

/// The size of the translation's page, cut to 4 KiB where it reaches into the exclusion range.
#[cold]
fn clear_of_exclusion(unit: &Unit, space: &Space, dma: &Dma, translation: &Translation) -> u8 {
    let shift = translation.page_shift;
    let (from, to) = unit.exclusion_range();
    let (first, last) = bounds(dma.addr.0, shift);
    if excluded(unit, space, dma) && touches(first, last, from, to) {
        12
    } else {
        shift
    }
}

/// Read and write from the low two bits of an entry.
#[inline(always)]
const fn low_rights(entry: u64) -> Access {
    Access::from_bits_retain((entry & 3) as u8)
}

/// What host table entries grant. Execute goes with read.
#[inline(always)]
const fn host_rights(every: u64) -> Access {
    let rights = low_rights(every >> RIGHTS);
    if rights.contains(Access::READ) {
        rights.union(Access::EXEC)
    } else {
        rights
    }
}

/// One request on its way through the page tables.
struct Walker<'a, M, R> {
    demand: Demand,
    /// What the device table entry allows.
    device: Access,
    input: u64,
    trip: Trip<'a, Unit, M, R>,
}

impl<M: TableMem, R: Recorder> Walker<'_, M, R> {
    /// The failure that a method left behind.
    #[cold]
    fn failed(&mut self, space: &Space, pasid: Option<Pasid>) -> Failure {
        let left = self.trip.failure.take();
        let failure = left.unwrap_or(crate::Failure::new(Cause::TranslationDisabled));
        let mut detail = space.detail(pasid);
        if failure.stage == Some(Stage::Second) {
            // A host table is the domain's, not the PASID's.
            detail.pasid = None;
        }
        failure.detailed(detail)
    }

    /// The rights that the request cannot do without, as bits of a host table entry; none, for one that
    /// makes do with what it gets.
    #[inline(always)]
    fn needed(&self) -> u64 {
        if self.demand.translation() || self.demand.zero_length() {
            return 0;
        }
        // Execute takes read.
        let wanted = u64::from(self.demand.wanted().bits());
        (wanted & 0b11 | wanted >> 2 & 1) << RIGHTS
    }

    /// Weighs rights against the request: what it may do, or `None` if it may not.
    #[inline(always)]
    fn weigh(&self, granted: Access) -> Option<Access> {
        let wanted = self.demand.wanted();
        if self.demand.translation() {
            let perms = granted.intersection(wanted);
            return perms.intersects(Access::RW).then_some(perms);
        }
        let zero = self.demand.zero_length() && granted.contains(Access::WRITE);
        (granted.contains(wanted) || zero).then_some(granted)
    }

    /// The device table entry decides before any table does.
    #[inline(always)]
    fn admit(&mut self) -> Result<(), Stop> {
        match self.weigh(self.device) {
            Some(_) => Ok(()),
            None => Err(self.device_denied()),
        }
    }

    #[cold]
    fn device_denied(&mut self) -> Stop {
        let write = self.demand.write() && !self.device.contains(Access::WRITE);
        self.trip.fail(if write {
            Cause::DeviceWriteDenied
        } else {
            Cause::DeviceReadDenied
        })
    }

    /// No host tables: the address is left as it is.
    #[inline(never)]
    fn unchanged(&mut self, space: &Space) -> Result<Translation, Stop> {
        self.admit()?;
        let rights = self.device;
        Ok(Translation {
            pa: Gpa(self.input),
            page_shift: clear_of_ranges(self.input, 30),
            rights: Rights {
                user: rights,
                privileged: rights,
            },
            perms: self.weigh(rights).unwrap_or(Access::empty()),
            dirty: true,
            snoop: space.switches.contains(Switches::FORCE_COHERENT),
        })
    }

    /// The input must not be wider than the host tables cover.
    #[inline(always)]
    fn fits(&mut self, input: u64, levels: u8, guest: Option<Gpa>) -> Result<(), Stop> {
        if levels < 6 && input >> (12 + 9 * levels) != 0 {
            return Err(self.too_wide(guest));
        }
        Ok(())
    }

    #[cold]
    fn too_wide(&mut self, guest: Option<Gpa>) -> Stop {
        self.trip.fail(Cause::HostAddressWidth);
        if let (Some(failure), Some(_)) = (&mut self.trip.failure, guest) {
            failure.guest_addr = guest;
            failure.stage = Some(Stage::Second);
        }
        Stop
    }

    /// The host tables alone.
    #[inline(always)]
    fn host(&mut self, table: PageTable) -> Result<Translation, Stop> {
        self.admit()?;
        self.fits(self.input, table.levels, None)?;
        let lower = self.trip.lower(table);
        let leaf = self.trip.second(&lower, self.input, None, self.needed())?;
        let rights = host_rights(leaf.every).intersection(self.device);
        let Some(perms) = self.weigh(rights) else {
            return Err(self.host_denied(rights, table, self.input, None));
        };
        let dirty = self.mark_host(&leaf, &lower, perms, None)?;
        Ok(Translation {
            pa: Gpa(leaf.address(&self.trip.unit.host, self.input)),
            page_shift: clear_of_ranges(self.input, leaf.shift),
            rights: Rights {
                user: rights,
                privileged: rights,
            },
            perms,
            dirty,
            snoop: leaf.raw & HostEntry::FORCE_COHERENT != 0,
        })
    }

    /// Sets the accessed and dirty bits of the host leaf. Says whether it is dirty now, or need not be.
    #[inline(always)]
    fn mark_host(
        &mut self,
        leaf: &Leaf,
        lower: &Lower,
        perms: Access,
        guest: Option<Gpa>,
    ) -> Result<bool, Stop> {
        if lower.accessed == 0 {
            return Ok(true);
        }
        let write = self.demand.write() && perms.contains(Access::WRITE);
        let bits = lower.accessed | if write { lower.dirty } else { 0 };
        if bits & !leaf.raw != 0 {
            self.trip.mark_second(leaf.here, leaf.raw, bits, guest)?;
        }
        Ok(write || lower.dirty & !leaf.raw == 0)
    }

    /// What the host tables grant is not enough for a request that was not refused on the way.
    #[cold]
    fn host_denied(
        &mut self,
        granted: Access,
        table: PageTable,
        input: u64,
        guest: Option<Gpa>,
    ) -> Stop {
        let write = self.demand.write() && !granted.contains(Access::WRITE);
        let (cause, bits) = if write {
            (Cause::HostWriteDenied, HostEntry::WRITE)
        } else {
            (Cause::HostReadDenied, HostEntry::READ)
        };
        let guilty = self.trip.guilty_second(table, input, bits);
        self.trip.refuse(cause, Stage::Second, guilty, bits, guest)
    }

    /// A device with guest tables, or a request with a PASID.
    #[inline(never)]
    fn with_guest(&mut self, space: &Space, pasid: Option<Pasid>) -> Result<Translation, Stop> {
        let Some(guest) = space.guest else {
            return Err(self.trip.fail(Cause::PasidDisabled));
        };
        match (space.guest_pasid(pasid), space.host) {
            (Some(pasid), None) => self.guest(guest, pasid),
            (Some(pasid), Some(host)) => self.both(guest, pasid, host),
            (None, Some(host)) => self.host(host),
            (None, None) => self.unchanged(space),
        }
    }

    /// The input of guest tables must be canonical; of those of PASID 0, which are not sign-extended,
    /// it must not be wider than they cover (Linux `amd_iommu_domain_alloc_paging_v2`).
    #[inline(always)]
    fn canonical(&mut self, levels: u8, pasid: Pasid) -> Result<(), Stop> {
        let unused = 52u8.wrapping_sub(levels.wrapping_mul(9)) & 63;
        let fits = if pasid.get() == 0 {
            self.input << unused >> unused == self.input
        } else {
            let input = self.input.cast_signed();
            input << unused >> unused == input
        };
        if fits {
            Ok(())
        } else {
            Err(self.trip.fail(Cause::GuestAddressWidth))
        }
    }

    /// What the guest tables grant, of what the device table entry allows.
    #[inline(always)]
    fn guest_rights(&self, leaf: &Leaf) -> Rights {
        // P and R/W are where `Access` has read and write. NX is in `any` only where the unit has it.
        let mut granted = low_rights(leaf.every);
        if leaf.any & self.trip.unit.guest.denies & NO_EXECUTE == 0 {
            granted.insert(Access::EXEC);
        }
        let granted = granted.intersection(self.device);
        Rights {
            user: if leaf.every & USER == 0 {
                Access::empty()
            } else {
                granted
            },
            privileged: granted,
        }
    }

    /// Weighs what the guest tables grant against the request.
    #[inline(always)]
    fn weigh_guest(
        &mut self,
        rights: Rights,
        every: u64,
        table: PageTable,
        host: Option<PageTable>,
    ) -> Result<Access, Stop> {
        match self.weigh(rights.of(self.demand.privileged())) {
            Some(perms) => Ok(perms),
            None => Err(self.guest_denied(rights, every, table, host)),
        }
    }

    #[cold]
    fn guest_denied(
        &mut self,
        rights: Rights,
        every: u64,
        table: PageTable,
        host: Option<PageTable>,
    ) -> Stop {
        let granted = rights.of(self.demand.privileged());
        let missing = self.demand.wanted().difference(granted);
        let (cause, bits, has) = if every & USER == 0 && !self.demand.privileged() {
            (Cause::GuestUserDenied, USER, false)
        } else if missing.contains(Access::WRITE) {
            (Cause::GuestWriteDenied, WRITABLE, false)
        } else if missing.contains(Access::EXEC) {
            (Cause::GuestExecuteDenied, NO_EXECUTE, true)
        } else {
            // Present is readable; the device table entry let the request in.
            (Cause::DeviceReadDenied, 0, false)
        };
        let trip = &mut self.trip;
        let guilty = trip.guilty_first(table, host, self.input, bits, has);
        let guest = host.and(guilty.as_ref().map(|slot: &Slot| slot.at));
        trip.refuse(cause, Stage::First, guilty, bits, guest)
    }

    /// The guest tables alone.
    #[inline(always)]
    fn guest(&mut self, guest: GuestTables, pasid: Pasid) -> Result<Translation, Stop> {
        self.admit()?;
        let table = self.guest_table(guest, pasid, None)?;
        self.canonical(table.levels, pasid)?;
        let format = &self.trip.unit.guest;
        let accessed = format.accessed;
        let mut tables = First {
            mem: self.trip.mem,
            trip: &mut self.trip,
            top: table.levels,
            accessed,
        };
        let (root, levels) = (table.root.0, table.levels);
        let usual = format.usual(accessed);
        let leaf = descend(format, usual, &mut tables, root, levels, self.input)?;
        let rights = self.guest_rights(&leaf);
        let perms = self.weigh_guest(rights, leaf.every, table, None)?;
        let write = self.demand.write() && perms.contains(Access::WRITE);
        let bits = accessed | if write { format.dirty } else { 0 };
        if bits & !leaf.raw != 0 {
            self.trip.mark_first(leaf.here, leaf.raw, bits)?;
        }
        Ok(Translation {
            pa: Gpa(leaf.address(format, self.input)),
            page_shift: clear_of_ranges(self.input, leaf.shift),
            rights,
            perms,
            dirty: write || format.dirty & !leaf.raw == 0,
            // Accesses through guest tables are coherent.
            snoop: true,
        })
    }

    /// The guest tables over the host tables.
    #[inline(always)]
    fn both(
        &mut self,
        guest: GuestTables,
        pasid: Pasid,
        host: PageTable,
    ) -> Result<Translation, Stop> {
        self.admit()?;
        let lower = self.trip.lower(host);
        let table = self.guest_table(guest, pasid, Some(&lower))?;
        self.canonical(table.levels, pasid)?;
        let unit = self.trip.unit;
        let format = &unit.guest;
        let accessed = format.accessed;
        let mut tables = Nested::new(&mut self.trip, table, &lower, accessed);
        let usual = format.usual(accessed).without(tables.beyond);
        let (root, levels) = (table.root.0, table.levels);
        let leaf = descend(format, usual, &mut tables, root, levels, self.input)?;
        let under = tables.under;
        let mut rights = self.guest_rights(&leaf);
        let guest_perms = self.weigh_guest(rights, leaf.every, table, Some(host))?;

        let address = leaf.address(format, self.input);
        let at = Some(Gpa(address));
        self.fits(address, host.levels, at)?;
        let page = self.trip.second(&lower, address, at, self.needed())?;
        let below = host_rights(page.every);
        let perms = self
            .weigh(below)
            .map(|perms| perms.intersection(guest_perms));
        let perms = match perms {
            Some(perms) if !self.demand.translation() || perms.intersects(Access::RW) => perms,
            _ => return Err(self.host_denied(below, host, address, at)),
        };

        let write = self.demand.write() && perms.contains(Access::WRITE);
        let bits = accessed | if write { format.dirty } else { 0 };
        if bits & !leaf.raw != 0 {
            self.trip
                .mark_nested(leaf.here, leaf.physical, leaf.raw, &under, bits)?;
        }
        let dirty = self.mark_host(&page, &lower, perms, at)?;
        rights.user = rights.user.intersection(below);
        rights.privileged = rights.privileged.intersection(below);
        Ok(Translation {
            pa: Gpa(page.address(&unit.host, address)),
            page_shift: clear_of_ranges(self.input, page.shift.min(leaf.shift)),
            rights,
            perms,
            dirty: dirty && (write || format.dirty & !leaf.raw == 0),
            snoop: page.raw & HostEntry::FORCE_COHERENT != 0,
        })
    }
}
