//! Random cases: valid tables, then up to three changes that lean towards interesting bits.

use super::page::{encoded, offset, own_shift};
use super::unit::Setup;
use super::{Amdvi, page};
use crate::harness::{Bits, Builder, Case, DATA, NOWHERE, Q35, address, device, pick};
use fastrand::Rng;
use iommu_wire::amdvi::pte::HostEntry;
use iommu_wire::amdvi::tables::{DEVICE_ENTRY_SIZE, DeviceWord0};

/// AMD 48882, "Device Table Entry Format".
const DEVICE_0: Bits = Bits(&[
    ("V", 0..=0),
    ("TV", 1..=1),
    ("reserved", 2..=6),
    ("HAD", 7..=8),
    ("Mode", 9..=11),
    ("Mode", 9..=11),
    ("beyond memory", 48..=51),
    ("PPR", 52..=52),
    ("GPRP GIoV", 53..=54),
    ("GV GLX GCR3", 55..=60),
    ("IR", 61..=61),
    ("IR", 61..=61),
    ("IW", 62..=62),
    ("IW", 62..=62),
    ("reserved", 63..=63),
]);
const DEVICE_1: Bits = Bits(&[
    ("DomainID", 0..=15),
    ("GCR3", 16..=31),
    ("I", 32..=32),
    ("SE", 33..=33),
    ("SA", 34..=34),
    ("SA", 34..=34),
    ("IoCtl Cache SD", 35..=38),
    ("EX", 39..=39),
    ("SysMgt", 40..=41),
    ("SATS", 42..=42),
    ("GCR3", 43..=63),
]);
const DEVICE_2: Bits = Bits(&[
    ("IV IntTabLen IG", 0..=5),
    ("interrupt table", 6..=51),
    ("reserved", 52..=53),
    ("GuestPagingMode", 54..=55),
    ("passes IntCtl", 56..=63),
]);
const DEVICE_3: Bits = Bits(&[
    ("reserved", 0..=14),
    ("guests' units", 15..=47),
    ("reserved", 48..=53),
    ("attributes", 54..=63),
]);
/// AMD 48882, "I/O Page Tables for Host Translations".
const HOST: Bits = Bits(&[
    ("PR", 0..=0),
    ("ignored A D", 1..=8),
    ("Next Level", 9..=11),
    ("Next Level", 9..=11),
    ("Next Level", 9..=11),
    ("address", 12..=25),
    ("beyond memory", 48..=51),
    ("reserved", 52..=58),
    ("U FC", 59..=60),
    ("IR", 61..=61),
    ("IR", 61..=61),
    ("IW", 62..=62),
    ("IW", 62..=62),
    ("ignored", 63..=63),
]);

/// Bits that no host entry needs, and neither side looks at.
const IGNORED: u64 = 0b1_1110 | 0b1111 << 5 | 1 << 63;

/// Builds host tables of `levels` levels that map `iova`; returns the top one. Where a page or skipped
/// levels ask for it, `iova` changes in bits that no table has been indexed with.
fn pages(b: &mut Builder<'_>, iova: &mut u64, levels: u8) -> u64 {
    let leaf = if levels == 6 && b.rng.u8(0..8) == 0 {
        6
    } else {
        pick(b.rng, [1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 5, 5, 5]).min(levels)
    };
    let top = b.table();
    let (mut table, mut level) = (top, levels);
    loop {
        let ignored = b.rng.u64(..) & IGNORED;
        let rights = HostEntry::READ | HostEntry::WRITE;
        let mut word = HostEntry::PRESENT | rights | ignored;
        let next;
        if level > leaf {
            next = if b.rng.u8(0..4) == 0 {
                b.rng.u8(leaf..level)
            } else {
                level - 1
            };
            if b.rng.u8(0..4) > 0 {
                *iova &= !(offset(own_shift(level)) & !offset(own_shift(next + 1)));
            }
        } else {
            next = 0;
        }
        let mut shift = own_shift(level);
        if next == 0 && b.rng.bool() {
            // Level 6 has none; what it has here is as much as an address can encode.
            shift = match level {
                6 => b.rng.u8(26..53),
                _ => b.rng.u8(shift + 1..shift + 9),
            };
        }
        if next == 0 && shift >= 26 {
            // What lies above memory has no meaning in a page as large as that, and may be anything.
            *iova = *iova & !offset(shift.min(52)) | b.rng.u64(DATA) & !3;
        }
        let at = table + page::index(*iova, level) * 8;
        if next != 0 {
            table = b.table();
            word |= table | u64::from(next) << 9;
        } else {
            let base = b.page(*iova, shift);
            word |= if shift == own_shift(level) {
                base
            } else {
                encoded(base, shift) | HostEntry::NEXT_LEVEL
            };
        }
        b.put(&format!("level {level}"), at, word, &HOST, true);
        if next == 0 {
            return top;
        }
        level = next;
    }
}

/// One change; says what it did.
fn change(b: &mut Builder<'_>, iova: &mut u64, setup: &mut Setup) -> String {
    let roll = b.rng.u8(0..100);
    match roll {
        0..8 => {
            let bit = pick(b.rng, [21, 30, 38, 39, 40, 47, 48, 56, 57, 63]);
            *iova ^= 1 << bit;
            return format!("iova bit {bit}");
        }
        8..10 => {
            *iova = *iova & 0xffff_ffff | b.rng.u64(0xfd..0x100) << 32;
            return "iova in the HyperTransport range".to_owned();
        }
        10..12 => {
            *iova = 0xfee0_0000 | *iova & 0xf_fffc;
            return "iova in the interrupt range".to_owned();
        }
        12..14 => {
            setup.table = NOWHERE | setup.table & 0xfff;
            return "device table nowhere".to_owned();
        }
        14..17 => {
            setup.table &= !0xfff;
            return "device table of one page".to_owned();
        }
        17..21 => {
            let (before, after) = (b.rng.u64(0..0x2000), b.rng.u64(0..0x2000));
            let base = iova.wrapping_sub(before) & HostEntry::ADDRESS;
            let limit = iova.wrapping_add(after) & HostEntry::ADDRESS;
            let flags = pick(b.rng, [0b01, 0b11, 0b11, 0b10]);
            setup.exclusion = [base | flags, limit];
            return format!("exclusion range, flags {flags:#b}");
        }
        21..24 => {
            *iova = b.rng.u64(DATA) & !3;
            let entry = b.named("device");
            let reserved = pick(b.rng, [0, 0, 1 << 2, 1 << 6, 1 << 63]);
            let word = b.word(entry);
            *word = *word & !DeviceWord0::VALID | reserved;
            return format!("device without V, with {reserved:#x}, iova in memory");
        }
        24 => {
            let entry = b.named("device");
            *b.word(entry) |= DeviceWord0::MODE;
            return "device with Mode 7".to_owned();
        }
        _ => {}
    }
    let number = b.choose();
    let target = &b.targets[number];
    let (name, pointer, page_table) = (target.name.clone(), target.pointer, target.is_page_table());
    if pointer && roll < 33 {
        b.aim(number, NOWHERE);
        return format!("{name} to nowhere");
    }
    if pointer && roll < 40 {
        *b.word(number) &= !(HostEntry::READ | HostEntry::WRITE);
        return format!("{name} without rights");
    }
    if page_table && roll < 50 {
        // The level is the last of the name. Sizes at the limits of what it can have, and beyond.
        let own = own_shift(name.bytes().last().map_or(1, |digit| digit - b'0'));
        let shift = pick(b.rng, [own, own, own + 9, own + 9, own + 10, own + 11]);
        let shift = shift.clamp(13, 52);
        let word = encoded(b.page(*iova, shift), shift) | HostEntry::NEXT_LEVEL;
        let entry = b.word(number);
        *entry = *entry & !HostEntry::ADDRESS | word;
        return format!("{name} with a page of 2^{shift}");
    }
    b.flip(number)
}

pub(crate) fn case(rng: &mut Rng) -> Case<Amdvi> {
    loop {
        let case = attempt(rng);
        // Messages are no DMA.
        if case.iova >> 20 != 0xfee || !case.device.writes() {
            return case;
        }
    }
}

fn attempt(rng: &mut Rng) -> Case<Amdvi> {
    let device = device(rng, true);
    let changes = pick(rng, [0, 1, 1, 1, 1, 2, 2, 3]);
    let mut b = Builder::new(rng, &Q35);
    let levels = b.rng.u8(1..=6);
    let mut iova = address(b.rng, (12 + 9 * levels).min(64));
    let top = pages(&mut b, &mut iova, levels);
    let unchanged = b.rng.u8(0..20) == 0;
    if unchanged {
        iova = b.rng.u64(DATA) & !3;
    }
    let mode = if unchanged { 0 } else { u64::from(levels) };
    let table = b.tables(2);
    let at = table + u64::from(device.rid()) * DEVICE_ENTRY_SIZE;
    let rights = pick(
        b.rng,
        [
            DeviceWord0::READ | DeviceWord0::WRITE,
            DeviceWord0::READ | DeviceWord0::WRITE,
            DeviceWord0::READ | DeviceWord0::WRITE,
            DeviceWord0::READ,
            DeviceWord0::WRITE,
        ],
    );
    let word = DeviceWord0::VALID | DeviceWord0::TRANSLATION_VALID | mode << 9 | top | rights;
    b.put("device", at, word, &DEVICE_0, true);
    let domain = u64::from(b.rng.u16(..));
    b.put("device second", at + 8, domain, &DEVICE_1, false);
    b.put("device third", at + 16, 0, &DEVICE_2, false);
    b.put("device fourth", at + 24, 0, &DEVICE_3, false);
    let mut setup = Setup {
        table: table | 1,
        exclusion: [0; 2],
    };
    let changes = (0..changes).map(|_| change(&mut b, &mut iova, &mut setup));
    let changes = changes.collect();
    Case {
        setup,
        device,
        iova,
        memory: b.memory,
        changes,
    }
}
