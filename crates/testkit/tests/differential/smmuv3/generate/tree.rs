//! Translation tables of one stage, with what a case needs in them: Arm DDI 0487, "The VMSAv8-64
//! address translation system".

use super::bits;
use crate::harness::{Builder, pick};

/// The low `count` bits.
pub(super) const fn low(count: u8) -> u64 {
    if count >= 64 { !0 } else { !(!0 << count) }
}

/// Valid, and a table, or a page at level 3.
const TABLE: u64 = 0b11;
/// Valid, and a block.
const BLOCK: u64 = 0b01;
/// AF.
const ACCESSED: u64 = 1 << 10;

/// The tables of a stage.
pub(super) struct Tree {
    /// 1 or 2.
    pub(super) stage: u8,
    /// Bits of the granule: 12, 14 or 16.
    pub(super) granule: u8,
    /// Bits of an input address.
    pub(super) input: u8,
    /// The level where walks start, 0–3.
    pub(super) start: u8,
    /// Where the first table is.
    pub(super) root: u64,
    /// Addresses of entries that point to tables, and of these.
    tables: Vec<(u64, u64)>,
}

impl Tree {
    pub(super) fn new(b: &mut Builder<'_>, stage: u8, granule: u8, input: u8, start: u8) -> Self {
        let mut tree = Self {
            stage,
            granule,
            input,
            start,
            root: 0,
            tables: Vec::new(),
        };
        tree.root = b.aligned(tree.root_size());
        tree
    }

    /// The size of the first table, or of the concatenated ones, as a power of two.
    fn root_size(&self) -> u8 {
        (3 + self.input.saturating_sub(self.shift(self.start))).max(12)
    }

    /// Address bits below the index of this level.
    pub(super) fn shift(&self, level: u8) -> u8 {
        self.granule + (3 - level) * (self.granule - 3)
    }

    /// Where, in a table of this level, the entry for this address is.
    fn offset(&self, from: u64, level: u8) -> u64 {
        let index = (from & low(self.input)) >> self.shift(level);
        let index = if level == self.start {
            index
        } else {
            index & low(self.granule - 3)
        };
        index * 8
    }

    /// A level to map pages or blocks at; now and then one that must not.
    pub(super) fn leaf(&self, b: &mut Builder<'_>) -> u8 {
        let lowest = match self.granule {
            12 => 1,
            _ => 2,
        };
        let forbidden = b.rng.u8(0..10) == 0;
        let lowest = if forbidden { 0 } else { lowest };
        let leaf = pick(b.rng, [3, 3, 3, 3, 2, 2, 2, 1, 1, lowest]);
        leaf.max(lowest).max(self.start)
    }

    /// Maps `from` to `to`, which have the bits below `leaf`'s in common; where there is a stage 2,
    /// tables are reached through it. `None` where something else is in the way.
    pub(super) fn map(
        &mut self,
        b: &mut Builder<'_>,
        from: u64,
        to: u64,
        leaf: u8,
        mut below: Option<&mut Below>,
    ) -> Option<()> {
        let mut table = self.root;
        for level in self.start..=leaf {
            let at = table + self.offset(from, level);
            let attributes = b.rng.u64(..) & 0xf << 55;
            if level == leaf {
                let address = to & !low(self.shift(leaf));
                let kind = if leaf == 3 { TABLE } else { BLOCK };
                let word = address | self.rights(b) | ACCESSED | kind | attributes;
                if b.memory.get(at) != 0 {
                    return None;
                }
                self.put(b, level, at, word);
                break;
            }
            let known = self.tables.iter().find(|(entry, _)| *entry == at);
            table = match known {
                Some((_, table)) => *table,
                None if b.memory.get(at) != 0 => return None,
                None => {
                    let next = b.aligned(self.granule);
                    let used = self.offset(from, level + 1);
                    let seen = match &mut below {
                        Some(below) => below.place(b, next, used, self.granule)?,
                        None => next,
                    };
                    self.put(b, level, at, seen | TABLE | attributes);
                    self.tables.push((at, next));
                    next
                }
            };
        }
        Some(())
    }

    /// The base of the first table, as whoever walks it has it.
    pub(super) fn base(
        &self,
        b: &mut Builder<'_>,
        from: u64,
        below: Option<&mut Below>,
    ) -> Option<u64> {
        let used = self.offset(from, self.start);
        match below {
            Some(below) => below.place(b, self.root, used, self.root_size()),
            None => Some(self.root),
        }
    }

    fn put(&self, b: &mut Builder<'_>, level: u8, at: u64, word: u64) {
        let name = format!("level {level} of stage {}", self.stage);
        let bits = if self.stage == 1 {
            &bits::STAGE_1
        } else {
            &bits::STAGE_2
        };
        b.put(&name, at, word, bits, true);
    }

    /// AP or S2AP.
    fn rights(&self, b: &mut Builder<'_>) -> u64 {
        let rare = b.rng.u8(0..12) == 0;
        match (self.stage, rare) {
            (1, false) => 0b01 << 6,
            (1, true) => pick(b.rng, [0b00, 0b10, 0b11]) << 6,
            (_, false) => 0b11 << 6,
            (_, true) => pick(b.rng, [0b01, 0b10]) << 6,
        }
    }
}

/// The stage that stage 1 tables are reached through.
pub(super) struct Below {
    pub(super) tree: Tree,
    /// Bits of the addresses that stage 1 may give out.
    pub(super) bits: u8,
}

impl Below {
    /// An address that leads to this one, when mapped at this level.
    pub(super) fn address(&self, b: &mut Builder<'_>, to: u64, leaf: u8) -> u64 {
        let within = low(self.tree.shift(leaf));
        b.rng.u64(..) & low(self.bits) & !within | to & within & low(self.bits)
    }

    /// Maps what is used of a table of 2 to the power of `size` at `table`; gives where it is seen.
    pub(super) fn place(
        &mut self,
        b: &mut Builder<'_>,
        table: u64,
        used: u64,
        size: u8,
    ) -> Option<u64> {
        let leaf = self.tree.leaf(b);
        let seen = self.address(b, table, leaf);
        let seen = if self.tree.shift(leaf) < size {
            seen & !low(size)
        } else {
            seen
        };
        if used & !low(size) != 0 || self.tree.shift(leaf) >= self.bits {
            return None;
        }
        self.tree.map(b, seen + used, table + used, leaf, None)?;
        if used >> self.tree.shift(leaf) != 0 && b.rng.bool() {
            // The rest follows, or does not: its base at least.
            let elsewhere = b.rng.u8(0..3) == 0;
            let base = if elsewhere { b.aligned(size) } else { table };
            self.tree.map(b, seen, base, leaf, None)?;
        }
        Some(seen)
    }
}
