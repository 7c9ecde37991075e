//! The fields of AMD-Vi's tables.

use super::{Field, bit};
use iommu_walk::Table;

/// AMD I/O Virtualization Technology Specification, "Device Table Entry Format". Linux
/// `amd_iommu_types.h`, `DTE_…` and `DEV_ENTRY_…`; VirtualBox `DTE_T`.
const DEVICE_ENTRY: [&[Field]; 4] = [
    &[
        bit("V", 0),
        bit("TV", 1),
        Field::new("HAD", 8, 7),
        Field::new("Mode", 11, 9),
        Field::new("HostPtr", 51, 12),
        bit("PPR", 52),
        bit("GPRP", 53),
        bit("GIoV", 54),
        bit("GV", 55),
        Field::new("GLX", 57, 56),
        Field::new("GCR3[14:12]", 60, 58),
        bit("IR", 61),
        bit("IW", 62),
    ],
    &[
        Field::new("DomainID", 15, 0),
        Field::new("GCR3[30:15]", 31, 16),
        bit("I", 32),
        bit("SE", 33),
        bit("SA", 34),
        Field::new("IoCtl", 36, 35),
        bit("Cache", 37),
        bit("SD", 38),
        bit("EX", 39),
        Field::new("SysMgt", 41, 40),
        bit("SATS", 42),
        Field::new("GCR3[51:31]", 63, 43),
    ],
    &[
        bit("IV", 0),
        Field::new("IntTabLen", 4, 1),
        bit("IG", 5),
        Field::new("IntTabPtr", 51, 6),
        Field::new("GuestPagingMode", 55, 54),
        bit("InitPass", 56),
        bit("EIntPass", 57),
        bit("NMIPass", 58),
        Field::new("IntCtl", 61, 60),
        bit("Lint0Pass", 62),
        bit("Lint1Pass", 63),
    ],
    &[
        bit("AttrV", 54),
        bit("Mode0FC", 55),
        Field::new("SnoopAttribute", 63, 56),
    ],
];

/// "Guest CR3 Table"; Linux `GCR3_VALID`.
const GUEST_CR3: [&[Field]; 1] = [&[
    bit("V", 0),
    Field::new("IGN", 4, 3),
    Field::new("ADDR", 51, 12),
]];

/// "I/O Page Tables for Guest Translations": entries of x86-64.
const GUEST: [&[Field]; 1] = [&[
    bit("P", 0),
    bit("R/W", 1),
    bit("U/S", 2),
    bit("PWT", 3),
    bit("PCD", 4),
    bit("A", 5),
    bit("D", 6),
    bit("PS", 7),
    bit("G", 8),
    Field::new("IGN", 11, 9),
    Field::new("ADDR", 51, 12),
    Field::new("IGN", 62, 52),
    bit("NX", 63),
]];

/// "I/O Page Tables for Host Translations"; Linux `drivers/iommu/generic_pt/fmt/amdv1.h`.
const HOST: [&[Field]; 1] = [&[
    bit("PR", 0),
    Field::new("IGN", 4, 1),
    bit("A", 5),
    bit("D", 6),
    Field::new("IGN", 8, 7),
    Field::new("NextLevel", 11, 9),
    Field::new("ADDR", 51, 12),
    bit("U", 59),
    bit("FC", 60),
    bit("IR", 61),
    bit("IW", 62),
    bit("IGN", 63),
]];

/// The fields of each word of an entry of `table`.
pub(super) const fn words(table: Table) -> &'static [&'static [Field]] {
    match table {
        Table::DeviceTable => &DEVICE_ENTRY,
        Table::GuestCr3 => &GUEST_CR3,
        Table::FirstStage => &GUEST,
        Table::SecondStage => &HOST,
        _ => &[],
    }
}
