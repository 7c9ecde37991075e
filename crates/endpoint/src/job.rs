//! What a device is asked to do, and what became of it. Plain data.

use iopf::{Access, Gpa, GroupIndex, Iova, Pasid, Response, Rid};
use std::time::Duration;

/// One order for the DMA engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The address space, or `None` for requests without a PASID.
    pub pasid: Option<Pasid>,
    /// What to move.
    pub op: Op,
    /// Sets the privileged-mode flag on every request.
    pub privileged: bool,
    /// Reads are instruction fetches.
    pub execute: bool,
    /// How addresses reach memory.
    pub via: Via,
    /// What becomes of it where ATS has no translation.
    pub on_fault: OnFault,
    /// Rules that it breaks.
    pub broken: Broken,
}

/// Rules that a device keeps unless it, or a bridge above it, is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// Sends this requester ID in place of its own, with [`Via::Untranslated`] only.
    pub requester: Option<Rid>,
    /// Sends requests though Bus Master is off.
    pub without_bus_master: bool,
}

impl Job {
    /// A user-mode data transfer through the device TLB.
    #[must_use]
    pub fn new(pasid: Option<Pasid>, op: Op) -> Self {
        Self {
            pasid,
            op,
            privileged: false,
            execute: false,
            via: Via::Ats,
            on_fault: OnFault::Request,
            broken: Broken::default(),
        }
    }
}

/// A transfer. Lengths are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Memory to device; the bytes come back in [`Completion::data`].
    Read {
        /// First byte.
        from: Iova,
        /// How many.
        len: u32,
    },
    /// Device to memory.
    Write {
        /// First byte.
        to: Iova,
        /// What to store.
        data: Vec<u8>,
    },
    /// Memory to memory, in ascending order.
    Copy {
        /// First byte read.
        from: Iova,
        /// First byte written.
        to: Iova,
        /// How many.
        len: u32,
    },
    /// Gets the translations for a later write; memory is not touched. Does nothing where ATS is
    /// not used.
    Touch {
        /// First byte.
        at: Iova,
        /// How many.
        len: u32,
    },
}

impl Op {
    /// Bytes to move.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Read { len, .. } | Self::Copy { len, .. } | Self::Touch { len, .. } => {
                u64::from(*len)
            }
            Self::Write { data, .. } => data.len() as u64,
        }
    }

    /// Whether there is nothing to move.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a job's addresses reach memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Translated by ATS and kept in the device TLB; missing pages are requested.
    Ats,
    /// Sent as they are, for the IOMMU to translate.
    Untranslated,
    /// Sent as already translated, without asking. What a well-behaved device never does.
    Translated,
    /// Sent as they are, for the host's IOMMU to translate: [`Ports::host`](crate::Ports::host).
    Host,
}

/// What a job does where the IOMMU has no translation for it ([`Via::Ats`] only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// Requests the page and waits.
    Request,
    /// Ends with [`Status::NoTranslation`], what moved before it stays moved.
    Stop,
}

/// Names a job of one device; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Every byte moved.
    Done,
    /// The IOMMU refused a request of this address.
    Blocked(Iova),
    /// ATS has no translation, and the page request interface is off or the job does not wait.
    NoTranslation(Iova),
    /// The page request for this address was answered Invalid, and it is still missing. Pages of the
    /// same group that came all the same were used.
    Invalid(Iova),
    /// The page request for this address was answered Response Failure.
    Failure(Iova),
    /// The page request for this address was not answered in time.
    NoAnswer(Iova),
    /// Answered Success again and again, and still no translation.
    NoProgress(Iova),
    /// The translation request was answered Unsupported Request.
    UnsupportedRequest(Iova),
    /// The translation request was answered Completer Abort.
    CompleterAbort(Iova),
    /// A translated address has no memory.
    BusError(Gpa),
    /// Cancelled by [`Device::abort`](crate::Device::abort) or a reset.
    Aborted,
    /// The function may not send requests.
    BusMasterOff,
    /// The function may not use PASIDs.
    PasidOff,
}

/// A job that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which.
    pub id: JobId,
    /// The address space it used.
    pub pasid: Option<Pasid>,
    /// How it ended.
    pub status: Status,
    /// Bytes that moved before it ended.
    pub moved: u64,
    /// What an [`Op::Read`] read, `moved` bytes.
    pub data: Vec<u8>,
    /// The access that failed, unless the job was done, was cancelled or was switched off.
    pub failed: Option<(Iova, Access)>,
    /// Pages it had to request.
    pub pages_requested: u32,
}

/// A page request group that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupAnswer {
    /// The address space.
    pub pasid: Option<Pasid>,
    /// The index it had.
    pub group: GroupIndex,
    /// How many pages it asked for.
    pub pages: u32,
    /// The answer; `None` when none came in time.
    pub response: Option<Response>,
    /// The IOMMU answered by itself, in place of software.
    pub at_once: bool,
    /// From the first request to the moment the device took note of the answer.
    pub waited: Duration,
}

/// Why a job was not accepted. The device is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many jobs as [`Config::jobs`](crate::Config::jobs) are queued, running or not collected.
    #[error("all {0} job slots are in use")]
    Full(usize),
    /// The job moves no bytes.
    #[error("nothing to move")]
    Empty,
    /// The job is longer than [`Config::max_len`](crate::Config::max_len).
    #[error("{len} bytes are more than the {max} a job may move")]
    TooLong {
        /// What it asked for.
        len: u64,
        /// The limit.
        max: u32,
    },
    /// The range wraps around the end of the address space.
    #[error("{len} bytes from {at} wrap around")]
    Wraps {
        /// First byte.
        at: Iova,
        /// Length in bytes.
        len: u64,
    },
    /// No host IOMMU is there to translate for it.
    #[error("no path through the host")]
    NoHost,
}

/// What a device has done since it was made. Counts only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes moved.
    pub bytes: u64,
    /// Memory requests that the IOMMU refused, at once or after it had held them.
    pub blocked: u64,
    /// Memory requests that the IOMMU held.
    pub stalls: u64,
    /// Held requests that it let go: to be retried, aborted and ignored.
    pub resumed: [u64; 3],
    /// Translation requests sent.
    pub translation_requests: u64,
    /// Accesses served by the device TLB.
    pub atc_hits: u64,
    /// Pages requested.
    pub pages_requested: u64,
    /// Groups sent.
    pub groups: u64,
    /// Groups answered Success, Invalid and Failure.
    pub answered: [u64; 3],
    /// Groups given up after the timeout.
    pub unanswered: u64,
    /// Page requests the IOMMU dropped without an answer.
    pub dropped: u64,
    /// Responses for no outstanding group (the UPRGI status of PCIe).
    pub unexpected_responses: u64,
    /// Responses for groups that nobody waited for any more.
    pub late_responses: u64,
    /// Invalidations received.
    pub invalidations: u64,
    /// Group reports dropped because nobody collected them.
    pub answers_lost: u64,
}

/// One stretch of a job that lies within a 4 KiB page on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) from: Option<Iova>,
    pub(crate) to: Option<Iova>,
    pub(crate) len: u64,
}

impl Job {
    /// The stretch that starts `done` bytes in.
    pub(crate) fn piece(&self, done: u64) -> Piece {
        let at = |base: &Iova| Iova(base.0.wrapping_add(done));
        let (from, to) = match &self.op {
            Op::Read { from, .. } => (Some(at(from)), None),
            Op::Write { to, .. } => (None, Some(at(to))),
            Op::Copy { from, to, .. } => (Some(at(from)), Some(at(to))),
            Op::Touch { at: base, .. } => (None, Some(at(base))),
        };
        let room = |side: Option<Iova>| side.map_or(u64::MAX, |a| 4096 - (a.0 & 4095));
        let len = (self.op.len() - done).min(room(from)).min(room(to));
        Piece { from, to, len }
    }

    fn flags(&self) -> Access {
        if self.privileged {
            Access::PRIV
        } else {
            Access::empty()
        }
    }

    /// The access that reading makes.
    pub(crate) fn read_access(&self) -> Access {
        let fetch = if self.execute {
            Access::EXEC
        } else {
            Access::empty()
        };
        Access::READ | fetch | self.flags()
    }

    /// The access that writing makes.
    pub(crate) fn write_access(&self) -> Access {
        Access::WRITE | self.flags()
    }

    pub(crate) fn check(&self, max: u32) -> Result<(), Refused> {
        let len = self.op.len();
        if len == 0 {
            return Err(Refused::Empty);
        }
        if len > u64::from(max) {
            return Err(Refused::TooLong { len, max });
        }
        let Piece { from, to, .. } = self.piece(0);
        for at in [from, to].into_iter().flatten() {
            // The last byte may be the last of the address space.
            if at.checked_add(len - 1).is_none() {
                return Err(Refused::Wraps { at, len });
            }
        }
        Ok(())
    }
}
