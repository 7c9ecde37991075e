//! Guests that mean harm: whatever they write, the unit neither panics nor hangs.

use crate::bed::{Dice, any_kind, any_page_request, any_register};
use crate::rig::{CONTEXT, DEVICE, DIRECTORY, PRQ, QUEUE, ROOT, Rig, STATUS, TABLES, Unit};
use iopf::{Access, Dma, DmaKind, GroupIndex, Iova, PageRequest, Pasid, Response, Rid};
use std::sync::{Arc, Weak};
use viommu::vtd::Config;
use viommu_api::{Ats, Endpoint, Invalidation, Pri, Registers, Translate};

const REGISTERS: [u64; 24] = [
    0x18, 0x20, 0x24, 0x28, 0x2c, 0x34, 0x38, 0x3c, 0x40, 0x80, 0x88, 0x90, 0x94, 0x9c, 0xa0, 0xc0,
    0xc8, 0xd0, 0xdc, 0xe0, 0xf0, 0xf8, 0xfc, 0x22c,
];

#[test]
fn a_guest_that_writes_anything_anywhere_breaks_nothing() {
    for seed in 1..40u64 {
        let mut dice = Dice::new(seed);
        let rig = Rig::new(Config {
            fault_records: u16::try_from(dice.below(8)).expect("small") + 1,
            iotlb_entries: dice.pick(&[0, 1, 64]),
            ..Config::default()
        });
        rig.page_table(TABLES, 0x10_0000, 0x67);
        rig.scalable_context(DIRECTORY);
        rig.first_stage(DIRECTORY, 3, TABLES, 1);
        rig.start_scalable();
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
            // A plausible queue with anything in it.
            rig.w32(0x34, 0x7f);
            rig.w64(0x90, QUEUE | dice.pick(&[0, 1 << 11, 7, 1]));
            rig.w32(0x18, 1 << 31 | 1 << 26);
            let at = QUEUE + dice.below(0x200) * 8;
            rig.put(at, dice.roll() & !0xf | dice.below(12));
            rig.w32(0x88, u32::try_from(dice.below(0x80) * 32).expect("small"));
        }
        3 => {
            let table = dice.pick(&[ROOT, CONTEXT, DIRECTORY, DIRECTORY + 0x1000, TABLES]);
            let word = dice.roll() >> dice.below(64);
            rig.put(table + dice.below(512) * 8, word);
        }
        4 => {
            rig.w64(0xd0, PRQ | dice.below(8));
            rig.w32(0xdc, 3);
            rig.unit.page_request(DEVICE, &any_page_request(dice));
        }
        5 => {
            // Back to tables that work.
            rig.w64(0x20, ROOT | 1 << 10);
            rig.w32(0x18, 1 << 31 | 1 << 30 | 1 << 26);
            rig.scalable_context(DIRECTORY);
            rig.first_stage(DIRECTORY, 3, TABLES, 1);
        }
        _ => {
            let dma = Dma {
                requester: Rid(dice.pick(&[0x20, 0x28, 0xffff])),
                pasid: dice.pick(&[None, Pasid::new(3), Pasid::new(0xf_ffff)]),
                kind: any_kind(dice),
                addr: Iova(dice.roll() >> dice.below(64)),
                access: dice.any_access(),
            };
            rig.unit.translation_request(&dma);
            let _ = rig.access(&dma, dice.below(0x3000));
        }
    }
}

#[test]
fn an_access_at_the_end_of_the_address_space_ends() {
    let rig = crate::rig::legacy(Config::default());
    let dma = rig.dma(None, u64::MAX - 3, Access::READ);
    assert!(rig.access(&dma, 8).is_err());
    rig.w32(0x18, 0);
    assert!(rig.access(&dma, u64::MAX).is_err());
    assert_eq!(rig.access(&dma, 4), Ok(vec![(u64::MAX - 3, 4)]));
    assert_eq!(rig.access(&dma, 0), Ok(vec![]));
}

#[test]
fn a_queue_of_garbage_stops_at_its_first_descriptor() {
    let rig = crate::rig::legacy(Config::default());
    for at in 0..512 {
        rig.put(QUEUE + at * 8, u64::MAX);
    }
    rig.w32(0x34, 0x70);
    rig.w32(0x88, 0xfe0);
    assert_eq!(rig.r32(0x34), 1 << 4);
    assert_eq!(rig.unit.counters().queue_errors, 1);
}

/// A function that answers whatever it hears with work for the unit.
struct Restless(Weak<Unit>);

impl Restless {
    fn work(&self, pasid: Option<Pasid>) {
        let Some(unit) = self.0.upgrade() else {
            return;
        };
        let request = PageRequest {
            pasid,
            group: GroupIndex(1),
            addr: Iova(0x7000),
            access: Access::READ,
            last: true,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        unit.page_request(DEVICE, &request);
        let dma = Dma {
            requester: DEVICE,
            pasid,
            kind: DmaKind::Untranslated,
            addr: Iova(0x1000),
            access: Access::READ,
        };
        // And a guest that points its device at the unit's own registers.
        let _ = unit.with_translation(&dma, 8, &mut |_, _| unit.write(0x88, &[0; 4]));
    }
}

impl Endpoint for Restless {
    fn invalidate(&self, invalidation: &Invalidation) {
        self.work(invalidation.pasid);
    }
    fn page_response(&self, pasid: Option<Pasid>, _: GroupIndex, _: Response) {
        self.work(pasid);
    }
}

#[test]
fn processors_and_devices_that_get_in_each_others_way_all_come_to_an_end() {
    let rig = Rig::new(Config::default());
    rig.page_table(TABLES, 0x10_0000, 0x67);
    rig.scalable_context(DIRECTORY);
    rig.first_stage(DIRECTORY, 3, TABLES, 1);
    rig.start_scalable();
    let restless = Arc::new(Restless(Arc::downgrade(&rig.unit)));
    let weak: Weak<Restless> = Arc::downgrade(&restless);
    rig.unit.attach(DEVICE, weak);
    let descriptors = [
        [0x20 << 32 | 3, 0x7fff_ffff_ffff_f001],
        [3 << 32 | 0x20 << 16 | 8, 0x7000],
        [3 << 32 | 0x20 << 16 | 1 << 4 | 9, 1 << 3],
        [1 << 4 | 2, 0],
        [2 << 32 | 1 << 7 | 1 << 5 | 1 << 4 | 5, STATUS],
    ];
    std::thread::scope(|scope| {
        for seed in 1..5u64 {
            let (rig, descriptors) = (&rig, &descriptors);
            scope.spawn(move || {
                let mut dice = Dice::new(seed);
                for turn in 0..1500u64 {
                    if turn % 4 != 0 {
                        step(rig, &mut dice);
                        continue;
                    }
                    let slot = dice.below(64);
                    for (index, [low, high]) in (0..).zip(descriptors) {
                        let at = QUEUE + (slot + index) % 128 * 32;
                        rig.put(at, *low);
                        rig.put(at + 8, *high);
                        rig.put(at + 16, 0);
                        rig.put(at + 24, 0);
                    }
                    rig.w32(0x34, 0x7f);
                    rig.w64(0x90, QUEUE | 1 << 11);
                    let tail = (slot + descriptors.len() as u64) % 128 * 32;
                    rig.w32(0x88, u32::try_from(tail).expect("small"));
                    if dice.below(64) == 0 {
                        rig.unit.reset();
                        rig.start_quietly();
                    }
                }
            });
        }
    });
    // It still works once it is left in peace.
    rig.unit.reset();
    for table in [ROOT, CONTEXT, DIRECTORY, DIRECTORY + 0x1000, TABLES] {
        for word in 0..512 {
            rig.put(table + word * 8, 0);
        }
    }
    rig.page_table(TABLES, 0x10_0000, 0x67);
    rig.scalable_context(DIRECTORY);
    rig.first_stage(DIRECTORY, 3, TABLES, 1);
    rig.start_quietly();
    assert_eq!(rig.read_at(Some(3), 0x1000), Some(0x10_0000));
    rig.put(STATUS, 0);
    rig.put(QUEUE, 2 << 32 | 1 << 5 | 5);
    rig.put(QUEUE + 8, STATUS);
    rig.put(QUEUE + 16, 0);
    rig.put(QUEUE + 24, 0);
    rig.w32(0x88, 32);
    assert_eq!(rig.get(STATUS), 2);
}
