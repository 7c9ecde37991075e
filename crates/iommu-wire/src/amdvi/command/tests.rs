//! Commands typed doubleword by doubleword from what Linux 7.3 submits (`build_*` of
//! `drivers/iommu/amd/iommu.c`), and the fields of VirtualBox and FreeBSD upon them.

use super::*;
use zerocopy::{FromBytes, IntoBytes};

/// Decodes and encodes again: the doublewords must come back.
fn both_ways(data: [u32; 4]) -> Command {
    let bytes: Vec<u8> = data.iter().flat_map(|word| word.to_le_bytes()).collect();
    let raw = RawCommand::read_from_bytes(&bytes).unwrap();
    assert!(!raw.has_reserved_bits(), "{data:x?}");
    let command = Command::decode(&raw);
    assert_eq!(command.encode().as_bytes(), bytes, "{command:?}");
    command
}

extern crate std;
use std::vec::Vec;

#[test]
fn a_completion_wait_is_that_of_linux() {
    // build_completion_wait: paddr 0x1_2345_6008 | CMD_COMPL_WAIT_STORE_MASK, data 0x11_0000_0022.
    assert_eq!(
        both_ways([0x2345_6009, 0x1000_0001, 0x22, 0x11]),
        Command::CompletionWait(CompletionWait {
            store: Some(Store {
                addr: Gpa(0x1_2345_6008),
                data: 0x11_0000_0022,
            }),
            interrupt: false,
            flush: false,
        })
    );
    // I and F (VirtualBox bits 1 and 2), no store.
    assert_eq!(
        both_ways([0x6, 0x1000_0000, 0, 0]),
        Command::CompletionWait(CompletionWait {
            store: None,
            interrupt: true,
            flush: true,
        })
    );
}

#[test]
fn commands_that_name_a_device_are_those_of_linux() {
    // build_inv_dte, build_inv_irt: devid 0x3a11.
    assert_eq!(
        both_ways([0x3a11, 0x2000_0000, 0, 0]),
        Command::InvalidateDevtabEntry(Rid(0x3a11))
    );
    assert_eq!(
        both_ways([0x3a11, 0x5000_0000, 0, 0]),
        Command::InvalidateInterruptTable(Rid(0x3a11))
    );
    assert_eq!(
        both_ways([0, 0x8000_0000, 0, 0]),
        Command::InvalidateIommuAll
    );
}

#[test]
fn page_invalidations_are_those_of_linux() {
    let pages = |pasid, addr, size_shift, directory| {
        Command::InvalidateIommuPages(IommuPages {
            domain: 0x1234,
            pasid,
            range: Range {
                addr: Iova(addr),
                size_shift,
            },
            directory,
        })
    };
    // One page at 0x7_f000_1000.
    assert_eq!(
        both_ways([0, 0x3000_1234, 0xf000_1000, 0x7]),
        pages(None, 0x7_f000_1000, 12, false)
    );
    // Eight pages at 0x1_0000: GENMASK(13, 12) | CMD_INV_IOMMU_PAGES_SIZE_MASK, and PDE.
    assert_eq!(
        both_ways([0, 0x3000_1234, 0x1_3003, 0]),
        pages(None, 0x1_0000, 15, true)
    );
    // Two pages: the size bit alone.
    assert_eq!(
        both_ways([0, 0x3000_1234, 0x4001, 0]),
        pages(None, 0x4000, 13, false)
    );
    // CMD_INV_IOMMU_ALL_PAGES_ADDRESS, S and PDE: the whole domain.
    assert_eq!(
        both_ways([0, 0x3000_1234, 0xffff_f003, 0x7fff_ffff]),
        pages(None, 0, 64, true)
    );
    // GN with PASID 0xabcd, the largest size that Linux writes as a size: bit 51 clear.
    assert_eq!(
        both_ways([0xabcd, 0x3000_1234, 0xffff_f005, 0x0007_ffff]),
        pages(Pasid::new(0xabcd), 0, 52, false)
    );
}

#[test]
fn every_address_set_names_everything_too() {
    // NOVA sends bits 63:12 all set.
    let raw = RawCommand::new(0x3000_0007_0000_0000, 0xffff_ffff_ffff_f003);
    let Command::InvalidateIommuPages(pages) = Command::decode(&raw) else {
        panic!("an invalidation of pages");
    };
    assert_eq!(pages.range, Range::ALL);
    assert_eq!(pages.domain, 7);
}

#[test]
fn device_tlb_invalidations_are_those_of_linux() {
    // build_inv_iotlb_pages: devid 0x0810, qdep 0x20, gn, pasid 0x1234: its bits 15:8 at 23:16 of the
    // first doubleword, its bits 7:0 at 23:16 of the second.
    assert_eq!(
        both_ways([0x2012_0810, 0x4034_0810, 0x7000_0004, 0]),
        Command::InvalidateIotlbPages(IotlbPages {
            device: Rid(0x0810),
            queue: 0x0810,
            max_pending: 0x20,
            pasid: Pasid::new(0x1234),
            kind: 0,
            range: Range {
                addr: Iova(0x7000_0000),
                size_shift: 12,
            },
        })
    );
    // PASID 19:16 at 27:24 of the second doubleword (FreeBSD pasid2), Type 2 (VirtualBox 69:68),
    // everything.
    assert_eq!(
        both_ways([0x2012_0810, 0x4f34_0811, 0xffff_f025, 0x7fff_ffff]),
        Command::InvalidateIotlbPages(IotlbPages {
            device: Rid(0x0810),
            queue: 0x0811,
            max_pending: 0x20,
            pasid: Pasid::new(0xf_1234),
            kind: 2,
            range: Range::ALL,
        })
    );
}

#[test]
fn a_prefetch_has_the_fields_of_virtualbox_and_freebsd() {
    // PFCount at 31:24, PASID at 51:32; S bit 64, GN 66, Inval 68.
    assert_eq!(
        both_ways([0x0800_0810, 0x600f_1234, 0x7000_0015, 1]),
        Command::PrefetchIommuPages(Prefetch {
            device: Rid(0x0810),
            count: 8,
            pasid: Pasid::new(0xf_1234),
            invalidate: true,
            large: true,
            addr: Iova(0x1_7000_0000),
        })
    );
}

#[test]
fn a_page_response_is_that_of_linux() {
    // build_complete_ppr: devid 0x0810, pasid 3, PPR_FAILURE (0xf) at 15:12, tag 0x181, gn.
    assert_eq!(
        both_ways([0x0810, 0x7000_0003, 0x4, 0xf181]),
        Command::CompletePprRequest(PprCompletion {
            device: Rid(0x0810),
            pasid: Pasid::new(3),
            group: GroupIndex(0x181),
            code: ResponseCode::FAILURE,
        })
    );
    assert_eq!(
        both_ways([0x0810, 0x7000_0000, 0, 0x1001]),
        Command::CompletePprRequest(PprCompletion {
            device: Rid(0x0810),
            pasid: None,
            group: GroupIndex(1),
            code: ResponseCode::INVALID,
        })
    );
}

#[test]
fn guest_commands_and_unknown_ones_survive() {
    for kind in [0, 9, 0xa, 0xb, 0xf] {
        let raw = RawCommand::new(kind << 60 | 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        assert_eq!(Command::decode(&raw), Command::Other(raw), "{kind:#x}");
        assert_eq!(Command::Other(raw).encode(), raw);
        assert!(!raw.has_reserved_bits());
    }
}

#[test]
fn the_masks_of_virtualbox_tell_the_reserved_bits() {
    // IOMMU_CMD_*_QWORD_{0,1}_VALID_MASK. Its mask of PREFETCH has opcode bits 62:59, one too low,
    // and that of COMPLETE_PPR_REQUEST does not exist: the fields of FreeBSD stand in.
    for (kind, low, high) in [
        (1, 0xf00f_ffff_ffff_ffff_u64, u64::MAX),
        (2, 0xf000_0000_0000_ffff, 0),
        (3, 0xf000_ffff_000f_ffff, 0xffff_ffff_ffff_f007),
        (4, u64::MAX, 0xffff_ffff_ffff_f035),
        (5, 0xf000_0000_0000_ffff, 0),
        (6, 0xf00f_ffff_ff00_ffff, 0xffff_ffff_ffff_f015),
        (7, 0xf00f_ffff_0000_ffff, 0x0000_ffff_0000_0004),
        (8, 0xf000_0000_0000_0000, 0),
    ] {
        let opcode = kind << 60;
        for bit in 0..60 {
            let raw = RawCommand::new(opcode | 1 << bit, 0);
            assert_eq!(raw.has_reserved_bits(), low >> bit & 1 == 0, "{kind} {bit}");
        }
        for bit in 0..64 {
            let raw = RawCommand::new(opcode, 1 << bit);
            assert_eq!(
                raw.has_reserved_bits(),
                high >> bit & 1 == 0,
                "{kind} 64+{bit}"
            );
        }
    }
}
