//! What the printed tables show of a fault: which entry, and which bit.

use iommu_wire::vtd::tables::{
    ContextHi, ContextLo, DirectoryWord, PasidFirstWord, PasidSecondWord, PointerWord,
    ScalableContextLo, TranslationType,
};

use iopf::Rid;

use super::{Entry, Table};
use crate::capture::Device;
use crate::log::normal::{Record, Wanted};

/// Which table a page table entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    First,
    Second,
}

/// The cause of the fault of `record` as the entries show it: one clause.
pub(super) fn finding(entries: &[Entry], record: &Record) -> Option<String> {
    let scalable = entries
        .iter()
        .any(|entry| entry.table == Table::ScalableRoot);
    let mut stage = Stage::Second;
    for entry in entries {
        let shown = match entry.table {
            Table::Root | Table::ScalableRoot => root(entry, record),
            Table::Context if scalable => scalable_context(entry, record),
            Table::Context => context(entry),
            Table::Directory => directory(entry),
            Table::Pasid => {
                stage = pasid_stage(entry);
                pasid(entry, record)
            }
            Table::Page { level, absent } => page(entry, level, absent, stage, record),
            Table::Device | Table::Command => None,
        };
        if shown.is_some() {
            return shown;
        }
        if let Some(name) = blamed(entry, record.code) {
            let words = entry
                .words
                .iter()
                .take(2)
                .map(|word| format!("{word:#018x}"));
            let words: Vec<String> = words.collect();
            return Some(format!(
                "{name} ({}) is present in memory now, so it was written after the fault or the IOMMU saw an older copy of it (a cache flush or an invalidation is missing)",
                words.join(", ")
            ));
        }
    }
    let leaf = entries.last().is_some_and(is_leaf);
    (leaf && permission(record)).then(|| {
        "every printed entry grants the access, so the mapping was made after the fault or the IOMMU used a stale copy of an entry (an invalidation is missing or late)".to_owned()
    })
}

/// The name of `entry`, if `code` says that it is not present.
fn blamed(entry: &Entry, code: Option<u32>) -> Option<&'static str> {
    match (entry.table, code?) {
        (Table::Root, 0x01) | (Table::ScalableRoot, 0x39) => Some("the root entry"),
        (Table::Context, 0x02 | 0x41) => Some("the context entry"),
        (Table::Directory, 0x51) => Some("the PASID directory entry"),
        (Table::Pasid, 0x59) => Some("the PASID table entry"),
        _ => None,
    }
}

/// The fault is one that a missing mapping or right causes.
fn permission(record: &Record) -> bool {
    matches!(
        record.code,
        Some(0x05 | 0x06 | 0x71 | 0x79 | 0x81 | 0x82 | 0x85 | 0x86)
    )
}

fn is_leaf(entry: &Entry) -> bool {
    let Table::Page { level, absent } = entry.table else {
        return false;
    };
    let large = entry.words.first().is_some_and(|word| word & 1 << 7 != 0);
    !absent && (level == 1 || (large && level <= 3))
}

fn root(entry: &Entry, record: &Record) -> Option<String> {
    if entry.words.is_empty() {
        return Some("there is no root table".to_owned());
    }
    let scalable = entry.table == Table::ScalableRoot;
    let rid = record.device.and_then(|device| match device {
        Device::Pci { rid, .. } => Some(rid),
        Device::Number(_) => None,
    });
    let bus = rid.map(Rid::bus);
    let of_bus = bus.map_or_else(String::new, |bus| format!(" of bus {bus:02x}"));
    let (word, half) = if scalable {
        let upper = rid?.devfn() >= 0x80;
        let half = if upper {
            "the high half of "
        } else {
            "the low half of "
        };
        (*entry.words.get(usize::from(upper))?, half)
    } else {
        (*entry.words.first()?, "")
    };
    let pointer = PointerWord::from_bits(word);
    if !pointer.present() {
        return Some(format!(
            "{half}the root entry{of_bus}, {word:#018x}, has its present bit (bit 0) clear"
        ));
    }
    reserved(&format!("{half}the root entry{of_bus}"), word, 0xffe)
}

/// A clause on bits of `mask` that are set in `word` though they are reserved.
fn reserved(what: &str, word: u64, mask: u64) -> Option<String> {
    let set = word & mask;
    (set != 0).then(|| format!("{what}, {word:#018x}, has reserved bits set ({set:#x})"))
}

fn context(entry: &Entry) -> Option<String> {
    let &[low, high, ..] = entry.words.as_slice() else {
        return Some("there is no context table for this bus".to_owned());
    };
    let (lo, hi) = (ContextLo::from_bits(low), ContextHi::from_bits(high));
    let what = format!("the context entry (low {low:#018x}, high {high:#018x})");
    if !lo.present() {
        return Some(format!("{what} has its present bit (bit 0) clear"));
    }
    if lo.translation_type() == TranslationType::PASS_THROUGH {
        return Some(format!(
            "{what} passes addresses through (TT, bits 3:2, is 2)"
        ));
    }
    if lo.translation_type().0 == 3 {
        return Some(format!(
            "{what} has a reserved translation type (TT, bits 3:2, is 3)"
        ));
    }
    if !(1..=3).contains(&hi.address_width()) {
        return Some(format!(
            "{what} names an address width that does not exist (AW, bits 66:64, is {})",
            hi.address_width()
        ));
    }
    reserved("the low word of the context entry", low, 0xff0)
}

fn scalable_context(entry: &Entry, record: &Record) -> Option<String> {
    let &[low, high, ..] = entry.words.as_slice() else {
        return Some("there is no context table for this bus".to_owned());
    };
    let lo = ScalableContextLo::from_bits(low);
    let what = format!("the context entry (low {low:#018x}, high {high:#018x})");
    if !lo.present() {
        return Some(format!("{what} has its present bit (bit 0) clear"));
    }
    match record.code {
        Some(0x44) if !lo.device_tlb() => Some(format!("{what} has DTE (bit 2) clear")),
        Some(0x45) if !lo.pasid_enabled() => Some(format!("{what} has PASIDE (bit 3) clear")),
        Some(0x47) if !lo.page_requests() => Some(format!("{what} has PRE (bit 4) clear")),
        Some(0x46) => Some(format!(
            "{what} has a directory for {:#x} PASIDs (PDTS, bits 11:9)",
            lo.pasids()
        )),
        _ => None,
    }
}

fn directory(entry: &Entry) -> Option<String> {
    let Some(&word) = entry.words.first() else {
        return Some("there is no PASID directory".to_owned());
    };
    if !DirectoryWord::from_bits(word).present() {
        return Some(format!(
            "the PASID directory entry {word:#018x} has its present bit (bit 0) clear"
        ));
    }
    None
}

fn pasid_stage(entry: &Entry) -> Stage {
    let first_only = entry
        .words
        .first()
        .is_some_and(|&word| PasidSecondWord::from_bits(word).translation() == 1);
    if first_only {
        Stage::First
    } else {
        Stage::Second
    }
}

fn pasid(entry: &Entry, record: &Record) -> Option<String> {
    let Some(&word) = entry.words.first() else {
        return Some("there is no PASID table".to_owned());
    };
    let second = PasidSecondWord::from_bits(word);
    if !second.present() {
        return Some(format!(
            "the PASID table entry (word 0 {word:#018x}) has its present bit (bit 0) clear"
        ));
    }
    if !(1..=4).contains(&second.translation()) {
        return Some(format!(
            "the PASID table entry (word 0 {word:#018x}) names a kind of translation that does not exist (PGTT, bits 8:6, is {})",
            second.translation()
        ));
    }
    let third = *entry.words.get(2)?;
    let first = PasidFirstWord::from_bits(third);
    match record.code {
        Some(0x5c) if !first.execute() => Some(format!(
            "word 2 of the PASID table entry, {third:#018x}, has ERE (bit 1) clear"
        )),
        Some(0x5d) if !first.supervisor() => Some(format!(
            "word 2 of the PASID table entry, {third:#018x}, has SRE (bit 0) clear"
        )),
        _ => None,
    }
}

fn page(entry: &Entry, level: u8, absent: bool, stage: Stage, record: &Record) -> Option<String> {
    let number = record.address.map_or_else(String::new, |address| {
        let index = address.0 >> (12 + 9 * u32::from(level - 1)) & 0x1ff;
        format!(" (number {index:#x} of its table)")
    });
    if absent {
        return Some(format!(
            "the level-{level} page table entry{number} is not present, or maps a large page, which this kernel does not tell apart"
        ));
    }
    let &word = entry.words.first()?;
    let stage_name = match stage {
        Stage::First => "first-stage",
        Stage::Second => "second-stage",
    };
    let what = format!("the level-{level} {stage_name} entry {word:#018x}{number}");
    match stage {
        Stage::Second => second_stage(&what, word, record.access),
        Stage::First => first_stage(&what, word, record),
    }
}

fn second_stage(what: &str, word: u64, access: Wanted) -> Option<String> {
    let (read, write) = (word & 1 != 0, word & 2 != 0);
    match access {
        _ if !read && !write => Some(format!(
            "{what} is not present: R (bit 0) and W (bit 1) are both clear"
        )),
        Wanted::Write if !write => Some(format!("{what} grants no writing: W (bit 1) is clear")),
        Wanted::Read | Wanted::Exec if !read => {
            Some(format!("{what} grants no reading: R (bit 0) is clear"))
        }
        _ => None,
    }
}

fn first_stage(what: &str, word: u64, record: &Record) -> Option<String> {
    if word & 1 == 0 {
        return Some(format!("{what} is not present: P (bit 0) is clear"));
    }
    if record.access == Wanted::Write && word & 2 == 0 {
        return Some(format!("{what} grants no writing: R/W (bit 1) is clear"));
    }
    if record.code == Some(0x81) && word & 4 == 0 {
        return Some(format!(
            "{what} is for the supervisor only: U/S (bit 2) is clear"
        ));
    }
    if record.code == Some(0x82) && word >> 63 != 0 {
        return Some(format!("{what} forbids execution: XD (bit 63) is set"));
    }
    None
}
