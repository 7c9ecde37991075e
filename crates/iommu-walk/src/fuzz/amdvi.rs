//! AMD-Vi's walks over arbitrary tables.

use super::{Input, Sparse, Walk, check, fill, request};
use crate::amdvi::{
    Applied, Failure, Outcome, Space, Unit, apply, page_request, read_space, translate,
};
use crate::{Recorder, Trail, Update, Updates};
use iopf::Dma;

/// Everything a unit can do, less what the input takes away.
const EFR: u64 = 0x0017_00f3_0000_981a;
const EFR2: u64 = 0x808;

/// Builds an AMD-Vi unit, memory and requests from bytes, and insists on what holds for all of them:
/// no panic, an end, the same outcome with and without a trail, a bounded trail, updates that set
/// nothing but accessed and dirty bits, and none left once they have been applied.
pub fn amdvi_walk(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let (mut efr, mut efr2) = (EFR, EFR2);
    if flags & 4 != 0 {
        efr &= !input.word(8);
        efr2 &= !input.word(2);
    }
    // IommuEn, PPREn and GTEn, unless told otherwise.
    let mut control = 0x1_8001;
    if flags & 8 != 0 {
        control ^= input.word(8);
    }
    let mut unit = Unit::new(efr, efr2)
        .with_control(control)
        .with_device_table(0x1000 | input.word(1));
    for segment in 1..8 {
        unit = unit.with_segment(segment, 0x1000 * segment as u64);
    }
    if flags & 0x10 != 0 {
        let (base, limit) = (input.word(2), input.word(2));
        unit = unit.with_exclusion(base << 12 | input.word(1) & 3, limit << 12);
    }
    let mut mem = Sparse::default();
    if flags & 0x20 != 0 {
        mem.abort = input.word(2) << 3;
    }
    fill(&mut input, &mut mem, |word| {
        // IR and IW, so that most walks go on.
        word | (u64::from(flags >> 6) & 3) << 61
    });
    for _ in 0..4 {
        if input.done() {
            break;
        }
        let dma = request(&mut input);
        if let Err(failure) = check(&unit, &mem, &dma) {
            // The twelve bits there are.
            assert_eq!(failure.flags(&dma).bits() & !0xfff, 0);
            let _ = failure.address(&dma);
        }
        let mut trail = Trail::new();
        let asked = page_request(&unit, &mem, dma.requester, dma.pasid, &mut trail);
        let quiet = page_request(&unit, &mem, dma.requester, dma.pasid, &mut ());
        assert_eq!(asked, quiet);
    }
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

    /// Accessed and dirty are the same bits in both stages.
    fn sound(update: &Update, _: bool) -> bool {
        update.new & update.old == update.old && (update.new ^ update.old) & !0x60 == 0
    }

    fn apply(
        &self,
        mem: &Sparse,
        dma: &Dma,
        updates: &Updates,
        _: &Result<Outcome, Failure>,
    ) -> bool {
        let space = read_space(self, mem, dma, &mut ()).unwrap_or(Space::PASS_THROUGH);
        apply(updates, mem, space.detail(dma.pasid), false) == Applied::Done
    }
}
