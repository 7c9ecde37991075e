//! Groups that somebody else put together.

use super::report::{Reported, Why};
use super::slab::{NIL, State, flag};
use super::{Answer, Attachment, By, DeviceId, Engine, Group, Handle, Pages, Tick};
use crate::{PageRequest, Response};

/// A group in its slots, in no list yet.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// The device's place in the table.
    place: u32,
    /// Its last page, and the first of those before it.
    index: u32,
    chain: u32,
    /// Pages.
    count: u32,
    generation: u32,
    handler: Attachment,
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
            Err((answer, why)) => Reported::Answered(answer, why),
        }
    }

    /// [`report_group`](Self::report_group), and where nothing else is to be delivered first, has
    /// `decide` say at once what [`poll_fault`](Self::poll_fault) and [`answer`](Self::answer) would
    /// have taken two calls for. It is the same in all but the way: the answer is returned as
    /// [`Reported::Answered`] and not polled.
    ///
    /// `Some` is the answer; FAILURE that the way back cannot say becomes INVALID. `None` is "later":
    /// the group is [`Reported::Queued`] and counts as delivered. If `decide` is not called, because
    /// others come first, the group is queued and still to be delivered:
    /// [`poll_fault`](Self::poll_fault) brings it.
    ///
    /// A group of one page, if it is answered, never takes room in the engine; its handle is stale
    /// then, as any other's.
    ///
    /// `decide` must not unwind: its group would never be answered.
    #[inline]
    pub fn resolve_group(
        &mut self,
        now: Tick,
        id: DeviceId,
        before: impl IntoIterator<Item = PageRequest>,
        last: &PageRequest,
        decide: impl FnOnce(&Group, Pages<'_>) -> Option<Response>,
    ) -> Reported {
        let before = before.into_iter();
        if before.size_hint().1 == Some(0) && self.order.is_empty() {
            return self.resolve_page(now, id, last, decide);
        }
        let taken = match self.take_in(now, id, before, last) {
            Ok(taken) => taken,
            Err((answer, why)) => return Reported::Answered(answer, why),
        };
        let (place, index) = (taken.place, taken.index);
        if !self.order.is_empty() {
            return self.enqueue(place, index);
        }
        let slot = self.slab.at_mut(index);
        slot.state = State::Waiting;
        slot.flags |= flag::DELIVERED;
        let handle = Handle {
            slot: index,
            generation: taken.generation,
        };
        let group = self.group(handle, id, taken.handler, last, taken.count);
        let pages = Pages::of(&self.slab, taken.chain, index, taken.count);
        let Some(response) = decide(&group, pages) else {
            self.await_answer(place, index);
            return Reported::Queued(handle);
        };
        if taken.chain != NIL {
            self.free_chain(place, taken.chain);
        }
        self.devices.at_mut(place).completed += u64::from(taken.count);
        let answer = self.decided(place, id, last, response);
        self.put(place, index);
        Reported::Answered(answer, Why::Resolved)
    }

    /// [`resolve_group`](Self::resolve_group) for a group of one page, with nothing to be delivered
    /// first: it takes a slot only where its answer comes later.
    #[inline]
    fn resolve_page(
        &mut self,
        now: Tick,
        id: DeviceId,
        last: &PageRequest,
        decide: impl FnOnce(&Group, Pages<'_>) -> Option<Response>,
    ) -> Reported {
        self.advance(now);
        let Some((place, handler)) = self.find_handler(id, last) else {
            let (answer, why) = self.no_handler(id, 1, last);
            return Reported::Answered(answer, why);
        };
        self.devices.at_mut(place).reported += 1;
        let handle = self.has_room(place).then(|| self.slab.peek()).flatten();
        let Some(handle) = handle else {
            self.refuse_pages(place, 1);
            let (answer, why) = self.turn_away(id, last, Why::NoRoom);
            return Reported::Answered(answer, why);
        };
        let group = self.group(handle, id, handler.0, last, 1);
        let Some(response) = decide(&group, Pages::one(&self.slab, handle, last)) else {
            return self.keep(place, last, handler);
        };
        self.slab.skip();
        self.devices.at_mut(place).completed += 1;
        Reported::Answered(self.decided(place, id, last, response), Why::Resolved)
    }

    /// Takes the slot that was peeked at for a page that was delivered and waits for its answer.
    fn keep(&mut self, place: u32, last: &PageRequest, handler: (Attachment, bool)) -> Reported {
        let Some(index) = self.take(place) else {
            // There was room a moment ago.
            self.refuse_pages(place, 1);
            let id = self.devices.at(place).id;
            let (answer, why) = self.turn_away(id, last, Why::NoRoom);
            return Reported::Answered(answer, why);
        };
        let slot = self.fill(place, index, last, handler);
        slot.state = State::Waiting;
        slot.flags |= flag::DELIVERED;
        let handle = Handle {
            slot: index,
            generation: slot.generation,
        };
        self.await_answer(place, index);
        Reported::Queued(handle)
    }

    #[inline]
    fn group(
        &self,
        handle: Handle,
        device: DeviceId,
        handler: Attachment,
        last: &PageRequest,
        pages: u32,
    ) -> Group {
        Group {
            handle,
            device,
            domain: handler.domain,
            nested: handler.nested,
            pasid: last.pasid,
            index: last.group,
            pages,
            since: Tick(self.now),
        }
    }

    /// The answer that was decided on, in a code that the way back can say.
    #[inline]
    fn decided(&self, place: u32, id: DeviceId, last: &PageRequest, response: Response) -> Answer {
        let can_say = response != Response::Failure
            || !self.policy.strict
            || self.devices.rest(place).can_say(response);
        let response = if can_say { response } else { Response::Invalid };
        Answer {
            by: By::Resolver,
            ..Answer::at_once(self.now, id, last, response)
        }
    }

    /// Takes a group in, or says why not.
    #[inline]
    fn take_in(
        &mut self,
        now: Tick,
        id: DeviceId,
        before: impl Iterator<Item = PageRequest>,
        last: &PageRequest,
    ) -> Result<Taken, (Answer, Why)> {
        self.advance(now);
        let Some((place, handler)) = self.find_handler(id, last) else {
            return Err(self.no_handler(id, before.count() as u64 + 1, last));
        };
        let (pages, taken) = self.take_group(place, before, last, handler);
        self.devices.at_mut(place).reported += pages;
        let Some((taken, others)) = taken else {
            self.refuse_pages(place, pages);
            return Err(self.turn_away(id, last, Why::NoRoom));
        };
        if others > 0 {
            self.refuse_pages(place, others);
        }
        Ok(taken)
    }

    /// The device's place, and what handles the group.
    #[inline]
    fn find_handler(
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
    fn no_handler(&mut self, id: DeviceId, pages: u64, last: &PageRequest) -> (Answer, Why) {
        if let Some(place) = self.devices.find(id) {
            self.devices.at_mut(place).reported += pages;
            self.refuse_pages(place, pages);
        } else {
            self.departed.reported += pages;
            self.departed.losses.refused += pages;
        }
        self.turn_away(id, last, Why::NoHandler)
    }

    /// The answer to a group that is not taken in.
    #[cold]
    fn turn_away(&self, id: DeviceId, last: &PageRequest, why: Why) -> (Answer, Why) {
        let response = if why == Why::NoRoom && !self.policy.strict {
            Response::Failure
        } else {
            Response::Invalid
        };
        (Answer::at_once(self.now, id, last, response), why)
    }

    /// The group at `index` is delivered, and waits for its answer from now on.
    fn await_answer(&mut self, place: u32, index: u32) {
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
