//! Page request group indices and credits of one function.

use iopf::{GroupIndex, Pasid};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many group indices PCIe has: 9 bits.
///
/// PCI Express Base Specification, "Page Request Message".
pub const MAX_GROUPS: u32 = 512;

/// A group that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outstanding {
    pub(crate) pasid: Option<Pasid>,
    pub(crate) pages: u32,
    pub(crate) sent: Duration,
    pub(crate) deadline: Duration,
}

/// The outstanding groups of a function: never more pages than the allocation, and never two
/// groups of one index.
///
/// An index whose group timed out stays out of use until its answer comes after all, so that a
/// late answer cannot complete another group.
#[derive(Debug)]
pub(crate) struct Groups {
    allocation: u32,
    /// An answer names the PASID of its group, not the index alone.
    by_pasid: bool,
    pages: u32,
    next: u32,
    next_stray: u32,
    waiting: BTreeMap<u32, Outstanding>,
    abandoned: BTreeMap<u32, Option<Pasid>>,
}

impl Groups {
    pub(crate) fn new(allocation: u32, by_pasid: bool) -> Self {
        Self {
            allocation,
            by_pasid,
            pages: 0,
            next: 0,
            next_stray: 0,
            waiting: BTreeMap::new(),
            abandoned: BTreeMap::new(),
        }
    }

    /// Whether an answer with `pasid` is one for a group of `of`.
    fn meant(&self, of: Option<Pasid>, pasid: Option<Pasid>) -> bool {
        !self.by_pasid || of == pasid
    }

    /// Pages that may be requested now.
    pub(crate) fn credits(&self) -> u32 {
        let indices = self.waiting.len() + self.abandoned.len();
        if indices >= MAX_GROUPS as usize {
            0
        } else {
            self.allocation.saturating_sub(self.pages)
        }
    }

    /// Opens a group, or `None` without credits or indices.
    pub(crate) fn open(&mut self, group: Outstanding) -> Option<GroupIndex> {
        if group.pages == 0 || group.pages > self.credits() {
            return None;
        }
        let index = (0..MAX_GROUPS)
            .map(|i| (self.next + i) % MAX_GROUPS)
            .find(|i| !self.waiting.contains_key(i) && !self.abandoned.contains_key(i))?;
        self.next = (index + 1) % MAX_GROUPS;
        self.pages += group.pages;
        self.waiting.insert(index, group);
        Some(GroupIndex(index))
    }

    /// Closes the group that an answer names, or `None` when it names none that waits.
    pub(crate) fn answer(
        &mut self,
        pasid: Option<Pasid>,
        group: GroupIndex,
    ) -> Option<Outstanding> {
        let open = self.waiting.get(&group.0)?;
        if !self.meant(open.pasid, pasid) {
            return None;
        }
        let open = self.waiting.remove(&group.0)?;
        self.pages -= open.pages;
        Some(open)
    }

    /// Takes note of an answer that came too late; false when nobody waits for it.
    pub(crate) fn late(&mut self, pasid: Option<Pasid>, group: GroupIndex) -> bool {
        let meant = |of: &Option<Pasid>| self.meant(*of, pasid);
        let late = self.abandoned.get(&group.0).is_some_and(meant);
        if late {
            self.abandoned.remove(&group.0);
        }
        late
    }

    /// Gives up one group whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<(GroupIndex, Outstanding)> {
        let (&index, _) = self.waiting.iter().find(|(_, g)| g.deadline <= now)?;
        let open = self.waiting.remove(&index)?;
        self.pages -= open.pages;
        self.abandoned.insert(index, open.pasid);
        Some((GroupIndex(index), open))
    }

    /// Whether every index waits for an answer that is overdue, so that no event is to come.
    pub(crate) fn exhausted(&self) -> bool {
        self.waiting.is_empty() && self.credits() == 0
    }

    /// The earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.waiting.values().map(|g| g.deadline).min()
    }

    /// Groups of one address space that wait.
    pub(crate) fn of(&self, pasid: Option<Pasid>) -> usize {
        self.waiting.values().filter(|g| g.pasid == pasid).count()
    }

    /// Changes how many pages may be requested; what is outstanding stays so.
    pub(crate) fn set_allocation(&mut self, allocation: u32) {
        self.allocation = allocation;
    }

    /// An index for a group that nobody will wait for, out of the upper half, so that the lower one
    /// is left to those that keep the rules; `None` when each of them is waited for.
    pub(crate) fn stray(&mut self, pasid: Option<Pasid>) -> Option<GroupIndex> {
        let half = MAX_GROUPS / 2;
        let index = (0..half)
            .map(|i| half + (self.next_stray + i) % half)
            .find(|i| !self.waiting.contains_key(i))?;
        self.next_stray = (index + 1) % half;
        self.abandoned.insert(index, pasid);
        Some(GroupIndex(index))
    }

    /// Whether any group waits.
    pub(crate) fn any(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets everything, as a reset of the interface does, and tells which groups waited. Indices go
    /// on from where they were: an answer to one of these that comes after all finds no group of its
    /// index, unless all the others were used meanwhile.
    pub(crate) fn drain(&mut self) -> Vec<(GroupIndex, Outstanding)> {
        let (next, next_stray) = (self.next, self.next_stray);
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        *self = Self {
            next,
            next_stray,
            ..Self::new(self.allocation, self.by_pasid)
        };
        waiting
            .map(|(index, open)| (GroupIndex(index), open))
            .collect()
    }

    /// As after power-on.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.allocation, self.by_pasid);
    }
}

#[cfg(test)]
mod tests;
