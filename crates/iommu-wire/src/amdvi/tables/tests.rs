use super::*;
use zerocopy::{FromBytes, IntoBytes};

/// Typed from "Device Table Entry Format": V, TV, HAD 11b, 4 levels at 0x1234_5000, IR, IW, PPR;
/// domain 0x00ab, I, SE, EX; IV, 2^9 interrupts, table at 0x8_0080, IntCtl 10b.
const HOST: [u8; 32] = [
    0x83, 0x59, 0x34, 0x12, 0x00, 0x00, 0x10, 0x60, // V TV HAD Mode | pointer | PPR | IR IW
    0xab, 0x00, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, // DomainID | I (96) SE (97) EX (103)
    0x93, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x20, // IV IntTabLen | table | IntCtl (188)
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
];

/// V, TV, GPRP, GIoV, GV, GLX 10b, guest CR3 table at 0xd_aaaa_5678_b000 (14:12 = 011b, 30:15 =
/// 0xacf1, 51:31 = 0x1b_5554), SA, 5-level guest tables, AttrV.
const GUEST: [u8; 32] = [
    0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe0, 0x6e, // V TV | GPRP GIoV GV GLX pointer IR IW
    0x07, 0x00, 0xf1, 0xac, 0x04, 0xa0, 0xaa, 0xda, // DomainID | pointer | SA (98) | pointer
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, // GuestPagingMode (182)
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, // AttrV (246)
];

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at * 8..][..8].try_into().unwrap())
}

/// `GENMASK_ULL(high, low)` of Linux.
fn genmask(high: u32, low: u32) -> u64 {
    (!0 >> (63 - high)) & (!0 << low)
}

/// `FIELD_GET` of Linux.
fn field(mask: u64, word: u64) -> u64 {
    (word & mask) >> mask.trailing_zeros()
}

#[test]
fn a_device_table_entry_with_host_tables_decodes_from_literal_bytes() {
    let raw = RawDeviceEntry::read_from_bytes(&HOST).unwrap();
    let entry = DeviceEntry::decode(&raw);
    assert!(entry.word0.valid() && entry.word0.translation_valid());
    assert_eq!(
        (entry.word0.host_access_dirty(), entry.word0.mode()),
        (3, 4)
    );
    assert_eq!(entry.word0.host_table(), Gpa(0x1234_5000));
    assert!(entry.word0.page_requests() && entry.word0.read() && entry.word0.write());
    assert!(!entry.word0.guest_valid() && !entry.word0.guest_io());
    assert_eq!(entry.word1.domain(), 0xab);
    assert!(entry.word1.device_tlb() && entry.word1.suppress_repeats());
    assert!(entry.word1.exclusion() && !entry.word1.suppress_all());
    assert!(entry.word2.interrupt_valid() && !entry.word2.ignore_unmapped());
    assert_eq!(entry.word2.interrupt_table_length(), 9);
    assert_eq!(entry.word2.interrupt_table() << 6, 0x8_0080);
    assert_eq!(entry.word2.interrupt_control(), 2);
    assert_eq!(entry.encode().as_bytes(), HOST);
}

/// Linux `amd_iommu_types.h`: `DTE_*`, `DEV_ENTRY_*`.
#[test]
fn host_positions_agree_with_linux() {
    let (low, high, interrupts) = (word(&HOST, 0), word(&HOST, 1), word(&HOST, 2));
    assert_ne!(low & 1 << 0, 0); // DTE_FLAG_V
    assert_ne!(low & 1 << 1, 0); // DTE_FLAG_TV
    assert_eq!(low & 3 << 7, 3 << 7); // DTE_FLAG_HAD
    assert_eq!(field(genmask(11, 9), low), 4); // DTE_MODE_MASK
    assert_eq!(low & genmask(51, 12), 0x1234_5000); // DTE_HOST_TRP
    assert_ne!(low & 1 << 52, 0); // DTE_FLAG_PPR
    assert_eq!(low & 1 << 55, 0); // DTE_FLAG_GV
    assert_ne!(low & 1 << 61, 0); // DTE_FLAG_IR
    assert_ne!(low & 1 << 62, 0); // DTE_FLAG_IW
    assert_eq!(high & genmask(15, 0), 0xab); // DTE_DOMID_MASK
    assert_ne!(high & 1 << 32, 0); // DTE_FLAG_IOTLB
    // DEV_ENTRY_NO_PAGE_FAULT is bit 0x62: SA.
    assert_eq!(high >> (0x62 - 64) & 1, 0);
    // DEV_ENTRY_EX, which older kernels had, is bit 0x67.
    assert_eq!(high >> (0x67 - 64) & 1, 1);
    assert_ne!(interrupts & 1, 0); // DTE_IRQ_REMAP_ENABLE
    assert_eq!(interrupts & 0xf << 1, 9 << 1); // DTE_INTTABLEN_512
    assert_eq!(interrupts & genmask(51, 6), 0x8_0080); // DTE_IRQ_PHYS_ADDR_MASK
    assert_eq!(interrupts & 3 << 60, 2 << 60); // DTE_IRQ_REMAP_INTCTL
}

#[test]
fn a_device_table_entry_with_guest_tables_decodes_from_literal_bytes() {
    let raw = RawDeviceEntry::read_from_bytes(&GUEST).unwrap();
    let entry = DeviceEntry::decode(&raw);
    assert!(entry.word0.guest_valid() && entry.word0.guest_io());
    assert!(entry.word0.response_with_pasid() && !entry.word0.page_requests());
    assert_eq!((entry.word0.mode(), entry.word0.guest_levels()), (0, 2));
    assert_eq!(entry.guest_table(), Gpa(0xd_aaaa_5678_b000));
    assert!(entry.word1.suppress_all() && !entry.word1.suppress_repeats());
    assert_eq!(entry.word2.guest_paging_mode(), 1);
    assert!(entry.word3.attributes_valid());
    assert_eq!(entry.encode().as_bytes(), GUEST);
}

/// Linux `amd_iommu_types.h`: `DTE_GCR3_*`, `DTE_GLX`, `DTE_GPT_LEVEL_MASK`; `set_dte_gcr3_table`.
#[test]
fn guest_positions_agree_with_linux() {
    let (low, high, levels) = (word(&GUEST, 0), word(&GUEST, 1), word(&GUEST, 2));
    let table = 0xd_aaaa_5678_b000_u64;
    assert_ne!(low & 1 << 54, 0); // DTE_FLAG_GIOV
    assert_ne!(low & 1 << 55, 0); // DTE_FLAG_GV
    assert_eq!(field(genmask(57, 56), low), 2); // DTE_GLX
    assert_eq!(field(genmask(60, 58), low), table >> 12 & 7); // DTE_GCR3_14_12
    assert_eq!(field(genmask(31, 16), high), table >> 15 & 0xffff); // DTE_GCR3_30_15
    assert_eq!(field(genmask(63, 43), high), table >> 31); // DTE_GCR3_51_31
    assert_eq!(field(genmask(55, 54), levels), 1); // DTE_GPT_LEVEL_MASK
    assert_eq!(high >> (0x62 - 64) & 1, 1); // DEV_ENTRY_NO_PAGE_FAULT
}

/// VirtualBox `iommu-amd.h`: the masks of what a device table entry may have, which follow revision
/// 3.05 and so lack SATS and `GuestPagingMode`.
#[test]
fn reserved_bits_agree_with_virtualbox() {
    assert_eq!(DeviceWord0::RESERVED, !0x7fff_ffff_ffff_ff83);
    assert_eq!(DeviceWord1::SECURE_ATS, !0xffff_fbff_ffff_ffff);
}

#[test]
fn a_guest_table_pointer_is_put_in_three_places_and_found_again() {
    let entry =
        DeviceEntry::from_words([!0, !0, 0, 0]).with_guest_table(Gpa(0x000d_aaaa_5678_b000));
    assert_eq!(entry.guest_table(), Gpa(0xd_aaaa_5678_b000));
    assert_eq!(entry.word1.domain(), 0xffff);
    assert!(entry.word0.read() && entry.word1.exclusion());
}

/// Linux `iommu.c`, `update_gcr3`: `(gcr3 & PAGE_MASK) | GCR3_VALID`.
#[test]
fn a_guest_cr3_entry_decodes_from_a_literal_word() {
    let word = GuestCr3Word::from_bits(0x0000_0001_2345_6001);
    assert!(word.valid());
    assert_eq!(word.table(), Gpa(0x1_2345_6000));
    assert_eq!(GuestCr3Word::to(Gpa(0x1_2345_6fff)), word);
    assert!(!GuestCr3Word::from_bits(0x0000_0001_2345_6000).valid());
}
