//! SMMUv3's walks over arbitrary tables.

use super::{Input, Sparse, Walk, check, fill, request};
use crate::smmuv3::{
    Applied, Detail, Failure, Features, Outcome, Unit, apply, response_with_pasid, translate,
};
use crate::{Recorder, Stage, Trail, Update, Updates};
use iopf::Dma;

/// Everything a unit can do, less what the input takes away.
const FEATURES: Features = Features {
    idr0: 0x084d_1c8b,
    idr1: 0x0400_0510,
    idr3: 0x0002_2214,
    idr5: 0x75,
};
/// AF and `S2AP[1]`; what `AP[2]` is in stage 1.
const ACCESSED: u64 = 1 << 10;
const DIRTY: u64 = 1 << 7;

/// Builds an SMMUv3 unit, memory and requests from bytes, and insists on what holds for all of them: no
/// panic, an end, the same outcome with and without a trail, a bounded trail, updates that change nothing
/// but access flags and dirty states, and none left once they have been applied.
pub fn smmuv3_walk(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let mut features = FEATURES;
    if flags & 4 != 0 {
        // Some bits more, some less: what a register says may be anything.
        features.idr0 ^= low(input.word(4));
        features.idr1 ^= low(input.word(4));
        features.idr3 ^= low(input.word(4));
        features.idr5 ^= low(input.word(4));
    }
    // SMMUEN, PRIQEN, ATSCHK and RECINVSID, unless told otherwise.
    let (mut cr0, mut cr2) = (0x13, 2);
    if flags & 8 != 0 {
        cr0 ^= low(input.word(1));
        cr2 ^= low(input.word(1));
    }
    // A linear table of 2^8 entries, or one of two levels, split 6; or anything.
    let mut config = if flags & 1 == 0 { 8 } else { 0x1_0188 };
    if flags & 2 != 0 {
        config ^= low(input.word(4));
    }
    let unit = Unit::new(features)
        .with_control(cr0, cr2)
        .with_global_bypass((u32::from(flags) & 0x10) << 16)
        .with_stream_table(0x4000, config);
    let mut mem = Sparse::default();
    if flags & 0x20 != 0 {
        mem.abort = input.word(2) << 3;
    }
    fill(&mut input, &mut mem, |word| {
        // Dirty state is to be set by hardware, so that some walks do it.
        word | (u64::from(flags) & 0x40) << 45
    });
    for _ in 0..4 {
        if input.done() {
            break;
        }
        let dma = request(&mut input);
        if let Err(failure) = check(&unit, &mem, &dma) {
            assert_eq!(
                failure.second_address().is_some(),
                failure.cause.second_address() != crate::smmuv3::Second::Nothing,
                "{failure:?}"
            );
            assert!(!(failure.stalls(dma.kind) && failure.ignored(dma.kind)));
            assert!(!failure.stalls(dma.kind) || failure.recorded(dma.kind));
        }
        let mut trail = Trail::new();
        let asked = response_with_pasid(&unit, &mem, dma.requester, &mut trail);
        let quiet = response_with_pasid(&unit, &mem, dma.requester, &mut ());
        assert_eq!(asked, quiet);
    }
}

/// Four bytes of the input.
fn low(word: u64) -> u32 {
    u32::try_from(word & 0xffff_ffff).unwrap_or(0)
}

impl Walk for Unit {
    type Failure = Failure;

    fn translate<R: Recorder>(
        &self,
        mem: &Sparse,
        dma: &Dma,
        updates: &mut Updates,
        recorder: &mut R,
    ) -> Result<Outcome, Failure> {
        translate(self, mem, dma, updates, recorder)
    }

    /// An access flag is set; dirty state is a bit that stage 2 sets and stage 1 clears.
    fn sound(update: &Update, alone: bool) -> bool {
        let changed = update.new ^ update.old;
        if changed & !(ACCESSED | DIRTY) != 0 || changed & ACCESSED & update.old != 0 {
            return false;
        }
        changed & DIRTY == 0
            || !alone
            || (update.old & DIRTY != 0) == (update.stage == Stage::First)
    }

    fn apply(
        &self,
        mem: &Sparse,
        _: &Dma,
        updates: &Updates,
        _: &Result<Outcome, Failure>,
    ) -> bool {
        apply(updates, mem, Detail::empty()) == Applied::Done
    }
}
