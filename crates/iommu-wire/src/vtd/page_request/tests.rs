use super::*;
use iopf::{GroupIndex, Iova, PageRequest};

/// Typed from the field table: 00:04.0, PASID 3, a privileged write to 0x7fdeadbee000, group 0x81,
/// last.
const WRITE: [u8; 32] = [
    0x01, 0x01, 0x20, 0x00, // type 1, PP, RID 0x20
    0x03, 0x00, 0x20, 0x00, // PASID 3, PMR (bit 53)
    0x0e, 0xe4, 0xbe, 0xad, 0xde, 0x7f, 0x00, 0x00, // 0x7fdeadbee000 | 0x81 << 3 | L | W
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // private data
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

#[test]
fn a_request_decodes_from_literal_bytes() {
    let raw = RawDescriptor::read_from_bytes(&WRITE).unwrap();
    let descriptor = Descriptor::decode(&raw);
    assert_eq!(
        descriptor,
        Descriptor::Page {
            requester: Rid::new(0, 4, 0).unwrap(),
            message: PageMessage::Request(PageRequest {
                pasid: Pasid::new(3),
                group: GroupIndex(0x81),
                addr: Iova(0x7fde_adbe_e000),
                access: Access::WRITE | Access::PRIV,
                last: true,
                response_needs_pasid: true,
                private_data: [0x1122_3344_5566_7788, 0],
            }),
        }
    );
    assert_eq!(descriptor.encode().as_bytes(), WRITE);
}

#[test]
fn the_bit_fields_of_linux_find_the_same_values() {
    // struct page_req_dsc: type:8 pasid_present:1 rsvd:7 rid:16 pasid:20 exe_req:1 pm_req:1;
    // rd_req:1 wr_req:1 lpig:1 prg_index:9 addr:52.
    let quad = |at: usize| u64::from_le_bytes(WRITE[at..at + 8].try_into().unwrap());
    let (low, high) = (quad(0), quad(8));
    assert_eq!(low & 0xff, 1);
    assert_eq!(low >> 8 & 1, 1);
    assert_eq!(low >> 16 & 0xffff, 0x20);
    assert_eq!(low >> 32 & 0xf_ffff, 3);
    assert_eq!(low >> 52 & 1, 0, "exe_req");
    assert_eq!(low >> 53 & 1, 1, "pm_req");
    assert_eq!(high & 7, 0b110);
    assert_eq!(high >> 3 & 0x1ff, 0x81);
    assert_eq!(high >> 12, 0x7_fdea_dbee);
}

#[test]
fn a_stop_marker_round_trips() {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&[0x01, 0x01, 0x20, 0x00, 0x03, 0x00, 0x00, 0x00]);
    bytes[8] = 0x04;
    let descriptor = Descriptor::decode(&RawDescriptor::read_from_bytes(&bytes).unwrap());
    assert_eq!(
        descriptor,
        Descriptor::Page {
            requester: Rid(0x20),
            message: PageMessage::StopMarker {
                pasid: Pasid::new(3)
            },
        }
    );
    assert_eq!(descriptor.encode().as_bytes(), bytes);
}

#[test]
fn an_unknown_type_survives() {
    let mut bytes = WRITE;
    bytes[0] = 0x7e;
    let descriptor = Descriptor::decode(&RawDescriptor::read_from_bytes(&bytes).unwrap());
    assert!(matches!(descriptor, Descriptor::Other(_)));
    assert_eq!(descriptor.encode().as_bytes(), bytes);
}
