//! Random cases: valid tables, then up to three changes that lean towards interesting bits.

mod bits;
mod change;
mod tree;

use super::unit::Setup;
use super::{Config, Mode, Smmuv3};
use crate::harness::{Builder, Case, DATA, VIRT, device, pick};
use fastrand::Rng;
use tree::{Below, Tree, low};

/// STE.V, CD.V, and Config 0b100, a stage with its bit.
const STREAM_VALID: u64 = 1;
const TRANSLATES: u64 = 0b100 << 1;
const CONTEXT_VALID: u64 = 1 << 31;
/// STRTAB_BASE_CFG.FMT of two levels.
pub(crate) const TWO_LEVELS: u32 = 1 << 16;
/// CR2.RECINVSID.
const RECORD_INVALID: u32 = 1 << 1;
/// What Linux sets as well in a context descriptor: AA64, R and A.
const AA64: u64 = 1 << 41;
const RECORDED: u64 = 1 << 45;
const ABORTED: u64 = 1 << 46;
/// The same of stage 2 in a stream table entry: S2AA64, S2R.
const STAGE_2_AA64: u64 = 1 << 51;
const STAGE_2_RECORDED: u64 = 1 << 58;

/// Address sizes as IPS, S2PS and IDR5.OAS have them, up to what QEMU has.
const SIZES: [u8; 5] = [32, 36, 40, 42, 44];

/// What a change may hit outside memory.
struct Request {
    setup: Setup,
    iova: u64,
}

pub(crate) fn case(rng: &mut Rng, mode: Mode) -> Case<Smmuv3> {
    loop {
        if let Some(case) = attempt(rng, mode).filter(survivable) {
            return case;
        }
    }
}

/// Whether QEMU lives through it, whatever it takes for a stream table entry or for a context
/// descriptor: with S2AA64 clear, and with IPS 0b110 or 0b111, it ends itself.
fn survivable(case: &Case<Smmuv3>) -> bool {
    let lines = case.memory.words.keys().map(|at| at & !0x3f);
    lines.into_iter().all(|at| {
        let word = |number: u64| case.memory.get(at + number * 8);
        let both = TRANSLATES | 0b10 << 1 | STREAM_VALID;
        let stream = word(0) & both == both && word(2) & STAGE_2_AA64 == 0;
        let context = word(0) & CONTEXT_VALID != 0 && word(0) >> 32 & 0b110 == 0b110;
        !stream && !context
    })
}

fn attempt(rng: &mut Rng, mode: Mode) -> Option<Case<Smmuv3>> {
    let device = device(rng, true);
    let changes = pick(rng, [0, 1, 1, 1, 1, 2, 2, 3]);
    let mut builder = Builder::new(rng, &VIRT);
    let b = &mut builder;
    let config = match mode.config {
        Config::Both if b.rng.u8(0..4) == 0 => pick(b.rng, [Config::Stage1, Config::Stage2]),
        config => config,
    };
    // From the end of a translation to its start.
    let data = b.memory.place(&DATA);
    let mut address = b.rng.u64(data) & !3;
    let mut below = None;
    let mut second = (b.rng.u64(..) & 0xffff | STAGE_2_AA64, 0);
    if config != Config::Stage1 {
        let (tree, word) = stage_2(b);
        let bits = tree.input;
        let mut stage = Below { tree, bits };
        let leaf = stage.tree.leaf(b);
        let from = stage.address(b, address, leaf);
        if config == Config::Stage2 {
            stage.tree.map(b, from, address, leaf, None)?;
        }
        second = (second.0 | word, stage.tree.root);
        below = Some((stage, address, from, leaf));
        address = from;
    }
    let mut context = 0;
    if config != Config::Stage2 {
        let stage = below.as_mut().map(|(stage, ..)| stage);
        (address, context) = stage_1(b, address, stage)?;
    }
    if let (Config::Both, Some((stage, to, from, leaf))) = (config, &mut below) {
        stage.tree.map(b, *from, *to, *leaf, None)?;
    }
    let translates = match config {
        Config::Stage1 => 0b01,
        Config::Stage2 => 0b10,
        Config::Both => 0b11,
    };
    let entry = [
        context | translates << 1 | TRANSLATES | STREAM_VALID,
        0,
        second.0,
        second.1,
    ];
    let mut request = Request {
        setup: stream_table(b, mode, device.rid(), entry),
        iova: address,
    };
    let changes = (0..changes).map(|_| change::once(b, &mut request));
    let changes = changes.collect();
    Some(Case {
        setup: request.setup,
        device,
        iova: request.iova,
        memory: builder.memory,
        changes,
    })
}

/// A stream table with this entry.
fn stream_table(b: &mut Builder<'_>, mode: Mode, sid: u16, entry: [u64; 4]) -> Setup {
    let mut setup = Setup {
        base: 0,
        config: 8,
        cr2: RECORD_INVALID,
        enabled: true,
        abort: false,
    };
    let sid = u64::from(sid);
    let linear = !mode.two_levels || b.rng.u8(0..12) == 0;
    let at = if linear {
        setup.base = b.aligned(6 + 8);
        setup.base + sid * 64
    } else {
        let split = pick(b.rng, [6, 6, 6, 8, 10]);
        setup.config = TWO_LEVELS | u32::from(split) << 6 | u32::from(b.rng.u8(8..=16));
        setup.base = b.table();
        let leaves = b.aligned(6 + split);
        let index = sid & low(split);
        let needed = u64::BITS - index.leading_zeros();
        let span = b.rng.u32(needed..=split.into()) + 1;
        let word = leaves | u64::from(span);
        b.put(
            "first level",
            setup.base + (sid >> split) * 8,
            word,
            &bits::LEVEL_1,
            true,
        );
        leaves + index * 64
    };
    b.put("stream", at, entry[0], &bits::STREAM_0, true);
    b.put("stream second", at + 8, entry[1], &bits::STREAM_1, false);
    b.put("stream third", at + 16, entry[2], &bits::STREAM_2, false);
    b.put("stream fourth", at + 24, entry[3], &bits::STREAM_3, true);
    setup
}

/// Tables of stage 2, with the word of the stream table entry that says how they are.
fn stage_2(b: &mut Builder<'_>) -> (Tree, u64) {
    let (granule, code) = pick(b.rng, [(12, 0), (12, 0), (14, 2), (16, 1)]);
    let size = b.rng.usize(..SIZES.len());
    let input = b.rng.u8(25..=SIZES[size]);
    let stride = granule - 3;
    // Each start level with one bit at least, and with 16 tables in a row at most.
    let starts = if granule == 12 { 0..=2 } else { 1..=3 };
    let fits = |start: &u8| {
        let shift = granule + (3 - start) * stride;
        (shift + 1..=shift + stride + 4).contains(&input)
    };
    let starts: Vec<u8> = starts.filter(fits).collect();
    let start = starts[b.rng.usize(..starts.len())];
    let tree = Tree::new(b, 2, granule, input, start);
    let highest = if granule == 12 { 2 } else { 3 };
    let word = u64::from(64 - input) << 32
        | u64::from(highest - start) << 38
        | code << 46
        | (size as u64) << 48
        | STAGE_2_AA64
        | if b.rng.u8(0..16) > 0 {
            STAGE_2_RECORDED
        } else {
            0
        };
    (tree, word)
}

/// Tables of stage 1 for something at `to`; gives the address that leads there, and that of the
/// context descriptor.
fn stage_1(b: &mut Builder<'_>, to: u64, below: Option<&mut Below>) -> Option<(u64, u64)> {
    let size = match &below {
        None => b.rng.usize(..SIZES.len()),
        Some(below) => {
            let enough = SIZES.iter().position(|bits| *bits >= below.bits)?;
            b.rng.usize(enough..SIZES.len())
        }
    };
    let mut below = below;
    let upper = b.rng.u8(0..3) == 0;
    let (granule, code) = granule_1(b, upper);
    let input = b.rng.u8(25..=48);
    let tagged = b.rng.u8(0..4) == 0;
    // As many levels as the address needs.
    let levels = (input - granule).div_ceil(granule - 3);
    let mut tree = Tree::new(b, 1, granule, input, 4 - levels);
    let leaf = tree.leaf(b);
    let within = low(tree.shift(leaf));
    let mut iova = b.rng.u64(..) & low(input) & !within | to & within;
    if within >= low(input) {
        return None;
    }
    tree.map(b, iova, to, leaf, below.as_deref_mut())?;
    let base = tree.base(b, iova, below.as_deref_mut())?;
    if upper {
        iova |= !low(input);
    }
    let other = other_half(b, !upper, below.as_deref_mut())?;
    let used = half(64 - u64::from(input), code, false);
    let mut word = (size as u64) << 32 | AA64 | ABORTED | CONTEXT_VALID;
    if b.rng.u8(0..16) > 0 {
        word |= RECORDED;
    }
    if tagged {
        word |= 1 << if upper { 39 } else { 38 };
        iova = iova & low(56) | b.rng.u64(..) << 56;
    }
    word |= u64::from(b.rng.u16(..)) << 48;
    let (lower_half, upper_half) = if upper {
        ((other.0, other.1), (used, base))
    } else {
        ((used, base), (other.0, other.1))
    };
    word |= lower_half.0 | upper_half.0 << 16;
    let context = b.aligned(6);
    b.put("context", context, word, &bits::CONTEXT_0, false);
    for (name, at, table) in [
        ("context TTB0", context + 8, lower_half.1),
        ("context TTB1", context + 16, upper_half.1),
    ] {
        b.put(name, at, table, &bits::CONTEXT_TTB, true);
    }
    let pointer = match below {
        Some(below) => below.place(b, context, 0, 6)?,
        None => context,
    };
    Some((iova, pointer))
}

/// A granule with its code in TG0 or in TG1.
fn granule_1(b: &mut Builder<'_>, upper: bool) -> (u8, u64) {
    let codes = if upper { [2, 1, 3] } else { [0, 2, 1] };
    pick(
        b.rng,
        [
            (12, codes[0]),
            (12, codes[0]),
            (14, codes[1]),
            (16, codes[2]),
        ],
    )
}

/// The fields of a half of the address space: its size, granule, and whether it has no tables.
const fn half(size: u64, granule: u64, disabled: bool) -> u64 {
    size | granule << 6 | (disabled as u64) << 14
}

/// The half that the address is not in, with its table base.
fn other_half(b: &mut Builder<'_>, upper: bool, below: Option<&mut Below>) -> Option<(u64, u64)> {
    let (granule, code) = granule_1(b, upper);
    let size = u64::from(b.rng.u8(16..=39));
    match b.rng.u8(0..8) {
        0..5 => Some((
            half(u64::from(b.rng.u8(0..64)), b.rng.u64(0..4), true),
            b.rng.u64(..) & low(32) & !0xf,
        )),
        5..7 => {
            let table = b.aligned(granule);
            let seen = match below {
                Some(below) => below.place(b, table, 0, granule)?,
                None => table,
            };
            Some((half(size, code, false), seen))
        }
        _ => {
            let bits = below.map_or(32, |below| below.bits.min(32));
            Some((half(size, code, false), b.rng.u64(..) & low(bits) & !0xffff))
        }
    }
}
