use super::*;

/// PreFSup, PPRSup, NXSup, GTSup, IASup, GASup; HATS 2, GATS 1, GLXSup 2, PASmax 0x13, GIoSup, EPHSup.
const FEATURES: u64 = 0x0005_0013_0000_98db;

fn iommu() -> Iommu {
    let function = |device, function| Rid::new(0, device, function).unwrap();
    Iommu {
        place: function(5, 0),
        capability: 0x50,
        iotlb: true,
        features: [FEATURES, 0x8],
        physical_bits: 52,
        virtual_bits: 64,
        functions: vec![function(4, 0), function(6, 1)],
    }
}

/// Typed from the structures' tables: IVRS (from IVinfo on), a block of type 10h, one of type 11h.
#[rustfmt::skip]
const LITERAL: [u8; 92] = [
    0x41, 0x34, 0x20, 0x00, // IVinfo: EFRSup, GVAsize 010b, PAsize 52, VAsize 64
    0, 0, 0, 0, 0, 0, 0, 0, // reserved
    0x10, 0xf0,             // type; flags: PPRSup, PreFSup, Coherent, IotlbSup
    0x20, 0x00,             // length: 24 and two entries of 4
    0x28, 0x00,             // 00:05.0
    0x50, 0x00,             // capability offset
    0x00, 0x40, 0xbf, 0xfe, 0, 0, 0, 0, // base address
    0x00, 0x00,             // segment
    0x00, 0x00,             // MSI number 0, unit 0
    0x76, 0x13, 0x00, 0x90, // NX, GT, GLX 2, IA, GA; PASmax 0x13; GATS 1, HATS 2
    0x02, 0x20, 0x00, 0x00, // select 00:04.0
    0x02, 0x31, 0x00, 0x00, // select 00:06.1
    0x11, 0x30,             // type; flags: Coherent, IotlbSup
    0x30, 0x00,             // length: 40 and two entries of 4
    0x28, 0x00,
    0x50, 0x00,
    0x00, 0x40, 0xbf, 0xfe, 0, 0, 0, 0,
    0x00, 0x00,
    0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, // attributes
    0xdb, 0x98, 0x00, 0x00, 0x13, 0x00, 0x05, 0x00, // the extended feature register
    0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // and the second one
    0x02, 0x20, 0x00, 0x00,
    0x02, 0x31, 0x00, 0x00,
];

#[test]
fn the_table_is_what_the_specification_spells() {
    assert_eq!(iommu().table(0xfebf_4000), LITERAL);
}

#[test]
fn lengths_and_offsets_are_those_of_linux() {
    // `IVRS_HEADER_LENGTH` is 48 with the common header of 36; `get_ivhd_header_size` has 24 and 40;
    // `struct ivhd_header` has the device at 4, the capability at 6, the address at 8, `efr_attr` at
    // 20 and `efr_reg` at 24; an entry below 0x40 has 4 bytes (`ivhd_entry_length`).
    let short = &LITERAL[48 - 36..];
    assert_eq!(usize::from(short[2]), 24 + 2 * 4);
    let long = &short[usize::from(short[2])..];
    assert_eq!(usize::from(long[2]), 40 + 2 * 4);
    assert_eq!(long.len(), usize::from(long[2]));
    assert_eq!(long[24..32], FEATURES.to_le_bytes());
    // `FEATURE_*` of amd_iommu_types.h: what `amd_iommu_gt_ppr_supported` and the guest's tables need.
    for bit in [1, 3, 4, 7, 48, 50] {
        assert_ne!(FEATURES & 1 << bit, 0, "bit {bit}");
    }
    assert_eq!(FEATURES >> 10 & 3, 2, "FEATURE_HATS: six levels");
    assert_eq!(FEATURES >> 12 & 3, 1, "FEATURE_GATS: GUEST_PGTABLE_5_LEVEL");
    assert_eq!(FEATURES >> 14 & 3, 2, "FEATURE_GLX");
    assert_eq!(FEATURES >> 32 & 0x1f, 0x13, "FEATURE_PASMAX");
}

#[test]
fn without_ats_and_page_requests_the_flags_say_so() {
    let plain = Iommu {
        iotlb: false,
        features: [0, 0],
        ..iommu()
    };
    let table = plain.table(0xfebf_4000);
    assert_eq!(table[12..14], [0x10, 0x20]);
    assert_eq!(table[32..36], [0; 4]);
}
