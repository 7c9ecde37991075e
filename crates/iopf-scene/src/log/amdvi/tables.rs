//! What Linux prints after an event: the device table entry, or the command.
//!
//! Linux `drivers/iommu/amd/iommu.c`, `dump_dte_entry` and `dump_command`; since 6.13 the control
//! register stands before the entry.

use memchr::memmem;

use crate::explain::fields::{self, Formats};
use crate::log::cursor::{Cursor, Number};
use crate::log::dump::{Dump, Entry, Table};

/// Whether `text` is a line of what is printed after the event with `code`.
pub(in crate::log) fn is_table(text: &[u8], code: Option<u32>) -> bool {
    let has = |words: &[u8]| memmem::find(text, words).is_some();
    match code {
        Some(1) => super::marked(text) && (has(b"DTE[") || has(b"Control Reg :")),
        Some(5) => super::marked(text) && has(b"CMD["),
        _ => false,
    }
}

/// Reads the lines printed for one event, with single blanks between them.
pub(in crate::log) fn dump(text: &[u8]) -> Dump {
    let entry = words::<4>(text, b"DTE[").map(|words| Entry {
        table: Table::Device,
        words: words.to_vec(),
    });
    let command = words::<4>(text, b"CMD[").map(|words| Entry {
        table: Table::Command,
        words: words.to_vec(),
    });
    let finding = entry.as_ref().map(|entry| device_entry(&entry.words));
    let finding = finding.or_else(|| {
        let code = command.as_ref()?.words.get(1)? >> 28;
        Some(format!("the command has the code {code:#x} (bits 63:60)"))
    });
    Dump {
        iommu: None,
        entries: entry.into_iter().chain(command).collect(),
        finding,
    }
}

/// The words that `name` and a number stand before, if all `N` can be read.
fn words<const N: usize>(text: &[u8], name: &[u8]) -> Option<[u64; N]> {
    let mut words = [None; N];
    for at in memmem::find_iter(text, name) {
        let mut cursor = Cursor::new(text, at + name.len());
        let nth = usize::from(cursor.rest().first()?.wrapping_sub(b'0'));
        cursor.skip(1);
        let good = cursor.eat(b']') && cursor.eat(b':');
        cursor.blanks();
        if let (true, Number::Whole(word), Some(slot)) =
            (good, cursor.padded_hex(), words.get_mut(nth))
        {
            *slot = Some(word);
        }
    }
    let mut found = [0; N];
    for (to, from) in found.iter_mut().zip(words) {
        *to = from?;
    }
    Some(found)
}

/// What a device table entry says.
fn device_entry(words: &[u64]) -> String {
    let said: Vec<String> = words
        .iter()
        .enumerate()
        .filter(|&(_, &word)| word != 0)
        .map(|(nth, &word)| {
            fields::spell(Formats::Amdvi, iommu_walk::Table::DeviceTable, nth, word, 0)
        })
        .collect();
    if said.is_empty() {
        return "the device table entry is all zero now, so it was written after the event"
            .to_owned();
    }
    format!("the device table entry has {}", said.join(", "))
}
