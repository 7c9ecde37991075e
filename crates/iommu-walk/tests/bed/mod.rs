//! A test bed, the same for every architecture: sparse memory that tables are typed into by hand, and a
//! unit that walks them.
#![allow(dead_code, reason = "each test file uses its part of the bed")]

pub(crate) mod amdvi;
mod memory;
pub(crate) mod smmuv3;
pub(crate) mod vtd;

pub(crate) use memory::*;

use iommu_walk::{Failure, Outcome, Recorder, Trail, Translation, Update, Updates};
use iopf::Dma;
use std::fmt::Debug;

/// A unit, as the bed needs it.
pub(crate) trait Walk {
    /// A condition.
    type Cause: Copy + Debug + PartialEq;
    /// What only this architecture's record needs.
    type Detail: Copy + Debug + PartialEq;

    /// Translates a request, all the way.
    fn translate<R: Recorder>(
        &self,
        mem: &Memory,
        dma: &Dma,
        updates: &mut Updates,
        recorder: &mut R,
    ) -> Result<Outcome, Failure<Self::Cause, Self::Detail>>;
}

/// What came of a walk.
type Walked<U> = Result<Outcome, Failure<<U as Walk>::Cause, <U as Walk>::Detail>>;

#[derive(Clone)]
pub(crate) struct Bed<U> {
    pub(crate) unit: U,
    pub(crate) mem: Memory,
}

impl<U> Bed<U> {
    pub(crate) fn of(unit: U) -> Self {
        Self {
            unit,
            mem: Memory::default(),
        }
    }

    pub(crate) fn set(self, at: u64, word: u64) -> Self {
        self.mem.words.borrow_mut().insert(at, word);
        self
    }

    /// Adds bits to a word.
    pub(crate) fn add(self, at: u64, bits: u64) -> Self {
        *self.mem.words.borrow_mut().entry(at).or_insert(0) |= bits;
        self
    }

    /// Takes bits from a word.
    pub(crate) fn take(self, at: u64, bits: u64) -> Self {
        *self.mem.words.borrow_mut().entry(at).or_insert(0) &= !bits;
        self
    }

    pub(crate) fn abort(mut self, at: u64) -> Self {
        self.mem.aborts.push(at);
        self
    }
}

impl<U: Walk> Bed<U> {
    /// Walks twice, once recording and once not, and insists that it makes no difference.
    pub(crate) fn run(&self, dma: &Dma) -> (Walked<U>, Vec<Update>, Trail) {
        let (mut quiet, mut loud) = (Updates::new(), Updates::new());
        let mut trail = Trail::new();
        let silent = self.unit.translate(&self.mem, dma, &mut quiet, &mut ());
        let outcome = self.unit.translate(&self.mem, dma, &mut loud, &mut trail);
        assert_eq!(silent, outcome);
        assert_eq!(quiet.as_slice(), loud.as_slice());
        (outcome, loud.as_slice().to_vec(), trail)
    }

    /// The failure of a request that has to fail.
    #[track_caller]
    pub(crate) fn failure(&self, dma: &Dma) -> Failure<U::Cause, U::Detail> {
        match self.run(dma).0 {
            Err(failure) => failure,
            Ok(outcome) => panic!("{dma:?} came through: {outcome:x?}"),
        }
    }

    /// The translation of a request that has to come through.
    #[track_caller]
    pub(crate) fn passes(&self, dma: &Dma) -> Translation {
        match self.run(dma).0 {
            Ok(Outcome::Memory(translation)) => translation,
            other => panic!("{dma:?} did not come through: {other:x?}"),
        }
    }

    /// The updates of a walk, as (address, old, new).
    pub(crate) fn updates(&self, dma: &Dma) -> Vec<(u64, u64, u64)> {
        let list = self.run(dma).1;
        list.iter().map(|u| (u.addr.0, u.old, u.new)).collect()
    }
}
