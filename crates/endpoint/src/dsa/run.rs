//! What an engine works on: one descriptor, or a batch of them one after the other.

use super::check::Rules;
use super::descriptor::{RawDescriptor, flag};
use super::error::{Origin, SoftwareError};
use super::record::{Outcome, Status};
use super::task::{Ended, Next, Path, Task, failure};
use crate::job::{Completion, Job, OnFault, Op};
use iopf::Iova;
use std::collections::VecDeque;

/// Descriptors of a list that are read at a time.
const FETCH: u32 = 64;

/// What an engine has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Run a job; then [`Run::resume`].
    Job(Job),
    /// Wait until nothing older of this work queue is left; then [`Run::drained`].
    Drain,
    /// It is over.
    Idle,
}

/// What comes out on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Error(SoftwareError),
    /// Raise this interrupt handle.
    Interrupt(u16),
}

/// A descriptor from its work queue, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Its place in the order of submission.
    pub(super) sequence: u64,
    pub(super) wq: u8,
    pub(super) path: Path,
    rules: Rules,
    top: Task,
    batch: Option<Batch>,
}

#[derive(Clone, Debug)]
struct Batch {
    list: Iova,
    count: u32,
    /// Descriptors that ended.
    ended: u32,
    fetched: VecDeque<RawDescriptor>,
    inner: Option<Task>,
    failed: bool,
}

impl Run {
    /// Begins a descriptor.
    pub(super) fn start(
        raw: &RawDescriptor,
        (sequence, wq): (u64, u8),
        path: Path,
        rules: Rules,
        reports: &mut Vec<Report>,
    ) -> (Self, Act) {
        let (top, next) = Task::start(raw, false, path, &rules);
        let mut run = Self {
            sequence,
            wq,
            path,
            rules,
            top,
            batch: None,
        };
        let act = run.top_next(next, reports);
        (run, act)
    }

    /// Abandons what is left at the next opportunity.
    pub(super) fn abandon(&mut self) {
        self.top.abandoned = true;
        if let Some(inner) = self.batch.as_mut().and_then(|batch| batch.inner.as_mut()) {
            inner.abandoned = true;
        }
    }

    /// The job of [`Act::Job`] is over.
    pub(super) fn resume(&mut self, completion: Completion, reports: &mut Vec<Report>) -> Act {
        let Some(batch) = &mut self.batch else {
            let next = self.top.resume(completion);
            return self.top_next(next, reports);
        };
        if let Some(inner) = &mut batch.inner {
            let next = inner.resume(completion);
            return self.inner_next(next, reports);
        }
        self.take_list(&completion, reports)
    }

    /// What [`Act::Drain`] asked for has come.
    pub(super) fn drained(&mut self, reports: &mut Vec<Report>) -> Act {
        let next = self.top.finish(Outcome::of(Status::SUCCESS));
        self.top_next(next, reports)
    }

    fn origin(&self, task: &Task, batch_index: Option<u32>) -> Origin {
        Origin {
            operation: task.operation,
            pasid: self.path.pasid,
            privileged: self.path.privileged,
            batch_index: batch_index.map(|index| u16::try_from(index).unwrap_or(u16::MAX)),
        }
    }

    fn tell(&self, task: &Task, index: Option<u32>, ended: &Ended, reports: &mut Vec<Report>) {
        let interrupt = ended.interrupt.map(Report::Interrupt);
        let error = ended.error.map(|outcome| {
            let origin = self.origin(task, index);
            Report::Error(SoftwareError::of_descriptor(self.wq, &origin, &outcome))
        });
        reports.extend([error, interrupt].into_iter().flatten());
    }

    fn top_next(&mut self, next: Next, reports: &mut Vec<Report>) -> Act {
        match next {
            Next::Job(job) => Act::Job(job),
            Next::Drain => Act::Drain,
            Next::Batch { list, count } => {
                self.batch = Some(Batch {
                    list,
                    count,
                    ended: 0,
                    fetched: VecDeque::new(),
                    inner: None,
                    failed: false,
                });
                self.next_of_batch(reports)
            }
            Next::Ended(ended) => {
                self.tell(&self.top, None, &ended, reports);
                Act::Idle
            }
        }
    }

    /// Goes on with what the descriptor under way in the batch asks for.
    fn inner_next(&mut self, mut next: Next, reports: &mut Vec<Report>) -> Act {
        loop {
            let ended = match next {
                Next::Job(job) => return Act::Job(job),
                // Neither is let into a batch by its checks.
                Next::Drain | Next::Batch { .. } => Ended {
                    outcome: Some(Outcome::of(Status::OPERATION)),
                    error: None,
                    interrupt: None,
                },
                Next::Ended(ended) => ended,
            };
            match self.inner_ended(&ended, reports) {
                Ok(more) => next = more,
                Err(act) => return act,
            }
        }
    }

    /// Notes the end of a descriptor of the batch, and begins the next one.
    fn inner_ended(&mut self, ended: &Ended, reports: &mut Vec<Report>) -> Result<Next, Act> {
        let task = self.batch.as_mut().and_then(|batch| batch.inner.take());
        let index = self.batch.as_ref().map(|batch| batch.ended);
        if let Some(task) = &task {
            self.tell(task, index, ended, reports);
        }
        if let Some(batch) = &mut self.batch {
            batch.ended += 1;
            batch.failed |= ended.outcome.map(|o| o.status) != Some(Status::SUCCESS);
        }
        self.begin_inner(reports)
    }

    /// Begins the next descriptor of the batch, and those that end at once.
    fn next_of_batch(&mut self, reports: &mut Vec<Report>) -> Act {
        match self.begin_inner(reports) {
            Ok(next) => self.inner_next(next, reports),
            Err(act) => act,
        }
    }

    /// What the next descriptor of the batch needs, or, without one at hand, what the batch needs.
    fn begin_inner(&mut self, reports: &mut Vec<Report>) -> Result<Next, Act> {
        let (path, rules, abandoned) = (self.path, self.rules, self.top.abandoned);
        let Some(batch) = &mut self.batch else {
            return Err(Act::Idle);
        };
        if abandoned || batch.ended >= batch.count {
            return Err(self.end_batch(None, reports));
        }
        let Some(raw) = batch.fetched.pop_front() else {
            return Err(Act::Job(batch.fetch(&path)));
        };
        if batch.failed && raw.head().flags() & flag::FENCE != 0 {
            return Err(self.end_batch(None, reports));
        }
        let (task, next) = Task::start(&raw, true, path, &rules);
        batch.inner = Some(task);
        Ok(next)
    }

    /// A part of the descriptor list was read, or could not be.
    fn take_list(&mut self, completion: &Completion, reports: &mut Vec<Report>) -> Act {
        let failure = failure(completion).map(|outcome| match outcome.status.code() {
            Status::PAGE_FAULT | Status::PAGE_REFUSED => Outcome {
                status: Status::LIST_FAULT,
                ..outcome
            },
            _ => outcome,
        });
        if let Some(batch) = &mut self.batch {
            let (descriptors, _) = completion.data.as_chunks::<{ RawDescriptor::SIZE }>();
            batch
                .fetched
                .extend(descriptors.iter().map(RawDescriptor::from_bytes));
            // What was read before a failure is done first; the next read meets the failure again.
            if batch.fetched.is_empty() {
                return self.end_batch(failure, reports);
            }
        }
        self.next_of_batch(reports)
    }

    fn end_batch(&mut self, failure: Option<Outcome>, reports: &mut Vec<Report>) -> Act {
        let Some(batch) = self.batch.take() else {
            return Act::Idle;
        };
        let status = match failure {
            Some(outcome) => outcome.status,
            None if batch.failed => Status::BATCH_FAILED,
            None => Status::SUCCESS,
        };
        let next = self.top.finish(Outcome {
            status,
            completed: batch.ended,
            fault: failure.map_or(0, |outcome| outcome.fault),
            ..Outcome::of(status)
        });
        self.top_next(next, reports)
    }
}

impl Batch {
    /// Reads the next part of the list; its pages are always waited for.
    fn fetch(&self, path: &Path) -> Job {
        let size = RawDescriptor::SIZE as u64;
        let len = (self.count - self.ended).min(FETCH) * RawDescriptor::SIZE_U32;
        let op = Op::Read {
            from: Iova(self.list.0.wrapping_add(u64::from(self.ended) * size)),
            len,
        };
        path.job(op, OnFault::Request)
    }
}
