use crate::rig::{
    AT, COMMAND_HEAD, COMMAND_TAIL, COMMANDS, CONTROL, DEVICE_TABLE, EVENT_HEAD, EVENT_TAIL,
    EVENTS, PAGE, PAGES, PPR_HEAD, Rig, STATUS, guest, host,
};
use viommu::amdvi::Config;
use viommu_api::Registers;

#[test]
fn the_bring_up_of_linux_leaves_everything_running() {
    let rig = host(Config::default());
    // IommuEn, EventLogEn, EventIntEn, InvTimeOut 4, Coherent, CmdBufEn, PPRLogEn, PPRIntEn, PPREn,
    // GTEn, EPHEn.
    assert_eq!(rig.r64(CONTROL), 0x2000_0001_f48d);
    // EventLogRun, CmdBufRun, PprLogRun.
    assert_eq!(rig.r32(STATUS), 0x98);
    assert_eq!(rig.r64(0x00), DEVICE_TABLE);
    assert_eq!(rig.r64(0x08), COMMANDS | 9 << 56);
    assert_eq!(rig.r64(0x10), EVENTS | 8 << 56);
    assert_eq!(rig.r64(0x38), PAGES | 8 << 56);
    assert_eq!(rig.interrupts(), 0);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    assert_eq!(rig.unit.size(), 0x4000);
}

#[test]
fn a_unit_that_is_off_lets_everything_pass() {
    let rig = Rig::new(Config::default());
    assert_eq!(rig.read_at(None, 0x1234), Some(0x1234));
    let rig = host(Config::default());
    rig.disable(0);
    assert_eq!(rig.r32(STATUS), 0, "nothing runs without IommuEn");
    assert_eq!(rig.read_at(None, AT), Some(AT));
    rig.enable(0);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

#[test]
fn bits_of_features_that_are_not_there_cannot_be_set() {
    let rig = Rig::new(Config {
        guest: None,
        page_requests: None,
        ..Config::default()
    });
    rig.w64(CONTROL, u64::MAX);
    // What is left of it: IommuEn to CmdBufEn.
    assert_eq!(rig.r64(CONTROL), 0x1fff);
    rig.w64(0x38, u64::MAX);
    rig.w64(PPR_HEAD, u64::MAX);
    assert_eq!(rig.r64(0x38), 0);
    assert_eq!(rig.r64(PPR_HEAD), 0);
    // GAEn, XTEn, IntCapXTEn and IRTCacheDis are never there: Linux tests the last by writing it.
    let rig = Rig::new(Config::default());
    rig.w64(CONTROL, u64::MAX);
    assert_eq!(
        rig.r64(CONTROL) & (1 << 17 | 1 << 50 | 1 << 51 | 1 << 59),
        0
    );
}

#[test]
fn the_features_are_read_only() {
    let rig = Rig::new(Config::default());
    let (features, features2) = Config::default().registers().unwrap();
    rig.w64(0x30, 0);
    rig.w64(0x1a0, u64::MAX);
    assert_eq!(rig.r64(0x30), features.into_bits());
    assert_eq!(rig.r64(0x1a0), features2.into_bits());
}

#[test]
fn reserved_bits_read_as_zero() {
    let rig = Rig::new(Config::default());
    for (at, expected) in [
        // VirtualBox IOMMU_*_VALID_MASK.
        (0x00, 0x000f_ffff_ffff_f1ff),
        (0x08, 0x0f0f_ffff_ffff_f000),
        (0x10, 0x0f0f_ffff_ffff_f000),
        (0x20, 0x000f_ffff_ffff_f003),
        (0x28, 0x000f_ffff_ffff_f000),
        (0x38, 0x0f0f_ffff_ffff_f000),
        (EVENT_HEAD, 0x7_fff0),
        (COMMAND_TAIL, 0x7_fff0),
        // One segment.
        (0x100, 0),
        (0x58, 0),
        (0x3ff8, 0),
    ] {
        rig.w64(at, u64::MAX);
        assert_eq!(rig.r64(at), expected, "{at:#x}");
    }
}

#[test]
fn rings_keep_their_place_while_they_run() {
    let rig = host(Config::default());
    rig.queue(&[[0x8 << 60, 0]]);
    rig.w64(0x08, 0x7_0000 | 9 << 56);
    rig.w64(0x10, 0x7_0000 | 9 << 56);
    rig.w64(0x38, 0x7_0000 | 9 << 56);
    rig.w32(COMMAND_HEAD, 0);
    rig.w32(EVENT_TAIL, 0x40);
    assert_eq!(rig.r64(0x08), COMMANDS | 9 << 56);
    assert_eq!(rig.r64(0x10), EVENTS | 8 << 56);
    assert_eq!(rig.r64(0x38), PAGES | 8 << 56);
    assert_eq!(rig.r64(COMMAND_HEAD), 0x30);
    assert_eq!(rig.r64(EVENT_TAIL), 0);
    // A pointer outside the ring is no pointer.
    rig.w32(EVENT_HEAD, 0x1000);
    rig.w32(COMMAND_TAIL, 0x2000);
    assert_eq!(rig.r64(EVENT_HEAD), 0);
    assert_eq!(rig.r64(COMMAND_TAIL), 0x30);
    // Stopped, they move, and begin at their start.
    rig.disable(12);
    rig.w64(0x08, 0x7_0000 | 9 << 56);
    assert_eq!(rig.r64(0x08), 0x7_0000 | 9 << 56);
    assert_eq!((rig.r64(COMMAND_HEAD), rig.r64(COMMAND_TAIL)), (0, 0));
}

#[test]
fn a_ring_of_a_reserved_length_does_not_run() {
    let rig = Rig::new(Config::default());
    rig.w64(0x08, COMMANDS | 7 << 56);
    rig.w64(0x10, EVENTS | 7 << 56);
    rig.w64(0x38, PAGES);
    rig.w64(CONTROL, 0xf005);
    assert_eq!(rig.r32(STATUS), 0);
}

#[test]
fn segments_of_the_device_table_are_found_by_the_requester() {
    let rig = Rig::new(Config {
        device_table_segments: 2,
        ..Config::default()
    });
    // Segment 1 at 0x6000: requesters from 0x8000 on. V and nothing else: blocked.
    rig.w64(0x100, 0x6000 | 0x100);
    assert_eq!(rig.r64(0x100), 0x6000, "a segment's size has eight bits");
    rig.put(0x6000, 3);
    rig.w64(0x00, DEVICE_TABLE);
    rig.w64(CONTROL, 1 | 1 << 34);
    let mut dma = rig.dma(None, 0x1000, iopf::Access::READ);
    dma.requester = iopf::Rid(0x8000);
    assert!(rig.access(&dma, 1).is_err());
    dma.requester = iopf::Rid(0x0000);
    assert!(rig.access(&dma, 1).is_ok());
    // More than the unit has cannot be asked for.
    rig.w64(CONTROL, 1 | 2 << 34);
    assert_eq!(rig.r64(CONTROL) >> 34 & 7, 1);
}

#[test]
fn the_exclusion_range_is_not_translated() {
    let rig = host(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    // ExEn and Allow, one page.
    rig.w64(0x28, AT);
    rig.w64(0x20, AT | 3);
    assert_eq!(rig.read_at(None, AT), Some(AT));
    rig.w64(0x20, AT | 1);
    assert_eq!(
        rig.read_at(None, AT),
        Some(PAGE),
        "for devices with EX alone"
    );
    rig.w64(0x20, 0);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

#[test]
fn guest_tables_that_are_switched_off_translate_nothing() {
    let rig = guest(Config::default());
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    // GTEn
    rig.disable(16);
    assert_eq!(rig.read_at(Some(3), AT), None);
    rig.enable(16);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
}

#[test]
fn reset_is_power_on() {
    let rig = guest(Config::default());
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    assert_eq!(rig.read_at(Some(3), 0x9000), None);
    rig.unit.reset();
    for at in (0..0x4000).step_by(8) {
        let expected = match at {
            0x30 => Config::default().registers().unwrap().0.into_bits(),
            _ => 0,
        };
        assert_eq!(rig.r64(at), expected, "{at:#x}");
    }
    assert_eq!(rig.unit.counters().faults, 1, "counts stay");
    assert_eq!(rig.read_at(None, 0x9000), Some(0x9000));
    rig.rewound();
    rig.start();
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
}

#[test]
fn accesses_that_no_hardware_takes_are_ignored() {
    let rig = host(Config::default());
    let before = rig.r64(CONTROL);
    rig.unit.write(CONTROL, &[0]);
    rig.unit.write(CONTROL + 1, &[0; 4]);
    rig.unit.write(u64::MAX - 3, &[0xff; 8]);
    assert_eq!(rig.r64(CONTROL), before);
    let mut far = [0xff; 16];
    rig.unit.read(u64::MAX - 7, &mut far);
    assert_eq!(far, [0; 16]);
}
