//! Commands typed doubleword by doubleword from what Linux 7.3 submits (`arm_smmu_make_cmd_*` of
//! `arm-smmu-v3.h`), and the fields of QEMU and FreeBSD upon them.

use super::*;

/// Decodes and encodes again: the doublewords must come back.
fn both_ways(low: u64, high: u64) -> Command {
    let raw = RawCommand::new(low, high);
    assert!(!raw.has_reserved_bits(), "{low:#x} {high:#x}");
    let command = Command::decode(&raw);
    assert_eq!(command.encode(), raw, "{command:?}");
    command
}

#[test]
fn configuration_invalidations_are_those_of_linux() {
    // arm_smmu_make_cmd_cfgi_all: CMDQ_CFGI_1_RANGE 31.
    assert_eq!(
        both_ways(0x04, 31),
        Command::CfgiSteRange {
            stream: Rid(0),
            range: 31,
        }
    );
    // arm_smmu_make_cmd_cfgi_ste(0x1_0008, leaf).
    assert_eq!(
        both_ways(0x0001_0008_0000_0003, 1),
        Command::CfgiSte {
            stream: Rid(0x1_0008),
            leaf: true,
        }
    );
    // arm_smmu_make_cmd_cfgi_cd(0x8, 0x12345, leaf): no SSV.
    assert_eq!(
        both_ways(0x0000_0008_1234_5005, 1),
        Command::CfgiCd {
            stream: Rid(8),
            substream: Pasid::new(0x1_2345).unwrap(),
            leaf: true,
        }
    );
    // CMD_CFGI_CD_ALL, CMD_CFGI_VMS_PIDM.
    assert_eq!(
        both_ways(0x0000_0008_0000_0006, 0),
        Command::CfgiCdAll(Rid(8))
    );
    assert_eq!(
        both_ways(0x0000_0008_0000_0007, 0),
        Command::CfgiVmsPidm { vmid: 8 }
    );
}

#[test]
fn prefetches_are_those_of_linux() {
    // arm_smmu_make_cmd_prefetch_cfg(0x8).
    assert_eq!(
        both_ways(0x0000_0008_0000_0001, 0),
        Command::PrefetchConfig(Prefetch {
            stream: Rid(8),
            substream: None,
        })
    );
    let raw = RawCommand::new(0x0000_0008_0000_3802, 0x7000_0003);
    assert_eq!(
        Command::decode(&raw),
        Command::PrefetchAddr(Prefetch {
            stream: Rid(8),
            substream: Pasid::new(3),
        })
    );
    assert!(!raw.has_reserved_bits());
}

#[test]
fn invalidations_without_addresses_are_those_of_linux() {
    // arm_smmu_make_cmd_tlbi(op, asid 0x12, vmid 0x34).
    let (vmid, asid) = (0x34, 0x12);
    assert_eq!(
        both_ways(0x0012_0034_0000_0011, 0),
        Command::TlbiNhAsid { vmid, asid }
    );
    assert_eq!(
        both_ways(0x0012_0000_0000_0021, 0),
        Command::TlbiEl2Asid { asid }
    );
    assert_eq!(
        both_ways(0x0000_0034_0000_0010, 0),
        Command::TlbiNhAll { vmid }
    );
    assert_eq!(
        both_ways(0x0000_0034_0000_0028, 0),
        Command::TlbiS12Vmall { vmid }
    );
    assert_eq!(both_ways(0x20, 0), Command::TlbiEl2All);
    assert_eq!(both_ways(0x30, 0), Command::TlbiNsnhAll);
}

#[test]
fn invalidations_of_addresses_are_those_of_linux() {
    // CMDQ_TLBI_*: one page, leaf.
    let page = Addresses {
        first: 0xffff_8000_1234_5000,
        leaf: true,
        span: None,
    };
    assert_eq!(
        both_ways(0x0012_0034_0000_0012, 0xffff_8000_1234_5001),
        Command::TlbiNhVa {
            vmid: 0x34,
            asid: 0x12,
            addresses: page,
        }
    );
    assert_eq!(page.last(), 0xffff_8000_1234_5fff);
    // arm_smmu_cmdq_batch_add_range: NUM 30, SCALE 5, TG 1 (4 KiB), TTL 3.
    let span = Addresses {
        first: 0x4000_0000,
        leaf: true,
        span: Some(Span {
            granule: Granule::K4,
            num: 30,
            scale: 5,
            level: Level(3),
        }),
    };
    let low = 30 << 12 | 5 << 20;
    let high = 0x4000_0000 | 1 << 10 | 3 << 8 | 1;
    assert_eq!(
        both_ways(0x0000_0034_0000_0013 | low, high),
        Command::TlbiNhVaa {
            vmid: 0x34,
            addresses: span,
        }
    );
    // 31 << 5 granules of 4 KiB.
    assert_eq!(span.last(), 0x4000_0000 + 31 * 32 * 4096 - 1);
    assert_eq!(
        both_ways(0x0000_0034_0000_002a | low, high),
        Command::TlbiS2Ipa {
            vmid: 0x34,
            addresses: span,
        }
    );
    assert_eq!(
        both_ways(0x0012_0000_0000_0022 | low, high),
        Command::TlbiEl2Va {
            asid: 0x12,
            addresses: span,
        }
    );
    assert_eq!(
        both_ways(0x23 | low, high),
        Command::TlbiEl2Vaa { addresses: span }
    );
}

#[test]
fn a_span_ends_at_the_top_of_the_addresses() {
    let span = |granule, num, scale| Span {
        granule,
        num,
        scale,
        level: Level::ANY,
    };
    assert_eq!(span(Granule::K4, 0, 0).bytes(), Some(4096));
    assert_eq!(span(Granule::K16, 1, 0).bytes(), Some(32 << 10));
    assert_eq!(span(Granule::K64, 0, 47).bytes(), Some(1 << 63));
    assert_eq!(span(Granule::K64, 1, 47).bytes(), None);
    assert_eq!(span(Granule::K4, 31, 63).bytes(), None);
    let addresses = |first, span| Addresses {
        first,
        leaf: false,
        span: Some(span),
    };
    assert_eq!(
        addresses(u64::MAX << 12, span(Granule::K4, 1, 0)).last(),
        u64::MAX
    );
    assert_eq!(addresses(0, span(Granule::K4, 31, 63)).last(), u64::MAX);
}

#[test]
fn device_invalidations_are_those_of_linux() {
    // arm_smmu_make_cmd_atc_inv(sid 8, ssid 3, 0x7000_0000, log2 span 4): CMDQ_0_SSV.
    let Command::AtcInv(some) = both_ways(0x0000_0008_0000_3840, 0x7000_0004) else {
        panic!("an invalidation");
    };
    assert_eq!(
        some,
        AtcInvalidation {
            stream: Rid(8),
            substream: Pasid::new(3),
            global: false,
            addr: Iova(0x7000_0000),
            size: 4,
        }
    );
    let range = |addr, size_shift| {
        Some(Range {
            addr: Iova(addr),
            size_shift,
        })
    };
    assert_eq!(some.range(), range(0x7000_0000, 16));
    // The span is aligned to its size.
    let inside = AtcInvalidation {
        addr: Iova(0x7000_5000),
        ..some
    };
    assert_eq!(inside.range(), range(0x7000_0000, 16));
    // ATC_INV_SIZE_ALL, CMDQ_ATC_0_GLOBAL.
    let Command::AtcInv(all) = both_ways(0x0000_0008_0000_3a40, 52) else {
        panic!("an invalidation");
    };
    assert!(all.global);
    assert_eq!(all.range(), range(0, 64));
    assert_eq!(AtcInvalidation { size: 53, ..all }.range(), None);
}

#[test]
fn answers_are_those_of_linux() {
    // arm_smmu_make_cmd_pri_resp(sid 8, ssid 3, ssv, grpid 0x181, PRI_RESP_SUCC).
    let Command::PriResp(answer) = both_ways(0x0000_0008_0000_3841, 0x2181) else {
        panic!("an answer");
    };
    assert_eq!(
        answer,
        PageResponse {
            stream: Rid(8),
            substream: Pasid::new(3),
            group: GroupIndex(0x181),
            code: PriResponse::SUCCESS,
        }
    );
    for (code, response) in [
        (0, Some(Response::Failure)),
        (1, Some(Response::Invalid)),
        (2, Some(Response::Success)),
        (3, None),
    ] {
        assert_eq!(PriResponse(code).response(), response);
    }
}

#[test]
fn resumptions_are_those_of_linux() {
    // arm_smmu_make_cmd_resume(sid 0x42, stag 7, resp): CMDQ_RESUME_0_RESP_TERM, _RETRY, _ABORT; of
    // QEMU CMD_RESUME_AC and CMD_RESUME_AB.
    for (resp, action) in [(0, Action::Ignore), (1, Action::Retry), (2, Action::Abort)] {
        assert_eq!(
            both_ways(0x0000_0042_0000_0044 | resp << 12, 7),
            Command::Resume(Resume {
                stream: Rid(0x42),
                tag: 7,
                action,
            })
        );
    }
    let raw = RawCommand::new(0x0000_0042_0000_3044, 7);
    assert!(matches!(
        Command::decode(&raw),
        Command::Resume(Resume {
            action: Action::Retry,
            ..
        })
    ));
    assert_eq!(
        both_ways(0x0000_0042_0000_0045, 0),
        Command::StallTerm(Rid(0x42))
    );
}

#[test]
fn synchronizations_are_those_of_linux() {
    // arm_smmu_make_cmd_sync(CMDQ_SYNC_0_CS_IRQ, 0x8_0000_0040): MSH inner shareable, MSIATTR OIWB.
    assert_eq!(
        both_ways(0x0fc0_1046, 0x8_0000_0040),
        Command::Sync(Sync {
            signal: Signal::IRQ,
            addr: Gpa(0x8_0000_0040),
            data: 0,
            shareability: 3,
            memory: 0xf,
        })
    );
    let Command::Sync(sync) = both_ways(0x1234_5678_0fc0_2046, 0) else {
        panic!("a synchronization");
    };
    assert_eq!((sync.signal, sync.data), (Signal::SEV, 0x1234_5678));
}

#[test]
fn secure_and_unknown_commands_survive() {
    for opcode in [0x00, 0x08, 0x18, 0x1a, 0x50, 0x60, 0x70, 0x73, 0x80, 0xff] {
        let raw = RawCommand::new(opcode | 0x0123_4567_89ab_cd00, 0xfedc_ba98_7654_3210);
        assert_eq!(Command::decode(&raw), Command::Other(raw), "{opcode:#x}");
        assert_eq!(Command::Other(raw).encode(), raw);
        assert!(!raw.has_reserved_bits());
    }
}

#[test]
fn a_secure_stream_is_reserved() {
    // SSec, QEMU CMD_SSEC.
    for opcode in [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x44, 0x45] {
        let raw = RawCommand::new(opcode | 1 << 10, 0);
        assert!(raw.has_reserved_bits(), "{opcode:#x}");
    }
}

#[test]
fn each_field_has_its_bits_and_no_others() {
    // Whatever is encoded has no reserved bit, and whatever is not reserved changes the meaning.
    for opcode in (1..=7)
        .chain(0x10..=0x13)
        .chain(0x20..=0x23)
        .chain([0x28, 0x2a, 0x30, 0x40, 0x41, 0x44, 0x45, 0x46])
    {
        let bare = RawCommand::new(opcode, 0);
        for bit in 8..128 {
            let raw = if bit < 64 {
                RawCommand::new(opcode | 1 << bit, 0)
            } else {
                RawCommand::new(opcode, 1 << (bit - 64))
            };
            let same = Command::decode(&raw) == Command::decode(&bare);
            // What a prefetch wants, and a span without a granule, is not kept; a substream needs SSV.
            let dropped = match opcode {
                0x01 | 0x40 | 0x41 => (12..32).contains(&bit),
                0x02 => (12..32).contains(&bit) || bit >= 64,
                0x12 | 0x13 | 0x22 | 0x23 | 0x2a => {
                    (12..26).contains(&bit) || (72..74).contains(&bit)
                }
                _ => false,
            };
            if !dropped {
                assert_eq!(raw.has_reserved_bits(), same, "{opcode:#x} bit {bit}");
            }
        }
    }
}
