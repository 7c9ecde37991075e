use super::*;

/// Typed from the field table: 00:04.0, PASID 0x30005, a privileged write to 0x7fdeadbee000, group
/// 0x181, last.
const WRITE: [u8; 16] = [
    0x20, 0x00, 0x05, 0x00, // device 0x20, PASID 15:0
    0x81, 0x0f, 0x20,
    0x11, // tag 0x181 | last at 9 | PASID 19:16 at 13:10, WRITE | GN, code 1
    0x00, 0xe0, 0xbe, 0xad, 0xde, 0x7f, 0x00, 0x00, // address
];

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
}

#[test]
fn a_request_decodes_from_literal_bytes() {
    let raw = RawPpr::read_from_bytes(&WRITE).unwrap();
    let ppr = Ppr::decode(&raw);
    assert_eq!(
        ppr,
        Ppr::PageServiceRequest {
            requester: Rid::new(0, 4, 0).unwrap(),
            message: PageMessage::Request(PageRequest {
                pasid: Pasid::new(0x3_0005),
                group: GroupIndex(0x181),
                addr: Iova(0x7fde_adbe_e000),
                access: Access::WRITE | Access::PRIV,
                last: true,
                response_needs_pasid: true,
                private_data: [0; 2],
            }),
            malformed: false,
        }
    );
    assert_eq!(ppr.encode().as_bytes(), WRITE);
}

#[test]
fn the_masks_of_linux_find_the_same_values() {
    // PPR_* of amd_iommu_types.h.
    let [low, high] = words(&WRITE);
    assert_eq!(low >> 60 & 0xf, 1, "PPR_REQ_TYPE");
    assert_eq!(
        low >> 48 & 0xfff,
        0x020 | 0x100,
        "PPR_FLAG_WRITE | PPR_FLAG_GN"
    );
    assert_eq!(low & 0xffff, 0x20, "PPR_DEVID");
    assert_eq!(low >> 32 & 0x1ff, 0x181, "PPR_TAG");
    assert_ne!(low >> 32 & 0x200, 0, "PPR_TAG_LAST_PAGE");
    let pasid = (low >> 42 & 0xf) << 16 | low >> 16 & 0xffff;
    assert_eq!(pasid, 0x3_0005, "PPR_PASID");
    assert_eq!(high, 0x7fde_adbe_e000);
}

#[test]
fn each_flag_is_where_linux_has_it() {
    let flags = |flags: u64| {
        let raw = RawPpr {
            head: U64::new(1 << 60 | flags << 48),
            address: U64::new(0),
        };
        match Ppr::decode(&raw) {
            Ppr::PageServiceRequest {
                message: PageMessage::Request(request),
                malformed,
                ..
            } => (request.access, request.pasid.is_some(), malformed),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(flags(0x004 | 0x040), (Access::READ, false, false));
    assert_eq!(flags(0x020 | 0x040), (Access::WRITE, false, false));
    assert_eq!(flags(0x002 | 0x040), (Access::EXEC, false, false));
    assert_eq!(flags(0x000), (Access::PRIV, false, false));
    assert_eq!(flags(0x040 | 0x080), (Access::empty(), false, true));
    assert_eq!(flags(0x040 | 0x100), (Access::empty(), true, false));
}

#[test]
fn a_stop_marker_round_trips() {
    let ppr = Ppr::PageServiceRequest {
        requester: Rid(0x20),
        message: PageMessage::StopMarker {
            pasid: Pasid::new(3),
        },
        malformed: false,
    };
    assert_eq!(Ppr::decode(&ppr.encode()), ppr);
}

#[test]
fn an_unknown_code_survives() {
    let mut bytes = WRITE;
    bytes[7] = 0x21;
    let ppr = Ppr::decode(&RawPpr::read_from_bytes(&bytes).unwrap());
    assert!(matches!(ppr, Ppr::Other(_)));
    assert_eq!(ppr.encode().as_bytes(), bytes);
}
