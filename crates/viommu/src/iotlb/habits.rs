//! How an architecture looks at the requests of a source before it looks for their translations.

use super::entry::{Hit, RIGHTS};
use super::{Source, Tag};
use iopf::{Access, Iova};

bitflags::bitflags! {
    /// What sets requests of a source apart from others of the same address space. Arm's: tagged
    /// addresses, global pages, and overrides of a request's attributes.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Habits: u8 {
        /// The top byte of an address whose bit 55 is clear does not count (TBI0).
        const LOWER_TAGS = 1 << 0;
        /// The top byte of an address whose bit 55 is set does not count (TBI1).
        const UPPER_TAGS = 1 << 1;
        /// The global translations of the domain serve it, too: those of set 0.
        const GLOBAL = 1 << 2;
        /// With [`Self::GLOBAL`]: those of set 1 instead.
        const GLOBAL_SET = 1 << 3;
        /// Whatever a request says, it is privileged.
        const PRIVILEGED = 1 << 4;
        /// Whatever a request says, it is not privileged.
        const USER = 1 << 5;
        /// A request to execute is one to read.
        const DATA = 1 << 6;
        /// A request to read is one to execute.
        const INSTRUCTION = 1 << 7;
    }
}

/// The top byte of an address.
const TOP: u64 = 0xff << 56;

impl Habits {
    /// An address as translations are cached under it.
    #[inline]
    #[must_use]
    pub const fn place(self, iova: Iova) -> Iova {
        let upper = iova.0 >> 55 & 1 != 0;
        if upper && self.contains(Self::UPPER_TAGS) {
            Iova(iova.0 | TOP)
        } else if !upper && self.contains(Self::LOWER_TAGS) {
            Iova(iova.0 & !TOP)
        } else {
            iova
        }
    }

    /// A hit whose rights are those that a request as it comes needs.
    pub(super) const fn seen(self, hit: Hit) -> Hit {
        let (mut user, mut privileged) = (hit.0 & 7, hit.0 >> 3 & 7);
        if self.contains(Self::PRIVILEGED) {
            user = privileged;
        } else if self.contains(Self::USER) {
            privileged = user;
        }
        Hit(hit.0 & !RIGHTS | self.kinds(user) | self.kinds(privileged) << 3)
    }

    /// The rights of one mode. A request that writes reads data all the same, and a hit has no right of its
    /// own for that: where reads are of instructions, a page that cannot be read serves none.
    const fn kinds(self, rights: u64) -> u64 {
        const READ: u64 = Access::READ.bits() as u64;
        const EXEC: u64 = Access::EXEC.bits() as u64;
        // Execute is two bits above read.
        if self.contains(Self::DATA) {
            rights & !EXEC | (rights & READ) << 2
        } else if self.contains(Self::INSTRUCTION) {
            rights & (!READ | (rights & EXEC) >> 2)
        } else {
            rights
        }
    }
}

impl Source {
    /// The tag of the global translations that serve it, too.
    #[must_use]
    pub const fn global(&self) -> Option<Tag> {
        if !self.habits.contains(Habits::GLOBAL) {
            return None;
        }
        let set = self.habits.contains(Habits::GLOBAL_SET);
        Some(Tag::global(self.tag.domain(), set, self.tag.stage()))
    }
}
