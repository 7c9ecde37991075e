//! Memory that remembers what was read of it.

use super::Builder;
use iommu_walk::{TableMem, TableMemMut, Unreachable};
use iopf::Gpa;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Passes reads on to another memory and remembers them, so that a capture holds what a walk
/// touched and nothing else.
///
/// Put it between a walk and guest memory, then hand it to [`Builder::record`]. What counts is the
/// first read of a word: later writes, such as accessed and dirty bits, are passed on and not
/// remembered. A read that was refused becomes an abort.
#[derive(Debug)]
pub struct Recorder<M> {
    inner: M,
    seen: RefCell<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    words: BTreeMap<u64, u64>,
    refused: Vec<(u64, u64)>,
}

impl<M> Recorder<M> {
    /// Records what is read of `inner`.
    pub fn new(inner: M) -> Self {
        Self {
            inner,
            seen: RefCell::default(),
        }
    }
}

impl Builder {
    /// Adds everything that `recorder` saw: what was read, and where reads were refused.
    pub fn record<M>(&mut self, recorder: &Recorder<M>) {
        let seen = recorder.seen.borrow();
        for (&at, &word) in &seen.words {
            self.word(Gpa(at), word);
        }
        for &(at, len) in &seen.refused {
            self.abort(Gpa(at), len);
        }
    }
}

impl<M: TableMem> TableMem for Recorder<M> {
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        self.load_words::<1>(at).map(|[word]| word)
    }

    fn load_words<const N: usize>(&self, at: Gpa) -> Result<[u64; N], Unreachable> {
        let read = self.inner.load_words::<N>(at);
        let mut seen = self.seen.borrow_mut();
        match &read {
            Ok(words) => {
                for (index, word) in words.iter().enumerate() {
                    let at = at.0.wrapping_add(index as u64 * 8);
                    seen.words.entry(at).or_insert(*word);
                }
            }
            Err(_) => seen.refused.push((at.0, N as u64 * 8)),
        }
        read
    }
}

impl<M: TableMemMut> TableMemMut for Recorder<M> {
    fn compare_exchange(&self, at: Gpa, old: u64, new: u64) -> Result<bool, Unreachable> {
        self.inner.compare_exchange(at, old, new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arch, Capture, SceneMemory};
    use super::*;

    #[test]
    fn a_capture_of_a_recorder_holds_what_was_read_and_where_reads_were_refused() {
        let text = r#"{"iopf_capture":1,"arch":"vtd","requests":[],"memory_limit":"0x10000",
            "memory":[{"addr":"0x1000","words":["0x1","0x2","0x3"]},{"addr":"0x8000","words":["0x9"]}]}"#;
        let capture = Capture::parse(text.as_bytes()).unwrap();
        let recorder = Recorder::new(SceneMemory::new(&capture));
        assert_eq!(recorder.load_words::<2>(Gpa(0x1000)), Ok([1, 2]));
        assert_eq!(recorder.compare_exchange(Gpa(0x1000), 1, 0x21), Ok(true));
        assert_eq!(recorder.load(Gpa(0x1000)), Ok(0x21));
        assert!(recorder.load_words::<2>(Gpa(0x2_0000)).is_err());
        let mut builder = Builder::new(Arch::Vtd);
        builder.record(&recorder);
        let taken = builder.build();
        assert_eq!(taken.memory.len(), 1);
        assert_eq!(taken.memory[0].addr, Gpa(0x1000));
        assert_eq!(taken.memory[0].data.len(), 16);
        assert_eq!(taken.memory[0].data[0], 1, "as it was before the write");
        assert_eq!(taken.aborts[0].addr, Gpa(0x2_0000));
        assert_eq!(taken.aborts[0].len, 16);
    }
}
