//! The words of a dump.

use memchr::memmem;

use super::{Entry, Table};
use crate::log::cursor::{Cursor, Number};
use crate::log::vtd;

/// What a line of a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) enum Part {
    /// `Dump dmar0 table entries for IOVA 0x…`; the address, if it is on this line.
    Head(Option<u64>),
    /// An entry, or that there is none.
    Entry,
    /// What was broken off the line before.
    Tail,
}

const HEAD: &str = "table entries for IOVA";

/// What each line begins with, and what it is of.
const PHRASES: [(&str, Phrase); 14] = [
    (
        "scalable mode root entry: hi",
        Phrase::HighLow(Table::ScalableRoot),
    ),
    ("root entry:", Phrase::Word(Table::Root)),
    ("context entry: hi", Phrase::HighLow(Table::Context)),
    ("pasid dir entry:", Phrase::Word(Table::Directory)),
    ("pasid table entry[", Phrase::Indexed),
    ("pte level:", Phrase::Page),
    ("PTE not present at level", Phrase::NoPage),
    ("root table is not present", Phrase::None(Table::Root)),
    ("root table entry is not present", Phrase::None(Table::Root)),
    ("context table is not present", Phrase::None(Table::Context)),
    (
        "context table entry is not present",
        Phrase::None(Table::Context),
    ),
    (
        "pasid directory entry is not present",
        Phrase::None(Table::Directory),
    ),
    ("pasid table is not present", Phrase::None(Table::Pasid)),
    (
        "pasid table entry is not present",
        Phrase::None(Table::Pasid),
    ),
];

/// What follows the words.
#[derive(Clone, Copy, Debug)]
enum Phrase {
    /// `0x…`
    Word(Table),
    /// `0x…, low 0x…`
    HighLow(Table),
    /// `3]: 0x…`, a word of a PASID table entry.
    Indexed,
    /// `4, pte value: 0x…`
    Page,
    /// `4`
    NoPage,
    /// Nothing.
    None(Table),
}

/// What `text` is of a dump, if anything.
pub(in crate::log) fn part(text: &[u8]) -> Option<Part> {
    if let Some(at) = memmem::find(text, HEAD.as_bytes()) {
        let mut cursor = Cursor::new(text, at + HEAD.len());
        cursor.blanks();
        return Some(Part::Head(match cursor.padded_hex() {
            Number::Whole(address) | Number::AtEnd(address) => Some(address),
            Number::Unreadable => None,
        }));
    }
    let words = ["entry: ", "entry[", "pte level", "not present", "entry:"];
    let entry = vtd::marked(text)
        && words
            .iter()
            .any(|words| memmem::find(text, words.as_bytes()).is_some());
    if entry {
        return Some(Part::Entry);
    }
    (!text.is_empty()).then_some(Part::Tail)
}

/// Whether what was printed so far ends before a value.
pub(in crate::log) fn is_cut(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    [
        &b"IOVA"[..],
        b"hi",
        b"low",
        b"entry:",
        b":",
        b"context",
        b"pasid",
        b"pte",
        b",",
    ]
    .iter()
    .any(|end| text.ends_with(end))
}

/// The entries in `text`, and the IOMMU they are of.
pub(super) fn entries(text: &[u8]) -> (Option<String>, Vec<Entry>) {
    let text = single_blanks(text);
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while let Some((found, phrase)) = next(&text, at) {
        let mut cursor = Cursor::new(&text, found);
        at = found;
        match phrase {
            Phrase::None(table) => entries.push(Entry {
                table,
                words: Vec::new(),
            }),
            Phrase::Word(table) => {
                if let Some(word) = word(&mut cursor) {
                    let words = vec![word];
                    entries.push(Entry { table, words });
                }
            }
            Phrase::HighLow(table) => {
                let high = word(&mut cursor);
                cursor.words(", low");
                if let (Some(high), Some(low)) = (high, word(&mut cursor)) {
                    let words = vec![low, high];
                    entries.push(Entry { table, words });
                }
            }
            Phrase::Indexed => pasid_word(&mut cursor, &mut entries),
            Phrase::Page => {
                let level = level(&mut cursor);
                cursor.words(", pte value:");
                if let (Some(level), Some(word)) = (level, word(&mut cursor)) {
                    entries.push(Entry {
                        table: Table::Page {
                            level,
                            absent: false,
                        },
                        words: vec![word],
                    });
                }
            }
            Phrase::NoPage => {
                if let Some(level) = level(&mut cursor) {
                    entries.push(Entry {
                        table: Table::Page {
                            level,
                            absent: true,
                        },
                        words: Vec::new(),
                    });
                }
            }
        }
    }
    (name(&text), entries)
}

/// The next phrase from `from` on, and where what follows it begins.
fn next(text: &[u8], from: usize) -> Option<(usize, Phrase)> {
    let rest = text.get(from..)?;
    PHRASES
        .iter()
        .filter_map(|&(words, phrase)| {
            memmem::find(rest, words.as_bytes()).map(|at| (at, from + at + words.len(), phrase))
        })
        .min_by_key(|&(at, end, _)| (at, std::cmp::Reverse(end)))
        .map(|(_, end, phrase)| (end, phrase))
}

fn word(cursor: &mut Cursor<'_>) -> Option<u64> {
    cursor.blanks();
    match cursor.padded_hex() {
        Number::Whole(word) | Number::AtEnd(word) => Some(word),
        Number::Unreadable => None,
    }
}

fn level(cursor: &mut Cursor<'_>) -> Option<u8> {
    let level = word(cursor)?;
    u8::try_from(level)
        .ok()
        .filter(|level| (1..=5).contains(level))
}

/// `3]: 0x…`: word 3 of the PASID table entry, which begins with word 0.
fn pasid_word(cursor: &mut Cursor<'_>, entries: &mut Vec<Entry>) {
    let digits = std::str::from_utf8(cursor.word()).ok();
    let Some(nth) = digits.and_then(|digits| digits.parse::<usize>().ok()) else {
        return;
    };
    cursor.words("]:");
    let Some(word) = word(cursor) else {
        return;
    };
    match entries.last_mut() {
        Some(Entry {
            table: Table::Pasid,
            words,
        }) if nth == words.len() && nth < 8 => words.push(word),
        _ if nth == 0 => entries.push(Entry {
            table: Table::Pasid,
            words: vec![word],
        }),
        _ => {}
    }
}

/// The IOMMU in `Dump dmar0 table entries`.
fn name(text: &[u8]) -> Option<String> {
    let at = memmem::find(text, b"Dump ")?;
    let name = text.get(at + 5..)?.split(|&byte| byte == b' ').next()?;
    name.starts_with(b"dmar")
        .then(|| String::from_utf8_lossy(name).into_owned())
}

fn single_blanks(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for word in text
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty())
    {
        if !out.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out
}
