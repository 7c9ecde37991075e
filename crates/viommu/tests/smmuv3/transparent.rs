//! As long as software changes nothing, caches change nothing: a unit with them and one without do the
//! same with every request, whatever the tables hold.

use crate::bed::{Bed, Dice};
use crate::rig::{
    A, ATSCHK, CFGI_ALL, CMDQEN, CR0, CR2, EVENTQEN, R, Rig, S, SMMUEN, STREAMS, STRTAB_BASE,
    STRTAB_BASE_CFG, TLBI_NSNH_ALL,
};
use iommu_walk::smmuv3::Failure;
use iopf::{Access, Dma, DmaKind, Iova, Pasid, Rid};
use viommu::smmuv3::{Config, Smmuv3};

const HOST: u64 = 0x5_0000;
const GUEST: u64 = 0x6_0000;
const OTHER: u64 = 0x6_8000;
const NESTED: u64 = 0x7_0000;
/// A table of 64 KiB pages, and the one above it.
const LARGE: u64 = 0x9_0000;
const LARGE_TOP: u64 = 0x8_0000;
const CONTEXTS: u64 = 0x4000;
const NESTED_CONTEXTS: u64 = 0x7_8000;
/// Stage 2 maps the first GiB here once more, with every right.
const AGAIN: u64 = 0x4000_0000;

/// What a stage 1 page has: at times read-only, privileged, clean, global, not to execute from, unused.
fn first_bits(dice: &mut Dice) -> u64 {
    let rights = dice.pick(&[0x40, 0x40, 0x40, 0x40, 0xc0, 0, 0x80]);
    let never = dice.pick(&[0, 0, 1 << 54, 1 << 53, 3 << 53]);
    let accessed = if dice.one_in(6) { 0 } else { 1 << 10 };
    let dirty = dice.pick(&[0, 0, 1 << 51]);
    0x300 | rights | never | accessed | dirty | dice.below(2) << 11
}

/// The same of a page that is not global: not every address space of its set has the same tables.
fn own_bits(dice: &mut Dice) -> u64 {
    first_bits(dice) | 1 << 11
}

fn second_bits(dice: &mut Dice) -> u64 {
    let rights = dice.pick(&[3, 3, 3, 3, 1, 2, 0]) << 6;
    let never = dice.below(4) << 53;
    let accessed = if dice.one_in(6) { 0 } else { 1 << 10 };
    let dirty = dice.pick(&[0, 0, 1 << 51]);
    0x33c | rights | dice.pick(&[0, 0, 0, never]) | accessed | dirty
}

/// A page's entry: at times not valid, or with an address that is too wide.
fn page(dice: &mut Dice, base: u64, bits: fn(&mut Dice) -> u64, kind: u64) -> u64 {
    let bits = bits(dice);
    let valid = if dice.one_in(8) { 0 } else { kind };
    base | bits | valid | dice.pick(&[0, 0, 0, 0, 0, 0, 0, 1 << 47])
}

/// Four levels at `top`, whose entries have `offset` added: pages of 4 KiB from 0 on, blocks of 2 MiB, one
/// of 1 GiB.
fn tables(rig: &Rig, dice: &mut Dice, top: u64, offset: u64, bits: fn(&mut Dice) -> u64) {
    let stage1 = offset != 0 || top != HOST;
    for level in 0..3u64 {
        // APTable, PXNTable, UXNTable.
        let denied = if stage1 && dice.one_in(3) {
            dice.pick(&[1 << 61, 1 << 62, 1 << 59, 1 << 60])
        } else {
            0
        };
        let table = top + level * 0x1000;
        rig.put(table, (offset + table + 0x1000) | denied | 3);
    }
    // What contexts, tables and pages of stage 1 lie in.
    let all = if stage1 { bits(dice) } else { 0x7fc };
    rig.put(top + 0x1008, all | 1);
    rig.put(top + 0x1018, page(dice, 0, bits, 1));
    for index in 1..8 {
        let base = if stage1 {
            (index ^ 1) << 21
        } else {
            index << 21
        };
        rig.put(top + 0x2000 + index * 8, page(dice, base, bits, 1));
    }
    for index in 0..24 {
        let base = (index ^ 1) * 0x1000;
        rig.put(top + 0x3000 + index * 8, page(dice, base, bits, 3));
    }
}

/// Two levels of granule 64 KiB: pages, and a block of 512 MiB.
fn large_tables(rig: &Rig, dice: &mut Dice) {
    rig.put(LARGE_TOP, LARGE | 3);
    rig.put(LARGE_TOP + 8, page(dice, 0, own_bits, 1));
    for index in 0..24 {
        let entry = page(dice, (index ^ 1) * 0x1_0000, own_bits, 3);
        rig.put(LARGE + index * 8, entry);
    }
}

/// Context descriptors of a virtual machine: what is cached with a page is the same in all of them.
fn contexts(rig: &Rig, dice: &mut Dice, at: u64, tables: [u64; 2], first_asid: u64) {
    // HD and HA, PAN, TBI, WXN, AFFD.
    let same = dice.pick(&[0, 0, 1, 3]) << 42
        | dice.below(2) << 40
        | dice.below(4) << 38
        | dice.below(2) << 36
        | dice.below(2) << 35;
    for (number, top, set) in [(0, tables[0], 1), (3, tables[1], 0), (5, LARGE_TOP, 0)] {
        let ends = dice.pick(&[R | A, R | A, R, A, R | A | S]);
        let upper = if dice.one_in(2) {
            1 << 30
        } else {
            2 << 22 | 16 << 16
        };
        let (lower, upper) = if number == 5 {
            // TG0 is 1, T0SZ 22.
            (1 << 6 | 22, 1 << 30)
        } else {
            (16, upper)
        };
        let asid = first_asid + number;
        let word = asid << 48 | set << 47 | 1 << 41 | 5 << 32 | 1 << 31;
        rig.put(at + number * 64 + 8, top);
        rig.put(at + number * 64 + 16, top);
        rig.put(at + number * 64, word | same | ends | upper | lower);
    }
}

/// A stream table entry. Streams of a virtual machine have the same stage 2; what else an entry has is its
/// own.
fn entry(dice: &mut Dice, second: u64) -> [u64; 4] {
    let valid = u64::from(!dice.one_in(12));
    let config = dice.pick(&[0, 4, 5, 5, 5, 6, 6, 7, 7]);
    let (contexts, vmid) = match config {
        7 => (3 << 59 | AGAIN | NESTED_CONTEXTS, 6),
        6 => (0, 5),
        _ => (3 << 59 | CONTEXTS, 0),
    };
    // INSTCFG, PRIVCFG, EATS, S1DSS.
    let own = dice.pick(&[0, 0, 0, 2, 3]) << 50
        | dice.pick(&[0, 0, 0, 2, 3]) << 48
        | dice.below(2) << 28
        | dice.below(3);
    // S2R, and S2S without EATS.
    let told = dice.below(2) << 58;
    let second = 1 << 51 | 5 << 48 | 2 << 38 | 16 << 32 | second | told | vmid;
    [contexts | config << 1 | valid, 1 << 44 | own, second, HOST]
}

/// All that a unit's walks look at, anew.
fn scene(rig: &Rig, dice: &mut Dice) -> [(u64, u64); 5] {
    tables(rig, dice, HOST, 0, second_bits);
    tables(rig, dice, GUEST, 0, first_bits);
    tables(rig, dice, OTHER, 0, own_bits);
    tables(rig, dice, NESTED, AGAIN, first_bits);
    large_tables(rig, dice);
    contexts(rig, dice, CONTEXTS, [GUEST, OTHER], 0x10);
    contexts(
        rig,
        dice,
        NESTED_CONTEXTS,
        [AGAIN | NESTED, AGAIN | NESTED],
        0x20,
    );
    // The large tables are no intermediate addresses.
    rig.put(NESTED_CONTEXTS + 5 * 64, 0);
    // S2HA and S2HD, S2AFFD.
    let second = dice.pick(&[0, 0, 2, 3]) << 55 | dice.below(2) << 53;
    for stream in 0..4 {
        for (word, value) in (0..).zip(entry(dice, second)) {
            rig.put(STREAMS + stream * 64 + word * 8, value);
        }
    }
    let checks = if dice.one_in(4) { 0 } else { ATSCHK };
    [
        (CR0, 0),
        (CR2, dice.below(2) << 1),
        (STRTAB_BASE, STREAMS),
        (STRTAB_BASE_CFG, 2),
        (CR0, u64::from(SMMUEN | CMDQEN | EVENTQEN | checks)),
    ]
}

fn request(dice: &mut Dice) -> (Dma, u64) {
    let page = dice.pick(&[
        0,
        0x1000,
        0x2000,
        0x7000,
        0x8000,
        0x9000,
        0xa000,
        0x1_0000,
        0x1_7000,
        0x9_3000,
        0x20_0000,
        0x20_1000,
        0x3f_f000,
        0x40_0000,
        0x2000_0000,
        0x3fff_f000,
        0x4000_0000,
        0x4012_3000,
        0x8000_0000,
        0xc000_0000,
        0xc020_0000,
        0x7fff_ffff_f000,
        0x1_0000_0000_0000,
        0x10_0000_0000_0000,
        // With a tag; of the upper range, with and without; the last page.
        0xab00_0000_0000_1000,
        0xffff_0000_0000_1000,
        0xcdff_0000_0020_0000,
        !0xfff,
    ]);
    let kind = match dice.below(12) {
        0 => DmaKind::Translated,
        1 => DmaKind::Translation {
            no_write: dice.one_in(2),
        },
        _ => DmaKind::Untranslated,
    };
    let dma = Dma {
        requester: Rid(dice.pick(&[0, 1, 2, 3, 3, 4])),
        pasid: dice
            .pick(&[
                None,
                None,
                None,
                Some(0),
                Some(3),
                Some(3),
                Some(5),
                Some(9),
            ])
            .and_then(Pasid::new),
        kind,
        addr: Iova(page | dice.pick(&[0, 0, 0xff0])),
        access: Access::from_bits_truncate(dice.pick(&[1, 1, 2, 2, 3, 4, 5, 6, 9, 10, 12, 0, 8])),
    };
    (dma, dice.pick(&[1, 8, 0x10, 0x1000, 0x3000]))
}

/// The unit that was asked first has set access flags and dirty state.
fn settle(failure: &mut Failure) {
    failure.entry = failure.entry.map(|entry| entry & !0x480);
}

#[test]
fn caches_change_nothing_as_long_as_tables_stay_as_they_are() {
    let mut served = 0;
    for seed in 1..=60u64 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let config = |iotlb_entries| Config {
            stalls: 3,
            iotlb_entries,
            ..Config::default()
        };
        let rig = Rig::new(config(dice.pick(&[4, 4096])));
        rig.start();
        let bare = Bed::<Smmuv3>::over(rig.memory.clone(), config(0), crate::rig::sink);
        for _ in 0..4 {
            for (at, value) in scene(&rig, &mut dice) {
                for bed in [&*rig, &bare] {
                    match at {
                        STRTAB_BASE => bed.w64(at, value),
                        _ => bed.w32(at, u32::try_from(value).expect("small")),
                    }
                }
            }
            rig.submit(&[CFGI_ALL, TLBI_NSNH_ALL]);
            served += rig.assert_agrees(&bare, &mut dice, request, settle);
        }
    }
    // Of 96,000.
    assert!(served > 10_000, "{served}");
}
