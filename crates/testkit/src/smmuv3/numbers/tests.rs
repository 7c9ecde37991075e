use super::{
    atc_inv, cfgi_cd, pri_resp, resume, stall_term, sync_to, tlbi_asid, tlbi_ipa, tlbi_range,
};

/// `FIELD_PREP` of Linux's masks, done by hand.
#[test]
fn commands_have_their_fields_where_linux_puts_them() {
    assert_eq!(cfgi_cd(0x20, 0xbeef, true), [0x20_0bee_f005, 1]);
    assert_eq!(tlbi_asid(0x1234), [0x1234_0000_0000_0011, 0]);
    assert_eq!(
        tlbi_range(0x1234, 0x5678_9123, 2, 9),
        [0x1234_0000_0090_2012, 0x5678_9400]
    );
    assert_eq!(
        tlbi_ipa(0x1234, 0x5678_9123),
        [0x1234_0000_002a, 0x5678_9000]
    );
    assert_eq!(
        atc_inv(0x20, Some(0xbeef), 0x5123, 3),
        [0x20_0bee_f840, 0x5003]
    );
    assert_eq!(atc_inv(0x20, None, 0, 52), [0x20_0000_0040, 52]);
    assert_eq!(
        pri_resp(0x20, Some(0xbeef), 0x155, 2),
        [0x20_0bee_f841, 0x2155]
    );
    assert_eq!(resume(0x20, 0x89ab, 1), [0x20_0000_1044, 0x89ab]);
    assert_eq!(stall_term(0x20), [0x20_0000_0045, 0]);
    assert_eq!(sync_to(0x1_2345_6010, 7), [0x7_0fc0_1046, 0x1_2345_6010]);
}
