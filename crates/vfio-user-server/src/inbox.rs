//! A byte stream with descriptors beside it, cut into messages. No I/O.

use crate::codec::{HEADER_SIZE, Header, HeaderError, Limits, RawHeader};
use std::collections::VecDeque;
use zerocopy::FromBytes;

/// Bytes that are asked for at a time while messages are small.
const CHUNK: usize = 16 << 10;

/// Cuts a stream into messages. `F` is what a descriptor is: owned ones in a server, anything in a
/// test.
///
/// Promised: memory stays below the longest message plus one chunk; at most
/// [`Limits::max_fds`] descriptors are kept for a message.
#[derive(Debug)]
pub struct Inbox<F> {
    limits: Limits,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How far into the stream `start` is.
    position: u64,
    /// Descriptors, with the place in the stream where their message begins.
    descriptors: VecDeque<(u64, Vec<F>)>,
}

/// One message.
#[derive(Debug)]
pub struct Incoming<'a, F> {
    /// Its header; `size` is what `payload` holds and 16.
    pub header: Header,
    /// What follows the header.
    pub payload: &'a [u8],
    /// The descriptors that came with it.
    pub descriptors: Vec<F>,
}

/// A message came with more descriptors than were agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDescriptors;

impl<F> Inbox<F> {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: vec![0; CHUNK],
            start: 0,
            end: 0,
            position: 0,
            descriptors: VecDeque::new(),
        }
    }

    /// Where the next bytes of the stream go: never empty, and room for the rest of the message
    /// that has begun. Call it when [`next`](Self::next) gave `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let need = match self.header_at(self.start) {
            Some(Ok(header)) => header.size as usize,
            _ => HEADER_SIZE,
        };
        if self.start > 0 && self.start + need.max(CHUNK / 4) > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if need > self.bytes.len() {
            self.bytes.resize(need, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Says how many bytes were put into [`space`](Self::space), and which descriptors came with
    /// them.
    ///
    /// A Unix socket hands descriptors out with the write that sent them, and never more than one
    /// such write at a time, so they belong to the last message that has a byte here. A peer that
    /// puts several messages into one write and means the descriptors for an earlier one is
    /// misunderstood, and refused.
    ///
    /// # Errors
    /// When that message has more of them than the limit; the stream is of no further use.
    pub fn filled(
        &mut self,
        len: usize,
        descriptors: impl IntoIterator<Item = F>,
    ) -> Result<(), TooManyDescriptors> {
        self.end = self.bytes.len().min(self.end + len);
        let mut descriptors = descriptors.into_iter().peekable();
        if descriptors.peek().is_none() {
            return Ok(());
        }
        let owner = self.last_message();
        let limit = usize::from(self.limits.max_fds);
        let list = match self.descriptors.back_mut() {
            Some((place, list)) if *place == owner => list,
            _ => &mut self.descriptors.push_back_mut((owner, Vec::new())).1,
        };
        list.extend(descriptors.by_ref().take(limit - list.len().min(limit)));
        match descriptors.next() {
            Some(_) => Err(TooManyDescriptors),
            None => Ok(()),
        }
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// When its header leaves no way to go on.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator can't lend its items"
    )]
    pub fn next(&mut self) -> Result<Option<Incoming<'_, F>>, HeaderError> {
        let header = match self.header_at(self.start) {
            None => return Ok(None),
            Some(header) => header?,
        };
        let size = header.size as usize;
        if self.end - self.start < size {
            return Ok(None);
        }
        let descriptors = match self.descriptors.front() {
            Some((place, _)) if *place == self.position => self.descriptors.pop_front(),
            _ => None,
        };
        let payload = &self.bytes[self.start + HEADER_SIZE..self.start + size];
        self.start += size;
        self.position += size as u64;
        Ok(Some(Incoming {
            header,
            payload,
            descriptors: descriptors.map_or_else(Vec::new, |(_, list)| list),
        }))
    }

    /// Bytes of a message that has begun and is not all there.
    #[must_use]
    pub fn rest(&self) -> usize {
        self.end - self.start
    }

    fn header_at(&self, at: usize) -> Option<Result<Header, HeaderError>> {
        let bytes = self.bytes.get(at..self.end)?;
        let (raw, _) = RawHeader::ref_from_prefix(bytes).ok()?;
        Some(Header::decode(raw, &self.limits))
    }

    /// Where in the stream the last message begins that has a byte here.
    fn last_message(&self) -> u64 {
        let mut at = self.start;
        while let Some(Ok(header)) = self.header_at(at)
            && at + (header.size as usize) < self.end
        {
            at += header.size as usize;
        }
        self.position + (at - self.start) as u64
    }
}

#[cfg(test)]
mod tests;
