//! A user decides: groups are read and answers written, as with iommufd's fault descriptor.
//!
//! Semantics: Linux 7.3 `drivers/iommu/iommufd/eventq.c`, `iommufd_fault_fops_read`, `_write`,
//! `iommufd_eventq_fops_poll`, `iommufd_auto_response_faults` and `iommufd_fault_destroy`.
//!
//! Not here: the descriptor, wake-ups, file positions (a file that can be told a position answers
//! `ESPIPE` to any but 0).

mod cookies;
mod record;

pub use record::{ANSWER, RECORD};

use super::{Decision, Resolver};
use crate::Response;
use crate::engine::{
    DeviceId, DomainId, Engine, Group, Handle, Pages, Policy, Stray, Tick, Verdict,
};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use cookies::Cookies;

/// Hands groups to a user, with the read, write and poll semantics of iommufd's fault descriptor.
///
/// As a [`Resolver`] it queues every group and decides nothing; the user [`read`](Self::read)s them
/// and [`write`](Self::write)s the answers. Unrecoverable faults are logged: the descriptor carries
/// none. It neither blocks nor wakes anybody.
///
/// Under [`Policy::linux`] it does what the kernel does: a cookie is the lowest that is free, so
/// a late answer may complete another group; it is 1 or more, until somebody answers 0; groups are taken over ([`Decision::TakeOver`]), so that
/// [`detached`](Self::detached) must be called after a detach or replace at the engine.
///
/// Under [`Policy::default`] the engine speaks for what nobody answers, and
///
/// - a group that the engine gave up (deadline, detach, removal) is dropped unread, or its cookie
///   is refused as unknown;
/// - a cookie is never 0, and comes back only after the 4,294,967,294 others;
/// - it holds at most twice as many groups as ever waited in the engine at once, and 128: the
///   engine's credits bound it.
#[derive(Debug)]
pub struct Forward {
    deliver: VecDeque<Given>,
    given: Cookies,
    /// Look for stale handles at this many, among those to deliver and those given.
    prune_at: [usize; 2],
}

/// A group that the user has, or is about to get.
#[derive(Clone, Copy, Debug)]
struct Given {
    handle: Handle,
    device: DeviceId,
    domain: DomainId,
    pages: u32,
}

/// Below this many handles, stale ones are left alone.
const FEW: usize = 64;

/// The memory of a user cannot be reached there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user's memory cannot be reached")]
pub struct BadAddress;

/// Nothing was read; everything waits as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The length is no multiple of [`RECORD`]. It is checked first, also where nothing waits.
    #[error("the length is no multiple of a record's")]
    WrongSize,
    /// The first group is larger.
    #[error("the first group does not fit")]
    TooSmall,
    /// The first group could not be copied out.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// Every cookie is taken.
    #[error("no cookie is free")]
    NoCookie,
}

impl ReadError {
    /// The error number of Linux: `ESPIPE` 29, `EINVAL` 22, `EFAULT` 14, `EBUSY` 16.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::WrongSize => 29,
            Self::TooSmall => 22,
            Self::BadAddress(_) => 14,
            Self::NoCookie => 16,
        }
    }
}

/// The first answer was not taken; everything waits as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The length is no multiple of [`ANSWER`]. It is checked first.
    #[error("the length is no multiple of an answer's")]
    WrongSize,
    /// Neither SUCCESS nor INVALID. It is checked before the cookie, which stays good.
    #[error("there is no such response code")]
    BadCode,
    /// The cookie names no group that waits.
    #[error("no group waits under this cookie")]
    UnknownCookie,
    /// The first answer could not be copied in.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
}

impl WriteError {
    /// The error number of Linux: `ESPIPE` 29, `EINVAL` 22, `EFAULT` 14.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::WrongSize => 29,
            Self::BadCode | Self::UnknownCookie => 22,
            Self::BadAddress(_) => 14,
        }
    }
}

impl Forward {
    /// A queue without groups, for engines of this policy.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self {
            deliver: VecDeque::new(),
            given: Cookies::new(!policy.is_strict()),
            prune_at: [FEW; 2],
        }
    }

    /// Reads as many whole groups as fit in `count` bytes, oldest first; how many bytes they take.
    /// Nothing to read is 0 bytes, not an error.
    ///
    /// `copy` takes a record to the user's memory, `offset` bytes into the buffer. Where it fails, the
    /// group stays and is first again, its cookie is free, and what was copied of it counts for
    /// nothing; groups before it count.
    ///
    /// # Errors
    /// [`ReadError`], where not even one group was read.
    pub fn read(
        &mut self,
        engine: &Engine,
        count: usize,
        mut copy: impl FnMut(usize, &[u8; RECORD]) -> Result<(), BadAddress>,
    ) -> Result<usize, ReadError> {
        if !count.is_multiple_of(RECORD) {
            return Err(ReadError::WrongSize);
        }
        let mut done = 0;
        while let Some(group) = self.deliver.front().copied() {
            let Some(pages) = engine.pages(group.handle) else {
                self.deliver.pop_front();
                continue;
            };
            let said = self.read_group(&group, pages, done, count, &mut copy);
            match said {
                Ok(end) => done = end,
                Err(error) if done == 0 => return Err(error),
                // What was read is told; the error shows at the next read, if it is still there.
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Reads the first group, from `done` on; where it ends.
    fn read_group(
        &mut self,
        group: &Given,
        pages: Pages<'_>,
        done: usize,
        count: usize,
        copy: &mut impl FnMut(usize, &[u8; RECORD]) -> Result<(), BadAddress>,
    ) -> Result<usize, ReadError> {
        if group.pages as usize > (count - done) / RECORD {
            return Err(ReadError::TooSmall);
        }
        let cookie = self.given.give(*group).ok_or(ReadError::NoCookie)?;
        let mut end = done;
        for page in pages {
            if let Err(error) = copy(end, &record::encode(group.device, &page, cookie)) {
                self.given.give_back(cookie);
                return Err(error.into());
            }
            end += RECORD;
        }
        self.deliver.pop_front();
        Ok(end)
    }

    /// [`read`](Self::read) into memory of our own.
    ///
    /// # Errors
    /// [`ReadError`], but not [`ReadError::BadAddress`].
    pub fn read_into(&mut self, engine: &Engine, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.read(engine, buffer.len(), |offset, record| {
            let room = buffer.get_mut(offset..offset + RECORD).ok_or(BadAddress)?;
            room.copy_from_slice(record);
            Ok(())
        })
    }

    /// Takes answers from `count` bytes, in order, and stops at the first it cannot take; how many
    /// bytes were taken. Groups may be answered in any order; the cookie alone names them.
    ///
    /// `fetch` brings the answer that is `offset` bytes into the user's buffer.
    ///
    /// # Errors
    /// [`WriteError`], where not even the first answer was taken. A later one's error is lost: the
    /// user goes on from there and meets it again.
    pub fn write(
        &mut self,
        now: Tick,
        engine: &mut Engine,
        count: usize,
        mut fetch: impl FnMut(usize) -> Result<[u8; ANSWER], BadAddress>,
    ) -> Result<usize, WriteError> {
        if !count.is_multiple_of(ANSWER) {
            return Err(WriteError::WrongSize);
        }
        for done in (0..count).step_by(ANSWER) {
            let taken = fetch(done)
                .map_err(WriteError::from)
                .and_then(|answer| self.answer(now, engine, answer));
            match taken {
                Ok(()) => {}
                Err(error) if done == 0 => return Err(error),
                Err(_) => return Ok(done),
            }
        }
        Ok(count)
    }

    fn answer(
        &mut self,
        now: Tick,
        engine: &mut Engine,
        answer: [u8; ANSWER],
    ) -> Result<(), WriteError> {
        let (cookie, response) = record::decode(answer);
        let response = response.ok_or(WriteError::BadCode)?;
        let group = self.given.take(cookie).ok_or(WriteError::UnknownCookie)?;
        // Only a group that the engine gave up meanwhile is refused: every wire says these two.
        engine
            .answer(now, group.handle, response)
            .map_err(|_| WriteError::UnknownCookie)
    }

    /// [`write`](Self::write) from memory of our own.
    ///
    /// # Errors
    /// [`WriteError`], but not [`WriteError::BadAddress`].
    pub fn write_from(
        &mut self,
        now: Tick,
        engine: &mut Engine,
        answers: &[u8],
    ) -> Result<usize, WriteError> {
        self.write(now, engine, answers.len(), |offset| {
            let answer = answers.get(offset..).and_then(<[u8]>::first_chunk);
            answer.copied().ok_or(BadAddress)
        })
    }

    /// Whether there is something to read (poll: `EPOLLIN | EPOLLRDNORM`). It can always be
    /// written to (`EPOLLOUT`). Groups that were read and not answered do not show.
    #[must_use]
    pub fn is_readable(&mut self, engine: &Engine) -> bool {
        while let Some(group) = self.deliver.front() {
            if engine.pages(group.handle).is_some() {
                return true;
            }
            self.deliver.pop_front();
        }
        false
    }

    /// The attachment of `device` to `domain` is gone, by a detach, or a replace by another: its
    /// groups are answered INVALID, first those that were not read, newest first, then the others, low
    /// cookies first. How many. Their cookies are unknown from now on.
    ///
    /// Call it after the engine's [`detach`](Engine::detach) or [`replace`](Engine::replace). Where
    /// two PASIDs of a device are attached to one domain, give each a [`DomainId`] of its own: the
    /// kernel tells them apart.
    pub fn detached(
        &mut self,
        now: Tick,
        engine: &mut Engine,
        device: DeviceId,
        domain: DomainId,
    ) -> usize {
        let goes = |group: &Given| group.device == device && group.domain == domain;
        let mut unread = Vec::new();
        self.deliver.retain(|group| {
            if goes(group) {
                unread.push(*group);
            }
            !goes(group)
        });
        // The kernel moves them to a list of its own, each to the head of it.
        unread.reverse();
        unread.extend(self.given.take_all(goes).values());
        deny(now, engine, &unread)
    }

    /// The queue is destroyed, or its user is gone for good: all groups are answered INVALID, first
    /// those that were not read, oldest first, then the others, low cookies first. How many.
    ///
    /// That a user closes its descriptor is no reason to: the kernel goes on queueing then.
    pub fn destroyed(&mut self, now: Tick, engine: &mut Engine) -> usize {
        let mut all: Vec<Given> = self.deliver.drain(..).collect();
        all.extend(self.given.take_all(|_| true).values());
        deny(now, engine, &all)
    }

    /// Its user is gone and another may come: what was read and not answered is answered INVALID,
    /// low cookies first. What was not read waits for the next. How many.
    ///
    /// The kernel does not tell its users apart, and leaves such groups to a detach.
    pub fn abandoned(&mut self, now: Tick, engine: &mut Engine) -> usize {
        let given: Vec<Given> = self.given.take_all(|_| true).into_values().collect();
        deny(now, engine, &given)
    }

    /// The cookies of groups that were read and not answered, low ones first. Of those that the engine
    /// gave up meanwhile, some may still be there.
    pub fn unanswered(&self) -> impl Iterator<Item = u32> {
        self.given.iter()
    }

    /// Groups not read yet, and groups read and not answered; those that the engine gave up may be
    /// among them.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.deliver.len(), self.given.len())
    }

    /// Drops stale handles when there are many.
    fn prune(&mut self, pages: &Pages<'_>) {
        let [deliver, given] = &mut self.prune_at;
        if self.deliver.len() >= *deliver {
            self.deliver.retain(|group| pages.is_waiting(group.handle));
            *deliver = self.deliver.len() * 2 + FEW;
        }
        if self.given.len() >= *given {
            self.given.take_all(|group| !pages.is_waiting(group.handle));
            *given = self.given.len() * 2 + FEW;
        }
    }
}

/// Answers groups INVALID; how many were not given up by the engine before.
fn deny(now: Tick, engine: &mut Engine, groups: &[Given]) -> usize {
    let mut denied = 0;
    for group in groups {
        let said = engine.answer(now, group.handle, Response::Invalid);
        denied += usize::from(said.is_ok());
    }
    denied
}

impl Resolver for Forward {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        self.prune(&pages);
        self.deliver.push_back(Given {
            handle: group.handle,
            device: group.device,
            domain: group.domain,
            pages: group.pages,
        });
        Decision::TakeOver
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}

#[cfg(test)]
mod tests;
