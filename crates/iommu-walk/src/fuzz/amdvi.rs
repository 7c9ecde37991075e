//! AMD-Vi's walks over arbitrary tables.

use super::{Count, Input, Sparse, alone, fill, request};
use crate::amdvi::{
    Applied, Failure, Outcome, Space, Unit, apply, page_request, read_space, translate,
};
use crate::{Stage, Trail, Updates};
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
        check(&unit, &mem, &dma);
        let mut trail = Trail::new();
        let asked = page_request(&unit, &mem, dma.requester, dma.pasid, &mut trail);
        let quiet = page_request(&unit, &mem, dma.requester, dma.pasid, &mut ());
        assert_eq!(asked, quiet);
    }
}

fn run(unit: &Unit, mem: &Sparse, dma: &Dma) -> (Result<Outcome, Failure>, Updates, Trail) {
    let (mut updates, mut trail) = (Updates::new(), Trail::new());
    let outcome = translate(unit, mem, dma, &mut updates, &mut trail);
    (outcome, updates, trail)
}

fn check(unit: &Unit, mem: &Sparse, dma: &Dma) {
    let (outcome, updates, trail) = run(unit, mem, dma);
    let mut quiet = Updates::new();
    assert_eq!(translate(unit, mem, dma, &mut quiet, &mut ()), outcome);
    assert_eq!(quiet.as_slice(), updates.as_slice());
    let (mut count, mut scratch) = (Count(0), Updates::new());
    let counted = translate(unit, mem, dma, &mut scratch, &mut count);
    assert_eq!((counted, count.0), (outcome, trail.steps().len()));
    if let Err(failure) = &outcome {
        // The twelve bits there are, and no domain where the entry was not read.
        assert_eq!(failure.flags(dma).bits() & !0xfff, 0);
        let _ = failure.address(dma);
    }
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
    for update in updates.as_slice() {
        assert_eq!(update.new & update.old, update.old, "{update:?}");
        // Accessed and dirty are the same bits in both stages.
        assert_eq!((update.new ^ update.old) & !0x60, 0, "{update:?}");
        assert!(matches!(update.stage, Stage::First | Stage::Second));
    }
    let space = read_space(unit, mem, dma, &mut ()).unwrap_or(Space::PASS_THROUGH);
    let detail = space.detail(dma.pasid);
    if alone(updates.as_slice(), trail.steps())
        && apply(&updates, mem, detail, false) == Applied::Done
    {
        let (again, left, _) = run(unit, mem, dma);
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(again.is_ok(), outcome.is_ok());
    }
}
