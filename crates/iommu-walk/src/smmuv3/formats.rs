//! The formats of SMMUv3's tables: one for each granule and output size.

use crate::format::{Format, Granules};
use iommu_wire::smmuv3::pte::{Entry, Granule, Stage1Entry, Stage2Entry, TableEntry};

/// How many output sizes there are: 32, 36, 40, 42, 44 and 48 bits.
const SIZES: usize = 6;

/// The widths of an output address, by IPS, `S2PS` or OAS. Larger values than 5 are not supported here, and
/// count as 5.
const WIDTHS: [u8; SIZES] = [32, 36, 40, 42, 44, 48];

/// The width of an output address, in bits.
pub(super) const fn width(size: u8) -> u8 {
    WIDTHS[if size < 5 { size as usize } else { 5 }]
}

/// Turned over, set in an entry that maps a block.
pub(super) const BLOCK: u64 = Entry::TABLE;
/// Turned over, set in a stage 1 entry that may be written through.
pub(super) const WRITABLE: u64 = Stage1Entry::READ_ONLY;

type Table = [[Format<Granules>; SIZES]; 3];

/// With the rights of entries that point to tables, and without (HAD).
static FIRST: [Table; 2] = [all(true, TableEntry::RIGHTS), all(true, 0)];
static SECOND: Table = all(false, 0);

const fn all(first: bool, denies: u64) -> Table {
    [
        row(first, denies, Granule::K4),
        row(first, denies, Granule::K16),
        row(first, denies, Granule::K64),
    ]
}

const fn row(first: bool, denies: u64, granule: Granule) -> [Format<Granules>; SIZES] {
    [
        format(first, denies, granule, 0),
        format(first, denies, granule, 1),
        format(first, denies, granule, 2),
        format(first, denies, granule, 3),
        format(first, denies, granule, 4),
        format(first, denies, granule, 5),
    ]
}

const fn format(first: bool, denies: u64, granule: Granule, size: u8) -> Format<Granules> {
    let inverted = Entry::TABLE | if first { Stage1Entry::READ_ONLY } else { 0 };
    let beyond = granule.address() & !0 << width(size);
    Format {
        geometry: Granules {
            page_shift: granule.page_shift(),
            stride: granule.stride(),
            inverted,
        },
        present: Entry::VALID,
        leaf: BLOCK,
        address: granule.address(),
        grants: Entry::VALID,
        denies,
        table_reserved: beyond,
        leaf_reserved: [
            // A page's entry looks like one that points to a table.
            beyond | BLOCK,
            beyond,
            beyond
                | if granule.highest_block() < 3 {
                    BLOCK
                } else {
                    0
                },
            beyond | BLOCK,
            beyond | BLOCK,
        ],
        accessed: Stage1Entry::ACCESSED,
        dirty: if first { WRITABLE } else { Stage2Entry::WRITE },
    }
}

const fn row_of(table: &'static Table, granule: Granule, size: u8) -> &'static Format<Granules> {
    let row = match granule {
        Granule::K4 => &table[0],
        Granule::K16 => &table[1],
        Granule::K64 => &table[2],
    };
    &row[if size < 5 { size as usize } else { 5 }]
}

/// The format of stage 1 tables. `hierarchy`: rights in entries that point to tables count.
#[inline(always)]
pub(super) const fn first(
    granule: Granule,
    size: u8,
    hierarchy: bool,
) -> &'static Format<Granules> {
    row_of(&FIRST[if hierarchy { 0 } else { 1 }], granule, size)
}

/// The format of stage 2 tables.
#[inline(always)]
pub(super) const fn second(granule: Granule, size: u8) -> &'static Format<Granules> {
    row_of(&SECOND, granule, size)
}
