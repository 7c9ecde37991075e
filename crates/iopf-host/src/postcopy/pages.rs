//! Which page is where, and who waits for it. No I/O and no clock.

use iopf::engine::Handle;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Nobody has asked for it, or the source could not give it then.
    Missing,
    /// Waits for a worker.
    Queued,
    /// A worker asks the source.
    Fetching,
    /// In place.
    Present,
    /// The source has lost it for good.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    status: Status,
    /// A thread waits for it, and cannot be told no.
    touched: bool,
    /// Stands in the list of retries.
    retried: bool,
}

/// A group that waits for pages.
#[derive(Clone, Copy, Debug)]
struct Wait {
    handle: Handle,
    left: usize,
}

/// What becomes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its pages are there.
    Present,
    /// It waits.
    Waits,
    /// One of its pages will never come.
    Gone,
    /// No room for another group.
    Full,
}

/// What a worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Fetch this page.
    Fetch(usize),
    /// Ask again then.
    At(Instant),
    /// Nothing, until something happens.
    Idle,
}

/// How long after a failure a page is asked for again.
pub(super) const RETRY: Duration = Duration::from_millis(10);

/// The pages of one area.
///
/// Promises: a page is given to one worker at a time, and never again once it is present; each
/// group that waits is given back once, by [`placed`](Self::placed), [`failed`](Self::failed),
/// [`prune`](Self::prune) or [`close`](Self::close).
#[derive(Debug)]
pub(super) struct Pages {
    pages: Vec<Page>,
    queue: VecDeque<usize>,
    retries: VecDeque<(Instant, usize)>,
    /// Slots of waiting groups, and those of them that are free.
    waits: Vec<Option<Wait>>,
    free: Vec<usize>,
    /// Waiting groups by page.
    by_page: HashMap<usize, Vec<usize>>,
    most: usize,
    /// Pages that are neither present nor gone.
    missing: usize,
    /// Where to look for pages that nobody asks for, and not before when.
    rest: Option<(usize, Option<Instant>)>,
}

impl Pages {
    /// `count` pages, all missing, and room for `most` groups.
    pub(super) fn new(count: usize, most: usize) -> Self {
        let page = Page {
            status: Status::Missing,
            touched: false,
            retried: false,
        };
        Self {
            pages: vec![page; count],
            queue: VecDeque::new(),
            retries: VecDeque::new(),
            waits: Vec::new(),
            free: Vec::new(),
            by_page: HashMap::new(),
            most,
            missing: count,
            rest: None,
        }
    }

    /// Where a page is.
    pub(super) fn status(&self, page: usize) -> Status {
        self.pages.get(page).map_or(Status::Gone, |p| p.status)
    }

    /// Pages that are neither present nor gone.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// Groups that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waits.len() - self.free.len()
    }

    fn want(&mut self, page: usize) {
        if let Some(p) = self.pages.get_mut(page)
            && p.status == Status::Missing
        {
            p.status = Status::Queued;
            self.queue.push_back(page);
        }
    }

    /// A device asks for these pages.
    pub(super) fn ask(
        &mut self,
        handle: Handle,
        pages: impl Iterator<Item = usize> + Clone,
    ) -> Asked {
        if pages.clone().any(|p| self.status(p) == Status::Gone) {
            return Asked::Gone;
        }
        let absent = |pages: &Self, p: &usize| pages.status(*p) != Status::Present;
        let left = pages.clone().filter(|p| absent(self, p)).count();
        if left == 0 {
            return Asked::Present;
        }
        if self.waiting() >= self.most {
            return Asked::Full;
        }
        let wait = Some(Wait { handle, left });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.waits[slot] = wait;
                slot
            }
            None => {
                self.waits.push(wait);
                self.waits.len() - 1
            }
        };
        for page in pages {
            if absent(self, &page) {
                self.by_page.entry(page).or_default().push(slot);
                self.want(page);
            }
        }
        Asked::Waits
    }

    /// A thread has touched this page and waits. Where it is now; if it is present, or gone, the
    /// thread is to be woken.
    pub(super) fn touch(&mut self, page: usize) -> Status {
        self.want(page);
        if let Some(p) = self.pages.get_mut(page) {
            p.touched |= !matches!(p.status, Status::Present | Status::Gone);
        }
        self.status(page)
    }

    /// Whatever nobody asks for is fetched too, after what somebody does.
    pub(super) fn want_rest(&mut self) {
        self.rest.get_or_insert((0, None));
    }

    /// What a worker is to do at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        while let Some(&(at, page)) = self.retries.front()
            && at <= now
        {
            self.retries.pop_front();
            if let Some(p) = self.pages.get_mut(page) {
                p.retried = false;
                if p.touched {
                    self.want(page);
                }
            }
        }
        let page = self.queue.pop_front().or_else(|| self.next_of_rest(now));
        if let Some(page) = page {
            self.pages[page].status = Status::Fetching;
            return Next::Fetch(page);
        }
        let again = self.retries.front().map(|(at, _)| *at);
        let rest = self.rest.and_then(|(_, at)| at);
        match again.into_iter().chain(rest).min() {
            Some(at) => Next::At(at),
            None => Next::Idle,
        }
    }

    fn next_of_rest(&mut self, now: Instant) -> Option<usize> {
        let (from, not_before) = self.rest?;
        if not_before.is_some_and(|at| at > now) {
            return None;
        }
        let missing = |p: &Page| p.status == Status::Missing;
        let found = self.pages.iter().skip(from).position(missing);
        let found = found.map(|ahead| from + ahead);
        self.rest = match found {
            Some(page) => Some((page + 1, None)),
            None if self.missing == 0 => None,
            // Some have failed, or are under way and may fail.
            None => Some((0, Some(now + RETRY))),
        };
        found
    }

    /// The page is in place: groups that wait for nothing more.
    pub(super) fn placed(&mut self, page: usize) -> Vec<Handle> {
        self.settle(page, Status::Present);
        let mut done = Vec::new();
        for slot in self.by_page.remove(&page).unwrap_or_default() {
            let Some(wait) = self.waits[slot].as_mut() else {
                continue;
            };
            wait.left -= 1;
            if wait.left == 0 {
                done.push(wait.handle);
                self.waits[slot] = None;
                self.free.push(slot);
            }
        }
        done
    }

    /// The source did not give the page: groups that waited for it. Threads that wait for it go on
    /// waiting, unless it is `gone` for good.
    pub(super) fn failed(&mut self, page: usize, now: Instant, gone: bool) -> Vec<Handle> {
        let touched = self.pages.get(page).is_some_and(|p| p.touched);
        self.settle(page, if gone { Status::Gone } else { Status::Missing });
        if let Some(p) = self.pages.get_mut(page)
            && touched
            && !gone
        {
            p.touched = true;
            if !p.retried {
                p.retried = true;
                self.retries.push_back((now + RETRY, page));
            }
        }
        let slots = self.by_page.get(&page).cloned().unwrap_or_default();
        let waits = slots.iter().filter_map(|slot| self.waits[*slot].take());
        let failed = waits.map(|wait| wait.handle).collect();
        self.forget(slots);
        failed
    }

    fn settle(&mut self, page: usize, status: Status) {
        let Some(p) = self.pages.get_mut(page) else {
            return;
        };
        p.status = status;
        p.touched = false;
        if status != Status::Missing {
            self.missing -= 1;
        }
    }

    /// Frees emptied slots, and takes them out of the lists by page.
    fn forget(&mut self, slots: Vec<usize>) {
        let mut slots = slots;
        slots.sort_unstable();
        // A group may name a page twice.
        slots.dedup();
        self.by_page.retain(|_, of_page| {
            of_page.retain(|slot| slots.binary_search(slot).is_err());
            !of_page.is_empty()
        });
        self.free.append(&mut slots);
    }

    /// Drops groups that wait no more.
    pub(super) fn prune(&mut self, waits: impl Fn(Handle) -> bool) {
        let mut slots = Vec::new();
        for (slot, wait) in self.waits.iter_mut().enumerate() {
            if wait.is_some_and(|wait| !waits(wait.handle)) {
                *wait = None;
                slots.push(slot);
            }
        }
        self.forget(slots);
    }

    /// Nothing will come any more: every group that waits.
    pub(super) fn close(&mut self) -> Vec<Handle> {
        self.by_page.clear();
        self.free.clear();
        let waits = std::mem::take(&mut self.waits);
        waits.into_iter().flatten().map(|w| w.handle).collect()
    }
}

#[cfg(test)]
mod tests;
