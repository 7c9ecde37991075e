//! Comparing memory, piece by piece.

use super::CHUNK;
use super::check::With;
use super::record::{Outcome, Status};
use crate::job::Op;
use iopf::Iova;

/// A comparison under way.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    first: Iova,
    with: With,
    len: u32,
    expected: Option<u8>,
    /// Bytes found equal.
    equal: u32,
    /// What was read of the first buffer and has no counterpart yet.
    held: Vec<u8>,
    outcome: Option<Outcome>,
    /// Ends it, unless a difference is found before.
    failure: Option<Outcome>,
}

impl Comparison {
    pub(super) fn new(first: Iova, with: With, len: u32, expected: Option<u8>) -> Self {
        Self {
            first,
            with,
            len,
            expected,
            equal: 0,
            held: Vec::new(),
            outcome: None,
            failure: None,
        }
    }

    /// The next bytes to read, or how it ended.
    pub(super) fn next(&self) -> Result<Op, Outcome> {
        if let Some(outcome) = self.outcome {
            return Err(outcome);
        }
        let at = |base: Iova| Iova(base.0.wrapping_add(self.equal.into()));
        if let (With::Buffer(second), false) = (self.with, self.held.is_empty()) {
            let len = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
            return Ok(Op::Read {
                from: at(second),
                len,
            });
        }
        if let Some(failure) = self.failure {
            return Err(Outcome {
                completed: self.equal,
                ..failure
            });
        }
        if self.equal < self.len {
            return Ok(Op::Read {
                from: at(self.first),
                len: (self.len - self.equal).min(CHUNK),
            });
        }
        Err(self.result(0, 0))
    }

    fn result(&self, result: u8, completed: u32) -> Outcome {
        let status = match self.expected {
            Some(expected) if expected != result => Status::FALSE_PREDICATE,
            _ => Status::SUCCESS,
        };
        Outcome {
            result,
            completed,
            ..Outcome::of(status)
        }
    }

    /// Takes what [`next`](Self::next) asked for, and what kept the rest of it away.
    pub(super) fn take(&mut self, data: Vec<u8>, failure: Option<Outcome>) {
        match self.with {
            With::Buffer(_) if self.held.is_empty() => self.held = data,
            With::Buffer(_) => {
                let held = std::mem::take(&mut self.held);
                self.compare(&held, &data);
                // The second buffer failed closer to the start than the first.
                if failure.is_some() {
                    self.failure = None;
                }
            }
            // Chunks are whole patterns, so each begins with the pattern's first byte.
            With::Pattern(pattern) => {
                let same: Vec<u8> = pattern.iter().copied().cycle().take(data.len()).collect();
                self.compare(&data, &same);
            }
        }
        self.failure = self.failure.or(failure);
    }

    fn compare(&mut self, one: &[u8], other: &[u8]) {
        let pairs = one.iter().zip(other);
        let equal = pairs.take_while(|(a, b)| a == b).count();
        self.equal += u32::try_from(equal).unwrap_or(u32::MAX);
        if equal < one.len().min(other.len()) {
            self.outcome = Some(self.result(1, self.equal));
        }
    }
}
