//! Stream tables, stream table entries and context descriptors.

use super::{
    Deviation, End, SPARE, Walked, bits, configuration, ending, failed, failing, field, granule,
    low, shift, step, translates, width, word,
};
use crate::harness::RAM_SIZE;
use crate::smmuv3::generate::TWO_LEVELS as FORMAT_TWO_LEVELS;
use crate::smmuv3::record::Event;
use crate::smmuv3::unit::{STICKY, Unit};
use iommu_walk::smmuv3::{Cause, Detail, Failure};
use iommu_walk::{Recorder as _, Step, Table, Trail};
use iommu_wire::smmuv3::event::EventNumber;

/// In every mode.
pub(super) const ALL: &[Deviation] = &[
    // "SMMU_CR2", RECINVSID. `smmu_writel` keeps the register, and nothing reads it.
    Deviation {
        name: "CR2.RECINVSID does nothing",
        as_qemu: |walked| {
            failed(walked, BAD_STREAM_ID)?;
            let silent = walked.case.setup.cr2 & RECORD_INVALID == 0;
            silent.then(|| walked.with(|case| case.setup.cr2 |= RECORD_INVALID))
        },
    },
    // "STE", S1CDMax: ignored without SSIDSIZE. `decode_ste` takes anything but 0 for an error, in
    // whichever configuration translates.
    Deviation {
        name: "S1CDMax is an error without substreams",
        as_qemu: |walked| {
            let some = bits(word(walked, Table::Stream, 0)?, 59, 5) != 0;
            bad_entry(walked).filter(|_| some)
        },
    },
    // "Address sizes": F_ADDR_SIZE, if no stage translates as well. `smmuv3_translate` lets it pass, to where
    // there is nothing.
    Deviation {
        name: "an address may be wider than any where no stage translates",
        as_qemu: |walked| {
            failed(walked, &[Cause::InputSize])?;
            let neither = bits(word(walked, Table::Stream, 0)?, 1, 3) == 0b100;
            neither.then(|| ending(walked, End::Nothing))
        },
    },
];

/// With stream tables of two levels.
pub(super) const TWO_LEVELS: &[Deviation] = &[
    // "SMMU_STRTAB_BASE_CFG", FMT. `smmu_writel` sets SMMU_FEATURE_2LVL_STE, and clears it never; the
    // split is that of the last such write.
    Deviation {
        name: "a stream table has two levels once one had",
        as_qemu: |walked| {
            let linear = walked.case.setup.config & FORMAT_TWO_LEVELS == 0;
            let whole = walked.unit.sticky && walked.unit.view.is_none();
            (linear && whole && walked.case.setup.enabled).then(|| {
                walked.with(|case| {
                    case.setup.config = case.setup.config & 0x3f | STICKY & !0x3f;
                })
            })
        },
    },
    // "L1STD", Span: 2^(Span-1) entries. `smmu_find_ste` has 2^Span.
    Deviation {
        name: "a level 2 stream table has twice as many entries",
        as_qemu: |walked| {
            failed(walked, &[Cause::StreamOutsideSpan])?;
            let level_2 = level_2(walked)?;
            (level_2.index >> level_2.span == 0).then(|| entry_at(walked, level_2.at()))
        },
    },
    // "C_BAD_STREAMID". `smmu_find_ste` says C_BAD_STE.
    Deviation {
        name: "a StreamID beyond a level 2 stream table has a bad entry",
        as_qemu: |walked| {
            failed(walked, &[Cause::StreamOutsideSpan])?;
            let level_2 = level_2(walked)?;
            let beyond = level_2.index >> level_2.span != 0;
            beyond.then(|| configuration(walked, EventNumber::BAD_STE))
        },
    },
    // "L1STD": bits 63:56 are reserved. `l1std_l2ptr` takes them for bits of the address.
    Deviation {
        name: "L2Ptr has all of the upper bits",
        as_qemu: |walked| {
            let level_2 = level_2(walked)?;
            step(walked, Table::Stream)?;
            let reserved = level_2.pointer >> 56 != 0;
            reserved.then(|| entry_at(walked, level_2.at()))
        },
    },
];

/// With stage 1.
pub(super) const STAGE_1: &[Deviation] = &[
    // "Address sizes of SMMU-originated accesses": C_BAD_STE. `smmu_get_cd` reads there, which is an
    // F_CD_FETCH.
    Deviation {
        name: "S1ContextPtr may be wider than addresses",
        as_qemu: |walked| {
            failed(walked, &[Cause::StreamContextPointer])?;
            let at = bits(word(walked, Table::Stream, 0)?, 6, 46) << 6;
            let mut event = Event::new(EventNumber::CD_FETCH, walked.case.device.rid());
            event.0[3] = at;
            let alone = !translates(walked, 0b10) && at >> 44 != 0;
            alone.then(|| walked.ending(End::Fault(vec![event])))
        },
    },
];

/// With stage 2.
pub(super) const STAGE_2: &[Deviation] = &[
    // "STE", S1STALLD: an error if stage 1 translates. `decode_ste` looks at it where any does.
    Deviation {
        name: "S1STALLD is an error without stage 1",
        as_qemu: |walked| {
            let set = bits(word(walked, Table::Stream, 1)?, 27, 1) != 0;
            bad_entry(walked).filter(|_| set && !translates(walked, 0b01))
        },
    },
    // "STE", S2T0SZ: 64 - IAS at least, whatever S2PS says. `s2t0sz_valid` takes S2PS.
    Deviation {
        name: "stage 2 must not take wider addresses than it gives",
        as_qemu: |walked| {
            let third = word(walked, Table::Stream, 2)?;
            let input = 64 - bits(third, 32, 6);
            let wider = input > u64::from(width(bits(third, 48, 3))) && input <= IAS;
            bad_entry(walked).filter(|_| wider && translates(walked, 0b10))
        },
    },
    // "STE", S2HA and S2HD: an error without HTTU. `decode_ste_s2_cfg` does not look.
    Deviation {
        name: "S2HA and S2HD are accepted without HTTU",
        as_qemu: |walked| {
            failed(walked, &[Cause::StreamSecondUpdates])?;
            let at = step(walked, Table::Stream)?.addr.0 + 16;
            let set = walked.case.memory.get(at) & UPDATES != 0;
            set.then(|| walked.with(|case| *case.memory.word(at) &= !UPDATES))
        },
    },
    // "STE", S2SL0: inconsistent with S2T0SZ. `s2_pgtable_config_valid` counts concatenated tables, of which
    // there may be less than one.
    Deviation {
        name: "stage 2 may start at a level that it has no address bits for",
        as_qemu: |walked| high_start(walked),
    },
];

const BAD_STREAM_ID: &[Cause] = &[
    Cause::StreamOutsideTable,
    Cause::StreamLevel1Invalid,
    Cause::StreamOutsideSpan,
];
/// How many bits an intermediate address has: as many as IDR5.OAS says.
const IAS: u64 = 44;
/// CR2.RECINVSID.
const RECORD_INVALID: u32 = 1 << 1;
/// S2HD and S2HA.
const UPDATES: u64 = 0b11 << 55;

/// C_BAD_STE for an entry that translates and that our walk has not refused.
fn bad_entry(walked: &Walked) -> Option<Walked> {
    let first = word(walked, Table::Stream, 0)?;
    let translates = first & 1 != 0 && bits(first, 3, 1) != 0 && bits(first, 1, 2) != 0;
    let refused = walked
        .failure
        .is_some_and(|failure| failure.cause.reason().0 == u32::from(EventNumber::BAD_STE.0));
    let whole = walked.unit.view.is_none();
    (translates && whole && !refused).then(|| configuration(walked, EventNumber::BAD_STE))
}

/// What a level 1 descriptor says, as QEMU reads it.
struct Level2 {
    pointer: u64,
    span: u64,
    /// The number of the stream's entry.
    index: u64,
}

impl Level2 {
    /// Where the entry is.
    const fn at(&self) -> u64 {
        self.pointer + self.index * 64
    }
}

fn level_2(walked: &Walked) -> Option<Level2> {
    let descriptor = word(walked, Table::StreamLevel1, 0)?;
    let split = field(walked.case.setup.config.into(), 6, 5);
    Some(Level2 {
        pointer: descriptor & !low(5 + field(descriptor, 0, 5)),
        span: bits(descriptor, 0, 5),
        index: u64::from(walked.case.device.rid()) & low(split),
    })
}

/// As if the stream table entry were here.
fn entry_at(walked: &Walked, at: u64) -> Walked {
    if !walked.case.memory.place(&(0..RAM_SIZE)).contains(&at) {
        let mut event = Event::new(EventNumber::STE_FETCH, walked.case.device.rid());
        event.0[3] = at;
        return ending(walked, End::Fault(vec![event]));
    }
    let sid = u64::from(walked.case.device.rid());
    let mut case = walked.case.clone();
    for offset in (0..64).step_by(8) {
        *case.memory.word(SPARE + sid * 64 + offset) = case.memory.get(at + offset);
    }
    case.setup.base = SPARE;
    case.setup.config = 8;
    let unit = Unit {
        sticky: false,
        ..walked.unit
    };
    Walked::new(case, unit)
}

/// As if the level where stage 2 starts had an address bit.
fn high_start(walked: &Walked) -> Option<Walked> {
    failed(walked, &[Cause::StreamSecondLevel])?;
    let at = step(walked, Table::Stream)?.addr.0 + 16;
    let third = walked.case.memory.get(at);
    let granule = granule(bits(third, 46, 2))?;
    let lowest = if granule == 12 { 2 } else { 1 };
    let (code, input) = (field(third, 38, 2), 64 - field(third, 32, 6));
    let start = lowest + code;
    if code == 3 || input > shift(granule, start) {
        return None;
    }
    // What is said of the address before a table is looked at does not depend on the level.
    let level = (lowest..start).rfind(|level| input > shift(granule, *level))?;
    let lower = walked.with(|case| {
        let word = case.memory.word(at);
        *word = *word & !(0b11 << 38) | u64::from(level - lowest) << 38;
    });
    let first = failed(&lower, &[Cause::InputSize, Cause::ContextIpaOutside]).is_some();
    let only = failed(&lower, &[Cause::IpaOutside]).is_some() && !translates(walked, 0b01);
    if first || only {
        return Some(lower);
    }
    // The one entry that is looked at, unless the base has been cleared away with the bits of an index of
    // less than none: then it is in flash memory, which is empty.
    let cleared = input < (granule - 3) * start;
    let higher = walked.with(|case| {
        let word = case.memory.word(at);
        *word = *word & !(0x3f << 32) | u64::from(63 - shift(granule, start)) << 32;
        if cleared {
            *case.memory.word(at + 8) = SPARE;
        }
    });
    // That entry maps something: addresses are as wide as before.
    let wide = |step: &Step| step.guest_addr.filter(|at| at.0 >> input != 0);
    let steps = higher.trail.steps();
    let Some(place) = steps.iter().position(|step| wide(step).is_some()) else {
        return Some(higher);
    };
    let failure = Failure {
        guest_addr: wide(&steps[place]),
        hidden: bits(third, 58, 1) == 0,
        ..Failure::with(Cause::TableIpaOutside, Detail::empty())
    };
    let mut trail = Trail::new();
    steps[..place].iter().for_each(|step| trail.step(step));
    Some(Walked {
        trail,
        ..failing(&higher, failure)
    })
}
