//! Through the guest tables, alone or over the host tables.
//!
//! Spec: 48882, "I/O Page Tables for Guest Translations".

use super::{Walker, host_rights, low_rights};
use crate::TableMem;
use crate::amdvi::space::GuestTables;
use crate::amdvi::{Cause, Failure, Space};
use crate::format::{Leaf, Slot, Stop, descend};
use crate::outcome::{Outcome, PageTable, Rights, Translation};
use crate::stage::{First, Nested};
use crate::trail::{Recorder, Stage};
use iommu_wire::amdvi::pte::HostEntry;
use iopf::{Access, Gpa, Pasid};

/// User/supervisor, in a guest table entry.
const USER: u64 = 1 << 2;
/// Read/write, in a guest table entry.
const WRITABLE: u64 = 1 << 1;
/// No-execute, in a guest table entry.
const NO_EXECUTE: u64 = 1 << 63;

impl<M: TableMem, R: Recorder> Walker<'_, M, R> {
    /// A device with guest tables, or a request with a PASID.
    #[inline(never)]
    pub(super) fn with_guest(
        &mut self,
        space: Space,
        pasid: Option<Pasid>,
    ) -> Result<Outcome, Failure> {
        let Some(guest) = space.guest() else {
            self.trip.fail(Cause::PasidDisabled);
            return Err(self.failed(space, pasid));
        };
        let result = match (space.guest_pasid(pasid), space.host()) {
            (Some(of), None) => match self.guest(guest, of) {
                Ok(translation) => return Ok(Outcome::Memory(translation)),
                stop => stop,
            },
            (Some(of), Some(host)) => self.both(guest, of, host),
            (None, Some(host)) => self.host(host),
            (None, None) => return self.unchanged(space, pasid),
        };
        match result {
            Ok(translation) => Ok(Outcome::Memory(translation)),
            Err(Stop) => Err(self.failed(space, pasid)),
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
            page_shift: self.clear(leaf.shift),
            cut_from: 0,
            rights,
            perms,
            dirty: write || format.dirty & !leaf.raw == 0,
            // Accesses through guest tables are coherent.
            snoop: true,
            global: false,
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
        let needed = self.admit()?;
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
        let page = self.trip.second(&lower, address, at, needed)?;
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
            page_shift: self.clear(page.shift.min(leaf.shift)),
            cut_from: 0,
            rights,
            perms,
            dirty: dirty && (write || format.dirty & !leaf.raw == 0),
            snoop: page.raw & HostEntry::FORCE_COHERENT != 0,
            global: false,
        })
    }
}
