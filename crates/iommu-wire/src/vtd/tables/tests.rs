use super::*;
use zerocopy::{FromBytes, IntoBytes};

/// Typed from "Context Entry": P, TT 01b, second stage at 0x1234_5000, AW 48 bits, domain 0x00ab.
const CONTEXT: [u8; 16] = [
    0x05, 0x50, 0x34, 0x12, 0x00, 0x00, 0x00, 0x00, // P | TT=01b | SSPTPTR
    0x02, 0xab, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // AW=2 | DID
];

/// Typed from "Scalable-Mode Context-Entry": P, DTE, PASIDE, PRE, PDTS 7, directory at 0x4000,
/// RID_PASID 0x12345, RID_PRIV.
const SCALABLE_CONTEXT: [u8; 32] = [
    0x1d, 0x4e, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, // P | DTE | PASIDE | PRE | PDTS=7 | PASIDDIRPTR
    0x45, 0x23, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00, // RID_PASID | RID_PRIV (bit 84)
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
];

/// Typed from "Scalable-Mode PASID Table Entry": P, AW 2, nested, SSADE, second stage at 0x10000;
/// domain 7, PWSNP, PGSNP; SRE, 5 levels, WPE, EAFE, first stage at 0x20000.
const PASID: [u8; 64] = [
    0xc9, 0x02, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, // P | AW=2 | PGTT=3 | SSADE | SSPTPTR
    0x07, 0x00, 0x80, 0x01, 0x00, 0x00, 0x00, 0x00, // DID | PWSNP (87) | PGSNP (88)
    0x95, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, // SRE | FSPM=1 | WPE | EAFE | FSPTPTR
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
    0, 0, 0, 0, 0, 0, 0, 0, //
];

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at * 8..][..8].try_into().unwrap())
}

#[test]
fn a_context_entry_decodes_from_literal_bytes() {
    let raw = RawContextEntry::read_from_bytes(&CONTEXT).unwrap();
    let entry = ContextEntry {
        faults_hidden: false,
        translation: TranslationType::DEVICE_TLB,
        second_stage: Gpa(0x1234_5000),
        address_width: 2,
        domain: 0xab,
    };
    assert_eq!(ContextEntry::decode(&raw), Some(entry));
    assert_eq!(entry.encode().as_bytes(), CONTEXT);
}

/// Linux `drivers/iommu/intel/iommu.h`: `context_set_*`, and `CONTEXT_TT_DEV_IOTLB`.
#[test]
fn context_entry_positions_agree_with_linux() {
    let (lo, hi) = (word(&CONTEXT, 0), word(&CONTEXT, 1));
    assert_eq!(lo & 1, 1); // context_set_present: lo |= 1
    assert_eq!(lo & 1 << 1, 0); // context_set_fault_enable clears bit 1
    assert_eq!(lo >> 2 & 3, 1); // context_set_translation_type: (value & 3) << 2
    assert_eq!(lo & !0xfff, 0x1234_5000); // context_set_address_root: value & VTD_PAGE_MASK
    assert_eq!(hi & 7, 2); // context_set_address_width: value & 7
    assert_eq!(hi >> 8 & 0xffff, 0xab); // context_set_domain_id: (value & 0xffff) << 8
}

#[test]
fn a_scalable_context_entry_decodes_from_literal_bytes() {
    let raw = RawScalableContextEntry::read_from_bytes(&SCALABLE_CONTEXT).unwrap();
    let entry = ScalableContextEntry {
        faults_hidden: false,
        device_tlb: true,
        pasid_enabled: true,
        page_requests: true,
        translated_pasid: false,
        directory_size: 7,
        directory: Gpa(0x4000),
        rid_pasid: Pasid::new(0x1_2345).unwrap(),
        rid_privileged: true,
    };
    assert_eq!(ScalableContextEntry::decode(&raw), Some(entry));
    assert_eq!(entry.encode().as_bytes(), SCALABLE_CONTEXT);
    assert_eq!(
        ScalableContextLo::from_bits(word(&SCALABLE_CONTEXT, 0)).pasids(),
        1 << 20
    );
}

/// Linux `drivers/iommu/intel/iommu.h` and `pasid.c`: `CONTEXT_PASIDE`, `context_set_sm_dte`,
/// `context_set_sm_pre`, `context_set_pasid_dir_size` (`context_pdts`), `context_set_sm_rid2pasid`.
#[test]
fn scalable_context_entry_positions_agree_with_linux() {
    let (lo, hi) = (word(&SCALABLE_CONTEXT, 0), word(&SCALABLE_CONTEXT, 1));
    assert_ne!(lo & 1 << 2, 0); // DTE
    assert_ne!(lo & 1 << 3, 0); // CONTEXT_PASIDE
    assert_ne!(lo & 1 << 4, 0); // PRE
    assert_eq!(lo >> 9 & 7, 7); // PDTS: (pds & 0x7) << 9
    assert_eq!(hi & 0xf_ffff, 0x1_2345); // rid2pasid: GENMASK(19, 0)
}

#[test]
fn a_pasid_entry_decodes_from_literal_bytes() {
    let raw = RawPasidEntry::read_from_bytes(&PASID).unwrap();
    let entry = PasidEntry::decode(&raw).unwrap();
    assert_eq!(entry.second.translation(), 3);
    assert_eq!(entry.second.address_width(), 2);
    assert!(entry.second.accessed_dirty());
    assert_eq!(entry.second.table(), Gpa(0x1_0000));
    assert_eq!(entry.domain.domain(), 7);
    assert!(entry.domain.walk_snoop() && entry.domain.page_snoop());
    assert!(!entry.domain.cache_disable());
    assert!(entry.first.supervisor() && !entry.first.execute());
    assert_eq!(entry.first.paging_mode(), 1);
    assert!(entry.first.write_protect() && entry.first.extended_accessed());
    assert!(!entry.first.no_execute() && !entry.first.smep());
    assert_eq!(entry.first.table(), Gpa(0x2_0000));
    assert_eq!(entry.encode().as_bytes(), PASID);
}

/// Linux `drivers/iommu/intel/pasid.h`, the masks of `pasid_set_*` and `pasid_pte_get_pgtt`.
#[test]
fn pasid_entry_positions_agree_with_linux() {
    let (second, domain, first) = (word(&PASID, 0), word(&PASID, 1), word(&PASID, 2));
    assert_eq!(second & 1, 1); // PASID_PTE_PRESENT
    assert_eq!(second & 2, 0); // PASID_PTE_FPD
    assert_eq!(second >> 2 & 7, 2); // pasid_set_address_width: GENMASK(4, 2)
    assert_eq!(second >> 6 & 7, 3); // pasid_pte_get_pgtt: PASID_ENTRY_PGTT_NESTED
    assert_ne!(second & 1 << 9, 0); // pasid_set_ssade
    assert_eq!(domain & 0xffff, 7); // pasid_set_domain_id: GENMASK(15, 0)
    assert_ne!(domain & 1 << 23, 0); // pasid_set_page_snoop
    assert_ne!(domain & 1 << 24, 0); // pasid_set_pgsnp
    assert_ne!(first & 1 << 0, 0); // pasid_set_sre
    assert_eq!(first >> 2 & 3, 1); // pasid_set_flpm: GENMASK(3, 2)
    assert_ne!(first & 1 << 4, 0); // pasid_set_wpe
    assert_ne!(first & 1 << 7, 0); // pasid_set_eafe
    assert_eq!(first & !0xfff, 0x2_0000); // pasid_set_flptr
}

#[test]
fn root_and_directory_entries_decode_from_literal_bytes() {
    let raw = RawRootEntry::read_from_bytes(&[
        0x01, 0x20, 0, 0, 0, 0, 0, 0, // LP | LCTP 0x2000
        0x00, 0x30, 0, 0, 0, 0, 0, 0, // UP clear
    ])
    .unwrap();
    assert_eq!(
        RootEntry::decode_legacy(&raw),
        RootEntry::Legacy(Some(Gpa(0x2000)))
    );
    let scalable = RootEntry::Scalable {
        lower: Some(Gpa(0x2000)),
        upper: None,
    };
    assert_eq!(RootEntry::decode_scalable(&raw), scalable);
    assert_eq!(scalable.encode().words(), [0x2001, 0]);

    let raw = RawDirectoryEntry::read_from_bytes(&[0x03, 0x50, 0, 0, 0, 0, 0, 0]).unwrap();
    let entry = DirectoryEntry {
        faults_hidden: true,
        table: Gpa(0x5000),
    };
    assert_eq!(DirectoryEntry::decode(&raw), Some(entry));
    assert_eq!(entry.encode().words(), [0x5003]);
}

#[test]
fn an_entry_without_its_present_bit_says_nothing() {
    let mut bytes = CONTEXT;
    bytes[0] &= !1;
    let raw = RawContextEntry::read_from_bytes(&bytes).unwrap();
    assert_eq!(ContextEntry::decode(&raw), None);
    // FPD counts all the same, and the word shows it.
    assert!(ContextLo::from_bits(0b10).fault_processing_disable());
}
