//! Records of a vEVENTQ, and what their numbers say. No file is involved.

use super::VeventqKind;
use iommufd_bindings::iommu_veventq_flag_IOMMU_VEVENTQ_FLAG_LOST_EVENTS as LOST;
use thiserror::Error;

/// Bytes of `struct iommufd_vevent_header`: flags and sequence number, four each.
pub(super) const HEADER: usize = 8;

/// Sequence numbers have 31 bits.
const MASK: u32 = 0x7fff_ffff;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An event.
    Event {
        /// Its number, 0 to 2^31 - 1.
        sequence: u32,
        /// Events lost between the last record and this one.
        lost: u32,
        /// The header's flags: 0, unless a later kernel has more.
        flags: u32,
        /// The event, as its kind has it.
        data: &'a [u8],
    },
    /// Events were lost, and none has come after them.
    Lost {
        /// The number of the last that was lost.
        sequence: u32,
        /// Events lost since the last record, that one included.
        lost: u32,
        /// The header's flags: bit 0, and others of later kernels.
        flags: u32,
    },
}

/// Bytes that are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The end of what was read is inside a record. It is skipped.
    #[error("a record of {need} bytes ends after {have}")]
    Truncated {
        /// Bytes that are there.
        have: usize,
        /// Bytes of the record, or of its header where that is not there.
        need: usize,
    },
    /// An event has the number of the one before it. It is skipped.
    #[error("event number {sequence} came twice")]
    Repeated {
        /// The number.
        sequence: u32,
    },
}

/// What came and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that were decoded.
    pub events: u64,
    /// Events that the kernel lost, or that were in a truncated record.
    pub lost: u64,
    /// Records that were skipped.
    pub malformed: u64,
}

/// Reads records and keeps account of their numbers.
///
/// Whatever bytes it is given: each call takes at least one of them or gives `None`; and the events
/// decoded and lost, with those of repeated numbers left out, are as many as the last number says,
/// modulo 2^31.
#[derive(Clone, Debug)]
pub struct Decoder {
    payload: usize,
    /// The number that the next record has if nothing was lost.
    expected: u32,
    counts: Counts,
}

impl Decoder {
    /// For a new queue, the first number of which is 0.
    #[must_use]
    pub const fn new(kind: VeventqKind) -> Self {
        Self {
            payload: kind.payload(),
            expected: 0,
            counts: Counts {
                events: 0,
                lost: 0,
                malformed: 0,
            },
        }
    }

    /// What came and what did not, so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes one record from the front of what one read gave, or `None` where that is used up.
    ///
    /// # Errors
    /// [`Malformed`]; the record is skipped.
    pub fn decode<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Result<Record<'a>, Malformed>> {
        if bytes.is_empty() {
            return None;
        }
        let record = self.record(bytes);
        if record.is_err() {
            self.counts.malformed += 1;
        }
        Some(record)
    }

    fn record<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Record<'a>, Malformed> {
        let have = bytes.len();
        let truncated = |need| Malformed::Truncated { have, need };
        // What follows a record that is cut off is nothing.
        let all = std::mem::take(bytes);
        let (header, rest) = all
            .split_first_chunk::<HEADER>()
            .ok_or_else(|| truncated(HEADER))?;
        let [flags, sequence] = words(*header);
        let sequence = sequence & MASK;
        let gap = sequence.wrapping_sub(self.expected) & MASK;
        if flags & LOST != 0 {
            *bytes = rest;
            // A header that only repeats the last number tells of nothing new.
            let lost = (gap + 1) & MASK;
            self.expected = (sequence + 1) & MASK;
            self.counts.lost += u64::from(lost);
            return Ok(Record::Lost {
                sequence,
                lost,
                flags,
            });
        }
        let (data, rest) = rest
            .split_at_checked(self.payload)
            .ok_or_else(|| truncated(HEADER + self.payload))?;
        *bytes = rest;
        if gap == MASK {
            return Err(Malformed::Repeated { sequence });
        }
        self.expected = (sequence + 1) & MASK;
        self.counts.lost += u64::from(gap);
        self.counts.events += 1;
        Ok(Record::Event {
            sequence,
            lost: gap,
            flags,
            data,
        })
    }
}

/// Flags and sequence number.
fn words(header: [u8; HEADER]) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = header;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ]
}
