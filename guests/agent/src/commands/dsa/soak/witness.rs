//! Memory that the device has no business with: what is in it must stay.

use crate::reply::Failure;
use crate::sys::{Forked, Memory, forked};
use std::time::Duration;

/// What a page was, or is not: for messages.
pub(super) fn stale(what: &str, at: u64, found: u64, expected: &[u64]) -> Failure {
    Failure::new(format!(
        "stale: {what}: {found:#x} at {at:#x}, expected {expected:#x?}"
    ))
}

/// The words of memory, one after the other.
fn words(memory: &Memory) -> impl Iterator<Item = u64> {
    (0..memory.len()).step_by(8).map(|at| memory.word(at))
}

/// Memory, and what was in it when the device had lost it.
#[derive(Debug)]
pub(super) struct Witness {
    what: &'static str,
    memory: Memory,
    seen: Vec<u64>,
}

impl Witness {
    /// Takes note of what is there now.
    pub(super) fn new(what: &'static str, memory: Memory) -> Self {
        let seen = words(&memory).collect();
        Self { what, memory, seen }
    }

    /// Its `page`-th page, as it was then.
    pub(super) fn page(&self, page: usize) -> &[u64] {
        &self.seen[page * 512..][..512]
    }

    /// Nothing has changed since.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (at, (found, seen)) in words(&self.memory).zip(&self.seen).enumerate() {
            if found != *seen {
                let at = self.memory.address() + 8 * at as u64;
                return Err(stale(self.what, at, found, &[*seen]));
            }
        }
        Ok(())
    }
}

/// A forked process that looks at its copy of some memory, and again when it is told to.
#[derive(Debug)]
pub(super) struct Child {
    process: Forked,
    /// Where it looks for the word to go.
    index: usize,
}

impl Child {
    /// Forks. Each page of the child's copy must hold one of `allowed` in each word, and keep it.
    pub(super) fn fork(
        memory: &Memory,
        allowed: &[Vec<u64>],
        talk: &Memory,
        index: usize,
    ) -> Result<Self, Failure> {
        talk.set(index, 0);
        let parent = rustix::process::getpid();
        let process = forked(|| {
            let seen: Vec<u64> = words(memory).collect();
            let pages = seen.chunks(512).zip(allowed);
            for (page, allowed) in pages {
                if page.iter().any(|word| !allowed.contains(word)) {
                    return 1;
                }
            }
            while talk.byte(index) == 0 {
                if rustix::process::getppid() != Some(parent) {
                    return 0;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            if words(memory).eq(seen) { 0 } else { 2 }
        })?;
        Ok(Self { process, index })
    }

    /// Where in `talk` it looks.
    pub(super) fn place(&self) -> usize {
        self.index
    }

    /// Tells it to look again, and hears what it saw.
    pub(super) fn finish(self, talk: &Memory) -> Result<(), Failure> {
        talk.set(self.index, 1);
        match self.process.wait()? {
            0 => Ok(()),
            1 => Err(Failure::new(
                "stale: a child found what its parent never had",
            )),
            2 => Err(Failure::new(
                "stale: a child's memory changed under it: the device wrote to a page it shares",
            )),
            other => Err(Failure::new(format!("a child ended with {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_notices_one_word_that_changed() {
        let memory = Memory::shared(8192).unwrap();
        memory.set_words(0, 8192, 5);
        let witness = Witness::new("a page that moved", memory);
        assert_eq!(witness.check(), Ok(()));
        witness.memory.set_words(4104, 8, 6);
        let error = witness.check().unwrap_err().text;
        let at = witness.memory.address() + 4104;
        assert!(
            error.starts_with(&format!("stale: a page that moved: 0x6 at {at:#x}")),
            "{error}"
        );
        assert_eq!(witness.page(1)[1], 5, "as it was then");
    }
}
