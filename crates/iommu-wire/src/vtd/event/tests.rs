//! Records typed from the field table, and the masks of Linux and VirtualBox upon them.

use super::*;

/// A write by 00:05.0 to 0xdead000 without PASID, read from a register file by hand:
/// low half 0x0dead000, high half F | T=0 | FR 5 | SID 0x28.
const WRITE: [u8; 16] = [
    0x00, 0xd0, 0xea, 0x0d, 0x00, 0x00, 0x00, 0x00, // FI
    0x28, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x80, // SID 0x28, FR 5, F
];

/// A privileged execute read by 3a:02.1 of PASID 0xabcde at 0x7f1234567000, reason 0x71,
/// as a translation request.
const READ: [u8; 16] = [
    0x00, 0x70, 0x56, 0x34, 0x12, 0x7f, 0x00, 0x00, // FI
    0x11, 0x3a, 0x00, 0xe0, // SID 0x3a11; PRIV 29, EXE 30, PP 31
    0x71, 0xde, 0xbc, 0xda, // FR; PV; AT=01, T1, F (0xa | 0x1<<4 | 0x4<<4 | 0x8<<4)
];

fn halves(bytes: &[u8; 16]) -> (u64, u64) {
    let half = |at: usize| {
        bytes[at..at + 8]
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    (half(0), half(8))
}

#[test]
fn a_write_without_pasid_decodes_from_literal_bytes() {
    let raw = RawFault::read_from_bytes(&WRITE).unwrap();
    let event = Event::decode(&raw).unwrap();
    assert_eq!(
        event,
        Event {
            source: Rid::new(0, 5, 0).unwrap(),
            reason: FaultReason::LGN_2,
            request: RequestType::WRITE,
            address_type: AddressType::UNTRANSLATED,
            pasid: None,
            info: FaultInfo::Page(Iova(0xdea_d000)),
        }
    );
    assert_eq!(event.encode().as_bytes(), WRITE);
}

#[test]
fn a_translation_request_with_pasid_decodes_from_literal_bytes() {
    let raw = RawFault::read_from_bytes(&READ).unwrap();
    let event = Event::decode(&raw).unwrap();
    assert_eq!(
        event,
        Event {
            source: Rid::new(0x3a, 2, 1).unwrap(),
            reason: FaultReason::SFL_2,
            request: RequestType::READ,
            address_type: AddressType::TRANSLATION,
            pasid: Some(FaultPasid {
                pasid: Pasid::new(0xabcde).unwrap(),
                execute: true,
                privileged: true,
            }),
            info: FaultInfo::Page(Iova(0x7f12_3456_7000)),
        }
    );
    assert_eq!(event.encode().as_bytes(), READ);
}

#[test]
fn the_32_bit_accesses_of_linux_find_the_same_fields() {
    let (low, high) = halves(&READ);
    let top = high >> 32;
    let mid = high & 0xffff_ffff;
    // DMA_FRCD_F, dma_frcd_type, dma_frcd_fault_reason, dma_frcd_pasid_value on bits 127:96;
    // dma_frcd_source_id and dma_frcd_pasid_present on bits 95:64.
    assert_ne!(top & 1 << 31, 0);
    assert_eq!(top >> 30 & 1, 1, "a read");
    assert_eq!(top & 0xff, 0x71);
    assert_eq!(top >> 8 & 0xf_ffff, 0xabcde);
    assert_eq!(mid & 0xffff, 0x3a11);
    assert_eq!(mid >> 31 & 1, 1);
    assert_eq!(low & !0xfff, 0x7f12_3456_7000);
}

#[test]
fn the_masks_of_virtualbox_find_the_same_fields() {
    let (_, high) = halves(&READ);
    // VTD_BF_1_FRCD_REG_*_MASK.
    assert_ne!(high & 0x2000_0000, 0, "PRIV");
    assert_ne!(high & 0x4000_0000, 0, "EXE");
    assert_eq!((high & 0x3000_0000_0000_0000) >> 60, 1, "AT");
    assert_ne!(high & 0x4000_0000_0000_0000, 0, "T1");
    assert_eq!(high & 0x1000_0000, 0, "T2");
    assert_eq!((high & 0x0fff_ff00_0000_0000) >> 40, 0xabcde, "PV");
}

#[test]
fn a_register_without_its_fault_bit_says_nothing() {
    let mut bytes = WRITE;
    bytes[15] = 0;
    assert_eq!(
        Event::decode(&RawFault::read_from_bytes(&bytes).unwrap()),
        None
    );
}

#[test]
fn an_interrupt_fault_carries_an_index_in_its_top_bits() {
    // Linux prints `addr >> 48` for these.
    let mut bytes = WRITE;
    bytes[..8].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0x34, 0x12]);
    bytes[12] = 0x22;
    let event = Event::decode(&RawFault::read_from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!(event.info, FaultInfo::InterruptIndex(0x1234));
    assert_eq!(event.encode().as_bytes(), bytes);
    assert_eq!(Unrecoverable::from(event).addr, None);
}

#[test]
fn an_unknown_reason_survives() {
    let mut bytes = WRITE;
    bytes[12] = 0xee;
    let event = Event::decode(&RawFault::read_from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!(event.reason, FaultReason(0xee));
    assert_eq!(event.reason.info(), None);
    assert!(!event.reason.qualified());
    assert_eq!(event.encode().as_bytes(), bytes);
}

#[test]
fn the_neutral_form_keeps_what_is_valid() {
    let event = Event::decode(&RawFault::read_from_bytes(&READ).unwrap()).unwrap();
    let fault = Unrecoverable::from(event);
    assert_eq!(fault.reason, Reason(0x71));
    assert_eq!(
        fault.access,
        Access::READ | Access::EXEC | Access::PRIV,
        "a read with both flags"
    );
    assert_eq!(fault.pasid, Pasid::new(0xabcde));
    assert_eq!(fault.addr, Some(Iova(0x7f12_3456_7000)));
    assert_eq!(fault.fetch_addr, None);
}

#[test]
fn reasons_are_sorted_and_have_the_numbers_of_virtualbox() {
    assert!(
        FaultReason::all()
            .windows(2)
            .all(|w| w[0].reason < w[1].reason)
    );
    // VTDADDRFAULT.
    for (reason, number) in [
        (FaultReason::LRT_1, 0x8),
        (FaultReason::LRT_2, 0x1),
        (FaultReason::LRT_3, 0xa),
        (FaultReason::LCT_1, 0x9),
        (FaultReason::LCT_2, 0x2),
        (FaultReason::LCT_3, 0xb),
        (FaultReason::LCT_4, 0x3),
        (FaultReason::LCT_5, 0xd),
        (FaultReason::LSL_1, 0x7),
        (FaultReason::LSL_2, 0xc),
        (FaultReason::LGN_1, 0x4),
        (FaultReason::LGN_4, 0xe),
        (FaultReason::RTA_4, 0x33),
        (FaultReason::SCT_9, 0x48),
        (FaultReason::SPT_6, 0x5d),
        (FaultReason::SFL_8, 0x77),
        (FaultReason::SFL_9, 0x90),
        (FaultReason::SFL_10, 0x91),
        (FaultReason::SSL_6, 0x7d),
        (FaultReason::SGN_10, 0x89),
    ] {
        assert_eq!(reason.0, number, "{reason}");
    }
}

#[test]
fn qualification_agrees_with_qemu() {
    // vtd_qualified_faults in hw/i386/intel_iommu.c, by number.
    for unqualified in [0x01, 0x08, 0x09, 0x0a, 0x50, 0x58] {
        assert!(!FaultReason(unqualified).qualified(), "{unqualified:#x}");
    }
    for qualified in [
        0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x0d, 0x0e, 0x51, 0x59, 0x5b, 0x70, 0x71, 0x72,
        0x73, 0x80, 0x81, 0x85, 0x87, 0x91,
    ] {
        assert!(FaultReason(qualified).qualified(), "{qualified:#x}");
    }
}

#[test]
fn texts_are_those_linux_prints() {
    let text = |number| FaultReason(number).info().and_then(|info| info.linux);
    assert_eq!(text(0x05), Some("PTE Write access is not set"));
    assert_eq!(
        text(0x26),
        Some("Blocked an interrupt request due to source-id verification failure")
    );
    assert_eq!(
        text(0x59),
        Some("SM: Present bit in PASID Table Entry is clear")
    );
    assert_eq!(
        text(0x90),
        Some("SM: A/D bit update needed in first-level entry when set up in no snoop")
    );
    assert_eq!(text(0x0e), None, "Linux's table ends at 0x0d");
}
