use super::{complete_ppr, completion_wait, invalidate_device_tlb, invalidate_pages};

/// Linux `build_inv_address`: 8 KiB has no ones, more has ones below the highest bit.
#[test]
fn the_size_of_an_invalidation_is_told_by_its_lowest_zero() {
    let address = |at, order| invalidate_pages(0, None, at, order)[1];
    assert_eq!(address(0x1234_5678, 0), 0x1234_5002);
    assert_eq!(address(0x1234_5678, 1), 0x1234_4003);
    assert_eq!(address(0x1234_5678, 2), 0x1234_5003);
    assert_eq!(address(0x1234_5678, 9), 0x122f_f003);
    assert_eq!(address(0, 52), 0x7fff_ffff_ffff_f003);
}

#[test]
fn commands_have_their_fields_where_linux_puts_them() {
    assert_eq!(
        completion_wait(0x1_2345_6008, 7),
        [0x1000_0001_2345_6009, 7]
    );
    assert_eq!(
        invalidate_pages(0x1234, Some(0xbeef), 0x5000, 0),
        [0x3000_1234_0000_beef, 0x5006]
    );
    assert_eq!(
        invalidate_device_tlb(0x0820, Some(0xbeef), 0x5000, 0),
        [0x40ef_0820_20be_0820, 0x5004]
    );
    assert_eq!(
        complete_ppr(0x0820, Some(0xbeef), 0x155, 0xf),
        [0x7000_beef_0000_0820, 0x0000_f155_0000_0004]
    );
}
