//! Groups that are decided at once, by whoever is asked while they are reported.

use super::report::{Reported, Why};
use super::slab::{NIL, State, flag};
use super::{Attachment, DeviceId, Engine, Group, Handle, Pages, Tick};
use crate::{PageRequest, Response};

/// What became of a group that was to be decided at once.
#[must_use = "an answer must be sent"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// Send this answer. No other will come.
    Answered(Response, Why),
    /// Waits for an answer under this handle.
    Queued(Handle),
}

impl Engine {
    /// [`report_group`](Self::report_group), and where nothing else is to be delivered first, has
    /// `decide` say at once what [`poll_fault`](Self::poll_fault) and [`answer`](Self::answer) would
    /// have taken two calls for. It is the same in all but the way: the answer is returned and not
    /// polled.
    ///
    /// `Some` is the answer; FAILURE that the way back cannot say becomes INVALID. `None` is "later":
    /// the group is [`Decided::Queued`] and counts as delivered. If `decide` is not called, because
    /// others come first, the group is queued and still to be delivered:
    /// [`poll_fault`](Self::poll_fault) brings it.
    ///
    /// A group of one page that is answered takes no room in the engine; its handle is stale then,
    /// as any other's.
    ///
    /// `decide` must not unwind: its group would keep its room, and never be answered.
    #[inline]
    pub fn resolve_group(
        &mut self,
        now: Tick,
        id: DeviceId,
        before: impl IntoIterator<Item = PageRequest>,
        last: &PageRequest,
        decide: impl FnOnce(&Group, Pages<'_>) -> Option<Response>,
    ) -> Decided {
        let before = before.into_iter();
        if before.size_hint().1 == Some(0) && self.order.is_empty() {
            self.resolve_page(now, id, last, decide)
        } else {
            self.resolve_pages(now, id, before, last, decide)
        }
    }

    /// A group of one page, with nothing to be delivered first: it takes a slot only where its answer
    /// comes later.
    #[inline]
    fn resolve_page(
        &mut self,
        now: Tick,
        id: DeviceId,
        page: &PageRequest,
        decide: impl FnOnce(&Group, Pages<'_>) -> Option<Response>,
    ) -> Decided {
        self.advance(now);
        let Some((place, handler)) = self.find_handler(id, page) else {
            let (response, why) = self.no_handler(id, 1);
            return Decided::Answered(response, why);
        };
        let device = self.devices.at_mut(place);
        device.reported += 1;
        let has_credit = !self.policy.strict || device.used < device.credits;
        let handle = if has_credit { self.slab.peek() } else { None };
        let Some(handle) = handle else {
            return self.no_room(place);
        };
        let group = group(handle, id, handler.0, page, 1, self.now);
        let Some(response) = decide(&group, Pages::one(&self.slab, page)) else {
            return self.keep(place, page, handler);
        };
        device.completed += 1;
        self.slab.skip();
        Decided::Answered(self.sayable(place, response), Why::Resolved)
    }

    /// A group of any number of pages.
    #[inline(never)]
    fn resolve_pages(
        &mut self,
        now: Tick,
        id: DeviceId,
        before: impl Iterator<Item = PageRequest>,
        last: &PageRequest,
        decide: impl FnOnce(&Group, Pages<'_>) -> Option<Response>,
    ) -> Decided {
        let taken = match self.take_in(now, id, before, last) {
            Ok(taken) => taken,
            Err((response, why)) => return Decided::Answered(response, why),
        };
        let (place, index) = (taken.place, taken.index);
        let handle = Handle {
            slot: index,
            generation: taken.generation,
        };
        if !self.order.is_empty() {
            let queued = self.enqueue(place, index);
            debug_assert_eq!(queued, Reported::Queued(handle));
            return Decided::Queued(handle);
        }
        let slot = self.slab.at_mut(index);
        slot.state = State::Waiting;
        slot.flags |= flag::DELIVERED;
        let group = group(handle, id, taken.handler, last, taken.count, self.now);
        let pages = Pages::of(&self.slab, taken.chain, index, taken.count);
        let Some(response) = decide(&group, pages) else {
            self.await_answer(place, index);
            return Decided::Queued(handle);
        };
        if taken.chain != NIL {
            self.free_chain(place, taken.chain);
        }
        self.devices.at_mut(place).completed += u64::from(taken.count);
        let response = self.sayable(place, response);
        self.put(place, index);
        Decided::Answered(response, Why::Resolved)
    }

    /// The answer to a page that there is no room for, which was counted as reported.
    #[cold]
    fn no_room(&mut self, place: u32) -> Decided {
        self.refuse_pages(place, 1);
        let (response, why) = self.turn_away(Why::NoRoom);
        Decided::Answered(response, why)
    }

    /// Takes the slot that was peeked at, for a page that was delivered and waits for its answer.
    #[inline(never)]
    fn keep(&mut self, place: u32, page: &PageRequest, handler: (Attachment, bool)) -> Decided {
        let Some(index) = self.take(place) else {
            // There was room a moment ago.
            return self.no_room(place);
        };
        let slot = self.fill(place, index, page, handler);
        slot.state = State::Waiting;
        slot.flags |= flag::DELIVERED;
        let handle = Handle {
            slot: index,
            generation: slot.generation,
        };
        self.await_answer(place, index);
        Decided::Queued(handle)
    }

    /// `response`, or INVALID if the way back cannot say that.
    #[inline]
    fn sayable(&self, place: u32, response: Response) -> Response {
        let can_say = response != Response::Failure
            || !self.policy.strict
            || self.devices.rest(place).can_say(response);
        if can_say { response } else { Response::Invalid }
    }
}

#[inline]
fn group(
    handle: Handle,
    device: DeviceId,
    handler: Attachment,
    last: &PageRequest,
    pages: u32,
    now: u64,
) -> Group {
    Group {
        handle,
        device,
        domain: handler.domain,
        nested: handler.nested,
        pasid: last.pasid,
        index: last.group,
        pages,
        since: Tick(now),
    }
}
