//! Records typed from the field tables, and the masks of Linux and QEMU upon them.

use super::*;
use zerocopy::{FromBytes, IntoBytes};

/// Substream 5 of stream 0x42 reads 0x1000_2abc, stalled with tag 7: F_TRANSLATION at stage 1.
const STALLED: [u8; 32] = [
    0x10, 0x58, 0x00, 0x00, // number 0x10, SSV at 11, SubstreamID at 31:12
    0x42, 0x00, 0x00, 0x00, // StreamID
    0x07, 0x00, 0x00, 0x80, // STAG, Stall at 95
    0x08, 0x02, 0x00, 0x00, // RnW at 99, CLASS = IN at 105:104
    0xbc, 0x2a, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, // InputAddr
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // IPA
];

/// Stream 0x1_0000 writes 0xffff_0000_dead_b000 with privilege; stage 2 does not let the walk read the
/// stage-1 descriptor at 0x12_3456_7000: F_PERMISSION.
const NESTED: [u8; 32] = [
    0x13, 0x00, 0x00, 0x00, // number 0x13
    0x00, 0x00, 0x01, 0x00, // StreamID
    0x00, 0x00, 0x00, 0x00, // no stall
    0x82, 0x11, 0x00, 0x00, // PnU at 97, S2 at 103, CLASS = TT, TTRnW at 108
    0x00, 0xb0, 0xad, 0xde, 0x00, 0x00, 0xff, 0xff, // InputAddr
    0x00, 0x70, 0x56, 0x34, 0x12, 0x00, 0x00, 0x00, // IPA
];

/// Stream 0x8 fetches an instruction at 0x4000; the stage-1 descriptor at 0x9_8765_4328 cannot be read:
/// F_WALK_EABT.
const WALK: [u8; 32] = [
    0x0b, 0x00, 0x00, 0x00, // number 0x0b
    0x08, 0x00, 0x00, 0x00, // StreamID
    0x34, 0x12, 0x00, 0x00, // Reason
    0x0c, 0x01, 0x00, 0x00, // InD at 98, RnW, CLASS = TT
    0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // InputAddr
    0x28, 0x43, 0x65, 0x87, 0x09, 0x00, 0x00, 0x00, // FetchAddr
];

/// A hint: substream 0xfffff of stream 3 will read and write, user, and execute, privileged, 16 pages at
/// 0x7000: E_PAGE_REQUEST.
const HINT: [u8; 32] = [
    0x24, 0xf8, 0xff, 0xff, // number 0x24, SSV, SubstreamID
    0x03, 0x00, 0x00, 0x00, // StreamID
    0x00, 0x00, 0x00, 0x00, //
    0x2c, 0x00, 0x01, 0x00, // uW at 98, uR at 99, pX at 101, Span = 16 at 115:108
    0x00, 0x70, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // InputAddr
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
];

fn raw(bytes: &[u8; 32]) -> RawEvent {
    RawEvent::read_from_bytes(bytes).unwrap()
}

/// The doublewords as Linux's `u64 *evt`.
fn linux(bytes: &[u8; 32]) -> [u64; 4] {
    [0, 8, 16, 24].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
}

/// The words as QEMU's `Evt`.
fn qemu(bytes: &[u8; 32]) -> [u32; 8] {
    [0, 4, 8, 12, 16, 20, 24, 28]
        .map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
}

/// Decodes and encodes again: the bytes must come back.
fn both_ways(bytes: &[u8; 32]) -> Event {
    let event = Event::decode(&raw(bytes));
    assert_eq!(event.encode().as_bytes(), bytes, "{event:?}");
    event
}

fn origin(stream: u32) -> Origin {
    Origin {
        stream: Rid(stream),
        substream: None,
    }
}

#[test]
fn a_stalled_read_decodes_from_literal_bytes() {
    assert_eq!(
        both_ways(&STALLED),
        Event::Translation(Fault {
            origin: Origin {
                stream: Rid(0x42),
                substream: Pasid::new(5),
            },
            stalled: Some(7),
            access: Access::READ,
            class: Class::IN,
            addr: Iova(0x1000_2abc),
            ipa: None,
            table_read: false,
        })
    );
}

#[test]
fn a_table_that_stage_2_refuses_decodes_from_literal_bytes() {
    assert_eq!(
        both_ways(&NESTED),
        Event::Permission(Fault {
            origin: origin(0x1_0000),
            stalled: None,
            access: Access::WRITE | Access::PRIV,
            class: Class::TT,
            addr: Iova(0xffff_0000_dead_b000),
            ipa: Some(Gpa(0x12_3456_7000)),
            table_read: true,
        })
    );
}

#[test]
fn an_aborted_walk_decodes_from_literal_bytes() {
    assert_eq!(
        both_ways(&WALK),
        Event::WalkAbort(WalkAbort {
            origin: origin(8),
            reason: 0x1234,
            access: Access::READ | Access::EXEC,
            second: false,
            class: Class::TT,
            addr: Iova(0x4000),
            fetch: Gpa(0x9_8765_4328),
        })
    );
}

#[test]
fn a_hint_decodes_from_literal_bytes() {
    assert_eq!(
        both_ways(&HINT),
        Event::PageHint(PageHint {
            origin: Origin {
                stream: Rid(3),
                substream: Some(Pasid::MAX),
            },
            pages: 16,
            privileged: Access::EXEC,
            user: Access::RW,
            addr: Iova(0x7000),
        })
    );
}

#[test]
fn the_masks_of_linux_find_the_same_values() {
    // EVTQ_* of arm-smmu-v3.h, as arm_smmu_decode_event applies them.
    let [d0, d1, d2, _] = linux(&STALLED);
    assert_eq!(d0 & 0xff, 0x10, "EVTQ_0_ID");
    assert_eq!(d0 >> 32, 0x42, "EVTQ_0_SID");
    assert_ne!(d0 & 1 << 11, 0, "EVTQ_0_SSV");
    assert_eq!(d0 >> 12 & 0xf_ffff, 5, "EVTQ_0_SSID");
    assert_eq!(d1 & 0xffff, 7, "EVTQ_1_STAG");
    assert_ne!(d1 & 1 << 31, 0, "EVTQ_1_STALL");
    assert_ne!(d1 & 1 << 35, 0, "EVTQ_1_RnW");
    assert_eq!(d1 >> 40 & 3, 2, "EVTQ_1_CLASS");
    assert_eq!(d2, 0x1000_2abc, "EVTQ_2_ADDR");

    let [d0, d1, d2, d3] = linux(&NESTED);
    assert_eq!(d0 & 1 << 11, 0, "EVTQ_0_SSV");
    assert_ne!(d1 & 1 << 33, 0, "EVTQ_1_PnU");
    assert_ne!(d1 & 1 << 39, 0, "EVTQ_1_S2");
    assert_eq!(d1 >> 40 & 3, 1, "EVTQ_1_CLASS_TT");
    assert_ne!(d1 & 1 << 44, 0, "EVTQ_1_TT_READ");
    assert_eq!(d2, 0xffff_0000_dead_b000, "EVTQ_2_ADDR");
    assert_eq!(d3 & 0xf_ffff_ffff_f000, 0x12_3456_7000, "EVTQ_3_IPA");

    let [_, d1, _, d3] = linux(&WALK);
    assert_ne!(d1 & 1 << 34, 0, "EVTQ_1_InD");
    assert_eq!(d3 & 0xf_ffff_ffff_fff8, 0x9_8765_4328, "EVTQ_3_FETCH_ADDR");
}

#[test]
fn the_fields_of_qemu_find_the_same_values() {
    // EVT_SET_* of smmuv3-internal.h.
    let words = qemu(&STALLED);
    assert_eq!(words[0] & 0xff, 0x10, "EVT_SET_TYPE");
    assert_eq!(words[0] >> 11 & 1, 1, "EVT_SET_SSV");
    assert_eq!(words[0] >> 12, 5, "EVT_SET_SSID");
    assert_eq!(words[1], 0x42, "EVT_SET_SID");
    assert_eq!(words[2] & 0xffff, 7, "EVT_SET_STAG");
    assert_eq!(words[2] >> 31, 1, "EVT_SET_STALL");
    assert_eq!(words[3] >> 3 & 1, 1, "EVT_SET_RNW");
    assert_eq!(words[3] >> 8 & 3, 2, "EVT_SET_CLASS");
    assert_eq!(words[4], 0x1000_2abc, "EVT_SET_ADDR");
    let words = qemu(&NESTED);
    assert_eq!(words[3] >> 1 & 1, 1, "EVT_SET_PNU");
    assert_eq!(words[3] >> 7 & 1, 1, "EVT_SET_S2");
    assert_eq!(words[6], 0x3456_7000, "EVT_SET_ADDR2");
    assert_eq!(words[7], 0x12, "EVT_SET_ADDR2");
    assert_eq!(qemu(&WALK)[3] >> 2 & 1, 1, "EVT_SET_IND");
}

#[test]
fn records_of_configuration_carry_who_and_no_address() {
    for (number, name) in [
        (0x02, "C_BAD_STREAMID"),
        (0x04, "C_BAD_STE"),
        (0x0a, "C_BAD_CD"),
    ] {
        let mut bytes = [0; 32];
        // SSV, substream 1, stream 0x0a0b.
        bytes[..8].copy_from_slice(&[number, 0x18, 0x00, 0x00, 0x0b, 0x0a, 0x00, 0x00]);
        let who = Origin {
            stream: Rid(0x0a0b),
            substream: Pasid::new(1),
        };
        let expected = match number {
            0x02 => Event::BadStreamId(who),
            0x04 => Event::BadSte(who),
            _ => Event::BadCd(who),
        };
        assert_eq!(both_ways(&bytes), expected);
        assert_eq!(EventNumber(number).name(), Some(name));
    }
    // Without SSV and SubstreamID: C_BAD_SUBSTREAMID has the second without the first.
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&[0x06, 0, 0, 0, 0x0b, 0x0a, 0, 0]);
    let stream = Rid(0x0a0b);
    assert_eq!(both_ways(&bytes), Event::StreamDisabled { stream });
    bytes[..8].copy_from_slice(&[0x08, 0x10, 0, 0, 0x0b, 0x0a, 0, 0]);
    let substream = Pasid::new(1).unwrap();
    assert_eq!(
        both_ways(&bytes),
        Event::BadSubstreamId { stream, substream }
    );
}

#[test]
fn structures_that_cannot_be_read_carry_where_they_are() {
    for number in [0x03, 0x09, 0x25] {
        let mut bytes = [0; 32];
        bytes[0] = number;
        bytes[4] = 0x10;
        bytes[24..].copy_from_slice(&0x00f1_2345_6789_abc8u64.to_le_bytes());
        let fetch = Fetch {
            origin: origin(0x10),
            reason: 0,
            addr: Gpa(0x00f1_2345_6789_abc8),
        };
        let expected = match number {
            0x03 => Event::SteFetch(fetch),
            0x09 => Event::CdFetch(fetch),
            _ => Event::VmsFetch(fetch),
        };
        assert_eq!(both_ways(&bytes), expected);
    }
}

#[test]
fn forbidden_requests_carry_what_they_asked_for() {
    // F_TRANSL_FORBIDDEN: RnW at 99.
    let mut bytes = [0; 32];
    bytes[0] = 0x07;
    bytes[4] = 0x10;
    bytes[12] = 0x08;
    bytes[16..24].copy_from_slice(&0x1234_5678u64.to_le_bytes());
    assert_eq!(
        both_ways(&bytes),
        Event::TranslatedForbidden(Forbidden {
            stream: Rid(0x10),
            read: true,
            addr: Iova(0x1234_5678),
        })
    );
    // F_BAD_ATS_TREQ: Span at 67:64, rights at 95:92.
    let mut bytes = [0; 32];
    bytes[0] = 0x05;
    bytes[4] = 0x10;
    bytes[8] = 0x02;
    bytes[11] = 0x90;
    bytes[16..24].copy_from_slice(&0x1234_5000u64.to_le_bytes());
    assert_eq!(
        both_ways(&bytes),
        Event::BadAtsRequest(BadAtsRequest {
            origin: origin(0x10),
            span: 2,
            access: Access::READ | Access::PRIV,
            addr: Iova(0x1234_5000),
        })
    );
    // F_UUT: attributes as an F_WALK_EABT has them.
    let mut bytes = [0; 32];
    bytes[0] = 0x01;
    bytes[4] = 0x10;
    bytes[8] = 0x55;
    bytes[12] = 0x02;
    bytes[16] = 0xff;
    assert_eq!(
        both_ways(&bytes),
        Event::UnsupportedTransaction(UnsupportedTransaction {
            origin: origin(0x10),
            reason: 0x55,
            access: Access::WRITE | Access::PRIV,
            addr: Iova(0xff),
        })
    );
}

#[test]
fn conflicts_carry_a_reason() {
    let mut bytes = [0; 32];
    bytes[0] = 0x21;
    bytes[4] = 0x10;
    bytes[8] = 0x55;
    assert_eq!(
        both_ways(&bytes),
        Event::CfgConflict {
            origin: origin(0x10),
            reason: 0x55,
        }
    );
    bytes[0] = 0x20;
    bytes[12] = 0x88;
    bytes[25] = 0x30;
    assert_eq!(
        both_ways(&bytes),
        Event::TlbConflict(TlbConflict {
            origin: origin(0x10),
            reason: 0x55,
            access: Access::READ,
            addr: Iova(0),
            ipa: Some(Gpa(0x3000)),
        })
    );
}

#[test]
fn what_a_fault_does_not_carry_is_not_read() {
    // IPA without S2; TTRnW of another event, and of another class.
    let mut bytes = STALLED;
    bytes[13] |= 0x10;
    bytes[25] = 0x30;
    let event = Event::decode(&raw(&bytes));
    assert_eq!(event, Event::decode(&raw(&STALLED)));
    let mut bytes = NESTED;
    bytes[13] = 0x12;
    let Event::Permission(fault) = Event::decode(&raw(&bytes)) else {
        panic!("a permission fault");
    };
    assert_eq!((fault.class, fault.table_read), (Class::IN, false));
}

#[test]
fn a_tag_makes_a_stalled_record_of_any_fault() {
    let mut fault = *Event::decode(&raw(&STALLED)).fault().unwrap();
    fault.stalled = None;
    let record = Event::Translation(fault).encode();
    assert_eq!(record.stalled(), None);
    assert_eq!(record.with_stall(7).as_bytes(), STALLED);
}

#[test]
fn every_number_survives() {
    for number in 0..=255 {
        let words = [u64::from(number) | 0x123 << 32, 0, 0, 0];
        let record = RawEvent::from_words(words);
        assert_eq!(record.number(), EventNumber(number));
        let event = Event::decode(&record);
        assert_eq!(event.encode().number(), EventNumber(number));
        assert_eq!(
            matches!(event, Event::Other(_)),
            EventNumber(number).name().is_none()
        );
    }
    let words = [0xe0, 1, 2, 3];
    let record = RawEvent::from_words(words);
    assert_eq!(Event::decode(&record).encode().words(), words);
}

#[test]
fn the_neutral_form_has_what_the_record_has() {
    let neutral = Unrecoverable::from(Event::decode(&raw(&NESTED)));
    assert_eq!(
        neutral,
        Unrecoverable {
            reason: Reason(0x13),
            pasid: None,
            access: Access::WRITE | Access::PRIV,
            addr: Some(Iova(0xffff_0000_dead_b000)),
            fetch_addr: Some(Gpa(0x12_3456_7000)),
        }
    );
    let neutral = Unrecoverable::from(Event::decode(&raw(&STALLED)));
    assert_eq!(neutral.pasid, Pasid::new(5));
    assert_eq!(neutral.fetch_addr, None);
}

#[test]
fn an_atomic_operation_is_a_write_and_no_write_fetches_instructions() {
    let dma = |access| Dma {
        requester: Rid(1),
        pasid: None,
        kind: iopf::DmaKind::Untranslated,
        addr: Iova(0),
        access,
    };
    assert_eq!(attributes(&dma(Access::RW)), Access::WRITE);
    assert_eq!(
        attributes(&dma(Access::READ | Access::EXEC | Access::PRIV)),
        Access::READ | Access::EXEC | Access::PRIV
    );
    assert_eq!(
        attributes(&dma(Access::WRITE | Access::EXEC)),
        Access::WRITE
    );
    assert_eq!(attributes(&dma(Access::empty())), Access::READ);
}
