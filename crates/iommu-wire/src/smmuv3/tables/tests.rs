use super::*;
use iopf::Gpa;
use zerocopy::{FromBytes, IntoBytes};

/// Typed from "STE, Stream Table Entry". Word 0: V, Config 111b, S1Fmt 2, context table at 0x1234_5640,
/// S1CDMax 10. Word 1: S1DSS 2, S1CIR 1, S1COR 1, S1CSH 3, DRE, CONT 5, DCP, PPAR, MEV, S1STALLD, EATS 1,
/// STRW 2, MemAttr 0xf, MTCFG, ALLOCCFG 0xe, SHCFG 1, NSCFG 2, PRIVCFG 3, INSTCFG 2. Word 2: VMID
/// 0xabcd, S2T0SZ 24, S2SL0 1, S2IR0 1, S2OR0 1, S2SH0 3, S2TG 2, S2PS 5, S2AA64, S2ENDI, S2AFFD, S2PTW,
/// S2HD, S2HA, S2S, S2R. Word 3: S2TTB at 0x9_8760.
const STREAM: [u8; 64] = [
    0x2f, 0x56, 0x34, 0x12, 0x00, 0x00, 0x00,
    0x50, // V | Config | S1Fmt | S1ContextPtr | S1CDMax
    0xd6, 0xb0, 0x0e, 0x98, 0xdf, 0x91, 0x0b, 0x00, // word 1
    0xcd, 0xab, 0x00, 0x00, 0x58, 0xb5, 0xfd, 0x07, // word 2
    0x60, 0x87, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, // S2TTB
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
];

/// Typed from "CD, Context Descriptor". Word 0: T0SZ 16, TG0 2, IR0 1, OR0 1, SH0 3, EPD0, ENDI, T1SZ 25,
/// TG1 3, IR1 2, OR1 3, SH1 2, EPD1, V, IPS 5, AFFD, WXN, UWXN, TBI0, TBI1, PAN, AA64, HD, HA, S, R, A,
/// ASET, ASID 0x1234. Word 1: NSCFG0, HAD0, TTB0 at 0x4_5670. Word 2: NSCFG1, HAD1, TTB1 at 0x8_9ab0. MAIR
/// and AMAIR.
const CONTEXT: [u8; 64] = [
    0x90, 0xf5, 0xd9, 0xee, 0xfd, 0xff, 0x34, 0x12, // word 0
    0x73, 0x56, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, // NSCFG0 | HAD0 | TTB0
    0xb3, 0x9a, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, // NSCFG1 | HAD1 | TTB1
    0x00, 0x04, 0x44, 0xff, 0xf4, 0x00, 0x00, 0x00, // MAIR0, MAIR1
    0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, // AMAIR0, AMAIR1
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
    0, 0, 0, 0, 0, 0, 0, 0, //
];

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at * 8..][..8].try_into().unwrap())
}

fn genmask(high: u32, low: u32) -> u64 {
    (!0 >> (63 - high)) & (!0 << low)
}

#[test]
fn a_stream_table_entry_decodes_from_literal_bytes() {
    let raw = RawStreamEntry::read_from_bytes(&STREAM).unwrap();
    let entry = StreamEntry::decode(&raw);
    let StreamEntry {
        word0,
        word1,
        word2,
        word3,
        rest,
    } = entry;
    assert!(word0.valid());
    assert_eq!(word0.config(), StreamConfig::BOTH);
    assert_eq!((word0.context_format(), word0.context_bits()), (2, 10));
    assert_eq!(word0.contexts(), Gpa(0x1234_5600));
    assert_eq!((word1.default_substream(), word1.context_inner()), (2, 1));
    assert_eq!(
        (word1.context_outer(), word1.context_shareability()),
        (1, 3)
    );
    assert_eq!((word1.second_hardware_use(), word1.contiguous()), (0, 5));
    assert!(word1.destructive_reads() && word1.cache_prefetch());
    assert!(word1.response_with_pasid() && word1.merge_events());
    assert!(word1.stall_disable() && !word1.force_write_back() && !word1.first_mpam());
    assert_eq!((word1.ats(), word1.stream_world()), (1, 2));
    assert_eq!((word1.memory_attribute(), word1.allocation()), (0xf, 0xe));
    assert!(word1.memory_type_override());
    assert_eq!((word1.shareability(), word1.non_secure()), (1, 2));
    assert_eq!((word1.privilege(), word1.instruction()), (3, 2));
    assert_eq!((word1.software(), word1.implementation()), (0, 0));
    assert_eq!((word2.vmid(), word2.input_size()), (0xabcd, 24));
    assert_eq!((word2.start_level(), word2.granule()), (1, 2));
    assert_eq!((word2.inner(), word2.outer()), (1, 1));
    assert_eq!((word2.shareability(), word2.output_size()), (3, 5));
    assert!(word2.aarch64() && word2.big_endian() && word2.access_flag_ignored());
    assert!(word2.protected_walk() && word2.hardware_dirty() && word2.hardware_access());
    assert!(word2.stall() && word2.record() && !word2.table_access());
    assert_eq!(word3.top(), Gpa(0x9_8760));
    assert!(!word3.large_addresses() && !word3.start_level_high());
    assert_eq!(rest, [0; 4]);
    assert_eq!(entry.encode().as_bytes(), STREAM);
}

/// Linux `arm-smmu-v3.h`: `STRTAB_STE_*`.
#[test]
fn stream_positions_agree_with_linux() {
    let (w0, w1, w2) = (word(&STREAM, 0), word(&STREAM, 1), word(&STREAM, 2));
    let field = |word: u64, high, low| (word & genmask(high, low)) >> low;
    assert_eq!(w0 & 1, 1); // STRTAB_STE_0_V
    assert_eq!(field(w0, 3, 1), 7); // STRTAB_STE_0_CFG_NESTED
    assert_eq!(field(w0, 5, 4), 2); // STRTAB_STE_0_S1FMT_64K_L2
    assert_eq!(w0 & genmask(51, 6), 0x1234_5600); // STRTAB_STE_0_S1CTXPTR_MASK
    assert_eq!(field(w0, 63, 59), 10); // STRTAB_STE_0_S1CDMAX
    assert_eq!(field(w1, 1, 0), 2); // STRTAB_STE_1_S1DSS_SSID0
    assert_eq!(field(w1, 3, 2), 1); // STRTAB_STE_1_S1CIR
    assert_eq!(field(w1, 5, 4), 1); // STRTAB_STE_1_S1COR
    assert_eq!(field(w1, 7, 6), 3); // STRTAB_STE_1_S1CSH
    assert_ne!(w1 & 1 << 19, 0); // STRTAB_STE_1_MEV
    assert_eq!(w1 & 1 << 25, 0); // STRTAB_STE_1_S2FWB
    assert_eq!(w1 & 1 << 27, StreamWord1::STALL_DISABLE); // STRTAB_STE_1_S1STALLD
    assert_eq!(field(w1, 29, 28), 1); // STRTAB_STE_1_EATS_TRANS
    assert_eq!(field(w1, 31, 30), 2); // STRTAB_STE_1_STRW_EL2
    assert_eq!(field(w1, 45, 44), 1); // STRTAB_STE_1_SHCFG_INCOMING
    assert_eq!(field(w2, 15, 0), 0xabcd); // STRTAB_STE_2_S2VMID
    assert_eq!(field(w2, 37, 32), 24); // STRTAB_STE_2_VTCR_S2T0SZ
    assert_eq!(field(w2, 39, 38), 1); // STRTAB_STE_2_VTCR_S2SL0
    assert_eq!(field(w2, 41, 40), 1); // STRTAB_STE_2_VTCR_S2IR0
    assert_eq!(field(w2, 43, 42), 1); // STRTAB_STE_2_VTCR_S2OR0
    assert_eq!(field(w2, 45, 44), 3); // STRTAB_STE_2_VTCR_S2SH0
    assert_eq!(field(w2, 47, 46), 2); // STRTAB_STE_2_VTCR_S2TG
    assert_eq!(field(w2, 50, 48), 5); // STRTAB_STE_2_VTCR_S2PS
    assert_eq!(w2 & 1 << 51, StreamWord2::AARCH64); // STRTAB_STE_2_S2AA64
    assert_eq!(w2 & 1 << 52, StreamWord2::BIG_ENDIAN); // STRTAB_STE_2_S2ENDI
    assert_eq!(w2 & 1 << 54, StreamWord2::PROTECTED_WALK); // STRTAB_STE_2_S2PTW
    assert_eq!(w2 & 1 << 57, StreamWord2::STALL); // STRTAB_STE_2_S2S
    assert_eq!(w2 & 1 << 58, StreamWord2::RECORD); // STRTAB_STE_2_S2R
    assert_eq!(word(&STREAM, 3) & genmask(51, 4), 0x9_8760); // STRTAB_STE_3_S2TTB_MASK
}

/// FreeBSD `sys/arm64/iommu/smmureg.h`: `STE1_*`, `STE2_*`, for what Linux does not name.
#[test]
fn stream_positions_agree_with_freebsd() {
    let (w1, w2) = (word(&STREAM, 1), word(&STREAM, 2));
    assert_eq!(w1 >> 8 & 0xf, 0); // STE1_S2HWU59 to STE1_S2HWU62
    assert_ne!(w1 & 1 << 12, 0); // STE1_DRE
    assert_eq!(w1 >> 13 & 0xf, 5); // STE1_CONT_S
    assert_ne!(w1 & 1 << 17, 0); // STE1_DCP
    assert_ne!(w1 & 1 << 18, 0); // STE1_PPAR
    assert_eq!(w1 >> 32 & 0xf, 0xf); // STE1_MEMATTR_S
    assert_ne!(w1 & 1 << 36, 0); // STE1_MTCFG
    assert_eq!(w1 >> 37 & 0xf, 0xe); // STE1_ALLOCCFG_S
    assert_eq!(w1 >> 46 & 3, 2); // STE1_NSCFG_S
    assert_eq!(w1 & StreamWord1::PRIVILEGE, 3 << 48); // STE1_PRIVCFG_S
    assert_eq!(w1 & StreamWord1::INSTRUCTION, 2 << 50); // STE1_INSTCFG_S
    assert_eq!(w2 & 1 << 53, StreamWord2::ACCESS_FLAG_IGNORED); // STE2_S2AFFD
}

/// Bao `src/arch/armv8/inc/arch/smmuv3.h` (`SMMUV3_STE_S2HD_BIT`, `SMMUV3_STE_S2HA_BIT`) has them at bits
/// 183 and 184, as the specification does.
#[test]
fn the_hardware_update_bits_lie_between_those_linux_names() {
    let word2 = StreamWord2::new().with_hardware_dirty(true);
    assert_eq!(word2.into_bits(), StreamWord2::HARDWARE_DIRTY);
    assert_eq!(StreamWord2::HARDWARE_DIRTY, 1 << (183 - 128));
    let word2 = StreamWord2::new().with_hardware_access(true);
    assert_eq!(word2.into_bits(), StreamWord2::HARDWARE_ACCESS);
    assert_eq!(StreamWord2::HARDWARE_ACCESS, 1 << (184 - 128));
}

#[test]
fn a_context_descriptor_decodes_from_literal_bytes() {
    let raw = RawContextDescriptor::read_from_bytes(&CONTEXT).unwrap();
    let entry = ContextDescriptor::decode(&raw);
    let (word0, word1, word2) = (entry.word0, entry.word1, entry.word2);
    assert_eq!((word0.lower_size(), word0.upper_size()), (16, 25));
    assert_eq!((word0.lower_granule(), word0.upper_granule()), (2, 3));
    assert_eq!((word0.lower_inner(), word0.upper_inner()), (1, 2));
    assert_eq!((word0.lower_outer(), word0.upper_outer()), (1, 3));
    assert_eq!(
        (word0.lower_shareability(), word0.upper_shareability()),
        (3, 2)
    );
    assert!(word0.lower_disabled() && word0.upper_disabled());
    assert!(word0.big_endian() && word0.valid() && word0.aarch64());
    assert_eq!(word0.output_size(), 5);
    assert!(word0.access_flag_ignored() && word0.write_execute_never());
    assert!(word0.user_write_execute_never() && word0.privileged_access_never());
    assert!(word0.lower_top_byte_ignored() && word0.upper_top_byte_ignored());
    assert!(word0.hardware_dirty() && word0.hardware_access());
    assert!(word0.stall() && word0.record() && word0.abort() && word0.own_asid_set());
    assert_eq!(word0.asid(), 0x1234);
    assert!(word1.non_secure() && word1.hierarchy_disabled() && !word1.user_disabled());
    assert!(word2.non_secure() && word2.hierarchy_disabled() && !word2.user_disabled());
    assert_eq!((word1.top(), word2.top()), (Gpa(0x4_5670), Gpa(0x8_9ab0)));
    assert!(!word1.table_access() && !word2.large_addresses());
    assert_eq!(entry.memory_attributes, 0x0000_00f4_ff44_0400);
    assert_eq!(entry.auxiliary_attributes, 0x2_0000_0001);
    assert_eq!(entry.rest, [0; 3]);
    assert_eq!(entry.encode().as_bytes(), CONTEXT);
}

/// Linux `arm-smmu-v3.h`: `CTXDESC_CD_*`.
#[test]
fn context_positions_agree_with_linux() {
    let (w0, w1) = (word(&CONTEXT, 0), word(&CONTEXT, 1));
    let field = |word: u64, high, low| (word & genmask(high, low)) >> low;
    assert_eq!(field(w0, 5, 0), 16); // CTXDESC_CD_0_TCR_T0SZ
    assert_eq!(field(w0, 7, 6), 2); // CTXDESC_CD_0_TCR_TG0
    assert_eq!(field(w0, 9, 8), 1); // CTXDESC_CD_0_TCR_IRGN0
    assert_eq!(field(w0, 11, 10), 1); // CTXDESC_CD_0_TCR_ORGN0
    assert_eq!(field(w0, 13, 12), 3); // CTXDESC_CD_0_TCR_SH0
    assert_eq!(w0 & 1 << 14, ContextWord0::LOWER_DISABLED); // CTXDESC_CD_0_TCR_EPD0
    assert_eq!(w0 & 1 << 15, ContextWord0::BIG_ENDIAN); // CTXDESC_CD_0_ENDI
    assert_eq!(w0 & 1 << 30, ContextWord0::UPPER_DISABLED); // CTXDESC_CD_0_TCR_EPD1
    assert_eq!(w0 & 1 << 31, ContextWord0::VALID); // CTXDESC_CD_0_V
    assert_eq!(field(w0, 34, 32), 5); // CTXDESC_CD_0_TCR_IPS
    assert_eq!(w0 & 1 << 38, ContextWord0::LOWER_TOP_BYTE_IGNORED); // CTXDESC_CD_0_TCR_TBI0
    assert_eq!(w0 & 1 << 41, ContextWord0::AARCH64); // CTXDESC_CD_0_AA64
    assert_eq!(w0 & 1 << 42, ContextWord0::HARDWARE_DIRTY); // CTXDESC_CD_0_TCR_HD
    assert_eq!(w0 & 1 << 43, ContextWord0::HARDWARE_ACCESS); // CTXDESC_CD_0_TCR_HA
    assert_eq!(w0 & 1 << 44, ContextWord0::STALL); // CTXDESC_CD_0_S
    assert_eq!(w0 & 1 << 45, ContextWord0::RECORD); // CTXDESC_CD_0_R
    assert_eq!(w0 & 1 << 46, ContextWord0::ABORT); // CTXDESC_CD_0_A
    assert_ne!(w0 & 1 << 47, 0); // CTXDESC_CD_0_ASET
    assert_eq!(field(w0, 63, 48), 0x1234); // CTXDESC_CD_0_ASID
    assert_eq!(w1 & genmask(51, 4), 0x4_5670); // CTXDESC_CD_1_TTB0_MASK
    assert_eq!(ContextWord1::TABLE_ACCESS, 1 << 3); // CTXDESC_CD_1_HAFT
}

/// FreeBSD `sys/arm64/iommu/smmureg.h`: `CD0_*`, for what Linux does not name.
#[test]
fn context_positions_agree_with_freebsd() {
    let w0 = word(&CONTEXT, 0);
    assert_eq!(w0 >> 16 & 0x3f, 25); // CD0_T1SZ_S
    assert_eq!(w0 >> 22 & 3, 3); // CD0_TG1_64KB
    assert_eq!(w0 >> 24 & 3, 2); // CD0_IR1_S
    assert_eq!(w0 >> 26 & 3, 3); // CD0_OR1_S
    assert_eq!(w0 >> 28 & 3, 2); // CD0_SH1_S
    assert_eq!(w0 & 1 << 35, ContextWord0::ACCESS_FLAG_IGNORED); // CD0_AFFD
    assert_eq!(w0 & 1 << 36, ContextWord0::WRITE_EXECUTE_NEVER); // CD0_WXN
    assert_ne!(w0 & 1 << 37, 0); // CD0_UWXN
    assert_eq!(w0 & 1 << 39, ContextWord0::UPPER_TOP_BYTE_IGNORED); // CD0_TBI1
    assert_eq!(w0 & 1 << 40, ContextWord0::PRIVILEGED_ACCESS_NEVER); // CD0_PAN
}

/// Linux `arm-smmu-v3.h`: `STRTAB_L1_DESC_*`, `CTXDESC_L1_DESC_*`.
#[test]
fn level_1_descriptors_agree_with_linux() {
    let stream = Level1Stream::from_bits(0x1234_5009);
    assert_eq!(stream.span(), 9); // STRTAB_L1_DESC_SPAN: GENMASK_ULL(4, 0)
    assert_eq!(stream.entries(), 256); // STRTAB_SPLIT 8: a span of 9
    assert_eq!(stream.table(), Gpa(0x1234_4000)); // STRTAB_L1_DESC_L2PTR_MASK, aligned to 256 * 64
    assert_eq!(
        Level1Stream::to(Gpa(0x1234_4000), 9).table(),
        Gpa(0x1234_4000)
    );
    let context = Level1Context::from_bits(0x0009_8765_4000_0001);
    assert!(context.valid()); // CTXDESC_L1_DESC_V
    assert_eq!(context.table(), Gpa(0x0009_8765_4000_0000)); // CTXDESC_L1_DESC_L2PTR_MASK
    assert_eq!(Level1Context::to(Gpa(0x8123)).into_bits(), 0x8001);
}

/// "L1STD": Span 1–11 is a level 2 table of 2^(Span-1) entries, 12–31 behave as 0.
#[test]
fn a_span_of_0_or_above_11_is_no_table() {
    let entries = |span| Level1Stream::new().with_span(span).entries();
    assert_eq!([0, 1, 2, 11].map(entries), [0, 1, 2, 1024]);
    assert!((12..32).all(|span| entries(span) == 0));
    let unaligned = Level1Stream::from_bits(0x1fc1);
    assert_eq!(unaligned.table(), Gpa(0x1fc0));
}

#[test]
fn config_tells_which_stages_translate() {
    for bits in 0..8 {
        let config = StreamConfig(bits);
        assert_eq!(config.aborts(), bits < 4);
        assert_eq!(config.first(), matches!(bits, 5 | 7));
        assert_eq!(config.second(), matches!(bits, 6 | 7));
    }
}
