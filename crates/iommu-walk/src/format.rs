//! Page-table formats as data, and the one loop that walks them.

use crate::mem::Unreachable;
use iopf::Gpa;

/// What one level of a format looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Address bits below this level's index, 0–63.
    pub shift: u8,
    /// Entries in a table of this level, less one.
    pub index_mask: u32,
    /// Bits that must be zero in an entry that points to a table.
    pub table_reserved: u64,
    /// Bits that must be zero in an entry that maps a page. A level that maps none has the leaf
    /// bit itself in here.
    pub leaf_reserved: u64,
}

/// A page-table format. The loop that walks it is written once, for every format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The levels, from the lowest up; level `n` of a walk is `levels[n - 1]`.
    pub levels: [Level; 5],
    /// An entry with none of these bits is not present.
    pub present: u64,
    /// Above the lowest level, an entry with this bit maps a page.
    pub leaf: u64,
    /// Where an entry holds an address.
    pub address: u64,
    /// What a walk sets in each entry it uses; zero where the format has no such bit.
    pub accessed: u64,
    /// What a write sets in the entry that maps its page, besides `accessed`.
    pub dirty: u64,
}

impl Format {
    /// A format without levels: every walk through it fails.
    pub(crate) const EMPTY: Self = Self {
        levels: [Level {
            shift: 12,
            index_mask: 0,
            table_reserved: !0,
            leaf_reserved: !0,
        }; 5],
        present: 0,
        leaf: 0,
        address: 0,
        accessed: 0,
        dirty: 0,
    };
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

/// How one stage reaches its tables, and what it does about what it finds there.
///
/// A method that returns [`Stop`] has noted the reason.
pub(crate) trait Tables {
    /// Turns the address of an entry into a physical one. `slot` tells more of it, if asked.
    fn locate(&mut self, at: u64, slot: impl Fn(u64) -> Slot) -> Result<u64, Stop>;
    /// Loads a word of physical memory.
    fn load(&self, physical: u64) -> Result<u64, Unreachable>;
    /// A good entry that points to a table was found.
    fn passed(&mut self, raw: u64, slot: impl Fn() -> Slot) -> Result<(), Stop>;
    /// A good entry that maps a page was found.
    fn ended(&mut self, raw: u64, slot: impl Fn() -> Slot) -> Result<(), Stop>;
    /// A faulty entry was found: notes the reason.
    fn faulty(&mut self, slot: Slot, problem: Problem) -> Stop;
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// The entry that maps the page.
    pub(crate) raw: u64,
    /// Where that entry lies in the address space of its own stage's tables.
    pub(crate) at: u64,
    /// Where that entry lies in memory.
    pub(crate) physical: u64,
    /// The level of that entry.
    pub(crate) level: u8,
    /// The size of the page, as a power of two.
    pub(crate) shift: u8,
    /// The bits set in every entry on the way.
    pub(crate) every: u64,
    /// The bits set in any entry on the way.
    pub(crate) any: u64,
}

/// Walks from the table at `root`, whose level is `top` (1–5), to the entry that maps `input`.
///
/// It ends because the level only falls.
#[inline(always)]
pub(crate) fn descend<T: Tables>(
    format: &Format,
    tables: &mut T,
    root: u64,
    top: u8,
    input: u64,
) -> Result<Leaf, Stop> {
    let (mut table, mut every, mut any) = (root, !0, 0);
    let mut level = top.clamp(1, 5);
    loop {
        let Some(shape) = format.levels.get(usize::from(level - 1)) else {
            return Err(Stop);
        };
        let index = input >> (shape.shift & 63) & u64::from(shape.index_mask);
        let at = table | index << 3;
        // Built only where somebody wants to know.
        let slot = |physical: u64, raw: u64| Slot {
            at: Gpa(at),
            physical: Gpa(physical),
            level,
            #[expect(clippy::cast_possible_truncation, reason = "masked to 32 bits above")]
            index: index as u32,
            top: level == top,
            raw,
        };
        let physical = tables.locate(at, |physical| slot(physical, 0))?;
        let Ok(raw) = tables.load(physical) else {
            return Err(tables.faulty(slot(physical, 0), Problem::Unreadable));
        };
        every &= raw;
        any |= raw;
        let present = raw & format.present != 0;
        // A leaf above the lowest level counts as unusual here, and is looked at below.
        if level > 1 && present && raw & (shape.table_reserved | format.leaf) == 0 {
            tables.passed(raw, || slot(physical, raw))?;
            table = raw & format.address;
            level -= 1;
            continue;
        }
        let leaf = level == 1 || raw & format.leaf != 0;
        let reserved = raw
            & if leaf {
                shape.leaf_reserved
            } else {
                shape.table_reserved
            };
        if !present {
            return Err(tables.faulty(slot(physical, raw), Problem::NotPresent));
        }
        if reserved != 0 {
            return Err(tables.faulty(slot(physical, raw), Problem::Reserved(reserved)));
        }
        tables.ended(raw, || slot(physical, raw))?;
        return Ok(Leaf {
            raw,
            at,
            physical,
            level,
            shift: shape.shift,
            every,
            any,
        });
    }
}

impl Leaf {
    /// Where `input` lies in memory.
    #[inline]
    pub(crate) fn address(&self, format: &Format, input: u64) -> u64 {
        let offset = !(!0 << (self.shift & 63));
        self.raw & format.address & !offset | input & offset
    }

    /// The entry, for a report.
    pub(crate) fn slot(&self, format: &Format, input: u64) -> Slot {
        let shape = format.levels.get(usize::from(self.level.wrapping_sub(1)));
        let index = shape.map_or(0, |s| input >> (s.shift & 63) & u64::from(s.index_mask));
        Slot {
            at: Gpa(self.at),
            physical: Gpa(self.physical),
            level: self.level,
            index: u32::try_from(index).unwrap_or(0),
            top: false,
            raw: self.raw,
        }
    }
}
