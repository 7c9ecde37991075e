//! What QEMU accepts in host tables.

use super::rights::{as_page, granted};
use super::{Walked, failed};
use crate::amdvi::page::{index, offset, own_shift};
use crate::harness::{DATA, NOWHERE};
use iommu_walk::Table;
use iommu_walk::amdvi::Cause;
use iommu_wire::amdvi::pte::{HostEntry, HostTarget};

/// Walks again without the reserved bits that this failure is about, as far as `mask` goes for the
/// word at an address, until it is about something else.
pub(super) fn ignoring(
    walked: &Walked,
    causes: &[Cause],
    mask: impl Fn(&Walked, u64) -> u64,
) -> Option<Walked> {
    let once = |walked: &Walked| {
        failed(walked, causes)?;
        let failure = walked.failure?;
        let at = failure.entry_addr?.0;
        let bits = failure.bits & mask(walked, at);
        (bits != 0).then(|| walked.with(|case| *case.memory.word(at) &= !bits))
    };
    std::iter::successors(once(walked), once).last()
}

/// Repeats `once` as long as it changes something.
///
/// It is given what the walk would be if every entry granted everything, because QEMU weighs rights
/// when it has come to the end.
fn beyond_rights(
    walked: &Walked,
    once: impl Fn(&Walked, &Walked) -> Option<Walked>,
) -> Option<Walked> {
    let once = |walked: &Walked| once(walked, &granted(walked));
    std::iter::successors(once(walked), once).last()
}

/// Takes reserved bits out of the way.
pub(super) fn reserved_accepted(walked: &Walked) -> Option<Walked> {
    beyond_rights(walked, |walked, granted| {
        failed(granted, &[Cause::HostEntryReserved])?;
        let failure = granted.failure?;
        let at = failure.entry_addr?.0;
        Some(walked.with(|case| *case.memory.word(at) &= !failure.bits))
    })
}

/// Has a table for each of the levels that an entry skips.
pub(super) fn skips(walked: &Walked) -> Option<Walked> {
    beyond_rights(walked, |walked, granted| {
        failed(granted, &[Cause::HostSkippedLevels])?;
        let failure = granted.failure?;
        let at = failure.entry_addr?.0;
        Some(walked.with(|case| {
            let entry = HostEntry::from_bits(case.memory.get(at));
            let HostTarget::Table { table, level: next } = entry.target(failure.level) else {
                return;
            };
            let mut below = table.0 | u64::from(next) << 9;
            for level in next + 1..failure.level {
                let entry = spare_table(level) + index(case.iova, level) * 8;
                let rights = HostEntry::READ | HostEntry::WRITE;
                *case.memory.word(entry) = below | rights | HostEntry::PRESENT;
                below = spare_table(level) | u64::from(level) << 9;
            }
            let word = case.memory.word(at);
            *word = *word & !(HostEntry::ADDRESS | HostEntry::NEXT_LEVEL) | below;
        }))
    })
}

/// A table of our own, behind the pages for DMA, where no case has one.
fn spare_table(level: u8) -> u64 {
    DATA.end + (u64::from(level) << 12)
}

/// Makes a page of the level's own size of one that is not of this level.
pub(super) fn any_size(walked: &Walked) -> Option<Walked> {
    let next = granted(walked);
    failed(&next, &[Cause::HostPageSize, Cause::HostLevel])?;
    let failure = next.failure?;
    let (at, level) = (failure.entry_addr?.0, failure.level);
    let entry = HostEntry::from_bits(walked.case.memory.get(at));
    let shift = match entry.next_level() {
        0 => own_shift(level),
        7 => entry.encoded_shift(),
        _ => return None,
    };
    let base = entry.into_bits() & HostEntry::ADDRESS & !offset(shift);
    let to = base | walked.case.iova & offset(shift);
    as_page(walked, at, level, to)
}

/// Lets a request go nowhere whose offset in such a page is more than memory can have.
pub(super) fn oversized(walked: &Walked) -> Option<Walked> {
    let accepted = reserved_accepted(walked).unwrap_or_else(|| walked.clone());
    let granted = granted(&accepted);
    let mut steps = granted.trail.steps().iter();
    let last = steps.rfind(|step| step.table == Table::SecondStage)?;
    let word = walked.case.memory.get(last.addr.0);
    let sized = HostEntry::from_bits(word).next_level() == 7;
    let whole = word & HostEntry::ADDRESS == HostEntry::ADDRESS;
    // All ones are taken for an entry that cannot be read.
    let ones = u8::try_from((word | 0xfff).trailing_ones()).ok()?;
    let found = sized && whole && word & HostEntry::PRESENT != 0 && ones < 63;
    let above = found && walked.case.iova & offset(ones + 1) >> 52 << 52 != 0;
    above.then(|| as_page(walked, last.addr.0, last.level, NOWHERE))?
}
