//! Page-table formats as data, and the one loop that walks them.

use crate::mem::Unreachable;
use iopf::Gpa;

/// What one level of a format looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Address bits below this level's index.
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
    pub const EMPTY: Self = Self {
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
    /// Its content, once read.
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
pub(crate) trait Tables {
    /// Why the walk may end early.
    type Failure;

    /// Turns the address of an entry into a physical one.
    fn locate(&mut self, slot: &mut Slot) -> Result<(), Self::Failure>;
    /// Loads a word of physical memory.
    fn load(&self, physical: Gpa) -> Result<u64, Unreachable>;
    /// The failure that a faulty entry means.
    fn faulty(&mut self, slot: &Slot, problem: Problem) -> Self::Failure;
    /// A good entry was found; `leaf` if it maps a page.
    fn passed(&mut self, slot: &Slot, leaf: bool) -> Result<(), Self::Failure>;
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// The entry that maps the page.
    pub(crate) slot: Slot,
    /// The size of the page, as a power of two.
    pub(crate) shift: u8,
    /// The bits set in every entry on the way.
    pub(crate) every: u64,
    /// The bits set in any entry on the way.
    pub(crate) any: u64,
}

/// Walks from the table at `root`, whose level is `top`, to the entry that maps `input`.
///
/// It ends because the level only falls. `extra_reserved` is added to every level's reserved bits.
#[inline]
pub(crate) fn descend<T: Tables>(
    format: &Format,
    tables: &mut T,
    root: Gpa,
    top: u8,
    input: u64,
    extra_reserved: u64,
) -> Result<Leaf, T::Failure> {
    let mut table = root.0;
    let (mut every, mut any) = (!0, 0);
    let mut level = top.clamp(1, 5);
    loop {
        let shape = &format.levels[usize::from(level - 1) % 5];
        // The mask keeps the index within its 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "masked to 32 bits")]
        let index = (input >> (shape.shift & 63)) as u32 & shape.index_mask;
        let at = Gpa(table | u64::from(index) << 3);
        let mut slot = Slot {
            at,
            physical: at,
            level,
            index,
            top: level == top,
            raw: 0,
        };
        tables.locate(&mut slot)?;
        let Ok(raw) = tables.load(slot.physical) else {
            return Err(tables.faulty(&slot, Problem::Unreadable));
        };
        slot.raw = raw;
        let leaf = level == 1 || raw & format.leaf != 0;
        let reserved = if leaf {
            shape.leaf_reserved
        } else {
            shape.table_reserved
        } | extra_reserved;
        if raw & format.present == 0 {
            return Err(tables.faulty(&slot, Problem::NotPresent));
        }
        if raw & reserved != 0 {
            return Err(tables.faulty(&slot, Problem::Reserved(raw & reserved)));
        }
        tables.passed(&slot, leaf)?;
        every &= raw;
        any |= raw;
        if leaf {
            return Ok(Leaf {
                slot,
                shift: shape.shift,
                every,
                any,
            });
        }
        table = raw & format.address;
        level -= 1;
    }
}

impl Leaf {
    /// The address of the page.
    #[inline]
    pub(crate) fn page(&self, format: &Format) -> u64 {
        self.slot.raw & format.address & !0 << (self.shift & 63)
    }

    /// Where `input` lies in memory.
    #[inline]
    pub(crate) fn address(&self, format: &Format, input: u64) -> u64 {
        self.page(format) | input & !(!0 << (self.shift & 63))
    }
}
