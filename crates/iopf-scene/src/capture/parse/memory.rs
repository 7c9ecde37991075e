//! Memory and aborts.

use crate::capture::hex::{Hex, HexBytes, List, object};
use crate::capture::{Limits, Range, Span};
use iopf::Gpa;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Ranges sorted by address, of which no two name one byte.
#[derive(Default)]
pub(super) struct Memory(pub(super) Vec<Range>);

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ranges;
        impl<'de> Visitor<'de> for Ranges {
            type Value = Memory;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of ranges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Memory, A::Error> {
                let mut layout = Layout::default();
                while seq.next_element_seed(&mut layout)?.is_some() {}
                let ranges = layout.ranges.into_iter();
                let ranges = ranges.map(|(addr, (.., data))| Range {
                    addr: Gpa(addr),
                    data,
                });
                Ok(Memory(ranges.collect()))
            }
        }
        deserializer.deserialize_seq(Ranges)
    }
}

/// The ranges read so far.
#[derive(Default)]
struct Layout {
    read: usize,
    /// By first address: last address, index in the file, bytes.
    ranges: BTreeMap<u64, (u64, usize, Vec<u8>)>,
}

impl Layout {
    fn add(&mut self, range: Range) -> Result<(), String> {
        let index = self.read;
        self.read += 1;
        if index >= Limits::RANGES {
            return Err(format!("more than {} ranges of memory", Limits::RANGES));
        }
        let Some(last) = range.last() else {
            return Ok(());
        };
        let first = range.addr.0;
        // Of the ranges that start at `last` or before, only the nearest can reach `first`.
        if let Some((at, (end, other, _))) = self.ranges.range(..=last).next_back()
            && *end >= first
        {
            return Err(format!(
                "{first:#x} to {last:#x} overlaps memory[{other}] ({at:#x} to {end:#x})"
            ));
        }
        self.ranges.insert(first, (last, index, range.data));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Layout {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        object(deserializer, |raw: RawRange| self.add(raw.make()?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    addr: Hex,
    data: Option<HexBytes>,
    words: Option<List<Hex, { Limits::BYTES }>>,
}

impl RawRange {
    fn make(self) -> Result<Range, String> {
        let raw = self;
        let addr = raw.addr.0;
        let data = match (raw.data, raw.words) {
            (Some(HexBytes(data)), None) => data,
            (None, Some(List(words))) if addr.is_multiple_of(8) => {
                words.iter().flat_map(|word| word.0.to_le_bytes()).collect()
            }
            (None, Some(_)) => {
                return Err(format!("words at {addr:#x}, which is not a multiple of 8"));
            }
            (None, None) => return Err("missing key `data` or `words`".into()),
            (Some(_), Some(_)) => return Err("both `data` and `words`: give one of them".into()),
        };
        let len = data.len();
        let range = Range {
            addr: Gpa(addr),
            data,
        };
        if len > 0 && range.last().is_none() {
            return Err(format!(
                "{len} bytes from {addr:#x} on leave the 64-bit space"
            ));
        }
        Ok(range)
    }
}

impl Range {
    /// The last address, or `None` for no bytes and for bytes past the end of the 64-bit space.
    fn last(&self) -> Option<u64> {
        let more = u64::try_from(self.data.len().checked_sub(1)?).ok()?;
        self.addr.0.checked_add(more)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpan {
    addr: Hex,
    len: Hex,
}

impl RawSpan {
    fn make(self) -> Result<Span, String> {
        let raw = self;
        let (addr, len) = (raw.addr.0, raw.len.0);
        if len > 0 && addr.checked_add(len - 1).is_none() {
            return Err(format!(
                "{len:#x} bytes from {addr:#x} on leave the 64-bit space"
            ));
        }
        Ok(Span {
            addr: Gpa(addr),
            len,
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer, RawSpan::make)
    }
}
