//! The Command queue: what is illegal, errors and restarts, the ways in which a CMD_SYNC says that it is
//! done, and what endpoints hear.

use crate::rig::{
    ALL_ON, AT, CFGI_ALL, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CMDQEN, COMMANDS, CR0, DEVICE, DOORBELL,
    GERROR, GERROR_MESSAGE, GERRORN, Heard, PAGE, Raised, Rig, SMMUEN, STORE, SYNC, TLBI_NSNH_ALL,
    first, sync,
};
use iopf::{GroupIndex, Iova, Pasid, Response, Rid};
use viommu::smmuv3::{Config, Granules, StallModel};
use viommu_api::Invalidation;

const STOPPED: u32 = 1;

/// The queue stands at its `at`-th command with this error.
#[track_caller]
fn assert_stopped(rig: &Rig, at: u32, error: u32) {
    assert_eq!(rig.r32(CMDQ_CONS), error << 24 | at);
    assert_eq!((rig.r32(GERROR) ^ rig.r32(GERRORN)) & 1, STOPPED);
}

/// `arm_smmu_cmdq_skip_err` and `arm_smmu_gerror_handler`: the command becomes a CMD_SYNC.
fn skip(rig: &Rig) {
    let at = COMMANDS + u64::from(rig.r32(CMDQ_CONS) & 0xff) * 16;
    rig.put(at, SYNC[0]);
    rig.put(at + 8, SYNC[1]);
    rig.w32(GERRORN, rig.r32(GERROR));
}

#[test]
fn an_illegal_command_stops_the_queue_until_the_error_is_acknowledged() {
    let rig = first(Config::default());
    let cons = rig.r32(CMDQ_CONS);
    rig.put(STORE, 0);
    rig.queue(&[CFGI_ALL, [0xff, 0], sync(STORE, 9)]);
    assert_stopped(&rig, cons + 1, 1);
    assert_eq!(rig.raised(), [GERROR_MESSAGE]);
    assert_eq!(rig.unit.counters().queue_errors, 1);
    // Moving the index changes nothing.
    rig.queue(&[SYNC]);
    assert_stopped(&rig, cons + 1, 1);
    assert_eq!((rig.get(STORE), rig.raised()), (0, vec![]));
    skip(&rig);
    assert_eq!(rig.get(STORE), 9);
    assert_eq!(rig.r32(CMDQ_CONS) & 0x1ff, rig.r32(CMDQ_PROD));
    rig.raised();
    // The same error is an error of its own.
    rig.queue(&[[0xff, 0]]);
    assert_eq!(rig.raised(), [GERROR_MESSAGE]);
    assert_eq!((rig.r32(GERROR), rig.r32(GERRORN)), (0, 1));
}

/// Whether the unit takes a command.
fn takes(config: Config, command: [u64; 2]) -> bool {
    let rig = first(config);
    rig.queue(&[command]);
    let stopped = rig.r32(GERROR) & 1 != 0;
    assert_eq!(rig.r32(CMDQ_CONS) >> 24, u32::from(stopped));
    !stopped
}

#[test]
fn every_command_of_a_feature_that_is_there_is_taken() {
    for command in [
        [0x01, 0],
        [0x02, 0x7000],
        [0x03, 0],
        [0x04, 0x1f],
        [0x05, 0],
        [0x06, 0],
        [0x10, 0],
        [0x11, 0],
        [0x12, 0x7000],
        [0x13, 0x7001],
        [0x28, 0],
        [0x2a, 0x7000],
        [0x30, 0],
        [0x41 | 1 << 11, 2 << 12],
        [0x44, 0],
        [0x45, 0],
        [0x46, 0],
        [0x46 | 1 << 12, 0],
        [0x46 | 2 << 12, 0],
    ] {
        assert!(takes(Config::default(), command), "{command:x?}");
    }
}

#[test]
fn what_the_unit_does_not_have_is_illegal() {
    // No hypervisor, no memory partitioning, no such opcode.
    for opcode in [
        0x00, 0x07, 0x08, 0x14, 0x18, 0x1a, 0x20, 0x21, 0x22, 0x23, 0x31, 0x42, 0x43, 0x50, 0x70,
        0x73, 0xff,
    ] {
        assert!(!takes(Config::default(), [opcode, 0]), "{opcode:#x}");
    }
    // SSec; a reserved bit; CS and Resp that are reserved; a size that is.
    for command in [
        [0x03 | 1 << 10, 0],
        [0x03, 1 << 63],
        [0x46 | 3 << 12, 0],
        [0x41, 3 << 12],
        [0x40, 53],
    ] {
        assert!(!takes(Config::default(), command), "{command:x?}");
    }
    let bare = Config {
        ats: None,
        stall_model: StallModel::TERMINATE,
        stalls: 0,
        second_stage: false,
        ranges: false,
        wide_asid: false,
        ..Config::default()
    };
    for command in [
        [0x28, 0],
        [0x2a, 0],
        [0x40, 0],
        [0x41, 2 << 12],
        [0x44, 0],
        [0x45, 0],
        // An ASID of 9 bits; a range.
        [0x11 | 0x100 << 48, 0],
        [0x12 | 1 << 12, 1 << 10],
    ] {
        assert!(!takes(bare, command), "{command:x?}");
    }
    assert!(takes(bare, [0x10 | 0x1234 << 32, 0]), "every VMID is 0");
}

#[test]
fn commands_of_stage_1_are_illegal_without_it() {
    let rig = crate::rig::second(Config {
        first_stage: false,
        wide_vmid: false,
        ..Config::default()
    });
    for (command, taken) in [
        ([0x05, 0], false),
        ([0x06, 0], false),
        ([0x10, 0], false),
        ([0x11, 0], false),
        ([0x12, 0], false),
        ([0x13, 0], false),
        ([0x28 | 0x100 << 32, 0], false),
        ([0x28 | 0xff << 32, 0], true),
        ([0x30, 0], true),
    ] {
        rig.queue(&[command]);
        let stopped = (rig.r32(GERROR) ^ rig.r32(GERRORN)) & 1 != 0;
        assert_eq!(stopped, !taken, "{command:x?}");
        skip(&rig);
    }
}

#[test]
fn a_command_that_cannot_be_read_is_an_abort() {
    let rig = first(Config::default());
    rig.w32(CR0, ALL_ON & !CMDQEN);
    rig.w64(CMDQ_BASE, 0x1000_0000 | 8);
    rig.w32(CMDQ_CONS, 0);
    rig.w32(CMDQ_PROD, 1);
    assert_eq!(rig.raised(), [], "the queue is off");
    rig.w32(CR0, ALL_ON);
    assert_stopped(&rig, 0, 2);
    assert_eq!(rig.raised(), [GERROR_MESSAGE]);
    // Back in memory, it goes on when the error is acknowledged.
    rig.w32(CR0, ALL_ON & !CMDQEN);
    rig.w64(CMDQ_BASE, COMMANDS | 8);
    rig.put(COMMANDS, SYNC[0]);
    rig.put(COMMANDS + 8, SYNC[1]);
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.r32(CMDQ_CONS) & 0xfff, 0);
    rig.w32(GERRORN, rig.r32(GERROR));
    assert_eq!(rig.r32(CMDQ_CONS) & 0xfff, 1);
}

#[test]
fn a_sync_says_that_it_is_done_as_it_is_told() {
    let rig = first(Config::default());
    // By a word in memory, which is 32 bits.
    rig.put(STORE, !0);
    rig.queue(&[sync(STORE, 0x1234_5678)]);
    assert_eq!(rig.get(STORE), 0xffff_ffff_1234_5678);
    // The wire is there for whoever listens.
    assert_eq!(rig.raised(), [Raised::Wire(2)]);
    // By a message.
    rig.queue(&[sync(DOORBELL, 0x33)]);
    let message = Raised::Message(DOORBELL, 0x33);
    assert_eq!(rig.raised(), [message, Raised::Wire(2)]);
    // An address of zero is no message.
    rig.queue(&[sync(0, 0x33)]);
    assert_eq!(rig.raised(), [Raised::Wire(2)]);
    // By nothing, or by waking processors, for which there is nothing to do.
    rig.queue(&[SYNC, [0x46 | 2 << 12, 0]]);
    assert_eq!(rig.raised(), []);
    assert_eq!(rig.r32(CMDQ_CONS), rig.r32(CMDQ_PROD));
}

#[test]
fn without_messages_a_sync_pulses_its_wire() {
    let config = Config {
        messages: false,
        ..Config::default()
    };
    let rig = Rig::new(config);
    rig.w64(CMDQ_BASE, COMMANDS | 8);
    rig.w32(CR0, CMDQEN);
    rig.queue(&[sync(STORE, 1)]);
    assert_eq!((rig.raised(), rig.get(STORE)), (vec![Raised::Wire(2)], 0));
    // With messages alone, there are none but those.
    let rig = first(Config {
        wires: false,
        ..Config::default()
    });
    rig.queue(&[sync(DOORBELL, 1), sync(0, 1)]);
    assert_eq!(rig.raised(), [Raised::Message(DOORBELL, 1)]);
}

#[test]
fn the_indices_wrap() {
    let rig = first(Config::default());
    for turn in 0..700u64 {
        rig.submit(&[TLBI_NSNH_ALL; 3][..usize::try_from(turn % 4).expect("small")]);
    }
}

#[test]
fn a_full_queue_is_worked_off_and_one_beyond_full_is_left_alone() {
    let rig = first(Config::default());
    rig.w32(CR0, ALL_ON & !CMDQEN);
    for place in 0..256 {
        rig.put(COMMANDS + place * 16, TLBI_NSNH_ALL[0]);
        rig.put(COMMANDS + place * 16 + 8, 0);
    }
    rig.w32(CMDQ_CONS, 0x17);
    rig.w32(CMDQ_PROD, 0x117);
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.r32(CMDQ_CONS), 0x117);
    rig.w32(CMDQ_PROD, 0x118 ^ 0x100);
    assert_eq!(rig.r32(CMDQ_CONS), 0x117, "257 commands are none");
    assert_eq!(rig.r32(GERROR), 0);
}

#[test]
fn endpoints_hear_invalidations_as_they_were_asked_for() {
    let rig = first(Config::default());
    let heard = |pasid: Option<u32>, global, addr, size_shift| {
        Heard::Invalidate(Invalidation {
            pasid: pasid.and_then(Pasid::new),
            global,
            addr: Iova(addr),
            size_shift,
        })
    };
    // arm_smmu_atc_inv_to_cmd: of an address space, of a page of one, of everything, global ones.
    rig.submit(&[
        [0x40 | 0x20 << 32, 0x7000],
        [0x40 | 0x20 << 32, 0x10000 | 4],
        [0x40 | 1 << 11 | 3 << 12 | 0x20 << 32, 52],
        [0x40 | 1 << 11 | 1 << 9 | 0x20 << 32, 52],
    ]);
    assert_eq!(
        rig.ear.take(),
        [
            heard(None, false, 0x7000, 12),
            heard(None, false, 0x10000, 16),
            heard(Some(3), false, 0, 64),
            heard(Some(0), true, 0, 64),
        ]
    );
}

#[test]
fn endpoints_hear_answers_to_their_page_requests() {
    let rig = first(Config::default());
    rig.submit(&[
        [0x41 | 1 << 11 | 3 << 12 | 0x20 << 32, 0x1ff | 2 << 12],
        [0x41 | 0x20 << 32, 7 | 1 << 12],
        [0x41 | 0x20 << 32, 8],
        [0x41 | 0x28 << 32, 9],
    ]);
    assert_eq!(
        rig.ear.take(),
        [
            Heard::Response(Pasid::new(3), GroupIndex(0x1ff), Response::Success),
            Heard::Response(None, GroupIndex(7), Response::Invalid),
            Heard::Response(None, GroupIndex(8), Response::Failure),
        ]
    );
    let counters = rig.unit.counters();
    assert_eq!((counters.responses, counters.responses_lost), (3, 1));
}

#[test]
fn a_sync_reports_an_endpoint_that_did_not_answer() {
    let rig = first(Config::default());
    let cons = rig.r32(CMDQ_CONS);
    rig.put(STORE, 0);
    rig.queue(&[[0x40 | 0x28 << 32, 0x7000], CFGI_ALL, sync(STORE, 5)]);
    assert_stopped(&rig, cons + 2, 3);
    assert_eq!((rig.raised(), rig.get(STORE)), (vec![GERROR_MESSAGE], 0));
    // Linux lets it be: the sync is done again, and there is nothing to report.
    rig.w32(GERRORN, rig.r32(GERROR));
    assert_eq!(rig.get(STORE), 5);
    // One that is there answers.
    rig.unit.detach(DEVICE);
    rig.queue(&[[0x40 | 0x20 << 32, 0x7000], SYNC]);
    assert_eq!(rig.r32(CMDQ_CONS) >> 24, 3);
}

#[test]
fn endpoints_hear_nothing_while_translation_is_off() {
    let rig = first(Config::default());
    rig.w32(CR0, ALL_ON & !SMMUEN);
    rig.submit(&[
        [0x40 | 0x20 << 32, 0x7000],
        [0x40 | 0x28 << 32, 0x7000],
        [0x41 | 0x20 << 32, 2 << 12],
    ]);
    assert_eq!(rig.ear.take(), []);
    assert_eq!(rig.unit.counters().responses, 0);
}

#[test]
fn a_range_names_something() {
    let with = |fields: u64, low: u64| takes(Config::default(), [0x12 | low, fields]);
    // TG 1 (4 KiB), NUM 0, SCALE 0, TTL 0; with TTL, NUM or SCALE.
    assert!(!with(1 << 10, 0));
    assert!(with(1 << 10 | 3 << 8, 0));
    assert!(with(1 << 10, 1 << 12));
    assert!(with(1 << 10, 1 << 20));
    // 16 KiB has no blocks at level 1.
    assert!(!with(2 << 10 | 1 << 8, 0));
    assert!(with(2 << 10 | 2 << 8, 0));
}

#[test]
fn a_unit_of_one_granule_translates_with_it() {
    let config = Config {
        granules: Granules {
            k4: true,
            k16: false,
            k64: false,
        },
        stream_bits: 8,
        ..Config::default()
    };
    let rig = first(config);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    assert_eq!(rig.unit.take_diagnostics(), []);
    assert_eq!(Rid(0x20), DEVICE);
}
