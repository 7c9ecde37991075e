use super::*;

#[test]
fn a_request_decodes_from_a_number_typed_by_hand() {
    // Page 0x7f1234567, group 0x155, last, write: 0x7f1234567000 | 0x155 << 3 | 4 | 2.
    let raw = RawPageRequest::from_bits(0x7f12_3456_7aae);
    let pasid = Pasid::new(5);
    let message = PageMessage::decode(raw, pasid, Access::PRIV | Access::READ);
    assert_eq!(
        message,
        PageMessage::Request(PageRequest {
            pasid,
            group: GroupIndex(0x155),
            addr: Iova(0x7f12_3456_7000),
            access: Access::WRITE | Access::PRIV,
            last: true,
            response_needs_pasid: true,
            private_data: [0; 2],
        })
    );
    assert_eq!(message.encode().into_bits(), 0x7f12_3456_7aae);
}

#[test]
fn a_last_request_for_nothing_is_a_stop_marker() {
    // Linux, intel/prq.c: lpig && !rd_req && !wr_req.
    let pasid = Pasid::new(9);
    let message = PageMessage::decode(RawPageRequest::from_bits(4), pasid, Access::empty());
    assert_eq!(message, PageMessage::StopMarker { pasid });
    assert_eq!(message.encode().into_bits(), 4);
}

#[test]
fn response_codes_are_those_of_linux() {
    // QI_RESP_SUCCESS 0, QI_RESP_INVALID 1, QI_RESP_FAILURE 0xf.
    assert_eq!(Response::from(ResponseCode(0)), Response::Success);
    assert_eq!(Response::from(ResponseCode(1)), Response::Invalid);
    for code in 2..=0xf {
        assert_eq!(Response::from(ResponseCode(code)), Response::Failure);
    }
    assert_eq!(ResponseCode::from(Response::Failure).0, 0xf);
}

#[test]
fn a_group_response_has_its_code_above_the_index() {
    let raw = RawGroupResponse::from_bits(0x0810_1155);
    assert_eq!(raw.group(), 0x155);
    assert_eq!(raw.code(), ResponseCode::INVALID);
    assert_eq!(raw.destination(), 0x0810);
}

#[test]
fn a_wide_group_index_keeps_nine_bits() {
    assert_eq!(group_bits(GroupIndex(0xffff_ffff)), 0x1ff);
    assert_eq!(group_bits(GroupIndex(0x100)), 0x100);
}
