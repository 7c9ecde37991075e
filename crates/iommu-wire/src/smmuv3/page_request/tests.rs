use super::*;
use zerocopy::{FromBytes, IntoBytes};

/// Typed from Linux's table: substream 0x30005 of stream 0x1_0020, a privileged write to
/// 0x7fde_adbe_e000, group 0x181, last.
const WRITE: [u8; 16] = [
    0x20, 0x00, 0x01, 0x00, // StreamID
    0x05, 0x00, 0x03, 0xe4, // SubstreamID, Priv at 58, W at 61, Last at 62, SSV at 63
    0x81, 0xe1, 0xbe, 0xad, 0xde, 0x7f, 0x00, 0x00, // PRGIndex, page address
];

fn raw(bytes: &[u8; 16]) -> RawPageRequest {
    RawPageRequest::read_from_bytes(bytes).unwrap()
}

#[test]
fn a_request_decodes_from_literal_bytes() {
    let entry = Entry::decode(&raw(&WRITE));
    assert_eq!(
        entry,
        Entry {
            stream: Rid(0x1_0020),
            message: PageMessage::Request(PageRequest {
                pasid: Pasid::new(0x3_0005),
                group: GroupIndex(0x181),
                addr: Iova(0x7fde_adbe_e000),
                access: Access::WRITE | Access::PRIV,
                last: true,
                response_needs_pasid: true,
                private_data: [0; 2],
            }),
        }
    );
    assert_eq!(entry.encode().as_bytes(), WRITE);
}

#[test]
fn the_masks_of_linux_find_the_same_values() {
    // PRIQ_* of arm-smmu-v3.h, as arm_smmu_handle_ppr applies them.
    let [low, high] = [0, 8].map(|at| u64::from_le_bytes(WRITE[at..at + 8].try_into().unwrap()));
    assert_eq!(low & 0xffff_ffff, 0x1_0020, "PRIQ_0_SID");
    assert_eq!(low >> 32 & 0xf_ffff, 0x3_0005, "PRIQ_0_SSID");
    assert_ne!(low & 1 << 58, 0, "PRIQ_0_PERM_PRIV");
    assert_eq!(low & 1 << 59, 0, "PRIQ_0_PERM_EXEC");
    assert_eq!(low & 1 << 60, 0, "PRIQ_0_PERM_READ");
    assert_ne!(low & 1 << 61, 0, "PRIQ_0_PERM_WRITE");
    assert_ne!(low & 1 << 62, 0, "PRIQ_0_PRG_LAST");
    assert_ne!(low & 1 << 63, 0, "PRIQ_0_SSID_V");
    assert_eq!(high & 0x1ff, 0x181, "PRIQ_1_PRG_IDX");
    assert_eq!(high & !0xfff, 0x7fde_adbe_e000, "PRIQ_1_ADDR_MASK");
}

#[test]
fn without_a_substream_there_is_no_privilege_and_no_execution() {
    let mut bytes = WRITE;
    // R, X and Priv, no SSV.
    bytes[7] = 0x1c;
    let PageMessage::Request(request) = Entry::decode(&raw(&bytes)).message else {
        panic!("a request");
    };
    assert_eq!(request.pasid, None);
    assert_eq!(request.access, Access::READ);
    assert!(!request.last);
    let entry = Entry {
        stream: Rid(1),
        message: PageMessage::Request(PageRequest {
            access: Access::READ | Access::EXEC | Access::PRIV,
            ..request
        }),
    };
    assert_eq!(entry.encode().head.get() >> 56, 0x10);
}

#[test]
fn a_stop_marker_has_a_substream() {
    let entry = Entry {
        stream: Rid(0x20),
        message: PageMessage::StopMarker {
            pasid: Pasid::new(3),
        },
    };
    let mut encoded = entry.encode();
    assert_eq!(Entry::decode(&encoded), entry);
    // The same without SSV is a request of nothing.
    encoded.head = U64::new(encoded.head.get() & !(1 << 63));
    let PageMessage::Request(request) = Entry::decode(&encoded).message else {
        panic!("a request");
    };
    assert_eq!((request.access, request.last), (Access::empty(), true));
}
