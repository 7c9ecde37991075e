//! Entries of stage 1 and stage 2 tables: VMSAv8-64 descriptors.
//!
//! Source: Arm Architecture Reference Manual for A-profile, DDI 0487, "VMSAv8-64 descriptor formats";
//! Linux `drivers/iommu/io-pgtable-arm.c` (`ARM_LPAE_PTE_*`) and, for rights in entries that point to
//! tables, `arch/arm64/include/asm/pgtable-hwdef.h` (`PTE_*`, `PMD_TABLE_*`).
//! Addresses have 48 bits. Not covered: 52-bit addresses (bits 15:12 of a 64 KiB granule, bits 9:8 of
//! the others), permission indirection, 128-bit descriptors.
//!
//! What a bit means depends on where the entry stands: one that points to a table, one of stage 1 that
//! maps a page or block, and one of stage 2 that does have a type each.

use bitfield_struct::bitfield;
use iopf::Gpa;

/// A translation granule: the size of a page and of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granule {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

impl Granule {
    /// From TG0 or `S2TG`: 0, 1 and 2 are 4, 64 and 16 KiB; 3 is reserved.
    #[must_use]
    #[inline]
    pub const fn lower(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::K4),
            1 => Some(Self::K64),
            2 => Some(Self::K16),
            _ => None,
        }
    }

    /// From TG1: 1, 2 and 3 are 16, 4 and 64 KiB; 0 is reserved.
    #[must_use]
    #[inline]
    pub const fn upper(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::K16),
            2 => Some(Self::K4),
            3 => Some(Self::K64),
            _ => None,
        }
    }

    /// The size of a page as a power of two: 12, 14 or 16.
    #[must_use]
    #[inline]
    pub const fn page_shift(self) -> u8 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// How many bits of an address a table resolves: 9, 11 or 13.
    #[must_use]
    #[inline]
    pub const fn stride(self) -> u8 {
        self.page_shift() - 3
    }

    /// The highest level whose entries may map blocks, counted from 1, the level of pages: 1 GiB, 32 MiB
    /// and 512 MiB.
    #[must_use]
    #[inline]
    pub const fn highest_block(self) -> u8 {
        match self {
            Self::K4 => 3,
            Self::K16 | Self::K64 => 2,
        }
    }

    /// Where an entry holds an address.
    #[must_use]
    #[inline]
    pub const fn address(self) -> u64 {
        Entry::ADDRESS & !0 << self.page_shift()
    }
}

/// What every entry has, of either stage and any level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry(pub u64);

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: bit 0 is clear, or it maps a page or block where none can be.
    Invalid,
    /// It points to a table of the next lower level.
    Table(Gpa),
    /// It maps a page or block.
    Page {
        /// Where it starts.
        base: Gpa,
        /// Its size as a power of two.
        shift: u8,
    },
}

impl Entry {
    /// `[0]` Valid.
    pub const VALID: u64 = 1 << 0;
    /// `[1]` At the lowest level, the entry maps a page, and nothing without; above it, the entry points
    /// to a table, and maps a block without.
    pub const TABLE: u64 = 1 << 1;
    /// `[47:12]` An address, with a granule of 4 KiB.
    pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

    /// What the entry is for, at `level` (1, the level of pages, to 4).
    #[must_use]
    pub const fn target(self, granule: Granule, level: u8) -> Target {
        if self.0 & Self::VALID == 0 {
            return Target::Invalid;
        }
        let (address, table) = (self.0 & granule.address(), self.0 & Self::TABLE != 0);
        if level > 1 && table {
            return Target::Table(Gpa(address));
        }
        if table != (level <= 1) || level > granule.highest_block() {
            return Target::Invalid;
        }
        let shift = granule.page_shift() + granule.stride() * level.saturating_sub(1);
        Target::Page {
            base: Gpa(address & !0 << shift),
            shift,
        }
    }
}

/// An entry of either stage that points to a table; the rights in it count in stage 1 only.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct TableEntry {
    /// `[0]` Valid.
    pub valid: bool,
    /// `[1]` It points to a table.
    pub table: bool,
    /// `[9:2]` Ignored.
    pub ignored: u8,
    /// `[10]` AF, with `HAFT`; ignored otherwise.
    pub accessed: bool,
    /// `[11]` Ignored.
    pub ignored_high: bool,
    /// `[47:12]` The table's address, in units of 4 KiB; the lowest bits are zero with a larger granule.
    #[bits(36)]
    pub page: u64,
    /// `[50:48]`
    #[bits(3)]
    _res0: u8,
    /// `[58:51]` Ignored.
    pub software: u8,
    /// `[59]` `PXNTable`: nothing below is executable in privileged mode.
    pub privileged_execute_never: bool,
    /// `[60]` `UXNTable`: nothing below is executable in unprivileged mode.
    pub user_execute_never: bool,
    /// `[61]` `APTable[0]`: nothing below is accessible in unprivileged mode.
    pub no_user: bool,
    /// `[62]` `APTable[1]`: nothing below is writable.
    pub read_only: bool,
    /// `[63]` `NSTable`: of Secure streams only.
    pub non_secure: bool,
}

impl TableEntry {
    /// `PXNTable`.
    pub const PRIVILEGED_EXECUTE_NEVER: u64 = 1 << 59;
    /// `UXNTable`.
    pub const USER_EXECUTE_NEVER: u64 = 1 << 60;
    /// `APTable[0]`.
    pub const NO_USER: u64 = 1 << 61;
    /// `APTable[1]`.
    pub const READ_ONLY: u64 = 1 << 62;
    /// All of these.
    pub const RIGHTS: u64 = 0b1111 << 59;
}

/// A stage 1 entry that maps a page or block.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct Stage1Entry {
    /// `[0]` Valid.
    pub valid: bool,
    /// `[1]` Set in a page's entry, clear in a block's.
    pub page_entry: bool,
    /// `[4:2]` `AttrIndx`: which byte of MAIR has the memory attributes.
    #[bits(3)]
    pub attributes: u8,
    /// `[5]` NS: of Secure streams only.
    pub non_secure: bool,
    /// `[6]` `AP[1]`: unprivileged requests have access.
    pub user: bool,
    /// `[7]` `AP[2]`: nobody may write.
    pub read_only: bool,
    /// `[9:8]` SH: shareability.
    #[bits(2)]
    pub shareability: u8,
    /// `[10]` AF: access flag.
    pub accessed: bool,
    /// `[11]` nG: for this ASID only.
    pub not_global: bool,
    /// `[47:12]` The page's or block's address, in units of 4 KiB; the lowest bits are zero with a
    /// larger granule and in a block.
    #[bits(36)]
    pub page: u64,
    /// `[49:48]`
    #[bits(2)]
    _res0: u8,
    /// `[50]` GP: guarded page, of no meaning here.
    pub guarded: bool,
    /// `[51]` DBM: `AP[2]` says clean, where hardware sets the dirty state.
    pub dirty_modifier: bool,
    /// `[52]` Contiguous: it and its neighbours are alike.
    pub contiguous: bool,
    /// `[53]` PXN: not executable in privileged mode.
    pub privileged_execute_never: bool,
    /// `[54]` UXN: not executable in unprivileged mode; XN with one exception level.
    pub user_execute_never: bool,
    /// `[58:55]` For software.
    #[bits(4)]
    pub software: u8,
    /// `[62:59]` PBHA; ignored.
    #[bits(4)]
    pub hardware: u8,
    /// `[63]` For software.
    pub software_top: bool,
}

impl Stage1Entry {
    /// `AP[1]`.
    pub const USER: u64 = 1 << 6;
    /// `AP[2]`.
    pub const READ_ONLY: u64 = 1 << 7;
    /// AF.
    pub const ACCESSED: u64 = 1 << 10;
    /// nG.
    pub const NOT_GLOBAL: u64 = 1 << 11;
    /// DBM.
    pub const DIRTY_MODIFIER: u64 = 1 << 51;
    /// PXN.
    pub const PRIVILEGED_EXECUTE_NEVER: u64 = 1 << 53;
    /// UXN.
    pub const USER_EXECUTE_NEVER: u64 = 1 << 54;
}

/// A stage 2 entry that maps a page or block.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct Stage2Entry {
    /// `[0]` Valid.
    pub valid: bool,
    /// `[1]` Set in a page's entry, clear in a block's.
    pub page_entry: bool,
    /// `[5:2]` `MemAttr`: with `S2FWB` clear, 0–3 are device memory.
    #[bits(4)]
    pub memory_attribute: u8,
    /// `[6]` `S2AP[0]`: reads are granted.
    pub read: bool,
    /// `[7]` `S2AP[1]`: writes are granted.
    pub write: bool,
    /// `[9:8]` SH: shareability.
    #[bits(2)]
    pub shareability: u8,
    /// `[10]` AF: access flag.
    pub accessed: bool,
    /// `[11]`
    _res0: bool,
    /// `[47:12]` The page's or block's address, in units of 4 KiB; the lowest bits are zero with a
    /// larger granule and in a block.
    #[bits(36)]
    pub page: u64,
    /// `[50:48]`
    #[bits(3)]
    _res1: u8,
    /// `[51]` DBM: `S2AP[1]` clear says clean, where hardware sets the dirty state.
    pub dirty_modifier: bool,
    /// `[52]` Contiguous: it and its neighbours are alike.
    pub contiguous: bool,
    /// `[54:53]` XN. Executable by all (0), unprivileged (1), nobody (2) or privileged (3). A unit
    /// without XNX looks at bit 54 only: not executable.
    #[bits(2)]
    pub execute_never: u8,
    /// `[58:55]` For software.
    #[bits(4)]
    pub software: u8,
    /// `[62:59]` PBHA; ignored.
    #[bits(4)]
    pub hardware: u8,
    /// `[63]` Ignored.
    pub ignored: bool,
}

impl Stage2Entry {
    /// `S2AP[0]`.
    pub const READ: u64 = 1 << 6;
    /// `S2AP[1]`.
    pub const WRITE: u64 = 1 << 7;
    /// AF.
    pub const ACCESSED: u64 = 1 << 10;
    /// DBM.
    pub const DIRTY_MODIFIER: u64 = 1 << 51;
    /// `XN[0]`.
    pub const EXECUTE_NEVER_LOW: u64 = 1 << 53;
    /// `XN[1]`.
    pub const EXECUTE_NEVER: u64 = 1 << 54;

    /// Whether the memory is of a device type, `S2FWB` or not: `MemAttr[3:2]` is 0. With `S2FWB`, the
    /// values 4–7 are of other types, and 0–3 the same.
    #[must_use]
    #[inline]
    pub const fn device(self) -> bool {
        self.memory_attribute() & 0b1100 == 0
    }
}

#[cfg(test)]
mod tests;
