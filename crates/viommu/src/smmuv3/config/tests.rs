use super::*;

fn refused(change: impl Fn(&mut Config)) -> Refused {
    let mut config = Config::default();
    change(&mut config);
    config.caps().unwrap_err()
}

#[test]
fn the_default_has_what_linux_asks_for() {
    let caps = Config::default().caps().unwrap();
    // S2P, S1P, TTF 2, COHACC, HTTU 2, ATS, NS1ATS, ASID16, MSI, SEV, PRI, VMID16, CD2L, TTENDIAN 2,
    // ST_LEVEL 1.
    assert_eq!(caps.idr0.into_bits(), 0x084d_7c9b);
    // SIDSIZE 16, SSIDSIZE 20, PRIQS 9, EVENTQS 10, CMDQS 9, ATTR_PERMS_OVR.
    assert_eq!(
        caps.idr1.into_bits(),
        1 << 26 | 9 << 21 | 10 << 16 | 9 << 11 | 20 << 6 | 16
    );
    // HAD, XNX, PPS, RIL.
    assert_eq!(caps.idr3.into_bits(), 1 << 2 | 1 << 4 | 1 << 5 | 1 << 10);
    // OAS 5 (48 bits), the three granules, STALL_MAX 256.
    assert_eq!(caps.idr5.into_bits(), 256 << 16 | 0x70 | 5);
    // arm_smmu_device_hw_probe: IDR0_TTF is AArch64 or both, and at least as many commands as a batch.
    assert!(caps.idr1.cmdqs() > 6);
    // arm_smmu_sva_supported: coherent page table walks.
    assert!(caps.idr0.cohacc());
}

#[test]
fn each_size_of_addresses_has_its_field() {
    for (bits, field) in [(32, 0), (36, 1), (40, 2), (42, 3), (44, 4), (48, 5)] {
        let config = Config {
            output_bits: bits,
            ..Config::default()
        };
        assert_eq!(config.caps().unwrap().idr5.oas(), field);
    }
}

#[test]
fn what_is_missing_is_not_shown() {
    let config = Config {
        ats: None,
        messages: false,
        wakes: false,
        second_stage: false,
        updates: TableUpdates::Access,
        stall_model: StallModel::TERMINATE,
        stalls: 0,
        ..Config::default()
    };
    let caps = config.caps().unwrap();
    let idr0 = caps.idr0;
    assert!(!idr0.ats() && !idr0.ns1ats() && !idr0.pri() && !idr0.msi() && !idr0.sev());
    assert!(!idr0.s2p() && idr0.s1p());
    assert_eq!(idr0.httu(), 1);
    assert_eq!(idr0.stall_model(), StallModel::TERMINATE);
    assert!(!caps.idr3.xnx() && !caps.idr3.pps());
    assert_eq!(caps.idr5.stall_max(), 0);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let out = |field, value| Refused::OutOfRange { field, value };
    assert_eq!(refused(|c| c.output_bits = 33), out("output_bits", 33));
    assert_eq!(refused(|c| c.output_bits = 52), out("output_bits", 52));
    assert_eq!(refused(|c| c.stream_bits = 33), out("stream_bits", 33));
    assert_eq!(
        refused(|c| c.substream_bits = 21),
        out("substream_bits", 21)
    );
    assert_eq!(
        refused(|c| c.stall_model = StallModel(3)),
        out("stall_model", 3)
    );
    assert_eq!(refused(|c| c.stalls = 0), out("stalls", 0));
    assert_eq!(
        refused(|c| c.stall_model = StallModel::TERMINATE),
        out("stalls", 256)
    );
    assert_eq!(refused(|c| c.command_bits = 17), out("command_bits", 17));
    assert_eq!(refused(|c| c.event_bits = 20), out("event_bits", 20));
    assert_eq!(refused(|c| c.page_bits = 20), out("page_bits", 20));
    assert_eq!(
        refused(|c| c.iotlb_entries = (4 << 20) + 1),
        out("iotlb_entries", (4 << 20) + 1)
    );
}

#[test]
fn what_lacks_its_ground_is_refused() {
    let without = |what, needs| Refused::Without { what, needs };
    assert_eq!(
        refused(|c| (c.first_stage, c.second_stage) = (false, false)),
        without("a unit", "a stage")
    );
    assert_eq!(
        refused(|c| {
            c.granules = Granules {
                k4: false,
                k16: false,
                k64: false,
            }
        }),
        without("a unit", "a granule")
    );
    assert_eq!(
        refused(|c| c.two_level_streams = false),
        without("stream_bits of 7 and more", "two_level_streams")
    );
    assert_eq!(
        refused(|c| (c.messages, c.wires) = (false, false)),
        without("a unit", "messages or wires")
    );
}

#[test]
fn identifiers_are_as_wide_as_the_unit_says() {
    let narrow = Config {
        wide_asid: false,
        wide_vmid: false,
        ..Config::default()
    };
    let caps = narrow.caps().unwrap();
    assert!(caps.asid(0xff) && caps.vmid(0xff));
    assert!(!caps.asid(0x100) && !caps.vmid(0x100));
    let caps = Config {
        second_stage: false,
        ..narrow
    }
    .caps()
    .unwrap();
    assert!(caps.vmid(0x100), "it counts as 0");
}
