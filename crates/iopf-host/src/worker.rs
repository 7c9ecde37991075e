//! A resolver on a thread of its own.

use crate::pump::{Notice, PumpHandle, message};
use iopf::PageRequest;
use iopf::engine::{Group, Pages, Stray, Verdict};
use iopf::resolve::{Decision, Resolver};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::Builder;

/// The pump's end of a resolver that may block.
///
/// It holds a bounded number of groups, copied out of the engine; a group beyond that is refused.
/// While it blocks, its device gets INVALID by the policy's deadline, and nobody else waits. What
/// it decides after that is stale, and counted.
///
/// A resolver that panics decides no more: what comes to it is refused. Dropping the worker ends its
/// thread after the group it is at, and does not wait for that.
#[derive(Debug)]
pub struct Worker {
    jobs: SyncSender<Job>,
    /// Page lists that can be filled again.
    spent: Receiver<Vec<PageRequest>>,
    /// Where the list of a group goes that was not taken.
    refused: SyncSender<Vec<PageRequest>>,
}

/// Pages that a list has room for at first; a larger group makes its list grow.
const PAGES: usize = 8;

#[derive(Debug)]
enum Job {
    Group(Group, Vec<PageRequest>),
    Stray(Stray),
}

impl Worker {
    /// Starts a thread called `name` for `resolver`, which answers through `pump` and holds at most
    /// `room` groups and unrecoverable faults that it has not begun; 0 counts as 1.
    ///
    /// # Errors
    /// Those of [`Builder::spawn`].
    pub fn spawn<F: 'static>(
        name: &str,
        room: usize,
        pump: PumpHandle<F>,
        resolver: impl Resolver + Send + 'static,
    ) -> io::Result<Self> {
        let room = room.max(1);
        let (jobs, to_do) = sync_channel(room);
        // One more for the group the thread is at, and one for the group that finds no room. So a
        // list is always there, and giving one back never waits.
        let (done, spent) = sync_channel(room + 2);
        for _ in 0..room + 2 {
            // It has room for all of them.
            let _ = done.try_send(Vec::with_capacity(PAGES));
        }
        let refused = done.clone();
        Builder::new().name(name.to_owned()).spawn(move || {
            let mut resolver = Some(resolver);
            for job in to_do {
                if let Some(list) = work(&mut resolver, &pump, job) {
                    // The pump is gone, or has lists enough.
                    let _ = done.try_send(list);
                }
            }
        })?;
        Ok(Self {
            jobs,
            spent,
            refused,
        })
    }

    /// Hands over a group; `false`: there is no room.
    pub(crate) fn group(&self, group: &Group, pages: Pages<'_>) -> bool {
        let mut list = self.spent.try_recv().unwrap_or_default();
        list.clear();
        list.extend(pages);
        match self.jobs.try_send(Job::Group(*group, list)) {
            Ok(()) => true,
            Err(TrySendError::Full(Job::Group(_, list))) => {
                let _ = self.refused.try_send(list);
                false
            }
            Err(_) => false,
        }
    }

    /// Hands over an unrecoverable fault; `false`: there is no room.
    pub(crate) fn stray(&self, stray: &Stray) -> bool {
        self.jobs.try_send(Job::Stray(*stray)).is_ok()
    }
}

/// Does one job, and gives the page list back. If the pump is gone, nobody wants to know.
fn work<F: 'static>(
    resolver: &mut Option<impl Resolver>,
    pump: &PumpHandle<F>,
    job: Job,
) -> Option<Vec<PageRequest>> {
    match job {
        Job::Group(group, list) => {
            let decision = resolver.as_mut().map_or(Ok(Decision::Refuse), |resolver| {
                let decide = || resolver.group(&group, Pages::copied(&list));
                catch_unwind(AssertUnwindSafe(decide))
            });
            let decision = decision.unwrap_or_else(|panic| {
                *resolver = None;
                let _ = pump.tell(Notice::Panicked {
                    device: group.device,
                    message: message(&*panic),
                });
                Decision::Refuse
            });
            let _ = match decision {
                Decision::Answer(response) => pump.answer(group.handle, response),
                Decision::Refuse => pump.refuse(group.handle),
                Decision::Later | Decision::TakeOver => Ok(()),
            };
            Some(list)
        }
        Job::Stray(stray) => {
            let verdict = resolver
                .as_mut()
                .map_or(Ok(Verdict::Unhandled), |resolver| {
                    catch_unwind(AssertUnwindSafe(|| resolver.stray(&stray)))
                });
            let verdict = verdict.unwrap_or_else(|panic| {
                *resolver = None;
                let _ = pump.tell(Notice::Panicked {
                    device: stray.device,
                    message: message(&*panic),
                });
                Verdict::Unhandled
            });
            let _ = pump.judge(stray.handle, verdict);
            None
        }
    }
}
