//! Random cases: valid tables, then up to three changes that lean towards interesting bits.

use super::Vtd;
use super::unit::Rtaddr;
use crate::harness::{Bits, Builder, Case, DATA, Device, NOWHERE, Q35, address, device, pick};
use fastrand::Rng;

/// The kind of translation under test, and the QEMU unit that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Legacy root and context entries, second stage; so many bits of address at most.
    Legacy { width: u8 },
    /// Scalable mode, second stage.
    Second,
    /// Scalable mode, first stage.
    First,
}

/// Intel VT-d, "Root Entry".
const ROOT: Bits = Bits(&[("P", 0..=0), ("reserved", 1..=11), ("wide", 48..=63)]);
/// The upper half of a legacy root entry is reserved.
const RESERVED_WORD: Bits = Bits(&[("reserved", 0..=63)]);
/// Intel VT-d, "Context Entry".
const CONTEXT_LO: Bits = Bits(&[
    ("P", 0..=0),
    ("FPD", 1..=1),
    ("FPD", 1..=1),
    ("TT", 2..=3),
    ("TT", 2..=3),
    ("reserved", 4..=11),
    ("wide", 48..=63),
]);
const CONTEXT_HI: Bits = Bits(&[
    ("AW", 0..=2),
    ("AW", 0..=2),
    ("ignored", 3..=6),
    ("reserved", 7..=7),
    ("DID", 8..=23),
    ("reserved", 24..=63),
]);
/// Intel VT-d, "Scalable-Mode Context-Entry".
const SCALABLE_LO: Bits = Bits(&[
    ("P", 0..=0),
    ("FPD", 1..=1),
    ("FPD", 1..=1),
    ("DTE PASIDE PRE", 2..=4),
    ("reserved", 5..=8),
    ("PDTS", 9..=11),
    ("wide", 48..=63),
]);
const SCALABLE_HI: Bits = Bits(&[
    ("RID_PASID", 0..=19),
    ("RID_PRIV", 20..=20),
    ("reserved", 21..=63),
]);
/// Intel VT-d, "Scalable-Mode PASID Directory Entry".
const DIRECTORY: Bits = Bits(&[
    ("P", 0..=0),
    ("FPD", 1..=1),
    ("reserved", 2..=11),
    ("wide", 48..=63),
]);
/// Intel VT-d, "Scalable-Mode PASID Table Entry".
const PASID_0: Bits = Bits(&[
    ("P", 0..=0),
    ("FPD", 1..=1),
    ("FPD", 1..=1),
    ("AW", 2..=4),
    ("reserved", 5..=5),
    ("PGTT", 6..=8),
    ("PGTT", 6..=8),
    ("SSADE", 9..=9),
    ("reserved", 10..=11),
    ("wide", 48..=63),
]);
const PASID_1: Bits = Bits(&[("DID", 0..=15), ("PWSNP", 23..=23), ("rest", 16..=63)]);
const PASID_2: Bits = Bits(&[
    ("SRE ERE", 0..=1),
    ("FSPM", 2..=3),
    ("WPE NXE SMEP EAFE", 4..=7),
    ("reserved", 8..=11),
    ("wide", 48..=63),
]);
/// Intel VT-d, "Second-Stage Paging Entries".
const SECOND: Bits = Bits(&[
    ("R", 0..=0),
    ("R", 0..=0),
    ("W", 1..=1),
    ("W", 1..=1),
    ("X", 2..=2),
    ("EMT", 3..=6),
    ("PS", 7..=7),
    ("PS", 7..=7),
    ("A D ignored", 8..=10),
    ("SNP", 11..=11),
    ("SNP", 11..=11),
    ("address", 12..=25),
    ("beyond HAW", 48..=51),
    ("ignored", 52..=61),
    ("IW", 62..=62),
    ("ignored", 63..=63),
]);
/// Intel VT-d, "First-Stage Paging Entries".
const FIRST: Bits = Bits(&[
    ("P", 0..=0),
    ("P", 0..=0),
    ("R/W", 1..=1),
    ("R/W", 1..=1),
    ("U/S", 2..=2),
    ("U/S", 2..=2),
    ("PWT PCD", 3..=4),
    ("A", 5..=5),
    ("D", 6..=6),
    ("PS", 7..=7),
    ("PS", 7..=7),
    ("G ignored", 8..=11),
    ("address", 12..=25),
    ("beyond HAW", 48..=51),
    ("ignored", 52..=62),
    ("XD", 63..=63),
]);

/// Page tables for `iova`, each entry with `flags`; gives the top table.
fn pages(b: &mut Builder<'_>, iova: u64, levels: u8, flags: u64, bits: &'static Bits) -> u64 {
    let leaf = pick(b.rng, [1, 1, 1, 2, 2, 3]);
    let top = b.table();
    let mut table = top;
    for level in (1..=levels).rev() {
        let shift = 12 + 9 * (level - 1);
        let at = table + (iova >> shift & 0x1ff) * 8;
        let word = if level > leaf {
            table = b.table();
            table | flags
        } else {
            let page = b.page(iova, shift);
            let large = if level > 1 { 1 << 7 } else { 0 };
            page | flags | large
        };
        let ignored = if b.rng.u8(0..4) == 0 {
            u64::from(b.rng.u8(..)) << 52 & 0x3ff << 52
        } else {
            0
        };
        b.put(&format!("level {level}"), at, word | ignored, bits, true);
        if level <= leaf {
            break;
        }
    }
    top
}

/// One change; says what it did.
fn change(b: &mut Builder<'_>, iova: &mut u64, rtaddr: &mut u64) -> String {
    let roll = b.rng.u8(0..100);
    if roll < 8 {
        let bit = pick(b.rng, [37, 38, 39, 46, 47, 48, 50, 63]);
        *iova ^= 1 << bit;
        return format!("iova bit {bit}");
    }
    if roll < 10 {
        *rtaddr = NOWHERE | *rtaddr & 0xfff;
        return "root table nowhere".to_owned();
    }
    let number = b.choose();
    let target = &b.targets[number];
    let (name, pointer, page_table) = (target.name.clone(), target.pointer, target.is_page_table());
    if pointer && roll < 18 {
        b.aim(number, NOWHERE);
        return format!("{name} to nowhere");
    }
    if pointer && roll < 24 && page_table {
        // The interrupt range, or a large page around it.
        b.aim(number, 0xfee0_0000);
        let large = *b.word(number) >> 7 & 1 == 1;
        if large && b.rng.bool() {
            let word = b.word(number);
            *word = *word & !0x3fff_f000 | 0xc000_0000;
        }
        return format!("{name} to the interrupt range");
    }
    if roll < 30 && page_table {
        *b.word(number) &= !0b11;
        return format!("{name} without rights");
    }
    b.flip(number)
}

pub(crate) fn case(rng: &mut Rng, mode: Mode) -> Case<Vtd> {
    loop {
        let case = attempt(rng, mode);
        // Messages to the interrupt range are no DMA.
        if case.iova >> 20 != 0xfee {
            return case;
        }
    }
}

fn attempt(rng: &mut Rng, mode: Mode) -> Case<Vtd> {
    let device = device(rng, mode != Mode::Legacy { width: 39 });
    let changes = pick(rng, [0, 1, 1, 1, 1, 2, 2, 3]);
    let mut builder = Builder::new(rng, &Q35);
    let (mut iova, mut rtaddr) = match mode {
        Mode::Legacy { width } => legacy(&mut builder, device, width),
        Mode::Second | Mode::First => scalable(&mut builder, device, mode == Mode::First),
    };
    let changes = (0..changes).map(|_| change(&mut builder, &mut iova, &mut rtaddr));
    let changes = changes.collect();
    Case {
        setup: Rtaddr(rtaddr),
        device,
        iova,
        memory: builder.memory,
        changes,
    }
}

fn legacy(b: &mut Builder<'_>, device: Device, width: u8) -> (u64, u64) {
    let three_levels = width == 39 || b.rng.bool();
    let (aw, width) = if three_levels { (1, 39) } else { (2, 48) };
    let iova = address(b.rng, width);
    let (root, context) = (b.table(), b.table());
    b.put("root", root, context | 1, &ROOT, true);
    b.put("root high", root + 8, 0, &RESERVED_WORD, false);
    let pass_through = b.rng.u8(0..20) == 0;
    let iova = if pass_through {
        b.rng.u64(DATA) & !3
    } else {
        iova
    };
    let top = pages(b, iova, aw + 2, 0b11, &SECOND);
    let kind = if pass_through { 0b1000 } else { 0 };
    let at = context + u64::from(device.rid() & 0xff) * 16;
    b.put("context", at, top | kind | 1, &CONTEXT_LO, true);
    let domain = u64::from(b.rng.u16(..)) << 8;
    let hi = domain | u64::from(aw);
    b.put("context high", at + 8, hi, &CONTEXT_HI, false);
    (iova, root)
}

fn scalable(b: &mut Builder<'_>, device: Device, first: bool) -> (u64, u64) {
    let (root, context) = (b.table(), b.table());
    let (directory, pasids) = (b.table(), b.table());
    let upper = device.rid() & 0x80 != 0;
    let (used, other) = if upper { (8, 0) } else { (0, 8) };
    b.put("root", root + used, context | 1, &ROOT, true);
    let unused = if b.rng.bool() { 0 } else { b.table() | 1 };
    b.put("other half of root", root + other, unused, &ROOT, true);
    // QEMU does not report ECAP.RPS: requests without a PASID use PASID 0.
    let pasid = 0;
    let at = context + u64::from(device.rid() & 0x7f) * 32;
    let size = u64::from(b.rng.u8(0..8)) << 9;
    b.put("context", at, directory | size | 1, &SCALABLE_LO, true);
    b.put("context high", at + 8, pasid, &SCALABLE_HI, false);
    b.put("context third", at + 16, 0, &RESERVED_WORD, false);
    b.put("context fourth", at + 24, 0, &RESERVED_WORD, false);
    let at = directory + (pasid >> 6) * 8;
    b.put("directory", at, pasids | 1, &DIRECTORY, true);
    let at = pasids + (pasid & 0x3f) * 64;
    let pass_through = b.rng.u8(0..20) == 0;
    let (word, flags, levels, iova) = if first {
        let (width, iova) = first_stage_address(b.rng);
        (width << 2 | 1 << 6, 0b111, 4, iova)
    } else if b.rng.bool() {
        (1 << 2 | 2 << 6, 0b11, 3, address(b.rng, 39))
    } else {
        (2 << 2 | 2 << 6, 0b11, 4, address(b.rng, 48))
    };
    let iova = if pass_through {
        b.rng.u64(DATA) & !3
    } else {
        iova
    };
    let bits = if first { &FIRST } else { &SECOND };
    let top = pages(b, iova & ((1 << 48) - 1), levels, flags, bits);
    if first {
        // Accessed and dirty bits that are there already, anywhere on the path.
        for target in 0..b.targets.len() {
            if b.targets[target].name.starts_with("level") {
                let at = b.targets[target].at;
                let already = pick(b.rng, [0, 0, 1 << 5, 1 << 5 | 1 << 6]);
                *b.memory.words.entry(at).or_insert(0) |= already;
            }
        }
    }
    let word = if pass_through {
        word & !(7 << 6) | 4 << 6
    } else {
        word
    };
    let (second, domain) = (if first { 0 } else { top }, u64::from(b.rng.u16(..)));
    b.put("pasid", at, second | word | 1, &PASID_0, !first);
    b.put("pasid second", at + 8, domain, &PASID_1, false);
    let pointer = if first { top } else { 0 };
    b.put("pasid third", at + 16, pointer, &PASID_2, first);
    b.put("pasid fourth", at + 24, 0, &RESERVED_WORD, false);
    (iova, root | 1 << 10)
}

/// A first-stage address, with the second-stage width field to go with it.
///
/// QEMU derives the canonical form from that field, which has no meaning here and must be zero:
/// most addresses are canonical for the 30 bits it takes that for, the rest meet the deviation.
fn first_stage_address(rng: &mut Rng) -> (u64, u64) {
    let low = address(rng, 48);
    let canonical = |width: u8| (low << (64 - width)).cast_signed() >> (64 - width);
    let (width, at) = match rng.u8(0..10) {
        0..8 => (0, canonical(30)),
        8 => (2, canonical(48)),
        _ => (0, canonical(48)),
    };
    (width, at.cast_unsigned())
}
