//! Values that real software met, taken apart with the macros of Linux
//! `drivers/iommu/intel/iommu.h` spelled as shifts.

use super::*;

/// What a stock Linux guest bound to in our first experiment, typed from its log.
const CAP: u64 = 0x11d2_008c_222f_0406;
const ECAP: u64 = 0x0001_cd98_2400_0fc7;

#[test]
fn capability_fields_agree_with_the_linux_macros() {
    let cap = Cap::from_bits(CAP);
    assert_eq!(u64::from(cap.nd()), CAP & 0x7);
    assert_eq!(u64::from(cap.sagaw()), (CAP >> 8) & 0x1f);
    assert_eq!(u64::from(cap.max_guest_width()), ((CAP >> 16) & 0x3f) + 1);
    assert_eq!(cap.fault_offset(), ((CAP >> 24) & 0x3ff) * 16);
    assert_eq!(u64::from(cap.sslps()), (CAP >> 34) & 0xf);
    assert_eq!(u64::from(cap.psi()), (CAP >> 39) & 1);
    assert_eq!(u64::from(cap.fault_count()), ((CAP >> 40) & 0xff) + 1);
    assert_eq!(u64::from(cap.mamv()), (CAP >> 48) & 0x3f);
    assert_eq!(u64::from(cap.fs1gp()), (CAP >> 56) & 1);
    assert_eq!(u64::from(cap.fs5lp()), (CAP >> 60) & 1);
    // And the numbers themselves.
    assert_eq!((cap.domain_bits(), cap.max_guest_width()), (16, 48));
    assert_eq!((cap.fault_offset(), cap.fault_count()), (0x220, 1));
    assert_eq!((cap.sagaw(), cap.sslps(), cap.mamv()), (4, 3, 18));
}

#[test]
fn extended_capability_fields_agree_with_the_linux_macros() {
    let ecap = Ecap::from_bits(ECAP);
    for (ours, bit) in [
        (ecap.c(), 0),
        (ecap.qi(), 1),
        (ecap.dt(), 2),
        (ecap.ir(), 3),
        (ecap.eim(), 4),
        (ecap.pt(), 6),
        (ecap.sc(), 7),
        (ecap.mts(), 25),
        (ecap.nest(), 26),
        (ecap.prs(), 29),
        (ecap.ers(), 30),
        (ecap.srs(), 31),
        (ecap.nwfs(), 33),
        (ecap.eafs(), 34),
        (ecap.pasid(), 40),
        (ecap.dit(), 41),
        (ecap.pds(), 42),
        (ecap.smts(), 43),
        (ecap.ssads(), 45),
        (ecap.ssts(), 46),
        (ecap.fsts(), 47),
        (ecap.smpwcs(), 48),
        (ecap.rps(), 49),
        (ecap.pms(), 51),
    ] {
        assert_eq!(u64::from(ours), (ECAP >> bit) & 1, "bit {bit}");
    }
    assert_eq!(ecap.iotlb_offset(), ((ECAP >> 8) & 0x3ff) * 16);
    assert_eq!(u64::from(ecap.pss()), (ECAP >> 35) & 0x1f);
    assert_eq!((ecap.iotlb_offset(), ecap.pasid_bits()), (0xf0, 20));
}

#[test]
fn single_bits_of_the_extended_capabilities_land_where_linux_tests_them() {
    let one = |bit: u32| Ecap::from_bits(1 << bit);
    assert!(one(30).ers() && one(31).srs() && one(33).nwfs() && one(34).eafs());
    assert!(one(41).dit() && one(45).ssads() && one(49).rps() && one(51).pms());
    assert!(one(44).vcs() && one(52).adms() && one(53).rprivs() && one(58).sms());
}

#[test]
fn command_and_status_bits_agree_with_linux() {
    // DMA_GCMD_*: TE 31, SRTP 30, WBF 27, QIE 26, IRE 25, SIRTP 24, CFI 23.
    let command = GlobalCommand::from_bits(0xc400_0000);
    assert!(command.te() && command.srtp() && command.qie());
    assert!(!command.wbf() && !command.ire() && !command.sirtp() && !command.cfi());
    assert!(GlobalCommand::from_bits(1 << 27).wbf());
    assert!(GlobalStatus::from_bits(1 << 31).tes());
    assert!(GlobalStatus::from_bits(1 << 30).rtps());
    assert!(GlobalStatus::from_bits(1 << 26).qies());
    assert!(GlobalStatus::from_bits(1 << 25).ires());
}

#[test]
fn a_scalable_root_pointer_has_bit_ten() {
    // DMA_RTADDR_SMT is 1 << 10.
    let root = RootTableAddress::from_bits(0x0123_4000 | 1 << 10);
    assert_eq!(root.mode(), TableMode::SCALABLE);
    assert_eq!(root.table(), Gpa(0x0123_4000));
}

#[test]
fn register_based_invalidations_agree_with_linux() {
    // DMA_CCMD_ICC | DMA_CCMD_DEVICE_INVL | FM(3) | SID(0x0810) | DID(0x21)
    let context = ContextCommand::from_bits(1 << 63 | 3 << 61 | 3 << 32 | 0x0810 << 16 | 0x21);
    assert!(context.invalidate());
    assert_eq!(context.requested(), Granularity::SELECTIVE);
    assert_eq!((context.function_mask(), context.source()), (3, 0x810));
    assert_eq!(context.domain(), 0x21);
    // DMA_TLB_IVT | DMA_TLB_DSI_FLUSH | READ_DRAIN | WRITE_DRAIN | DID(7)
    let iotlb = IotlbCommand::from_bits(1 << 63 | 2 << 60 | 1 << 49 | 1 << 48 | 7 << 32);
    assert!(iotlb.invalidate() && iotlb.drain_reads() && iotlb.drain_writes());
    assert_eq!(
        (iotlb.requested(), iotlb.domain()),
        (Granularity::DOMAIN, 7)
    );
    // DMA_TLB_IAIG: bits 58:57.
    assert_eq!(
        IotlbCommand::from_bits(1 << 57).actual(),
        Granularity::GLOBAL
    );
    let address = InvalidateAddress::from_bits(0x7000 | 1 << 6 | 3);
    assert_eq!((address.page(), address.mask()), (7, 3));
    assert!(address.leaf_only());
}

#[test]
fn the_queue_address_of_a_scalable_linux_has_wide_descriptors_and_two_pages() {
    // dmar.c sets BIT_ULL(11) | BIT_ULL(0) when scalable mode is supported.
    let queue = InvalidationQueueAddress::from_bits(0x0567_8000 | 1 << 11 | 1);
    assert!(queue.wide());
    assert_eq!(queue.base(), Gpa(0x0567_8000));
    assert_eq!((queue.bytes(), queue.descriptor_bytes()), (0x2000, 32));
}

#[test]
fn fault_status_agrees_with_linux() {
    // PFO 0, PPF 1, IQE 4, ICE 5, ITE 6, PRO 7, index at 8.
    let status = FaultStatus::from_bits(0x0000_2573);
    assert!(status.pfo() && status.ppf() && status.iqe() && status.ice() && status.ite());
    assert!(!status.pro());
    assert_eq!(status.fri(), 0x25);
}

#[test]
fn an_error_record_agrees_with_linux() {
    // DMAR_IQER_REG_IQEI bits 3:0, ITESID 47:32, ICESID 63:48.
    let record = QueueErrorRecord::from_bits(0x1234_0810_0000_0003);
    assert_eq!(record.error(), QueueError::TYPE);
    assert_eq!(record.timeout_source(), 0x0810);
    assert_eq!(record.completion_source(), 0x1234);
}

#[test]
fn page_request_queue_pointers_step_by_32_bytes() {
    assert_eq!(PageQueuePointer::from_bits(0x40).index(), 2);
    // PRQ_ORDER 4 in Linux: PQA.PQS is 4, 64 KiB.
    assert_eq!(PageQueueAddress::from_bits(0x10_0004).bytes(), 0x1_0000);
    assert!(PageRequestStatus::from_bits(2).overflow());
    assert!(EventControl::from_bits(1 << 31).masked());
    assert!(EventControl::from_bits(1 << 30).pending());
    assert!(ProtectedMemoryEnable::from_bits(1 << 31).enable());
    assert!(ProtectedMemoryEnable::from_bits(1).status());
}
