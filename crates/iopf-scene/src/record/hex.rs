//! Raw records as hexadecimal text.

use iommu_wire::vtd::event::RawFault;
use iommu_wire::vtd::page_request::RawDescriptor;

use super::{Fault, fault, is_fault, is_page_request, page_request};

/// Reads dumps of raw records line by line.
///
/// A line has the bytes of a record in order (`00 a0 cd ff …`), its little-endian words of 16, 32 or
/// 64 bits in order, or the whole as one number; with or without `0x`, an offset before it and the
/// characters beside it. Of the two orders that words of one width can have, the one is taken in
/// which the reserved bits are zero.
#[derive(Clone, Debug, Default)]
pub struct HexReader {
    /// The line before was the first half of a page request descriptor.
    half: bool,
}

/// What a line of a dump holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HexLine {
    /// A record.
    Fault(Fault),
    /// The device's own half of the descriptor before.
    More,
    /// Nothing of a fault: text, an empty register, a stop marker.
    Nothing,
}

impl HexReader {
    /// Whether `line` has as many hexadecimal digits as a record.
    pub(crate) fn is_dump(line: &[u8]) -> bool {
        Words::read(line).is_some()
    }

    /// Reads the next line.
    pub fn line(&mut self, line: &[u8]) -> HexLine {
        let half = std::mem::take(&mut self.half);
        let Some(words) = Words::read(line) else {
            return HexLine::Nothing;
        };
        match words.meaning() {
            Some((found, whole)) => {
                self.half = !whole;
                found.map_or(HexLine::Nothing, HexLine::Fault)
            }
            None if half && words.bytes == 16 => HexLine::More,
            None => HexLine::Nothing,
        }
    }
}

/// The words of one line, all of one width.
#[derive(Clone, Debug)]
struct Words {
    /// Bytes as the digits have them, not yet in memory order.
    digits: [u8; 32],
    /// How many of them.
    bytes: usize,
    /// Bytes in a word.
    width: usize,
}

impl Words {
    fn read(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let text = text.split('|').next()?;
        let words: Vec<&str> = text
            .split([' ', '\t', ',', ';', '=', '_'])
            .filter(|word| digits(word).is_some())
            .take(80)
            .collect();
        // A run of equal words that makes a record, wherever it begins: offsets may stand before it,
        // labels and characters between and behind.
        (0..words.len()).find_map(|first| Self::at(words.get(first..)?))
    }

    fn at(words: &[&str]) -> Option<Self> {
        let first = digits(words.first()?)?;
        let width = first.len() / 2;
        if !matches!(first.len(), 2 | 4 | 8 | 16 | 32 | 64) {
            return None;
        }
        let run = words
            .iter()
            .map_while(|word| digits(word).filter(|digits| digits.len() == width * 2));
        let mut out = Self {
            digits: [0; 32],
            bytes: 0,
            width,
        };
        for word in run {
            let mut pairs = word.bytes();
            while let (Some(high), Some(low)) = (pairs.next(), pairs.next()) {
                let Some(slot) = out.digits.get_mut(out.bytes) else {
                    return (width > 1).then_some(out);
                };
                *slot = (value(high)? << 4) | value(low)?;
                out.bytes += 1;
            }
        }
        match out.bytes {
            32 => Some(out),
            16.. => {
                out.bytes = 16;
                Some(out)
            }
            _ => None,
        }
    }

    /// The record in these words, and whether all of it is here. `None` where it is no record.
    fn meaning(&self) -> Option<(Option<Fault>, bool)> {
        let all = self.digits.get(..self.bytes)?;
        // A word is a number: its bytes are in memory the other way round.
        let mut swapped = [0; 32];
        let swapped = swapped.get_mut(..self.bytes)?;
        swapped.copy_from_slice(all);
        for word in swapped.chunks_mut(self.width) {
            word.reverse();
        }
        let mut back = [0; 32];
        let back = back.get_mut(..self.bytes)?;
        back.copy_from_slice(swapped);
        // Words of a register that are written highest first.
        let mut at = self.bytes;
        for word in swapped.chunks(self.width) {
            at -= word.len();
            back.get_mut(at..at + word.len())?.copy_from_slice(word);
        }
        [&*swapped, all, back].into_iter().find_map(record)
    }
}

/// The record that `bytes` are, in memory order, and whether all of it is there.
fn record(bytes: &[u8]) -> Option<(Option<Fault>, bool)> {
    let qword = |nth: usize| {
        let bytes = bytes.get(nth * 8..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let (low, high) = (qword(0)?, qword(1)?);
    if is_page_request(low) {
        let private = [qword(2).unwrap_or(0).into(), qword(3).unwrap_or(0).into()];
        let raw = RawDescriptor {
            head: low.into(),
            request: high.into(),
            private,
        };
        return Some((page_request(&raw), bytes.len() == 32));
    }
    is_fault(low, high).then(|| {
        let raw = RawFault {
            low: low.into(),
            high: high.into(),
        };
        (fault(&raw), true)
    })
}

/// The digits of a hexadecimal word.
fn digits(word: &str) -> Option<&str> {
    let word = word
        .strip_prefix("0x")
        .or_else(|| word.strip_prefix("0X"))
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
