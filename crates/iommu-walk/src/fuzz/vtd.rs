//! VT-d's walks over arbitrary tables.

use super::{Input, Sparse, Walk, check, fill, request};
use crate::vtd::{Applied, Failure, Outcome, Unit, apply, page_request, translate};
use crate::{Recorder, Stage, Trail, Update, Updates};
use iopf::Dma;

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
        let _ = check(&unit, &mem, &dma);
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

    fn sound(update: &Update, alone: bool) -> bool {
        let bits = match update.stage {
            // One word as an entry of both stages gets the bits of both.
            _ if !alone => 0x760,
            Stage::First => 0x460,
            Stage::Second => 0x300,
        };
        update.new & update.old == update.old && (update.new ^ update.old) & !bits == 0
    }

    fn apply(
        &self,
        mem: &Sparse,
        _: &Dma,
        updates: &Updates,
        outcome: &Result<Outcome, Failure>,
    ) -> bool {
        let hidden = outcome.is_err_and(|failure| failure.hidden);
        apply(updates, mem, hidden) == Applied::Done
    }
}
