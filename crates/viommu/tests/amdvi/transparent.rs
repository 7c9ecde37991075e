//! As long as software changes nothing, caches change nothing: a unit with them and one without do the
//! same with every request, whatever the tables hold.

use crate::bed::{Bed, Dice};
use crate::rig::{DEVICE_TABLE, Rig};
use iommu_walk::amdvi::Failure;
use iopf::{Access, Dma, DmaKind, Iova, Pasid, Rid};
use viommu::amdvi::{Amdvi, Config, Guest};

const HOST: u64 = 0x5_0000;
const GUEST: u64 = 0x6_0000;
const NESTED: u64 = 0x7_0000;
/// Host tables map the first GiB here once more, with every right.
const AGAIN: u64 = 0x4000_0000;

/// Every right of a host entry, or not quite.
fn host_rights(dice: &mut Dice) -> u64 {
    dice.pick(&[3, 3, 3, 3, 1, 2, 0]) << 61
}

/// A host page of 4 KiB or 2 MiB: at times absent, reserved, or no page at all.
fn host_page(dice: &mut Dice, base: u64) -> u64 {
    let spoilt = dice.pick(&[0, 0, 0, 0, 0, 0, 0, 1 << 52, 3 << 9]);
    let present = u64::from(!dice.one_in(8));
    host_rights(dice) | base | spoilt | present | dice.pick(&[0, 1 << 5, 3 << 5])
}

/// Four levels: 4 KiB pages from 0 on, those from 32 KiB on in fours; 2 MiB pages; a page of 1 GiB, one
/// of 2 GiB with the interrupt range in it, and some around the start of the HyperTransport range.
fn host_tables(rig: &Rig, dice: &mut Dice) {
    let table = |at: u64, level: u64| 3 << 61 | at | level << 9 | 1;
    rig.put(HOST, table(HOST + 0x1000, 3));
    rig.put(HOST + 8, table(HOST + 0x4000, 3));
    rig.put(
        HOST + 0x1000,
        table(HOST + 0x2000, 2) & !(host_rights(dice) & 1 << 62),
    );
    rig.put(HOST + 0x1008, 3 << 61 | 1);
    for half in [0x1010, 0x1018] {
        rig.put(HOST + half, 3 << 61 | 0x3fff_f000 | 7 << 9 | 1);
    }
    rig.put(HOST + 0x2000, table(HOST + 0x3000, 1));
    for index in 1..8 {
        let page = host_page(dice, index << 21);
        rig.put(HOST + 0x2000 + index * 8, page);
    }
    for index in 0..8 {
        let page = host_page(dice, 0x20_0000 + index * 0x1000);
        rig.put(HOST + 0x3000 + index * 8, page);
    }
    for four in 0..4 {
        // 16 KiB: the lowest clear address bit is 13.
        let page = host_rights(dice) | (0x30_0000 + four * 0x4000) | 0x1000 | 7 << 9 | 1;
        for part in 0..4 {
            rig.put(HOST + 0x3000 + (8 + four * 4 + part) * 8, page);
        }
    }
    for index in 499..502 {
        rig.put(HOST + 0x4000 + index * 8, 3 << 61 | (index % 2) << 30 | 1);
    }
}

/// A guest page: at times absent, read-only, for supervisors, not to execute from, or reserved.
fn guest_page(dice: &mut Dice, base: u64, large: bool) -> u64 {
    let flags = dice.pick(&[0x67, 0x67, 0x67, 0x7, 0x27, 0x65, 0x63, 0x66]);
    let denied = dice.pick(&[0, 0, 0, 1 << 63]);
    let large = if large {
        dice.pick(&[0x80, 0x80, 0x80, 0x2080])
    } else {
        0
    };
    base | flags | denied | large
}

/// Four levels at `top`, whose entries have `offset` added; pages as the host's, without the odd sizes.
fn guest_tables(rig: &Rig, dice: &mut Dice, top: u64, offset: u64) {
    for level in 0..3u64 {
        let flags = dice.pick(&[0x67, 0x67, 0x67, 0x47, 0x65, 0x63]);
        rig.put(
            top + level * 0x1000,
            (offset + top + (level + 1) * 0x1000) | flags,
        );
    }
    rig.put(top + 0x1008, guest_page(dice, 0, true));
    rig.put(top + 0x1018, guest_page(dice, 0, true));
    for index in 1..8 {
        rig.put(
            top + 0x2000 + index * 8,
            guest_page(dice, (index ^ 1) << 21, true),
        );
    }
    for index in 0..24 {
        rig.put(
            top + 0x3000 + index * 8,
            guest_page(dice, (index ^ 1) * 0x1000, false),
        );
    }
}

/// A device table entry. Devices of a domain have the same tables, as the specification asks for; what
/// else an entry has is its own.
fn entry(dice: &mut Dice) -> [u64; 2] {
    let (valid, rights) = (
        3 ^ dice.pick(&[0, 0, 0, 0, 0, 1, 2]),
        dice.pick(&[3, 3, 3, 1, 2, 0]),
    );
    let (guest_io, dirty) = (dice.below(2) << 54, dice.pick(&[0, 1, 3]) << 7);
    let host = HOST | 4 << 9 | dirty;
    let (low, domain) = dice.pick(&[
        (host, 5),
        (host, 5),
        (0, 7),
        // GCR3 table of one level at 0x4000, of two at 0x5000.
        (4 << 58 | 1 << 55 | guest_io, 1),
        (5 << 58 | 1 << 56 | 1 << 55 | guest_io, 1),
        // Over the host's tables, at 0x7000.
        (host | 7 << 58 | 1 << 55 | guest_io, 6),
    ]);
    let switches = dice.below(2) << 39 | dice.below(2) << 34 | dice.below(2) << 32;
    [rights << 61 | low | valid, switches | domain]
}

/// All that a unit's walks look at, anew.
fn scene(rig: &Rig, dice: &mut Dice) -> [(u64, u64); 3] {
    host_tables(rig, dice);
    guest_tables(rig, dice, GUEST, 0);
    guest_tables(rig, dice, NESTED, AGAIN);
    // PASIDs 0 and 3 of each GCR3 table; of that of two levels PASID 0x203, too.
    rig.put(0x5000, 0x4001);
    rig.put(0x5008, 0x4001);
    for pasid in [0, 3] {
        rig.put(0x4000 + pasid * 8, GUEST | 1);
        rig.put(0x7000 + pasid * 8, AGAIN | NESTED | 1);
    }
    for device in 0..4 {
        let words = entry(dice);
        rig.put(DEVICE_TABLE + device * 32, words[0]);
        rig.put(DEVICE_TABLE + device * 32 + 8, words[1]);
    }
    let first = dice.pick(&[0, 0x1000, 0x8000, 0x20_1000, 0x7fff_f000]);
    let guests = u64::from(!dice.one_in(6)) << 16;
    [
        (0x28, first + dice.below(3) * 0x1000),
        (0x20, first | dice.below(4)),
        // IommuEn, and CmdBufEn for those that have one.
        (0x18, guests | 0x1001),
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
        0x17000,
        0x20_0000,
        0x20_1000,
        0x3f_f000,
        0x40_0000,
        0x4000_0000,
        0x4012_3000,
        0x7fff_f000,
        0x8000_0000,
        0xc000_0000,
        0xfedf_f000,
        0xfee0_0000,
        0xfef0_0000,
        0xfc_ffff_f000,
        0xfd_0000_0000,
        0xfd_4000_0000,
        0xff_ffff_f000,
        0x100_0000_0000,
        0x1_0000_0000_0000,
        0x10_0000_0000_0000,
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
        requester: Rid(dice.pick(&[0, 1, 2, 3])),
        pasid: dice
            .pick(&[None, None, Some(0), Some(3), Some(0x203), Some(5)])
            .and_then(Pasid::new),
        kind,
        addr: Iova(page | dice.pick(&[0, 0, 0xff0])),
        access: Access::from_bits_truncate(dice.pick(&[1, 1, 2, 2, 3, 4, 5, 9, 10, 12, 0, 8])),
    };
    (dma, dice.pick(&[1, 8, 0x10, 0x1000, 0x3000]))
}

/// The unit that was asked first has set accessed and dirty bits.
fn settle(failure: &mut Failure) {
    failure.entry = failure.entry.map(|entry| entry & !0x60);
}

#[test]
fn caches_change_nothing_as_long_as_tables_stay_as_they_are() {
    let mut served = 0;
    for seed in 1..=60u64 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let guest = Config::default().guest.map(|guest| Guest {
            supervisor: !dice.one_in(3),
            no_execute: !dice.one_in(3),
            ..guest
        });
        let config = |iotlb_entries| Config {
            guest,
            iotlb_entries,
            ..Config::default()
        };
        let rig = Rig::new(config(dice.pick(&[4, 4096])));
        rig.start();
        let bare = Bed::<Amdvi>::over(rig.memory.clone(), config(0), crate::rig::sink);
        bare.w64(0x00, DEVICE_TABLE);
        for _ in 0..4 {
            for (at, value) in scene(&rig, &mut dice) {
                rig.w64(at, value);
                bare.w64(at, value);
            }
            rig.submit(&[crate::rig::INVALIDATE_ALL]);
            served += rig.assert_agrees(&bare, &mut dice, request, settle);
        }
    }
    // Of 96,000.
    assert!(served > 10_000, "{served}");
}
