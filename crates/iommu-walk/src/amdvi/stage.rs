//! From an address to memory, through the guest tables, the host tables, or both.
//!
//! Spec: 48882, "I/O Page Tables for Host Translations".

mod cr3;
mod given;
mod guest;
mod ranges;

pub(super) use ranges::identity;
pub use ranges::special;

use super::config::refuse;
use super::space::{Space, Switches};
use super::{Cause, Failure, Unit, in_special_range};
use crate::TableMem;
use crate::format::{Leaf, Stop};
use crate::outcome::{Outcome, PageTable, Rights, Translation};
use crate::stage::{Demand, Lower, Trip};
use crate::trail::{Recorder, Stage, Updates};
use given::Given;
use iommu_wire::amdvi::pte::HostEntry;
use iopf::{Access, Dma, Gpa, Pasid};
use ranges::{bounds, clear_of_ranges, excluded, touches, untranslated};

/// Where a host table entry has read; write is the next.
const RIGHTS: u32 = 61;

/// Walks page tables.
///
/// `updates` receives accessed and dirty bits to set, also those of entries that the walk used
/// before it failed. Checks that depend on the request are made here, so `space` may come out of a
/// cache. Translated requests do not get here: see [`translated`](super::translated). Untranslated ones
/// to the special ranges do not either: see [`special`].
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
        if demand.translation() {
            if !space.switches().contains(Switches::DEVICE_TLB) {
                return Err(refuse(Cause::DeviceTlbDisabled, *space, dma.pasid));
            }
            if in_special_range(dma.addr)
                && let Some(outcome) = special(unit, dma)?
            {
                return Ok(outcome);
            }
        }
    }
    // What is left are few devices: those without an entry, and those in an exclusion range.
    const TRANSLATED: Switches = Switches::VALID.union(Switches::TRANSLATING);
    if !space.switches().contains(TRANSLATED) || unit.has_exclusion() {
        match untranslated(unit, *space, dma, demand) {
            Ok(None) => {}
            Ok(Some(translation)) => return Ok(Outcome::Memory(translation)),
            Err(cause) => return Err(refuse(cause, *space, dma.pasid)),
        }
    }
    let mut walker = Walker {
        demand,
        device: space.rights(),
        exclusion: unit.has_exclusion() && excluded(unit, *space, dma),
        input: dma.addr.0,
        trip: Trip {
            unit,
            mem,
            recorder,
            updates,
            given: Given::new(space.switches()),
            failure: None,
        },
    };
    // Each on its own: brought together, the results would go through memory.
    if space.guest().is_some() || dma.pasid.is_some() {
        return walker.with_guest(*space, dma.pasid);
    }
    match space.host() {
        Some(host) => match walker.host(host) {
            Ok(translation) => Ok(Outcome::Memory(translation)),
            Err(Stop) => Err(walker.failed(*space, dma.pasid)),
        },
        None => walker.unchanged(*space, dma.pasid),
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
    /// The exclusion range is for this request.
    exclusion: bool,
    input: u64,
    trip: Trip<'a, Unit, M, R>,
}

impl<M: TableMem, R: Recorder> Walker<'_, M, R> {
    /// The failure that a method left behind.
    #[cold]
    fn failed(&mut self, space: Space, pasid: Option<Pasid>) -> Failure {
        let left = self.trip.failure.take();
        let failure = left.unwrap_or(crate::Failure::new(Cause::TranslationDisabled));
        let mut detail = space.detail(pasid);
        if failure.stage == Some(Stage::Second) {
            // A host table is the domain's, not the PASID's.
            detail.pasid = None;
        }
        failure.detailed(detail)
    }

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

    /// The device table entry decides before any table does. Gives the rights that the request cannot
    /// do without, as bits of a host table entry; none, for one that makes do with what it gets.
    #[inline(always)]
    fn admit(&mut self) -> Result<u64, Stop> {
        let needed = self.needed();
        let missing = needed >> RIGHTS & !u64::from(self.device.bits());
        if missing != 0 || needed == 0 && self.weigh(self.device).is_none() {
            return Err(self.device_denied());
        }
        Ok(needed)
    }

    /// The size of the page around the input that is clear of all that is treated otherwise.
    #[inline(always)]
    fn clear(&self, shift: u8) -> u8 {
        let shift = clear_of_ranges(self.input, shift);
        if self.exclusion {
            return self.clear_of_exclusion(shift);
        }
        shift
    }

    #[cold]
    fn clear_of_exclusion(&self, shift: u8) -> u8 {
        let (from, to) = self.trip.unit.exclusion_range();
        let (first, last) = bounds(self.input, shift);
        if touches(first, last, from, to) {
            12
        } else {
            shift
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
    fn unchanged(&mut self, space: Space, pasid: Option<Pasid>) -> Result<Outcome, Failure> {
        if self.admit().is_err() {
            return Err(self.failed(space, pasid));
        }
        let rights = self.device;
        Ok(Outcome::Memory(Translation {
            pa: Gpa(self.input),
            page_shift: self.clear(30),
            cut_from: 0,
            rights: Rights {
                user: rights,
                privileged: rights,
            },
            perms: self.weigh(rights).unwrap_or(Access::empty()),
            dirty: true,
            snoop: space.switches().contains(Switches::FORCE_COHERENT),
            global: false,
        }))
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
        let needed = self.admit()?;
        self.fits(self.input, table.levels, None)?;
        let lower = self.trip.lower(table);
        let leaf = self.trip.second(&lower, self.input, None, needed)?;
        let rights = host_rights(leaf.every).intersection(self.device);
        let mut perms = rights;
        // What a request needs, every entry on the way has.
        if needed == 0 {
            match self.weigh(rights) {
                Some(some) => perms = some,
                None => return Err(self.host_denied(rights, table, self.input, None)),
            }
        }
        let dirty = self.mark_host(&leaf, &lower, perms, None)?;
        Ok(Translation {
            pa: Gpa(leaf.address(&self.trip.unit.host, self.input)),
            page_shift: self.clear(leaf.shift),
            cut_from: 0,
            rights: Rights {
                user: rights,
                privileged: rights,
            },
            perms,
            dirty,
            snoop: leaf.raw & HostEntry::FORCE_COHERENT != 0,
            global: false,
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
}
