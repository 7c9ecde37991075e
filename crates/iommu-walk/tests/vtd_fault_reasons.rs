//! One test a row of the fault reason table, each expectation typed by hand.
//!
//! Sources, named beside each: **S** Intel VT-d, revision 5.10, "Fault Conditions and Remapping
//! Hardware Behavior for Various Requests"; **K** Linux `drivers/iommu/intel/dmar.c`, the strings of
//! `dma_remap_fault_reasons` and `dma_remap_sm_fault_reasons`; **V** VirtualBox `DevIommuIntel.cpp`,
//! `dmarAtFaultRecord` and what leads to it; **Q** QEMU `hw/i386/intel_iommu.c`, `VTDFaultReason`.

mod bed;

use bed::vtd::{ADDR, Bed, ReadOnly, at, ats, fetch, pasid5, privileged, read, translated, write};
use iommu_walk::vtd::{Applied, Cause, apply, page_request, translate};
use iommu_walk::{Stage, Updates};
use iopf::{Access, Dma, Gpa, Pasid, Rid};

// ---- legacy mode ----

/// S LRT.2, K "Present bit in root entry is clear", V kDmarDiag_At_Lm_RootEntry_Not_Present.
#[test]
fn reason_01_root_entry_not_present() {
    let failure = Bed::legacy()
        .set(0x1000, 0x2000)
        .faults(&read(), 0x01, "LRT.2");
    assert!(!failure.cause.qualified());
    assert_eq!(failure.entry_addr, Some(Gpa(0x1000)));
}

/// S LCT.2, K "Present bit in context entry is clear", V kDmarDiag_At_Lm_CtxEntry_Not_Present.
#[test]
fn reason_02_context_entry_not_present() {
    let failure = Bed::legacy()
        .set(0x2280, 0x1_0000)
        .faults(&read(), 0x02, "LCT.2");
    assert!(failure.cause.qualified());
    assert_eq!(failure.entry_addr, Some(Gpa(0x2280)));
}

/// S LCT.4.1–3, K "Invalid context entry", V kDmarDiag_At_Lm_Ut_Aw_Invalid, _Tt_Invalid and
/// _Slpptr_Read_Failed.
#[test]
fn reason_03_context_entry_invalid() {
    // AW 4 and 0; TT 11b; TT 10b and 01b on units without pass-through or device TLBs.
    Bed::legacy()
        .set(0x2288, 0x0704)
        .faults(&read(), 0x03, "LCT.4");
    Bed::legacy()
        .set(0x2288, 0x0700)
        .faults(&read(), 0x03, "LCT.4");
    Bed::legacy()
        .set(0x2280, 0x1_000d)
        .faults(&read(), 0x03, "LCT.4");
    Bed::legacy()
        .set(0x2280, 0x1_0009)
        .without(0, 1 << 6)
        .faults(&read(), 0x03, "LCT.4");
    Bed::legacy()
        .set(0x2280, 0x1_0005)
        .without(0, 1 << 2)
        .faults(&read(), 0x03, "LCT.4");
    // The first paging entry cannot be read.
    let failure = Bed::legacy().abort(0x1_0008).faults(&read(), 0x03, "LCT.4");
    assert_eq!((failure.level, failure.entry), (4, None));
}

/// S LGN.1, K "Access beyond MGAW", V kDmarDiag_At_Xm_AddrIn_Invalid.
#[test]
fn reason_04_address_too_wide() {
    // MGAW 48 under an AW of 57, and an AW of 39 under an MGAW of 48.
    Bed::legacy()
        .set(0x2288, 0x0703)
        .faults(&at(1 << 48, read()), 0x04, "LGN.1");
    Bed::legacy()
        .set(0x2288, 0x0701)
        .faults(&at(1 << 39, read()), 0x04, "LGN.1");
    // A translated request and one that passes through are bounded by the host address width.
    Bed::legacy()
        .set(0x2280, 0x1_0005)
        .faults(&at(1 << 46, translated()), 0x04, "LGN.1");
    Bed::legacy()
        .set(0x2280, 0x1_0009)
        .faults(&at(1 << 46, read()), 0x04, "LGN.1");
}

/// S LGN.2, K "PTE Write access is not set", V kDmarDiag_At_Xm_Perm_Write_Denied, Q VTD_FR_WRITE.
#[test]
fn reason_05_write_denied() {
    let failure = Bed::legacy()
        .set(0x1_2008, 0x1_3001)
        .faults(&write(), 0x05, "LGN.2");
    assert_eq!((failure.level, failure.bits), (2, 0b10));
    Bed::legacy()
        .set(0x1_3008, 0)
        .faults(&write(), 0x05, "LGN.2");
    // An atomic operation needs both.
    let atomic = Dma {
        access: Access::RW,
        ..read()
    };
    Bed::legacy()
        .set(0x1_3008, 0x8_0001)
        .faults(&atomic, 0x05, "LGN.2");
}

/// S LGN.3, K "PTE Read access is not set", V kDmarDiag_At_Xm_Perm_Read_Denied, Q VTD_FR_READ.
#[test]
fn reason_06_read_denied() {
    let failure = Bed::legacy()
        .set(0x1_1008, 0x1_2002)
        .faults(&read(), 0x06, "LGN.3");
    assert_eq!((failure.level, failure.bits), (3, 0b01));
    Bed::legacy()
        .set(0x1_3008, 0)
        .faults(&read(), 0x06, "LGN.3");
    let atomic = Dma {
        access: Access::RW,
        ..read()
    };
    Bed::legacy()
        .set(0x1_3008, 0x8_0002)
        .faults(&atomic, 0x06, "LGN.3");
    // A zero-length read of a write-only page passes if CAP_REG.ZLR is set.
    let flush = Dma {
        access: Access::empty(),
        ..read()
    };
    let write_only = Bed::legacy().set(0x1_3008, 0x8_0002);
    assert_eq!(write_only.passes(&flush).pa, Gpa(0x8_0abc));
    write_only.without(1 << 22, 0).faults(&flush, 0x06, "LGN.3");
}

/// S LSS.1, K "Next page table ptr is invalid", V kDmarDiag_At_Xm_Read_Pte_Failed.
#[test]
fn reason_07_paging_entry_unreadable() {
    let failure = Bed::legacy().abort(0x1_1008).faults(&read(), 0x07, "LSL.1");
    assert_eq!((failure.level, failure.stage), (3, Some(Stage::Second)));
}

/// S LRT.1, K "Root table address invalid", V kDmarDiag_At_Lm_RootEntry_Read_Failed.
#[test]
fn reason_08_root_entry_unreadable() {
    Bed::legacy().abort(0x1000).faults(&read(), 0x08, "LRT.1");
    // An entry wider than a word aborts as a whole.
    Bed::legacy().abort(0x1008).faults(&read(), 0x08, "LRT.1");
}

/// S LCT.1, K "Context table ptr is invalid", V kDmarDiag_At_Lm_CtxEntry_Read_Failed.
#[test]
fn reason_09_context_entry_unreadable() {
    let failure = Bed::legacy().abort(0x2288).faults(&read(), 0x09, "LCT.1");
    assert!(!failure.cause.qualified());
}

/// S LRT.3, K "non-zero reserved fields in RTP", V kDmarDiag_At_Lm_RootEntry_Rsvd.
#[test]
fn reason_0a_root_entry_reserved() {
    Bed::legacy()
        .set(0x1000, 0x2003)
        .faults(&read(), 0x0a, "LRT.3");
    Bed::legacy().set(0x1008, 1).faults(&read(), 0x0a, "LRT.3");
    let failure = Bed::legacy()
        .set(0x1000, 1 << 46 | 0x2001)
        .faults(&read(), 0x0a, "LRT.3");
    assert_eq!(failure.bits, 1 << 46);
}

/// S LCT.3, K "non-zero reserved fields in CTP", V kDmarDiag_At_Lm_CtxEntry_Rsvd.
#[test]
fn reason_0b_context_entry_reserved() {
    Bed::legacy()
        .set(0x2280, 0x1_0011)
        .faults(&read(), 0x0b, "LCT.3");
    Bed::legacy()
        .set(0x2288, 0x0782)
        .faults(&read(), 0x0b, "LCT.3");
    Bed::legacy()
        .set(0x2288, 1 << 24 | 0x0702)
        .faults(&read(), 0x0b, "LCT.3");
    // Ignored bits are ignored.
    Bed::legacy().set(0x2288, 0x077a).passes(&read());
}

/// S LSS.2, K "non-zero reserved fields in PTE", V kDmarDiag_At_Xm_Pte_Rsvd and _Pte_Sllps_Invalid.
#[test]
fn reason_0c_paging_entry_reserved() {
    let failure = Bed::legacy()
        .set(0x1_2008, 0x1_3803)
        .faults(&read(), 0x0c, "LSL.2");
    assert_eq!((failure.level, failure.bits), (2, 1 << 11));
    // A large page that is not aligned, at a level that has none, or that the unit does not do.
    Bed::legacy()
        .set(0x1_2008, 0x1_3083)
        .faults(&read(), 0x0c, "LSL.2");
    Bed::legacy()
        .set(0x1_0008, 0x1_1083)
        .faults(&read(), 0x0c, "LSL.2");
    let big = Bed::legacy().set(0x1_1008, 0x83);
    assert_eq!(big.passes(&read()).page_shift, 30);
    big.without(1 << 35, 0).faults(&read(), 0x0c, "LSL.2");
    // An address beyond the host address width.
    Bed::legacy()
        .set(0x1_3008, 1 << 46 | 0x8_0003)
        .faults(&read(), 0x0c, "LSL.2");
    // Without R and W nothing else counts.
    Bed::legacy()
        .set(0x1_3008, 1 << 46 | 0x8_0000)
        .faults(&read(), 0x06, "LGN.3");
}

/// S LCT.5, K "PCE for translation request specifies blocking", V kDmarDiag_At_Lm_Ut_At_Block.
#[test]
fn reason_0d_address_type_blocked() {
    Bed::legacy().faults(&ats(), 0x0d, "LCT.5");
    Bed::legacy().faults(&translated(), 0x0d, "LCT.5");
    Bed::legacy()
        .set(0x2280, 0x1_0009)
        .faults(&ats(), 0x0d, "LCT.5");
}

/// S LGN.4, V kDmarDiag_At_Xm_AddrOut_Invalid.
#[test]
fn reason_0e_interrupt_range() {
    Bed::legacy()
        .set(0x1_3008, 0xfee0_0003)
        .faults(&write(), 0x0e, "LGN.4");
    Bed::legacy()
        .set(0x2280, 0x1_0005)
        .faults(&at(0xfeef_fffc, translated()), 0x0e, "LGN.4");
    // As an input it is an interrupt only if it is a write.
    Bed::legacy().faults(&at(0xfee0_1000, read()), 0x0e, "LGN.4");
}

// ---- root table address register ----

/// S RTA.1, K "SM: Invalid Root Table Address", V kDmarDiag_At_Rta_Rsvd and its neighbours.
#[test]
fn reason_30_mode_unsupported() {
    Bed::first().rtaddr(0x1800).faults(&read(), 0x30, "RTA.1");
    Bed::first()
        .without(0, 1 << 43)
        .faults(&read(), 0x30, "RTA.1");
    Bed::first()
        .rtaddr(0x1c00)
        .without(0, 1 << 52)
        .faults(&read(), 0x30, "RTA.1");
}

/// S RTA.2, K "SM: TTM 0 for request with PASID".
#[test]
fn reason_31_pasid_in_legacy_mode() {
    Bed::legacy().faults(&pasid5(read()), 0x31, "RTA.2");
}

/// S RTA.3, K "SM: TTM 0 for page group request".
#[test]
fn reason_32_page_request_in_legacy_mode() {
    page_request_faults(&Bed::legacy(), None, 0x32, "RTA.3");
    page_request_faults(&Bed::legacy(), Some(5), 0x32, "RTA.3");
}

/// S RTA.4.
#[test]
fn reason_33_abort_mode() {
    Bed::first().rtaddr(0x1c00).faults(&read(), 0x33, "RTA.4");
    page_request_faults(&Bed::first().rtaddr(0x1c00), None, 0x33, "RTA.4");
}

/// S RTA.5.
#[test]
fn reason_34_execute_on_a_new_unit() {
    let mut bed = Bed::first();
    bed.unit = bed.unit.with_version(8);
    bed.faults(&fetch(), 0x34, "RTA.5");
    bed.unit = bed.unit.with_version(7);
    bed.passes(&fetch());
}

// ---- scalable mode: root, context ----

/// S SRT.1, K "SM: Error attempting to access Root Entry".
#[test]
fn reason_38_scalable_root_entry_unreadable() {
    Bed::first().abort(0x1000).faults(&read(), 0x38, "SRT.1");
}

/// S SRT.2, K "SM: Present bit in Root Entry is clear".
#[test]
fn reason_39_scalable_root_entry_not_present() {
    Bed::first()
        .set(0x1000, 0x2000)
        .faults(&read(), 0x39, "SRT.2");
    // Devices 16–31 are in the upper half.
    let upper = Dma {
        requester: Rid(0x0080),
        ..read()
    };
    Bed::first()
        .set(0x1008, 0x3000)
        .faults(&upper, 0x39, "SRT.2");
}

/// S SRT.3, K "SM: Non-zero reserved field set in Root Entry".
#[test]
fn reason_3a_scalable_root_entry_reserved() {
    Bed::first()
        .set(0x1000, 0x2801)
        .faults(&read(), 0x3a, "SRT.3");
    // The half that is not in use does not count.
    Bed::first().set(0x1008, 0x3801).passes(&read());
}

/// S SCT.1, K "SM: Error attempting to access Context Entry".
#[test]
fn reason_40_scalable_context_entry_unreadable() {
    let failure = Bed::first().abort(0x2518).faults(&read(), 0x40, "SCT.1");
    assert!(!failure.cause.qualified());
}

/// S SCT.2, K "SM: Present bit in Context Entry is clear".
#[test]
fn reason_41_scalable_context_entry_not_present() {
    Bed::first()
        .set(0x2500, 0x401c)
        .faults(&read(), 0x41, "SCT.2");
}

/// S SCT.3, K "SM: Non-zero reserved field set in the Context Entry".
#[test]
fn reason_42_scalable_context_entry_reserved() {
    Bed::first()
        .set(0x2500, 0x409d)
        .faults(&read(), 0x42, "SCT.3");
    Bed::first().set(0x2510, 1).faults(&read(), 0x42, "SCT.3");
    // What a unit does not support is reserved to it: RID_PASID, PRE.
    Bed::first()
        .set(0x2508, 1)
        .without(0, 1 << 49)
        .faults(&read(), 0x42, "SCT.3");
    Bed::first()
        .without(0, 1 << 29)
        .faults(&read(), 0x42, "SCT.3");
}

/// S SCT.4.1–3, K "SM: Invalid Context Entry".
#[test]
fn reason_43_scalable_context_entry_invalid() {
    Bed::first()
        .set(0x2500, 0x4019)
        .faults(&read(), 0x43, "SCT.4");
    Bed::first()
        .set(0x2508, 1 << 13)
        .faults(&read(), 0x43, "SCT.4");
    Bed::first()
        .set(0x2500, 0x4055)
        .faults(&read(), 0x43, "SCT.4");
}

/// S SCT.5, K "SM: DTE field in Context Entry is clear".
#[test]
fn reason_44_device_tlb_disabled() {
    Bed::first()
        .set(0x2500, 0x4009)
        .faults(&ats(), 0x44, "SCT.5");
    Bed::first()
        .set(0x2500, 0x4009)
        .faults(&translated(), 0x44, "SCT.5");
    Bed::first().set(0x2500, 0x4009).passes(&read());
}

/// S SCT.6, K "SM: PASID Enable field in Context Entry is clear".
#[test]
fn reason_45_pasid_disabled() {
    Bed::first()
        .set(0x2500, 0x4015)
        .faults(&pasid5(read()), 0x45, "SCT.6");
    Bed::first().set(0x2500, 0x4015).passes(&read());
}

/// S SCT.7, K "SM: PASID is larger than the max in Context Entry".
#[test]
fn reason_46_pasid_too_large() {
    // PDTS 0: 128 directory entries of 64 PASIDs.
    let dma = |pasid| Dma {
        pasid: Pasid::new(pasid),
        ..read()
    };
    Bed::first().faults(&dma(0x2000), 0x46, "SCT.7");
    Bed::first().faults(&dma(0x1fff), 0x51, "SPD.2");
}

/// S SCT.8, K "SM: PRE field in Context-Entry is clear".
#[test]
fn reason_47_page_requests_disabled() {
    page_request_faults(&Bed::first().set(0x2500, 0x400d), Some(5), 0x47, "SCT.8");
}

/// S SCT.9, K "SM: RID_PASID field error in Context-Entry".
#[test]
fn reason_48_pasid_is_the_rid_pasid() {
    Bed::first()
        .set(0x2508, 5)
        .faults(&pasid5(read()), 0x48, "SCT.9");
    page_request_faults(&Bed::first().set(0x2508, 5), Some(5), 0x48, "SCT.9");
}

/// S SCT.10.
#[test]
fn reason_49_translated_pasid_disabled() {
    Bed::first().faults(&pasid5(translated()), 0x49, "SCT.10");
    Bed::first()
        .set(0x2500, 0x405d)
        .passes(&pasid5(translated()));
}

// ---- PASID directory and table ----

/// S SPD.1, K "SM: Error attempting to access the PASID Directory Entry".
#[test]
fn reason_50_directory_entry_unreadable() {
    let failure = Bed::first().abort(0x4000).faults(&read(), 0x50, "SPD.1");
    assert!(!failure.cause.qualified());
}

/// S SPD.2, K "SM: Present bit in Directory Entry is clear".
#[test]
fn reason_51_directory_entry_not_present() {
    Bed::first()
        .set(0x4000, 0x5000)
        .faults(&read(), 0x51, "SPD.2");
    page_request_faults(&Bed::first().set(0x4000, 0x5000), None, 0x51, "SPD.2");
}

/// S SPD.3, K "SM: Non-zero reserved field set in PASID Directory Entry".
#[test]
fn reason_52_directory_entry_reserved() {
    Bed::first()
        .set(0x4000, 0x5005)
        .faults(&read(), 0x52, "SPD.3");
}

/// S SPT.1, K "SM: Error attempting to access PASID Table Entry".
#[test]
fn reason_58_pasid_entry_unreadable() {
    let failure = Bed::first()
        .abort(0x5178)
        .faults(&pasid5(read()), 0x58, "SPT.1");
    assert_eq!(failure.entry_addr, Some(Gpa(0x5140)));
}

/// S SPT.2, K "SM: Present bit in PASID Table Entry is clear".
#[test]
fn reason_59_pasid_entry_not_present() {
    Bed::first()
        .set(0x5140, 0x40)
        .faults(&pasid5(read()), 0x59, "SPT.2");
}

/// S SPT.3, K "SM: Non-zero reserved field set in PASID Table Entry".
#[test]
fn reason_5a_pasid_entry_reserved() {
    Bed::first()
        .set(0x5140, 0x61)
        .faults(&pasid5(read()), 0x5a, "SPT.3");
    Bed::first()
        .set(0x5148, 0x81_0007)
        .faults(&pasid5(read()), 0x5a, "SPT.3");
    Bed::first()
        .set(0x5150, 0x2_0103)
        .faults(&pasid5(read()), 0x5a, "SPT.3");
    Bed::first()
        .set(0x5178, 1 << 63)
        .faults(&pasid5(read()), 0x5a, "SPT.3");
    // What a unit does not support is reserved to it: SSADE, SRE.
    let ssade = Bed::second().set(0x5140, 0x1_0289);
    ssade.passes(&pasid5(read()));
    ssade
        .without(0, 1 << 45)
        .faults(&pasid5(read()), 0x5a, "SPT.3");
    Bed::first()
        .without(0, 1 << 31)
        .faults(&pasid5(read()), 0x5a, "SPT.3");
}

/// S SPT.4.1–4, K "SM: Invalid Scalable-Mode PASID Table Entry", Q VTD_FR_PASID_TABLE_ENTRY_INV.
#[test]
fn reason_5b_pasid_entry_invalid() {
    let dma = pasid5(read());
    for kind in [0, 5, 6, 7] {
        Bed::first()
            .set(0x5140, kind << 6 | 1)
            .faults(&dma, 0x5b, "SPT.4");
    }
    Bed::first()
        .without(0, 1 << 47 | 1 << 46)
        .set(0x5150, 3)
        .faults(&dma, 0x5b, "SPT.4");
    Bed::nested()
        .without(0, 1 << 26)
        .faults(&dma, 0x5b, "SPT.4");
    Bed::pass_through()
        .without(0, 1 << 6)
        .faults(&dma, 0x5b, "SPT.4");
    // AW 0; FSPM 2, and 1 on a unit without five levels; a pointer beyond the second stage.
    Bed::second()
        .set(0x5140, 0x1_0081)
        .faults(&dma, 0x5b, "SPT.4");
    Bed::first()
        .set(0x5150, 0x2_000b)
        .faults(&dma, 0x5b, "SPT.4");
    Bed::first()
        .set(0x5150, 0x2_0007)
        .without(1 << 60, 0)
        .faults(&dma, 0x5b, "SPT.4");
    let narrow = Bed::nested()
        .set(0x5140, 0x1_00c5)
        .set(0x5150, 1 << 39 | 0x2_0003);
    let failure = narrow.faults(&dma, 0x5b, "SPT.4");
    assert_eq!(failure.bits, 1 << 39);
}

/// S SPT.5, K "SM: ERE field is clear in PASID Table Entry".
#[test]
fn reason_5c_execute_disabled() {
    Bed::first()
        .set(0x5150, 0x2_0001)
        .faults(&fetch(), 0x5c, "SPT.5");
    // A unit without execute requests refuses them all.
    let bed = Bed::first().set(0x5150, 0x2_0001).without(0, 1 << 30);
    bed.faults(&fetch(), 0x5c, "SPT.5");
}

/// S SPT.6, K "SM: SRE field is clear in PASID Table Entry".
#[test]
fn reason_5d_supervisor_disabled() {
    let bed = Bed::first().set(0x5150, 0x2_0002).set(0x5010, 0x2_0002);
    bed.faults(&pasid5(privileged(read())), 0x5d, "SPT.6");
    bed.passes(&pasid5(read()));
    // RID_PRIV speaks for requests without a PASID, and they themselves do not.
    bed.passes(&privileged(read()));
    bed.set(0x2508, 1 << 20).faults(&read(), 0x5d, "SPT.6");
}

// ---- first stage ----

/// S SFS.1, K "SM: Error attempting to access first-level paging entry".
#[test]
fn reason_70_first_stage_entry_unreadable() {
    let failure = Bed::first().abort(0x2_2008).faults(&read(), 0x70, "SFL.1");
    assert_eq!((failure.level, failure.stage), (2, Some(Stage::First)));
}

/// S SFS.2, K "SM: Present bit in first-level paging entry is clear", Q VTD_FR_FS_PAGING_ENTRY_P.
#[test]
fn reason_71_first_stage_entry_not_present() {
    let failure = Bed::first()
        .set(0x2_3008, 0x8_0066)
        .faults(&read(), 0x71, "SFL.2");
    assert_eq!((failure.level, failure.bits), (1, 1));
    // A missing entry counts before the rights of those above it.
    Bed::first()
        .set(0x2_3008, 0)
        .set(0x2_0008, 0x2_1021)
        .faults(&write(), 0x71, "SFL.2");
}

/// S SFS.3, K "SM: Non-zero reserved field set in first-level paging entry", Q
/// VTD_FR_FS_PAGING_ENTRY_RSVD.
#[test]
fn reason_72_first_stage_entry_reserved() {
    Bed::first()
        .set(0x2_0008, 0x2_10a7)
        .faults(&read(), 0x72, "SFL.3");
    Bed::first()
        .set(0x2_2008, 0x2_20e7)
        .faults(&read(), 0x72, "SFL.3");
    Bed::first()
        .set(0x2_3008, 1 << 46 | 0x8_0067)
        .faults(&read(), 0x72, "SFL.3");
    let huge = Bed::first().set(0x2_1008, 0x40_00e7 & !0x40_0000);
    assert_eq!(huge.passes(&read()).page_shift, 30);
    huge.without(1 << 56, 0).faults(&read(), 0x72, "SFL.3");
    // Execute-disable without NXE, on a unit that has it; one that has not ignores the bit.
    let bed = Bed::first().set(0x2_3008, 1 << 63 | 0x8_0067);
    bed.faults(&read(), 0x72, "SFL.3");
    let bed = bed.without(0, 1 << 30).set(0x5010, 0x2_0001);
    bed.passes(&read());
}

/// S SFS.4, K "SM: Error attempting to access FL-PML4 entry".
#[test]
fn reason_73_first_stage_top_unreadable() {
    Bed::first().abort(0x2_0008).faults(&read(), 0x73, "SFL.4");
}

/// S SFS.5, K "SM: First-level entry address beyond MGAW in Nested translation".
#[test]
fn reason_74_first_stage_entry_beyond_the_second() {
    // AW 39.
    let bed = Bed::nested()
        .set(0x5000, 0x1_10c5)
        .set(0x2_1008, 1 << 39 | 0x2_2027);
    let bed = bed.set(0x1_1000, 0x1_2003);
    let failure = bed.faults(&read(), 0x74, "SFL.5");
    assert_eq!((failure.level, failure.bits), (3, 1 << 39));
}

/// S SFS.6, K "SM: Read permission error in FL-PML4 entry in Nested translation".
#[test]
fn reason_75_first_stage_top_not_readable() {
    let failure = Bed::nested()
        .set(0x1_3100, 0x2_0002)
        .faults(&read(), 0x75, "SFL.6");
    assert_eq!(failure.guest_addr, Some(Gpa(0x2_0008)));
    assert_eq!((failure.stage, failure.level), (Some(Stage::Second), 1));
}

/// S SFS.7, K "SM: Read permission error in first-level paging entry in Nested translation".
#[test]
fn reason_76_first_stage_entry_not_readable() {
    Bed::nested()
        .set(0x1_3110, 0x2_2002)
        .faults(&read(), 0x76, "SFL.7");
}

/// S SFS.8, K "SM: Write permission error in first-level paging entry in Nested translation".
#[test]
fn reason_77_first_stage_entry_not_writable() {
    // Its accessed bit has to be set, and the second stage does not let it.
    let bed = Bed::nested()
        .set(0x2_2008, 0x2_3007)
        .set(0x1_3110, 0x2_2001);
    bed.faults(&read(), 0x77, "SFL.8");
    // With second-stage accessed bits, reading a first-stage table takes write permission.
    let bed = Bed::nested().set(0x5000, 0x1_02c9).set(0x1_3110, 0x2_2101);
    bed.faults(&read(), 0x77, "SFL.8");
}

/// S SFS.9, K "SM: A/D bit update needed in first-level entry when set up in no snoop".
#[test]
fn reason_90_first_stage_update_not_coherent() {
    let bed = Bed::first().set(0x5008, 0x7).set(0x2_2008, 0x2_3007);
    bed.passes(&read());
    let bed = bed.noncoherent();
    let failure = bed.faults(&read(), 0x90, "SFL.9");
    assert_eq!((failure.level, failure.bits), (2, 1 << 5));
    // Bits that are set beforehand need no update.
    let bed = Bed::first().set(0x5008, 0x7).noncoherent();
    bed.passes(&write());
}

/// S SFS.10.
#[test]
fn reason_91_first_stage_update_failed() {
    let bed = Bed::first().set(0x2_3008, 0x8_0007);
    let mut updates = Updates::new();
    translate(&bed.unit, &bed.mem, &write(), &mut updates, &mut ()).unwrap();
    let Applied::Failed(failure) = apply(&updates, &ReadOnly(&bed.mem), false) else {
        panic!("read-only memory was written");
    };
    assert_eq!(
        (failure.cause.reason().0, failure.cause.code()),
        (0x91, "SFL.10")
    );
    assert_eq!(failure.bits, 0x60);
}

// ---- second stage in scalable mode ----

/// S SSS.1, K "SM: Error attempting to access second-level paging entry".
#[test]
fn reason_78_second_stage_entry_unreadable() {
    Bed::second().abort(0x1_3008).faults(&read(), 0x78, "SSL.1");
    Bed::nested().abort(0x1_3118).faults(&read(), 0x78, "SSL.1");
}

/// S SSS.2, K "SM: Read/Write permission error in second-level paging entry".
#[test]
fn reason_79_second_stage_grants_nothing() {
    let failure = Bed::second()
        .set(0x1_2008, 0x1_3000)
        .faults(&read(), 0x79, "SSL.2");
    assert_eq!((failure.level, failure.bits), (2, 0b11));
    // Each entry grants something, and no right is granted by all.
    let bed = Bed::second()
        .set(0x1_2008, 0x1_3001)
        .set(0x1_3008, 0x8_0002);
    bed.faults(&read(), 0x79, "SSL.2");
    bed.faults(&write(), 0x79, "SSL.2");
    Bed::nested()
        .set(0x1_3400, 0)
        .faults(&read(), 0x79, "SSL.2");
    Bed::nested()
        .set(0x1_3108, 0)
        .faults(&read(), 0x79, "SSL.2");
}

/// S SSS.3, K "SM: Non-zero reserved field set in second-level paging entry".
#[test]
fn reason_7a_second_stage_entry_reserved() {
    Bed::second()
        .set(0x1_2008, 0x1_3803)
        .faults(&read(), 0x7a, "SSL.3");
    // Snoop control on a leaf is reserved to a unit without it.
    let snoop = Bed::second().set(0x1_3008, 0x8_0803);
    assert!(snoop.passes(&read()).snoop);
    snoop.without(0, 1 << 7).faults(&read(), 0x7a, "SSL.3");
}

/// S SSS.4, K "SM: Invalid second-level page table pointer".
#[test]
fn reason_7b_second_stage_top_unreadable() {
    Bed::second().abort(0x1_0008).faults(&read(), 0x7b, "SSL.4");
    Bed::nested().abort(0x1_0000).faults(&read(), 0x7b, "SSL.4");
}

/// S SSS.5, K "SM: A/D bit update needed in second-level entry when set up in no snoop".
#[test]
fn reason_7c_second_stage_update_not_coherent() {
    let bed = Bed::second().set(0x5000, 0x1_0289).set(0x5008, 0x7);
    bed.passes(&read());
    bed.noncoherent().faults(&read(), 0x7c, "SSL.5");
}

/// S SSS.6.
#[test]
fn reason_7d_second_stage_update_failed() {
    let bed = Bed::second().set(0x5000, 0x1_0289);
    let mut updates = Updates::new();
    translate(&bed.unit, &bed.mem, &write(), &mut updates, &mut ()).unwrap();
    let Applied::Failed(failure) = apply(&updates, &ReadOnly(&bed.mem), false) else {
        panic!("read-only memory was written");
    };
    assert_eq!(
        (failure.cause.reason().0, failure.cause.code()),
        (0x7d, "SSL.6")
    );
}

// ---- scalable mode, general ----

/// S SGN.1, K "SM: Address in first-level translation is not canonical".
#[test]
fn reason_80_not_canonical() {
    Bed::first().faults(&at(1 << 47, read()), 0x80, "SGN.1");
    Bed::first().faults(&at(0xffff_0000_0000_0000, read()), 0x80, "SGN.1");
    Bed::first().faults(&at(0xffff_8000_0000_0000, read()), 0x71, "SFL.2");
    // Five levels reach further.
    let five = Bed::first().set(0x5010, 0x2_0007);
    five.faults(&at(1 << 56, read()), 0x80, "SGN.1");
    five.faults(&at(1 << 47, read()), 0x71, "SFL.2");
}

/// S SGN.2, K "SM: U/S set 0 for first-level translation with user privilege", Q
/// VTD_FR_FS_PAGING_ENTRY_US.
#[test]
fn reason_81_user_denied() {
    let bed = Bed::first().set(0x2_1008, 0x2_2023);
    let failure = bed.faults(&pasid5(read()), 0x81, "SGN.2");
    assert_eq!((failure.level, failure.bits), (3, 1 << 2));
    bed.passes(&pasid5(privileged(read())));
}

/// K "SM: No execute permission for request with PASID and ER=1"; revision 5.10 has no execute
/// requests any more, revision 2.3 spells the rules out in "Access Rights".
#[test]
fn reason_82_execute_denied() {
    // NXE, and the execute-disable bit on the path.
    let bed = Bed::first()
        .set(0x5150, 0x2_0023)
        .set(0x2_1008, 1 << 63 | 0x2_2027);
    let failure = bed.faults(&fetch(), 0x82, "SGN.3");
    assert_eq!((failure.level, failure.bits), (3, 1 << 63));
    bed.passes(&pasid5(read()));
    // SMEP: a supervisor executes no user page.
    let bed = Bed::first().set(0x5150, 0x2_0043);
    bed.faults(&privileged(fetch()), 0x82, "SGN.3");
    bed.passes(&fetch());
    bed.set(0x2_3008, 0x8_0063).passes(&privileged(fetch()));
}

/// S SGN.4.1–2, K "SM: Address beyond the DMA hardware max".
#[test]
fn reason_83_address_beyond_the_host() {
    Bed::first().faults(&at(1 << 46, translated()), 0x83, "SGN.4");
    Bed::pass_through().faults(&at(1 << 46, read()), 0x83, "SGN.4");
    Bed::pass_through().passes(&at((1 << 46) - 1, read()));
}

/// S SGN.5, K "SM: Second-level entry address beyond the max", V kDmarDiag_At_Xm_AddrIn_Invalid.
#[test]
fn reason_84_address_beyond_the_second_stage() {
    Bed::second().faults(&at(1 << 48, read()), 0x84, "SGN.5");
}

/// S SGN.6, K "SM: No write permission for Write/AtomicOp request", V
/// kDmarDiag_At_Xm_Perm_Write_Denied, Q VTD_FR_SM_WRITE.
#[test]
fn reason_85_write_denied() {
    let failure = Bed::first()
        .set(0x2_2008, 0x2_3025)
        .faults(&write(), 0x85, "SGN.6");
    assert_eq!((failure.stage, failure.level), (Some(Stage::First), 2));
    Bed::second()
        .set(0x1_2008, 0x1_3001)
        .faults(&write(), 0x85, "SGN.6");
    let failure = Bed::nested()
        .set(0x1_3400, 0x8_0001)
        .faults(&write(), 0x85, "SGN.6");
    assert_eq!(failure.stage, Some(Stage::Second));
    assert_eq!(failure.guest_addr, Some(Gpa(0x8_0abc)));
    // A supervisor writes read-only pages unless WPE is set.
    let bed = Bed::first().set(0x2_2008, 0x2_3025);
    bed.passes(&pasid5(privileged(write())));
    bed.set(0x5150, 0x2_0013)
        .faults(&pasid5(privileged(write())), 0x85, "SGN.6");
}

/// S SGN.7, K "SM: No read permission for Read/AtomicOp request", V
/// kDmarDiag_At_Xm_Perm_Read_Denied.
#[test]
fn reason_86_read_denied() {
    Bed::second()
        .set(0x1_3008, 0x8_0002)
        .faults(&read(), 0x86, "SGN.7");
    Bed::nested()
        .set(0x1_3400, 0x8_0002)
        .faults(&read(), 0x86, "SGN.7");
}

/// S SGN.8, K "SM: Invalid address-interrupt address", V kDmarDiag_At_Xm_AddrOut_Invalid.
#[test]
fn reason_87_interrupt_range() {
    Bed::first()
        .set(0x2_3008, 0xfee0_0067)
        .faults(&read(), 0x87, "SGN.8");
    Bed::second()
        .set(0x1_3008, 0xfeef_f003)
        .faults(&read(), 0x87, "SGN.8");
    Bed::pass_through().faults(&pasid5(at(0xfee0_0000, write())), 0x87, "SGN.8");
    Bed::first().faults(&at(0xfee0_0000, translated()), 0x87, "SGN.8");
    // A translation request is refused for any overlap of the page.
    let bed = Bed::second().set(0x1_1008, 0xc000_0083);
    bed.faults(&ats(), 0x87, "SGN.8");
    assert_eq!(bed.passes(&read()).page_shift, 12);
}

/// S SGN.10.
#[test]
fn reason_89_pasid_wider_than_the_unit() {
    // PSS 2: three bits.
    let bed = Bed::first().without(0, 0x11 << 35);
    let dma = Dma {
        pasid: Pasid::new(8),
        ..read()
    };
    bed.faults(&dma, 0x89, "SGN.10");
    bed.passes(&pasid5(read()));
}

// ---- the whole table ----

/// Every number of the table that this unit can report, in order.
const PRODUCED: [u32; 66] = [
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x30, 0x31,
    0x32, 0x33, 0x34, 0x38, 0x39, 0x3a, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x50, 0x51, 0x52, 0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76,
    0x77, 0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x89,
    0x90, 0x91,
];

/// Numbers of the table that no source confirms: not in the specification, no string in Linux, no
/// code in VirtualBox or QEMU. Nothing here reports them.
const UNCONFIRMED: [u32; 1] = [0x88];

/// Conditions with the specification as their only source.
const ONE_SOURCE: [u32; 6] = [0x33, 0x34, 0x49, 0x7d, 0x89, 0x91];

#[test]
fn every_number_is_confirmed_or_listed() {
    let mut produced: Vec<u32> = Cause::ALL.iter().map(|c| c.reason().0).collect();
    produced.sort_unstable();
    produced.dedup();
    produced.retain(|&number| number != 0);
    assert_eq!(produced, PRODUCED);
    println!(
        "confirmed:   {} fault reasons, {PRODUCED:02x?}",
        PRODUCED.len()
    );
    println!(
        "UNCONFIRMED: {} fault reasons, {UNCONFIRMED:02x?}",
        UNCONFIRMED.len()
    );
    println!("specification only: {ONE_SOURCE:02x?}");
    println!("decoded, never produced: 20–2b (interrupt remapping), 60 and a0–a5 (HPT)");
    assert_eq!((PRODUCED.len(), UNCONFIRMED.len()), (66, 1));
}

#[track_caller]
fn page_request_faults(bed: &Bed, pasid: Option<u32>, reason: u32, code: &str) {
    let pasid = pasid.and_then(Pasid::new);
    let Err(failure) = page_request(&bed.unit, &bed.mem, Rid(0x0028), pasid, &mut ()) else {
        panic!("the page request was let in");
    };
    assert_eq!(
        (failure.cause.reason().0, failure.cause.code()),
        (reason, code)
    );
}

#[test]
fn a_page_request_with_everything_enabled_is_let_in() {
    let bed = Bed::first();
    let space = page_request(&bed.unit, &bed.mem, Rid(0x0028), Pasid::new(5), &mut ()).unwrap();
    assert_eq!(space.pasid, Pasid::new(5));
    assert_eq!(ADDR & 0xfff, 0xabc);
}
