//! A fault queue: whole groups out of a [`FaultFile`], answers back in.

mod group;

pub use group::{FaultGroup, Malformed};

use crate::record::{RawAnswer, RawFault};
use crate::{Errno, FaultFile};
use iopf::Response;
use zerocopy::IntoBytes;

/// Reads page request groups and gives their answers.
///
/// One owner reads and writes, by `&mut`: groups cannot overtake each other, and an answer cannot
/// pass a detach that the same owner makes. Both ways work in batches:
/// [`read`](Self::read), [`next_group`](Self::next_group) until `None`, [`answer`](Self::answer)
/// for each, [`flush`](Self::flush). Once the buffers have grown to the largest batch, nothing is
/// allocated.
///
/// It promises, whatever the file does:
///
/// - a group comes out whole or not at all, and never twice;
/// - what is no group comes out as [`Malformed`], and is answered INVALID by its cookie;
/// - an answer is written once: after a partial write from where it stopped, and an answer that the
///   file refuses (its group is gone) is skipped and counted;
/// - no call loops for longer than the file makes progress.
#[derive(Debug)]
pub struct FaultQueue<F> {
    file: F,
    buffer: Vec<RawFault>,
    /// Records of `buffer` that hold what was read, and the first not handed out.
    filled: usize,
    next: usize,
    most: usize,
    batch: Vec<RawAnswer>,
    counts: QueueCounts,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing waits now. It is not the end of anything.
    Nothing,
    /// So many pages, at least 1.
    Pages(usize),
    /// A group waits that has more pages than the caller has room for.
    NoRoom,
}

/// Nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A group waits that is larger than the limit, in pages. It stays the first in the queue, so
    /// nothing can be read until its attachment is removed or replaced.
    #[error("a group of more than {0} pages waits")]
    GroupTooLarge(usize),
    /// The file takes no records of 40 bytes (`ESPIPE`): it is not an iommufd fault descriptor, or
    /// somebody moved its position.
    #[error("the file takes no page request records")]
    NotRecords,
    /// No memory for a larger buffer.
    #[error("no memory for a group of more than {0} pages")]
    NoMemory(usize),
    /// The file shows something to read time and again, and there is nothing. Only a
    /// [`Pump`](crate::Pump) can tell.
    #[error("the file shows page requests and has none")]
    Empty,
    /// Anything else the file said.
    #[error("reading page requests: {0}")]
    Io(Errno),
}

/// Not all answers were written. What is left is kept for the next [`FaultQueue::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The file takes no records of 8 bytes (`ESPIPE`), or takes them in part: it is not an
    /// iommufd fault descriptor, or somebody moved its position.
    #[error("the file takes no answer records")]
    NotRecords,
    /// Anything else the file said.
    #[error("writing answers: {0}")]
    Io(Errno),
}

/// What a queue saw, from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Pages read: those of groups and those that belong to none.
    pub pages: u64,
    /// Groups handed out.
    pub groups: u64,
    /// Pages that belong to no group; see [`Malformed`].
    pub malformed: u64,
    /// Bytes at the end of a read that make no record.
    pub torn: u64,
    /// Pages with bits that the uAPI does not name. VT-d and AMD set such a bit in every request
    /// with a PASID.
    pub unnamed_bits: u64,
    /// Answers that the file took.
    pub answered: u64,
    /// Answers that the file refused, because their groups were gone.
    pub stale: u64,
}

/// Pages that the buffer has room for at first: more than most devices have credits for at once.
const ROOM: usize = 128;

/// How often in a row an interrupted call is made again.
const INTERRUPTED: u32 = 16;

impl<F: FaultFile> FaultQueue<F> {
    /// Pages of the largest group that is read, unless told otherwise. PCIe PRI allows a function
    /// 2³² outstanding requests; the kernel sets no bound.
    pub const MAX_GROUP: usize = 1 << 16;

    /// A queue over `file` that reads groups of up to [`MAX_GROUP`](Self::MAX_GROUP) pages.
    pub fn new(file: F) -> Self {
        Self::with_max_group(file, Self::MAX_GROUP)
    }

    /// A queue over `file` that reads groups of up to `pages` pages; 0 counts as 1. Its buffer
    /// takes at most 40 bytes for each.
    pub fn with_max_group(file: F, pages: usize) -> Self {
        let most = pages.max(1);
        let room = ROOM.min(most);
        Self {
            file,
            buffer: vec![RawFault::default(); room],
            filled: 0,
            next: 0,
            most,
            batch: Vec::with_capacity(room),
            counts: QueueCounts::default(),
        }
    }

    /// The file.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// Gives the file back. What was read and not answered stays unanswered, and answers not
    /// flushed are dropped.
    pub fn into_file(self) -> F {
        self.file
    }

    /// What it saw so far.
    pub fn counts(&self) -> QueueCounts {
        self.counts
    }

    /// Reads once: as many whole groups as fit into `room` pages and the buffer, which grows until
    /// one group does. While groups of the last read are not handed out, it reads nothing and tells
    /// of their pages.
    ///
    /// More may wait afterwards. A level-triggered poll says so again; whoever waits for an edge
    /// must read until [`Read::Nothing`].
    ///
    /// # Errors
    /// [`ReadError`].
    #[inline]
    pub fn read(&mut self, room: usize) -> Result<Read, ReadError> {
        if self.next < self.filled {
            return Ok(Read::Pages(self.filled - self.next));
        }
        (self.next, self.filled) = (0, 0);
        let mut interrupted = 0;
        loop {
            let slots = self.buffer.len().min(room);
            if slots == 0 {
                return Ok(Read::NoRoom);
            }
            match self.file.read(self.buffer[..slots].as_mut_bytes()) {
                Ok(0) => return Ok(Read::Nothing),
                // A file that claims more than it was offered gave at most what was offered.
                Ok(bytes) => return Ok(self.took(bytes.min(slots * size_of::<RawFault>()))),
                Err(Errno::INVAL) if slots == self.most => {
                    return Err(ReadError::GroupTooLarge(self.most));
                }
                Err(Errno::INVAL) if slots == room => return Ok(Read::NoRoom),
                Err(Errno::INVAL) => self.grow()?,
                Err(Errno::INTR) if interrupted < INTERRUPTED => interrupted += 1,
                Err(Errno::SPIPE) => return Err(ReadError::NotRecords),
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
    }

    #[inline]
    fn took(&mut self, bytes: usize) -> Read {
        self.filled = bytes / size_of::<RawFault>();
        let torn = bytes % size_of::<RawFault>();
        if torn > 0 {
            self.counts.torn += torn as u64;
        }
        self.counts.pages += self.filled as u64;
        match self.filled {
            0 => Read::Nothing,
            pages => Read::Pages(pages),
        }
    }

    #[cold]
    fn grow(&mut self) -> Result<(), ReadError> {
        let (len, most) = (self.buffer.len(), self.most);
        let larger = len.saturating_mul(2).min(most);
        let more = self.buffer.try_reserve_exact(larger - len);
        more.map_err(|_| ReadError::NoMemory(len))?;
        self.buffer.resize(larger, RawFault::default());
        Ok(())
    }

    /// The next group of the last read; `None`: read again.
    ///
    /// # Errors
    /// [`Malformed`]: the pages are gone, and answered if that can be. The next call goes on
    /// behind them.
    #[inline]
    pub fn next_group(&mut self) -> Option<Result<FaultGroup<'_>, Malformed>> {
        let at = self.next;
        if at >= self.filled {
            return None;
        }
        if !self.buffer.get(at).is_some_and(group::is_whole) {
            return self.next_of_many();
        }
        let page = self.buffer.get(at)?;
        self.next += 1;
        self.counts.unnamed_bits += u64::from(page.has_unnamed_bits());
        self.counts.groups += 1;
        Some(Ok(FaultGroup::of(page)))
    }

    /// The next group, which has several pages or is none.
    #[inline(never)]
    fn next_of_many(&mut self) -> Option<Result<FaultGroup<'_>, Malformed>> {
        let read = &self.buffer[self.next..self.filled];
        let first = group::first(read)?;
        self.next += first.pages;
        self.counts.unnamed_bits += first.unnamed_bits;
        let pages = &read[..first.pages];
        if first.sound
            && let Some(group) = FaultGroup::new(pages)
        {
            self.counts.groups += 1;
            return Some(Ok(group));
        }
        self.counts.malformed += pages.len() as u64;
        let malformed = Malformed::new(pages);
        self.batch
            .push(RawAnswer::new(malformed.cookie, Response::Invalid));
        Some(Err(malformed))
    }

    /// Puts the answer to the group of `cookie` into the batch that [`flush`](Self::flush) writes.
    /// FAILURE cannot be said, and becomes INVALID.
    #[inline]
    pub fn answer(&mut self, cookie: u32, response: Response) {
        self.batch.push(RawAnswer::new(cookie, response));
    }

    /// Answers that are not written.
    pub fn unwritten(&self) -> usize {
        self.batch.len()
    }

    /// Writes all answers: in one call, if the file refuses none.
    ///
    /// # Errors
    /// [`WriteError`]; what was not written is kept, in order.
    #[inline]
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let all = self.batch.as_bytes();
        let said = self.file.write(all);
        if said == Ok(all.len()) {
            self.counts.answered += self.batch.len() as u64;
            self.batch.clear();
            return Ok(());
        }
        self.flush_rest(said)
    }

    /// Goes on after a write that did not take all.
    #[cold]
    fn flush_rest(&mut self, said: Result<usize, Errno>) -> Result<(), WriteError> {
        let mut done = 0;
        let result = self.write_from(&mut done, said);
        self.batch.drain(..done);
        result
    }

    fn write_from(
        &mut self,
        done: &mut usize,
        mut said: Result<usize, Errno>,
    ) -> Result<(), WriteError> {
        const RECORD: usize = size_of::<RawAnswer>();
        let mut interrupted = 0;
        loop {
            let left = self.batch[*done..].as_bytes();
            match said {
                Ok(bytes) if bytes > 0 && bytes % RECORD == 0 && bytes <= left.len() => {
                    interrupted = 0;
                    *done += bytes / RECORD;
                    self.counts.answered += (bytes / RECORD) as u64;
                }
                // What a file did with part of a record cannot be known: it is not written again.
                Ok(bytes) => {
                    *done += bytes.min(left.len()).div_ceil(RECORD);
                    return Err(WriteError::NotRecords);
                }
                // Nothing waits under this cookie; the codes are ones that the kernel takes.
                Err(Errno::INVAL) => {
                    interrupted = 0;
                    *done += 1;
                    self.counts.stale += 1;
                }
                Err(Errno::INTR) if interrupted < INTERRUPTED => interrupted += 1,
                Err(Errno::SPIPE) => return Err(WriteError::NotRecords),
                Err(error) => return Err(WriteError::Io(error)),
            }
            if *done == self.batch.len() {
                return Ok(());
            }
            said = self.file.write(self.batch[*done..].as_bytes());
        }
    }

    /// Drops the answers that are not written; how many there were. For a file that takes no more.
    pub fn discard_unwritten(&mut self) -> usize {
        let left = self.batch.len();
        self.batch.clear();
        left
    }
}

#[cfg(test)]
mod tests;
