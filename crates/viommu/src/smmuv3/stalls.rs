//! Stalled transactions: which there are, whose, and whether software knows of them.
//!
//! Spec: IHI 0070, "Stall model", "Recording of events and conditions for writing to the Event queue",
//! "CMD_RESUME", "CMD_STALL_TERM", "CMD_SYNC".
//!
//! A record of a stalled transaction is never lost: while the Event queue has no room it waits here, in
//! the order of the faults. A CMD_SYNC makes what waits stale, since it may be about configuration that
//! is gone: such a transaction is retried once there is room, and a new record is made of what it meets
//! then. A transaction that finds every place taken is not stalled: it ends as if S were clear, with a
//! record that says so (hardware would hold it back, and everything behind it).

use iommu_wire::smmuv3::event::RawEvent;
use iopf::Rid;
use std::collections::VecDeque;
use viommu_api::StallTag;

/// A stalled transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stall {
    stream: Rid,
    /// Its record, while that waits.
    waiting: Option<RawEvent>,
    /// A CMD_SYNC was completed since it began to wait.
    stale: bool,
}

/// What is to be done about a transaction whose record waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Its record is to be written.
    Record(RawEvent),
    /// It is to be retried, and is then no longer here.
    Retry(Rid, StallTag),
}

/// Places for stalled transactions; a tag is the number of its place.
#[derive(Debug)]
pub(super) struct Stalls {
    places: Box<[Option<Stall>]>,
    /// Places that nobody has, in the order in which they were left: a tag is not used again at once.
    free: VecDeque<u16>,
    /// Tags whose records wait, oldest first.
    waiting: VecDeque<u16>,
}

impl Stalls {
    /// No stalled transaction, and room for `most`.
    pub(super) fn new(most: u16) -> Self {
        Self {
            places: vec![None; usize::from(most)].into_boxed_slice(),
            free: (0..most).collect(),
            waiting: VecDeque::new(),
        }
    }

    /// Holds a transaction of `stream`, if there is a place. Its record does not wait.
    #[inline]
    pub(super) fn hold(&mut self, stream: Rid) -> Option<StallTag> {
        let tag = self.free.pop_front()?;
        *self.places.get_mut(usize::from(tag))? = Some(Stall {
            stream,
            waiting: None,
            stale: false,
        });
        Some(StallTag(tag))
    }

    /// Has the record of a transaction that was just held wait.
    pub(super) fn wait(&mut self, tag: StallTag, record: RawEvent) {
        if let Some(Some(stall)) = self.places.get_mut(usize::from(tag.0)) {
            stall.waiting = Some(record);
            self.waiting.push_back(tag.0);
        }
    }

    /// Whether records wait.
    pub(super) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A CMD_SYNC is complete.
    pub(super) fn sync(&mut self) {
        for &tag in &self.waiting {
            if let Some(Some(stall)) = self.places.get_mut(usize::from(tag)) {
                stall.stale = true;
            }
        }
    }

    /// What is to be done about the transaction whose record has waited longest.
    pub(super) fn first_waiting(&self) -> Option<Waiting> {
        let &tag = self.waiting.front()?;
        let stall = (*self.places.get(usize::from(tag))?)?;
        let record = stall.waiting?;
        Some(if stall.stale {
            Waiting::Retry(stall.stream, StallTag(tag))
        } else {
            Waiting::Record(record)
        })
    }

    /// It is done.
    pub(super) fn settle(&mut self) {
        let Some(tag) = self.waiting.pop_front() else {
            return;
        };
        if let Some(place) = self.places.get_mut(usize::from(tag))
            && let Some(stall) = place
        {
            stall.waiting = None;
            if stall.stale {
                *place = None;
                self.free.push_back(tag);
            }
        }
    }

    /// Lets the transaction go that software names. One that it cannot know of yet is left alone.
    pub(super) fn resume(&mut self, stream: Rid, tag: u16) -> bool {
        let Some(place) = self.places.get_mut(usize::from(tag)) else {
            return false;
        };
        let named = place.is_some_and(|stall| stall.stream == stream && stall.waiting.is_none());
        if named {
            *place = None;
            self.free.push_back(tag);
        }
        named
    }

    /// Lets every transaction of `stream` go, or of every stream.
    pub(super) fn release(&mut self, stream: Option<Rid>) -> Vec<(Rid, StallTag)> {
        let mut gone = Vec::new();
        for (tag, place) in (0..=u16::MAX).zip(self.places.iter_mut()) {
            if let Some(stall) = *place
                && stream.is_none_or(|stream| stream == stall.stream)
            {
                *place = None;
                self.free.push_back(tag);
                gone.push((stall.stream, StallTag(tag)));
            }
        }
        let places = &self.places;
        self.waiting
            .retain(|&tag| matches!(places.get(usize::from(tag)), Some(Some(_))));
        gone
    }
}

#[cfg(test)]
mod tests;
