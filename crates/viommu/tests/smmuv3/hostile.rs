//! Guests that mean harm: whatever they write, the unit neither panics nor hangs.

use crate::bed::{Dice, Meddler, any_kind, any_page_request, any_register};
use crate::rig::{
    A, ALL_ON, AT, CFGI_ALL, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, COMMANDS, CONTEXTS, CR0, DEVICE,
    EVENTQ_CONS, GERROR, GERRORN, R, Rig, S, STORE, STREAMS, TABLES, TLBI_NSNH_ALL, Unit, first,
    resume, sync,
};
use iopf::{Access, Dma, DmaKind, GroupIndex, Iova, Pasid, Response, Rid};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use viommu::smmuv3::{Config, StallModel};
use viommu_api::{
    Ats, Blocked, Ending, Endpoint, Invalidation, Pri, Registers, Resume, StallTag, Translate,
};

const REGISTERS: [u64; 33] = [
    0x20, 0x28, 0x2c, 0x44, 0x50, 0x64, 0x68, 0x6c, 0x70, 0x74, 0x80, 0x84, 0x88, 0x90, 0x94, 0x98,
    0x9c, 0xa0, 0xa4, 0xb0, 0xb4, 0xb8, 0xbc, 0xc0, 0xc4, 0xd0, 0xd4, 0xd8, 0xdc, 0x1_00a8,
    0x1_00ac, 0x1_00c8, 0x1_00cc,
];

const OPCODES: [u64; 21] = [
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x28, 0x2a, 0x30, 0x40, 0x41, 0x44,
    0x44, 0x45, 0x46, 0x46, 0xff,
];

#[test]
fn a_guest_that_writes_anything_anywhere_breaks_nothing() {
    for seed in 1..40u64 {
        let mut dice = Dice::new(seed);
        let stall_model = dice.pick(&[StallModel::BOTH, StallModel::TERMINATE, StallModel::FORCED]);
        let rig = first(Config {
            iotlb_entries: dice.pick(&[0, 1, 64]),
            stall_model,
            stalls: if stall_model == StallModel::TERMINATE {
                0
            } else {
                dice.pick(&[1, 3, 256])
            },
            stream_bits: dice.pick(&[16, 32]),
            ..Config::default()
        });
        for _ in 0..2000 {
            step(&rig, &mut dice);
        }
        rig.assert_accounts();
        let counters = rig.unit.counters();
        assert!(counters.resumed + counters.resumed_lost <= counters.stalled);
        // Whatever is held is let go, once.
        rig.unit.reset();
        let counters = rig.unit.counters();
        assert_eq!(counters.resumed + counters.resumed_lost, counters.stalled);
    }
}

fn step(rig: &Rig, dice: &mut Dice) {
    match dice.below(9) {
        0 => {
            let at = dice.pick(&REGISTERS);
            rig.w32(at, dice.below32(1 << 32));
        }
        1 => any_register(rig, dice),
        2 => {
            // A plausible queue with anything in it.
            rig.w32(GERRORN, rig.r32(GERROR));
            rig.w32(CR0, ALL_ON & !(1 << 3));
            rig.w64(CMDQ_BASE, COMMANDS | dice.pick(&[8, 0, 9, 31]));
            rig.w32(CMDQ_CONS, dice.below32(0x400));
            for _ in 0..8 {
                let at = COMMANDS + dice.below(0x100) * 16;
                let fields = dice.roll() & dice.roll() & dice.roll() & !0xff;
                rig.put(at, fields | dice.pick(&OPCODES));
                rig.put(at + 8, dice.roll() >> dice.below(64) & dice.roll());
            }
            rig.w32(CR0, ALL_ON);
            rig.w32(CMDQ_PROD, dice.below32(0x400));
        }
        3 => {
            let table = dice.pick(&[STREAMS, CONTEXTS, TABLES, TABLES + 0x3000]);
            let word = dice.roll() >> dice.below(64);
            rig.put(table + dice.below(512) * 8, word);
        }
        4 => {
            rig.unit.page_request(DEVICE, &any_page_request(dice));
        }
        5 => {
            // Back to what works, at times with stalls.
            rig.w32(CR0, 0);
            rig.w32(GERRORN, rig.r32(GERROR));
            rig.tables(TABLES, 0x10_0000 | 0xf43);
            let stalls = if dice.one_in(2) { S } else { 0 };
            rig.context(CONTEXTS, TABLES, 5, R | A | stalls);
            rig.context(CONTEXTS + 3 * 64, TABLES, 6, R | stalls);
            rig.first_entry(CONTEXTS);
            rig.start();
        }
        6 => {
            // What a driver does with what it finds.
            rig.w32(GERRORN, rig.r32(GERROR));
            rig.w32(EVENTQ_CONS, dice.below32(0x40));
        }
        _ => {
            let dma = Dma {
                requester: Rid(dice.pick(&[0x20, 0x20, 0x28, 0xffff_ffff])),
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
fn a_queue_that_is_restarted_under_a_command_waits_for_nothing_of_its_past() {
    let rig = first(Config::default());
    let _meddler = Meddler::behind(&rig, u32::MAX, |unit, _| {
        // Restarts the queue, its indices at the start, under the command that runs.
        let write = |at, value: u32| unit.write(at, &value.to_le_bytes());
        write(CR0, ALL_ON & !(1 << 3));
        write(CMDQ_CONS, 0);
        write(CMDQ_PROD, 0);
        write(CR0, ALL_ON);
    });
    rig.put(STORE, 0);
    // The sync behind the invalidation is of the old queue.
    rig.queue(&[[0x40 | 0x20 << 32, 0x7000], sync(STORE, 1)]);
    assert_eq!(rig.get(STORE), 0);
    assert_eq!(rig.r32(CMDQ_CONS), 0, "the index did not move on");
    rig.rewound();
    rig.submit(&[]);
}

#[test]
fn no_command_is_left_lying_however_many_come_while_others_are_worked_off() {
    let rig = first(Config::default());
    // One command more is put into the queue at each, as another processor may.
    let feeder = Meddler::behind(&rig, 70_000, |unit, heard| {
        let prod = (heard + 1) % 512;
        unit.write(CMDQ_PROD, &prod.to_le_bytes());
    });
    // A queue full of CMD_ATC_INV, of which the first is handed over.
    rig.w32(CR0, ALL_ON & !(1 << 3));
    rig.w32(CMDQ_CONS, 0);
    rig.w32(CMDQ_PROD, 0);
    for index in 0..256 {
        rig.put(COMMANDS + index * 16, 0x40 | 0x20 << 32);
        rig.put(COMMANDS + index * 16 + 8, 0x7000);
    }
    rig.w32(CR0, ALL_ON);
    rig.w32(CMDQ_PROD, 1);
    // Linux waits for a word in memory, and touches no register meanwhile.
    assert_eq!(feeder.heard(), 70_000);
}

#[test]
fn a_whole_queue_of_the_widest_invalidations_ends() {
    let rig = first(Config::default());
    // 250 commands, each of ever more pages, of one address space and of all.
    let commands: Vec<[u64; 2]> = (0..250u64)
        .map(|number| {
            let range = 31 << 12 | (number % 32) << 20;
            match number % 3 {
                0 => [0x12 | 5 << 48 | range, 1 << 10],
                1 => [0x13 | range, 0x00ff_ffff_ffff_f000 | 1 << 10],
                _ => [0x2a | range, 3 << 10],
            }
        })
        .collect();
    rig.submit(&commands);
    assert_eq!(rig.r32(GERROR), 0);
}

#[test]
fn a_queue_of_garbage_stops_at_its_first_command() {
    let rig = first(Config::default());
    let cons = rig.r32(CMDQ_CONS);
    for word in 0..512 {
        rig.put(COMMANDS + word * 8, u64::MAX);
    }
    rig.w32(CMDQ_PROD, cons ^ 0x100);
    assert_eq!(rig.r32(CMDQ_CONS), 1 << 24 | cons);
    assert_eq!(rig.unit.counters().queue_errors, 1);
}

#[test]
fn an_access_at_the_end_of_the_address_space_ends() {
    let rig = first(Config::default());
    let dma = rig.dma(None, u64::MAX - 3, Access::READ);
    assert!(rig.access(&dma, 8).is_err());
    rig.w32(CR0, 0);
    assert!(rig.access(&dma, u64::MAX).is_err());
}

/// A device that retries what it is told to, from where it is told.
#[derive(Debug)]
struct Eager {
    unit: Weak<Unit>,
    resumed: AtomicU32,
}

impl Endpoint for Eager {
    fn invalidate(&self, _: &Invalidation) {}
    fn page_response(&self, _: Option<Pasid>, _: GroupIndex, _: Response) {}
    fn resume(&self, _: StallTag, how: Resume) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
        if let (Some(unit), Resume::Retry) = (self.unit.upgrade(), how) {
            let dma = Dma {
                requester: DEVICE,
                pasid: None,
                kind: DmaKind::Untranslated,
                addr: Iova(0x9000),
                access: Access::READ,
            };
            let _ = unit.with_translation(&dma, 1, &mut |_, _| {});
        }
    }
}

#[test]
fn a_retry_that_faults_again_is_a_stall_of_its_own() {
    let rig = crate::rig::stalling(Config {
        stalls: 3,
        ..Config::default()
    });
    let eager = Arc::new(Eager {
        unit: Arc::downgrade(&rig.unit),
        resumed: AtomicU32::new(0),
    });
    let endpoint: Arc<dyn Endpoint> = eager.clone();
    rig.unit.attach(DEVICE, Arc::downgrade(&endpoint));
    let dma = rig.dma(None, 0x9000, Access::READ);
    let first = Blocked {
        at: Iova(0x9000),
        end: Ending::Stalled(StallTag(0)),
    };
    assert_eq!(rig.access(&dma, 1), Err(first));
    for turn in 0..100 {
        let events = rig.take_events();
        assert_eq!(events.len(), 1, "{turn}");
        rig.submit(&[resume(1, events[0][1] & 0xffff), CFGI_ALL, TLBI_NSNH_ALL]);
    }
    assert_eq!(eager.resumed.load(Ordering::Relaxed), 100);
    assert_eq!(rig.unit.counters().stalled, 101);
    // Mapped, it ends.
    rig.put(TABLES + 0x3000 + 9 * 8, 0x10_0f43);
    let tag = rig.take_events()[0][1] & 0xffff;
    rig.submit(&[resume(1, tag)]);
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0]);
    assert_eq!(rig.read_at(None, AT), Some(0x10_0000));
}

#[test]
fn processors_and_devices_that_get_in_each_others_way_all_come_to_an_end() {
    let rig = crate::rig::stalling(Config {
        stalls: 4,
        ..Config::default()
    });
    let eager = Arc::new(Eager {
        unit: Arc::downgrade(&rig.unit),
        resumed: AtomicU32::new(0),
    });
    let endpoint: Arc<dyn Endpoint> = eager.clone();
    rig.unit.attach(DEVICE, Arc::downgrade(&endpoint));
    std::thread::scope(|scope| {
        for seed in 1..5u64 {
            let rig = &rig;
            scope.spawn(move || {
                let mut dice = Dice::new(seed);
                for turn in 0..1500u64 {
                    match turn % 4 {
                        0 => {
                            rig.w32(GERRORN, rig.r32(GERROR));
                            let tag = dice.below(5);
                            rig.queue(&[resume(dice.below(4), tag), sync(STORE, 1)]);
                            rig.w32(EVENTQ_CONS, dice.below32(0x20));
                        }
                        1 if dice.one_in(16) => {
                            rig.w32(CR0, ALL_ON & !dice.below32(0x20));
                            rig.w32(CR0, ALL_ON);
                        }
                        2 if dice.one_in(64) => {
                            rig.unit.reset();
                            rig.start_quietly();
                        }
                        _ => {
                            let addr = dice.pick(&[AT, 0x9000]);
                            let _ = rig.access(&rig.dma(None, addr, Access::READ), 0x10);
                        }
                    }
                }
            });
        }
    });
    // It still works once it is left in peace, and holds nothing.
    rig.unit.reset();
    let counters = rig.unit.counters();
    assert_eq!(counters.resumed + counters.resumed_lost, counters.stalled);
    rig.start();
    assert_eq!(rig.read_at(None, AT), Some(0x10_0000));
    rig.submit(&[CFGI_ALL]);
}
