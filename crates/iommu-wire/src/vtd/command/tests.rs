//! Descriptors typed word by word from what Linux 7.3 submits (`QI_*` of
//! `drivers/iommu/intel/iommu.h`, written out as shifts) and from VirtualBox's masks.

use super::*;

fn pasid(number: u32) -> Pasid {
    Pasid::truncate(number)
}

/// Decodes and encodes again: the words must come back.
fn both_ways(low: u64, high: u64) -> Command {
    let raw = RawCommand::narrow(low, high);
    assert!(!raw.has_reserved_bits(), "{low:#x} {high:#x}");
    let command = Command::decode(&raw);
    assert_eq!(command.encode(), raw, "{command:?}");
    command
}

#[test]
fn context_cache_invalidations_are_those_of_linux() {
    // QI_CC_GRAN(DMA_CCMD_GLOBAL_INVL) | QI_CC_TYPE.
    assert_eq!(
        both_ways(0x11, 0),
        Command::ContextCache(ContextScope::Global)
    );
    assert_eq!(
        both_ways(0x1234 << 16 | 2 << 4 | 1, 0),
        Command::ContextCache(ContextScope::Domain(0x1234))
    );
    // FM(3) | SID(0x0810) | DID(7), device-selective.
    assert_eq!(
        both_ways(3 << 48 | 0x0810 << 32 | 7 << 16 | 3 << 4 | 1, 0),
        Command::ContextCache(ContextScope::Device {
            domain: 7,
            source: Rid(0x0810),
            function_mask: 3
        })
    );
}

#[test]
fn iotlb_invalidations_are_those_of_linux() {
    // Read and write drain, global.
    assert_eq!(
        both_ways(1 << 7 | 1 << 6 | 1 << 4 | 2, 0),
        Command::Iotlb {
            scope: IotlbScope::Global,
            drain_reads: true,
            drain_writes: true,
        }
    );
    // Page-selective: domain 5, 8 pages at 0x18000, leaf entries only.
    assert_eq!(
        both_ways(5 << 16 | 3 << 4 | 2, 0x18000 | 1 << 6 | 3),
        Command::Iotlb {
            scope: IotlbScope::Pages(
                5,
                Pages {
                    range: Range {
                        addr: Iova(0x18000),
                        size_shift: 15
                    },
                    leaf_only: true,
                }
            ),
            drain_reads: false,
            drain_writes: false,
        }
    );
}

#[test]
fn an_address_below_its_mask_is_rounded_down() {
    let raw = RawCommand::narrow(5 << 16 | 3 << 4 | 2, 0x1f000 | 3);
    let Command::Iotlb {
        scope: IotlbScope::Pages(_, pages),
        ..
    } = Command::decode(&raw)
    else {
        panic!("an IOTLB invalidation");
    };
    assert_eq!(pages.range.addr, Iova(0x18000));
}

#[test]
fn a_device_tlb_invalidation_names_its_size_by_its_lowest_zero() {
    let source = Rid(0x0810);
    let tlb = |range| {
        Command::DeviceTlb(DeviceTlb {
            source,
            physical: Rid(0x0abc),
            max_pending: 0x11,
            range,
        })
    };
    // SID(0x0810) | QDEP(0x11) | PFSID(0x0abc): low 4 bits at 12, the rest at 52.
    let low = 0x0ab << 52 | 0x0810 << 32 | 0x11 << 16 | 0xc << 12 | 3;
    let one_page = Range {
        addr: Iova(0x7000),
        size_shift: 12,
    };
    assert_eq!(both_ways(low, 0x7000), tlb(one_page));
    // qi_desc_dev_iotlb with mask 3: addr | ((1 << 14) - 1) masked to pages, S.
    let eight_pages = Range {
        addr: Iova(0x10000),
        size_shift: 15,
    };
    assert_eq!(both_ways(low, 0x10000 | 0x3000 | 1), tlb(eight_pages));
    // mask MAX_AGAW_PFN_WIDTH (52): bits 62:12 set, bit 63 clear.
    assert_eq!(both_ways(low, 0x7fff_ffff_ffff_f000 | 1), tlb(Range::ALL));
    // All ones names everything too.
    let raw = RawCommand::narrow(low, 0xffff_ffff_ffff_f001);
    assert_eq!(Command::decode(&raw), tlb(Range::ALL));
}

#[test]
fn interrupt_cache_invalidations_are_those_of_linux() {
    assert_eq!(
        both_ways(4, 0),
        Command::InterruptCache(InterruptScope::Global)
    );
    // QI_IEC_IIDEX(0x1234) | QI_IEC_IM(2) | QI_IEC_SELECTIVE | QI_IEC_TYPE.
    assert_eq!(
        both_ways(0x1234 << 32 | 2 << 27 | 1 << 4 | 4, 0),
        Command::InterruptCache(InterruptScope::Index {
            index: 0x1234,
            mask: 2
        })
    );
}

#[test]
fn the_wait_of_linux_writes_done_and_may_drain() {
    // QI_IWD_STATUS_DATA(QI_DONE = 2) | QI_IWD_STATUS_WRITE | QI_IWD_PRQ_DRAIN | QI_IWD_TYPE.
    assert_eq!(
        both_ways(2 << 32 | 1 << 5 | 1 << 7 | 5, 0x1_2345_6784),
        Command::Wait(Wait {
            status: Some(Status {
                addr: Gpa(0x1_2345_6784),
                data: 2
            }),
            interrupt: false,
            fence: false,
            drain_page_requests: true,
        })
    );
    // QI_IWD_FENCE alone, and the interrupt flag.
    assert_eq!(
        both_ways(1 << 6 | 1 << 4 | 5, 0),
        Command::Wait(Wait {
            interrupt: true,
            fence: true,
            ..Wait::default()
        })
    );
}

#[test]
fn pasid_iotlb_invalidations_are_those_of_linux() {
    // QI_EIOTLB_PASID(0xabcde) | DID(1) | GRAN(QI_GRAN_NONG_PASID) | TYPE.
    assert_eq!(
        both_ways(0xabcde << 32 | 1 << 16 | 2 << 4 | 6, 0),
        Command::PasidIotlb {
            domain: 1,
            pasid: pasid(0xabcde),
            pages: None
        }
    );
    assert_eq!(
        both_ways(9 << 32 | 1 << 16 | 3 << 4 | 6, 0x40000 | 1 << 6 | 2),
        Command::PasidIotlb {
            domain: 1,
            pasid: pasid(9),
            pages: Some(Pages {
                range: Range {
                    addr: Iova(0x40000),
                    size_shift: 14
                },
                leaf_only: true
            })
        }
    );
}

#[test]
fn pasid_cache_invalidations_are_those_of_linux() {
    // QI_PC_ALL_PASIDS 0, QI_PC_PASID_SEL 1, QI_PC_GLOBAL 3.
    assert_eq!(
        both_ways(0x21 << 16 | 7, 0),
        Command::PasidCache(PasidScope::Domain(0x21))
    );
    assert_eq!(
        both_ways(5 << 32 | 0x21 << 16 | 1 << 4 | 7, 0),
        Command::PasidCache(PasidScope::Pasid(0x21, pasid(5)))
    );
    assert_eq!(
        both_ways(3 << 4 | 7, 0),
        Command::PasidCache(PasidScope::Global)
    );
}

#[test]
fn a_pasid_device_tlb_invalidation_is_that_of_linux() {
    // PASID(5) | SID(0x0810) | QDEP(0x1f) | PFSID(0x0810); 2 pages at 0x40000 with the size bit at 11.
    assert_eq!(
        both_ways(
            0x081 << 52 | 5 << 32 | 0x0810 << 16 | 0x1f << 4 | 8,
            0x40000 | 1 << 11
        ),
        Command::PasidDeviceTlb {
            tlb: DeviceTlb {
                source: Rid(0x0810),
                physical: Rid(0x0810),
                max_pending: 0x1f,
                range: Range {
                    addr: Iova(0x40000),
                    size_shift: 13
                },
            },
            pasid: pasid(5),
            global: false,
        }
    );
}

#[test]
fn a_page_group_response_is_that_of_linux() {
    // QI_PGRP_PASID(3) | DID(0x20) | PASID_P(1) | RESP_CODE(QI_RESP_INVALID) | TYPE; IDX(0x81).
    assert_eq!(
        both_ways(3 << 32 | 0x20 << 16 | 1 << 12 | 1 << 4 | 9, 0x81 << 3),
        Command::GroupResponse(GroupResponse {
            requester: Rid(0x20),
            pasid: Some(pasid(3)),
            group: GroupIndex(0x81),
            code: ResponseCode::INVALID,
        })
    );
}

#[test]
fn a_page_stream_response_decodes_as_linux_4_20_built_it() {
    // QI_PSTRM_IDX(0x155) << 55 | BUS(0x3a) << 24 | PASID(0xabcde) << 4 | 0xa;
    // QI_PSTRM_ADDR | DEVFN(0x11) << 4 | RESP_CODE(0xf).
    let raw = RawCommand::narrow(
        0x155 << 55 | 0x3a << 24 | 0xabcde << 4 | 0xa,
        0x7f12_3456_7000 | 0x11 << 4 | 0xf,
    );
    assert_eq!(
        Command::decode(&raw),
        Command::StreamResponse {
            response: GroupResponse {
                requester: Rid(0x3a11),
                pasid: Some(pasid(0xabcde)),
                group: GroupIndex(0x155),
                code: ResponseCode::FAILURE,
            },
            addr: Iova(0x7f12_3456_7000),
        }
    );
}

#[test]
fn reserved_types_and_granularities_survive() {
    for (low, high) in [(0, 0), (0xb, 7), (1, 0), (2, 0), (6, 0), (2 << 4 | 7, 0)] {
        let raw = RawCommand::narrow(low, high);
        assert_eq!(Command::decode(&raw), Command::Other(raw));
        assert_eq!(Command::Other(raw).encode(), raw);
    }
}

#[test]
fn the_type_has_three_more_bits_at_nine() {
    // VTD_GENERIC_INV_DSC_GET_TYPE: ((word & 0xe00) >> 5) | (word & 0xf).
    for word in [0x0u64, 0x201, 0xe05, 0x40f] {
        let raw = RawCommand::narrow(word, 0);
        let theirs = (word & 0xe00) >> 5 | word & 0xf;
        assert_eq!(u64::from(raw.command_type().0), theirs);
    }
}

#[test]
fn reserved_bits_are_those_of_virtualbox_and_qemu() {
    // VTD_BF_0_*_RSVD_* and VTD_BF_1_*_RSVD_* masks; QEMU VTD_INV_DESC_PGRESP_RSVD_*.
    let masks: [(u64, u64, u64); 9] = [
        (1, 0xfffc_0000_0000_f1c0, u64::MAX),
        (2, 0xffff_ffff_0000_f100, 0xf80),
        (3, 0x000f_0000_ffe0_01f0, 0xffe),
        (4, 0xffff_0000_07ff_f1e0, u64::MAX),
        (5, 0x0000_0000_ffff_f100, 0x3),
        (6, 0xfff0_0000_0000_f1c0, 0xf80),
        (7, 0xfff0_0000_0000_f1c0, u64::MAX),
        (8, 0, 0x7fe),
        (9, 0xfff0_0000_0000_01e0, 0xffff_ffff_ffff_f003),
    ];
    for (kind, low, high) in masks {
        for bit in 0..64 {
            if bit < 4 || (9..12).contains(&bit) {
                continue; // the type
            }
            let raw = RawCommand::narrow(1 << bit | kind, 0);
            let reserved = low >> bit & 1 == 1;
            assert_eq!(raw.has_reserved_bits(), reserved, "type {kind} bit {bit}");
        }
        for bit in 0..64 {
            let raw = RawCommand::narrow(kind, 1 << bit);
            let reserved = high >> bit & 1 == 1;
            assert_eq!(
                raw.has_reserved_bits(),
                reserved,
                "type {kind} bit 64+{bit}"
            );
        }
        let raw = RawCommand::new([kind, 0, 1, 0]);
        assert_eq!(
            raw.has_reserved_bits(),
            kind != 9,
            "type {kind}, upper half"
        );
    }
}
