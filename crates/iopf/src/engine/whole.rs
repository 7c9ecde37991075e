//! Groups that somebody else put together. Those that are decided at once are in `once.rs`.

use super::report::{Reported, Why};
use super::slab::{NIL, State};
use super::{Answer, Attachment, DeviceId, Engine, Tick};
use crate::{PageRequest, Response};

/// A group in its slots, in no list yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// The device's place in the table.
    pub(super) place: u32,
    /// Its last page, and the first of those before it.
    pub(super) index: u32,
    pub(super) chain: u32,
    /// Pages.
    pub(super) count: u32,
    pub(super) generation: u32,
    pub(super) handler: Attachment,
}

impl Engine {
    /// Reports a whole group, put together by somebody else: `last`, and the pages `before` it in
    /// the order they came. It joins no partial pages and leaves none.
    ///
    /// All of it is taken, and then it is [`Reported::Queued`], or nothing, and then it is
    /// [`Reported::Answered`]: every group has a last page. The default policy leaves out pages
    /// before the last whose PASID is not the last one's, and counts them as refused: whoever put
    /// the group together (the kernel) did not compare it, so they belong to another address space.
    pub fn report_group(
        &mut self,
        now: Tick,
        id: DeviceId,
        before: impl IntoIterator<Item = PageRequest>,
        last: &PageRequest,
    ) -> Reported {
        match self.take_in(now, id, before.into_iter(), last) {
            Ok(taken) => self.enqueue(taken.place, taken.index),
            Err((response, why)) => {
                let answer = Answer::at_once(self.now, id, last, response);
                Reported::Answered(answer, why)
            }
        }
    }

    /// Takes a group in, or says why not.
    pub(super) fn take_in(
        &mut self,
        now: Tick,
        id: DeviceId,
        before: impl Iterator<Item = PageRequest>,
        last: &PageRequest,
    ) -> Result<Taken, (Response, Why)> {
        self.advance(now);
        let Some((place, handler)) = self.find_handler(id, last) else {
            return Err(self.no_handler(id, before.count() as u64 + 1));
        };
        let (pages, taken) = self.take_group(place, before, last, handler);
        self.devices.at_mut(place).reported += pages;
        let Some((taken, others)) = taken else {
            self.refuse_pages(place, pages);
            return Err(self.turn_away(Why::NoRoom));
        };
        if others > 0 {
            self.refuse_pages(place, others);
        }
        Ok(taken)
    }

    /// The device's place, and what handles the group.
    #[inline]
    pub(super) fn find_handler(
        &mut self,
        id: DeviceId,
        last: &PageRequest,
    ) -> Option<(u32, (Attachment, bool))> {
        let place = self.devices.find_again(id)?;
        let key = super::device::key(self.policy.strict, last.pasid);
        Some((place, self.devices.handler(place, key)?))
    }

    /// Counts a group that nobody handles, and answers it.
    #[cold]
    pub(super) fn no_handler(&mut self, id: DeviceId, pages: u64) -> (Response, Why) {
        if let Some(place) = self.devices.find(id) {
            self.devices.at_mut(place).reported += pages;
            self.refuse_pages(place, pages);
        } else {
            self.departed.reported += pages;
            self.departed.losses.refused += pages;
        }
        self.turn_away(Why::NoHandler)
    }

    /// The answer to a group that is not taken in.
    #[cold]
    pub(super) fn turn_away(&self, why: Why) -> (Response, Why) {
        let response = if why == Why::NoRoom && !self.policy.strict {
            Response::Failure
        } else {
            Response::Invalid
        };
        (response, why)
    }

    /// The group at `index` is delivered, and waits for its answer from now on.
    pub(super) fn await_answer(&mut self, place: u32, index: u32) {
        let at = self.slab.at(index).at;
        let waiting = &mut self.devices.at_mut(place).waiting;
        waiting.push(&mut self.slab, index);
        self.arm_after(place, at);
    }

    /// Puts a group into slots. How many pages came, and what was taken with how many left out; `None`:
    /// there was no room, and no slot is taken.
    #[inline]
    fn take_group(
        &mut self,
        place: u32,
        before: impl Iterator<Item = PageRequest>,
        last: &PageRequest,
        handler: (Attachment, bool),
    ) -> (u64, Option<(Taken, u64)>) {
        let strict = self.policy.strict;
        let (mut pages, mut others) = (1, 0);
        let (mut head, mut tail, mut count) = (NIL, NIL, 0);
        // The last page first: it keeps the room that it needs.
        let Some(end) = self.take(place) else {
            return (pages + before.count() as u64, None);
        };
        let mut room = true;
        for page in before {
            pages += 1;
            if strict && page.pasid != last.pasid {
                others += 1;
                continue;
            }
            if !room {
                continue;
            }
            let Some(index) = self.take(place) else {
                room = false;
                continue;
            };
            let page = PageRequest {
                last: false,
                ..page
            };
            self.fill(place, index, &page, handler);
            self.slab.at_mut(index).state = State::Page;
            if tail == NIL {
                head = index;
            } else {
                self.slab.at_mut(tail).link = index;
            }
            tail = index;
            count += 1;
        }
        if !room {
            // The device is on the queue, so its place stays.
            self.free_chain(place, head);
            self.put(place, end);
            return (pages, None);
        }
        if head != NIL {
            self.slab.at_mut(head).count = count;
        }
        let slot = self.fill(place, end, last, handler);
        slot.link = head;
        slot.count = count + 1;
        let taken = Taken {
            place,
            index: end,
            chain: head,
            count: count + 1,
            generation: slot.generation,
            handler: handler.0,
        };
        (pages, Some((taken, others)))
    }
}
