//! How QEMU weighs rights.

use super::{Walked, device_step, failed};
use crate::amdvi::page::{offset, own_shift};
use crate::harness::{BUSY, NOWHERE};
use iommu_walk::amdvi::Cause;
use iommu_walk::{Table, Verdict};
use iommu_wire::amdvi::pte::HostEntry;
use iommu_wire::amdvi::tables::DeviceWord0;

/// IR and IW, of a device table entry as of a host entry.
const RIGHTS: u64 = HostEntry::READ | HostEntry::WRITE;

pub(super) const DENIED_BY_DEVICE: &[Cause] = &[Cause::DeviceReadDenied, Cause::DeviceWriteDenied];
pub(super) const DENIED_BY_HOST: &[Cause] = &[Cause::HostReadDenied, Cause::HostWriteDenied];

/// Whether a right is missing.
fn denied(walked: &Walked) -> Option<Cause> {
    failed(walked, DENIED_BY_DEVICE).or_else(|| failed(walked, DENIED_BY_HOST))
}

/// Whether this entry lacks the right that the request needs.
pub(super) fn lacks(walked: &Walked, word: u64) -> bool {
    let needed = if walked.case.device.writes() {
        HostEntry::WRITE
    } else {
        HostEntry::READ
    };
    word & needed == 0
}

/// The walk as it would be if each entry on the way granted everything.
pub(super) fn granted(walked: &Walked) -> Walked {
    let more = |walked: &Walked| {
        denied(walked)?;
        let at = match walked.failure?.entry_addr {
            Some(at) => at.0,
            None => device_step(walked)?.addr.0,
        };
        lacks(walked, walked.case.memory.get(at))
            .then(|| walked.with(|case| *case.memory.word(at) |= RIGHTS))
    };
    let walks = std::iter::successors(Some(walked.clone()), more);
    walks.last().unwrap_or_else(|| walked.clone())
}

/// An entry on the way, with the rights that it really has.
struct Entry {
    at: u64,
    /// 0 for the device table.
    level: u8,
    word: u64,
}

/// The entries of the whole way, whatever they grant. One that cannot be read takes no right away.
fn way(walked: &Walked) -> Vec<Entry> {
    let tables = [Table::DeviceTable, Table::SecondStage];
    let granted = granted(walked);
    let steps = granted.trail.steps().iter();
    let entries = steps.filter(|step| tables.contains(&step.table));
    let entries = entries.map(|step| Entry {
        at: step.addr.0,
        level: step.level,
        word: match step.verdict {
            Verdict::Unreadable => RIGHTS,
            _ => walked.case.memory.get(step.addr.0),
        },
    });
    entries.collect()
}

/// The place of the first entry at which the rights of all so far have nothing in common.
fn exhausted(way: &[Entry]) -> Option<usize> {
    let common = way.iter().scan(RIGHTS, |rights, entry| {
        *rights &= entry.word;
        Some(*rights)
    });
    common.into_iter().position(|rights| rights == 0)
}

/// Whether this entry maps a page of its level's own size.
fn ordinary_page(entry: &Entry) -> bool {
    entry.level > 0 && HostEntry::from_bits(entry.word).next_level() == 0
}

/// Lets all entries but the last grant everything.
pub(super) fn last_decides(walked: &Walked) -> Option<Walked> {
    denied(walked)?;
    let way = way(walked);
    let (last, above) = way.split_last()?;
    let goes_on = match exhausted(&way) {
        None => true,
        Some(at) => at == above.len() && ordinary_page(last),
    };
    let lacking = above.iter().any(|entry| lacks(walked, entry.word));
    (goes_on && lacking).then(|| {
        walked.with(|case| {
            above
                .iter()
                .for_each(|entry| *case.memory.word(entry.at) |= RIGHTS)
        })
    })
}

/// Makes a page of the entry at which no right is left.
pub(super) fn nothing_left(walked: &Walked) -> Option<Walked> {
    denied(walked)?;
    let way = way(walked);
    let at = exhausted(&way)?;
    let entry = way.get(at)?;
    let present = entry.word & HostEntry::PRESENT != 0;
    if entry.level == 0 || !present || ordinary_page(entry) {
        return None;
    }
    let paged = as_page(walked, entry.at, entry.level, own_shift(entry.level))?;
    Some(paged.with(|case| {
        for above in way.iter().take(at) {
            *case.memory.word(above.at) |= RIGHTS;
        }
    }))
}

/// Has the entry at `at` map the request as if it were for a page of this size.
pub(super) fn as_page(walked: &Walked, at: u64, level: u8, shift: u8) -> Option<Walked> {
    let base = walked.case.memory.get(at) & HostEntry::ADDRESS & !offset(shift);
    mapped(walked, at, level, base | walked.case.iova & offset(shift))
}

/// Has the entry at `at` map the request to `to`, with the rights that it has.
///
/// What it becomes is a page of its level's own size, so the request's offset in it may change. There
/// is none at level 6, so the table becomes one of level 5.
pub(super) fn mapped(walked: &Walked, at: u64, level: u8, to: u64) -> Option<Walked> {
    let device = device_step(walked)?.addr.0;
    // Where there is nothing is all the same.
    let to = if to < BUSY { to } else { NOWHERE };
    Some(walked.with(|case| {
        let rights = case.memory.get(at) & RIGHTS;
        let within = offset(own_shift(level.min(5)));
        let word = rights | HostEntry::PRESENT | to & !within;
        if level < 6 {
            case.iova = case.iova & !within | to & within;
            *case.memory.word(at) = word;
        } else {
            case.iova = to;
            let entry = case.memory.word(device);
            *entry = *entry & !DeviceWord0::MODE | 5 << 9;
            let table = *entry & HostEntry::ADDRESS;
            *case.memory.word(table) = word;
        }
    }))
}
