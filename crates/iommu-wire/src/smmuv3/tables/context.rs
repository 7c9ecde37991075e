//! Tables of context descriptors, one a substream: level 1 descriptors (L1CD) and context descriptors
//! (CD).

use bitfield_struct::bitfield;
use iopf::Gpa;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A level 1 context descriptor (L1CD). IHI 0070, "L1CD, Level 1 Context Descriptor".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct Level1Context {
    /// `[0]` V.
    pub valid: bool,
    /// `[11:1]`
    #[bits(11)]
    _res0: u16,
    /// `[55:12]` `L2Ptr`: the level 2 table's address, in units of 4 KiB. Linux has bits 51:12. An
    /// intermediate address where stage 2 translates.
    #[bits(44)]
    pub pointer: u64,
    /// `[63:56]`
    _res1: u8,
}

impl Level1Context {
    /// V.
    pub const VALID: u64 = 1 << 0;
    /// `L2Ptr`.
    pub const POINTER: u64 = 0x00ff_ffff_ffff_f000;

    /// The level 2 table.
    #[must_use]
    #[inline]
    pub const fn table(self) -> Gpa {
        Gpa(self.0 & Self::POINTER)
    }

    /// A valid descriptor whose table is at `table`; bits of `table` outside `L2Ptr` are dropped.
    #[must_use]
    pub const fn to(table: Gpa) -> Self {
        Self(table.0 & Self::POINTER | Self::VALID)
    }
}

/// Word 0 of a context descriptor: how addresses are translated, and what a fault leads to.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct ContextWord0 {
    /// `[5:0]` T0SZ: the lower range has addresses of 64-n bits.
    #[bits(6)]
    pub lower_size: u8,
    /// `[7:6]` TG0: the lower range's granule is 4 KiB (0), 64 KiB (1) or 16 KiB (2). 3 is reserved.
    #[bits(2)]
    pub lower_granule: u8,
    /// `[9:8]` IR0: inner cacheability of the lower range's tables.
    #[bits(2)]
    pub lower_inner: u8,
    /// `[11:10]` OR0: outer cacheability of the lower range's tables.
    #[bits(2)]
    pub lower_outer: u8,
    /// `[13:12]` SH0: shareability of the lower range's tables.
    #[bits(2)]
    pub lower_shareability: u8,
    /// `[14]` EPD0: the lower range is not translated.
    pub lower_disabled: bool,
    /// `[15]` ENDI: the tables are big-endian.
    pub big_endian: bool,
    /// `[21:16]` T1SZ: the upper range has addresses of 64-n bits.
    #[bits(6)]
    pub upper_size: u8,
    /// `[23:22]` TG1: the upper range's granule is 16 KiB (1), 4 KiB (2) or 64 KiB (3). 0 is reserved.
    #[bits(2)]
    pub upper_granule: u8,
    /// `[25:24]` IR1: inner cacheability of the upper range's tables.
    #[bits(2)]
    pub upper_inner: u8,
    /// `[27:26]` OR1: outer cacheability of the upper range's tables.
    #[bits(2)]
    pub upper_outer: u8,
    /// `[29:28]` SH1: shareability of the upper range's tables.
    #[bits(2)]
    pub upper_shareability: u8,
    /// `[30]` EPD1: the upper range is not translated.
    pub upper_disabled: bool,
    /// `[31]` V.
    pub valid: bool,
    /// `[34:32]` IPS: the width of output addresses: 32, 36, 40, 42, 44, 48, 52 or 56 bits.
    #[bits(3)]
    pub output_size: u8,
    /// `[35]` AFFD: a clear access flag is no fault.
    pub access_flag_ignored: bool,
    /// `[36]` WXN: what is writable is not executable.
    pub write_execute_never: bool,
    /// `[37]` UWXN: of 32-bit tables only; with 64-bit ones it is always so.
    pub user_write_execute_never: bool,
    /// `[38]` TBI0: the top byte of a lower address does not count.
    pub lower_top_byte_ignored: bool,
    /// `[39]` TBI1: the top byte of an upper address does not count.
    pub upper_top_byte_ignored: bool,
    /// `[40]` PAN: privileged requests may not access the data of pages that unprivileged ones may.
    pub privileged_access_never: bool,
    /// `[41]` AA64: the tables have 64-bit descriptors (VMSAv8-64).
    pub aarch64: bool,
    /// `[42]` HD: hardware sets the dirty state, with HA.
    pub hardware_dirty: bool,
    /// `[43]` HA: hardware sets the access flag.
    pub hardware_access: bool,
    /// `[44]` S: requests that fault stall.
    pub stall: bool,
    /// `[45]` R: requests that fault are recorded.
    pub record: bool,
    /// `[46]` A: requests that fault are aborted; without it, they read zero and their writes are
    /// ignored.
    pub abort: bool,
    /// `[47]` ASET: the address space is not shared with processors.
    pub own_asid_set: bool,
    /// `[63:48]` ASID.
    pub asid: u16,
}

impl ContextWord0 {
    /// T0SZ.
    pub const LOWER_SIZE: u64 = 0x3f;
    /// TG0.
    pub const LOWER_GRANULE: u64 = 0b11 << 6;
    /// EPD0.
    pub const LOWER_DISABLED: u64 = 1 << 14;
    /// ENDI.
    pub const BIG_ENDIAN: u64 = 1 << 15;
    /// T1SZ.
    pub const UPPER_SIZE: u64 = 0x3f << 16;
    /// TG1.
    pub const UPPER_GRANULE: u64 = 0b11 << 22;
    /// EPD1.
    pub const UPPER_DISABLED: u64 = 1 << 30;
    /// V.
    pub const VALID: u64 = 1 << 31;
    /// IPS.
    pub const OUTPUT_SIZE: u64 = 0b111 << 32;
    /// AFFD.
    pub const ACCESS_FLAG_IGNORED: u64 = 1 << 35;
    /// WXN.
    pub const WRITE_EXECUTE_NEVER: u64 = 1 << 36;
    /// TBI0.
    pub const LOWER_TOP_BYTE_IGNORED: u64 = 1 << 38;
    /// TBI1.
    pub const UPPER_TOP_BYTE_IGNORED: u64 = 1 << 39;
    /// PAN.
    pub const PRIVILEGED_ACCESS_NEVER: u64 = 1 << 40;
    /// AA64.
    pub const AARCH64: u64 = 1 << 41;
    /// HD.
    pub const HARDWARE_DIRTY: u64 = 1 << 42;
    /// HA.
    pub const HARDWARE_ACCESS: u64 = 1 << 43;
    /// S.
    pub const STALL: u64 = 1 << 44;
    /// R.
    pub const RECORD: u64 = 1 << 45;
    /// A.
    pub const ABORT: u64 = 1 << 46;
    /// ASID.
    pub const ASID: u64 = 0xffff << 48;
}

/// Word 1 of a context descriptor: the lower range's tables.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct ContextWord1 {
    /// `[64]` NSCFG0: of Secure streams only.
    pub non_secure: bool,
    /// `[65]` HAD0: rights in entries that point to tables do not count.
    pub hierarchy_disabled: bool,
    /// `[66]` E0PD0: unprivileged requests have no access.
    pub user_disabled: bool,
    /// `[67]` HAFT: hardware sets the access flag of table descriptors.
    pub table_access: bool,
    /// `[119:68]` TTB0: the top table's address, in units of 16 bytes. Linux has bits 51:4.
    #[bits(52)]
    pub table: u64,
    /// `[121:120]`
    #[bits(2)]
    _res0: u8,
    /// `[122]` `PnCH`: protected attribute.
    pub protected: bool,
    /// `[123]` EPAN: PAN counts for what unprivileged requests may execute, too.
    pub enhanced_pan: bool,
    /// `[127:124]` HWU059–HWU062: which of bits 62:59 of a leaf have a use of their own.
    #[bits(4)]
    pub hardware_use: u8,
}

/// Word 2 of a context descriptor: the upper range's tables.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct ContextWord2 {
    /// `[128]` NSCFG1: of Secure streams only.
    pub non_secure: bool,
    /// `[129]` HAD1: rights in entries that point to tables do not count.
    pub hierarchy_disabled: bool,
    /// `[130]` E0PD1: unprivileged requests have no access.
    pub user_disabled: bool,
    /// `[131]` AIE: attribute extension.
    pub attribute_extension: bool,
    /// `[183:132]` TTB1: the top table's address, in units of 16 bytes.
    #[bits(52)]
    pub table: u64,
    /// `[185:184]`
    #[bits(2)]
    _res0: u8,
    /// `[186]` DS: addresses of 52 bits with granules of 4 KiB and 16 KiB, in both ranges.
    pub large_addresses: bool,
    /// `[187]` PIE: permission indirection.
    pub permission_indirection: bool,
    /// `[191:188]` HWU159–HWU162: which of bits 62:59 of a leaf have a use of their own.
    #[bits(4)]
    pub hardware_use: u8,
}

/// Where a top table's address is, in words 1 and 2. Bits 55:52 are of 128-bit descriptors only, and
/// reserved without.
const TABLE: u64 = 0x000f_ffff_ffff_fff0;

impl ContextWord1 {
    /// HAD0.
    pub const HIERARCHY_DISABLED: u64 = 1 << 1;
    /// HAFT.
    pub const TABLE_ACCESS: u64 = 1 << 3;
    /// TTB0.
    pub const TABLE: u64 = TABLE;

    /// The top table, as it is written there: it is aligned to its size before it is used.
    #[must_use]
    #[inline]
    pub const fn top(self) -> Gpa {
        Gpa(self.0 & TABLE)
    }
}

impl ContextWord2 {
    /// HAD1.
    pub const HIERARCHY_DISABLED: u64 = 1 << 1;
    /// TTB1.
    pub const TABLE: u64 = TABLE;
    /// DS.
    pub const LARGE_ADDRESSES: u64 = 1 << 58;

    /// The top table, as it is written there: it is aligned to its size before it is used.
    #[must_use]
    #[inline]
    pub const fn top(self) -> Gpa {
        Gpa(self.0 & TABLE)
    }
}

/// A context descriptor as it lies in guest memory. IHI 0070, "CD, Context Descriptor".
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct RawContextDescriptor {
    words: [U64; 8],
}
const _: () = assert!(size_of::<RawContextDescriptor>() == 64);

/// A context descriptor (CD), in its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContextDescriptor {
    /// How addresses are translated.
    pub word0: ContextWord0,
    /// The lower range's tables.
    pub word1: ContextWord1,
    /// The upper range's tables.
    pub word2: ContextWord2,
    /// `[255:192]` MAIR0, MAIR1: eight memory attributes, a byte each.
    pub memory_attributes: u64,
    /// `[319:256]` AMAIR0, AMAIR1: implementation defined.
    pub auxiliary_attributes: u64,
    /// `[511:320]` MPAM, permission indirection.
    pub rest: [u64; 3],
}

impl ContextDescriptor {
    /// Reads a descriptor from its words, in the host's byte order.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 8]) -> Self {
        let [w0, w1, w2, w3, w4, rest @ ..] = words;
        Self {
            word0: ContextWord0::from_bits(w0),
            word1: ContextWord1::from_bits(w1),
            word2: ContextWord2::from_bits(w2),
            memory_attributes: w3,
            auxiliary_attributes: w4,
            rest,
        }
    }

    /// The descriptor's words.
    #[must_use]
    pub const fn words(self) -> [u64; 8] {
        let [w5, w6, w7] = self.rest;
        [
            self.word0.into_bits(),
            self.word1.into_bits(),
            self.word2.into_bits(),
            self.memory_attributes,
            self.auxiliary_attributes,
            w5,
            w6,
            w7,
        ]
    }

    /// Reads a descriptor from memory. Total: every 64 bytes are one.
    #[must_use]
    pub fn decode(raw: &RawContextDescriptor) -> Self {
        Self::from_words(raw.words.map(U64::get))
    }

    /// Writes the descriptor as it lies in memory.
    #[must_use]
    pub fn encode(self) -> RawContextDescriptor {
        RawContextDescriptor {
            words: self.words().map(U64::new),
        }
    }
}
