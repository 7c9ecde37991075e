//! Raw records as hexadecimal text.

use iommu_wire::vtd::event::RawFault;
use iommu_wire::vtd::page_request::RawDescriptor;

use super::{Fault, amdvi, fault, is_fault, is_page_request, page_request, smmuv3};
use crate::log::Arch;

/// Reads dumps of raw records line by line.
///
/// A line has the bytes of a record in order (`00 a0 cd ff …`), its little-endian words of 16, 32 or
/// 64 bits in order, or the whole as one number; with or without `0x`, an offset before it and the
/// characters beside it. Of the two orders that words of one width can have, the one is taken in
/// which the reserved bits are zero.
#[derive(Clone, Debug)]
pub struct HexReader {
    arch: Arch,
    /// The line before was the first half of a page request descriptor.
    half: bool,
    /// The first half of an event of SMMUv3, with which the line before ended.
    begun: Option<Words>,
    /// The order of bytes in which the records before were found.
    order: usize,
}

/// What a line of a dump holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HexLine {
    /// A record.
    Fault(Fault),
    /// The device's own half of the descriptor before.
    More,
    /// The first half of a record, which the next line tells whole.
    Begun,
    /// Nothing of a fault: text, an empty register, a stop marker.
    Nothing,
}

impl Default for HexReader {
    /// For records of VT-d.
    fn default() -> Self {
        Self::of(Arch::Vtd)
    }
}

impl HexReader {
    /// For records of `arch`.
    #[must_use]
    pub const fn of(arch: Arch) -> Self {
        Self {
            arch,
            half: false,
            begun: None,
            order: 0,
        }
    }

    /// Whether `line` has as many hexadecimal digits as a record.
    pub(crate) fn is_dump(&self, line: &[u8]) -> bool {
        Words::read(self.arch, self.order, line).is_some()
    }

    /// Whether `line` is an offset and nothing else, as the last line of a dump is.
    pub(crate) fn is_offset(line: &[u8]) -> bool {
        (6..=16).contains(&line.len()) && line.iter().all(u8::is_ascii_hexdigit)
    }

    /// Reads the next line: what its first record is.
    pub fn line(&mut self, line: &[u8]) -> HexLine {
        let found = self.lines(line).into_iter();
        found
            .reduce(|first, next| match first {
                HexLine::Nothing | HexLine::Begun => next,
                first => first,
            })
            .unwrap_or(HexLine::Nothing)
    }

    /// Reads the next line: what there is in it, one item for every 16 bytes or record.
    pub fn lines(&mut self, line: &[u8]) -> Vec<HexLine> {
        let half = std::mem::take(&mut self.half);
        let begun = self.begun.take();
        let Some(mut words) = Words::read(self.arch, self.order, line) else {
            return vec![HexLine::Nothing];
        };
        if let Some(begun) = begun.filter(|begun| begun.width == words.width) {
            words.digits.splice(..0, begun.digits);
        }
        let mut found = Vec::new();
        let mut rest = words.digits.as_slice();
        while rest.len() >= RECORD {
            if words.begins(rest) {
                self.begun = Some(Words {
                    digits: rest.to_vec(),
                    ..words
                });
                found.push(HexLine::Begun);
                break;
            }
            let Some(Found {
                record,
                used,
                order,
            }) = words.first(rest)
            else {
                let more = half && found.is_empty() && words.digits.len() == RECORD;
                found.push(if more {
                    HexLine::More
                } else {
                    HexLine::Nothing
                });
                rest = rest.get(RECORD..).unwrap_or_default();
                continue;
            };
            // What has no reserved bits to tell the orders apart is in that of the others.
            if self.arch == Arch::Smmuv3 {
                self.order = order;
            }
            self.half = used > rest.len();
            found.push(record.map_or(HexLine::Nothing, HexLine::Fault));
            rest = rest.get(used..).unwrap_or_default();
        }
        found
    }
}

/// Bytes of a fault recording register, and of half a page request descriptor.
const RECORD: usize = 16;

/// The words of one line, all of one width.
#[derive(Clone, Debug)]
struct Words {
    arch: Arch,
    /// Bytes as the digits have them, not yet in memory order; whole records.
    digits: Vec<u8>,
    /// Bytes in a word.
    width: usize,
    /// The order to try first.
    order: usize,
}

/// A record, and where it ends.
struct Found {
    record: Option<Fault>,
    /// Its bytes, of which the last may be missing.
    used: usize,
    /// The order that they were in.
    order: usize,
}

impl Words {
    fn read(arch: Arch, order: usize, line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let text = text.split('|').next()?;
        // `00:a0:cd:…`; otherwise what a colon follows is an address.
        let colons = text.bytes().filter(|&byte| byte == b':').count() + 1 >= RECORD;
        let between = |c: char| " \t,;=_\\".contains(c) || (colons && c == ':');
        let words: Vec<&str> = text
            .split(between)
            .filter(|word| digits(word).is_some())
            .collect();
        // A run of equal words that makes a record, wherever it begins: offsets may stand before it,
        // labels and characters between and behind. A run that is too short is passed as a whole.
        let mut rest = words.as_slice();
        while let Some(first) = rest.first() {
            let len = digits(first)?.len();
            let run = rest
                .iter()
                .take_while(|word| digits(word).is_some_and(|digits| digits.len() == len))
                .count();
            let (words, after) = rest.split_at_checked(run)?;
            // The first word may be an offset of the words' own width.
            let offset = words.get(1..).and_then(|run| Self::of(arch, order, run));
            let begins =
                |found: &Self| found.first(&found.digits).is_some() || found.begins(&found.digits);
            let offset = offset.filter(begins);
            let found = Self::of(arch, order, words);
            if let Some(found) = found.filter(|found| offset.is_none() || begins(found)) {
                return Some(found);
            }
            if offset.is_some() {
                return offset;
            }
            rest = after;
        }
        None
    }

    /// The words of a run.
    fn of(arch: Arch, order: usize, run: &[&str]) -> Option<Self> {
        let width = digits(run.first()?)?.len() / 2;
        if !matches!(width, 1 | 2 | 4 | 8) && width % RECORD != 0 {
            return None;
        }
        let mut out = Vec::with_capacity(width * run.len());
        for word in run {
            let mut pairs = digits(word)?.bytes();
            while let (Some(high), Some(low)) = (pairs.next(), pairs.next()) {
                out.push((value(high)? << 4) | value(low)?);
            }
        }
        // What is left over is characters behind the words.
        out.truncate(out.len() / RECORD * RECORD);
        (!out.is_empty()).then_some(Self {
            arch,
            digits: out,
            width,
            order,
        })
    }

    /// The record that `rest` begins with; `None` where there is none.
    fn first(&self, rest: &[u8]) -> Option<Found> {
        // An event of SMMUv3 is longer than what could be taken for another record.
        let lengths = if self.arch == Arch::Smmuv3 {
            [2 * RECORD, RECORD]
        } else {
            [RECORD, 2 * RECORD]
        };
        lengths.into_iter().find_map(|len| {
            let orders = self.orders(rest.get(..len)?);
            orders.into_iter().find_map(|(order, bytes)| {
                let (record, used) = record(self.arch, &bytes)?;
                Some(Found {
                    record,
                    used,
                    order,
                })
            })
        })
    }

    /// The bytes in the orders that they can have in memory, the likeliest first.
    fn orders(&self, all: &[u8]) -> [(usize, Vec<u8>); 3] {
        let width = if self.width > all.len() {
            1
        } else {
            self.width
        };
        // A word is a number: its bytes are in memory the other way round.
        let swapped = all
            .chunks(width)
            .flat_map(|word| word.iter().rev().copied())
            .collect();
        // Words of a register that are written highest first.
        let back = all.iter().rev().copied().collect();
        let mut orders = [(0, swapped), (1, all.to_vec()), (2, back)];
        orders.sort_by_key(|&(order, _)| order != self.order);
        orders
    }

    /// Whether `rest` is the first half of an event of SMMUv3.
    fn begins(&self, rest: &[u8]) -> bool {
        let low = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        // Highest first, the halves would come the other way round.
        let orders = self
            .orders(rest)
            .into_iter()
            .filter(|&(order, _)| order < 2);
        self.arch == Arch::Smmuv3
            && rest.len() == RECORD
            && orders
                .filter_map(|(_, bytes)| low(&bytes))
                .find(|&low| smmuv3::is_entry(low))
                .is_some_and(smmuv3::is_event)
    }
}

/// The record that `bytes` are, in memory order, and how many bytes it has.
fn record(arch: Arch, bytes: &[u8]) -> Option<(Option<Fault>, usize)> {
    let qword = |nth: usize| {
        let bytes = bytes.get(nth * 8..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let (low, high) = (qword(0)?, qword(1)?);
    if matches!(arch, Arch::Smmuv3 | Arch::Smmuv2) {
        let slot = smmuv3::slot(bytes)?;
        let fault = slot.fault.filter(|_| arch == Arch::Smmuv3)?;
        return Some((Some(fault), slot.bytes));
    }
    if arch == Arch::Amdvi {
        return amdvi::is_entry(low).then(|| (amdvi::entry(low, high), RECORD));
    }
    if is_page_request(low) {
        let private = [qword(2).unwrap_or(0).into(), qword(3).unwrap_or(0).into()];
        let raw = RawDescriptor {
            head: low.into(),
            request: high.into(),
            private,
        };
        return Some((page_request(&raw), 2 * RECORD));
    }
    is_fault(low, high).then(|| {
        let raw = RawFault {
            low: low.into(),
            high: high.into(),
        };
        (fault(&raw), RECORD)
    })
}

/// The digits of a hexadecimal word.
fn digits(word: &str) -> Option<&str> {
    let word = word
        .strip_prefix("0x")
        .or_else(|| word.strip_prefix("0X"))
        .or_else(|| word.strip_prefix('x'))
        .unwrap_or(word);
    (word.len().is_multiple_of(2)
        && !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    .then_some(word)
}

fn value(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}
