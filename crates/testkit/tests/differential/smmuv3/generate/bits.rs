//! Bits of the tables, by what changing one is likely to hit.
//!
//! Positions: Arm IHI 0070, "Stream Table Entry", "Context Descriptor" and "Level 1 Stream Table
//! Descriptor"; Arm DDI 0487, "VMSAv8-64 translation table format descriptors"; as Linux has them in
//! `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.h` and `drivers/iommu/io-pgtable-arm.c`.

use crate::harness::Bits;

pub(super) const LEVEL_1: Bits = Bits(&[
    ("Span", 0..=4),
    ("Span", 0..=4),
    ("reserved", 5..=5),
    ("L2Ptr", 6..=25),
    ("beyond memory", 44..=51),
    ("reserved", 56..=63),
]);
pub(super) const STREAM_0: Bits = Bits(&[
    ("V", 0..=0),
    ("Config", 1..=3),
    ("Config", 1..=3),
    ("S1Fmt", 4..=5),
    ("S1ContextPtr", 6..=25),
    ("beyond memory", 44..=51),
    ("S1CDMax", 59..=63),
]);
pub(super) const STREAM_1: Bits = Bits(&[
    ("S1DSS", 0..=1),
    ("attributes", 2..=7),
    ("S2HWU DRE CONT DCP PPAR", 8..=18),
    ("MEV", 19..=19),
    ("S2FWB", 25..=25),
    ("S1STALLD", 27..=27),
    ("EATS", 28..=29),
    ("STRW", 30..=31),
    ("attributes", 32..=47),
    ("PRIVCFG", 48..=49),
    ("PRIVCFG", 48..=49),
    ("INSTCFG", 50..=51),
]);
pub(super) const STREAM_2: Bits = Bits(&[
    ("S2VMID", 0..=15),
    ("S2T0SZ", 32..=37),
    ("S2T0SZ", 32..=37),
    ("S2SL0", 38..=39),
    ("S2SL0", 38..=39),
    ("attributes", 40..=45),
    ("S2TG", 46..=47),
    ("S2PS", 48..=50),
    ("S2PS", 48..=50),
    ("S2ENDI", 52..=52),
    ("S2AFFD", 53..=53),
    ("S2PTW", 54..=54),
    ("S2HD S2HA", 55..=56),
    ("S2S", 57..=57),
    ("S2R", 58..=58),
    ("S2R", 58..=58),
    ("S2HAFT S2PIE S2POE", 59..=61),
]);
pub(super) const STREAM_3: Bits = Bits(&[
    ("S2NSW S2NSA S2SL0_2 S2DS", 0..=3),
    ("S2TTB", 4..=25),
    ("beyond memory", 32..=51),
    ("reserved", 52..=63),
]);
pub(super) const CONTEXT_0: Bits = Bits(&[
    ("T0SZ", 0..=5),
    ("T0SZ", 0..=5),
    ("TG0", 6..=7),
    ("attributes", 8..=13),
    ("EPD0", 14..=14),
    ("ENDI", 15..=15),
    ("T1SZ", 16..=21),
    ("T1SZ", 16..=21),
    ("TG1", 22..=23),
    ("attributes", 24..=29),
    ("EPD1", 30..=30),
    ("V", 31..=31),
    ("IPS", 32..=34),
    ("AFFD", 35..=35),
    ("WXN UWXN", 36..=37),
    ("TBI", 38..=39),
    ("PAN", 40..=40),
    ("AA64", 41..=41),
    ("HD HA", 42..=43),
    ("S", 44..=44),
    ("R", 45..=45),
    ("R", 45..=45),
    ("A", 46..=46),
    ("ASET ASID", 47..=63),
]);
/// The word of one of the two table bases.
pub(super) const CONTEXT_TTB: Bits = Bits(&[
    ("NSCFG", 0..=0),
    ("HAD", 1..=1),
    ("TTB", 4..=25),
    ("beyond memory", 32..=51),
    ("reserved", 52..=59),
    ("HWU", 60..=63),
]);
pub(super) const STAGE_1: Bits = Bits(&[
    ("type", 0..=1),
    ("type", 0..=1),
    ("AttrIndx NS", 2..=5),
    ("AP", 6..=7),
    ("AP", 6..=7),
    ("SH", 8..=9),
    ("AF", 10..=10),
    ("AF", 10..=10),
    ("nG", 11..=11),
    ("address", 12..=25),
    ("beyond memory", 32..=47),
    ("beyond memory", 44..=47),
    ("reserved", 48..=50),
    ("DBM Contiguous", 51..=52),
    ("PXN UXN", 53..=54),
    ("ignored", 55..=58),
    ("PXNTable UXNTable", 59..=60),
    ("APTable", 61..=62),
    ("APTable", 61..=62),
    ("NSTable", 63..=63),
]);
pub(super) const STAGE_2: Bits = Bits(&[
    ("type", 0..=1),
    ("type", 0..=1),
    ("MemAttr", 2..=5),
    ("S2AP", 6..=7),
    ("S2AP", 6..=7),
    ("SH", 8..=9),
    ("AF", 10..=10),
    ("AF", 10..=10),
    ("address", 12..=25),
    ("beyond memory", 32..=47),
    ("beyond memory", 44..=47),
    ("reserved", 48..=50),
    ("DBM Contiguous", 51..=52),
    ("XN", 53..=54),
    ("ignored", 55..=63),
]);
