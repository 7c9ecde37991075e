//! The engine played from a list of typed steps against a fake clock, with a book-keeper beside it.
//!
//! The transcript is text, one line an effect. The book-keeper knows the engine only from outside
//! and checks its promises after every step. The same steps come from tests, from proptest and,
//! four bytes each, from a fuzzer.

mod play;

pub(crate) use play::Play;
#[cfg(test)]
pub(crate) use play::play;

use crate::Response;
use crate::engine::Verdict;

/// What an attachment can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Everything,
    Nested,
    Nothing,
}

/// One thing that happens. Devices, PASIDs and groups are small numbers; a handle is named by the
/// how-manieth it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A device comes, with credits and share.
    Add(u32, u32, u16),
    /// A device comes whose guest keeps the PASID table, behind a wire without FAILURE.
    AddNested(u32),
    Remove(u32),
    /// Device, PASID, domain.
    Attach(u32, Option<u32>, u32, Takes),
    Replace(u32, Option<u32>, u32, Takes),
    Detach(u32, Option<u32>),
    /// Device, PASID, group, address.
    Page(u32, Option<u32>, u32, u64),
    Last(u32, Option<u32>, u32, u64),
    /// A whole group: device, PASID of the last page, PASID of every third page before it, how
    /// many pages in all, less 1.
    Group(u32, Option<u32>, Option<u32>, u32),
    /// The same, decided at once if nothing else is to be delivered first: by an answer, or later.
    Resolve(u32, Option<u32>, Option<u32>, u32, Option<Response>),
    /// An unrecoverable fault: device, PASID.
    Stray(u32, Option<u32>),
    /// Faults lost before they were reported.
    Lost(u32, u64),
    /// One delivery.
    Deliver,
    Answer(usize, Response),
    Refuse(usize),
    Dequeue(usize),
    Judge(usize, Verdict),
    DiscardPartial,
    Flush(u32),
    /// Time passes, and the engine hears of it.
    Wait(u64),
}

impl Step {
    /// A step from four bytes: every four bytes are one.
    pub(crate) fn from_bytes(bytes: [u8; 4]) -> Self {
        let [op, who, what, how] = bytes;
        let device = u32::from(who & 3);
        let pasid = u32::from(who >> 4 & 3).checked_sub(1);
        let (group, addr) = (u32::from(what & 3), u64::from(how) << 12);
        let handle = usize::from(what);
        let domain = u32::from(what >> 2 & 7);
        let takes = match how & 7 {
            0 => Takes::Nothing,
            1 => Takes::Nested,
            _ => Takes::Everything,
        };
        match op & 31 {
            0 => Self::Add(device, u32::from(how & 7), u16::from(what & 3)),
            1 => Self::AddNested(device),
            2 => Self::Remove(device),
            3 | 4 => Self::Attach(device, pasid, domain, takes),
            5 => Self::Replace(device, pasid, domain, takes),
            6 => Self::Detach(device, pasid),
            7..=12 => Self::Page(device, pasid, group, addr),
            13..=16 => Self::Last(device, pasid, group, addr),
            17 => {
                let other = u32::from(who >> 6).checked_sub(1);
                let before = u32::from(how & 7);
                match how >> 3 & 7 {
                    0..=2 => Self::Group(device, pasid, other, before),
                    3..=4 => Self::Resolve(device, pasid, other, before, None),
                    5 => Self::Resolve(device, pasid, other, before, Some(Response::Failure)),
                    _ => Self::Resolve(device, pasid, other, before, Some(Response::Success)),
                }
            }
            18 => Self::Stray(device, pasid),
            19 => Self::Lost(device, u64::from(how)),
            20..=23 => Self::Deliver,
            24 | 25 => Self::Answer(
                handle,
                match how % 3 {
                    0 => Response::Success,
                    1 => Response::Invalid,
                    _ => Response::Failure,
                },
            ),
            26 => Self::Refuse(handle),
            27 => Self::Dequeue(handle),
            28 => Self::Judge(
                handle,
                match how % 3 {
                    0 => Verdict::Logged,
                    1 => Verdict::Vanished,
                    _ => Verdict::Recovered,
                },
            ),
            29 if how == 0 => Self::DiscardPartial,
            29 => Self::Flush(device),
            _ => Self::Wait(u64::from(how) * 16),
        }
    }
}
