//! The jobs of a device and where each of them stands. No IOMMU, no memory, no lock, no clock.

mod stalled;
mod switches;

use crate::groups::{Groups, Outstanding};
use crate::job::{Completion, GroupAnswer, Job, JobId, Refused, Stats, Status};
use crate::stalls::Stalls;
use iopf::{Access, GroupIndex, Iova, Pasid, Response};
use stalled::Stalled;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Group reports kept for a caller that does not collect them.
const MAX_ANSWERS: usize = 4096;

/// Bounds that the queue enforces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) jobs: usize,
    pub(crate) max_len: u32,
    pub(crate) allocation: u32,
    pub(crate) by_pasid: bool,
    pub(crate) timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) backoff: Duration,
}

/// A job under way.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: JobId,
    pub(crate) job: Job,
    pub(crate) done: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) pages_requested: u32,
    /// Groups answered since the last byte moved.
    pub(crate) attempts: u32,
    /// Pages of the last group that was answered Invalid.
    pub(crate) refused: Vec<(Iova, Access)>,
    /// The access that the job fails with, if it does.
    pub(crate) failed: Option<(Iova, Access)>,
    /// Accesses since the last byte moved that were held and are to be left out: of a copy, either side.
    pub(crate) ignored: Vec<(Iova, Access)>,
    not_before: Duration,
}

/// What a job waits for.
#[derive(Debug)]
struct Waiting {
    active: Active,
    at: Iova,
    pages: Vec<(Iova, Access)>,
}

/// An answered group, with the job that goes back to the ready list, if it was a job's.
#[derive(Debug)]
struct Answered {
    waiting: Option<Waiting>,
    group: GroupIndex,
    open: Outstanding,
    response: Option<Response>,
    at_once: bool,
}

/// The pages that a job misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) pages: Vec<(Iova, Access)>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    next_id: u64,
    in_use: usize,
    ready: VecDeque<Active>,
    starved: VecDeque<Active>,
    running: BTreeMap<JobId, (Option<Pasid>, bool)>,
    waiting: BTreeMap<u32, Waiting>,
    answered: VecDeque<Answered>,
    aborted: BTreeSet<u32>,
    groups: Groups,
    stalls: Stalls<Stalled>,
    enabled: bool,
    done: VecDeque<Completion>,
    answers: VecDeque<GroupAnswer>,
    pub(crate) stats: Stats,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next_id: 0,
            in_use: 0,
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            answered: VecDeque::new(),
            aborted: BTreeSet::new(),
            groups: Groups::new(limits.allocation, limits.by_pasid),
            stalls: Stalls::new(),
            enabled: limits.allocation > 0,
            done: VecDeque::new(),
            answers: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    pub(crate) fn handle_submit(&mut self, job: Job) -> Result<JobId, Refused> {
        job.check(self.limits.max_len)?;
        if self.in_use >= self.limits.jobs {
            return Err(Refused::Full(self.limits.jobs));
        }
        let id = JobId(self.next_id);
        self.next_id += 1;
        self.in_use += 1;
        self.ready.push_back(Active {
            id,
            job,
            done: 0,
            data: Vec::new(),
            pages_requested: 0,
            attempts: 0,
            refused: Vec::new(),
            failed: None,
            ignored: Vec::new(),
            not_before: Duration::ZERO,
        });
        Ok(id)
    }

    /// Takes the next job that may run.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Active> {
        self.settle(now);
        let i = self.ready.iter().position(|a| a.not_before <= now)?;
        let active = self.ready.remove(i)?;
        self.running.insert(active.id, (active.job.pasid, false));
        Some(active)
    }

    /// Puts a job back that has more to do.
    pub(crate) fn put_back(&mut self, active: Active) {
        if self.stopped(active.id) {
            self.finish(active, Status::Aborted);
        } else {
            self.ready.push_back(active);
        }
    }

    fn stopped(&mut self, id: JobId) -> bool {
        self.running.remove(&id).is_some_and(|(_, aborted)| aborted)
    }

    /// Ends a job.
    pub(crate) fn finish(&mut self, active: Active, status: Status) {
        let aborted = self.stopped(active.id);
        let status = if aborted && status != Status::Done {
            Status::Aborted
        } else {
            status
        };
        self.done.push_back(Completion {
            id: active.id,
            pasid: active.job.pasid,
            status,
            moved: active.done,
            data: active.data,
            failed: active.failed,
            pages_requested: active.pages_requested,
        });
    }

    pub(crate) fn credits(&self) -> u32 {
        self.groups.credits()
    }

    /// Parks a job until its pages are there; what comes back is to be sent, in order.
    pub(crate) fn park(
        &mut self,
        mut active: Active,
        missing: &Missing,
        now: Duration,
    ) -> Option<(GroupIndex, Vec<(Iova, Access)>)> {
        let Some(&first) = missing.pages.first() else {
            self.put_back(active);
            return None;
        };
        if self.stopped(active.id) {
            self.finish(active, Status::Aborted);
            return None;
        }
        let at = first.0;
        active.failed = Some(first);
        if !self.enabled {
            self.finish(active, Status::NoTranslation(at));
            return None;
        }
        if active.attempts > self.limits.attempts {
            self.finish(active, Status::NoProgress(at));
            return None;
        }
        let credits = usize::try_from(self.groups.credits()).unwrap_or(usize::MAX);
        let mut pages = missing.pages.clone();
        pages.truncate(credits);
        let count = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let group = self.groups.open(Outstanding {
            pasid: active.job.pasid,
            pages: count,
            sent: now,
            deadline: now.saturating_add(self.limits.timeout),
        });
        let Some(group) = group else {
            if self.groups.exhausted() {
                self.finish(active, Status::NoAnswer(at));
            } else {
                self.starved.push_back(active);
            }
            return None;
        };
        active.pages_requested = active.pages_requested.saturating_add(count);
        self.stats.groups += 1;
        self.stats.pages_requested += u64::from(count);
        let waiting = Waiting {
            active,
            at,
            pages: pages.clone(),
        };
        self.waiting.insert(group.0, waiting);
        Some((group, pages))
    }

    /// Takes an answer; false when it answers no outstanding group.
    pub(crate) fn handle_response(
        &mut self,
        pasid: Option<Pasid>,
        group: GroupIndex,
        response: Response,
        at_once: bool,
    ) -> bool {
        let Some(open) = self.groups.answer(pasid, group) else {
            if self.groups.late(pasid, group) {
                self.stats.late_responses += 1;
            } else {
                self.stats.unexpected_responses += 1;
            }
            return false;
        };
        let slot = match response {
            Response::Success => 0,
            Response::Invalid => 1,
            Response::Failure => 2,
        };
        self.stats.answered[slot] += 1;
        if response == Response::Failure {
            self.enabled = false;
        }
        self.answered.push_back(Answered {
            waiting: self.waiting.remove(&group.0),
            group,
            open,
            response: Some(response),
            at_once,
        });
        true
    }

    /// Gives up groups whose deadline has passed, and lets answered jobs go on.
    fn settle(&mut self, now: Duration) {
        while let Some((group, open)) = self.groups.expire(now) {
            self.stats.unanswered += 1;
            self.answered.push_back(Answered {
                waiting: self.waiting.remove(&group.0),
                group,
                open,
                response: None,
                at_once: false,
            });
        }
        while let Some(answered) = self.answered.pop_front() {
            self.resume(answered, now);
        }
        // Without a group under way nothing would ever wake them: `park` tells them so.
        if self.groups.credits() > 0 || self.groups.exhausted() {
            self.ready.append(&mut self.starved);
        }
    }

    fn resume(&mut self, answered: Answered, now: Duration) {
        let Answered {
            waiting,
            group,
            open,
            response,
            at_once,
        } = answered;
        self.report(GroupAnswer {
            pasid: open.pasid,
            group,
            pages: open.pages,
            response,
            at_once,
            waited: now.saturating_sub(open.sent),
        });
        let aborted = self.aborted.remove(&group.0);
        let Some(Waiting {
            mut active,
            at,
            pages,
        }) = waiting
        else {
            return;
        };
        match response {
            _ if aborted => self.finish(active, Status::Aborted),
            Some(Response::Success) => {
                // The first retry is at once; a queue that was full needs time to drain.
                let doublings = active.attempts.min(10);
                active.not_before = if active.attempts == 0 {
                    now
                } else {
                    now.saturating_add(self.limits.backoff.saturating_mul(1 << doublings))
                };
                active.attempts += 1;
                self.ready.push_back(active);
            }
            Some(Response::Invalid) => {
                // One answer for the whole group: the retry finds out which page it was about.
                active.refused = pages;
                active.not_before = now;
                active.attempts += 1;
                self.ready.push_back(active);
            }
            Some(Response::Failure) => self.finish(active, Status::Failure(at)),
            None => self.finish(active, Status::NoAnswer(at)),
        }
    }

    pub(crate) fn outstanding(&self, pasid: Option<Pasid>) -> usize {
        self.groups.of(pasid)
    }

    pub(crate) fn pri_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn poll_completion(&mut self) -> Option<Completion> {
        let completion = self.done.pop_front()?;
        self.in_use -= 1;
        Some(completion)
    }

    /// Keeps a group's report for whoever collects it.
    fn report(&mut self, answer: GroupAnswer) {
        if self.answers.len() >= MAX_ANSWERS {
            self.answers.pop_front();
            self.stats.answers_lost += 1;
        }
        self.answers.push_back(answer);
    }

    pub(crate) fn poll_answer(&mut self) -> Option<GroupAnswer> {
        self.answers.pop_front()
    }

    /// When [`Queue::take`] has something to do without a new event.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        if !self.answered.is_empty() {
            return Some(Duration::ZERO);
        }
        let ready = self.ready.iter().map(|a| a.not_before).min();
        [ready, self.groups.deadline()].into_iter().flatten().min()
    }

    /// Jobs not yet ended.
    pub(crate) fn pending(&self) -> usize {
        self.in_use - self.done.len()
    }
}
