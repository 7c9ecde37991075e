//! Changes to a valid case.

use super::tree::low;
use super::{Request, SIZES};
use crate::harness::{Builder, DATA, NOWHERE, pick};

/// Makes one change; says which.
pub(super) fn once(b: &mut Builder<'_>, request: &mut Request) -> String {
    let Request { setup, iova } = request;
    let roll = b.rng.u8(0..100);
    match roll {
        0..6 => {
            let bit = pick(
                b.rng,
                [
                    21, 25, 30, 32, 36, 38, 39, 40, 43, 44, 47, 48, 54, 55, 56, 63,
                ],
            );
            *iova ^= 1 << bit;
            return format!("iova bit {bit}");
        }
        6..8 => {
            *iova |= !low(b.rng.u8(25..56));
            return "iova in the upper half".to_owned();
        }
        8..10 => {
            setup.base = NOWHERE;
            return "stream table nowhere".to_owned();
        }
        10..14 => {
            let size = b.rng.u32(4..8);
            setup.config = setup.config & !0x3f | size;
            return format!("stream table of 2^{size} entries");
        }
        14 => {
            setup.cr2 = 0;
            setup.config = setup.config & !0x3f | 5;
            return "stream table too small, and not to be recorded".to_owned();
        }
        15 => {
            let bit = b.rng.u8(6..16);
            setup.base |= 1 << bit;
            return format!("stream table with address bit {bit}");
        }
        16 => {
            setup.enabled = false;
            setup.abort = b.rng.bool();
            let data = b.memory.place(&DATA);
            *iova = b.rng.u64(data) & !3;
            return format!("not enabled, abort {}", setup.abort);
        }
        17..19 => {
            let entry = b.named("stream");
            let config = pick(b.rng, [0b000, 0b010, 0b100, 0b100]);
            let word = b.word(entry);
            *word = *word & !0b1110 | config << 1;
            let data = b.memory.place(&DATA);
            *iova = b.rng.u64(data) & !3;
            if b.rng.u8(0..4) == 0 {
                *iova |= 1 << b.rng.u8(44..64);
            }
            return format!("stream with Config {config:#05b}, iova in memory or too wide");
        }
        19..27 => return field(b),
        27..30 => {
            if let Some(what) = late(b) {
                return what;
            }
        }
        _ => {}
    }
    let number = b.choose();
    let target = &b.targets[number];
    let (name, pointer, page_table) = (target.name.clone(), target.pointer, target.is_page_table());
    let stage_2 = name.ends_with('2');
    if pointer && roll < 35 {
        b.aim(number, NOWHERE);
        return format!("{name} to nowhere");
    }
    if pointer && roll < 42 {
        let bit = pick(b.rng, [32, 33, 36, 39, 40, 42, 43, 44, 45, 46, 47]);
        *b.word(number) |= 1 << bit;
        return format!("{name} with address bit {bit}");
    }
    if page_table && roll < 50 {
        let rights = b.rng.u64(0..4);
        let word = b.word(number);
        *word = *word & !(0b11 << 6) | rights << 6;
        return format!("{name} with rights {rights:#04b}");
    }
    if page_table && roll < 50 && !stage_2 {
        let rights = b.rng.u64(0..4);
        let word = b.word(number);
        *word = *word & !(0b11 << 61) | rights << 61;
        return format!("{name} with APTable {rights:#04b}");
    }
    if page_table && roll < 62 {
        let kind = b.rng.u64(0..4);
        let word = b.word(number);
        *word = *word & !0b11 | kind;
        return format!("{name} of type {kind:#04b}");
    }
    if page_table && roll < 68 {
        *b.word(number) &= !(1 << 10);
        return format!("{name} without AF");
    }
    b.flip(number)
}

/// Two mistakes on one way, of which QEMU finds the later one first; `None` without tables of stage 1.
fn late(b: &mut Builder<'_>) -> Option<String> {
    let stage_1: Vec<_> = (0..b.targets.len())
        .filter(|number| b.targets[*number].name.ends_with("stage 1"))
        .collect();
    let (last, first) = (*stage_1.last()?, *stage_1.first()?);
    if last != first && b.rng.bool() {
        *b.word(first) |= 1 << 62;
        *b.word(last) &= !1;
        return Some("a read-only table of stage 1, and nothing below".to_owned());
    }
    let bit = pick(b.rng, [32, 36, 40, 44, 45]);
    let wrong = pick(b.rng, [1 << 10, 1 << 7]);
    let word = b.word(last);
    *word = (*word | 1 << bit) ^ wrong;
    Some(format!(
        "a page of stage 1 with address bit {bit}, and {wrong:#x} turned over"
    ))
}

/// A field of the stream table entry or the context descriptor, with another value.
fn field(b: &mut Builder<'_>) -> String {
    // Word, lowest bit, width.
    const FIELDS: [(&str, &str, u8, u8); 17] = [
        ("context", "T0SZ", 0, 6),
        ("context", "T1SZ", 16, 6),
        ("stream third", "S2PTW", 54, 1),
        ("stream second", "S1STALLD", 27, 1),
        ("stream third", "S2T0SZ", 32, 6),
        ("stream third", "S2SL0", 38, 2),
        ("stream third", "S2TG", 46, 2),
        ("stream third", "S2PS", 48, 3),
        ("stream third", "S2AFFD", 53, 1),
        ("stream second", "PRIVCFG", 48, 2),
        ("stream", "S1CDMax", 59, 5),
        ("context", "T0SZ", 0, 6),
        ("context", "T1SZ", 16, 6),
        ("context", "EPD0", 14, 1),
        ("context", "IPS", 32, 3),
        ("context", "AFFD", 35, 1),
        ("first level", "Span", 0, 5),
    ];
    let present = |field: &&(&str, &str, u8, u8)| b.targets.iter().any(|t| t.name == field.0);
    let fields: Vec<_> = FIELDS.iter().filter(present).collect();
    let (word, name, shift, width) = *fields[b.rng.usize(..fields.len())];
    let value = match name {
        "S2PS" | "IPS" => b.rng.u64(..=SIZES.len() as u64),
        // The smallest, the largest, and those beside them.
        "T0SZ" | "T1SZ" if b.rng.bool() => pick(b.rng, [15, 16, 39, 40]),
        "S2T0SZ" if b.rng.bool() => pick(b.rng, [19, 20, 24, 39, 40]),
        _ => b.rng.u64(..=low(width)),
    };
    let number = b.named(word);
    let word = b.word(number);
    *word = *word & !(low(width) << shift) | value << shift;
    format!("{name} {value}")
}
