//! Plain functions over bytes, for a fuzzer and for a corpus in the tests.

mod amdvi;

pub use amdvi::amdvi_walk;

use crate::vtd::{Applied, Failure, Outcome, Unit, apply, page_request, translate};
use crate::{
    Recorder, Stage, Step, Table, TableMem, TableMemMut, Trail, Unreachable, Update, Updates,
};
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

/// Everything a unit can do, less what the input takes away.
const CAP: u64 = 0x1100_000c_006f_0e06;
const ECAP: u64 = 0x0333_e99e_e600_00ce;

/// Builds a VT-d unit, memory and requests from bytes, and insists on what holds for all of them:
/// no panic, an end, the same outcome with and without a trail, a bounded trail, updates that set
/// nothing but accessed and dirty bits, and none left once they have been applied.
pub fn vtd_walk(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let mode = u64::from(flags & 3) << 10;
    let (mut cap, mut ecap) = (CAP, ECAP);
    if flags & 4 != 0 {
        cap &= !input.word(8);
        ecap &= !input.word(8);
    }
    let unit = Unit::new(cap, ecap, if flags & 8 != 0 { input.byte() } else { 46 })
        .with_rtaddr(0x1000 | mode | u64::from(flags & 0x80))
        .with_noncoherent_walks(flags & 0x10 != 0);
    let mut mem = Sparse::default();
    if flags & 0x20 != 0 {
        mem.abort = input.word(2) << 3;
    }
    fill(&mut input, &mut mem, |word| word);
    for _ in 0..4 {
        if input.done() {
            break;
        }
        let dma = request(&mut input);
        check(&unit, &mem, &dma);
        let mut trail = Trail::new();
        let asked = page_request(&unit, &mem, dma.requester, dma.pasid, &mut trail);
        let quiet = page_request(&unit, &mem, dma.requester, dma.pasid, &mut ());
        assert_eq!(asked, quiet);
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

fn run(unit: &Unit, mem: &Sparse, dma: &Dma) -> (Result<Outcome, Failure>, Updates, Trail) {
    let (mut updates, mut trail) = (Updates::new(), Trail::new());
    let outcome = translate(unit, mem, dma, &mut updates, &mut trail);
    (outcome, updates, trail)
}

/// Counts steps, as many as there are.
struct Count(usize);

impl Recorder for Count {
    fn step(&mut self, _: &Step) {
        self.0 += 1;
    }
}

fn check(unit: &Unit, mem: &Sparse, dma: &Dma) {
    let (outcome, updates, trail) = run(unit, mem, dma);
    let mut quiet = Updates::new();
    assert_eq!(translate(unit, mem, dma, &mut quiet, &mut ()), outcome);
    assert_eq!(quiet.as_slice(), updates.as_slice());
    let (mut count, mut scratch) = (Count(0), Updates::new());
    let counted = translate(unit, mem, dma, &mut scratch, &mut count);
    assert_eq!((counted, count.0), (outcome, trail.steps().len()));
    let alone = alone(updates.as_slice(), trail.steps());
    for update in updates.as_slice() {
        let bits = match update.stage {
            // One word as an entry of both stages gets the bits of both.
            _ if !alone => 0x760,
            Stage::First => 0x460,
            Stage::Second => 0x300,
        };
        assert_eq!(update.new & update.old, update.old, "{update:?}");
        assert_eq!((update.new ^ update.old) & !bits, 0, "{update:?}");
    }
    let hidden = outcome.is_err_and(|failure| failure.hidden);
    if alone && apply(&updates, mem, hidden) == Applied::Done {
        let (again, left, _) = run(unit, mem, dma);
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(again.is_ok(), outcome.is_ok());
    }
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
