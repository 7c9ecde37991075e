use super::*;
use crate::pci::{
    AtsCapability, Bar, Builder, Identity, MsixCapability, PasidCapability, Port, PriCapability,
};
use proptest::prelude::*;

/// A function with everything that there is.
fn space() -> ConfigSpace {
    Builder::new(Identity {
        vendor: 0x494f,
        device: 0x5046,
        class: 0x08_8000,
        revision: 1,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
    })
    .bar(0, Bar::memory32(0x8000))
    .bar(2, Bar::memory64(0x1_0000_0000).prefetchable())
    .intx()
    .express(Port::Integrated, true)
    .msi()
    .msix(MsixCapability {
        vectors: 8,
        table: (0, 0x4000),
        pending: (0, 0x5000),
    })
    .vendor(&[16, 1, 2, 3, 4], &[0, 0, 0xff, 0, 0])
    .ats(AtsCapability {
        queue_depth: 0,
        global_invalidate: true,
    })
    .pri(PriCapability {
        capacity: 512,
        response_needs_pasid: true,
    })
    .pasid(PasidCapability {
        width: 20,
        execute: true,
        privileged: true,
    })
    .build()
    .unwrap()
}

fn u16_at(space: &ConfigSpace, at: u16) -> u16 {
    let mut bytes = [0; 2];
    space.read(at, &mut bytes);
    u16::from_le_bytes(bytes)
}

fn u32_at(space: &ConfigSpace, at: u16) -> u32 {
    let mut bytes = [0; 4];
    space.read(at, &mut bytes);
    u32::from_le_bytes(bytes)
}

// Offsets as they lie in this space: the builder's order is fixed.
const EXP: u16 = 0x40;
const MSI: u16 = 0x88;
const MSIX: u16 = 0x7c;
const VENDOR: u16 = 0x98;
const ATS: u16 = 0x100;
const PRI: u16 = 0x108;
const PASID: u16 = 0x118;

#[test]
fn the_header_reads_as_typed_from_the_specification() {
    let mut header = [0; 64];
    space().read(0, &mut header);
    #[rustfmt::skip]
    assert_eq!(
        header,
        [
            0x4f, 0x49, 0x46, 0x50, // vendor, device
            0x00, 0x00, 0x10, 0x00, // command, status: capability list
            0x01, 0x00, 0x80, 0x08, // revision, class
            0x00, 0x00, 0x00, 0x00, // cache line, latency, header type 0, BIST
            0x00, 0x00, 0x00, 0x00, // BAR 0: 32 bits
            0x00, 0x00, 0x00, 0x00,
            0x0c, 0x00, 0x00, 0x00, // BAR 2: 64 bits, prefetchable
            0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x00,
            0xf4, 0x1a, 0x00, 0x11, // subsystem
            0x00, 0x00, 0x00, 0x00, // no expansion ROM
            0x40, 0x00, 0x00, 0x00, // first capability
            0x00, 0x00, 0x00, 0x00,
            0x00, 0x01, 0x00, 0x00, // interrupt line, pin A
        ]
    );
}

#[test]
fn linux_finds_each_capability_with_its_own_numbers() {
    // PCI_CAP_ID_*, PCI_EXT_CAP_ID_* and PCI_EXT_CAP_NEXT, as pci_regs.h spells them.
    let space = space();
    let mut at = u32_at(&space, 0x34) & 0xfc;
    let mut found = Vec::new();
    while at != 0 {
        let word = u16_at(&space, u16::try_from(at).unwrap());
        found.push((word & 0xff, u16::try_from(at).unwrap()));
        at = u32::from(word >> 8);
    }
    assert_eq!(
        found,
        [(0x10, EXP), (0x11, MSIX), (0x05, MSI), (0x09, VENDOR)]
    );
    let mut at = 0x100;
    let mut found = Vec::new();
    while at != 0 {
        let header = u32_at(&space, at);
        found.push((header & 0xffff, (header >> 16) & 0xf, at));
        at = u16::try_from((header >> 20) & 0xffc).unwrap();
    }
    assert_eq!(found, [(0x0f, 1, ATS), (0x13, 1, PRI), (0x1b, 1, PASID)]);
}

#[test]
fn the_express_capability_is_what_the_pasid_code_of_linux_wants() {
    let space = space();
    // PCI_EXP_FLAGS_VERS 0x000f, PCI_EXP_FLAGS_TYPE 0x00f0, PCI_EXP_TYPE_RC_END 0x9.
    assert_eq!(u16_at(&space, EXP + 2), 0x0092);
    // PCI_EXP_DEVCAP_RBER 0x8000, PCI_EXP_DEVCAP_FLR 0x10000000.
    assert_eq!(u32_at(&space, EXP + 4), 0x1000_8000);
    // PCI_EXP_DEVCTL_READRQ_512B 0x2000, NOSNOOP_EN 0x0800, RELAX_EN 0x0010.
    assert_eq!(u16_at(&space, EXP + 8), 0x2810);
    // PCI_EXP_DEVCAP2_EE_PREFIX 0x00200000, one of EE_PREFIX_MAX 0x00c00000, COMP_TMOUT_DIS 0x10.
    assert_eq!(u32_at(&space, EXP + 36), 0x0070_0010);
    // No link in the root complex.
    assert_eq!((u32_at(&space, EXP + 12), u32_at(&space, EXP + 16)), (0, 0));
}

#[test]
fn the_extended_capabilities_read_as_typed_from_the_specification() {
    let mut bytes = [0; 32];
    space().read(ATS, &mut bytes);
    #[rustfmt::skip]
    assert_eq!(
        bytes,
        [
            0x0f, 0x00, 0x81, 0x10, // ATS, version 1, next 0x108
            0x60, 0x00, 0x00, 0x00, // PAGE_ALIGNED 0x20, global invalidate 0x40; CTRL
            0x13, 0x00, 0x81, 0x11, // PRI, version 1, next 0x118
            0x00, 0x00, 0x00, 0x81, // CTRL; STATUS: STOPPED 0x100, PASID 0x8000
            0x00, 0x02, 0x00, 0x00, // MAX_REQ
            0x00, 0x00, 0x00, 0x00, // ALLOC_REQ
            0x1b, 0x00, 0x01, 0x00, // PASID, version 1, the last
            0x06, 0x14, 0x00, 0x00, // EXEC 2, PRIV 4, WIDTH 20 << 8; CTRL
        ]
    );
    let mut msix = [0; 12];
    space().read(MSIX, &mut msix);
    assert_eq!(msix, [0x11, 0x88, 7, 0, 0x00, 0x40, 0, 0, 0x00, 0x50, 0, 0]);
}

#[test]
fn a_bar_is_sized_programmed_and_seen_once_it_answers() {
    let mut space = space();
    for (at, mask) in [
        (0x10, 0xffff_8000),
        (0x18, 0x0000_000c),
        (0x1c, 0xffff_ffff),
        (0x14, 0),
    ] {
        assert_eq!(space.write(at, &[0xff; 4]), []);
        assert_eq!(u32_at(&space, at), mask);
    }
    assert_eq!(space.write(0x10, &0xfebf_4000u32.to_le_bytes()), []);
    assert_eq!(space.write(0x18, &0u32.to_le_bytes()), []);
    assert_eq!(space.write(0x1c, &0x38u32.to_le_bytes()), []);
    assert_eq!(space.bar_address(0), None);
    assert_eq!(space.write(4, &[2, 0]), [Effect::MemoryDecode(true)]);
    // The low bits of the address are not there.
    assert_eq!(space.bar_address(0), Some(0xfebf_0000));
    assert_eq!(space.bar_address(2), Some(0x38_0000_0000));
    assert_eq!(
        [1, 3, 5, 6, 255].map(|bar| space.bar_address(bar)),
        [None; 5]
    );
    assert_eq!(
        [0, 1, 2].map(|bar| space.bar_size(bar)),
        [0x8000, 0, 1 << 32]
    );
}

#[test]
fn linux_turns_ats_pri_and_pasid_on() {
    let mut space = space();
    // pci_enable_pasid: PCI_PASID_CTRL_ENABLE and what is supported.
    let on = PasidControl {
        enabled: true,
        execute: false,
        privileged: true,
        width: 20,
    };
    assert_eq!(space.write(PASID + 6, &[5, 0]), [Effect::PasidChanged(on)]);
    // pci_enable_ats: PCI_ATS_CTRL_ENABLE.
    let on = AtsControl {
        enabled: true,
        unit: 0,
    };
    assert_eq!(space.write(ATS + 6, &[0, 0x80]), [Effect::AtsChanged(on)]);
    // pci_reset_pri, then pci_enable_pri: the allocation, then PCI_PRI_CTRL_ENABLE.
    let control = PriControl {
        enabled: false,
        allocation: 0,
    };
    let reset = Effect::PriChanged {
        control,
        reset: true,
    };
    assert_eq!(space.write(PRI + 4, &[2, 0]), [reset]);
    assert_eq!(u16_at(&space, PRI + 4), 0);
    assert_eq!(space.write(PRI + 12, &32u32.to_le_bytes()), []);
    let control = PriControl {
        enabled: true,
        allocation: 32,
    };
    let enabled = Effect::PriChanged {
        control,
        reset: false,
    };
    assert_eq!(space.write(PRI + 4, &[1, 0]), [enabled]);
    assert_eq!(u16_at(&space, PRI + 6), 0x8000);
    // While it is on, a reset does nothing.
    assert_eq!(space.write(PRI + 4, &[3, 0]), []);
    // pci_disable_pri, with requests under way: not stopped yet.
    assert!(matches!(
        space.write(PRI + 4, &[0, 0])[..],
        [Effect::PriChanged { reset: false, .. }]
    ));
    space.set_pri_outstanding(true);
    assert_eq!(u16_at(&space, PRI + 6), 0x8000);
    space.set_pri_outstanding(false);
    assert_eq!(u16_at(&space, PRI + 6), 0x8100);
}

#[test]
fn an_allocation_above_the_capacity_is_the_capacity() {
    let mut space = space();
    assert_eq!(space.write(PRI + 12, &u32::MAX.to_le_bytes()), []);
    assert_eq!(space.pri().allocation, 512);
}

#[test]
fn one_write_can_turn_page_requests_off_and_reset_them() {
    let mut space = space();
    assert_eq!(space.write(PRI + 4, &[1, 0]).len(), 1);
    let control = PriControl::default();
    let both = Effect::PriChanged {
        control,
        reset: true,
    };
    assert_eq!(space.write(PRI + 4, &[2, 0]), [both]);
}

#[test]
fn status_bits_of_page_requests_are_cleared_by_ones() {
    let mut space = space();
    space.set_pri_failure();
    space.set_pri_unexpected();
    assert_eq!(u16_at(&space, PRI + 6), 0x8103);
    assert_eq!(space.write(PRI + 6, &[1, 0]), []);
    assert_eq!(u16_at(&space, PRI + 6), 0x8102);
    assert_eq!(space.write(PRI + 6, &[0xff, 0xff]), []);
    assert_eq!(u16_at(&space, PRI + 6), 0x8100);
}

#[test]
fn msix_is_switched_and_masked() {
    let mut space = space();
    let on = |enabled, masked| [Effect::MsixChanged(MsixControl { enabled, masked })];
    // PCI_MSIX_FLAGS_ENABLE 0x8000, PCI_MSIX_FLAGS_MASKALL 0x4000; the size stays.
    assert_eq!(
        space.write(MSIX + 2, &0xc000u16.to_le_bytes()),
        on(true, true)
    );
    assert_eq!(u16_at(&space, MSIX + 2), 0xc007);
    assert_eq!(
        space.write(MSIX + 2, &0x8000u16.to_le_bytes()),
        on(true, false)
    );
    assert_eq!(space.write(MSIX + 3, &[0]), on(false, false));
}

#[test]
fn a_function_level_reset_leaves_what_power_on_gives() {
    let mut used = space();
    let fresh = space();
    for (at, bytes) in [
        (4, [6, 4]),
        (ATS + 6, [0, 0x80]),
        (PASID + 6, [1, 0]),
        (0x10, [0, 0x80]),
    ] {
        let _ = used.write(at, &bytes);
    }
    assert!(used.bus_master() && used.ats().enabled && used.intx_disabled());
    // PCI_EXP_DEVCTL_BCR_FLR 0x8000, written with what was there.
    assert_eq!(
        used.write(EXP + 8, &0xa810u16.to_le_bytes()),
        [Effect::FunctionReset]
    );
    let bytes = |space: &ConfigSpace| {
        let mut bytes = vec![0; 4096];
        space.read(0, &mut bytes);
        bytes
    };
    assert_eq!(bytes(&used), bytes(&fresh));
    assert!(!used.bus_master() && !used.ats().enabled);
}

#[test]
fn the_pin_shows_in_status_and_can_be_switched_off() {
    let mut space = space();
    space.set_intx(true);
    assert_eq!(u16_at(&space, 6), 0x0018);
    assert_eq!(
        space.write(4, &0x0400u16.to_le_bytes()),
        [Effect::IntxDisabled(true)]
    );
    space.set_intx(false);
    assert_eq!(u16_at(&space, 6), 0x0010);
}

#[test]
fn bus_master_of_a_chipset_function_cannot_be_turned_off() {
    let mut space = Builder::new(Identity::default())
        .always_master()
        .build()
        .unwrap();
    assert!(space.bus_master());
    assert_eq!(space.write(4, &[0, 0]), []);
    assert!(space.bus_master());
    assert_eq!(u16_at(&space, 4), 4);
}

#[test]
fn reads_beyond_the_end_are_zero() {
    let mut bytes = [0xaa; 8];
    space().read(4094, &mut bytes);
    assert_eq!(bytes, [0; 8]);
    space().read(u16::MAX, &mut bytes);
    assert_eq!(bytes, [0; 8]);
}

proptest! {
    #[test]
    fn no_write_changes_a_read_only_bit(
        writes in prop::collection::vec(
            (any::<u16>(), 0u16..0x140, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)),
            1..40,
        ),
    ) {
        let mut space = space();
        let mut before = vec![0; 4096];
        space.read(0, &mut before);
        for (anywhere, header, near, data) in writes {
            let effects = space.write(if near { header } else { anywhere }, &data);
            prop_assert!(effects.len() <= 7);
        }
        let mut after = vec![0; 4096];
        space.read(0, &mut after);
        // Moved by the rules, not by the guest: the stopped bit.
        let stopped = usize::from(PRI + 7);
        for at in 0..4096 {
            let own = if at == stopped { 1 } else { 0 };
            let fixed = !(space.changeable(at) | own);
            prop_assert_eq!(before[at] & fixed, after[at] & fixed, "byte {:#x}", at);
        }
    }

    #[test]
    fn what_effects_say_is_what_the_space_shows(
        writes in prop::collection::vec((0u16..0x140, any::<u32>()), 1..60),
    ) {
        let mut space = space();
        let (mut master, mut ats, mut pri, mut pasid) = (false, space.ats(), false, space.pasid());
        for (at, value) in writes {
            for effect in space.write(at, &value.to_le_bytes()) {
                match effect {
                    Effect::BusMaster(on) => master = on,
                    Effect::AtsChanged(now) => ats = now,
                    Effect::PriChanged { control, .. } => pri = control.enabled,
                    Effect::PasidChanged(now) => pasid = now,
                    Effect::FunctionReset => {
                        (master, ats, pri) = (false, AtsControl::default(), false);
                        pasid = PasidControl { width: 20, ..PasidControl::default() };
                    }
                    _ => {}
                }
            }
            prop_assert_eq!((space.bus_master(), space.ats()), (master, ats));
            prop_assert_eq!((space.pri().enabled, space.pasid()), (pri, pasid));
        }
    }
}
