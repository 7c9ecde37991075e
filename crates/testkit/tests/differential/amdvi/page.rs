//! Arithmetic of host tables: AMD 48882, "I/O Page Tables for Host Translations".

/// The bits of an address below `shift`, which is 63 at most.
pub(crate) const fn offset(shift: u8) -> u64 {
    !(!0 << shift)
}

/// The size of a page of this level's own, 1–6, as a power of two.
pub(crate) const fn own_shift(level: u8) -> u8 {
    3 + 9 * level
}

/// Which entry of a table of this level is for `iova`.
pub(crate) const fn index(iova: u64, level: u8) -> u64 {
    iova >> own_shift(level) & 0x1ff
}

/// The address of an entry with Next Level 7 that maps a page of this size: every bit from 12 up to
/// the highest but one below the size is set, and the highest is not.
pub(crate) const fn encoded(base: u64, shift: u8) -> u64 {
    base & !offset(shift) | offset(shift - 1) & !0xfff
}
