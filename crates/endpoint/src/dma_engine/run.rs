//! An order under way, from its first repeat to its end.

use super::regs::{Order, Outcome, Path, Progress, Task};
use crate::pci::{ConfigSpace, PasidControl};
use crate::{Completion, Device, GroupAnswer, Job, JobId, Op, Status, Via};
use iopf::{Iova, Response};
use std::collections::BTreeSet;
use std::time::Duration;

/// Error codes of STATUS that are not the outcome of a job.
const REFUSED: u8 = 11;
const BUS_MASTER: u8 = 12;
const NOT_ENABLED: u8 = 13;
/// From here on an error ends the order.
const FINAL: u8 = 10;

/// Longest transfer in bytes.
const MAX_LEN: u32 = 16 << 20;

/// The error code and address of a job that did not go well.
fn failure(status: Status) -> Option<(u8, u64)> {
    match status {
        Status::Done => None,
        Status::Blocked(at) => Some((1, at.0)),
        Status::NoTranslation(at) => Some((2, at.0)),
        Status::Invalid(at) => Some((3, at.0)),
        Status::Failure(at) => Some((4, at.0)),
        Status::NoAnswer(at) => Some((5, at.0)),
        Status::NoProgress(at) => Some((6, at.0)),
        Status::UnsupportedRequest(at) => Some((7, at.0)),
        Status::CompleterAbort(at) => Some((8, at.0)),
        Status::BusError(at) => Some((9, at.0)),
        Status::Aborted => Some((FINAL, 0)),
        Status::BusMasterOff => Some((BUS_MASTER, 0)),
        Status::PasidOff => Some((NOT_ENABLED, 0)),
    }
}

/// The error code of a group that was not answered Success.
fn refusal(response: Option<Response>) -> Option<u8> {
    match response {
        Some(Response::Success) => None,
        Some(Response::Invalid) => Some(3),
        Some(Response::Failure) => Some(4),
        None => Some(5),
    }
}

/// Page requests of one repeat.
#[derive(Default)]
struct Asking {
    sent: u32,
    open: BTreeSet<u32>,
    failed: Option<(u8, u64)>,
}

/// What configuration space allows at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gates {
    bus_master: bool,
    pri: bool,
    pasid: PasidControl,
}

impl Gates {
    pub(super) fn of(config: &ConfigSpace) -> Self {
        Self {
            bus_master: config.bus_master(),
            pri: config.pri().enabled,
            pasid: config.pasid(),
        }
    }
}

/// One order.
pub(super) struct Run {
    pub(super) order: Order,
    pub(super) progress: Progress,
    /// The job of this repeat.
    pub(super) job: Option<JobId>,
    started: Duration,
    /// Repeats that are over.
    repeats: u32,
    /// Where this repeat starts.
    from: Iova,
    to: Iova,
    asking: Asking,
    /// Answers that came for nobody, before this order.
    late: Option<u64>,
}

impl Run {
    pub(super) fn new(order: Order, now: Duration) -> Self {
        Self {
            from: order.from,
            to: order.to,
            order,
            progress: Progress {
                outcome: Outcome::Busy,
                ..Progress::default()
            },
            job: None,
            started: now,
            repeats: 0,
            asking: Asking::default(),
            late: None,
        }
    }

    /// Nanoseconds since the order was taken up.
    pub(super) fn elapsed(&self, now: Duration) -> u64 {
        let nanos = now.saturating_sub(self.started).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Whether what was read is for the window.
    pub(super) fn shows_data(&self) -> bool {
        self.order.task == Some(Task::Read)
    }

    /// Gets a repeat ready, or ends the order when it may not run; returns the job to start, if it
    /// takes one.
    pub(super) fn prepare(&mut self, gates: &Gates, device: &Device) -> Option<Job> {
        match self.check(gates) {
            Ok(Task::PageRequests | Task::StopMarker) => {
                self.asking = Asking::default();
                self.late.get_or_insert(device.stats().late_responses);
                None
            }
            Ok(task) => Some(self.job(task)),
            Err(code) => {
                self.fail(code, 0);
                None
            }
        }
    }

    /// Starts the job of a repeat.
    pub(super) fn start(&mut self, device: &Device, job: Job) {
        match device.submit(job) {
            Ok(id) => self.job = Some(id),
            Err(_) => self.fail(REFUSED, 0),
        }
    }

    /// What configuration space and the order itself allow.
    fn check(&self, gates: &Gates) -> Result<Task, u8> {
        let order = &self.order;
        let task = order.task.ok_or(REFUSED)?;
        let length = match task {
            Task::PageRequests => order.len >= 0x1000 && order.len <= MAX_LEN,
            Task::StopMarker => order.pasid.is_some(),
            _ => (1..=MAX_LEN).contains(&order.len),
        };
        if !length || (order.requester.is_some() && order.path != Path::Untranslated) {
            return Err(REFUSED);
        }
        if !gates.bus_master && !order.without_bus_master {
            return Err(BUS_MASTER);
        }
        if let Some(pasid) = order.pasid {
            let control = gates.pasid;
            let modes =
                (control.execute || !order.execute) && (control.privileged || !order.privileged);
            let narrow = pasid.get() >> control.width == 0;
            if !control.enabled || !modes || !narrow {
                return Err(NOT_ENABLED);
            }
        }
        let asks = matches!(task, Task::PageRequests | Task::StopMarker);
        if asks && !gates.pri {
            return Err(NOT_ENABLED);
        }
        Ok(task)
    }

    fn job(&self, task: Task) -> Job {
        let Order { len, pattern, .. } = self.order;
        let (from, to) = (self.from, self.to);
        let repeated = |unit: &[u8]| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let mut data = unit.repeat(len.div_ceil(unit.len().max(1)));
            data.truncate(len);
            data
        };
        let op = match task {
            Task::Copy => Op::Copy { from, to, len },
            Task::Write => Op::Write {
                to,
                data: repeated(&self.order.window),
            },
            Task::Fill => Op::Write {
                to,
                data: repeated(&pattern),
            },
            _ => Op::Read { from, len },
        };
        Job {
            privileged: self.order.privileged,
            execute: self.order.execute,
            via: match self.order.path {
                Path::Ats => Via::Ats,
                Path::Untranslated => Via::Untranslated,
                Path::Translated => Via::Translated,
                Path::Host => Via::Host,
            },
            broken: self.order.broken(),
            ..Job::new(self.order.pasid, op)
        }
    }

    /// Counts a repeat that failed; the first one is shown.
    fn fail(&mut self, code: u8, at: u64) {
        if self.progress.errors == 0 {
            self.progress.error = code;
            self.progress.fault = at;
        }
        self.progress.errors = self.progress.errors.saturating_add(1);
        if code >= FINAL {
            self.progress.outcome = Outcome::Error;
        }
    }

    /// Takes the job of this repeat in.
    pub(super) fn take_completion(&mut self, completion: &Completion) {
        self.job = None;
        let progress = &mut self.progress;
        progress.moved = progress.moved.saturating_add(completion.moved);
        progress.pages = progress.pages.saturating_add(completion.pages_requested);
        match self.order.task {
            Some(Task::Read) => progress.check = crc32c::crc32c(&completion.data),
            Some(Task::Verify) => {
                let wrong = wrong_bytes(&completion.data, self.order.pattern);
                progress.check = progress.check.saturating_add(wrong);
            }
            _ => {}
        }
        if let Some((code, at)) = failure(completion.status) {
            self.fail(code, at);
        }
    }

    /// Goes to the next repeat, or ends the order; true when there is one to launch.
    pub(super) fn next_repeat(&mut self) -> bool {
        if self.progress.outcome != Outcome::Busy {
            return false;
        }
        self.repeats += 1;
        if self.repeats < self.order.repeat {
            let stride = self.order.stride;
            self.from = Iova(self.from.0.wrapping_add(stride));
            self.to = Iova(self.to.0.wrapping_add(stride));
            return true;
        }
        self.progress.outcome = match self.progress.errors {
            0 => Outcome::Done,
            _ => Outcome::Error,
        };
        false
    }

    /// Whether it sends messages by itself, without a job.
    pub(super) fn asks(&self) -> bool {
        matches!(self.order.task, Some(Task::PageRequests | Task::StopMarker))
    }

    fn pages(&self) -> u32 {
        match self.order.task {
            Some(Task::StopMarker) => 1,
            _ => self.order.len / 0x1000,
        }
    }

    /// Sends one group, if it may; says whether it did anything.
    pub(super) fn send(&mut self, device: &Device, now: Duration) -> bool {
        let left = self.pages() - self.asking.sent;
        if left == 0 {
            return false;
        }
        let off = device.switched_off(self.order.pasid, self.order.broken());
        if let Some((code, at)) = off.and_then(failure) {
            return self.give_up(code, at, left);
        }
        if let (Some(Task::StopMarker), Some(pasid)) = (self.order.task, self.order.pasid) {
            // It has no answer.
            let _ = device.stop_marker(pasid);
            self.asking.sent += left;
            return true;
        }
        if !device.pri_enabled() {
            return self.give_up(NOT_ENABLED, self.from.0, left);
        }
        let from = Iova(self.from.0.wrapping_add(u64::from(self.asking.sent) << 12));
        let access = self.order.page_access();
        let pasid = self.order.pasid;
        let sent = if self.order.flood {
            let pages = left.min(device.group_pages());
            // Answers are counted when the repeat is over: nobody waits for them.
            device.flood(pasid, from, pages, access);
            pages
        } else {
            match device.request_pages(pasid, from, left, access, now) {
                Some((group, pages)) => {
                    self.asking.open.insert(group.0);
                    pages
                }
                // An answer, the deadline of one, or a switch brings it back here.
                None if !device.exhausted() => return false,
                None => {
                    self.asking.failed = Some((5, from.0));
                    self.asking.sent += left;
                    return true;
                }
            }
        };
        self.asking.sent += sent;
        self.progress.pages = self.progress.pages.saturating_add(sent);
        true
    }

    /// Ends the order with the pages that are left, without waiting for those that were asked for.
    fn give_up(&mut self, code: u8, at: u64, left: u32) -> bool {
        self.fail(code, at);
        self.asking.open.clear();
        self.asking.sent += left;
        true
    }

    /// Takes the answer to one of its groups in.
    pub(super) fn take_answer(&mut self, answer: &GroupAnswer) {
        if answer.pasid != self.order.pasid || !self.asking.open.remove(&answer.group.0) {
            return;
        }
        if answer.response.is_some() {
            self.progress.moved += 1;
        }
        if let Some(code) = refusal(answer.response) {
            self.asking.failed.get_or_insert((code, self.from.0));
        }
    }

    /// Whether this repeat has asked for everything and had its answers; takes note of how it went.
    pub(super) fn asked_all(&mut self, device: &Device) -> bool {
        if self.asking.sent < self.pages() || !self.asking.open.is_empty() {
            return false;
        }
        if let Some((code, at)) = self.asking.failed.take() {
            self.fail(code, at);
        }
        if let (true, Some(before)) = (self.order.flood, self.late) {
            let late = device.stats().late_responses;
            self.progress.moved = self.progress.moved.saturating_add(late - before);
            self.late = Some(late);
        }
        true
    }
}

/// How many bytes differ from the pattern, repeated from the first byte on.
fn wrong_bytes(data: &[u8], pattern: [u8; 8]) -> u32 {
    let wrong: usize = data
        .chunks(8)
        .filter(|chunk| *chunk != &pattern[..chunk.len()])
        .map(|chunk| chunk.iter().zip(pattern).filter(|(a, b)| **a != *b).count())
        .sum();
    u32::try_from(wrong).unwrap_or(u32::MAX)
}
