use super::*;

#[test]
fn the_lowest_clear_address_bit_is_the_top_bit_inside_the_range() {
    // Page number, size bit, first address, size as a power of two: worked out by hand.
    for (page, large, addr, size_shift) in [
        (0x7, false, 0x7000, 12),
        (0x6, true, 0x6000, 13),
        (0x10 | 0b011, true, 0x10000, 15),
        (0xf_ffff_ffff_ffff >> 1, true, 0, 64),
        (0xf_ffff_ffff_ffff, true, 0, 64),
    ] {
        let range = Range::sized(page, large);
        assert_eq!(range.addr, Iova(addr), "{page:#x}");
        assert_eq!(range.size_shift, size_shift, "{page:#x}");
    }
}

#[test]
fn every_size_comes_back() {
    for size_shift in (12..=62).chain([64]) {
        let range = Range {
            addr: Iova(if size_shift == 64 { 0 } else { 3 << size_shift }),
            size_shift,
        };
        let (page, large) = range.to_sized();
        assert_eq!(Range::sized(page, large), range);
    }
}
