//! Page requests on their way from a queue to an answer, whatever the queue looks like.

use crate::mm::Mm;
use iopf::{Access, GroupIndex, Iova, Pasid, Response, Rid};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a page request handler has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRequestStats {
    /// Interrupts handled.
    pub interrupts: u64,
    /// Page requests read.
    pub requests: u64,
    /// Groups answered Success.
    pub success: u64,
    /// Groups answered Invalid.
    pub invalid: u64,
    /// Groups answered Failure.
    pub failure: u64,
    /// Requests refused before anybody looked at a mapping.
    pub bad: u64,
    /// Stop markers.
    pub stop_markers: u64,
    /// Times the overflow bit was found set and cleared.
    pub overflows: u64,
    /// Pages of unfinished groups thrown away at an overflow.
    pub discarded: u64,
}

/// A group of page requests, taken from the queue by a handler of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageGroup {
    /// Who asks.
    pub rid: Rid,
    /// The PASID of the last request.
    pub pasid: Option<Pasid>,
    /// The group's index.
    pub index: GroupIndex,
    /// Its pages, in the order they came.
    pub pages: Vec<(Iova, Access)>,
}

/// A whole group, or a request that is refused on sight.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) page_group: PageGroup,
    /// The answer to one that is refused.
    pub(crate) refused: Option<Response>,
}

impl Group {
    /// A request that is refused on sight.
    pub(crate) fn refused(
        rid: Rid,
        pasid: Option<Pasid>,
        index: GroupIndex,
        answer: Response,
    ) -> Self {
        Self {
            page_group: PageGroup {
                rid,
                pasid,
                index,
                pages: Vec::new(),
            },
            refused: Some(answer),
        }
    }
}

/// Pages of unfinished groups kept for all devices together; Linux has no bound here.
const MAX_PARTIAL: usize = 1 << 16;

/// Groups whose last request has not come yet, and the counts.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    partial: BTreeMap<(Rid, GroupIndex), Vec<(Iova, Access)>>,
    pub(crate) stats: PageRequestStats,
}

impl Groups {
    /// Takes one page; `page.pages` has just this one. Gives the whole group back at its last.
    pub(crate) fn add(&mut self, page: PageGroup, last: bool) -> Option<Group> {
        let key = (page.rid, page.index);
        if !last {
            let held: usize = self.partial.values().map(Vec::len).sum();
            if held < MAX_PARTIAL {
                self.partial.entry(key).or_default().extend(page.pages);
            }
            return None;
        }
        let mut pages = self.partial.remove(&key).unwrap_or_default();
        pages.extend(page.pages);
        Some(Group {
            page_group: PageGroup { pages, ..page },
            refused: None,
        })
    }

    /// Forgets what is unfinished: a page of it may have been lost.
    pub(crate) fn discard(&mut self) {
        let lost: usize = self.partial.values().map(Vec::len).sum();
        self.stats.discarded += lost as u64;
        self.partial.clear();
    }

    /// Counts an answer.
    pub(crate) fn answered(&mut self, response: Response) {
        match response {
            Response::Success => self.stats.success += 1,
            Response::Invalid => self.stats.invalid += 1,
            Response::Failure => self.stats.failure += 1,
        }
    }
}

/// Which device is bound to which address space.
#[derive(Debug, Default)]
pub struct Bindings(Mutex<BTreeMap<(Rid, Pasid), Arc<Mm>>>);

impl Bindings {
    fn map(&self) -> MutexGuard<'_, BTreeMap<(Rid, Pasid), Arc<Mm>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, rid: Rid, mm: &Arc<Mm>) {
        self.map().insert((rid, mm.pasid()), mm.clone());
    }

    pub(crate) fn remove(&self, rid: Rid, pasid: Pasid) {
        self.map().remove(&(rid, pasid));
    }

    /// The devices bound to the address space of a PASID.
    #[must_use]
    pub fn devices(&self, pasid: Pasid) -> Vec<Rid> {
        let map = self.map();
        let bound = map.keys().filter(|(_, p)| *p == pasid);
        bound.map(|(rid, _)| *rid).collect()
    }

    /// Makes the pages of a group present; the first error decides for all of it.
    fn resolve(&self, group: &PageGroup) -> bool {
        let mm = group
            .pasid
            .and_then(|p| self.map().get(&(group.rid, p)).cloned());
        mm.is_some_and(|mm| {
            let mut pages = group.pages.iter();
            pages.all(|(addr, access)| mm.fault(*addr, *access).is_ok())
        })
    }

    /// Resolves groups and answers them, some at a time.
    pub(crate) fn serve(
        &self,
        groups: &[Group],
        mut respond: impl FnMut(&[(&PageGroup, Response)]),
    ) {
        for some in groups.chunks(AT_A_TIME) {
            let answers: Vec<_> = some
                .iter()
                .map(
                    |Group {
                         page_group,
                         refused,
                     }| {
                        let answer = refused.unwrap_or_else(|| {
                            if self.resolve(page_group) {
                                Response::Success
                            } else {
                                Response::Invalid
                            }
                        });
                        (page_group, answer)
                    },
                )
                .collect();
            respond(&answers);
        }
    }
}

/// Answers queued together.
const AT_A_TIME: usize = 64;
