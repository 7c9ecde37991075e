//! Stream tables, one entry a stream: level 1 descriptors and stream table entries (STE).

use bitfield_struct::bitfield;
use iopf::Gpa;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A level 1 stream table descriptor (L1STD). IHI 0070, "L1STD, Level 1 Stream Table Descriptor".
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct Level1Stream {
    /// `[4:0]` Span: the level 2 table has 2^(Span-1) entries, 1–11. 0: there is none; the others are
    /// reserved and behave as 0.
    #[bits(5)]
    pub span: u8,
    /// `[5]`
    _res0: bool,
    /// `[55:6]` `L2Ptr`: the level 2 table's address, in units of 64 bytes. Linux has bits 51:6.
    #[bits(50)]
    pub pointer: u64,
    /// `[63:56]`
    _res1: u8,
}

impl Level1Stream {
    /// Where Span is.
    pub const SPAN: u64 = 0x1f;
    /// Where `L2Ptr` is.
    pub const POINTER: u64 = 0x00ff_ffff_ffff_ffc0;

    /// How many entries the level 2 table has: 0 without one, and for a reserved Span.
    #[must_use]
    #[inline]
    pub const fn entries(self) -> u32 {
        match self.span() {
            span @ 1..=11 => 1 << (span - 1),
            _ => 0,
        }
    }

    /// The level 2 table, which is aligned to its size.
    #[must_use]
    #[inline]
    pub const fn table(self) -> Gpa {
        let size = match self.entries() {
            0 => 64,
            entries => (entries as u64) << 6,
        };
        Gpa(self.0 & Self::POINTER & !(size - 1))
    }

    /// A descriptor of this Span whose table is at `table`; bits of `table` outside `L2Ptr` are dropped.
    #[must_use]
    pub const fn to(table: Gpa, span: u8) -> Self {
        Self(table.0 & Self::POINTER | span as u64 & Self::SPAN)
    }
}

/// A stream table entry's Config. Any three bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamConfig(pub u8);

impl StreamConfig {
    /// 000b: requests are aborted, and no event says so. 001b, 010b and 011b behave the same.
    pub const ABORT: Self = Self(0);
    /// 100b: no stage translates.
    pub const BYPASS: Self = Self(4);
    /// 101b: stage 1 translates.
    pub const FIRST: Self = Self(5);
    /// 110b: stage 2 translates.
    pub const SECOND: Self = Self(6);
    /// 111b: both do.
    pub const BOTH: Self = Self(7);

    /// Whether requests are aborted.
    #[must_use]
    #[inline]
    pub const fn aborts(self) -> bool {
        self.0 & 4 == 0
    }

    /// Whether stage 1 translates.
    #[must_use]
    #[inline]
    pub const fn first(self) -> bool {
        self.0 & 5 == 5
    }

    /// Whether stage 2 translates.
    #[must_use]
    #[inline]
    pub const fn second(self) -> bool {
        self.0 & 6 == 6
    }

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// Word 0 of a stream table entry: which stages translate, and where the context descriptors are.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct StreamWord0 {
    /// `[0]` V.
    pub valid: bool,
    /// `[3:1]` Config.
    #[bits(3)]
    pub config: StreamConfig,
    /// `[5:4]` `S1Fmt`: the table of context descriptors is linear (0), or has two levels with leaves
    /// of 4 KiB (1) or 64 KiB (2). 3 behaves as 0.
    #[bits(2)]
    pub context_format: u8,
    /// `[55:6]` `S1ContextPtr`: the context descriptor or the table of them, in units of 64 bytes.
    /// Linux has bits 51:6. An intermediate address where stage 2 translates.
    #[bits(50)]
    pub context_pointer: u64,
    /// `[58:56]`
    #[bits(3)]
    _res0: u8,
    /// `[63:59]` `S1CDMax`: there are 2^n context descriptors; 0: one, and no substreams.
    #[bits(5)]
    pub context_bits: u8,
}

impl StreamWord0 {
    /// V.
    pub const VALID: u64 = 1 << 0;
    /// Config.
    pub const CONFIG: u64 = 0b111 << 1;
    /// `S1Fmt`.
    pub const CONTEXT_FORMAT: u64 = 0b11 << 4;
    /// `S1ContextPtr`.
    pub const CONTEXT_POINTER: u64 = 0x00ff_ffff_ffff_ffc0;
    /// `S1CDMax`.
    pub const CONTEXT_BITS: u64 = 0x1f << 59;

    /// The context descriptor, or the table of them.
    #[must_use]
    #[inline]
    pub const fn contexts(self) -> Gpa {
        Gpa(self.0 & Self::CONTEXT_POINTER)
    }
}

/// Word 1 of a stream table entry: substreams, ATS, and what attributes become.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct StreamWord1 {
    /// `[65:64]` `S1DSS`: with substreams, a request without one is aborted (0), bypasses stage 1 (1)
    /// or uses the first context descriptor (2). 3 behaves as 0.
    #[bits(2)]
    pub default_substream: u8,
    /// `[67:66]` `S1CIR`: inner cacheability of context descriptors.
    #[bits(2)]
    pub context_inner: u8,
    /// `[69:68]` `S1COR`: outer cacheability of context descriptors.
    #[bits(2)]
    pub context_outer: u8,
    /// `[71:70]` `S1CSH`: shareability of context descriptors.
    #[bits(2)]
    pub context_shareability: u8,
    /// `[75:72]` `S2HWU62`–`S2HWU59`: which of bits 62:59 of a stage 2 leaf have a use of their own.
    #[bits(4)]
    pub second_hardware_use: u8,
    /// `[76]` DRE: destructive reads are allowed.
    pub destructive_reads: bool,
    /// `[80:77]` CONT: this entry and its neighbours, 2^n in all, are alike.
    #[bits(4)]
    pub contiguous: u8,
    /// `[81]` DCP: directed cache prefetches are allowed.
    pub cache_prefetch: bool,
    /// `[82]` PPAR: automatic page request responses carry a PASID.
    pub response_with_pasid: bool,
    /// `[83]` MEV: events that are alike may be merged.
    pub merge_events: bool,
    /// `[87:84]` For software.
    #[bits(4)]
    pub software: u8,
    /// `[88]` `S1PIE`: context descriptors may use permission indirection.
    pub permission_indirection: bool,
    /// `[89]` `S2FWB`: memory types are those of stage 2.
    pub force_write_back: bool,
    /// `[90]` `S1MPAM`.
    pub first_mpam: bool,
    /// `[91]` `S1STALLD`: no context descriptor may ask for stalls.
    pub stall_disable: bool,
    /// `[93:92]` EATS: ATS is refused (0), served by all stages (1) or by stage 1 only (2). 3 is for
    /// device permission tables, and behaves as 0 without them.
    #[bits(2)]
    pub ats: u8,
    /// `[95:94]` STRW: the exception level whose translations stage 1 makes: EL1 (0) or EL2 (2).
    #[bits(2)]
    pub stream_world: u8,
    /// `[99:96]` `MemAttr`: the memory type to use, with MTCFG.
    #[bits(4)]
    pub memory_attribute: u8,
    /// `[100]` MTCFG: `MemAttr` replaces the request's memory type.
    pub memory_type_override: bool,
    /// `[104:101]` ALLOCCFG: allocation hints; those of the request without bit 104.
    #[bits(4)]
    pub allocation: u8,
    /// `[107:105]`
    #[bits(3)]
    _res0: u8,
    /// `[109:108]` SHCFG: shareability; 1 is the request's.
    #[bits(2)]
    pub shareability: u8,
    /// `[111:110]` NSCFG: of Secure streams only.
    #[bits(2)]
    pub non_secure: u8,
    /// `[113:112]` PRIVCFG: requests are unprivileged (2) or privileged (3), or what they say (0, 1).
    #[bits(2)]
    pub privilege: u8,
    /// `[115:114]` INSTCFG: reads are of data (2) or of instructions (3), or what they say (0, 1).
    #[bits(2)]
    pub instruction: u8,
    /// `[127:116]` Implementation defined.
    #[bits(12)]
    pub implementation: u16,
}

impl StreamWord1 {
    /// `S1DSS`.
    pub const DEFAULT_SUBSTREAM: u64 = 0b11;
    /// `S1STALLD`.
    pub const STALL_DISABLE: u64 = 1 << 27;
    /// EATS.
    pub const ATS: u64 = 0b11 << 28;
    /// STRW.
    pub const STREAM_WORLD: u64 = 0b11 << 30;
    /// PRIVCFG.
    pub const PRIVILEGE: u64 = 0b11 << 48;
    /// INSTCFG.
    pub const INSTRUCTION: u64 = 0b11 << 50;
}

/// Word 2 of a stream table entry: stage 2.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct StreamWord2 {
    /// `[143:128]` `S2VMID`.
    pub vmid: u16,
    /// `[159:144]` Implementation defined.
    pub implementation: u16,
    /// `[165:160]` `S2T0SZ`: stage 2 takes addresses of 64-n bits.
    #[bits(6)]
    pub input_size: u8,
    /// `[167:166]` `S2SL0`: the level at which a walk starts; what a value means depends on the granule.
    #[bits(2)]
    pub start_level: u8,
    /// `[169:168]` `S2IR0`: inner cacheability of the tables.
    #[bits(2)]
    pub inner: u8,
    /// `[171:170]` `S2OR0`: outer cacheability of the tables.
    #[bits(2)]
    pub outer: u8,
    /// `[173:172]` `S2SH0`: shareability of the tables.
    #[bits(2)]
    pub shareability: u8,
    /// `[175:174]` `S2TG`: the granule is 4 KiB (0), 64 KiB (1) or 16 KiB (2). 3 is reserved.
    #[bits(2)]
    pub granule: u8,
    /// `[178:176]` `S2PS`: the width of output addresses: 32, 36, 40, 42, 44, 48, 52 or 56 bits.
    #[bits(3)]
    pub output_size: u8,
    /// `[179]` `S2AA64`: the tables have 64-bit descriptors (VMSAv8-64).
    pub aarch64: bool,
    /// `[180]` `S2ENDI`: the tables are big-endian.
    pub big_endian: bool,
    /// `[181]` `S2AFFD`: a clear access flag is no fault.
    pub access_flag_ignored: bool,
    /// `[182]` `S2PTW`: tables of stage 1 and context descriptors may not lie in device memory.
    pub protected_walk: bool,
    /// `[183]` `S2HD`: hardware sets the dirty state, with `S2HA`.
    pub hardware_dirty: bool,
    /// `[184]` `S2HA`: hardware sets the access flag.
    pub hardware_access: bool,
    /// `[185]` `S2S`: requests that fault in stage 2 stall.
    pub stall: bool,
    /// `[186]` `S2R`: requests that fault in stage 2 are recorded.
    pub record: bool,
    /// `[187]` `S2HAFT`: hardware sets the access flag of table descriptors.
    pub table_access: bool,
    /// `[188]` `S2PIE`: permission indirection.
    pub permission_indirection: bool,
    /// `[189]` `S2POE`: permission overlays.
    pub permission_overlay: bool,
    /// `[191:190]` `DPT_VMATCH`.
    #[bits(2)]
    pub permission_table_match: u8,
}

impl StreamWord2 {
    /// `S2VMID`.
    pub const VMID: u64 = 0xffff;
    /// `S2T0SZ`.
    pub const INPUT_SIZE: u64 = 0x3f << 32;
    /// `S2SL0`.
    pub const START_LEVEL: u64 = 0b11 << 38;
    /// `S2TG`.
    pub const GRANULE: u64 = 0b11 << 46;
    /// `S2PS`.
    pub const OUTPUT_SIZE: u64 = 0b111 << 48;
    /// `S2AA64`.
    pub const AARCH64: u64 = 1 << 51;
    /// `S2ENDI`.
    pub const BIG_ENDIAN: u64 = 1 << 52;
    /// `S2AFFD`.
    pub const ACCESS_FLAG_IGNORED: u64 = 1 << 53;
    /// `S2PTW`.
    pub const PROTECTED_WALK: u64 = 1 << 54;
    /// `S2HD`.
    pub const HARDWARE_DIRTY: u64 = 1 << 55;
    /// `S2HA`.
    pub const HARDWARE_ACCESS: u64 = 1 << 56;
    /// `S2S`.
    pub const STALL: u64 = 1 << 57;
    /// `S2R`.
    pub const RECORD: u64 = 1 << 58;
    /// `S2HAFT`.
    pub const TABLE_ACCESS: u64 = 1 << 59;
}

/// Word 3 of a stream table entry: where the stage 2 tables are.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct StreamWord3 {
    /// `[192]` `S2NSW`: of Secure streams only.
    pub walk_non_secure: bool,
    /// `[193]` `S2NSA`: of Secure streams only.
    pub access_non_secure: bool,
    /// `[194]` `S2SL0_2`: bit 2 of `S2SL0`, with `S2DS`.
    pub start_level_high: bool,
    /// `[195]` `S2DS`: addresses of 52 bits with granules of 4 KiB and 16 KiB.
    pub large_addresses: bool,
    /// `[247:196]` `S2TTB`: the top table's address, in units of 16 bytes. Linux has bits 51:4.
    #[bits(52)]
    pub table: u64,
    /// `[252:248]`
    #[bits(5)]
    _res0: u8,
    /// `[254:253]` `S2SKL`: of 128-bit descriptors only.
    #[bits(2)]
    pub skip_level: u8,
    /// `[255]`
    _res1: bool,
}

impl StreamWord3 {
    /// `S2TTB`. Bits 55:52 are of 128-bit descriptors only, and reserved without.
    pub const TABLE: u64 = 0x000f_ffff_ffff_fff0;

    /// The top table, as it is written there: it is aligned to its size before it is used.
    #[must_use]
    #[inline]
    pub const fn top(self) -> Gpa {
        Gpa(self.0 & Self::TABLE)
    }
}

/// A stream table entry as it lies in guest memory. IHI 0070, "STE, Stream Table Entry".
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
pub struct RawStreamEntry {
    words: [U64; 8],
}
const _: () = assert!(size_of::<RawStreamEntry>() == 64);

/// A stream table entry (STE), in its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamEntry {
    /// Which stages translate.
    pub word0: StreamWord0,
    /// Substreams and attributes.
    pub word1: StreamWord1,
    /// Stage 2.
    pub word2: StreamWord2,
    /// The stage 2 tables.
    pub word3: StreamWord3,
    /// `[511:256]` MPAM, Secure stage 2, virtual machine structure, permission overlays.
    pub rest: [u64; 4],
}

impl StreamEntry {
    /// Reads an entry from its words, in the host's byte order.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 8]) -> Self {
        let [w0, w1, w2, w3, rest @ ..] = words;
        Self {
            word0: StreamWord0::from_bits(w0),
            word1: StreamWord1::from_bits(w1),
            word2: StreamWord2::from_bits(w2),
            word3: StreamWord3::from_bits(w3),
            rest,
        }
    }

    /// The entry's words.
    #[must_use]
    pub const fn words(self) -> [u64; 8] {
        let [w4, w5, w6, w7] = self.rest;
        [
            self.word0.into_bits(),
            self.word1.into_bits(),
            self.word2.into_bits(),
            self.word3.into_bits(),
            w4,
            w5,
            w6,
            w7,
        ]
    }

    /// Reads an entry from memory. Total: every 64 bytes are one.
    #[must_use]
    pub fn decode(raw: &RawStreamEntry) -> Self {
        Self::from_words(raw.words.map(U64::get))
    }

    /// Writes the entry as it lies in memory.
    #[must_use]
    pub fn encode(self) -> RawStreamEntry {
        RawStreamEntry {
            words: self.words().map(U64::new),
        }
    }
}
