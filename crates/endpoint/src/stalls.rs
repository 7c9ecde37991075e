//! Accesses that the IOMMU holds, by the names it gave them.

use std::collections::BTreeMap;
use viommu_api::{Resume, StallTag};

/// What is held of one function. Each name is resumed once, be that before we know of it, or after
/// nobody waits any more; so nothing stays here for good.
#[derive(Debug)]
pub(crate) struct Stalls<T> {
    held: BTreeMap<StallTag, Held<T>>,
}

#[derive(Debug)]
enum Held<T> {
    /// It waits.
    Waiting(T),
    /// It was resumed before the call that was refused has returned.
    Early(Resume),
    /// Nobody waits for it any more.
    Abandoned,
}

impl<T> Stalls<T> {
    pub(crate) const fn new() -> Self {
        Self {
            held: BTreeMap::new(),
        }
    }

    /// Has `what` wait for `tag`; it comes back if that was resumed already.
    pub(crate) fn wait(&mut self, tag: StallTag, what: T) -> Option<(T, Resume)> {
        match self.held.remove(&tag) {
            Some(Held::Early(how)) => Some((what, how)),
            _ => {
                self.held.insert(tag, Held::Waiting(what));
                None
            }
        }
    }

    /// Takes note of a name that nobody will wait for.
    pub(crate) fn abandon(&mut self, tag: StallTag) {
        if !matches!(self.held.remove(&tag), Some(Held::Early(_))) {
            self.held.insert(tag, Held::Abandoned);
        }
    }

    /// What waited for `tag`. `under_way`: a call may be about to return with it; if none is, the access
    /// was somebody else's, who sent it in this function's name.
    pub(crate) fn resume(&mut self, tag: StallTag, how: Resume, under_way: bool) -> Option<T> {
        match self.held.remove(&tag) {
            Some(Held::Waiting(what)) => Some(what),
            Some(Held::Abandoned) => None,
            Some(Held::Early(_)) | None => {
                if under_way {
                    self.held.insert(tag, Held::Early(how));
                }
                None
            }
        }
    }

    /// All that wait.
    pub(crate) fn waiting(&mut self) -> impl Iterator<Item = &mut T> {
        self.held.values_mut().filter_map(|held| match held {
            Held::Waiting(what) => Some(what),
            Held::Early(_) | Held::Abandoned => None,
        })
    }

    /// Nobody waits any more. Hands out what did.
    pub(crate) fn abandon_all(&mut self) -> Vec<T> {
        let mut gone = Vec::new();
        for held in self.held.values_mut() {
            if let Held::Waiting(_) = held
                && let Held::Waiting(what) = std::mem::replace(held, Held::Abandoned)
            {
                gone.push(what);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests;
