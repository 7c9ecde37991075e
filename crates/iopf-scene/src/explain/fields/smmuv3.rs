//! The fields of SMMUv3's tables.

use super::{Field, bit};
use iommu_walk::Table;

/// IHI 0070, "L1STD, Level 1 Stream Table Descriptor"; Linux `STRTAB_L1_DESC_…`.
const STREAM_LEVEL1: [&[Field]; 1] = [&[Field::new("Span", 4, 0), Field::new("L2Ptr", 55, 6)]];

/// IHI 0070, "STE, Stream Table Entry"; Linux `STRTAB_STE_…`.
const STREAM: [&[Field]; 4] = [
    &[
        bit("V", 0),
        Field::new("Config", 3, 1),
        Field::new("S1Fmt", 5, 4),
        Field::new("S1ContextPtr", 55, 6),
        Field::new("S1CDMax", 63, 59),
    ],
    &[
        Field::new("S1DSS", 1, 0),
        Field::new("S1CIR", 3, 2),
        Field::new("S1COR", 5, 4),
        Field::new("S1CSH", 7, 6),
        Field::new("S2HWU", 11, 8),
        bit("DRE", 12),
        Field::new("CONT", 16, 13),
        bit("DCP", 17),
        bit("PPAR", 18),
        bit("MEV", 19),
        Field::new("SW", 23, 20),
        bit("S1PIE", 24),
        bit("S2FWB", 25),
        bit("S1MPAM", 26),
        bit("S1STALLD", 27),
        Field::new("EATS", 29, 28),
        Field::new("STRW", 31, 30),
        Field::new("MemAttr", 35, 32),
        bit("MTCFG", 36),
        Field::new("ALLOCCFG", 40, 37),
        Field::new("SHCFG", 45, 44),
        Field::new("NSCFG", 47, 46),
        Field::new("PRIVCFG", 49, 48),
        Field::new("INSTCFG", 51, 50),
        Field::new("IMPL", 63, 52),
    ],
    &[
        Field::new("S2VMID", 15, 0),
        Field::new("IMPL", 31, 16),
        Field::new("S2T0SZ", 37, 32),
        Field::new("S2SL0", 39, 38),
        Field::new("S2IR0", 41, 40),
        Field::new("S2OR0", 43, 42),
        Field::new("S2SH0", 45, 44),
        Field::new("S2TG", 47, 46),
        Field::new("S2PS", 50, 48),
        bit("S2AA64", 51),
        bit("S2ENDI", 52),
        bit("S2AFFD", 53),
        bit("S2PTW", 54),
        bit("S2HD", 55),
        bit("S2HA", 56),
        bit("S2S", 57),
        bit("S2R", 58),
        bit("S2HAFT", 59),
        bit("S2PIE", 60),
        bit("S2POE", 61),
        Field::new("DPT_VMATCH", 63, 62),
    ],
    &[
        bit("S2NSW", 0),
        bit("S2NSA", 1),
        bit("S2SL0_2", 2),
        bit("S2DS", 3),
        Field::new("S2TTB", 55, 4),
        Field::new("S2SKL", 62, 61),
    ],
];

/// IHI 0070, "L1CD, Level 1 Context Descriptor"; Linux `CTXDESC_L1_DESC_…`.
const CONTEXT_LEVEL1: [&[Field]; 1] = [&[bit("V", 0), Field::new("L2Ptr", 55, 12)]];

/// IHI 0070, "CD, Context Descriptor"; Linux `CTXDESC_CD_…`.
const CONTEXT: [&[Field]; 5] = [
    &[
        Field::new("T0SZ", 5, 0),
        Field::new("TG0", 7, 6),
        Field::new("IR0", 9, 8),
        Field::new("OR0", 11, 10),
        Field::new("SH0", 13, 12),
        bit("EPD0", 14),
        bit("ENDI", 15),
        Field::new("T1SZ", 21, 16),
        Field::new("TG1", 23, 22),
        Field::new("IR1", 25, 24),
        Field::new("OR1", 27, 26),
        Field::new("SH1", 29, 28),
        bit("EPD1", 30),
        bit("V", 31),
        Field::new("IPS", 34, 32),
        bit("AFFD", 35),
        bit("WXN", 36),
        bit("UWXN", 37),
        bit("TBI0", 38),
        bit("TBI1", 39),
        bit("PAN", 40),
        bit("AA64", 41),
        bit("HD", 42),
        bit("HA", 43),
        bit("S", 44),
        bit("R", 45),
        bit("A", 46),
        bit("ASET", 47),
        Field::new("ASID", 63, 48),
    ],
    &[
        bit("NSCFG0", 0),
        bit("HAD0", 1),
        bit("E0PD0", 2),
        bit("HAFT", 3),
        Field::new("TTB0", 55, 4),
        bit("PnCH", 58),
        bit("EPAN", 59),
        Field::new("HWU0", 63, 60),
    ],
    &[
        bit("NSCFG1", 0),
        bit("HAD1", 1),
        bit("E0PD1", 2),
        bit("AIE", 3),
        Field::new("TTB1", 55, 4),
        bit("DS", 58),
        bit("PIE", 59),
        Field::new("HWU1", 63, 60),
    ],
    &[Field::new("MAIR0", 31, 0), Field::new("MAIR1", 63, 32)],
    &[Field::new("AMAIR0", 31, 0), Field::new("AMAIR1", 63, 32)],
];

/// DDI 0487, "VMSAv8-64 descriptor formats", stage 1; Linux `ARM_LPAE_PTE_…`. Bits 63:59 count in an
/// entry that points to a table, and 11:2 and 54:51 in one that maps.
const STAGE1: [&[Field]; 1] = [&[
    bit("V", 0),
    bit("Type", 1),
    Field::new("AttrIndx", 4, 2),
    bit("NS", 5),
    Field::new("AP[2:1]", 7, 6),
    Field::new("SH", 9, 8),
    bit("AF", 10),
    bit("nG", 11),
    Field::new("ADDR", 47, 12),
    bit("GP", 50),
    bit("DBM", 51),
    bit("Contiguous", 52),
    bit("PXN", 53),
    bit("UXN", 54),
    Field::new("IGN", 58, 55),
    bit("PXNTable", 59),
    bit("UXNTable", 60),
    Field::new("APTable", 62, 61),
    bit("NSTable", 63),
]];

/// The same, stage 2.
const STAGE2: [&[Field]; 1] = [&[
    bit("V", 0),
    bit("Type", 1),
    Field::new("MemAttr", 5, 2),
    Field::new("S2AP", 7, 6),
    Field::new("SH", 9, 8),
    bit("AF", 10),
    Field::new("ADDR", 47, 12),
    bit("DBM", 51),
    bit("Contiguous", 52),
    Field::new("XN", 54, 53),
    Field::new("IGN", 58, 55),
    Field::new("PBHA", 62, 59),
    bit("IGN", 63),
]];

/// The fields of each word of an entry of `table`.
pub(super) const fn words(table: Table) -> &'static [&'static [Field]] {
    match table {
        Table::StreamLevel1 => &STREAM_LEVEL1,
        Table::Stream => &STREAM,
        Table::ContextLevel1 => &CONTEXT_LEVEL1,
        Table::ContextDescriptor => &CONTEXT,
        Table::FirstStage => &STAGE1,
        Table::SecondStage => &STAGE2,
        _ => &[],
    }
}
