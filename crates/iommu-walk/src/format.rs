//! Page-table formats as data, and the one loop that walks them.

use crate::mem::Unreachable;
use iopf::Gpa;

/// Pages of 4 KiB, and tables of 512 entries: what x86 has. Known when the loop is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages4K;

/// Pages and tables of one of several sizes.
///
/// What grants something is in the entry that maps a page, what denies something in those that point to
/// tables: where the others have other bits, these mean something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granules {
    /// The number of address bits below the lowest level's index, which is the smallest page as a
    /// power of two.
    pub page_shift: u8,
    /// How many bits each level adds.
    pub stride: u8,
    /// Bits that count when they are clear. All that a format says is said of an entry with these bits
    /// turned over.
    pub inverted: u64,
}

/// How large pages and tables are, and what kind of entry there is.
pub trait Geometry: Copy {
    /// See [`Granules`].
    const GRANULES: bool;

    /// The smallest page as a power of two.
    fn page_shift(self) -> u8;
    /// How many bits each level adds.
    fn stride(self) -> u8;
    /// Bits that count when they are clear.
    fn inverted(self) -> u64;
}

impl Geometry for Pages4K {
    const GRANULES: bool = false;

    #[inline(always)]
    fn page_shift(self) -> u8 {
        12
    }
    #[inline(always)]
    fn stride(self) -> u8 {
        9
    }
    #[inline(always)]
    fn inverted(self) -> u64 {
        0
    }
}

impl Geometry for Granules {
    const GRANULES: bool = true;

    #[inline(always)]
    fn page_shift(self) -> u8 {
        self.page_shift
    }
    #[inline(always)]
    fn stride(self) -> u8 {
        self.stride
    }
    #[inline(always)]
    fn inverted(self) -> u64 {
        self.inverted
    }
}

/// A page-table format. The loop that walks it is written once, for every format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format<G = Pages4K> {
    /// How large pages and tables are.
    pub geometry: G,
    /// An entry with none of these bits is not present.
    pub present: u64,
    /// Above the lowest level, an entry with this bit maps a page.
    pub leaf: u64,
    /// Where an entry holds an address.
    pub address: u64,
    /// Bits that each grant something, where every entry on the way has them.
    pub grants: u64,
    /// Bits that each take something away, where any entry on the way has them.
    pub denies: u64,
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
        geometry: Pages4K,
        present: 0,
        leaf: 0,
        address: 0,
        grants: 0,
        denies: 0,
        table_reserved: !0,
        leaf_reserved: [!0; 5],
        accessed: 0,
        dirty: 0,
    };
}

impl<G: Geometry> Format<G> {
    /// What most entries look like that point to a table: they grant everything, deny nothing, and
    /// have `accessed`.
    #[inline(always)]
    pub(crate) const fn usual(&self, accessed: u64) -> Usual {
        let bits = self.grants | accessed;
        Usual {
            bits,
            mask: bits | self.denies | self.leaf | self.table_reserved,
        }
    }
}

/// How the entries look that need no second look.
#[derive(Clone, Copy)]
pub(crate) struct Usual {
    bits: u64,
    mask: u64,
}

impl Usual {
    /// With none of these bits, too.
    #[inline(always)]
    pub(crate) const fn without(mut self, bits: u64) -> Self {
        self.mask |= bits;
        self
    }

    /// What an entry of `level` has of the bits in the mask.
    #[inline(always)]
    fn at<T: Tables>(&self, level: u8) -> u64 {
        if T::SKIPS {
            self.bits.wrapping_add(leads_to(level))
        } else {
            self.bits
        }
    }

    /// Naming a level, of which the caller adds its own.
    #[inline(always)]
    const fn naming(mut self) -> Self {
        self.bits = self.bits.wrapping_sub(leads_to(1));
        self.mask |= leads_to(7);
        self
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
    /// Its content, as it was read; zero where it was not.
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
    /// It does not lead down.
    Level,
    /// It maps a page whose size is not one of its level.
    Size,
    /// It skips levels whose index is not zero.
    Skipped,
}

/// Where the walk is. Passed by value, so that it stays in registers.
#[derive(Clone, Copy)]
pub(crate) struct Here {
    /// Where the entry lies in the address space of its own stage's tables.
    pub(crate) at: u64,
    /// Its level, 1 being the lowest.
    pub(crate) level: u8,
}

impl Here {
    /// The entry, for whoever wants to know more; its table has 2^`bits` entries.
    #[cold]
    pub(crate) fn slot(self, inverted: u64, bits: u8, physical: u64, raw: u64) -> Slot {
        // An entry has 8 bytes, and a table is aligned to its size.
        let index = self.at >> 3 & !(!0 << (bits & 63));
        Slot {
            at: Gpa(self.at),
            physical: Gpa(physical),
            level: self.level,
            index: u32::try_from(index).unwrap_or(0),
            raw: raw ^ inverted,
        }
    }
}

/// How one stage reaches its tables, and what it does about what it finds there.
///
/// A method that returns [`Stop`] has noted the reason.
pub(crate) trait Tables {
    /// Whether entries name the level they lead to, in bits 11:9, and may skip some: 0 maps a page
    /// of the entry's own level, 7 one whose size is in its address.
    const SKIPS: bool = false;

    /// Turns the address of an entry into a physical one.
    fn locate(&mut self, here: Here) -> Result<u64, Stop>;
    /// Loads a word of physical memory.
    fn load(&self, physical: u64) -> Result<u64, Unreachable>;
    /// A good entry is not the usual one, or maps a page (`leaf`).
    fn unusual(&mut self, here: Here, physical: u64, raw: u64, leaf: bool) -> Result<(), Stop>;
    /// An unusual entry that names the level it leads to does lead there.
    #[inline(always)]
    fn leads(&mut self, here: Here, raw: u64) -> Result<(), Stop> {
        let _ = (here, raw);
        Ok(())
    }
    /// A good entry was found; `leaf` if it maps a page.
    fn passed(&mut self, here: Here, physical: u64, raw: u64, leaf: bool);
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
    /// Of the bits that grant something: those set in every entry on the way (with
    /// [`Granules`], in the entry that maps the page).
    pub(crate) every: u64,
    /// Of the bits that deny something: those set in any entry on the way (with
    /// [`Granules`], in any that points to a table).
    pub(crate) any: u64,
}

/// Bits 11:9 of an entry that leads to `level`.
const fn leads_to(level: u8) -> u64 {
    (level as u64) << 9
}

/// The level that an entry names, or 0 or 7.
#[inline(always)]
const fn next_of(raw: u64) -> u8 {
    (raw >> 9 & 7) as u8
}

/// Walks from the table at `root`, whose level is `top` (1–5, or 6 where levels can be skipped), to
/// the entry that maps `input`. Bits of the input above the top table's index must be zero, or
/// without meaning.
///
/// It ends because the level only falls.
#[inline(always)]
pub(crate) fn descend<T: Tables, G: Geometry>(
    format: &Format<G>,
    usual: Usual,
    tables: &mut T,
    root: u64,
    top: u8,
    input: u64,
) -> Result<Leaf, Stop> {
    let geometry = format.geometry;
    let (page_shift, stride) = (geometry.page_shift(), geometry.stride());
    let (mut table, mut every, mut any) = (root, !0, 0);
    let mut level = top;
    // What is left of the input, the next index on top.
    let unused = 64u8.wrapping_sub(page_shift.wrapping_add(stride.wrapping_mul(level)));
    let mut rest = if T::SKIPS && covers_more(geometry, level) {
        input >> (0u8.wrapping_sub(unused) & 63)
    } else {
        input << (unused & 63)
    };
    let usual = if T::SKIPS { usual.naming() } else { usual };
    loop {
        let at = table | rest >> (64u8.wrapping_sub(stride) & 63) << 3;
        let here = Here { at, level };
        let physical = tables.locate(here)?;
        let Ok(raw) = tables.load(physical) else {
            let nothing = geometry.inverted();
            return Err(tables.faulty(here, physical, nothing, Problem::Unreadable));
        };
        let raw = raw ^ geometry.inverted();
        // One comparison for the usual entry, which changes nothing about `every` and `any`.
        if level <= 1 || raw & usual.mask != usual.at::<T>(level) {
            let leaf = if T::SKIPS {
                matches!(next_of(raw), 0 | 7)
            } else {
                level <= 1 || raw & format.leaf != 0
            };
            let reserved = raw
                & if leaf {
                    let at = if T::SKIPS { 1 } else { level };
                    let at = usize::from(at.wrapping_sub(1));
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
            match (G::GRANULES, leaf) {
                (true, true) => every = raw,
                (true, false) => any |= raw,
                (false, _) => {
                    every &= raw;
                    any |= raw;
                }
            }
            tables.unusual(here, physical, raw, leaf)?;
            if leaf {
                let own = page_shift.wrapping_add(stride.wrapping_mul(level.wrapping_sub(1)));
                let shift = if T::SKIPS {
                    match shift_of(format, raw, level, own) {
                        Ok(shift) => shift,
                        Err(problem) => return Err(tables.faulty(here, physical, raw, problem)),
                    }
                } else {
                    own
                };
                tables.passed(here, physical, raw, true);
                return Ok(Leaf {
                    raw,
                    here,
                    physical,
                    shift,
                    every,
                    any,
                });
            }
            if T::SKIPS {
                let next = next_of(raw);
                if next >= level {
                    return Err(tables.faulty(here, physical, raw, Problem::Level));
                }
                // Levels skipped: their indices are next in line.
                let skipped = level.wrapping_sub(next).wrapping_sub(1);
                if skipped != 0 {
                    let bits = stride.wrapping_mul(skipped);
                    if rest << stride >> (64u8.wrapping_sub(bits) & 63) != 0 {
                        return Err(tables.faulty(here, physical, raw, Problem::Skipped));
                    }
                    rest <<= bits & 63;
                    level = next.wrapping_add(1);
                }
                tables.leads(here, raw)?;
            }
        }
        tables.passed(here, physical, raw, false);
        table = raw & format.address;
        rest <<= stride & 63;
        level -= 1;
    }
}

/// Whether a table of this level covers more than there are addresses: no entry of it maps a page.
#[inline(always)]
fn covers_more<G: Geometry>(geometry: G, level: u8) -> bool {
    let bits = geometry.stride().wrapping_mul(level);
    geometry.page_shift().wrapping_add(bits) > 64
}

/// The size of the page that an entry maps which names its next level, as a power of two; `own` is
/// that of its level.
#[inline(always)]
fn shift_of<G: Geometry>(format: &Format<G>, raw: u64, level: u8, own: u8) -> Result<u8, Problem> {
    let geometry = format.geometry;
    if covers_more(geometry, level) {
        return Err(Problem::Level);
    }
    if next_of(raw) == 0 {
        return Ok(own);
    }
    // The lowest zero of the address is the highest bit below the size.
    #[expect(clippy::cast_possible_truncation, reason = "no more than 64")]
    let ones = ((raw & format.address) >> geometry.page_shift()).trailing_ones() as u8;
    let shift = geometry.page_shift().wrapping_add(ones).wrapping_add(1);
    // Larger than a page of this level, smaller than one of the next.
    if shift > own && shift < own.wrapping_add(geometry.stride()) {
        Ok(shift)
    } else {
        Err(Problem::Size)
    }
}

impl Leaf {
    /// Where `input` lies in memory.
    #[inline(always)]
    pub(crate) fn address<G>(&self, format: &Format<G>, input: u64) -> u64 {
        let offset = !(!0 << (self.shift & 63));
        self.raw & format.address & !offset | input & offset
    }
}
