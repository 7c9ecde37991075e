//! The numbers under which a user knows the groups it has read.

use super::Given;
use alloc::collections::{BTreeMap, BinaryHeap};
use core::cmp::Reverse;

/// Groups by cookie, and which cookie is next.
#[derive(Debug)]
pub(super) struct Cookies {
    given: BTreeMap<u32, Given>,
    next: Next,
}

#[derive(Debug)]
enum Next {
    /// The lowest that is free, as the kernel's `xa_alloc` has it: freed ones, and the first that
    /// was never given.
    ///
    /// From 1 on, until a user asks for 0 while others are given: the kernel's array
    /// (`XA_FLAGS_ALLOC1`) keeps an entry there to have it taken, which `xa_erase` takes away.
    Lowest {
        freed: BinaryHeap<Reverse<u32>>,
        never: u32,
        zero: bool,
    },
    /// The one after the last, so that none comes back before all others have been given. Never 0.
    Fresh(u32),
}

impl Cookies {
    pub(super) fn new(reuse: bool) -> Self {
        Self {
            given: BTreeMap::new(),
            next: if reuse {
                Next::Lowest {
                    freed: BinaryHeap::new(),
                    never: 1,
                    zero: false,
                }
            } else {
                Next::Fresh(1)
            },
        }
    }

    /// A cookie for `group`; `None` where all are taken.
    pub(super) fn give(&mut self, group: Given) -> Option<u32> {
        if u32::try_from(self.given.len()).unwrap_or(u32::MAX) == u32::MAX {
            return None;
        }
        let cookie = match &mut self.next {
            Next::Lowest { freed, never, .. } => freed.pop().map_or_else(
                || {
                    let cookie = *never;
                    *never = cookie.wrapping_add(1);
                    cookie
                },
                |Reverse(cookie)| cookie,
            ),
            Next::Fresh(next) => {
                while *next == 0 || self.given.contains_key(next) {
                    *next = next.wrapping_add(1);
                }
                let cookie = *next;
                *next = cookie.wrapping_add(1);
                cookie
            }
        };
        self.given.insert(cookie, group);
        Some(cookie)
    }

    /// The group of `cookie`, which is free from now on.
    pub(super) fn take(&mut self, cookie: u32) -> Option<Given> {
        let others = !self.given.is_empty();
        let group = self.given.remove(&cookie);
        if let Next::Lowest { freed, zero, .. } = &mut self.next {
            let first = cookie == 0 && others && !*zero;
            *zero |= first;
            if group.is_some() || first {
                freed.push(Reverse(cookie));
            }
        }
        group
    }

    /// `cookie` was not handed out after all.
    pub(super) fn give_back(&mut self, cookie: u32) {
        self.take(cookie);
        if let Next::Fresh(next) = &mut self.next {
            *next = cookie;
        }
    }

    /// Takes the groups for which `goes` holds, those of low cookies first.
    pub(super) fn take_all(
        &mut self,
        mut goes: impl FnMut(&Given) -> bool,
    ) -> BTreeMap<u32, Given> {
        let gone: BTreeMap<u32, Given> =
            self.given.extract_if(.., |_, group| goes(group)).collect();
        if let Next::Lowest { freed, .. } = &mut self.next {
            freed.extend(gone.keys().map(|cookie| Reverse(*cookie)));
        }
        gone
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.given.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.given.len()
    }

    /// The next fresh cookie is `next`.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, to: u32) {
        if let Next::Fresh(next) = &mut self.next {
            *next = to;
        }
    }
}
