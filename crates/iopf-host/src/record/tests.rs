//! Literal bytes against the uAPI header.

use super::*;

/// Written out by hand from `struct iommu_hwpt_pgfault`, for a little-endian machine.
const REQUEST: [u8; 40] = [
    0x87, 0x00, 0x00, 0x00, // flags: PASID_VALID | LAST_PAGE | bit 2, and bit 7 of no name
    0x04, 0x00, 0x00, 0x00, // dev_id 4
    0x05, 0x00, 0x00, 0x00, // pasid 5
    0x08, 0x01, 0x00, 0x00, // grpid 0x108
    0x13, 0x00, 0x00, 0x00, // perm: read, write, and bit 4 of no name
    0x00, 0x00, 0x00, 0x00, // reserved
    0x00, 0x10, 0xad, 0xde, 0x00, 0x00, 0xff, 0xff, // addr
    0x00, 0x20, 0x00, 0x00, // length
    0x2a, 0x00, 0x00, 0x00, // cookie 42
];

#[test]
#[cfg(target_endian = "little")]
fn a_page_request_decodes_from_literal_bytes_and_bits_without_a_name_are_masked() {
    let raw = RawFault::read_from_bytes(&REQUEST).unwrap();
    assert_eq!((raw.dev_id, raw.cookie, raw.length), (4, 42, 0x2000));
    assert!(raw.has_unnamed_bits());
    assert_eq!(
        raw.request([7, 8]),
        PageRequest {
            pasid: Pasid::new(5),
            group: GroupIndex(0x108),
            addr: Iova(0xffff_0000_dead_1000),
            access: Access::RW,
            last: true,
            response_needs_pasid: true,
            private_data: [7, 8],
        }
    );
}

#[test]
fn a_pasid_without_its_valid_bit_is_none() {
    let raw = RawFault {
        pasid: 5,
        flags: RawFault::LAST_PAGE,
        ..RawFault::default()
    };
    assert_eq!(raw.request([0; 2]).pasid, None);
    assert!(!raw.has_unnamed_bits());
}

#[test]
#[cfg(target_endian = "little")]
fn failure_is_said_as_invalid_since_the_kernel_refuses_it() {
    for (response, code) in [
        (Response::Success, 0),
        (Response::Invalid, 1),
        (Response::Failure, 1),
    ] {
        let raw = RawAnswer::new(0x0102, response);
        assert_eq!(raw.as_bytes(), [2, 1, 0, 0, code, 0, 0, 0]);
    }
}
