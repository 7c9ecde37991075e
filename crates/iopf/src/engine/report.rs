//! The one way in, for both kinds of fault.

use super::answer::Answer;
use super::device::key;
use super::loss::Losses;
use super::slab::{NIL, NO_PASID, Slot, State, flag};
use super::{Attachment, DeviceId, Engine, Handle, Tick, Verdict};
use crate::{Fault, PageRequest, Pasid, Response, Unrecoverable};

/// What became of a reported fault.
#[must_use = "an answer given at once must be sent"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// A partial page: kept until the last page of its group comes.
    Collected,
    /// Now waits for an answer or a verdict under this handle; `poll_fault` delivers it.
    Queued(Handle),
    /// A page request that nobody can handle: send this answer. No other will come.
    Answered(Answer, Why),
    /// An unrecoverable fault that nobody handles (Linux `report_iommu_fault`: `-ENOSYS`).
    Judged(Verdict),
}

/// Why a page request was answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing that takes page requests is attached (Linux: report returns `-EINVAL`).
    NoHandler,
    /// No credit or no memory is left (Linux, no memory: report returns 0).
    NoRoom,
    /// Its resolver decided at once; see [`Engine::resolve_group`].
    Resolved,
}

/// A report was refused; nothing changed but the count of refusals. No answer is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such device on the queue.
    #[error("device {0:?} is not on the queue")]
    UnknownDevice(DeviceId),
    /// A partial page for which nothing that takes page requests is attached.
    #[error("nothing is attached that takes page requests")]
    NoHandler,
    /// The device holds all its credits, or the engine all its memory (Linux: `-ENOMEM`).
    #[error("no room for another page of the device beyond {0}")]
    NoRoom(u32),
}

impl Engine {
    /// Takes one fault of `id`.
    ///
    /// A page request is collected until the last page of its group, then queued for delivery. An
    /// unrecoverable fault is queued for a verdict. Takes time in the number of groups the device
    /// has begun and not completed, which its credits bound.
    ///
    /// # Errors
    /// [`Refused`]; the device waits for nothing.
    #[inline]
    pub fn report(&mut self, now: Tick, id: DeviceId, fault: &Fault) -> Result<Reported, Refused> {
        self.advance(now);
        let Some(place) = self.devices.find_again(id) else {
            return self.report_of_a_stranger(id, fault);
        };
        self.devices.at_mut(place).reported += 1;
        match fault {
            Fault::PageRequest(page) => self.page_request(place, page),
            Fault::Unrecoverable(fault) => self.unrecoverable(place, fault),
        }
    }

    /// Takes note of `faults` faults that were lost before they could be reported; `None`: nobody
    /// knows whose.
    ///
    /// # Errors
    /// [`Refused::UnknownDevice`]; they are counted all the same, as nobody's.
    pub fn report_lost(&mut self, id: Option<DeviceId>, faults: u64) -> Result<(), Refused> {
        let losses = Losses {
            lost: faults,
            ..Losses::default()
        };
        match id.map(|id| self.devices.find(id).ok_or(id)) {
            Some(Ok(place)) => self.lose(place, losses),
            None => self.departed.losses += losses,
            Some(Err(id)) => {
                self.departed.losses += losses;
                return Err(Refused::UnknownDevice(id));
            }
        }
        Ok(())
    }

    #[cold]
    fn report_of_a_stranger(&mut self, id: DeviceId, fault: &Fault) -> Result<Reported, Refused> {
        self.departed.reported += 1;
        self.departed.losses.refused += 1;
        match fault {
            Fault::PageRequest(page) if page.last || !self.policy.strict => Ok(Reported::Answered(
                Answer::at_once(self.now, id, page, Response::Invalid),
                Why::NoHandler,
            )),
            _ => Err(Refused::UnknownDevice(id)),
        }
    }

    fn refuse_page(&mut self, place: u32) {
        self.refuse_pages(place, 1);
    }

    pub(super) fn refuse_pages(&mut self, place: u32, pages: u64) {
        let losses = Losses {
            refused: pages,
            ..Losses::default()
        };
        self.lose(place, losses);
    }

    /// Room for one more slot of the device at `place`.
    #[inline]
    pub(super) fn take(&mut self, place: u32) -> Option<u32> {
        let device = self.devices.at_mut(place);
        if self.policy.strict && device.used >= device.credits {
            return None;
        }
        let index = self.slab.take()?;
        device.used += 1;
        Some(index)
    }

    fn limit(&self, place: u32) -> u32 {
        let credits = self.devices.at(place).credits;
        if self.policy.strict {
            credits.min(self.policy.max_pages)
        } else {
            self.policy.max_pages
        }
    }

    /// Puts a page into the slot at `index`, which came by `handler`. Returns the slot.
    #[inline]
    pub(super) fn fill(
        &mut self,
        place: u32,
        index: u32,
        page: &PageRequest,
        (handler, by_rid): (Attachment, bool),
    ) -> &mut Slot {
        let mut flags = 0;
        if page.response_needs_pasid {
            flags |= flag::NEEDS_PASID;
        }
        if by_rid {
            flags |= flag::BY_RID;
        }
        if handler.nested {
            flags |= flag::NESTED;
        }
        let now = self.now;
        let slot = self.slab.at_mut(index);
        slot.addr = page.addr.0;
        slot.private = page.private_data;
        slot.at = now;
        slot.device = place;
        slot.group = page.group.0;
        slot.pasid = page.pasid.map_or(NO_PASID, Pasid::get);
        slot.domain_or_tail = handler.domain.0;
        slot.link = NIL;
        slot.count = 1;
        slot.access = page.access.bits();
        slot.flags = flags;
        slot
    }

    #[inline]
    fn page_request(&mut self, place: u32, page: &PageRequest) -> Result<Reported, Refused> {
        let strict = self.policy.strict;
        let id = self.devices.at(place).id;
        let key = key(strict, page.pasid);
        let Some((handler, by_rid)) = self.devices.handler(place, key) else {
            self.refuse_page(place);
            if !page.last && strict {
                return Err(Refused::NoHandler);
            }
            let answer = Answer::at_once(self.now, id, page, Response::Invalid);
            return Ok(Reported::Answered(answer, Why::NoHandler));
        };
        let Some(index) = self.take(place) else {
            self.refuse_page(place);
            if !page.last {
                return Err(Refused::NoRoom(self.limit(place)));
            }
            // The group ends here, so its partial pages have nothing to wait for.
            let chain = self.find_chain(place, page, by_rid);
            if chain != NIL {
                self.drop_chain(place, chain);
            }
            let response = if strict {
                Response::Invalid
            } else {
                Response::Failure
            };
            let answer = Answer::at_once(self.now, id, page, response);
            return Ok(Reported::Answered(answer, Why::NoRoom));
        };
        self.fill(place, index, page, (handler, by_rid));
        if page.last {
            Ok(self.complete(place, index, page))
        } else {
            self.collect(place, index, page);
            Ok(Reported::Collected)
        }
    }

    fn unrecoverable(&mut self, place: u32, fault: &Unrecoverable) -> Result<Reported, Refused> {
        let pasid = key(self.policy.strict, fault.pasid);
        let Some((handler, by_rid)) = self.devices.judge(place, pasid) else {
            self.devices.at_mut(place).completed += 1;
            let rest = self.devices.rest_mut(place);
            rest.verdicts.add(Verdict::Unhandled);
            return Ok(Reported::Judged(Verdict::Unhandled));
        };
        let Some(index) = self.take(place) else {
            self.refuse_page(place);
            return Err(Refused::NoRoom(self.limit(place)));
        };
        let mut flags = flag::UNRECOVERABLE;
        for (set, bit) in [
            (by_rid, flag::BY_RID),
            (handler.nested, flag::NESTED),
            (fault.addr.is_some(), flag::ADDR),
            (fault.fetch_addr.is_some(), flag::FETCH),
        ] {
            if set {
                flags |= bit;
            }
        }
        let now = self.now;
        let slot = self.slab.at_mut(index);
        slot.addr = fault.addr.map_or(0, |addr| addr.0);
        slot.private = [
            fault.fetch_addr.map_or(0, |addr| addr.0),
            u64::from(fault.reason.0),
        ];
        slot.at = now;
        slot.device = place;
        slot.group = 0;
        slot.pasid = fault.pasid.map_or(NO_PASID, Pasid::get);
        slot.domain_or_tail = handler.domain.0;
        slot.link = NIL;
        slot.count = 1;
        slot.access = fault.access.bits();
        slot.flags = flags;
        Ok(self.enqueue(place, index))
    }

    /// The slot at `index` is filled: it waits from now on.
    #[inline]
    pub(super) fn enqueue(&mut self, place: u32, index: u32) -> Reported {
        let slot = self.slab.at_mut(index);
        slot.state = State::Waiting;
        let handle = Handle {
            slot: index,
            generation: slot.generation,
        };
        let at = slot.at;
        self.devices
            .at_mut(place)
            .waiting
            .push(&mut self.slab, index);
        self.order
            .push(&mut self.devices, &self.slab, place, handle);
        self.arm_after(place, at);
        Reported::Queued(handle)
    }
}
