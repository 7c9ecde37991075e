use super::*;

#[test]
fn the_default_is_what_a_stock_linux_was_seen_to_bind_to() {
    let (cap, ecap) = Config::default().registers().unwrap();
    assert_eq!(cap.into_bits(), 0x11d2_008c_222f_0406);
    assert_eq!(ecap.into_bits(), 0x0001_cd98_2400_0fc7);
}

#[test]
fn registers_and_configuration_say_the_same() {
    let legacy = Config {
        scalable: None,
        widths: Widths {
            three_levels: true,
            four_levels: true,
            five_levels: false,
        },
        fault_records: 8,
        root_pointer_invalidates: true,
        zero_length_reads: true,
        domain_bits: 8,
        ..Config::default()
    };
    for config in [Config::default(), legacy] {
        let (cap, ecap) = config.registers().unwrap();
        assert_eq!(Config::from_registers(cap, ecap, 52), Ok(config));
    }
}

#[test]
fn what_the_model_does_not_do_is_refused_by_its_bit() {
    let (cap, ecap) = Config::default().registers().unwrap();
    // AFL, RWBF, PLMR, PHMR, CM, PI, ECMDS, ESIRTPS of CAP_REG.
    for bit in [3, 4, 5, 6, 7, 59, 61, 62] {
        let cap = Cap::from_bits(cap.into_bits() | 1 << bit);
        assert_eq!(
            Config::from_registers(cap, ecap, 52),
            Err(Refused::NotModelled {
                register: "CAP_REG",
                bit,
                set: true
            })
        );
    }
    // IR, EIM, MTS, DIT, VCS, PMS, SMS of ECAP_REG.
    for bit in [3, 4, 25, 41, 44, 51] {
        let ecap = Ecap::from_bits(ecap.into_bits() | 1 << bit);
        assert_eq!(
            Config::from_registers(cap, ecap, 52),
            Err(Refused::NotModelled {
                register: "ECAP_REG",
                bit,
                set: true
            })
        );
    }
    // Queued invalidation cannot be left out.
    assert_eq!(
        Config::from_registers(cap, ecap.with_qi(false), 52),
        Err(Refused::NotModelled {
            register: "ECAP_REG",
            bit: 1,
            set: false
        })
    );
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    let out = |config: Config| match config.registers() {
        Err(Refused::OutOfRange { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let good = Config::default();
    assert_eq!(
        out(Config {
            domain_bits: 5,
            ..good
        }),
        "domain_bits"
    );
    assert_eq!(
        out(Config {
            domain_bits: 18,
            ..good
        }),
        "domain_bits"
    );
    assert_eq!(
        out(Config {
            guest_width: 64,
            ..good
        }),
        "guest_width"
    );
    assert_eq!(
        out(Config {
            host_width: 53,
            ..good
        }),
        "host_width"
    );
    assert_eq!(
        out(Config {
            fault_records: 0,
            ..good
        }),
        "fault_records"
    );
    assert_eq!(
        out(Config {
            fault_records: 257,
            ..good
        }),
        "fault_records"
    );
    assert_eq!(
        out(Config {
            iotlb_entries: 5 << 20,
            ..good
        }),
        "iotlb_entries"
    );
}

#[test]
fn abilities_need_what_they_build_on() {
    let good = Config::default();
    let scalable = good.scalable.unwrap();
    let with = |scalable: Scalable| {
        Config {
            scalable: Some(scalable),
            ..good
        }
        .registers()
    };
    assert_eq!(
        with(Scalable {
            second_stage: false,
            ..scalable
        }),
        Err(Refused::Without {
            what: "nested",
            needs: "both stages"
        })
    );
    assert_eq!(
        with(Scalable {
            pasid_bits: None,
            ..scalable
        }),
        Err(Refused::Without {
            what: "page_requests",
            needs: "pasid_bits"
        })
    );
    assert_eq!(
        Config {
            device_tlb: false,
            ..good
        }
        .registers(),
        Err(Refused::Without {
            what: "page_requests",
            needs: "device_tlb"
        })
    );
    assert_eq!(
        Config {
            widths: Widths::default(),
            ..good
        }
        .registers(),
        Err(Refused::Without {
            what: "a unit",
            needs: "some width"
        })
    );
}
