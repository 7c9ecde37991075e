//! Plain functions over bytes, for a fuzzer and for a corpus in the tests.

mod amdvi;
mod smmuv3;
mod vtd;

pub use amdvi::amdvi_walk;
pub use smmuv3::smmuv3_walk;
pub use vtd::vtd_walk;

use crate::{
    Outcome, Recorder, Stage, Step, Table, TableMem, TableMemMut, Trail, Unreachable, Update,
    Updates,
};
use core::fmt::Debug;
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Pasid, Rid};
use std::cell::RefCell;
use std::collections::HashMap;

/// Sparse memory: 16 MiB of zeros, but for the words that were put there.
#[derive(Debug, Default)]
struct Sparse {
    words: RefCell<HashMap<u64, u64>>,
    abort: u64,
}

impl TableMem for Sparse {
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        if at.0 >= 1 << 24 || at.0 == self.abort {
            return Err(Unreachable(at));
        }
        Ok(self.words.borrow().get(&at.0).copied().unwrap_or(0))
    }
}

impl TableMemMut for Sparse {
    fn compare_exchange(&self, at: Gpa, old: u64, new: u64) -> Result<bool, Unreachable> {
        let same = self.load(at)? == old;
        if same {
            self.words.borrow_mut().insert(at.0, new);
        }
        Ok(same)
    }
}

/// Takes values off the front of the input; zero once it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn word(&mut self, bytes: u32) -> u64 {
        (0..bytes).fold(0, |word, i| word | u64::from(self.byte()) << (8 * i))
    }

    fn done(&self) -> bool {
        self.0.is_empty()
    }
}

/// Puts words into memory; those that are made of a page number and flags go through `page`.
fn fill(input: &mut Input<'_>, mem: &mut Sparse, page: impl Fn(u64) -> u64) {
    let count = u16::from(input.byte());
    for _ in 0..count {
        if input.done() {
            break;
        }
        // An address within 512 KiB; a page number with flags, or a whole word.
        let kind = input.byte();
        let at = input.word(2) << 3;
        let word = if kind & 1 == 0 {
            page(input.word(1) << 12 | input.word(2) & 0xfff)
        } else {
            input.word(8)
        };
        mem.words.get_mut().insert(at, word);
    }
}

fn request(input: &mut Input<'_>) -> Dma {
    let flags = input.byte();
    let kind = match flags & 3 {
        0 | 1 => DmaKind::Untranslated,
        2 => DmaKind::Translation {
            no_write: flags & 4 != 0,
        },
        _ => DmaKind::Translated,
    };
    let requester = Rid(if flags & 8 == 0 { 0x28 } else { 0x88 });
    let pasid =
        (flags & 0x10 != 0).then(|| Pasid::truncate(u32::from(input.byte()) << (flags >> 5)));
    let access = Access::from_bits_truncate(input.byte());
    Dma {
        requester,
        pasid,
        kind,
        addr: Iova(input.word(8)),
        access,
    }
}

/// A unit, as what holds for all of them is checked.
trait Walk {
    /// Why a walk ended without a translation.
    type Failure: Copy + Debug + PartialEq;

    /// Translates a request, all the way.
    fn translate<R: Recorder>(
        &self,
        mem: &Sparse,
        dma: &Dma,
        updates: &mut Updates,
        recorder: &mut R,
    ) -> Result<Outcome, Self::Failure>;

    /// Whether an update changes nothing but what it may; `alone`: no entry is changed that was used in
    /// more than one way.
    fn sound(update: &Update, alone: bool) -> bool;

    /// Writes updates; says whether all of them were.
    fn apply(
        &self,
        mem: &Sparse,
        dma: &Dma,
        updates: &Updates,
        outcome: &Result<Outcome, Self::Failure>,
    ) -> bool;
}

/// Counts steps, as many as there are.
struct Count(usize);

impl Recorder for Count {
    fn step(&mut self, _: &Step) {
        self.0 += 1;
    }
}

/// Insists on what holds for every walk: an end, the same outcome with and without a trail, a bounded
/// trail, a page that keeps the offset, updates that change nothing but what they may, and none left once
/// they have been applied. Gives the outcome.
fn check<U: Walk>(unit: &U, mem: &Sparse, dma: &Dma) -> Result<Outcome, U::Failure> {
    let (mut updates, mut trail) = (Updates::new(), Trail::new());
    let outcome = unit.translate(mem, dma, &mut updates, &mut trail);
    let mut quiet = Updates::new();
    assert_eq!(unit.translate(mem, dma, &mut quiet, &mut ()), outcome);
    assert_eq!(quiet.as_slice(), updates.as_slice());
    let (mut count, mut scratch) = (Count(0), Updates::new());
    let counted = unit.translate(mem, dma, &mut scratch, &mut count);
    assert_eq!((counted, count.0), (outcome, trail.steps().len()));
    if let Ok(Outcome::Memory(translation)) = &outcome {
        assert!(
            (12..=53).contains(&translation.page_shift),
            "{translation:?}"
        );
        let offset = (1 << translation.page_shift) - 1;
        assert_eq!(
            translation.pa.0 & offset,
            dma.addr.0 & offset,
            "{translation:?}"
        );
    }
    let alone = alone(updates.as_slice(), trail.steps());
    for update in updates.as_slice() {
        assert!(U::sound(update, alone), "{update:?}");
    }
    if alone && unit.apply(mem, dma, &updates, &outcome) {
        let mut left = Updates::new();
        let again = unit.translate(mem, dma, &mut left, &mut ());
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(again.is_ok(), outcome.is_ok());
    }
    outcome
}

/// Whether each update changes an entry that the walk used for one purpose only: a guest may well
/// use one word as a page-table entry of both stages, or as a context entry besides.
fn alone(updates: &[Update], steps: &[Step]) -> bool {
    updates.iter().all(|update| {
        steps.iter().all(|step| {
            let bytes = 8 * step.raw.words().len().max(1) as u64;
            let hit = (step.addr.0..step.addr.0 + bytes).contains(&update.addr.0);
            let same = match step.table {
                Table::FirstStage => update.stage == Stage::First,
                Table::SecondStage => update.stage == Stage::Second,
                _ => false,
            };
            !hit || same
        })
    })
}

#[cfg(test)]
mod tests;
