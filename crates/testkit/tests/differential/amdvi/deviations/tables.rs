//! What QEMU accepts in host tables.

use super::rights::{as_page, granted, mapped};
use super::{Walked, device_step, failed};
use crate::amdvi::page::{index, offset, own_shift};
use crate::harness::{DATA, NOWHERE};
use iommu_walk::Table;
use iommu_walk::amdvi::Cause;
use iommu_wire::amdvi::pte::{HostEntry, HostTarget};

/// Walks again without these bits of this word of the device table entry, which are reserved.
pub(super) fn featureless(walked: &Walked, word: u64, bits: u64) -> Option<Walked> {
    failed(walked, &[Cause::DeviceEntryReserved])?;
    let at = device_step(walked)?.addr.0 + word * 8;
    let set = walked.case.memory.get(at) & bits != 0;
    set.then(|| walked.with(|case| *case.memory.word(at) &= !bits))
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

/// What must be zero in an entry that points to a table, and in one that maps a page.
pub(super) const TABLE_RESERVED: u64 = 0x1ff << 52;
pub(super) const PAGE_RESERVED: u64 = 0x7f << 52;

/// Takes these bits out of entries whose Next Level is one of these.
pub(super) fn reserved_accepted(walked: &Walked, bits: u64, of: fn(u8) -> bool) -> Option<Walked> {
    beyond_rights(walked, |walked, granted| {
        failed(granted, &[Cause::HostEntryReserved])?;
        let at = granted.failure?.entry_addr?.0;
        let word = walked.case.memory.get(at);
        let such = of(HostEntry::from_bits(word).next_level()) && word & bits != 0;
        such.then(|| walked.with(|case| *case.memory.word(at) &= !bits))
    })
}

/// Has a table for each of the levels that an entry skips.
pub(super) fn skips(walked: &Walked) -> Option<Walked> {
    beyond_rights(walked, |walked, granted| {
        failed(granted, &[Cause::HostSkippedLevels])?;
        let failure = granted.failure?;
        let at = failure.entry_addr?.0;
        let entry = HostEntry::from_bits(walked.case.memory.get(at));
        let HostTarget::Table { table, level: next } = entry.target(failure.level) else {
            return None;
        };
        let skipped = offset(own_shift(failure.level)) & !offset(own_shift(next + 1));
        (walked.case.iova & skipped != 0).then(|| {
            walked.with(|case| {
                let mut below = table.0 | u64::from(next) << 9;
                for level in next + 1..failure.level {
                    let entry = spare_table(level) + index(case.iova, level) * 8;
                    let rights = HostEntry::READ | HostEntry::WRITE;
                    *case.memory.word(entry) = below | rights | HostEntry::PRESENT;
                    below = spare_table(level) | u64::from(level) << 9;
                }
                let word = case.memory.word(at);
                *word = *word & !(HostEntry::ADDRESS | HostEntry::NEXT_LEVEL) | below;
            })
        })
    })
}

/// A table of our own, behind the pages for DMA, where no case has one.
fn spare_table(level: u8) -> u64 {
    DATA.end + (u64::from(level) << 12)
}

/// Makes a page of its level's size of one whose level, 1–5, cannot have its size, which is encoded
/// in its address; if level and size are such.
pub(super) fn sized(walked: &Walked, such: fn(u8, u8) -> bool) -> Option<Walked> {
    let next = granted(walked);
    failed(&next, &[Cause::HostPageSize])?;
    let failure = next.failure?;
    let (at, level) = (failure.entry_addr?.0, failure.level);
    let entry = HostEntry::from_bits(walked.case.memory.get(at));
    let shift = entry.encoded_shift();
    such(level, shift).then(|| as_page(walked, at, level, shift))?
}

/// Makes a page of level 5 of one of level 6.
pub(super) fn topmost(walked: &Walked) -> Option<Walked> {
    let next = granted(walked);
    failed(&next, &[Cause::HostLevel])?;
    let failure = next.failure.filter(|failure| failure.level == 6)?;
    let (at, level) = (failure.entry_addr?.0, failure.level);
    let entry = HostEntry::from_bits(walked.case.memory.get(at));
    match entry.next_level() {
        0 => as_page(walked, at, level, own_shift(level)),
        7 => as_page(walked, at, level, entry.encoded_shift()),
        _ => None,
    }
}

/// Lets a request go nowhere whose offset in such a page is more than memory can have.
pub(super) fn oversized(walked: &Walked) -> Option<Walked> {
    let accepted = reserved_accepted(walked, PAGE_RESERVED, |next| next == 7);
    let accepted = accepted.unwrap_or_else(|| walked.clone());
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
    above.then(|| mapped(walked, last.addr.0, last.level, NOWHERE))?
}
