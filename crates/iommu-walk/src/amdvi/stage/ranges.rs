//! Addresses that are treated otherwise, and requests that no table translates.
//!
//! Spec: 48882, "Special Address Controls" and "Exclusion Range".

use crate::amdvi::config::refuse;
use crate::amdvi::{Cause, Failure, Space, Switches, Unit};
use crate::amdvi::{in_hypertransport_range, in_interrupt_range};
use crate::outcome::{Outcome, Rights, Translation};
use crate::stage::Demand;
use iopf::{Access, Dma, DmaKind, Gpa};

/// Says what becomes of a request to a [special range](crate::amdvi::in_special_range), before any page
/// table is read; `None` where it is a request like any other. Of an untranslated request not even the
/// device table entry matters; a translation request must be allowed by it first (UNCONFIRMED).
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
    } else if in_hypertransport_range(dma.addr)
        && dma.pasid.is_none()
        && !unit.hypertransport_ignored()
    {
        Cause::HypertransportRange
    } else {
        return Ok(None);
    };
    Err(refuse(cause, Space::PASS_THROUGH, dma.pasid))
}

/// The translation of a request whose address is left as it is, in a page of at most this size.
#[inline]
pub(in crate::amdvi) fn identity(dma: &Dma, rights: Access, shift: u8) -> Translation {
    Translation {
        pa: Gpa(dma.addr.0),
        page_shift: clear_of_ranges(dma.addr.0, shift),
        cut_from: 0,
        rights: Rights {
            user: rights,
            privileged: rights,
        },
        perms: rights,
        dirty: true,
        snoop: false,
        global: false,
    }
}

/// The size of the page around `addr` that is clear of the special ranges: this, or 12.
#[inline(always)]
pub(super) const fn clear_of_ranges(addr: u64, shift: u8) -> u8 {
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
pub(super) const fn bounds(addr: u64, shift: u8) -> (u64, u64) {
    let offset = !(!0 << (shift & 63));
    (addr & !offset, addr | offset)
}

pub(super) const fn touches(first: u64, last: u64, from: u64, to: u64) -> bool {
    first <= to && last >= from
}

/// A request that no table translates, for its device table entry or for the exclusion range.
#[cold]
pub(super) fn untranslated(
    unit: &Unit,
    space: Space,
    dma: &Dma,
    demand: Demand,
) -> Result<Option<Translation>, Cause> {
    const ALL: Access = Access::RW.union(Access::EXEC);
    if !space.switches().contains(Switches::VALID) {
        return Ok(Some(identity(dma, ALL, 30)));
    }
    if !space.switches().contains(Switches::TRANSLATING) {
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
pub(super) fn excluded(unit: &Unit, space: Space, dma: &Dma) -> bool {
    unit.has_exclusion()
        && (unit.excludes_all() || space.switches().contains(Switches::EXCLUSION))
        && space.guest_pasid(dma.pasid).is_none()
}
