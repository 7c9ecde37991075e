//! Page-table formats as data, and the one loop that walks them.

use crate::mem::Unreachable;
use iopf::Gpa;

/// A page-table format. The loop that walks it is written once, for every format.
///
/// Its geometry is known when it is compiled: `PAGE_SHIFT` is the number of address bits below the
/// lowest level's index, which is the smallest page as a power of two; `STRIDE` is how many bits
/// each level adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format<const PAGE_SHIFT: u8 = 12, const STRIDE: u8 = 9> {
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

impl<const PAGE_SHIFT: u8, const STRIDE: u8> Format<PAGE_SHIFT, STRIDE> {
    /// A format through which every walk fails.
    pub(crate) const EMPTY: Self = Self {
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
    /// The entry, for whoever wants to know more.
    #[cold]
    pub(crate) fn slot<const PAGE_SHIFT: u8, const STRIDE: u8>(
        self,
        _: &Format<PAGE_SHIFT, STRIDE>,
        physical: u64,
        raw: u64,
    ) -> Slot {
        // An entry has 8 bytes, and a table is aligned to its size.
        let index = self.at >> 3 & !(!0 << (STRIDE & 63));
        Slot {
            at: Gpa(self.at),
            physical: Gpa(physical),
            level: self.level,
            index: u32::try_from(index).unwrap_or(0),
            raw,
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
    /// Of the bits that grant something: those set in every entry on the way.
    pub(crate) every: u64,
    /// Of the bits that deny something: those set in any entry on the way.
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
pub(crate) fn descend<T: Tables, const PAGE_SHIFT: u8, const STRIDE: u8>(
    format: &Format<PAGE_SHIFT, STRIDE>,
    usual: Usual,
    tables: &mut T,
    root: u64,
    top: u8,
    input: u64,
) -> Result<Leaf, Stop> {
    let (mut table, mut every, mut any) = (root, !0, 0);
    let mut level = top;
    // What is left of the input, the next index on top.
    let unused = 64u8.wrapping_sub(PAGE_SHIFT.wrapping_add(STRIDE.wrapping_mul(level)));
    let mut rest = if T::SKIPS && covers_more::<PAGE_SHIFT, STRIDE>(level) {
        input >> (0u8.wrapping_sub(unused) & 63)
    } else {
        input << (unused & 63)
    };
    let usual = if T::SKIPS { usual.naming() } else { usual };
    loop {
        let at = table | rest >> (64 - STRIDE) << 3;
        let here = Here { at, level };
        let physical = tables.locate(here)?;
        let Ok(raw) = tables.load(physical) else {
            return Err(tables.faulty(here, physical, 0, Problem::Unreadable));
        };
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
            every &= raw;
            any |= raw;
            tables.unusual(here, physical, raw, leaf)?;
            if leaf {
                let own = PAGE_SHIFT.wrapping_add(STRIDE.wrapping_mul(level.wrapping_sub(1)));
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
                    let bits = STRIDE.wrapping_mul(skipped);
                    if rest << STRIDE >> (64u8.wrapping_sub(bits) & 63) != 0 {
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
        rest <<= STRIDE;
        level -= 1;
    }
}

/// Whether a table of this level covers more than there are addresses: no entry of it maps a page.
#[inline(always)]
const fn covers_more<const PAGE_SHIFT: u8, const STRIDE: u8>(level: u8) -> bool {
    PAGE_SHIFT.wrapping_add(STRIDE.wrapping_mul(level)) > 64
}

/// The size of the page that an entry maps which names its next level, as a power of two; `own` is
/// that of its level.
#[inline(always)]
fn shift_of<const PAGE_SHIFT: u8, const STRIDE: u8>(
    format: &Format<PAGE_SHIFT, STRIDE>,
    raw: u64,
    level: u8,
    own: u8,
) -> Result<u8, Problem> {
    if covers_more::<PAGE_SHIFT, STRIDE>(level) {
        return Err(Problem::Level);
    }
    if next_of(raw) == 0 {
        return Ok(own);
    }
    // The lowest zero of the address is the highest bit below the size.
    #[expect(clippy::cast_possible_truncation, reason = "no more than 64")]
    let ones = ((raw & format.address) >> PAGE_SHIFT).trailing_ones() as u8;
    let shift = PAGE_SHIFT.wrapping_add(ones).wrapping_add(1);
    // Larger than a page of this level, smaller than one of the next.
    if shift > own && shift < own.wrapping_add(STRIDE) {
        Ok(shift)
    } else {
        Err(Problem::Size)
    }
}

impl Leaf {
    /// Where `input` lies in memory.
    #[inline(always)]
    pub(crate) fn address(&self, format: &Format, input: u64) -> u64 {
        let offset = !(!0 << (self.shift & 63));
        self.raw & format.address & !offset | input & offset
    }
}
