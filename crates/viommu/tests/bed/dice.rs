//! Chance that is the same every time, and what hostile devices and guests make of it.

use super::Bed;
use iopf::{Access, DmaKind, GroupIndex, Iova, PageRequest, Pasid};
use viommu::arch::Arch;
use viommu_api::Registers;

/// A xorshift generator.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
    pub(crate) fn below32(&mut self, bound: u64) -> u32 {
        u32::try_from(self.below(bound)).expect("small")
    }
    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = usize::try_from(self.below(from.len() as u64)).expect("small");
        from[at]
    }
    pub(crate) fn any_access(&mut self) -> Access {
        Access::from_bits_truncate(self.roll().to_le_bytes()[0])
    }
}

/// Any kind of request.
pub(crate) fn any_kind(dice: &mut Dice) -> DmaKind {
    dice.pick(&[
        DmaKind::Untranslated,
        DmaKind::Translated,
        DmaKind::Translation { no_write: true },
    ])
}

/// Any page request.
pub(crate) fn any_page_request(dice: &mut Dice) -> PageRequest {
    PageRequest {
        pasid: Pasid::new(dice.below32(8)),
        group: GroupIndex(dice.below32(1 << 32)),
        addr: Iova(dice.roll()),
        access: dice.any_access(),
        last: dice.one_in(2),
        response_needs_pasid: true,
        private_data: [dice.roll(), 0],
    }
}

/// Reads and writes registers at any place and size.
pub(crate) fn any_register<X: Arch>(bed: &Bed<X>, dice: &mut Dice) {
    let mut data = vec![0; usize::try_from(dice.below(17)).expect("small")];
    let at = dice.roll() >> dice.below(64);
    bed.unit.read(at, &mut data);
    bed.unit.write(at, &data);
}
