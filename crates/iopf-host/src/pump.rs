//! The pump: carries faults from their descriptors through the engine to resolvers, and the answers
//! back.
//!
//! One turn is: wait until something is readable or due, read each readable queue once, hand every
//! group to its device's resolver, write each queue's answers at once. See [`Pump`].

#[cfg(feature = "tokio")]
mod asynchronous;
mod change;
mod devices;
mod handle;
mod notice;
mod serving;
mod source;
mod watch;

pub use change::{AddQueueError, ChangeError};
pub use handle::{HandleError, PumpHandle};
pub use notice::Notice;
pub(crate) use notice::{bury, message};
pub use serving::Serving;

use crate::clock::Clock;
use crate::queue::Read;
use crate::{Errno, FaultFile, ReadError, WriteError};
use devices::Devices;
use handle::{COMMANDS, Command, Inbox};
use iopf::engine::{AnswerError, Decided, Delivery, DeviceId, Engine, Group, Pages, Tick, Why};
use iopf::resolve::Decision;
use iopf::{Fault, Response, Unrecoverable};
use source::{Pause, Route, Routes, Source};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use watch::{Ready, Watch};

/// Names a queue of a pump. The name of a queue that was removed names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueId {
    slot: u32,
    generation: u32,
}

/// What a pump counted, from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PumpCounts {
    /// Turns taken: how often it woke up.
    pub turns: u64,
    /// Pages of devices that no [`Pump::route`] names, answered INVALID.
    pub strangers: u64,
    /// Answers and verdicts that came too late: by deadline, detach or removal the group had its
    /// answer.
    pub late: u64,
    /// Answers to groups whose queue was removed.
    pub orphaned: u64,
    /// Panics of resolvers.
    pub panics: u64,
}

/// What [`Pump::stop`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Groups answered INVALID because of it.
    pub given_up: u64,
    /// Answers that could not be written. The kernel answers those groups at their detach.
    pub unwritten: u64,
}

/// Drives an [`Engine`] with fault queues, resolvers and time.
///
/// One thread owns it, and either calls [`run`](Self::run), or [`turn`](Self::turn) from its own
/// loop, or polls [`poll_fds`](Self::poll_fds) by itself and calls [`serve`](Self::serve). Other
/// threads have a [`PumpHandle`].
///
/// With an engine under [`Policy::default`](iopf::engine::Policy) it promises:
///
/// - every group it reads is answered once: by a resolver, by the policy's deadline, at a detach or
///   removal before the kernel call, or at [`stop`](Self::stop);
/// - an answer that comes after that never completes another group, though the kernel gives cookies
///   out again at once: answers go by the engine's handles, which carry a generation;
/// - it reads no more pages than the engine has room for. What does not fit waits in the kernel,
///   whose list has no bound of its own: the devices' PRI credits are one;
/// - with nothing to do it sleeps, also while the engine is full or a queue fails;
/// - a resolver that panics, and one on a [`Worker`](crate::Worker) that blocks or never answers,
///   harms its own device only;
/// - every page that was read is accounted for: pages read from all queues are
///   [`Engine::totals`]`().reported + losses.lost`.
///
/// A turn makes one call to wait, one read for each readable queue, and one write for each queue
/// with answers; one more when something is due earlier than before, or was due. A deadline is kept to the length of a turn. Nothing is allocated for a fault once the
/// buffers have grown.
#[derive(Debug)]
pub struct Pump<F> {
    engine: Engine,
    clock: Clock,
    now: Tick,
    sources: Vec<Option<Source<F>>>,
    generation: u32,
    devices: Devices,
    inbox: Inbox<F>,
    watch: Watch,
    sink: Sink,
    counts: PumpCounts,
    /// Some queue pauses after an error, or the engine was touched.
    failing: bool,
    /// Somebody used the engine since the last turn.
    touched: bool,
    /// Some queue may have to be left out of the set, or be put back; something may be due earlier.
    unsettled: bool,
    /// The engine may have something to deliver or to tell.
    stirred: bool,
    /// Queues with answers to write, a bit each.
    dirty: u64,
    stopping: bool,
}

struct Sink(Box<dyn FnMut(Notice) + Send>);

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

impl<F: FaultFile + 'static> Pump<F> {
    /// Fault queues of one pump at most. One fault object of iommufd may serve any number of
    /// page tables, so few are needed.
    pub const MAX_QUEUES: usize = 62;

    /// A pump without queues and devices. `sink` is told what is no answer; it must not block.
    ///
    /// # Errors
    /// Those of eventfd(2), epoll_create1(2) and timerfd_create(2): no descriptors to spare.
    pub fn new(engine: Engine, sink: impl FnMut(Notice) + Send + 'static) -> Result<Self, Errno> {
        let inbox = Inbox::new()?;
        Ok(Self {
            watch: Watch::new(inbox.as_fd())?,
            inbox,
            engine,
            clock: Clock::start(),
            now: Tick(0),
            sources: Vec::new(),
            generation: 0,
            devices: Devices::default(),
            sink: Sink(Box::new(sink)),
            counts: PumpCounts::default(),
            failing: false,
            touched: false,
            unsettled: true,
            stirred: true,
            dirty: 0,
            stopping: false,
        })
    }

    /// A way in for other threads.
    #[must_use]
    pub fn handle(&self) -> PumpHandle<F> {
        self.inbox.handle()
    }

    /// The engine and its books.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> PumpCounts {
        self.counts
    }

    /// The pump's clock: what [`serve`](Self::serve) is told by a caller without one.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether somebody called [`PumpHandle::stop`].
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// What to poll for input, and for nothing else, before [`serve`](Self::serve). It changes
    /// from turn to turn: a queue is left out while the engine has no room, or after an error.
    pub fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let room = self.engine.room();
        let sources = self.sources.iter().flatten();
        let wanted = sources.filter(move |source| source.wanted(room));
        let queues = wanted.map(|source| source.queue.file().as_fd());
        queues.chain([self.inbox.as_fd()])
    }

    /// When [`serve`](Self::serve) must be called though nothing is readable; `None`: never.
    #[must_use]
    #[inline]
    pub fn next_due(&self) -> Option<Tick> {
        let next = self.engine.poll_timeout();
        if !self.failing {
            return next;
        }
        if self.touched {
            return Some(self.now);
        }
        let pauses = self.sources.iter().flatten().filter_map(Source::due);
        pauses.chain(next).min()
    }

    /// Waits until something can be done, or at most for `timeout` (in whole milliseconds, rounded
    /// up), and does it. `false`: nothing was readable in that time, and nothing due.
    ///
    /// # Errors
    /// Those of epoll(7) and timerfd_settime(2), but not `EINTR`: that is a turn with nothing to do.
    #[inline]
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<bool, Errno> {
        // Before it sleeps: whoever had the pump until now may ask for something.
        self.inbox.belongs_here();
        let due = self.settle()?;
        let timeout = if due { Some(Duration::ZERO) } else { timeout };
        let ready = self.watch.wait(timeout)?.or_due(due);
        let now = self.clock.now();
        let due = self.work(now, ready);
        Ok(due || ready.any())
    }

    /// Makes the set one to wait with; whether something is due already.
    #[inline]
    fn settle(&mut self) -> Result<bool, Errno> {
        if !self.unsettled {
            return Ok(false);
        }
        self.settle_anew()
    }

    /// Leaves queues out of the set that are not wanted now, puts back those that are, and sets the
    /// timer.
    #[inline(never)]
    fn settle_anew(&mut self) -> Result<bool, Errno> {
        let room = self.engine.room();
        let mut all = true;
        for slot in 0..self.sources.len() {
            let Some(Some(source)) = self.sources.get_mut(slot) else {
                continue;
            };
            let wanted = source.wanted(room);
            all &= wanted;
            if let Err(error) = self.watch.set(slot, source.queue.file(), wanted) {
                // This one pauses, and the others go on.
                source.reads.fail(self.now);
                (self.failing, all) = (true, false);
                let (queue, error) = (source.id, ReadError::Io(error));
                self.notice(Notice::Read { queue, error });
            }
        }
        let due = self.next_due();
        if due.is_some_and(|due| due <= self.now) {
            return Ok(true);
        }
        self.watch.arm(self.clock, due)?;
        self.unsettled = !all;
        Ok(false)
    }

    /// What is waited for may have changed, and the engine may have something to say: anything
    /// happened but an answer at once.
    #[inline]
    fn stir(&mut self) {
        (self.unsettled, self.stirred) = (true, true);
    }

    /// Does what can be done at `now` without waiting, as if everything were readable.
    ///
    /// For a caller who polls for himself: one read for each queue, which may bring nothing.
    pub fn serve(&mut self, now: Tick) {
        self.inbox.belongs_here();
        self.stir();
        self.work(now, Ready::UNKNOWN);
    }

    #[inline]
    fn work(&mut self, now: Tick, ready: Ready) -> bool {
        self.now = self.now.max(now);
        self.counts.turns += 1;
        if ready.commands() {
            self.stir();
            self.commands();
        }
        let due = ready.may_be_due() && self.due();
        for slot in slots(ready.queues()) {
            self.read(slot, ready);
        }
        let stirred = std::mem::take(&mut self.stirred);
        if stirred {
            self.resolve();
            self.collect();
        }
        for slot in slots(self.dirty) {
            // It was told.
            let _ = self.write_slot(slot, false);
        }
        if stirred {
            self.tell();
        }
        due
    }

    #[cold]
    fn commands(&mut self) {
        self.inbox.calm();
        for _ in 0..COMMANDS {
            let Some(command) = self.inbox.next() else {
                return;
            };
            let now = self.now;
            let stale = match command {
                Command::Answer(group, response) => {
                    let said = self.engine.answer(now, group, response);
                    if let Err(AnswerError::CannotSay(_)) = said {
                        self.engine.answer(now, group, Response::Invalid).is_err()
                    } else {
                        said.is_err()
                    }
                }
                Command::Refuse(group) => self.engine.refuse(now, group).is_err(),
                Command::Judge(fault, verdict) => self.engine.judge(now, fault, verdict).is_err(),
                Command::Tell(notice) => {
                    self.notice(notice);
                    false
                }
                Command::Call(call) => {
                    call(self);
                    false
                }
                Command::Stop => {
                    self.stopping = true;
                    false
                }
            };
            self.counts.late += u64::from(stale);
        }
        self.inbox.again();
    }

    /// Does what is due: deadlines, queues that failed, or what the engine was told. Whether
    /// anything was.
    #[cold]
    fn due(&mut self) -> bool {
        self.stir();
        if self.next_due().is_none_or(|due| due > self.now) {
            return false;
        }
        self.touched = false;
        self.engine.handle_timeout(self.now);
        for source in self.sources.iter_mut().flatten() {
            source.reads.end(self.now);
            source.writes.end(self.now);
        }
        let mut sources = self.sources.iter().flatten();
        self.failing = sources.any(|source| source.due().is_some());
        true
    }

    #[inline]
    fn read(&mut self, slot: usize, ready: Ready) {
        let room = self.engine.room();
        let Some(Some(source)) = self.sources.get_mut(slot) else {
            return;
        };
        // What was polled was wanted, unless a command changed that.
        let wanted = ready.is_sure() || source.wanted(room);
        if !wanted || source.queue.unwritten() > 0 {
            return;
        }
        source.needs_more_than = None;
        let error = match source.queue.read(room as usize) {
            Ok(Read::Pages(_)) => None,
            Ok(Read::Nothing) if !ready.is_polled() => {
                source.reads.works();
                return;
            }
            Ok(Read::Nothing) if source.reads.may_be_empty() => return,
            Ok(Read::Nothing) => Some(ReadError::Empty),
            // Nothing of it will ever go.
            Ok(Read::NoRoom) if self.engine.pages_held().0 == 0 => {
                Some(ReadError::GroupTooLarge(room as usize))
            }
            Ok(Read::NoRoom) => {
                source.needs_more_than = Some(room);
                self.unsettled = true;
                None
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            source.reads.fail(self.now);
            (self.failing, self.unsettled) = (true, true);
            let queue = source.id;
            self.notice(Notice::Read { queue, error });
            return;
        }
        source.reads.works();
        let QueueId { slot, generation } = source.id;
        let tag = u64::from(generation) << 32 | u64::from(slot);
        let (now, queue, routes) = (self.now, &mut source.queue, &mut source.routes);
        while let Some(group) = queue.next_group() {
            let group = match group {
                Ok(group) => group,
                Err(malformed) => {
                    let id = routes.find(malformed.dev_id).map(|route| route.id);
                    self.stirred = true;
                    // Counted, whoever it is.
                    let _ = self.engine.report_lost(id, malformed.pages as u64);
                    continue;
                }
            };
            let cookie = group.cookie();
            let route = routes.find(group.dev_id());
            let served = route.and_then(|Route { id, place }| Some((id, self.devices.at(place)?)));
            let Some((id, serving)) = served else {
                let pages = group.len() as u64;
                self.counts.strangers += pages;
                self.stirred = true;
                let _ = self.engine.report_lost(None, pages);
                queue.answer(cookie, Response::Invalid);
                continue;
            };
            let last = group.last([u64::from(cookie), tag]);
            let (mut notice, mut taken_over) = (None, false);
            let decide =
                |group: &Group, pages: Pages<'_>| match serving.group(group, pages, &mut notice) {
                    Decision::Answer(response) => Some(response),
                    Decision::Refuse => Some(Response::Invalid),
                    Decision::Later => None,
                    Decision::TakeOver => {
                        taken_over = true;
                        None
                    }
                };
            let before = group.partial();
            match self.engine.resolve_group(now, id, before, &last, decide) {
                Decided::Answered(response, why) => {
                    queue.answer(cookie, response);
                    self.stirred |= why != Why::Resolved;
                }
                Decided::Queued(handle) => {
                    (self.unsettled, self.stirred) = (true, true);
                    if taken_over {
                        // It was just queued.
                        let _ = self.engine.dequeue(handle);
                    }
                }
            }
            if let Some(notice) = notice {
                self.counts.panics += 1;
                (self.sink.0)(notice);
            }
        }
        if queue.unwritten() > 0 {
            self.dirty |= 1 << slot;
        }
    }

    #[inline]
    fn resolve(&mut self) {
        while let Some(delivery) = self.engine.poll_fault() {
            let id = match &delivery {
                Delivery::Group(group) => group.device,
                Delivery::Stray(stray) => stray.device,
            };
            let engine = &mut self.engine;
            let place = self.devices.place(id);
            let serving = place.and_then(|place| self.devices.at(place));
            // A device comes and goes with its resolver.
            debug_assert!(serving.is_some(), "nobody serves {id:?}");
            let notice = serving.and_then(|serving| serving.serve(engine, self.now, &delivery));
            if let Some(notice) = notice {
                self.notice(notice);
            }
        }
    }

    /// Takes the engine's answers to their queues.
    fn collect(&mut self) {
        while let Some(answer) = self.engine.poll_answer() {
            let [cookie, tag] = answer.private_data;
            let source = source(&mut self.sources, tag);
            match (source, u32::try_from(cookie)) {
                (Some(source), Ok(cookie)) => {
                    source.queue.answer(cookie, answer.response);
                    self.dirty |= 1 << source.id.slot;
                }
                _ => self.counts.orphaned += 1,
            }
        }
    }

    /// Writes all answers given so far, also to queues that failed. Says what failed first, of the
    /// queues that matter.
    fn write(&mut self, matters: impl Fn(&Source<F>) -> bool) -> Result<(), WriteError> {
        self.collect();
        let mut first = Ok(());
        for slot in slots(self.dirty) {
            let written = self.write_slot(slot, true);
            if self.sources[slot].as_ref().is_some_and(&matters) {
                first = first.and(written);
            }
        }
        first
    }

    /// Writes the answers of a queue: after an error only when its pause is over, or `at_once`.
    #[inline]
    fn write_slot(&mut self, slot: usize, at_once: bool) -> Result<(), WriteError> {
        let Some(Some(source)) = self.sources.get_mut(slot) else {
            return Ok(());
        };
        if !at_once && source.writes.until().is_some() {
            return Ok(());
        }
        if let Err(error) = source.queue.flush() {
            return Err(self.not_written(slot, error));
        }
        source.writes = Pause::default();
        self.dirty &= !(1 << slot);
        Ok(())
    }

    /// What does not get written is told, and tried again.
    #[cold]
    fn not_written(&mut self, slot: usize, error: WriteError) -> WriteError {
        if let Some(Some(source)) = self.sources.get_mut(slot) {
            source.writes.fail(self.now);
            if source.queue.unwritten() == 0 {
                self.dirty &= !(1 << slot);
            }
            (self.failing, self.unsettled) = (true, true);
            let queue = source.id;
            self.notice(Notice::Write { queue, error });
        }
        error
    }

    #[inline]
    fn tell(&mut self) {
        while let Some(loss) = self.engine.poll_loss() {
            (self.sink.0)(Notice::Loss(loss));
        }
        while let Some(line) = self.engine.poll_log() {
            (self.sink.0)(Notice::Log(line));
        }
    }

    #[cold]
    fn notice(&mut self, notice: Notice) {
        self.counts.panics += u64::from(matches!(notice, Notice::Panicked { .. }));
        (self.sink.0)(notice);
    }

    /// Takes an unrecoverable fault that came by another way, from a vEVENTQ for instance, and asks
    /// its resolver.
    ///
    /// It counts as having come when the last turn began, and its deadline is from then: call it in
    /// [`PumpHandle::exclusive`], or after a turn, not after a wait.
    ///
    /// # Errors
    /// [`Refused`](iopf::engine::Refused): it is counted and nobody is asked.
    pub fn report(
        &mut self,
        id: DeviceId,
        fault: &Unrecoverable,
    ) -> Result<(), iopf::engine::Refused> {
        let fault = Fault::Unrecoverable(*fault);
        self.stir();
        // Judged at once, or queued.
        let _ = self.engine.report(self.now, id, &fault)?;
        self.resolve();
        self.tell();
        Ok(())
    }

    /// Takes turns until somebody calls [`PumpHandle::stop`], then [`stop`](Self::stop)s.
    ///
    /// # Errors
    /// As [`turn`](Self::turn); nothing was stopped.
    pub fn run(&mut self) -> Result<Stopped, Errno> {
        while !self.stopping {
            self.turn(None)?;
        }
        Ok(self.stop())
    }

    /// Answers INVALID everything that waits for a resolver, and removes all devices. The
    /// descriptors stay open, and what the kernel still holds is answered at the detach. Handles made
    /// before are of no use any more: whoever waits for an answer to one has [`HandleError::Gone`].
    pub fn stop(&mut self) -> Stopped {
        let mut stopped = Stopped::default();
        self.stir();
        for id in self.devices.clear() {
            let departed = self.engine.remove_device(self.now, id);
            stopped.given_up += departed.map_or(0, |departed| departed.given_up);
        }
        // A last try also for queues that failed.
        let _ = self.write(|_| true);
        self.inbox.close();
        for source in self.sources.iter_mut().flatten() {
            source.routes = Routes::default();
            stopped.unwritten += source.queue.unwritten() as u64;
        }
        self.tell();
        stopped
    }
}

/// The places of the bits that are set.
#[inline]
fn slots(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = bits.trailing_zeros() as usize;
        let some = bits != 0;
        bits &= bits.wrapping_sub(1);
        some.then_some(slot)
    })
}

/// The queue that a group came by.
#[inline]
fn source<F>(sources: &mut [Option<Source<F>>], tag: u64) -> Option<&mut Source<F>> {
    let [a, b, c, d, generation @ ..] = tag.to_le_bytes();
    let slot = u32::from_le_bytes([a, b, c, d]);
    let generation = u32::from_le_bytes(generation);
    let source = sources.get_mut(slot as usize)?.as_mut()?;
    (source.id.generation == generation).then_some(source)
}

#[cfg(test)]
mod tests;
