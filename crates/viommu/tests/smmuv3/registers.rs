//! Registers: identification, the order in which Linux writes them, what they ignore.

use crate::rig::{
    ALL_ON, AT, CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CMDQEN, CR0, CR0ACK, CR2, EVENTQ_BASE,
    EVENTQ_CONS, EVENTQ_PROD, EVENTQEN, GBPA, GERROR, GERRORN, IRQ_CTRL, PAGE, PRIQ_BASE,
    PRIQ_CONS, PRIQ_PROD, PRIQEN, Rig, SMMUEN, STRTAB_BASE, STRTAB_BASE_CFG, first,
};
use iopf::Access;
use viommu::smmuv3::{Ats, Config, StallModel};
use viommu_api::{Blocked, Registers};

#[test]
fn identification_registers_say_what_the_unit_can_do() {
    let rig = Rig::new(Config::default());
    assert_eq!(rig.unit.size(), 0x2_0000);
    assert_eq!(rig.r32(0x00), 0x084d_7c9b);
    assert_eq!(rig.r32(0x04), 0x052a_4d10);
    assert_eq!(rig.r32(0x08), 0, "IDR2");
    assert_eq!(rig.r32(0x0c), 0x0434);
    assert_eq!(rig.r32(0x10), 0, "IDR4");
    assert_eq!(rig.r32(0x14), 0x0100_0075);
    assert_eq!(rig.r32(0x18), 0, "IIDR");
    assert_eq!(rig.r32(0x1c), 1, "SMMUv3.1");
    let component: Vec<u32> = (0xff0..0x1000).step_by(4).map(|at| rig.r32(at)).collect();
    assert_eq!(component, [0x0d, 0xf0, 0x05, 0xb1]);
    // They are read-only.
    for at in [0x00, 0x04, 0x0c, 0x14, 0x1c, 0xff0] {
        let before = rig.r32(at);
        rig.w32(at, !before);
        assert_eq!(rig.r32(at), before);
    }
}

#[test]
fn linux_brings_the_unit_up() {
    let rig = first(Config::default());
    assert_eq!(rig.r32(CR0), ALL_ON);
    // PTM is that of broadcasts, which the unit does not take part in.
    assert_eq!(rig.r32(CR2), 1 << 1);
    assert_eq!(rig.r32(GERROR), 0);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    assert_eq!(rig.raised(), []);
    // arm_smmu_device_disable
    rig.w32(CR0, 0);
    assert_eq!(rig.r32(CR0ACK), 0);
    assert_eq!(rig.read_at(None, AT), Some(AT), "nothing is translated");
}

#[test]
fn what_is_in_use_cannot_be_written() {
    let rig = first(Config::default());
    for (at, width) in [
        (0x28, 4),
        (CR2, 4),
        (STRTAB_BASE, 8),
        (STRTAB_BASE_CFG, 4),
        (CMDQ_BASE, 8),
        (CMDQ_CONS, 4),
        (EVENTQ_BASE, 8),
        (EVENTQ_PROD, 4),
        (PRIQ_BASE, 8),
        (PRIQ_PROD, 4),
        (0x68, 8),
        (0x70, 4),
        (0xb0, 8),
        (0xb8, 4),
        (0xd0, 8),
        (0xd8, 4),
    ] {
        let before = (rig.r32(at), rig.r32(at + 4));
        rig.w32(at, !before.0);
        if width == 8 {
            rig.w32(at + 4, !before.1);
        }
        assert_eq!((rig.r32(at), rig.r32(at + 4)), before, "{at:#x}");
    }
    rig.w32(CR0, 0);
    rig.w32(IRQ_CTRL, 0);
    for (at, value) in [
        (0x28, 0xfff),
        (CR2, 0x2),
        (STRTAB_BASE_CFG, 1 << 16 | 8 << 6 | 16),
        (CMDQ_CONS, 0x1ff),
        (EVENTQ_PROD, 1 << 31 | 0x1f),
        (PRIQ_PROD, 0xf),
        (0x70, 77),
    ] {
        rig.w32(at, value);
        assert_eq!(rig.r32(at), value, "{at:#x}");
    }
    for (at, value) in [
        (STRTAB_BASE, 1 << 62 | 0xff_ffff_ffff_ffc0),
        (CMDQ_BASE, 1 << 62 | 0xff_ffff_ffff_ffe0 | 7),
        (EVENTQ_BASE, 1 << 62 | 0x1234_5600 | 31),
        (PRIQ_BASE, 0x20 | 1),
        (0x68, 0xff_ffff_ffff_fffc),
    ] {
        rig.w64(at, value);
        assert_eq!(rig.r64(at), value, "{at:#x}");
    }
}

#[test]
fn reserved_bits_are_not_kept() {
    let rig = Rig::new(Config::default());
    for (at, kept) in [
        (CR0, 0x1f),
        (0x28, 0xfff),
        (CR2, 0x2),
        (IRQ_CTRL, 0x7),
        (STRTAB_BASE_CFG, 0x3_07ff),
        // Queues have one entry after reset, and so indices of one bit.
        (EVENTQ_CONS, 1 << 31 | 1),
        (PRIQ_CONS, 1 << 31 | 1),
        (GERRORN, 0x1fd),
        (0x40, 0),
        (0x48, 0),
    ] {
        let rig = Rig::new(Config::default());
        rig.w32(at, !0);
        assert_eq!(rig.r32(at), kept, "{at:#x}");
    }
    rig.w64(STRTAB_BASE, !0);
    assert_eq!(rig.r64(STRTAB_BASE), 0x40ff_ffff_ffff_ffc0);
    rig.w64(CMDQ_BASE, !0);
    assert_eq!(rig.r64(CMDQ_BASE), 0x40ff_ffff_ffff_ffff);
    rig.w64(0xb0, !0);
    assert_eq!(rig.r64(0xb0), 0x00ff_ffff_ffff_fffc);
}

#[test]
fn bypass_attributes_change_with_update_alone() {
    let rig = Rig::new(Config::default());
    assert_eq!(rig.r32(GBPA), 0x1000);
    rig.w32(GBPA, 1 << 20 | 0x1000);
    assert_eq!(rig.r32(GBPA), 0x1000);
    assert_eq!(rig.read_at(None, AT), Some(AT));
    // arm_smmu_update_gbpa
    rig.w32(GBPA, 1 << 31 | 1 << 20 | 0x1000);
    assert_eq!(rig.r32(GBPA), 1 << 20 | 0x1000, "Update is clear again");
    let read = rig.dma(None, AT, Access::READ);
    assert_eq!(rig.access(&read, 1), Err(Blocked::aborted(read.addr)));
    assert_eq!(rig.unit.counters().recorded, 0, "nobody is told");
    rig.w32(GBPA, 1 << 31 | 0x1000);
    assert_eq!(rig.read_at(None, AT), Some(AT));
}

#[test]
fn what_the_unit_does_not_have_is_not_there() {
    let rig = Rig::new(Config {
        ats: None,
        messages: false,
        two_level_streams: false,
        stream_bits: 6,
        stall_model: StallModel::TERMINATE,
        stalls: 0,
        ..Config::default()
    });
    for at in [
        PRIQ_BASE,
        PRIQ_BASE + 4,
        PRIQ_PROD,
        PRIQ_CONS,
        0xd0,
        0xd8,
        0xdc,
    ] {
        rig.w32(at, !0);
        assert_eq!(rig.r32(at), 0, "{at:#x}");
    }
    for at in [0x68, 0x70, 0x74, 0xb0, 0xb8, 0xbc] {
        rig.w32(at, !0);
        assert_eq!(rig.r32(at), 0, "{at:#x}: there are no messages");
    }
    rig.w32(STRTAB_BASE_CFG, !0);
    assert_eq!(rig.r32(STRTAB_BASE_CFG), 0x3f);
    rig.w32(IRQ_CTRL, !0);
    assert_eq!(rig.r32(IRQ_CTRL), 5);
    rig.w32(CR0, !0);
    assert_eq!(rig.r32(CR0), SMMUEN | EVENTQEN | CMDQEN);
    // Without PRI there may be ATS.
    let rig = Rig::new(Config {
        ats: Some(Ats {
            page_requests: false,
        }),
        ..Config::default()
    });
    rig.w32(CR0, PRIQEN | 1 << 4);
    assert_eq!(rig.r32(CR0), 1 << 4);
}

#[test]
fn indices_have_as_many_bits_as_their_queue_needs() {
    let rig = Rig::new(Config::default());
    for (base, prod, cons, most) in [
        (CMDQ_BASE, CMDQ_PROD, CMDQ_CONS, 9),
        (EVENTQ_BASE, EVENTQ_PROD, EVENTQ_CONS, 10),
        (PRIQ_BASE, PRIQ_PROD, PRIQ_CONS, 9),
    ] {
        for log2 in [0, 3, most, most + 1, 31] {
            rig.w64(base, log2);
            let mask = (2u32 << log2.min(most)) - 1;
            rig.w32(prod, 0x7fff_ffff);
            rig.w32(cons, 0x00ff_ffff);
            assert_eq!(rig.r32(prod) & 0x000f_ffff, mask);
            assert_eq!(rig.r32(cons) & 0x000f_ffff, mask);
        }
        // A queue that gets shorter.
        rig.w64(base, 0);
        assert_eq!((rig.r32(prod), rig.r32(cons)), (1, 1));
    }
}

#[test]
fn accesses_that_are_not_made_of_words_change_nothing() {
    let rig = Rig::new(Config::default());
    rig.unit.write(STRTAB_BASE_CFG, &[0xff]);
    rig.unit.write(STRTAB_BASE_CFG + 1, &[0xff; 4]);
    rig.unit.write(STRTAB_BASE_CFG, &[0xff; 6]);
    assert_eq!(rig.r32(STRTAB_BASE_CFG), 0);
    rig.unit.write(0x2_0000, &[0xff; 8]);
    let mut bytes = [0xff; 16];
    rig.unit.read(0x2_0000, &mut bytes);
    assert_eq!(bytes, [0; 16]);
    let mut bytes = [0; 3];
    rig.unit.read(0x05, &mut bytes);
    assert_eq!(bytes, [0x4d, 0x2a, 0x05]);
}

#[test]
fn a_reset_is_power_on() {
    let rig = first(Config::default());
    assert_eq!(rig.read_at(None, 0x9000), None);
    let read = |rig: &Rig| -> Vec<u32> {
        let pages = (0..0x100).chain(0x1_0000..0x1_0100);
        pages.step_by(4).map(|at| rig.r32(at)).collect()
    };
    rig.unit.reset();
    assert_eq!(read(&rig), read(&Rig::new(Config::default())));
    assert_eq!(rig.read_at(None, AT), Some(AT));
    // Nothing is remembered either.
    rig.put(crate::rig::TABLES + 0x3008, 0);
    rig.start();
    assert_eq!(rig.read_at(None, AT), None);
}
