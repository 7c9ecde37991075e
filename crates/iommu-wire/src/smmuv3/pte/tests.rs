use super::*;

/// Typed from DDI 0487, "VMSAv8-64 Block descriptor and Page descriptor formats", stage 1: a page at
/// 0x1234_5000, AttrIndx 1, AP 11b, inner shareable, AF, nG, DBM, Contiguous, PXN, UXN.
const PAGE: u64 = 0x0078_0000_1234_5fc7;
/// A block at 0x4000_0000, AttrIndx 2, AP 01b, AF.
const BLOCK: u64 = 0x0000_0000_4000_0449;
/// A table at 0x8_0000, PXNTable, UXNTable, APTable 11b.
const TABLE: u64 = 0x7800_0000_0008_0003;
/// Stage 2: a page at 0x5000, write-back, S2AP 11b, inner shareable, AF, DBM, XN 10b.
const SECOND: u64 = 0x0048_0000_0000_57ff;

#[test]
fn a_stage_1_page_decodes_from_a_literal_word() {
    let entry = Stage1Entry::from_bits(PAGE);
    assert!(entry.valid() && entry.page_entry() && entry.accessed() && entry.not_global());
    assert!(entry.user() && entry.read_only() && entry.dirty_modifier() && entry.contiguous());
    assert!(entry.privileged_execute_never() && entry.user_execute_never());
    assert_eq!((entry.attributes(), entry.shareability()), (1, 3));
    assert_eq!(entry.page() << 12, 0x1234_5000);
    assert!(!entry.non_secure() && !entry.guarded());
    assert_eq!((entry.software(), entry.hardware()), (0, 0));
}

/// Linux `io-pgtable-arm.c` (`ARM_LPAE_PTE_*`) and `pgtable-hwdef.h` (`PTE_*`).
#[test]
fn stage_1_positions_agree_with_linux() {
    assert_eq!(PAGE & 3, 3); // ARM_LPAE_PTE_TYPE_PAGE
    assert_eq!(BLOCK & 3, 1); // ARM_LPAE_PTE_TYPE_BLOCK
    assert_eq!(TABLE & 3, 3); // ARM_LPAE_PTE_TYPE_TABLE
    assert_eq!(BLOCK >> 2 & 7, 2); // ARM_LPAE_PTE_ATTRINDX_SHIFT
    assert_eq!(Entry::VALID, 1); // ARM_LPAE_PTE_VALID
    assert_eq!(Stage1Entry::USER, 1 << 6); // ARM_LPAE_PTE_AP_UNPRIV
    assert_eq!(Stage1Entry::READ_ONLY, 1 << 7); // ARM_LPAE_PTE_AP_RDONLY
    assert_eq!(PAGE >> 8 & 3, 3); // ARM_LPAE_PTE_SH_IS
    assert_eq!(Stage1Entry::ACCESSED, 1 << 10); // ARM_LPAE_PTE_AF
    assert_eq!(Stage1Entry::NOT_GLOBAL, 1 << 11); // ARM_LPAE_PTE_nG
    assert_eq!(Entry::ADDRESS, (!0 >> (63 - 47)) & (!0 << 12)); // ARM_LPAE_PTE_ADDR_MASK
    assert_eq!(Stage1Entry::DIRTY_MODIFIER, 1 << 51); // ARM_LPAE_PTE_DBM
    assert_ne!(PAGE & 1 << 52, 0); // PTE_CONT
    assert_eq!(Stage1Entry::PRIVILEGED_EXECUTE_NEVER, 1 << 53); // PTE_PXN
    assert_eq!(Stage1Entry::USER_EXECUTE_NEVER, 1 << 54); // PTE_UXN
    let both = Stage1Entry::PRIVILEGED_EXECUTE_NEVER | Stage1Entry::USER_EXECUTE_NEVER;
    assert_eq!(both, 3 << 53); // ARM_LPAE_PTE_XN
}

/// Linux `pgtable-hwdef.h`: `PMD_TABLE_PXN`, `PMD_TABLE_UXN`, `S1_TABLE_AP`.
#[test]
fn table_positions_agree_with_linux() {
    let entry = TableEntry::from_bits(TABLE);
    assert!(entry.valid() && entry.table() && !entry.accessed() && !entry.non_secure());
    assert!(entry.no_user() && entry.read_only());
    assert!(entry.privileged_execute_never() && entry.user_execute_never());
    assert_eq!(entry.page() << 12, 0x8_0000);
    assert_eq!(TableEntry::PRIVILEGED_EXECUTE_NEVER, 1 << 59); // PMD_TABLE_PXN
    assert_eq!(TableEntry::USER_EXECUTE_NEVER, 1 << 60); // PMD_TABLE_UXN
    assert_eq!(TableEntry::NO_USER | TableEntry::READ_ONLY, 3 << 61); // S1_TABLE_AP
    assert_eq!(TABLE & TableEntry::RIGHTS, TABLE & !0xf_ffff);
}

/// Linux `io-pgtable-arm.c`: `ARM_LPAE_PTE_HAP_*`, `ARM_LPAE_PTE_MEMATTR_*`.
#[test]
fn stage_2_positions_agree_with_linux() {
    let entry = Stage2Entry::from_bits(SECOND);
    assert!(entry.valid() && entry.page_entry() && entry.read() && entry.write());
    assert!(entry.accessed() && entry.dirty_modifier() && !entry.contiguous());
    assert_eq!((entry.memory_attribute(), entry.shareability()), (0xf, 3));
    assert_eq!((entry.execute_never(), entry.page() << 12), (2, 0x5000));
    assert_eq!(Stage2Entry::READ, 1 << 6); // ARM_LPAE_PTE_HAP_READ
    assert_eq!(Stage2Entry::WRITE, 2 << 6); // ARM_LPAE_PTE_HAP_WRITE
    assert_eq!(SECOND & 0xf << 2, 0xf << 2); // ARM_LPAE_PTE_MEMATTR_OIWB
    let memory = |attribute: u8| Stage2Entry::new().with_memory_attribute(attribute);
    assert!(memory(0x1).device()); // ARM_LPAE_PTE_MEMATTR_DEV
    assert!(!memory(0x5).device()); // ARM_LPAE_PTE_MEMATTR_NC
    assert!(!memory(0x6).device()); // ARM_LPAE_PTE_MEMATTR_FWB_WB
    assert!(!memory(0xf).device()); // ARM_LPAE_PTE_MEMATTR_OIWB
    let never = Stage2Entry::EXECUTE_NEVER | Stage2Entry::EXECUTE_NEVER_LOW;
    assert_eq!(never, 3 << 53); // ARM_LPAE_PTE_XN
}

/// DDI 0487, "Determination of descriptor type, VMSAv8-64 translation system"; block sizes as in Linux
/// `arm_lpae_restrict_pgsizes`.
#[test]
fn what_an_entry_is_for_depends_on_granule_and_level() {
    let entry = Entry;
    let page = |base, shift| Target::Page {
        base: Gpa(base),
        shift,
    };
    assert_eq!(entry(PAGE & !1).target(Granule::K4, 1), Target::Invalid);
    assert_eq!(entry(PAGE).target(Granule::K4, 1), page(0x1234_5000, 12));
    assert_eq!(entry(PAGE).target(Granule::K16, 1), page(0x1234_4000, 14));
    assert_eq!(entry(PAGE).target(Granule::K64, 1), page(0x1234_0000, 16));
    assert_eq!(entry(BLOCK).target(Granule::K4, 1), Target::Invalid);
    assert_eq!(entry(BLOCK).target(Granule::K4, 2), page(0x4000_0000, 21));
    assert_eq!(entry(BLOCK).target(Granule::K4, 3), page(0x4000_0000, 30));
    assert_eq!(entry(BLOCK).target(Granule::K4, 4), Target::Invalid);
    assert_eq!(entry(BLOCK).target(Granule::K16, 2), page(0x4000_0000, 25));
    assert_eq!(entry(BLOCK).target(Granule::K16, 3), Target::Invalid);
    assert_eq!(entry(BLOCK).target(Granule::K64, 2), page(0x4000_0000, 29));
    assert_eq!(entry(BLOCK).target(Granule::K64, 3), Target::Invalid);
    let table = Target::Table(Gpa(0x8_0000));
    for granule in [Granule::K4, Granule::K16, Granule::K64] {
        assert_eq!(entry(TABLE).target(granule, 2), table);
        assert_eq!(entry(TABLE).target(granule, 4), table);
        assert_ne!(entry(TABLE).target(granule, 1), table);
    }
}

/// Linux `arm-smmu-v3.c` writes TG0 from `tcr.tg` (`ARM_LPAE_TCR_TG0_4K` 0, `_64K` 1, `_16K` 2); for TG1,
/// `ARM_LPAE_TCR_TG1_16K` 1, `_4K` 2, `_64K` 3.
#[test]
fn granules_are_encoded_as_linux_has_them() {
    use Granule::{K4, K16, K64};
    assert_eq!(
        [0, 1, 2, 3].map(Granule::lower),
        [Some(K4), Some(K64), Some(K16), None]
    );
    assert_eq!(
        [0, 1, 2, 3].map(Granule::upper),
        [None, Some(K16), Some(K4), Some(K64)]
    );
    assert_eq!([K4, K16, K64].map(Granule::stride), [9, 11, 13]);
    assert_eq!(K64.address(), 0x0000_ffff_ffff_0000);
}
