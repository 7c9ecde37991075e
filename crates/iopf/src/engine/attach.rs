//! Devices and attachments that come, change and go.

use super::device::key;
use super::loss::Counts;
use super::slab::{NIL, NO_PASID, Slot, flag};
use super::{
    AddError, AttachError, Attachment, By, DeviceConfig, DeviceId, Engine, Tick, UnknownDevice,
};
use crate::Pasid;

/// What a device left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Its books when it left. What is still held (answers to fetch, groups its resolver
    /// dequeued) is booked in [`Engine::totals`] later.
    pub counts: Counts,
    /// Groups and unrecoverable faults given up because it left.
    pub given_up: u64,
    /// Partial pages dropped because it left.
    pub discarded: u64,
}

/// What an attachment left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Groups and unrecoverable faults given up with it.
    pub given_up: u64,
    /// Partial pages dropped with it.
    pub discarded: u64,
}

impl Engine {
    /// Puts a device on the queue.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add_device(&mut self, id: DeviceId, config: DeviceConfig) -> Result<(), AddError> {
        self.devices.add(id, config).map(|_| ())
    }

    /// Takes a device off the queue: its partial pages are dropped, its groups answered INVALID
    /// (Linux: newest first, and only those not dequeued), its unrecoverable faults given up.
    ///
    /// # Errors
    /// [`UnknownDevice`].
    pub fn remove_device(&mut self, now: Tick, id: DeviceId) -> Result<Departed, UnknownDevice> {
        let place = self.devices.find(id).ok_or(UnknownDevice(id))?;
        self.advance(now);
        let Detached {
            given_up,
            discarded,
        } = self.clear(place);
        let counts = self.devices.counts(place);
        self.order.forget(&mut self.devices, place);
        self.devices.forget(place);
        if self.devices.at(place).used == 0 {
            self.release(place);
        }
        Ok(Departed {
            counts,
            given_up,
            discarded,
        })
    }

    /// Attaches an address space of a device: that of `pasid`, or of requests without one.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(
        &mut self,
        id: DeviceId,
        pasid: Option<Pasid>,
        attachment: Attachment,
    ) -> Result<(), AttachError> {
        let place = self.devices.find(id).ok_or(UnknownDevice(id))?;
        let key = key(self.policy.strict, pasid);
        if self.devices.attachment(place, key).is_some() {
            return Err(AttachError::Attached);
        }
        let most = self.policy.max_attachments;
        if key != NO_PASID && self.devices.pasids(place) >= most as usize {
            return Err(AttachError::Full(most));
        }
        self.devices.set(place, key, Some(attachment));
        Ok(())
    }

    /// What is attached to an address space of a device, if anything.
    ///
    /// # Errors
    /// [`UnknownDevice`].
    pub fn attachment(
        &self,
        id: DeviceId,
        pasid: Option<Pasid>,
    ) -> Result<Option<Attachment>, UnknownDevice> {
        let place = self.devices.find(id).ok_or(UnknownDevice(id))?;
        let key = key(self.policy.strict, pasid);
        Ok(self.devices.attachment(place, key))
    }

    /// Puts another attachment in the place of one. Replacing one by its equal changes nothing.
    ///
    /// What waits for the old one is given up, and its partial pages are dropped; Linux keeps
    /// both unless this was the last attachment of the device that takes page requests.
    ///
    /// # Errors
    /// [`AttachError`], but not [`AttachError::Full`].
    pub fn replace(
        &mut self,
        now: Tick,
        id: DeviceId,
        pasid: Option<Pasid>,
        attachment: Attachment,
    ) -> Result<Detached, AttachError> {
        self.exchange(now, id, pasid, Some(attachment))
    }

    /// Removes an attachment. What becomes of its faults is told at [`replace`](Self::replace).
    ///
    /// # Errors
    /// [`AttachError`], but not [`AttachError::Full`].
    pub fn detach(
        &mut self,
        now: Tick,
        id: DeviceId,
        pasid: Option<Pasid>,
    ) -> Result<Detached, AttachError> {
        self.exchange(now, id, pasid, None)
    }

    fn exchange(
        &mut self,
        now: Tick,
        id: DeviceId,
        pasid: Option<Pasid>,
        new: Option<Attachment>,
    ) -> Result<Detached, AttachError> {
        let place = self.devices.find(id).ok_or(UnknownDevice(id))?;
        let key = key(self.policy.strict, pasid);
        let old = self.devices.attachment(place, key);
        let old = old.ok_or(AttachError::NotAttached)?;
        if new == Some(old) {
            return Ok(Detached::default());
        }
        let took = self.devices.rest(place).takers > 0;
        self.devices.set(place, key, new);
        let takes = self.devices.rest(place).takers > 0;
        self.advance(now);
        Ok(if self.policy.strict {
            self.clear_space(place, key)
        } else if took && !takes {
            // The driver takes the device off its queue with the last user of page requests.
            self.clear(place)
        } else {
            Detached::default()
        })
    }

    /// Gives up everything of the device at `place`.
    fn clear(&mut self, place: u32) -> Detached {
        let strict = self.policy.strict;
        let mut cleared = Detached {
            discarded: self.drop_chains(place),
            given_up: 0,
        };
        let waiting = self.devices.at(place).waiting;
        // The kernel keeps its list newest first, and leaves alone what was dequeued.
        let mut index = if strict { waiting.head } else { waiting.tail };
        while index != NIL {
            let slot = self.slab.at(index);
            let links = self.slab.links(index);
            let next = if strict { links.next } else { links.prev };
            if strict || !slot.has(flag::DEQUEUED) {
                self.give_up(index, By::Departure);
                cleared.given_up += 1;
            }
            index = next;
        }
        cleared
    }

    /// Gives up everything that came by the attachment under `key` of the device at `place`.
    fn clear_space(&mut self, place: u32, key: u32) -> Detached {
        let came_by = |slot: &Slot| {
            let by = if slot.has(flag::BY_RID) {
                NO_PASID
            } else {
                slot.pasid
            };
            by == key
        };
        let mut cleared = Detached::default();
        let mut index = self.devices.at(place).open;
        while index != NIL {
            let goes = came_by(self.slab.at(index));
            let next = self.slab.links(index).next;
            if goes {
                cleared.discarded += self.drop_chain(place, index);
            }
            index = next;
        }
        let mut index = self.devices.at(place).waiting.head;
        while index != NIL {
            let goes = came_by(self.slab.at(index));
            let next = self.slab.links(index).next;
            if goes {
                self.give_up(index, By::Departure);
                cleared.given_up += 1;
            }
            index = next;
        }
        cleared
    }

    /// Drops the partial pages of every device, because the hardware queue overflowed and last
    /// pages may be among what was lost. No answers. Returns how many pages.
    ///
    /// Linux `iopf_queue_discard_partial`.
    pub fn discard_partial(&mut self) -> u64 {
        self.devices
            .places()
            .map(|place| self.drop_chains(place))
            .sum()
    }

    /// How many faults of a device wait to be delivered; 0: everything reported has been handed
    /// to a resolver. It does not wait for answers, as `iopf_queue_flush_dev` does not.
    ///
    /// To flush, call [`poll_fault`](Self::poll_fault) that often. Takes time in the number.
    ///
    /// # Errors
    /// [`UnknownDevice`].
    pub fn flush(&self, id: DeviceId) -> Result<u32, UnknownDevice> {
        let place = self.devices.find(id).ok_or(UnknownDevice(id))?;
        let mut index = self.devices.at(place).ready;
        let mut faults = 0;
        while index != NIL {
            faults += 1;
            index = self.slab.links(index).next;
        }
        Ok(faults)
    }
}
