//! Who decides about a device's faults, and what happens when it fails at that.

use super::notice::{Notice, bury, message};
use crate::Worker;
use iopf::Response;
use iopf::engine::{Delivery, DeviceId, Engine, Group, Pages, Stray, Tick, Verdict};
use iopf::resolve::{Decision, Resolver};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Who decides about a device's faults.
pub enum Serving {
    /// A resolver on the pump's own thread: it must not block, since everybody waits for it.
    Inline(Box<dyn Resolver + Send>),
    /// A resolver on a thread of its own, which may block.
    Worker(Worker),
    /// Nobody: groups are refused, unrecoverable faults logged.
    Deny,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inline(_) => "Inline",
            Self::Worker(_) => "Worker",
            Self::Deny => "Deny",
        })
    }
}

impl<R: Resolver + Send + 'static> From<R> for Serving {
    fn from(resolver: R) -> Self {
        Self::Inline(Box::new(resolver))
    }
}

impl From<Worker> for Serving {
    fn from(worker: Worker) -> Self {
        Self::Worker(worker)
    }
}

impl Serving {
    /// Hands over a delivery, and its decision to the engine.
    #[cold]
    pub(super) fn serve(
        &mut self,
        engine: &mut Engine,
        now: Tick,
        delivery: &Delivery,
    ) -> Option<Notice> {
        let group = match delivery {
            Delivery::Group(group) => group,
            Delivery::Stray(stray) => return self.stray(engine, now, stray),
        };
        let handle = group.handle;
        let mut notice = None;
        let said = match self.group(group, engine.pages(handle)?, &mut notice) {
            Decision::Answer(response) => engine
                .answer(now, handle, response)
                .or_else(|_| engine.answer(now, handle, Response::Invalid)),
            Decision::Refuse => engine.refuse(now, handle),
            Decision::TakeOver => engine.dequeue(handle),
            Decision::Later => Ok(()),
        };
        // What was just delivered waits.
        debug_assert_eq!(said, Ok(()));
        notice
    }

    /// Decides about a group. A resolver that panics is replaced by [`Deny`](Self::Deny): what it
    /// kept in mind may be half done.
    #[inline]
    pub(super) fn group(
        &mut self,
        group: &Group,
        pages: Pages<'_>,
        notice: &mut Option<Notice>,
    ) -> Decision {
        match self {
            Self::Inline(resolver) => {
                // The engine is only borrowed to be read, and the resolver is dropped.
                let pages = &pages;
                match catch_unwind(AssertUnwindSafe(|| resolver.group(group, pages.clone()))) {
                    Ok(decision) => decision,
                    Err(panic) => {
                        *notice = Some(self.panicked(group.device, &*panic));
                        Decision::Refuse
                    }
                }
            }
            Self::Worker(worker) if worker.group(group, pages) => Decision::Later,
            Self::Worker(_) | Self::Deny => Decision::Refuse,
        }
    }

    /// The resolver panicked: nobody serves from now on.
    #[cold]
    #[inline(never)]
    fn panicked(&mut self, device: DeviceId, panic: &(dyn Any + Send)) -> Notice {
        let message = message(panic);
        bury(std::mem::replace(self, Self::Deny));
        Notice::Panicked { device, message }
    }

    fn stray(&mut self, engine: &mut Engine, now: Tick, stray: &Stray) -> Option<Notice> {
        let mut notice = None;
        let verdict = match self {
            Self::Inline(resolver) => {
                match catch_unwind(AssertUnwindSafe(|| resolver.stray(stray))) {
                    Ok(verdict) => Some(verdict),
                    Err(panic) => {
                        notice = Some(Notice::Panicked {
                            device: stray.device,
                            message: message(&*panic),
                        });
                        Some(Verdict::Unhandled)
                    }
                }
            }
            Self::Worker(worker) if worker.stray(stray) => None,
            Self::Worker(_) => Some(Verdict::Unhandled),
            Self::Deny => Some(Verdict::Logged),
        };
        if let Some(verdict) = verdict {
            let said = engine.judge(now, stray.handle, verdict);
            debug_assert_eq!(said, Ok(()));
        }
        if notice.is_some() {
            bury(std::mem::replace(self, Self::Deny));
        }
        notice
    }
}
