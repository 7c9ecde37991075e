use crate::rig::{
    AT, COMMAND_HEAD, COMMAND_TAIL, COMMANDS, CONTROL, DEVICE, EVENT_TAIL, EVENTS, Heard,
    INVALIDATE_ALL, OTHER_PAGE, PAGE, RW, SIZE, STATUS, STORE, TABLES, guest, host, wait,
};
use iopf::{GroupIndex, Iova, Pasid, Response};
use viommu::amdvi::{Config, Guest};
use viommu_api::Invalidation;

#[test]
fn a_completion_wait_stores_and_interrupts_as_it_is_told() {
    let rig = host(Config::default());
    // S alone, as Linux has it.
    rig.queue(&[wait(STORE, 0x11_0000_0022)]);
    assert_eq!(rig.get(STORE), 0x11_0000_0022);
    assert_eq!(rig.r32(STATUS) & 4, 0);
    // I, while ComWaitIntEn is clear: the bit alone.
    rig.queue(&[[1 << 60 | 2, 0]]);
    assert_eq!(rig.r32(STATUS) & 4, 4);
    assert_eq!(rig.interrupts(), 0);
    // Enabled, what is pending is raised; once.
    rig.enable(4);
    assert_eq!(rig.interrupts(), 1);
    rig.queue(&[[1 << 60 | 2, 0]]);
    assert_eq!(rig.interrupts(), 0);
    rig.w32(STATUS, 4);
    assert_eq!(rig.r32(STATUS) & 4, 0);
    rig.queue(&[[1 << 60 | 2 | 4, 0]]);
    assert_eq!(rig.interrupts(), 1);
}

#[test]
fn the_buffer_wraps() {
    let rig = host(Config::default());
    // 512 entries: three times round, and no more than 511 at once.
    for round in 0..6u64 {
        let mut commands = vec![[5 << 60 | 0x20, 0]; 255];
        commands.push(wait(STORE + 8, round));
        rig.queue(&commands);
        assert_eq!(rig.get(STORE + 8), round);
        assert_eq!(rig.r64(COMMAND_HEAD), rig.r64(COMMAND_TAIL));
    }
}

/// An illegal command at the start of the buffer; what follows it is not done.
fn illegal(config: Config, command: [u64; 2]) {
    let rig = host(config);
    let at = rig.r64(COMMAND_HEAD);
    rig.put(STORE, 0);
    rig.queue(&[command, wait(STORE, 7)]);
    assert_eq!(rig.get(STORE), 0, "{command:x?}");
    assert_eq!(rig.r64(COMMAND_HEAD), at, "the head is at it");
    assert_eq!(rig.r32(STATUS) & 0x10, 0, "CmdBufRun");
    // "Event logged [ILLEGAL_COMMAND_ERROR address=…]".
    assert_eq!(rig.entry(EVENTS, 0), [5 << 60, COMMANDS + at]);
    assert_eq!(rig.interrupts(), 1);
    assert_eq!(rig.unit.counters().queue_errors, 1);
    // amd_iommu_reset_cmd_buffer
    rig.disable(12);
    rig.w32(COMMAND_HEAD, 0);
    rig.w32(COMMAND_TAIL, 0);
    rig.enable(12);
    rig.rewound();
    rig.submit(&[]);
}

#[test]
fn an_illegal_command_stops_the_buffer_until_it_is_switched() {
    for command in [
        // No such opcodes.
        [0, 0],
        [9 << 60, 0],
        [0xf << 60, 0],
        // Reserved bits.
        [2 << 60 | 1 << 16, 0],
        [3 << 60 | 5 << 32, 1 << 3],
        [8 << 60, 1],
        // Type of INVALIDATE_IOTLB_PAGES, without InvIotlbTypeSup.
        [4 << 60 | 0x20, 1 << 4],
    ] {
        illegal(Config::default(), command);
    }
}

#[test]
fn a_command_of_a_feature_that_is_not_there_is_illegal() {
    let bare = Config {
        guest: None,
        page_requests: None,
        device_tlb: false,
        prefetch: false,
        invalidate_all: false,
        ..Config::default()
    };
    // Bring-up without INVALIDATE_IOMMU_ALL stops at its first command.
    let rig = crate::rig::Rig::new(bare);
    rig.w64(0x08, COMMANDS | 9 << 56);
    rig.w64(0x10, EVENTS | 8 << 56);
    for (number, command) in [
        INVALIDATE_ALL,
        [4 << 60 | 0x20, 0],
        [6 << 60 | 0x20, 0],
        [7 << 60 | 0x20, 0],
        // GN without guest translation.
        [3 << 60 | 5 << 32, 4],
    ]
    .into_iter()
    .enumerate()
    {
        rig.w64(CONTROL, 0x5);
        rig.w32(COMMAND_HEAD, 0);
        rig.w32(COMMAND_TAIL, 16);
        rig.put(COMMANDS, command[0]);
        rig.put(COMMANDS + 8, command[1]);
        rig.w64(CONTROL, 0x1005);
        let event = rig.entry(EVENTS, number as u64);
        assert_eq!(event, [5 << 60, COMMANDS], "{command:x?}");
    }
}

#[test]
fn a_command_that_cannot_be_read_is_a_hardware_error() {
    let rig = host(Config::default());
    rig.disable(12);
    rig.w64(0x08, SIZE | 9 << 56);
    rig.w32(COMMAND_TAIL, 16);
    rig.enable(12);
    // COMMAND_HARDWARE_ERROR, a master abort.
    assert_eq!(rig.entry(EVENTS, 0), [6 << 60 | 1 << 57, SIZE]);
    assert_eq!(rig.r32(STATUS) & 0x10, 0);
    // The hardware event registers have it too: HEV.
    assert_eq!(rig.r64(0x40), 6 << 60 | 1 << 57);
    assert_eq!(rig.r64(0x48), SIZE);
    assert_eq!(rig.r64(0x50), 1);
    rig.w64(0x50, 1);
    assert_eq!(rig.r64(0x50), 0);
}

#[test]
fn a_store_without_memory_is_a_hardware_error() {
    let rig = host(Config::default());
    rig.queue(&[wait(SIZE, 1), wait(STORE, 1)]);
    assert_eq!(rig.entry(EVENTS, 0), [6 << 60 | 1 << 57, SIZE]);
    assert_eq!(rig.r32(STATUS) & 0x10, 0);
    assert_ne!(rig.get(STORE), 1);
}

#[test]
fn device_tlb_invalidations_reach_their_device() {
    let rig = guest(Config::default());
    // build_inv_iotlb_pages: qdep 0x20, PASID 3, one page; then all of a device without PASID.
    rig.submit(&[
        [4 << 60 | 3 << 48 | 0x20 << 32 | 0x20 << 24 | 0x20, 0x7004],
        [4 << 60 | 0x20 << 32 | 0x20, 0x7fff_ffff_ffff_f001],
    ]);
    let heard = |pasid, addr, size_shift| {
        Heard::Invalidate(Invalidation {
            pasid,
            global: false,
            addr: Iova(addr),
            size_shift,
        })
    };
    assert_eq!(
        rig.ear.take(),
        [heard(Pasid::new(3), 0x7000, 12), heard(None, 0, 64)]
    );
    assert_eq!(rig.r64(EVENT_TAIL), 0);
}

#[test]
fn an_invalidation_of_pasid_0_reaches_what_a_device_has_without_a_pasid() {
    let rig = guest(Config::default());
    // With GIoV a request without a PASID goes through the tables of PASID 0, and Linux invalidates
    // those alone (`__domain_flush_pages`).
    rig.submit(&[[4 << 60 | 0x20 << 32 | 0x20, 0x7004]]);
    let heard = [Pasid::new(0), None].map(|pasid| {
        Heard::Invalidate(Invalidation {
            pasid,
            global: false,
            addr: Iova(0x7000),
            size_shift: 12,
        })
    });
    assert_eq!(rig.ear.take(), heard);
}

#[test]
fn a_device_that_is_not_there_times_out_and_holds_nobody_up() {
    let rig = host(Config::default());
    let at = COMMANDS + rig.r64(COMMAND_HEAD);
    rig.submit(&[[4 << 60 | 0x28, 0x7000]]);
    // "Event logged [IOTLB_INV_TIMEOUT device=0000:00:05.0 address=…]".
    assert_eq!(rig.entry(EVENTS, 0), [7 << 60 | 0x28, at]);
    assert_eq!(rig.interrupts(), 1);
    // InvTimeOut 0: no time-out runs.
    rig.w64(CONTROL, rig.r64(CONTROL) & !(7 << 5));
    rig.submit(&[[4 << 60 | 0x28, 0x7000]]);
    assert_eq!(rig.r64(EVENT_TAIL), 16);
}

#[test]
fn page_responses_reach_their_device() {
    let rig = guest(Config::default());
    // build_complete_ppr: PASID 3, GN; tag 0x181 with status 0, 1, 0xf, and an unused one.
    for (status, response) in [
        (0u64, Response::Success),
        (1, Response::Invalid),
        (0xf, Response::Failure),
        (2, Response::Failure),
    ] {
        rig.submit(&[[7 << 60 | 3 << 32 | 0x20, (status << 12 | 0x181) << 32 | 4]]);
        assert_eq!(
            rig.ear.take(),
            [Heard::Response(Pasid::new(3), GroupIndex(0x181), response)]
        );
    }
    rig.submit(&[[7 << 60 | 0x20, 1 << 32]]);
    let heard = rig.ear.take();
    assert_eq!(
        heard,
        [Heard::Response(None, GroupIndex(1), Response::Success)]
    );
    // For a device that is not there: counted, and lost.
    rig.submit(&[[7 << 60 | 0x28, 0]]);
    let counters = rig.unit.counters();
    assert_eq!((counters.responses, counters.responses_lost), (5, 1));
    rig.unit.detach(DEVICE);
}

#[test]
fn commands_wait_for_the_unit_to_be_enabled() {
    let rig = host(Config::default());
    rig.disable(0);
    rig.put(STORE, 0);
    rig.queue(&[wait(STORE, 9)]);
    assert_eq!(rig.get(STORE), 0);
    rig.enable(0);
    assert_eq!(rig.get(STORE), 9);
}

#[test]
fn nothing_is_invalidated_behind_a_command_that_stopped_the_buffer() {
    let rig = host(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(TABLES + 0x3008, RW | OTHER_PAGE | 1);
    rig.queue(&[[0, 0], INVALIDATE_ALL]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

#[test]
fn a_unit_refuses_what_does_not_fit_together() {
    use viommu::amdvi::Refused;
    let refused = |config: Config| config.registers().unwrap_err();
    assert_eq!(
        refused(Config {
            host_levels: 3,
            ..Config::default()
        }),
        Refused::OutOfRange {
            field: "host_levels",
            value: 3
        }
    );
    let guest = Guest {
        pasid_bits: 21,
        ..Config::default().guest.unwrap()
    };
    assert!(
        Config {
            guest: Some(guest),
            ..Config::default()
        }
        .registers()
        .is_err()
    );
}
