//! Address Translation Services: the ranges that an invalidation names.
//!
//! Source: PCI Express Base Specification, "Invalidate Request Message Body". VT-d and AMD-Vi write
//! the ranges of their own caches in the same way.

use iopf::Iova;

/// A naturally aligned range of input addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// First address.
    pub addr: Iova,
    /// Size in bytes as a power of two, 12–64. 64 is every address.
    pub size_shift: u8,
}

impl Range {
    /// Every address.
    pub const ALL: Self = Self {
        addr: Iova(0),
        size_shift: 64,
    };

    /// The range of 4 KiB pages whose number differs from `page`'s in at most the low `mask` bits.
    pub(crate) const fn masked(page: u64, mask: u8) -> Self {
        let size_shift = if mask >= 52 { 64 } else { mask + 12 };
        Self {
            addr: Iova(floor(page << 12, size_shift)),
            size_shift,
        }
    }

    /// The range that an address with a size bit names: with the bit set, the lowest clear address
    /// bit from 12 on is the top bit inside the range.
    pub(crate) const fn sized(page: u64, large: bool) -> Self {
        if !large {
            return Self::masked(page, 0);
        }
        // A page number has 52 bits, so this stays below 54.
        let mut mask = 1;
        while page >> (mask - 1) & 1 != 0 {
            mask += 1;
        }
        Self::masked(page, mask)
    }

    /// Page number and size bit that name it.
    pub(crate) const fn to_sized(self) -> (u64, bool) {
        let page = floor(self.addr.0, self.size_shift) >> 12;
        match self.size_shift {
            0..=12 => (page, false),
            13..=63 => (page | ((1 << (self.size_shift - 13)) - 1), true),
            _ => ((1 << 51) - 1, true),
        }
    }
}

const fn floor(addr: u64, size_shift: u8) -> u64 {
    if size_shift >= 64 {
        0
    } else {
        addr & (u64::MAX << size_shift)
    }
}

#[cfg(test)]
mod tests;
