//! One descriptor under way, from its checks to its completion record. No device, no memory: what
//! to do next comes out as [`Next`], and its completion goes back in.

use super::CHUNK;
use super::check::{Checked, Notice, Rules, Work, check};
use super::compare::Comparison;
use super::descriptor::{Operation, RawDescriptor};
use super::record::{Outcome, RawRecord, Status};
use crate::job::{Completion, Job, OnFault, Op, Status as JobStatus, Via};
use iopf::{Iova, Pasid};
use zerocopy::IntoBytes;

/// How a work queue reaches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) pasid: Option<Pasid>,
    pub(super) privileged: bool,
    pub(super) via: Via,
}

impl Path {
    pub(super) fn job(&self, op: Op, on_fault: OnFault) -> Job {
        Job {
            privileged: self.privileged,
            via: self.via,
            on_fault,
            ..Job::new(self.pasid, op)
        }
    }
}

/// What a descriptor needs to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Run this; then [`Task::resume`].
    Job(Job),
    /// Wait for the descriptors before it; then [`Task::finish`].
    Drain,
    /// Run this many descriptors from here; then [`Task::finish`].
    Batch { list: Iova, count: u32 },
    /// It is over.
    Ended(Ended),
}

/// How a descriptor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// `None`: it was abandoned.
    pub(super) outcome: Option<Outcome>,
    /// Goes into the software error register.
    pub(super) error: Option<Outcome>,
    pub(super) interrupt: Option<u16>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Getting the translation of the record's address.
    Record,
    Moving {
        from: Iova,
        to: Iova,
        len: u32,
    },
    Filling {
        to: Iova,
        len: u32,
        pattern: [u8; 8],
    },
    Comparing(Comparison),
    /// Waiting for what [`Next`] asked for.
    Outside,
    /// Storing the record except for its status.
    Body(Outcome),
    /// Storing the status, which tells software that the rest is there.
    Status(Outcome),
}

/// A descriptor under way.
#[derive(Clone, Debug)]
pub(super) struct Task {
    path: Path,
    pub(super) operation: Operation,
    notice: Notice,
    block: bool,
    work: Result<Work, Outcome>,
    phase: Phase,
    done: u32,
    /// Abandons the rest at the next opportunity.
    pub(super) abandoned: bool,
}

impl Task {
    /// Begins a descriptor.
    pub(super) fn start(
        raw: &RawDescriptor,
        in_batch: bool,
        path: Path,
        rules: &Rules,
    ) -> (Self, Next) {
        let Checked {
            notice,
            block,
            work,
        } = check(raw, in_batch, rules);
        let mut task = Self {
            path,
            operation: raw.operation(),
            notice,
            block,
            work,
            phase: Phase::Record,
            done: 0,
            abandoned: false,
        };
        let next = match (task.work, notice.record) {
            (Err(outcome), _) if outcome.status == Status::RECORD_ALIGNMENT => {
                task.discard(outcome)
            }
            (_, Some(at)) => task.wait(Op::Touch {
                at,
                len: RawRecord::SIZE_U32,
            }),
            (_, None) => task.begin(),
        };
        (task, next)
    }

    /// A job whose pages are always waited for.
    fn wait(&self, op: Op) -> Next {
        Next::Job(self.path.job(op, OnFault::Request))
    }

    /// A job on the descriptor's buffers.
    fn buffers(&self, op: Op) -> Next {
        let on_fault = if self.block {
            OnFault::Request
        } else {
            OnFault::Stop
        };
        Next::Job(self.path.job(op, on_fault))
    }

    /// The record is reachable, or there is none: does the work.
    fn begin(&mut self) -> Next {
        let work = match self.work {
            Ok(work) => work,
            Err(outcome) => return self.finish(outcome),
        };
        self.phase = Phase::Outside;
        match work {
            Work::Noop => return self.finish(Outcome::of(Status::SUCCESS)),
            Work::Drain => return Next::Drain,
            Work::Batch { list, count } => return Next::Batch { list, count },
            Work::Move { from, to, len } => self.phase = Phase::Moving { from, to, len },
            Work::Fill { to, len, pattern } => self.phase = Phase::Filling { to, len, pattern },
            Work::Compare {
                first,
                with,
                len,
                expected,
            } => self.phase = Phase::Comparing(Comparison::new(first, with, len, expected)),
        }
        self.go_on()
    }

    /// The next job of the work, or its end.
    fn go_on(&mut self) -> Next {
        if self.abandoned {
            return Next::Ended(Ended::ABANDONED);
        }
        let done = self.done;
        let at = |base: Iova| Iova(base.0.wrapping_add(done.into()));
        let op = match &mut self.phase {
            Phase::Moving { from, to, len } if done < *len => Op::Copy {
                from: at(*from),
                to: at(*to),
                len: (*len - done).min(CHUNK),
            },
            Phase::Filling { to, len, pattern } if done < *len => {
                let size = usize::try_from((*len - done).min(CHUNK)).unwrap_or(0);
                let data = pattern.iter().copied().cycle().take(size).collect();
                Op::Write { to: at(*to), data }
            }
            Phase::Comparing(comparison) => match comparison.next() {
                Ok(op) => op,
                Err(outcome) => return self.finish(outcome),
            },
            _ => return self.finish(Outcome::of(Status::SUCCESS)),
        };
        self.buffers(op)
    }

    /// The job that [`Next::Job`] asked for is over.
    pub(super) fn resume(&mut self, completion: Completion) -> Next {
        if completion.status == JobStatus::Aborted {
            return Next::Ended(Ended::ABANDONED);
        }
        match (&mut self.phase, failure(&completion)) {
            (Phase::Record, None) => self.begin(),
            (Phase::Record | Phase::Body(_) | Phase::Status(_), Some(outcome)) => {
                self.discard(of_record(outcome, self.notice.record))
            }
            (Phase::Comparing(comparison), failure) => {
                comparison.take(completion.data, failure);
                self.go_on()
            }
            (Phase::Body(outcome), None) => {
                let outcome = *outcome;
                self.store_status(outcome)
            }
            (Phase::Status(outcome), None) => {
                let outcome = *outcome;
                self.end(outcome)
            }
            (_, failure) => {
                let moved = u32::try_from(completion.moved).unwrap_or(u32::MAX);
                self.done = self.done.saturating_add(moved);
                match failure {
                    None => self.go_on(),
                    Some(outcome) => self.finish(Outcome {
                        completed: self.done,
                        ..outcome
                    }),
                }
            }
        }
    }

    /// The work ended like this: writes the completion record, where one is due.
    pub(super) fn finish(&mut self, outcome: Outcome) -> Next {
        if self.abandoned {
            return Next::Ended(Ended::ABANDONED);
        }
        let due = self.notice.always || !outcome.status.is_quiet();
        let Some(at) = self.notice.record.filter(|_| due) else {
            return self.end(outcome);
        };
        self.phase = Phase::Body(outcome);
        let body = outcome.encode();
        self.wait(Op::Write {
            to: Iova(at.0 + 1),
            data: body.as_bytes().iter().copied().skip(1).collect(),
        })
    }

    fn store_status(&mut self, outcome: Outcome) -> Next {
        self.phase = Phase::Status(outcome);
        self.wait(Op::Write {
            to: self.notice.record.unwrap_or_default(),
            data: vec![outcome.status.0],
        })
    }

    /// It cannot even be told: the descriptor counts as not done, and software gets an error.
    fn discard(&self, outcome: Outcome) -> Next {
        Next::Ended(Ended {
            outcome: Some(outcome),
            error: Some(outcome),
            interrupt: None,
        })
    }

    fn end(&self, outcome: Outcome) -> Next {
        let unheard = self.notice.record.is_none() && !outcome.status.is_quiet();
        let both = matches!(outcome.status, Status::HANDLE | Status::TRANSLATION_ERROR);
        Next::Ended(Ended {
            outcome: Some(outcome),
            error: (unheard || both).then_some(outcome),
            interrupt: self.notice.interrupt,
        })
    }
}

impl Ended {
    const ABANDONED: Self = Self {
        outcome: None,
        error: None,
        interrupt: None,
    };
}

/// What the end of a job means for its descriptor; `None` if it was done.
pub(super) fn failure(completion: &Completion) -> Option<Outcome> {
    let (at, access) = completion.failed.unwrap_or_default();
    let write = access.contains(iopf::Access::WRITE);
    let status = match completion.status {
        JobStatus::Done => return None,
        JobStatus::NoTranslation(_) => Status::PAGE_FAULT.with_write(write),
        JobStatus::Invalid(_) | JobStatus::NoProgress(_) => Status::PAGE_REFUSED.with_write(write),
        JobStatus::Blocked(_) | JobStatus::BusError(_) if write => Status::WRITE_ERROR,
        JobStatus::Blocked(_) | JobStatus::BusError(_) => Status::READ_ERROR,
        JobStatus::BusMasterOff | JobStatus::PasidOff | JobStatus::Aborted => Status::READ_ERROR,
        JobStatus::Failure(_)
        | JobStatus::NoAnswer(_)
        | JobStatus::UnsupportedRequest(_)
        | JobStatus::CompleterAbort(_) => Status::TRANSLATION_ERROR,
    };
    let page_fault = matches!(status.code(), Status::PAGE_FAULT | Status::PAGE_REFUSED);
    Some(Outcome {
        fault: if page_fault { at.0 } else { 0 },
        ..Outcome::of(status)
    })
}

/// The same failure, met on the way to the completion record `at`.
fn of_record(outcome: Outcome, at: Option<Iova>) -> Outcome {
    match outcome.status.code() {
        Status::PAGE_FAULT | Status::PAGE_REFUSED => Outcome {
            status: Status::RECORD_FAULT.with_write(true),
            // The record does not cross a page: it is missing as a whole.
            fault: at.map_or(0, |at| at.0),
            ..outcome
        },
        _ => outcome,
    }
}
