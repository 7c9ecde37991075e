//! From a PASID to its guest tables.
//!
//! Spec: 48882, "Guest CR3 Table"; Linux `drivers/iommu/amd/iommu.c`, `__get_gcr3_pte`.

use super::Walker;
use crate::TableMem;
use crate::amdvi::Cause;
use crate::amdvi::space::GuestTables;
use crate::format::Stop;
use crate::outcome::PageTable;
use crate::stage::{Lower, Stages};
use crate::trail::{Raw, Recorder, Step, Table, Verdict};
use iommu_wire::amdvi::tables::GuestCr3Word;
use iopf::{Gpa, Pasid};

/// What must be zero in a guest CR3 table entry. Bits 4:3 of a guest CR3 are cacheability.
const RESERVED: u64 = 0xfff << 52 | 0x7f << 5 | 0b11 << 1;

/// An entry of a guest CR3 table.
#[derive(Clone, Copy)]
struct Place {
    /// Where its table has it.
    at: u64,
    /// Where it lies in memory.
    physical: u64,
    index: u32,
}

impl<M: TableMem, R: Recorder> Walker<'_, M, R> {
    /// The guest tables of a PASID. With host tables (`lower`), the pointers in guest CR3 tables are
    /// guest physical addresses; that of the device table entry is one only where the unit is told so
    /// (`GCR3TRPMode`).
    #[inline]
    pub(super) fn guest_table(
        &mut self,
        guest: GuestTables,
        pasid: Pasid,
        lower: Option<&Lower>,
    ) -> Result<PageTable, Stop> {
        let unit = self.trip.unit;
        let covered = 1 << (9 * guest.levels.min(3));
        if pasid.get() >= unit.pasids.min(covered) {
            return Err(self.trip.fail(Cause::PasidOutsideTable));
        }
        let mut table = guest.root.0;
        for level in (0..guest.levels).rev() {
            let index = pasid.get() >> (9 * level) & 0x1ff;
            let at = table | u64::from(index) << 3;
            let top = level + 1 == guest.levels;
            let physical = match lower {
                Some(lower) if !top || unit.guest_cr3_is_guest() => self.through(lower, at)?,
                _ => at,
            };
            table = self.guest_cr3(Place {
                at,
                physical,
                index,
            })?;
        }
        if let Some(lower) = lower
            && table >> unit.input_bits(lower.table.levels) != 0
        {
            return Err(self.trip.fail(Cause::GuestEntryWidth));
        }
        Ok(PageTable {
            root: Gpa(table),
            levels: guest.paging,
        })
    }

    /// Where a guest physical address that must be readable lies.
    #[inline(never)]
    fn through(&mut self, lower: &Lower, at: u64) -> Result<u64, Stop> {
        let unit = self.trip.unit;
        self.fits(at, lower.table.levels, Some(Gpa(at)))?;
        let guest = Some(Gpa(at));
        let leaf = self.trip.second(lower, at, guest, 0)?;
        if unit.table_rights(lower.accessed) & !leaf.every != 0 {
            let bits = unit.second_read();
            let guilty = self.trip.guilty_second(lower.table, at, bits);
            let cause = Cause::GuestTableReadDenied;
            let stage = crate::Stage::Second;
            return Err(self.trip.refuse(cause, stage, guilty, bits, guest));
        }
        if lower.accessed & !leaf.raw != 0 {
            self.trip
                .mark_second(leaf.here, leaf.raw, lower.accessed, guest)?;
        }
        Ok(leaf.address(&unit.host, at))
    }

    /// Reads an entry: the table that it points to.
    #[inline]
    fn guest_cr3(&mut self, place: Place) -> Result<u64, Stop> {
        let Ok(raw) = self.trip.mem.load(Gpa(place.physical)) else {
            self.record(place, &[], Verdict::Unreadable);
            let stop = self.trip.fail(Cause::GuestCr3Unreadable);
            if let Some(failure) = &mut self.trip.failure {
                *failure = failure.unreadable(Gpa(place.physical));
            }
            return Err(stop);
        };
        if raw & GuestCr3Word::VALID == 0 {
            let cause = Cause::GuestCr3NotPresent;
            return Err(self.reject(place, raw, Verdict::NotPresent, cause, GuestCr3Word::VALID));
        }
        if raw & RESERVED != 0 {
            let cause = Cause::GuestCr3Reserved;
            return Err(self.reject(place, raw, Verdict::Reserved, cause, raw & RESERVED));
        }
        self.record(place, &[raw], Verdict::Next);
        Ok(GuestCr3Word::from_bits(raw).table().0)
    }

    #[cold]
    fn reject(
        &mut self,
        place: Place,
        raw: u64,
        verdict: Verdict,
        cause: Cause,
        bits: u64,
    ) -> Stop {
        self.record(place, &[raw], verdict);
        let stop = self.trip.fail(cause);
        if let Some(failure) = &mut self.trip.failure {
            *failure = failure.at(Gpa(place.physical), raw, bits);
        }
        stop
    }

    #[inline(always)]
    fn record(&mut self, place: Place, words: &[u64], verdict: Verdict) {
        if R::ACTIVE {
            self.trip.recorder.step(&Step {
                table: Table::GuestCr3,
                level: 0,
                index: place.index,
                addr: Gpa(place.physical),
                guest_addr: (place.at != place.physical).then_some(Gpa(place.at)),
                raw: Raw::new(words),
                verdict,
            });
        }
    }
}
