//! The tables that the benches walk, for each architecture.
#![allow(dead_code, reason = "each bench uses its part of the tables")]

pub(crate) mod amdvi;
pub(crate) mod smmuv3;
pub(crate) mod vtd;

use iommu_walk::Words;
use iopf::Gpa;
use std::sync::atomic::{AtomicU64, Ordering};

/// Two MiB of tables.
pub(crate) const SIZE: usize = 0x20_0000;

/// Tables, as (address, word), in a run of words.
pub(crate) fn filled(tables: &[(u64, u64)]) -> Vec<AtomicU64> {
    let words: Vec<AtomicU64> = (0..SIZE / 8).map(|_| AtomicU64::new(0)).collect();
    for &(at, word) in tables {
        words[usize::try_from(at).expect("a small address") / 8].store(word, Ordering::Relaxed);
    }
    words
}

/// The memory that these words are.
pub(crate) const fn mem(words: &[AtomicU64]) -> Words<'_> {
    Words {
        base: Gpa(0),
        words,
    }
}
