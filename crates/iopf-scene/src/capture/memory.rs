//! The memory of a scene: what reads find, and where they abort.

use super::{Capture, Range, Span};
use iommu_walk::{TableMem, TableMemMut, Unreachable};
use iopf::Gpa;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Guest memory as a capture gives it, with the writes of walks laid over it.
///
/// Inside `memory_base`…`memory_limit` a byte that no range names is zero. A read aborts as a whole
/// if any of its bytes lies outside, or in one of the capture's `aborts`.
#[derive(Debug)]
pub struct SceneMemory<'a> {
    ranges: &'a [Range],
    /// First and last addresses, sorted, apart from each other.
    aborts: Vec<(u64, u64)>,
    base: u64,
    /// The last address of memory; below `base` where there is none at all.
    last: Option<u64>,
    /// Aligned words that walks have written, by address.
    written: RefCell<BTreeMap<u64, u64>>,
}

/// First and last addresses of stretches, sorted, those that touch put together.
fn merged(spans: &[Span]) -> Vec<(u64, u64)> {
    let mut sorted: Vec<(u64, u64)> = spans
        .iter()
        .filter(|span| span.len > 0)
        .map(|span| (span.addr.0, span.addr.0.saturating_add(span.len - 1)))
        .collect();
    sorted.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

impl<'a> SceneMemory<'a> {
    /// The memory of `capture`.
    #[must_use]
    pub fn new(capture: &'a Capture) -> Self {
        Self {
            ranges: &capture.memory,
            aborts: merged(&capture.aborts),
            base: capture.memory_base.0,
            last: match capture.memory_limit {
                Some(limit) => limit.0.checked_sub(1),
                None => Some(u64::MAX),
            },
            written: RefCell::default(),
        }
    }

    /// Whether all of the `len` bytes from `at` on can be read; `len` is at least 1.
    fn answers(&self, at: u64, len: u64) -> bool {
        let (Some(end), Some(last)) = (at.checked_add(len - 1), self.last) else {
            return false;
        };
        // Of the stretches that start at `end` or before, the last one reaches furthest.
        let next = self.aborts.partition_point(|(first, _)| *first <= end);
        let nearest = next.checked_sub(1).and_then(|index| self.aborts.get(index));
        at >= self.base && end <= last && nearest.is_none_or(|(_, last)| *last < at)
    }

    /// The byte at `at`, before any write.
    fn byte(&self, at: u64) -> u8 {
        let next = self.ranges.partition_point(|range| range.addr.0 <= at);
        let Some(range) = next.checked_sub(1).and_then(|index| self.ranges.get(index)) else {
            return 0;
        };
        usize::try_from(at - range.addr.0)
            .ok()
            .and_then(|offset| range.data.get(offset))
            .copied()
            .unwrap_or(0)
    }

    /// The aligned 64-bit word at `at`, without asking whether it answers.
    fn word(&self, at: u64) -> u64 {
        if let Some(&word) = self.written.borrow().get(&at) {
            return word;
        }
        let next = self.ranges.partition_point(|range| range.addr.0 <= at);
        let whole = next
            .checked_sub(1)
            .and_then(|index| self.ranges.get(index))
            .and_then(|range| {
                let offset = usize::try_from(at - range.addr.0).ok()?;
                range.data.get(offset..)?.first_chunk::<8>()
            });
        match whole {
            Some(bytes) => u64::from_le_bytes(*bytes),
            // The word starts before a range, ends after one, or lies in none.
            None => u64::from_le_bytes(std::array::from_fn(|i| {
                self.byte(at.saturating_add(i as u64))
            })),
        }
    }
}

impl TableMem for SceneMemory<'_> {
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        self.load_words::<1>(at).map(|[word]| word)
    }

    fn load_words<const N: usize>(&self, at: Gpa) -> Result<[u64; N], Unreachable> {
        let words = N as u64;
        if words == 0 || !at.0.is_multiple_of(8) || !self.answers(at.0, words * 8) {
            return Err(Unreachable(at));
        }
        Ok(std::array::from_fn(|i| self.word(at.0 + i as u64 * 8)))
    }
}

impl TableMemMut for SceneMemory<'_> {
    fn compare_exchange(&self, at: Gpa, old: u64, new: u64) -> Result<bool, Unreachable> {
        let same = self.load(at)? == old;
        if same {
            self.written.borrow_mut().insert(at.0, new);
        }
        Ok(same)
    }
}

#[cfg(test)]
mod tests;
