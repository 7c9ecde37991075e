//! The fields of table entries by the specification's names, for people who read a walk.
//!
//! Intel VT-d, "Translation Structure Formats", with the names of revision 4.1; AMD I/O Virtualization
//! Technology Specification, "Device Table Entry Format", "Guest CR3 Table", "I/O Page Tables"; Arm IHI
//! 0070, "STE, Stream Table Entry", "CD, Context Descriptor". What no field covers is reserved.

mod amdvi;
mod smmuv3;

use crate::capture::Device;
use iommu_walk::{Stage, Table};
use std::fmt::{self, Write};

/// Whose tables a walk read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Formats {
    /// VT-d in legacy mode.
    Legacy,
    /// VT-d in scalable mode.
    Scalable,
    /// AMD-Vi.
    Amdvi,
    /// Arm SMMUv3.
    Smmuv3,
}

impl Formats {
    /// What the page tables of a stage are called: `first-stage`, `guest`.
    #[must_use]
    pub const fn stage(self, stage: Stage) -> &'static str {
        match (self, stage) {
            (Self::Amdvi, Stage::First) => "guest",
            (Self::Amdvi, Stage::Second) => "host",
            (Self::Smmuv3, Stage::First) => "stage-1",
            (Self::Smmuv3, Stage::Second) => "stage-2",
            (_, Stage::First) => "first-stage",
            (_, Stage::Second) => "second-stage",
        }
    }
}

impl Formats {
    /// The number that the specification gives a level of page tables; `level` counts from 1, the lowest.
    #[must_use]
    pub const fn level(self, level: u8) -> u8 {
        match self {
            // There, 3 is the level of pages.
            Self::Smmuv3 => 4_u8.saturating_sub(level),
            _ => level,
        }
    }

    /// What a device is called: `0000:00:05.0`, `StreamID 0x28`.
    #[must_use]
    pub fn device(self, device: Device) -> String {
        match (self, device) {
            (Self::Smmuv3, Device::Number(id)) => format!("StreamID {id:#x}"),
            (_, device) => device.to_string(),
        }
    }

    /// What an address space of a device is called.
    #[must_use]
    pub const fn substream(self) -> &'static str {
        match self {
            Self::Smmuv3 => "SubstreamID",
            _ => "PASID",
        }
    }
}

/// One field of a 64-bit word: its name, highest and lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The specification's name.
    pub name: &'static str,
    /// Highest bit.
    pub high: u8,
    /// Lowest bit.
    pub low: u8,
}

impl Field {
    const fn new(name: &'static str, high: u8, low: u8) -> Self {
        Self { name, high, low }
    }

    /// The bits of this field, in place.
    #[must_use]
    pub const fn mask(self) -> u64 {
        (u64::MAX >> (63 - self.high)) & (u64::MAX << self.low)
    }

    /// The field's value in `word`; an address field in place, as the address it is.
    #[must_use]
    pub const fn of(self, word: u64) -> u64 {
        let value = word & self.mask();
        if self.is_address() {
            value
        } else {
            value >> self.low
        }
    }

    /// Whether the field is an address: of a 4 KiB page, or of a table of 64 or 16 bytes.
    #[must_use]
    pub const fn is_address(self) -> bool {
        matches!(self.low, 4 | 6 | 12) && self.high > 32
    }
}

const fn bit(name: &'static str, at: u8) -> Field {
    Field::new(name, at, at)
}

const LEGACY_ROOT: [&[Field]; 2] = [&[bit("P", 0), Field::new("CTP", 63, 12)], &[]];
const SCALABLE_ROOT: [&[Field]; 2] = [
    &[bit("LP", 0), Field::new("LCTP", 63, 12)],
    &[bit("UP", 0), Field::new("UCTP", 63, 12)],
];
const LEGACY_CONTEXT: [&[Field]; 2] = [
    &[
        bit("P", 0),
        bit("FPD", 1),
        Field::new("TT", 3, 2),
        Field::new("SSPTPTR", 63, 12),
    ],
    &[
        Field::new("AW", 2, 0),
        Field::new("IGN", 6, 3),
        Field::new("DID", 23, 8),
    ],
];
const SCALABLE_CONTEXT: [&[Field]; 2] = [
    &[
        bit("P", 0),
        bit("FPD", 1),
        bit("DTE", 2),
        bit("PASIDE", 3),
        bit("PRE", 4),
        bit("EPTR", 6),
        Field::new("PDTS", 11, 9),
        Field::new("PASIDDIRPTR", 63, 12),
    ],
    &[Field::new("RID_PASID", 19, 0), bit("RID_PRIV", 20)],
];
const PASID_DIRECTORY: [&[Field]; 1] =
    [&[bit("P", 0), bit("FPD", 1), Field::new("SMPTBLPTR", 63, 12)]];
const PASID_ENTRY: [&[Field]; 3] = [
    &[
        bit("P", 0),
        bit("FPD", 1),
        Field::new("AW", 4, 2),
        Field::new("PGTT", 8, 6),
        bit("SSADE", 9),
        Field::new("SSPTPTR", 63, 12),
    ],
    &[
        Field::new("DID", 15, 0),
        bit("PWSNP", 23),
        bit("PGSNP", 24),
        bit("CD", 25),
        bit("EMTE", 26),
        Field::new("PAT", 63, 32),
    ],
    &[
        bit("SRE", 0),
        bit("ERE", 1),
        Field::new("FSPM", 3, 2),
        bit("WPE", 4),
        bit("NXE", 5),
        bit("SMEP", 6),
        bit("EAFE", 7),
        Field::new("FSPTPTR", 63, 12),
    ],
];
const FIRST_STAGE: [&[Field]; 1] = [&[
    bit("P", 0),
    bit("R/W", 1),
    bit("U/S", 2),
    bit("PWT", 3),
    bit("PCD", 4),
    bit("A", 5),
    bit("D", 6),
    bit("PS", 7),
    bit("G", 8),
    bit("EA", 10),
    Field::new("ADDR", 51, 12),
    Field::new("IGN", 62, 52),
    bit("XD", 63),
]];
const SECOND_STAGE: [&[Field]; 1] = [&[
    bit("R", 0),
    bit("W", 1),
    bit("X", 2),
    Field::new("EMT", 5, 3),
    bit("IPAT", 6),
    bit("PS", 7),
    bit("A", 8),
    bit("D", 9),
    bit("SNP", 11),
    Field::new("ADDR", 51, 12),
    Field::new("IGN", 60, 52),
    bit("IR", 61),
    bit("IW", 62),
    bit("IGN", 63),
]];

/// The fields of word `word` (from 0) of an entry of `table`; none where the word is reserved.
#[must_use]
pub fn fields(formats: Formats, table: Table, word: usize) -> &'static [Field] {
    let words: &'static [&'static [Field]] = match (formats, table) {
        (Formats::Amdvi, table) => amdvi::words(table),
        (Formats::Smmuv3, table) => smmuv3::words(table),
        (Formats::Legacy, Table::Root) => &LEGACY_ROOT,
        (Formats::Scalable, Table::Root) => &SCALABLE_ROOT,
        (Formats::Legacy, Table::Context) => &LEGACY_CONTEXT,
        (Formats::Scalable, Table::Context) => &SCALABLE_CONTEXT,
        (_, Table::PasidDirectory) => &PASID_DIRECTORY,
        (_, Table::PasidTable) => &PASID_ENTRY,
        (_, Table::FirstStage) => &FIRST_STAGE,
        (_, Table::SecondStage) => &SECOND_STAGE,
        _ => &[],
    };
    words.get(word).copied().unwrap_or(&[])
}

/// What a word says: every field that is not zero, and the fields of `bits` whatever they are; bits
/// that no field covers come last.
#[must_use]
pub fn spell(formats: Formats, table: Table, word: usize, value: u64, bits: u64) -> String {
    let mut out = String::new();
    let mut rest = value;
    for field in fields(formats, table, word) {
        rest &= !field.mask();
        let number = field.of(value);
        if number == 0 && field.mask() & bits == 0 {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = match (field.is_address(), number) {
            (false, 0..=9) => write!(out, " {}={number}", field.name),
            _ => write!(out, " {}={number:#x}", field.name),
        };
    }
    if rest != 0 {
        let _ = write!(out, " reserved={rest:#x}");
    }
    match out.strip_prefix(' ') {
        Some(text) => text.to_owned(),
        None => "all zero".to_owned(),
    }
}

/// Names the bits of a mask: `bit 0 (R)`, `bits 3:2 (TT) and bit 63 (reserved)`.
#[must_use]
pub fn name_bits(formats: Formats, table: Table, word: usize, bits: u64) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut left = bits;
    for field in fields(formats, table, word) {
        if left & field.mask() != 0 {
            parts.push(part(left & field.mask(), field.name));
            left &= !field.mask();
        }
    }
    if left != 0 {
        parts.push(part(left, "reserved"));
    }
    match parts.as_slice() {
        [] => "no bit".into(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `bit 3 (NAME)`, `bits 7:4 (NAME)`, `bits 7, 5 (NAME)`.
fn part(bits: u64, name: &str) -> String {
    let (mut runs, mut many) = (Vec::new(), bits.count_ones() > 1);
    let mut left = bits;
    while left != 0 {
        let high = 63 - left.leading_zeros();
        let mut low = high;
        while low > 0 && left >> (low - 1) & 1 == 1 {
            low -= 1;
        }
        runs.push(Run(high, low));
        left &= (1u64 << low) - 1;
        many |= high != low;
    }
    let list: Vec<String> = runs.iter().map(ToString::to_string).collect();
    format!(
        "bit{} {} ({name})",
        if many { "s" } else { "" },
        list.join(", ")
    )
}

struct Run(u32, u32);

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{}:{}", self.0, self.1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_spelled_by_the_names_of_the_specification() {
        assert_eq!(
            spell(Formats::Legacy, Table::Context, 0, 0x1_2345_600b, 0),
            "P=1 FPD=1 TT=2 SSPTPTR=0x123456000"
        );
        assert_eq!(
            spell(Formats::Legacy, Table::Context, 1, 0x1702, 0),
            "AW=2 DID=0x17"
        );
        assert_eq!(spell(Formats::Legacy, Table::SecondStage, 0, 0, 2), "W=0");
        assert_eq!(
            spell(Formats::Legacy, Table::SecondStage, 0, 0, 0),
            "all zero"
        );
        assert_eq!(
            spell(Formats::Legacy, Table::Root, 1, 0x10, 0),
            "reserved=0x10"
        );
    }

    #[test]
    fn an_amd_vi_device_table_entry_is_spelled_word_by_word() {
        let of = |word, value| spell(Formats::Amdvi, Table::DeviceTable, word, value, 0);
        // Linux 6.12 printed these for a device that uses PASIDs.
        assert_eq!(
            of(0, 0x7d90_0000_0000_0003),
            "V=1 TV=1 PPR=1 GV=1 GLX=1 GCR3[14:12]=7 IR=1 IW=1"
        );
        assert_eq!(
            of(1, 0x0000_1001_03fc_0009),
            "DomainID=9 GCR3[30:15]=0x3fc I=1 GCR3[51:31]=2"
        );
        assert_eq!(
            of(2, 0x2000_0001_1784_0013),
            "IV=1 IntTabLen=9 IntTabPtr=0x117840000 IntCtl=2"
        );
        assert_eq!(of(3, 1), "reserved=0x1");
    }

    #[test]
    fn smmuv3_entries_are_spelled_word_by_word() {
        let of = |table, word, value| spell(Formats::Smmuv3, table, word, value, 0);
        // Linux makes these for a device that uses PASIDs: STRTAB_STE_0_V, CFG_S1_TRANS, S1CDMAX 10, a
        // table of two levels at 0x10_4000_0000; S1DSS_SSID0, EATS_TRANS, SHCFG_INCOMING.
        assert_eq!(
            of(Table::Stream, 0, 0x5000_0010_4000_002b),
            "V=1 Config=5 S1Fmt=2 S1ContextPtr=0x1040000000 S1CDMax=0xa"
        );
        assert_eq!(
            of(Table::Stream, 1, 0x0000_1000_1000_0002),
            "S1DSS=2 EATS=1 SHCFG=1"
        );
        // T0SZ 16, EPD1, V, IPS 48 bits, AA64, R, A, ASET, ASID 7.
        assert_eq!(
            of(Table::ContextDescriptor, 0, 0x0007_e205_c000_3510),
            "T0SZ=0x10 IR0=1 OR0=1 SH0=3 EPD1=1 V=1 IPS=5 AA64=1 R=1 A=1 ASET=1 ASID=7"
        );
        assert_eq!(
            of(Table::ContextDescriptor, 1, 0x8_1234_5000),
            "TTB0=0x812345000"
        );
        assert_eq!(
            of(Table::FirstStage, 0, 0x0060_0000_8000_0f43),
            "V=1 Type=1 AP[2:1]=1 SH=3 AF=1 nG=1 ADDR=0x80000000 PXN=1 UXN=1"
        );
        assert_eq!(
            of(Table::SecondStage, 0, 0x8000_07ff),
            "V=1 Type=1 MemAttr=0xf S2AP=3 SH=3 AF=1 ADDR=0x80000000"
        );
    }

    #[test]
    fn bits_are_named_with_their_fields() {
        assert_eq!(
            name_bits(Formats::Legacy, Table::SecondStage, 0, 1),
            "bit 0 (R)"
        );
        assert_eq!(
            name_bits(Formats::Legacy, Table::Context, 0, 0xc | 0xf0),
            "bits 3:2 (TT) and bits 7:4 (reserved)"
        );
        assert_eq!(
            name_bits(Formats::Legacy, Table::Root, 0, 0x24),
            "bits 5, 2 (reserved)"
        );
    }

    #[test]
    fn no_two_fields_of_a_word_overlap() {
        for table in [
            Table::Root,
            Table::Context,
            Table::PasidDirectory,
            Table::PasidTable,
            Table::DeviceTable,
            Table::GuestCr3,
            Table::StreamLevel1,
            Table::Stream,
            Table::ContextLevel1,
            Table::ContextDescriptor,
            Table::FirstStage,
            Table::SecondStage,
        ] {
            for formats in [
                Formats::Legacy,
                Formats::Scalable,
                Formats::Amdvi,
                Formats::Smmuv3,
            ] {
                for word in 0..8 {
                    let mut seen = 0;
                    for field in fields(formats, table, word) {
                        assert_eq!(seen & field.mask(), 0, "{table} {word} {}", field.name);
                        seen |= field.mask();
                    }
                }
            }
        }
    }
}
