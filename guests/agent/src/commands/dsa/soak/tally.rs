//! What was done, for the last line.

use super::job::{Job, NAMES};
use super::slot::{CHANGES, Change};
use std::fmt;

/// Counts of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    work: [u64; NAMES.len()],
    changes: [u64; CHANGES.len()],
    /// Pages that the device worked on.
    pages: u64,
    /// Jobs that were refused, as they had to be or could be.
    refused: u64,
    /// Jobs whose memory changed meanwhile.
    pub(super) raced: u64,
    /// Slots that were replaced.
    pub(super) retired: u64,
    /// Pieces of memory that the device must leave alone.
    pub(super) witnesses: u64,
}

impl Tally {
    /// Jobs so far.
    pub(super) fn jobs(&self) -> u64 {
        self.work.iter().sum()
    }

    /// Counts a job that is done.
    pub(super) fn job(&mut self, job: &Job, status: u8) {
        self.work[job.work.index()] += 1;
        self.pages += job.pages.len() as u64;
        self.refused += u64::from(status != 1);
    }

    /// Counts a change.
    pub(super) fn change(&mut self, change: Change) {
        let index = CHANGES.iter().position(|(known, _)| *known == change);
        self.changes[index.unwrap_or_default()] += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "jobs={} pages={}", self.jobs(), self.pages)?;
        for (name, count) in NAMES.iter().zip(self.work) {
            write!(f, " {name}={count}")?;
        }
        write!(
            f,
            " refused={} raced={} retired={} witnesses={}",
            self.refused, self.raced, self.retired, self.witnesses
        )?;
        for ((_, name), count) in CHANGES.iter().zip(self.changes) {
            write!(f, " {name}={count}")?;
        }
        Ok(())
    }
}
