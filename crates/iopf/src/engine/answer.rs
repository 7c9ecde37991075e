//! The one way out: answers to groups, verdicts on the rest.

use super::fair::withdraw;
use super::group::{pasid, stray};
use super::loss::Losses;
use super::slab::{List, NIL, State, flag};
use super::{DeviceId, Engine, Handle, Tick};
use crate::{GroupIndex, PageRequest, Pasid, Response};

/// The one answer to a group, built from its last page (Linux `iopf_group_response`).
#[must_use = "the device waits for it"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who asked. It may have left the queue meanwhile.
    pub device: DeviceId,
    /// The PASID of the last page.
    pub pasid: Option<Pasid>,
    /// The answer must carry that PASID.
    pub needs_pasid: bool,
    /// The group.
    pub group: GroupIndex,
    /// The answer.
    pub response: Response,
    /// The last page's, unchanged.
    pub private_data: [u64; 2],
    /// When the last page came.
    pub since: Tick,
    /// Who gave it.
    pub by: By,
}

/// Who gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// A resolver, through [`Engine::answer`] or [`Engine::refuse`].
    Resolver,
    /// The engine, because the deadline passed.
    Deadline,
    /// The engine, because the attachment or the device went.
    Departure,
    /// The engine, at the report: nobody could take the group.
    Report,
}

impl Answer {
    pub(super) fn at_once(
        now: u64,
        device: DeviceId,
        page: &PageRequest,
        response: Response,
    ) -> Self {
        Self {
            since: Tick(now),
            by: By::Report,
            device,
            pasid: page.pasid,
            needs_pasid: page.response_needs_pasid,
            group: page.group,
            response,
            private_data: page.private_data,
        }
    }
}

/// What was decided about an unrecoverable fault. It never goes out on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Somebody should read of it: a line for the host's log, within its budget.
    Logged,
    /// The owner of the device brought it back, or is about to.
    Recovered,
    /// The guest was told in its own terms.
    Injected,
    /// The guest's tables translate the access by now, so there is nothing to tell.
    Vanished,
    /// Known and harmless.
    Ignored,
    /// Nobody handles it, or nobody spoke in time.
    Unhandled,
}

/// A group was not answered; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The handle names nothing that waits: it was answered before.
    #[error("nothing waits under this handle")]
    Stale,
    /// An unrecoverable fault takes a verdict.
    #[error("an unrecoverable fault takes no answer")]
    Unrecoverable,
    /// The way back to this device has no such code.
    #[error("the way back to the device cannot say {0:?}")]
    CannotSay(Response),
}

/// A fault was not judged; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// The handle names nothing that waits: it was judged before.
    #[error("nothing waits under this handle")]
    Stale,
    /// A page request group takes an answer.
    #[error("a page request group takes no verdict")]
    Recoverable,
}

impl Engine {
    /// Answers a group, delivered or not; [`poll_answer`](Self::poll_answer) brings the answer.
    ///
    /// # Errors
    /// [`AnswerError`].
    #[inline]
    pub fn answer(
        &mut self,
        now: Tick,
        handle: Handle,
        response: Response,
    ) -> Result<(), AnswerError> {
        let place = self.waiting_group(handle)?;
        if self.policy.strict && !self.devices.rest(place).can_say(response) {
            return Err(AnswerError::CannotSay(response));
        }
        self.advance(now);
        self.finish(handle.slot, response, By::Resolver);
        Ok(())
    }

    /// The resolver cannot take this group: the queue behind it is full or gone.
    ///
    /// It is answered INVALID, or under [`Policy::linux`](super::Policy::linux) FAILURE, as when
    /// an `iopf_handler` returns an error.
    ///
    /// # Errors
    /// [`AnswerError`], but not [`AnswerError::CannotSay`].
    pub fn refuse(&mut self, now: Tick, handle: Handle) -> Result<(), AnswerError> {
        self.waiting_group(handle)?;
        self.advance(now);
        let response = if self.policy.strict {
            Response::Invalid
        } else {
            Response::Failure
        };
        self.finish(handle.slot, response, By::Resolver);
        Ok(())
    }

    /// The resolver takes the group over for good: under [`Policy::linux`](super::Policy::linux)
    /// removing its device will not answer it (`iopf_group_dequeue`). The default policy answers
    /// it then all the same.
    ///
    /// # Errors
    /// [`AnswerError`], but not [`AnswerError::CannotSay`].
    pub fn dequeue(&mut self, handle: Handle) -> Result<(), AnswerError> {
        self.waiting_group(handle)?;
        self.slab.at_mut(handle.slot).flags |= flag::DEQUEUED;
        Ok(())
    }

    /// Judges an unrecoverable fault, delivered or not.
    ///
    /// # Errors
    /// [`VerdictError`].
    pub fn judge(
        &mut self,
        now: Tick,
        handle: Handle,
        verdict: Verdict,
    ) -> Result<(), VerdictError> {
        let slot = self.slab.waiting(handle).ok_or(VerdictError::Stale)?;
        if !slot.has(flag::UNRECOVERABLE) {
            return Err(VerdictError::Recoverable);
        }
        self.advance(now);
        self.close(handle.slot, verdict);
        Ok(())
    }

    /// The next answer to send, in the order they were given.
    ///
    /// Until it is fetched, a group counts against the credits of its device.
    #[inline]
    #[must_use = "the device waits for it"]
    pub fn poll_answer(&mut self) -> Option<Answer> {
        let index = self.answers.head;
        if index == NIL {
            return None;
        }
        let slot = self.slab.at(index);
        self.answers.head = self.slab.links(index).next;
        if self.answers.head == NIL {
            self.answers = List::EMPTY;
        }
        let place = slot.device;
        let device = self.devices.at_mut(place);
        device.completed += 1;
        let answer = Answer {
            device: device.id,
            pasid: pasid(slot),
            needs_pasid: slot.has(flag::NEEDS_PASID),
            group: GroupIndex(slot.group),
            response: from_code(slot.answer),
            private_data: slot.private,
            since: Tick(slot.at),
            by: by(slot.answer),
        };
        self.put(place, index);
        Some(answer)
    }

    #[inline]
    fn waiting_group(&self, handle: Handle) -> Result<u32, AnswerError> {
        let slot = self.slab.waiting(handle).ok_or(AnswerError::Stale)?;
        if slot.has(flag::UNRECOVERABLE) {
            return Err(AnswerError::Unrecoverable);
        }
        Ok(slot.device)
    }

    /// Answers the waiting group at `index`.
    #[inline]
    pub(super) fn finish(&mut self, index: u32, response: Response, by: By) {
        withdraw(&mut self.devices, &self.slab, index);
        let slot = self.slab.at_mut(index);
        let (place, chain) = (slot.device, slot.link);
        slot.state = State::Answered;
        slot.answer = code(response, by);
        slot.link = NIL;
        let device = self.devices.at_mut(place);
        device.waiting.unlink(&mut self.slab, index);
        if chain != NIL {
            device.completed += u64::from(self.slab.at(chain).count);
            self.free_chain(place, chain);
        }
        let tail = self.answers.tail;
        self.slab.links_mut(index).next = NIL;
        if tail == NIL {
            self.answers.head = index;
        } else {
            self.slab.links_mut(tail).next = index;
        }
        self.answers.tail = index;
    }

    /// Closes the waiting unrecoverable fault at `index`.
    fn close(&mut self, index: u32, verdict: Verdict) {
        withdraw(&mut self.devices, &self.slab, index);
        let slot = *self.slab.at(index);
        let place = slot.device;
        let device = self.devices.at_mut(place);
        device.waiting.unlink(&mut self.slab, index);
        device.completed += 1;
        let id = device.id;
        let rest = self.devices.rest_mut(place);
        rest.verdicts.add(verdict);
        if verdict == Verdict::Logged {
            let guest = rest.config.guest;
            self.flood.log(self.now, id, guest, stray(&slot));
        }
        if verdict == Verdict::Vanished {
            let losses = Losses {
                vanished: 1,
                ..Losses::default()
            };
            self.lose(place, losses);
        }
        self.put(place, index);
    }

    /// Nobody will speak for what waits at `index`: INVALID for a group, unhandled otherwise.
    pub(super) fn give_up(&mut self, index: u32, why: By) {
        if self.slab.at(index).has(flag::UNRECOVERABLE) {
            self.close(index, Verdict::Unhandled);
        } else {
            self.finish(index, Response::Invalid, why);
        }
    }
}

/// [`Slot::answer`](super::slab::Slot::answer): the response in bits 3:0, who gave it above.
const fn code(response: Response, by: By) -> u8 {
    let by = match by {
        By::Resolver => 0,
        By::Deadline => 0x10,
        By::Departure => 0x20,
        By::Report => 0x30,
    };
    by | match response {
        Response::Success => 0,
        Response::Invalid => 1,
        Response::Failure => 2,
    }
}

const fn by(code: u8) -> By {
    match code >> 4 {
        0 => By::Resolver,
        1 => By::Deadline,
        2 => By::Departure,
        _ => By::Report,
    }
}

const fn from_code(code: u8) -> Response {
    match code & 15 {
        0 => Response::Success,
        2 => Response::Failure,
        _ => Response::Invalid,
    }
}
