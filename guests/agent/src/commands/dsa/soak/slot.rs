//! A piece of a process's memory that changes under the device, and what must be in it.

use super::witness::{Child, Witness, stale};
use crate::reply::Failure;
use crate::sys::Memory;
use rustix::mm::{Advice, MprotectFlags};
use std::ops::Range;

pub(super) const PAGE: usize = 4096;

/// How the memory of a slot comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Private pages of 4 KiB.
    Small,
    /// Pages of a file in memory, shared.
    Shared,
    /// Private, with huge pages where they can be had.
    Huge,
}

/// What may be done to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    All,
    ReadOnly,
    None,
}

/// What happens to a slot. The order is that of [`CHANGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The processor writes something else.
    Stamp,
    /// Some pages are given up.
    GiveUp,
    /// A new mapping takes the place of the old one.
    Renew,
    /// The mapping has no rights, and no pages, any more.
    Close,
    /// The mapping becomes read-only.
    Protect,
    /// The pages move to another address.
    Move,
    /// The process forks.
    Fork,
    /// Small pages become a huge one.
    Collapse,
}

/// Every change, and its name in the summary.
pub(super) const CHANGES: [(Change, &str); 8] = [
    (Change::Stamp, "stamp"),
    (Change::GiveUp, "give-up"),
    (Change::Renew, "renew"),
    (Change::Close, "close"),
    (Change::Protect, "protect"),
    (Change::Move, "move"),
    (Change::Fork, "fork"),
    (Change::Collapse, "collapse"),
];

impl Change {
    /// Whether memory of this kind can go through it.
    pub(super) fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Stamp | Self::GiveUp | Self::Protect => true,
            // A fork shares shared memory, and a new mapping would be a private one.
            Self::Renew | Self::Close => kind != Kind::Shared,
            Self::Move | Self::Fork => kind == Kind::Small,
            Self::Collapse => kind == Kind::Huge,
        }
    }

    /// Whether the device may be refused what it could do before.
    pub(super) fn refuses(self) -> bool {
        matches!(self, Self::Close | Self::Protect | Self::Move)
    }

    /// Whether pages go back to the kernel, which will give them to somebody else.
    pub(super) fn frees(self) -> bool {
        matches!(self, Self::GiveUp | Self::Renew | Self::Close)
    }
}

/// What a change left behind.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) change: Change,
    /// Pages that hold something else than before, or nothing.
    pub(super) lost: Range<usize>,
    /// The pages that moved away.
    pub(super) moved: Option<Witness>,
}

/// A piece of memory, and what each page of it holds in each word.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) memory: Memory,
    pub(super) kind: Kind,
    pub(super) rights: Rights,
    pub(super) now: Vec<u64>,
    pub(super) child: Option<Child>,
    /// A job is under way.
    pub(super) busy: bool,
}

impl Slot {
    pub(super) fn new(kind: Kind, pages: usize) -> Result<Self, Failure> {
        let len = pages * PAGE;
        let memory = match kind {
            Kind::Small => Memory::anonymous(len)?,
            Kind::Shared => Memory::shared(len)?,
            Kind::Huge => Memory::aligned(len)?,
        };
        let slot = Self {
            memory,
            kind,
            rights: Rights::All,
            now: vec![0; pages],
            child: None,
            busy: false,
        };
        slot.advise()?;
        Ok(slot)
    }

    /// Says which pages it wants; a new mapping has forgotten.
    fn advise(&self) -> Result<(), Failure> {
        let advice = match self.kind {
            Kind::Huge => Advice::LinuxHugepage,
            Kind::Small | Kind::Shared => Advice::LinuxNoHugepage,
        };
        self.memory.advise(advice)
    }

    pub(super) fn pages(&self) -> usize {
        self.now.len()
    }

    /// The address of a page.
    pub(super) fn address(&self, page: usize) -> u64 {
        self.memory.address() + (page * PAGE) as u64
    }

    /// Writes one value to every word of some pages.
    pub(super) fn stamp(&mut self, pages: Range<usize>, value: u64) {
        self.memory
            .set_words(pages.start * PAGE, pages.len() * PAGE, value);
        self.now[pages].fill(value);
    }

    /// Has some pages come, writable, and changes nothing in them.
    pub(super) fn touch(&self, pages: Range<usize>) {
        for page in pages {
            self.memory.set_words(page * PAGE, 8, self.now[page]);
        }
    }

    /// Makes everything possible again.
    pub(super) fn open(&mut self) -> Result<(), Failure> {
        match self.rights {
            Rights::All => {}
            Rights::ReadOnly => {
                let all = MprotectFlags::READ | MprotectFlags::WRITE;
                self.memory.protect(all)?;
            }
            Rights::None => {
                self.memory.replace()?;
                self.advise()?;
                self.now.fill(0);
            }
        }
        self.rights = Rights::All;
        Ok(())
    }

    /// Goes through a change that fits it, of these pages where it is not about all of them. A fork is
    /// not for here: it needs to know what the child may find.
    pub(super) fn change(
        &mut self,
        change: Change,
        pages: Range<usize>,
        value: u64,
    ) -> Result<Changed, Failure> {
        let (all, none) = (0..self.pages(), 0..0);
        let mut moved = None;
        let lost = match change {
            Change::Stamp => {
                self.stamp(pages.clone(), value);
                pages
            }
            Change::GiveUp => {
                let (at, len) = (pages.start * PAGE, pages.len() * PAGE);
                let advice = match self.kind {
                    // Only the file's own pages count there.
                    Kind::Shared => Advice::LinuxRemove,
                    Kind::Small | Kind::Huge => Advice::LinuxDontNeed,
                };
                self.memory.advise_part(at, len, advice)?;
                self.now[pages.clone()].fill(0);
                pages
            }
            Change::Renew => {
                self.memory.replace()?;
                self.advise()?;
                self.now.fill(0);
                all
            }
            Change::Close => {
                self.memory.close()?;
                self.rights = Rights::None;
                self.now.fill(0);
                all
            }
            Change::Protect => {
                self.memory.protect(MprotectFlags::READ)?;
                self.rights = Rights::ReadOnly;
                none
            }
            Change::Move => {
                let gone = self.memory.depart()?;
                self.advise()?;
                moved = Some(Witness::new("pages that moved away", gone));
                self.now.fill(0);
                all
            }
            // The kernel may have no huge page to give.
            Change::Collapse => {
                let _ = self.memory.collapse();
                none
            }
            Change::Fork => none,
        };
        Ok(Changed {
            change,
            lost,
            moved,
        })
    }

    /// Each word of a page is one of `allowed`; the value, where all words have the same.
    pub(super) fn look(&self, page: usize, allowed: &[u64]) -> Result<Option<u64>, Failure> {
        let first = self.memory.word(page * PAGE);
        let mut same = true;
        for at in (page * PAGE..(page + 1) * PAGE).step_by(8) {
            let found = self.memory.word(at);
            if !allowed.contains(&found) {
                let at = self.memory.address() + at as u64;
                return Err(stale("the process found", at, found, allowed));
            }
            same &= found == first;
        }
        Ok(same.then_some(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_holds_what_it_says_through_every_change() {
        for kind in [Kind::Small, Kind::Shared, Kind::Huge] {
            let mut slot = Slot::new(kind, 4).unwrap();
            for (change, name) in CHANGES {
                if !change.fits(kind) {
                    continue;
                }
                slot.open().unwrap();
                slot.stamp(0..4, 77);
                let changed = slot.change(change, 1..3, 99).unwrap();
                assert_eq!(changed.change, change);
                if slot.rights != Rights::None {
                    for page in 0..4 {
                        let held = slot.now[page];
                        assert_eq!(slot.look(page, &[held]), Ok(Some(held)), "{name} {kind:?}");
                        assert_eq!(held != 77, changed.lost.contains(&page), "{name} {kind:?}");
                    }
                }
                if let Some(moved) = changed.moved {
                    assert_eq!(moved.page(3), [77; 512]);
                }
            }
        }
    }

    #[test]
    fn a_word_that_does_not_belong_is_named_with_its_address() {
        let mut slot = Slot::new(Kind::Small, 2).unwrap();
        slot.stamp(0..2, 5);
        slot.memory.set_words(PAGE + 16, 8, 6);
        let error = slot.look(1, &[5, 0]).unwrap_err().text;
        let at = format!("0x6 at {:#x}", slot.address(1) + 16);
        assert!(error.contains(&at), "{error}");
        assert_eq!(
            slot.look(1, &[5, 6]),
            Ok(None),
            "not all words are the same"
        );
    }
}
