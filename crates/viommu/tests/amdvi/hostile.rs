//! Guests that mean harm: whatever they write, the unit neither panics nor hangs.

use crate::bed::{Dice, Meddler, any_kind, any_page_request, any_register};
use crate::rig::{
    COMMANDS, CONTROL, CR3_TABLE, DEVICE, DEVICE_TABLE, DTE, EVENTS, PAGES, Rig, STORE, TABLES,
    guest,
};
use iopf::{Dma, DmaKind, Iova, Pasid, Rid};
use viommu::amdvi::Config;
use viommu_api::{Ats, Pri, Registers, Translate};

const REGISTERS: [u64; 24] = [
    0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x38, 0x3c, 0x50, 0x100,
    0x2000, 0x2008, 0x2010, 0x2018, 0x2020, 0x2030, 0x2038, 0x2080, 0x40,
];

#[test]
fn a_guest_that_writes_anything_anywhere_breaks_nothing() {
    for seed in 1..40u64 {
        let mut dice = Dice::new(seed);
        let rig = guest(Config {
            iotlb_entries: dice.pick(&[0, 1, 64]),
            device_table_segments: 8,
            ..Config::default()
        });
        for _ in 0..2000 {
            step(&rig, &mut dice);
        }
        rig.assert_accounts();
    }
}

fn step(rig: &Rig, dice: &mut Dice) {
    match dice.below(8) {
        0 => {
            let at = dice.pick(&REGISTERS);
            let value = dice.roll();
            rig.w32(at, u32::try_from(value & 0xffff_ffff).expect("small"));
        }
        1 => {
            any_register(rig, dice);
        }
        2 => {
            // A plausible buffer with anything in it.
            rig.w64(CONTROL, 0x2000_0001_c08d);
            rig.w64(0x08, COMMANDS | dice.pick(&[8, 9, 7, 15]) << 56);
            rig.w64(CONTROL, 0x2000_0001_f48d);
            let at = COMMANDS + dice.below(0x200) * 16;
            rig.put(at, dice.roll() >> 4 | dice.below(16) << 60);
            rig.put(at + 8, dice.roll() >> dice.below(64));
            rig.w32(
                0x2008,
                u32::try_from(dice.below(0x400) * 16).expect("small"),
            );
        }
        3 => {
            let table = dice.pick(&[DEVICE_TABLE, DTE & !0xfff, CR3_TABLE, TABLES]);
            let word = dice.roll() >> dice.below(64);
            rig.put(table + dice.below(512) * 8, word);
        }
        4 => {
            rig.w32(0x2020, 0x7f);
            rig.unit.page_request(DEVICE, &any_page_request(dice));
        }
        5 => {
            // Back to what works.
            rig.w64(CONTROL, 0);
            rig.rewound();
            rig.guest_tables(TABLES, 0x10_0000);
            rig.guest_entry(TABLES);
            rig.w64(0x20, 0);
            rig.w64(0x10, EVENTS | 8 << 56);
            rig.w64(0x38, PAGES | 8 << 56);
            rig.start();
        }
        _ => {
            let dma = Dma {
                requester: Rid(dice.pick(&[0x20, 0x28, 0xffff])),
                pasid: dice.pick(&[None, Pasid::new(3), Pasid::new(0xf_ffff)]),
                kind: any_kind(dice),
                addr: Iova(dice.roll() >> dice.below(64)),
                access: dice.any_access(),
            };
            if let DmaKind::Translation { .. } = dma.kind {
                rig.unit.translation_request(&dma);
            } else {
                let _ = rig
                    .unit
                    .with_translation(&dma, dice.below(0x4000), &mut |_, _| {});
            }
        }
    }
}

#[test]
fn a_buffer_that_is_restarted_under_a_command_waits_for_nothing_of_its_past() {
    let rig = guest(Config::default());
    let _meddler = Meddler::behind(&rig, u32::MAX, |unit, _| {
        // Restarts the buffer, its pointers at the start, under the command that runs.
        unit.write(CONTROL, &0x2000_0001_e48d_u64.to_le_bytes());
        unit.write(0x2000, &0u32.to_le_bytes());
        unit.write(0x2008, &0u32.to_le_bytes());
        unit.write(CONTROL, &0x2000_0001_f48d_u64.to_le_bytes());
    });
    rig.put(STORE, 0);
    // The wait behind the invalidation is of the old buffer.
    rig.queue(&[[4 << 60 | 0x20, 0x7000], crate::rig::wait(STORE, 1)]);
    assert_eq!(rig.get(STORE), 0);
    assert_eq!(rig.r64(0x2000), 0, "the head did not move on");
    rig.rewound();
    rig.submit(&[]);
}

#[test]
fn no_command_is_left_lying_however_many_come_while_others_are_worked_off() {
    let rig = guest(Config::default());
    // One command more is put into the buffer at each, as another processor may.
    let feeder = Meddler::behind(&rig, 70_000, |unit, heard| {
        let tail = (heard + 1) % 512 * 16;
        unit.write(0x2008, &tail.to_le_bytes());
    });
    // A buffer full of INVALIDATE_IOTLB_PAGES, of which the first is handed over.
    rig.disable(12);
    rig.w64(0x2000, 0);
    rig.w64(0x2008, 0);
    for index in 0..512 {
        rig.put(COMMANDS + index * 16, 4 << 60 | 0x20);
        rig.put(COMMANDS + index * 16 + 8, 0x7000);
    }
    rig.enable(12);
    rig.w32(0x2008, 16);
    // Linux waits for a word in memory, and touches no register meanwhile.
    assert_eq!(feeder.heard(), 70_000);
}

#[test]
fn a_whole_buffer_of_the_widest_invalidations_ends() {
    let rig = guest(Config::default());
    // 510 commands, each of every page of a domain, by page and by PASID.
    let commands: Vec<[u64; 2]> = (0..510u64)
        .map(|number| match number % 2 {
            0 => [3 << 60 | 1 << 32, 0x0007_ffff_ffff_f001],
            _ => [3 << 60 | 1 << 32 | 3, 0x0007_ffff_ffff_f005],
        })
        .collect();
    rig.submit(&commands);
}
