use super::*;
use zerocopy::IntoBytes;

/// Typed from the field table of "Completion Record".
const FAULT: [u8; 32] = [
    0x83, 0x01, 0x00, 0x00, // page fault, by a write | result 1
    0x00, 0x18, 0x00, 0x00, // 0x1800 bytes completed
    0x00, 0x30, 0x00, 0x00, 0xff, 0x7f, 0x00, 0x00, // fault address
    0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // invalid flags
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
];

#[test]
fn a_record_is_literal_bytes() {
    let outcome = Outcome {
        status: Status::PAGE_FAULT.with_write(true),
        result: 1,
        completed: 0x1800,
        fault: 0x7fff_0000_3000,
        invalid_flags: 2,
    };
    assert_eq!(outcome.encode().as_bytes(), FAULT);
}

#[test]
fn the_fields_lie_where_struct_dsa_completion_record_has_them() {
    // status, result, fault_info, rsvd, bytes_completed, fault_addr, invalid_flags:24.
    assert_eq!(FAULT[0] & 0x7f, 3, "DSA_COMP_PAGE_FAULT_NOBOF");
    assert_eq!(FAULT[0] & 0x80, 0x80, "DSA_COMP_STATUS_WRITE");
    assert_eq!(std::mem::offset_of!(RawRecord, completed), 4);
    assert_eq!(std::mem::offset_of!(RawRecord, fault), 8);
    assert_eq!(std::mem::offset_of!(RawRecord, invalid_flags), 16);
}

#[test]
fn the_codes_are_those_of_enum_dsa_completion_status() {
    // Counted off the enumeration in include/uapi/linux/idxd.h.
    let codes = [
        (Status::SUCCESS, 1),
        (Status::FALSE_PREDICATE, 2),
        (Status::PAGE_FAULT, 3),
        (Status::PAGE_REFUSED, 4),
        (Status::BATCH_FAILED, 5),
        (Status::LIST_FAULT, 6),
        (Status::OPERATION, 0x10),
        (Status::FLAGS, 0x11),
        (Status::RESERVED, 0x12),
        (Status::SIZE, 0x13),
        (Status::COUNT, 0x14),
        (Status::OVERLAP, 0x16),
        (Status::LIST_ALIGNMENT, 0x18),
        (Status::HANDLE, 0x19),
        (Status::RECORD_FAULT, 0x1a),
        (Status::RECORD_ALIGNMENT, 0x1b),
    ];
    for (status, code) in codes {
        assert_eq!(status.0, code);
    }
}
