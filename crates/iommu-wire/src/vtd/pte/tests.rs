use super::*;

/// Typed from "First-Stage Paging Entries": a 2 MiB page at 0x4020_0000, P, R/W, U/S, A, D, PS, EA, XD.
const FIRST: u64 = 0x8000_0000_4020_04e7;
/// Typed from "Second-Stage Paging Entries": a 4 KiB page at 0x8_0000, R, W, A, D, SNP.
const SECOND: u64 = 0x0000_0000_0008_0b03;

#[test]
fn a_first_stage_entry_decodes_from_a_literal_word() {
    let entry = FirstStageEntry::from_bits(FIRST);
    assert!(entry.present() && entry.writable() && entry.user());
    assert!(entry.accessed() && entry.dirty() && entry.page_size());
    assert!(entry.extended_accessed() && entry.execute_disable());
    let page = Target::Page {
        base: Gpa(0x4020_0000),
        shift: 21,
    };
    assert_eq!(entry.target(2), page);
    // At level 1 bit 7 is a memory type; above level 3 no entry maps a page.
    assert_eq!(
        FirstStageEntry::from_bits(0x4020_10e7).target(1),
        Target::Page {
            base: Gpa(0x4020_1000),
            shift: 12
        }
    );
    assert_eq!(entry.target(4), Target::Table(Gpa(0x4020_0000)));
    assert_eq!(
        FirstStageEntry::from_bits(FIRST & !1).target(2),
        Target::Absent
    );
}

/// Linux `iommu.h`: `DMA_FL_PTE_PRESENT`, `_US`, `_ACCESS`, `_DIRTY`, `DMA_PTE_LARGE_PAGE`; x86
/// `_PAGE_BIT_RW` and `_PAGE_BIT_NX`.
#[test]
fn first_stage_positions_agree_with_linux() {
    assert_ne!(FIRST & 1 << 0, 0);
    assert_ne!(FIRST & 1 << 1, 0);
    assert_ne!(FIRST & 1 << 2, 0);
    assert_ne!(FIRST & 1 << 5, 0);
    assert_ne!(FIRST & 1 << 6, 0);
    assert_ne!(FIRST & 1 << 7, 0);
    assert_ne!(FIRST & 1 << 63, 0);
}

#[test]
fn a_second_stage_entry_decodes_from_a_literal_word() {
    let entry = SecondStageEntry::from_bits(SECOND);
    assert!(entry.read() && entry.write() && entry.accessed() && entry.dirty() && entry.snoop());
    let page = Target::Page {
        base: Gpa(0x8_0000),
        shift: 12,
    };
    assert_eq!(entry.target(1), page);
    assert_eq!(
        SecondStageEntry::from_bits(0x8_0b00).target(1),
        Target::Absent
    );
    assert_eq!(SecondStageEntry::from_bits(0x8_0002).target(1), page);
}

/// Linux `iommu.h`: `DMA_PTE_READ`, `DMA_PTE_WRITE`, `DMA_PTE_SNP`, `DMA_SL_PTE_DIRTY_BIT`;
/// VirtualBox `iommu-intel.h`: `VTD_BF_SL_PTE_A`.
#[test]
fn second_stage_positions_agree_with_linux_and_virtualbox() {
    assert_ne!(SECOND & 1 << 0, 0);
    assert_ne!(SECOND & 1 << 1, 0);
    assert_ne!(SECOND & 1 << 8, 0);
    assert_ne!(SECOND & 1 << 9, 0);
    assert_ne!(SECOND & 1 << 11, 0);
}
