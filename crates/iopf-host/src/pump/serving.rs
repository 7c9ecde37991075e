//! Who decides about a device's faults, and what happens when it fails at that.

use super::notice::{Notice, message};
use crate::Worker;
use iopf::Response;
use iopf::engine::{Delivery, Engine, Group, Stray, Tick, Verdict};
use iopf::resolve::{Decision, Resolver};
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
    /// Hands over a delivery, and its decision to the engine. A resolver that panics is replaced by
    /// [`Deny`](Self::Deny): what it kept in mind may be half done.
    #[inline]
    pub(super) fn serve(
        &mut self,
        engine: &mut Engine,
        now: Tick,
        delivery: &Delivery,
    ) -> Option<Notice> {
        match delivery {
            Delivery::Group(group) => self.group(engine, now, group),
            Delivery::Stray(stray) => self.stray(engine, now, stray),
        }
    }

    #[inline]
    fn group(&mut self, engine: &mut Engine, now: Tick, group: &Group) -> Option<Notice> {
        let handle = group.handle;
        let pages = engine.pages(handle)?;
        let mut notice = None;
        let decision = match self {
            Self::Inline(resolver) => {
                // The engine is only borrowed to be read, and the resolver is dropped below.
                match catch_unwind(AssertUnwindSafe(|| resolver.group(group, pages))) {
                    Ok(decision) => decision,
                    Err(panic) => {
                        notice = Some(Notice::Panicked {
                            device: group.device,
                            message: message(&*panic),
                        });
                        Decision::Refuse
                    }
                }
            }
            Self::Worker(worker) if worker.group(group, pages) => Decision::Later,
            Self::Worker(_) | Self::Deny => Decision::Refuse,
        };
        let said = match decision {
            Decision::Answer(response) => engine
                .answer(now, handle, response)
                .or_else(|_| engine.answer(now, handle, Response::Invalid)),
            Decision::Refuse => engine.refuse(now, handle),
            Decision::TakeOver => engine.dequeue(handle),
            Decision::Later => Ok(()),
        };
        // What was just delivered waits.
        debug_assert_eq!(said, Ok(()));
        if notice.is_some() {
            *self = Self::Deny;
        }
        notice
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
            *self = Self::Deny;
        }
        notice
    }
}
