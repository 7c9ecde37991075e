//! Work queues and engines: which descriptor runs where and when. No lock, no device.
//!
//! An engine works on one descriptor at a time, in the order of submission of each work queue; so a
//! descriptor that waits for a page keeps its engine, and the others of the group go on. "Descriptor
//! Processing" and "Ordering and Fencing" of the specification allow that.

use super::command::Scope;
use super::descriptor::RawDescriptor;
use super::regs::Regs;
use super::run::{Act, Report, Run};
use super::tables::Wq;
use super::task::Path;
use super::{ENGINES, WQS};
use crate::job::{Completion, Job, Via};
use iopf::Pasid;
use std::collections::VecDeque;

/// A descriptor in its work queue.
#[derive(Clone, Copy, Debug)]
struct Queued {
    sequence: u64,
    raw: RawDescriptor,
}

/// The work queues.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues {
    sequence: u64,
    queues: [VecDeque<Queued>; WQS],
    /// Work queue to look at first, for fairness.
    turn: usize,
}

impl Queues {
    /// The number that the next descriptor gets.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Queues a descriptor; false if the work queue has no room.
    #[must_use]
    pub(super) fn submit(&mut self, wq: usize, raw: RawDescriptor, size: u16) -> bool {
        let Some(queue) = self.queues.get_mut(wq) else {
            return false;
        };
        if queue.len() >= usize::from(size) {
            return false;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        queue.push_back(Queued { sequence, raw });
        true
    }

    /// Descriptors that wait in a work queue.
    pub(super) fn occupancy(&self, wq: usize) -> u16 {
        let len = self.queues.get(wq).map_or(0, VecDeque::len);
        u16::try_from(len).unwrap_or(u16::MAX)
    }

    /// Whether anything of `scope` with a number below `before` waits.
    pub(super) fn hold(&self, scope: Scope, before: u64, regs: &Regs) -> bool {
        self.queues.iter().enumerate().any(|(wq, queue)| {
            let oldest = queue.front().is_some_and(|q| q.sequence < before);
            oldest && in_scope(scope, wq, regs.wqs[wq].pasid())
        })
    }

    /// Drops the descriptors of `scope`.
    pub(super) fn abort(&mut self, scope: Scope, regs: &Regs) {
        for (wq, queue) in self.queues.iter_mut().enumerate() {
            if in_scope(scope, wq, regs.wqs[wq].pasid()) {
                queue.clear();
            }
        }
    }

    /// The next descriptor that an engine may take, with its work queue.
    fn next_for(&mut self, engine: usize, regs: &Regs, held: u64) -> Option<(usize, Queued)> {
        let group = regs
            .groups
            .iter()
            .find(|g| g.engines() >> engine & 1 != 0)?;
        for step in 0..WQS {
            let wq = (self.turn + step) % WQS;
            if (group.wqs() & !held) >> wq & 1 == 0 {
                continue;
            }
            if let Some(queued) = self.queues[wq].pop_front() {
                self.turn = (wq + 1) % WQS;
                return Some((wq, queued));
            }
        }
        None
    }
}

#[derive(Clone, Debug)]
struct Busy {
    run: Run,
    /// Waits for older descriptors of its work queue.
    drains: bool,
}

impl Busy {
    fn of(&self, scope: Scope) -> bool {
        in_scope(scope, usize::from(self.run.wq), self.run.path.pasid)
    }
}

/// A job, and the engine that waits for it.
pub(super) type Order = (usize, Job);

/// The engines.
#[derive(Clone, Debug, Default)]
pub(super) struct Engines {
    engines: [Option<Busy>; ENGINES],
}

impl Engines {
    /// Whether anything of `scope` with a number below `before` is under way.
    pub(super) fn hold(&self, scope: Scope, before: u64) -> bool {
        let holds = |busy: &Busy| busy.of(scope) && busy.run.sequence < before;
        self.engines.iter().flatten().any(holds)
    }

    /// Abandons the descriptors of `scope` at the next opportunity.
    pub(super) fn abort(&mut self, scope: Scope) {
        for busy in self.engines.iter_mut().flatten() {
            if busy.of(scope) {
                busy.run.abandon();
            }
        }
    }

    /// Gives idle engines work.
    pub(super) fn dispatch(
        &mut self,
        queues: &mut Queues,
        regs: &Regs,
        ats: bool,
        reports: &mut Vec<Report>,
    ) -> Vec<Order> {
        let mut orders = Vec::new();
        for engine in 0..ENGINES {
            self.end_drain(engine, reports, &mut orders);
            while self.engines[engine].is_none() {
                let Some((wq, queued)) = queues.next_for(engine, regs, self.draining()) else {
                    break;
                };
                let path = path(&regs.wqs[wq], ats);
                let place = (queued.sequence, u8::try_from(wq).unwrap_or(u8::MAX));
                let (run, act) = Run::start(&queued.raw, place, path, regs.rules(wq), reports);
                self.engines[engine] = Some(Busy { run, drains: false });
                orders.extend(self.take(engine, act));
            }
        }
        orders
    }

    /// Work queues that a drain descriptor holds up, one bit each.
    fn draining(&self) -> u64 {
        let drains = self.engines.iter().flatten().filter(|busy| busy.drains);
        drains.fold(0, |set, busy| set | 1 << busy.run.wq)
    }

    /// A drain descriptor ends when nothing older of its work queue is left.
    fn end_drain(&mut self, engine: usize, reports: &mut Vec<Report>, orders: &mut Vec<Order>) {
        let Some(Busy { run, drains: true }) = &self.engines[engine] else {
            return;
        };
        let (wq, sequence) = (run.wq, run.sequence);
        if self.hold(Scope::Wqs(1 << wq), sequence) {
            return;
        }
        if let Some(busy) = &mut self.engines[engine] {
            busy.drains = false;
            let act = busy.run.drained(reports);
            orders.extend(self.take(engine, act));
        }
    }

    /// The job of an engine is over.
    pub(super) fn resume(
        &mut self,
        engine: usize,
        completion: Completion,
        reports: &mut Vec<Report>,
    ) -> Option<Order> {
        let busy = self.engines.get_mut(engine)?.as_mut()?;
        let act = busy.run.resume(completion, reports);
        self.take(engine, act)
    }

    fn take(&mut self, engine: usize, act: Act) -> Option<Order> {
        match act {
            Act::Job(job) => return Some((engine, job)),
            Act::Drain => {
                if let Some(busy) = &mut self.engines[engine] {
                    busy.drains = true;
                }
            }
            Act::Idle => self.engines[engine] = None,
        }
        None
    }
}

/// How descriptors of a work queue reach memory.
fn path(wq: &Wq, ats: bool) -> Path {
    Path {
        pasid: wq.pasid(),
        privileged: wq.privileged(),
        via: if ats && !wq.mode.ats_disable() {
            Via::Ats
        } else {
            Via::Untranslated
        },
    }
}

fn in_scope(scope: Scope, wq: usize, pasid: Option<Pasid>) -> bool {
    match scope {
        Scope::All => true,
        Scope::Wqs(set) => set >> wq & 1 != 0,
        Scope::Pasid(wanted) => pasid == Some(wanted),
    }
}
