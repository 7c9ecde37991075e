//! Page-table formats as data, and the one loop that walks them.

use crate::mem::Unreachable;
use iopf::Gpa;

/// A page-table format. The loop that walks it is written once, for every format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Address bits below the lowest level's index: the smallest page, as a power of two.
    pub page_shift: u8,
    /// Address bits that each level adds.
    pub stride: u8,
    /// An entry with none of these bits is not present.
    pub present: u64,
    /// Above the lowest level, an entry with this bit maps a page.
    pub leaf: u64,
    /// Where an entry holds an address.
    pub address: u64,
    /// Bits that must be zero in an entry that points to a table.
    pub table_reserved: u64,
    /// Bits that must be zero in an entry that maps a page, from the lowest level up. A level that
    /// maps none has the leaf bit itself in here.
    pub leaf_reserved: [u64; 5],
    /// What a walk sets in each entry it uses; zero where the format has no such bit.
    pub accessed: u64,
    /// What a write sets in the entry that maps its page, besides `accessed`.
    pub dirty: u64,
}

impl Format {
    /// A format through which every walk fails.
    pub(crate) const EMPTY: Self = Self {
        page_shift: 12,
        stride: 9,
        present: 0,
        leaf: 0,
        address: 0,
        table_reserved: !0,
        leaf_reserved: [!0; 5],
        accessed: 0,
        dirty: 0,
    };

    /// Address bits below the index of `level`.
    #[inline(always)]
    const fn shift(&self, level: u8) -> u8 {
        (self.page_shift + self.stride * (level - 1)) & 63
    }
}

/// A walk has ended early; why is with the [`Tables`].
///
/// Without content, so that a result that carries it fits in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop;

/// An entry of a page table, and where the walk is when it looks at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Where the entry lies in the address space of its own stage's tables.
    pub(crate) at: Gpa,
    /// Where it lies in memory.
    pub(crate) physical: Gpa,
    /// Its level, 1 being the lowest.
    pub(crate) level: u8,
    /// Its number in its table.
    pub(crate) index: u32,
    /// Whether its table is the top one.
    pub(crate) top: bool,
    /// Its content; zero where it was not read.
    pub(crate) raw: u64,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No memory backs it.
    Unreadable,
    /// None of the present bits is set.
    NotPresent,
    /// These bits should be zero.
    Reserved(u64),
}

/// Where the walk is. Passed by value, so that it stays in registers.
#[derive(Clone, Copy)]
pub(crate) struct Here {
    /// Where the entry lies in the address space of its own stage's tables.
    pub(crate) at: u64,
    /// Its level, 1 being the lowest.
    pub(crate) level: u8,
    /// The level of the top table.
    top: u8,
}

impl Here {
    /// The entry, for whoever wants to know more.
    #[cold]
    pub(crate) fn slot(self, format: &Format, physical: u64, raw: u64) -> Slot {
        // An entry has 8 bytes, and a table is aligned to its size.
        let index = self.at >> 3 & !(!0 << (format.stride & 63));
        Slot {
            at: Gpa(self.at),
            physical: Gpa(physical),
            level: self.level,
            index: u32::try_from(index).unwrap_or(0),
            top: self.level == self.top,
            raw,
        }
    }
}

/// How one stage reaches its tables, and what it does about what it finds there.
///
/// A method that returns [`Stop`] has noted the reason.
pub(crate) trait Tables {
    /// Turns the address of an entry into a physical one.
    fn locate(&mut self, here: Here) -> Result<u64, Stop>;
    /// Loads a word of physical memory.
    fn load(&self, physical: u64) -> Result<u64, Unreachable>;
    /// A good entry that points to a table lacks bits that its use sets.
    fn mark(&mut self, here: Here, physical: u64, raw: u64) -> Result<(), Stop>;
    /// A good entry was found; `leaf` if it maps a page.
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) -> Result<(), Stop>;
    /// A faulty entry was found: notes the reason.
    fn faulty(&mut self, here: Here, physical: u64, raw: u64, problem: Problem) -> Stop;
}

/// Where a walk ended.
#[derive(Clone, Copy)]
pub(crate) struct Leaf {
    /// The entry that maps the page.
    pub(crate) raw: u64,
    /// Where that entry lies.
    pub(crate) here: Here,
    /// Where that entry lies in memory.
    pub(crate) physical: u64,
    /// The size of the page, as a power of two.
    pub(crate) shift: u8,
    /// The bits set in every entry on the way.
    pub(crate) every: u64,
    /// The bits set in any entry on the way.
    pub(crate) any: u64,
}

/// Walks from the table at `root`, whose level is `top` (1–5), to the entry that maps `input`.
///
/// `accessed` are the bits that a used entry has or gets. It ends because the level only falls.
#[inline(always)]
pub(crate) fn descend<T: Tables>(
    format: &Format,
    tables: &mut T,
    root: u64,
    top: u8,
    input: u64,
    accessed: u64,
) -> Result<Leaf, Stop> {
    let (mut table, mut every, mut any) = (root, !0, 0);
    let mut level = top.clamp(1, 5);
    let mut shift = format.shift(level);
    let mask = !(!0 << (format.stride & 63));
    // Most entries point to a table, grant everything and have been used before: one comparison.
    let usual = format.present | accessed;
    let usual_mask = usual | format.leaf | format.table_reserved;
    loop {
        let at = table | (input >> (shift & 63) & mask) << 3;
        let here = Here { at, level, top };
        let physical = tables.locate(here)?;
        let Ok(raw) = tables.load(physical) else {
            return Err(tables.faulty(here, physical, 0, Problem::Unreadable));
        };
        every &= raw;
        any |= raw;
        if level == 1 || raw & usual_mask != usual {
            let leaf = level == 1 || raw & format.leaf != 0;
            let reserved = raw
                & if leaf {
                    let at = usize::from(level.wrapping_sub(1));
                    format.leaf_reserved.get(at).copied().unwrap_or(!0)
                } else {
                    format.table_reserved
                };
            if raw & format.present == 0 {
                return Err(tables.faulty(here, physical, raw, Problem::NotPresent));
            }
            if reserved != 0 {
                return Err(tables.faulty(here, physical, raw, Problem::Reserved(reserved)));
            }
            if leaf {
                tables.passed(here, physical, raw, true)?;
                return Ok(Leaf {
                    raw,
                    here,
                    physical,
                    shift,
                    every,
                    any,
                });
            }
            if accessed & !raw != 0 {
                tables.mark(here, physical, raw)?;
            }
        }
        tables.passed(here, physical, raw, false)?;
        table = raw & format.address;
        shift = shift.wrapping_sub(format.stride);
        level -= 1;
    }
}

impl Leaf {
    /// Where `input` lies in memory.
    #[inline(always)]
    pub(crate) fn address(&self, format: &Format, input: u64) -> u64 {
        let offset = !(!0 << (self.shift & 63));
        self.raw & format.address & !offset | input & offset
    }

    /// The entry, for a report.
    #[cold]
    pub(crate) fn slot(&self, format: &Format) -> Slot {
        self.here.slot(format, self.physical, self.raw)
    }
}
