use super::*;

#[test]
fn entries_start_masked_and_keep_what_a_driver_writes() {
    let mut table = MsixTable::new(2);
    assert_eq!(table.size(), 32);
    // The words Linux writes: address low and high, data, vector control.
    table.write(16, &0xfee0_1007u32.to_le_bytes());
    table.write(20, &0u32.to_le_bytes());
    table.write(24, &0x4021u32.to_le_bytes());
    let mut entry = [0; 16];
    table.read(16, &mut entry);
    assert_eq!(
        entry,
        [
            0x04, 0x10, 0xe0, 0xfe, 0, 0, 0, 0, 0x21, 0x40, 0, 0, 1, 0, 0, 0
        ]
    );
    table.write(28, &[0xfe, 0xff, 0xff, 0xff]);
    table.read(28, &mut entry[..4]);
    assert_eq!(entry[..4], [0; 4]);
    table.reset();
    table.read(16, &mut entry);
    assert_eq!(entry, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn what_lies_beyond_the_table_is_zero_and_takes_nothing() {
    let mut table = MsixTable::new(1);
    let before = table.clone();
    for offset in [16, 17, u64::MAX] {
        table.write(offset, &[0xff; 8]);
        let mut bytes = [0xaa; 8];
        table.read(offset, &mut bytes);
        assert_eq!(bytes, [0; 8]);
    }
    assert_eq!(table, before);
}
