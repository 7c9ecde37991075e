//! What random cases are made of: tables somewhere, and bits to change.

use super::board::Board;
use super::case::{BUSY, DATA, LOW, Memory, RAM_SIZE, TABLES};
use super::machine::Device;
use fastrand::Rng;
use std::ops::{Range, RangeInclusive};

/// Bits of an entry, by what changing one is likely to hit.
pub(crate) struct Bits(pub(crate) &'static [(&'static str, RangeInclusive<u8>)]);

/// A word of the case that a change may hit.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) at: u64,
    pub(crate) bits: &'static Bits,
    /// The word holds a pointer to a table or page.
    pub(crate) pointer: bool,
}

impl Target {
    pub(crate) fn is_page_table(&self) -> bool {
        self.name.starts_with("level")
    }
}

/// One of `values`, each as likely as the others.
pub(crate) fn pick<T: Copy, const N: usize>(rng: &mut Rng, values: [T; N]) -> T {
    values[rng.usize(..N)]
}

/// A device to do the DMA; `upper` allows those of the upper half.
pub(crate) fn device(rng: &mut Rng, upper: bool) -> Device {
    let upper = upper && rng.bool();
    if rng.u8(0..5) < 3 {
        Device::Writer { upper }
    } else {
        Device::Reader { upper }
    }
}

pub(crate) struct Builder<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) memory: Memory,
    pub(crate) targets: Vec<Target>,
    used: Vec<Range<u64>>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(rng: &'a mut Rng, board: &Board) -> Self {
        Self {
            rng,
            memory: Memory::of(board),
            targets: Vec::new(),
            used: Vec::new(),
        }
    }

    /// A page of tables that nothing else uses.
    pub(crate) fn table(&mut self) -> u64 {
        self.tables(1)
    }

    /// So many of them in a row.
    pub(crate) fn tables(&mut self, count: u64) -> u64 {
        self.free(12, count << 12)
    }

    /// A table of this size, a power of two, where an address with so many zeros is.
    pub(crate) fn aligned(&mut self, shift: u8) -> u64 {
        self.free(shift, 1 << shift)
    }

    fn free(&mut self, shift: u8, size: u64) -> u64 {
        let tables = self.memory.place(&TABLES);
        loop {
            let at = self.rng.u64(tables.start >> shift..tables.end >> shift) << shift;
            let end = at + size;
            let apart = |used: &Range<u64>| used.end <= at || end <= used.start;
            if at >= tables.start && end <= tables.end && self.used.iter().all(apart) {
                self.used.push(at..end);
                return at;
            }
        }
    }

    pub(crate) fn put(
        &mut self,
        name: &str,
        at: u64,
        word: u64,
        bits: &'static Bits,
        pointer: bool,
    ) {
        self.memory.words.insert(at, word);
        self.targets.push(Target {
            name: name.to_owned(),
            at,
            bits,
            pointer,
        });
    }

    /// A page of this size to map `iova` to.
    pub(crate) fn page(&mut self, iova: u64, shift: u8) -> u64 {
        let offset = iova & ((1 << shift) - 1);
        if shift >= 26 {
            // One page holds all of memory.
            return self.memory.start >> shift << shift;
        }
        let data = self.memory.place(&DATA);
        let base = self.rng.u64(data.start >> shift..=data.end >> shift) << shift;
        if data.contains(&(base + offset)) {
            base
        } else {
            data.start
        }
    }

    /// A target to change: as often in page tables, whose names begin with "level", as above them.
    pub(crate) fn choose(&mut self) -> usize {
        let pages = self.rng.bool();
        let targets: Vec<_> = (0..self.targets.len())
            .filter(|number| self.targets[*number].is_page_table() == pages)
            .collect();
        let mut target = targets[self.rng.usize(..targets.len())];
        let Target { name, bits, .. } = &self.targets[target];
        let dead_end = name.starts_with("root") || bits.0.len() == 1;
        if dead_end && self.rng.u8(0..4) > 0 {
            // Nothing behind such an entry is ever looked at.
            target = targets[self.rng.usize(..targets.len())];
        }
        target
    }

    /// The target of this name, which there is.
    pub(crate) fn named(&self, name: &str) -> usize {
        let place = self.targets.iter().position(|target| target.name == name);
        place.expect("a target has this name")
    }

    /// The word of a target.
    pub(crate) fn word(&mut self, target: usize) -> &mut u64 {
        self.memory.word(self.targets[target].at)
    }

    /// Lets the pointer of a target lead to `to`.
    pub(crate) fn aim(&mut self, target: usize, to: u64) {
        let word = self.word(target);
        *word = *word & !0x000f_ffff_ffff_f000 | to;
    }

    /// Changes one or two bits of a target; says which.
    pub(crate) fn flip(&mut self, target: usize) -> String {
        let target = &self.targets[target];
        let word = self.memory.word(target.at);
        let mut what = target.name.clone();
        for _ in 0..pick(self.rng, [1, 1, 2]) {
            let group = &target.bits.0[self.rng.usize(..target.bits.0.len())];
            let bit = self.rng.u8(group.1.clone());
            *word ^= 1 << bit;
            what += &format!(" bit {bit} ({})", group.0);
        }
        what
    }
}

/// An address for the tables to map, below `width` bits, which are 21 at least.
pub(crate) fn address(rng: &mut Rng, width: u8) -> u64 {
    let gigabyte = width >= 30;
    let width = if rng.u8(0..4) == 0 {
        rng.u8(21..=width)
    } else {
        width
    };
    loop {
        let mut at = rng.u64(..) >> (64 - width) & !3;
        if rng.u8(0..4) == 0 && gigabyte {
            // So that a 1 GiB page from 0 on reaches memory that is there.
            at = at & !0x3fff_ffff | rng.u64(DATA) & !3;
        }
        if at >> 20 != 0xfee {
            return at;
        }
    }
}

/// Whether the case keeps away from what the harness cannot watch: firmware, tables as targets of
/// DMA, and the devices below 4 GiB.
pub(crate) fn watchable(memory: &Memory, ends: &[u64], steps: impl Iterator<Item = u64>) -> bool {
    let (data, open) = (memory.place(&DATA), memory.place(&(LOW..RAM_SIZE)));
    let read = |at: u64| open.contains(&at) || at >= BUSY;
    ends.iter().all(|at| data.contains(at)) && { steps }.all(read)
}
