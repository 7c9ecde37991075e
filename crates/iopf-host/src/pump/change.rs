//! Queues, devices and attachments that come, change and go.
//!
//! The kernel gives a cookie out again as soon as its group is answered, and at a detach or replace
//! it answers groups itself. So an answer of ours that is on its way at that time could complete
//! another group. Here is the order that prevents it, on one thread with nothing between:
//!
//! 1. answers that were given are written;
//! 2. the engine detaches: what waits is given up as INVALID, and its handles are stale for good;
//! 3. those INVALIDs are written too: the kernel takes them, since it has not answered these groups
//!    yet, and afterwards no cookie that we know belongs to this attachment;
//! 4. the kernel detaches, and answers what nobody has read.
//!
//! If a write fails, the kernel is not called.

use super::source::{Route, Source};
use super::{Pump, QueueId, Serving};
use crate::queue::WriteError;
use crate::{Errno, FaultFile, FaultQueue};
use iopf::Pasid;
use iopf::engine::{
    AddError, AttachError, Attachment, Departed, DeviceConfig, DeviceId, Engine, Tick,
    UnknownDevice,
};

/// A queue could not be added; here it is again.
#[derive(Debug, thiserror::Error)]
pub enum AddQueueError<F> {
    /// There are [`Pump::MAX_QUEUES`] already.
    #[error("no room for another queue")]
    Full(Box<FaultQueue<F>>),
    /// Its file cannot be waited for: epoll_ctl(2) says why. `EEXIST`: another queue has the same
    /// descriptor; `EPERM`: such a file is always readable.
    #[error("the file cannot be waited for: {1}")]
    Unwatched(Box<FaultQueue<F>>, Errno),
}

/// A change was not made as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError<E> {
    /// The engine refused; nothing changed, and the kernel was not called.
    #[error(transparent)]
    Engine(#[from] AttachError),
    /// Answers of the device could not be written, so the kernel was not called: it would answer the
    /// same groups. What was to go is gone from the engine, and new faults of it are answered
    /// INVALID. Try again with [`Pump::flush`], and when that succeeds, make the kernel call with
    /// nothing between: after a replace by [`Pump::attach`], since in the engine nothing is attached
    /// there now.
    #[error("answers are not written: {0}")]
    Unwritten(WriteError),
    /// The kernel refused. The engine has what it had before; groups that were given up stay so.
    #[error("the kernel refused")]
    Kernel(E),
}

impl<F: FaultFile + 'static> Pump<F> {
    /// Takes a fault queue over.
    ///
    /// # Errors
    /// [`AddQueueError`].
    pub fn add_queue(&mut self, queue: FaultQueue<F>) -> Result<QueueId, AddQueueError<F>> {
        let free = self.sources.iter().position(Option::is_none);
        let place = free.unwrap_or(self.sources.len());
        let slot = u32::try_from(place).ok();
        let Some(slot) = slot.filter(|_| place < Self::MAX_QUEUES) else {
            return Err(AddQueueError::Full(Box::new(queue)));
        };
        if let Err(error) = self.watch.set(place, queue.file(), true) {
            return Err(AddQueueError::Unwatched(Box::new(queue), error));
        }
        self.dirty |= u64::from(queue.unwritten() > 0) << slot;
        let id = QueueId {
            slot,
            generation: self.generation,
        };
        self.generation = self.generation.wrapping_add(1);
        let source = Some(Source::new(id, queue));
        match free {
            Some(_) => self.sources[place] = source,
            None => self.sources.push(source),
        }
        Ok(id)
    }

    /// Gives a queue back, with the answers given so far written if that can be. Groups that came by
    /// it and still wait stay with their resolvers, and their answers go nowhere: detach first.
    pub fn remove_queue(&mut self, id: QueueId) -> Option<FaultQueue<F>> {
        // What fails is still in the queue.
        let _ = self.write(true, |_| true);
        let place = self.sources.get_mut(id.slot as usize)?;
        let Source { queue, .. } = place.take_if(|source| source.id == id)?;
        self.dirty &= !(1 << id.slot);
        self.watch.forget(id.slot as usize, queue.file());
        Some(queue)
    }

    /// All queues.
    pub fn queues(&self) -> impl Iterator<Item = QueueId> {
        self.sources.iter().flatten().map(|source| source.id)
    }

    /// A queue.
    #[must_use]
    pub fn queue(&self, id: QueueId) -> Option<&FaultQueue<F>> {
        let source = self.sources.get(id.slot as usize)?.as_ref()?;
        (source.id == id).then_some(&source.queue)
    }

    /// Puts a device on the engine's queue, served by `serving`: any
    /// [`Resolver`](iopf::resolve::Resolver), or a [`Worker`](crate::Worker).
    ///
    /// Whatever `config` says, the way back cannot carry FAILURE.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add_device(
        &mut self,
        id: DeviceId,
        config: DeviceConfig,
        serving: impl Into<Serving>,
    ) -> Result<(), AddError> {
        let config = DeviceConfig {
            carries_failure: false,
            ..config
        };
        self.engine.add_device(id, config)?;
        self.devices.add(id, serving.into());
        Ok(())
    }

    /// Has another resolver serve a device from the next delivery on; returns the one before. What
    /// that one has decided to answer later it may still answer.
    ///
    /// # Errors
    /// [`UnknownDevice`].
    pub fn serve_by(
        &mut self,
        id: DeviceId,
        serving: impl Into<Serving>,
    ) -> Result<Serving, UnknownDevice> {
        let place = self.devices.place(id);
        let serves = place.and_then(|place| self.devices.at(place));
        let serves = serves.ok_or(UnknownDevice(id))?;
        Ok(std::mem::replace(serves, serving.into()))
    }

    /// Faults that `queue` tells of as `dev_id`'s are those of the device `id`. A device may
    /// come by several queues. `false`: there is no such queue or device.
    ///
    /// `dev_id` is the iommufd object of the device; in an IOMMU group of several devices it is that
    /// of the one attached first, for all of them.
    pub fn route(&mut self, queue: QueueId, dev_id: u32, id: DeviceId) -> bool {
        let source = self.sources.get_mut(queue.slot as usize);
        let source = source.and_then(Option::as_mut);
        let source = source.filter(|source| source.id == queue);
        let (Some(source), Some(place)) = (source, self.devices.place(id)) else {
            return false;
        };
        source.routes.set(dev_id, Route { id, place });
        true
    }

    /// Runs `act` on the engine, with the time of the last turn. Answers given by it are written at the
    /// end of the turn, or by [`flush`](Self::flush); between two turns, the next is due at once.
    ///
    /// For a resolver that decides through the engine itself, such as
    /// [`Forward`](iopf::resolve::Forward). Devices and attachments are changed with the other methods.
    pub fn with_engine<T>(&mut self, act: impl FnOnce(Tick, &mut Engine) -> T) -> T {
        (self.failing, self.touched) = (true, true);
        act(self.now, &mut self.engine)
    }

    /// Writes all answers given so far.
    ///
    /// # Errors
    /// What failed first. It is tried again as any failed write is.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.write(true, |_| true)
    }

    /// Writes all answers; says what failed first of those to `id`.
    fn flush_of(&mut self, id: DeviceId) -> Result<(), WriteError> {
        self.write(true, |source| source.routes.may_concern(id))
    }

    /// Attaches an address space of a device in the engine, then in the kernel. No fault is read
    /// between the two.
    ///
    /// # Errors
    /// [`ChangeError`], but not [`ChangeError::Unwritten`].
    pub fn attach<T, E>(
        &mut self,
        id: DeviceId,
        pasid: Option<Pasid>,
        attachment: Attachment,
        kernel: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, ChangeError<E>> {
        self.engine.attach(id, pasid, attachment)?;
        kernel().map_err(|error| {
            // It was just attached.
            let _ = self.engine.detach(self.now, id, pasid);
            ChangeError::Kernel(error)
        })
    }

    /// Replaces an attachment by another, in the engine and then in the kernel. Everything that
    /// waits for the old one is answered INVALID first; late answers to it are stale from now on.
    /// Replacing one by its equal changes nothing, as in the kernel. So each page table of the kernel
    /// must have a domain of its own here: with one domain for two, the kernel would answer what the
    /// engine lets wait.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn replace<T, E>(
        &mut self,
        id: DeviceId,
        pasid: Option<Pasid>,
        attachment: Attachment,
        kernel: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, ChangeError<E>> {
        self.exchange(id, pasid, Some(attachment), kernel)
    }

    /// Removes an attachment, in the engine and then in the kernel: as [`replace`](Self::replace).
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn detach<T, E>(
        &mut self,
        id: DeviceId,
        pasid: Option<Pasid>,
        kernel: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, ChangeError<E>> {
        self.exchange(id, pasid, None, kernel)
    }

    fn exchange<T, E>(
        &mut self,
        id: DeviceId,
        pasid: Option<Pasid>,
        new: Option<Attachment>,
        kernel: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, ChangeError<E>> {
        let old = self.engine.attachment(id, pasid);
        let old = old.map_err(AttachError::from)?;
        let old = old.ok_or(AttachError::NotAttached)?;
        match new {
            Some(new) => self.engine.replace(self.now, id, pasid, new)?,
            None => self.engine.detach(self.now, id, pasid)?,
        };
        if let Err(error) = self.flush_of(id) {
            if new.is_some_and(|new| new != old) {
                // What came by it before the kernel call would be answered there.
                let _ = self.engine.detach(self.now, id, pasid);
            }
            return Err(ChangeError::Unwritten(error));
        }
        kernel().map_err(|error| {
            // The place is as it was left above; nothing came meanwhile.
            let _ = match new {
                Some(_) => self.engine.replace(self.now, id, pasid, old).map(drop),
                None => self.engine.attach(id, pasid, old),
            };
            ChangeError::Kernel(error)
        })
    }

    /// Removes a device with all of its attachments, in the engine and then, by `kernel`, in the
    /// kernel: as [`detach`](Self::detach). Its resolver is dropped, its routes are forgotten.
    ///
    /// # Errors
    /// [`ChangeError`]. If the kernel refuses, the device is gone from the pump all the same, and
    /// what it asks for is answered INVALID.
    pub fn remove_device<T, E>(
        &mut self,
        id: DeviceId,
        kernel: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Departed, T), ChangeError<E>> {
        let departed = self.engine.remove_device(self.now, id);
        let departed = departed.map_err(AttachError::from)?;
        let written = self.flush_of(id);
        self.devices.remove(id);
        for source in self.sources.iter_mut().flatten() {
            source.routes.forget(id);
        }
        written.map_err(ChangeError::Unwritten)?;
        let done = kernel().map_err(ChangeError::Kernel)?;
        Ok((departed, done))
    }
}
