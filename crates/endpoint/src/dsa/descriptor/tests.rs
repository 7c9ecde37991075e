use super::*;
use zerocopy::IntoBytes;

/// Typed from the field table of "Memory Move", byte by byte.
const MOVE: [u8; 64] = [
    0x05, 0x00, 0x00, 0x80, // PASID 5 | Priv
    0x1e, 0x01, 0x00,
    0x03, // block, valid, request record, request interrupt | cache | operation 3
    0x20, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // completion record address 0x3020
    0x00, 0x10, 0x00, 0x00, 0xff, 0x7f, 0x00, 0x00, // source
    0x08, 0x20, 0x00, 0x00, 0xff, 0x7f, 0x00, 0x00, // destination
    0x00, 0x20, 0x00, 0x00, // transfer size 0x2000
    0x03, 0x00, 0x00, 0x00, // interrupt handle 3
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
];

#[test]
fn a_memory_move_reads_from_literal_bytes() {
    let raw = RawDescriptor::from_bytes(&MOVE);
    assert_eq!(raw.operation(), Operation::MOVE);
    let flags = flag::BLOCK_ON_FAULT
        | flag::RECORD_VALID
        | flag::REQUEST_RECORD
        | flag::REQUEST_INTERRUPT
        | flag::CACHE;
    assert_eq!(raw.head().flags(), flags);
    assert_eq!(raw.record.get(), 0x3020);
    assert_eq!(raw.first.get(), 0x7fff_0000_1000);
    assert_eq!(raw.second.get(), 0x7fff_0000_2008);
    assert_eq!(raw.size.get(), 0x2000);
    assert_eq!(raw.handle.get(), 3);
    assert_eq!(raw.as_bytes(), MOVE);
}

#[test]
fn the_fields_lie_where_struct_dsa_hw_desc_has_them() {
    // include/uapi/linux/idxd.h: pasid:20, rsvd:11, priv:1; flags:24, opcode:8; then 64-bit words.
    let word = |at: usize| u32::from_le_bytes(MOVE[at..][..4].try_into().unwrap());
    assert_eq!(word(0) & 0xf_ffff, 5);
    assert_eq!(word(0) >> 31, 1);
    assert_eq!(word(4) >> 24, 3, "DSA_OPCODE_MEMMOVE");
    // IDXD_OP_FLAG_BOF | CRAV | RCR | RCI | CC
    assert_eq!(
        word(4) & 0xff_ffff,
        0x0002 | 0x0004 | 0x0008 | 0x0010 | 0x0100
    );
    assert_eq!(flag::FENCE, 0x0001);
    assert_eq!(flag::CHECK_RESULT, 0x0080, "IDXD_OP_FLAG_CR");
    assert_eq!(flag::CLASS_1, 0x0200, "IDXD_OP_FLAG_ADDR1_TCS");
    assert_eq!(flag::CLASS_2, 0x0400, "IDXD_OP_FLAG_ADDR2_TCS");
    assert_eq!(flag::CLASS_RECORD, 0x1000, "IDXD_OP_FLAG_CR_TCS");
    assert_eq!(flag::STRICT_ORDER, 0x2000, "IDXD_OP_FLAG_STORD");
    assert_eq!(
        std::mem::offset_of!(RawDescriptor, specific),
        40,
        "expected_res"
    );
}
