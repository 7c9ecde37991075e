//! Post-copy: memory whose pages come from a slow source while it is in use.
//!
//! A thread that touches a missing page waits (userfaultfd(2)), and so does a device that asks for
//! one (a page request group): both go to one [`PostCopy`], which fetches each page once, puts it in
//! place at once and whole (`UFFDIO_COPY`), and then lets everybody go on.
//!
//! Source: Linux `Documentation/admin-guide/mm/userfaultfd.rst`; `mm/userfaultfd.c`,
//! `fs/userfaultfd.c`.
//!
//! The crate `userfaultfd` generates its bindings with libclang whenever it is built, and lacks
//! `UFFDIO_POISON`; what is used of the interface is in `sys.rs`, with the bindings of the crate
//! `linux-raw-sys`.

mod pages;
mod threads;

use crate::space::{Area, page_size};
use crate::sys::{self, Abilities};
use iopf::engine::{Group, Handle, Pages as GroupPages, Stray, Verdict};
use iopf::resolve::{Decision, Resolver};
use iopf::{Access, Iova, PageRequest, Pasid, Response};
use pages::{Asked, Pages, Status};
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error;

/// Why a source did not give a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    /// Not this time. Devices that wait for the page are told INVALID. Threads cannot be told: for
    /// them it is asked for again, for as long as it takes.
    #[error("the page cannot be had now")]
    NotNow,
    /// Never. Devices are told INVALID. Threads that touch the page get SIGBUS, as with memory that
    /// hardware has lost; where the kernel cannot do that (before Linux 6.6) they wait for ever.
    #[error("the page is lost")]
    Lost,
}

/// Where pages come from.
///
/// It is called from several threads at once, and may block: each fetch holds up one worker.
/// A panic counts as [`SourceError::NotNow`].
pub trait PageSource: Send + Sync {
    /// Fills `page`, one page of this host, with what belongs at `offset` bytes in the area.
    ///
    /// # Errors
    /// [`SourceError`].
    fn fetch(&self, offset: usize, page: &mut [u8]) -> Result<(), SourceError>;
}

impl<F: Fn(usize, &mut [u8]) -> Result<(), SourceError> + Send + Sync> PageSource for F {
    fn fetch(&self, offset: usize, page: &mut [u8]) -> Result<(), SourceError> {
        self(offset, page)
    }
}

/// The limits of a [`PostCopy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pages fetched at the same time, each by a thread of its own. 0 counts as 1.
    pub workers: usize,
    /// Page request groups that wait at the same time; one beyond that is refused.
    pub groups: usize,
}

impl Default for Limits {
    /// Four workers, 1,024 groups.
    fn default() -> Self {
        Self {
            workers: 4,
            groups: 1024,
        }
    }
}

/// What a [`PostCopy`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostCopyCounts {
    /// Faults of threads. One that meets a page twice, or is woken early, counts twice.
    pub touches: u64,
    /// Page request groups that had to wait.
    pub groups: u64,
    /// Groups refused for want of room.
    pub refused: u64,
    /// Pages put in place.
    pub fetched: u64,
    /// Fetches that the source failed.
    pub failures: u64,
    /// Pages that are lost.
    pub lost: u64,
    /// Pages that came and could not be put in place then.
    pub misplaced: u64,
}

/// Why there is no post-copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PostCopyError {
    /// userfaultfd(2) or its handshake. `EPERM`: neither privilege nor
    /// `vm.unprivileged_userfaultfd`, nor the mode for faults of user space alone.
    #[error("no user fault descriptor: {0}")]
    Descriptor(Errno),
    /// The memory cannot be watched. `EBUSY`: it is already; `EINVAL`: it is no private anonymous
    /// or shared memory, or of huge pages (hugetlbfs), or not in whole pages.
    #[error("the memory cannot be watched: {0}")]
    Register(Errno),
    /// A thread or an event descriptor.
    #[error("no thread: {0}")]
    Thread(Errno),
}

struct State {
    pages: Pages,
    counts: PostCopyCounts,
    stop: bool,
}

/// What takes answers to page request groups.
type Answer = Box<dyn Fn(Handle, Response) + Send + Sync>;

struct Shared {
    area: Area,
    pasid: Option<Pasid>,
    source: Box<dyn PageSource>,
    answer: Answer,
    faults: OwnedFd,
    abilities: Abilities,
    /// Readable: the thread that reads faults is to end.
    ended: OwnedFd,
    state: Mutex<State>,
    /// There may be a page to fetch.
    work: Condvar,
    /// A page has come, or was lost.
    settled: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the page that `page` asks for, if it may.
    fn number(&self, page: &PageRequest) -> Option<usize> {
        let asked = page.access & (Access::RW | Access::EXEC);
        let offset = self.area.page(page.addr)?;
        let may = page.pasid == self.pasid && self.area.rights.contains(asked);
        may.then(|| offset / page_size())
    }
}

/// Memory whose pages arrive on demand.
///
/// [`resolver`](Self::resolver) answers the page requests of devices; threads need nothing. A group
/// is answered SUCCESS when all of its pages are in place, never before; INVALID if one is outside the
/// area, lacks the right, or the source failed it. The first error of a group is its answer. What
/// waits too long is answered by the engine at its deadline; the page comes all the same.
///
/// Dropping it ends the threads, after the fetches that are under way and their answers, and answers
/// INVALID what waits; not on the thread that takes the answers, for which these may have to wait.
/// From then on a page that never came reads as zeros: [`fetch_rest`](Self::fetch_rest) and
/// [`wait`](Self::wait) first, where anybody still uses the memory.
pub struct PostCopy {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for PostCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostCopy")
            .field("area", &self.shared.area)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl PostCopy {
    /// From now on the pages of `area` that nobody has touched come from `source`. Devices reach it
    /// as `pasid`.
    ///
    /// `answer` takes answers to groups that had to wait, from threads of this: it hands them to
    /// [`Engine::answer`](iopf::Engine::answer), where some may be stale. A panic of it is that group's
    /// alone.
    ///
    /// # Errors
    /// [`PostCopyError`].
    pub fn new(
        area: Area,
        pasid: Option<Pasid>,
        source: impl PageSource + 'static,
        limits: Limits,
        answer: impl Fn(Handle, Response) + Send + Sync + 'static,
    ) -> Result<Self, PostCopyError> {
        let (faults, abilities) = sys::userfault().map_err(PostCopyError::Descriptor)?;
        let ended = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(PostCopyError::Thread)?;
        sys::register(&faults, &area.memory).map_err(PostCopyError::Register)?;
        let count = area.memory.size() / page_size();
        let shared = Arc::new(Shared {
            area,
            pasid,
            source: Box::new(source),
            answer: Box::new(answer),
            faults,
            abilities,
            ended,
            state: Mutex::new(State {
                pages: Pages::new(count, limits.groups),
                counts: PostCopyCounts::default(),
                stop: false,
            }),
            work: Condvar::new(),
            settled: Condvar::new(),
        });
        let mut post_copy = Self {
            shared,
            threads: Vec::new(),
        };
        post_copy.spawn("post-copy faults", Shared::read_faults)?;
        for _ in 0..limits.workers.max(1) {
            post_copy.spawn("post-copy fetch", Shared::fetch_pages)?;
        }
        Ok(post_copy)
    }

    fn spawn(&mut self, name: &str, run: fn(&Shared)) -> Result<(), PostCopyError> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&shared))
            .map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                PostCopyError::Thread(errno)
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// What resolves the page requests of devices.
    #[must_use]
    pub fn resolver(&self) -> PostCopyResolver {
        PostCopyResolver(self.shared.clone())
    }

    /// The memory and what devices may do with it.
    #[must_use]
    pub fn area(&self) -> &Area {
        &self.shared.area
    }

    /// Whether faults are seen that the kernel meets on behalf of this process (a read(2) into the
    /// memory, pinning it). Where not, such a call fails with `EFAULT` at a missing page.
    #[must_use]
    pub fn sees_kernel_faults(&self) -> bool {
        self.shared.abilities.kernel_faults
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> PostCopyCounts {
        self.shared.state().counts
    }

    /// Pages still to come.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.shared.state().pages.missing()
    }

    /// Whether the page around `addr`, as the device sees it, is in place.
    #[must_use]
    pub fn is_present(&self, addr: Iova) -> bool {
        let page = self.shared.area.page(addr);
        let status = page.map(|at| self.shared.state().pages.status(at / page_size()));
        status == Some(Status::Present)
    }

    /// Fetches what nobody asks for as well, lowest address first, whenever a worker is free.
    pub fn fetch_rest(&self) {
        self.shared.state().pages.want_rest();
        self.shared.work.notify_all();
    }

    /// Waits until every page is in place or lost, `timeout` at most; whether it came to that.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let state = self.shared.state();
        let waited = self
            .shared
            .settled
            .wait_timeout_while(state, timeout, |s| s.pages.missing() > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.pages.missing() == 0
    }
}

impl Drop for PostCopy {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.state();
            state.stop = true;
            state.pages.close()
        };
        self.shared.work.notify_all();
        // It can only be full, and then it is readable.
        let _ = rustix::io::write(&self.shared.ended, &1u64.to_ne_bytes());
        self.shared.give(waiting, Response::Invalid);
        for thread in self.threads.drain(..) {
            // A panic in it was told already.
            let _ = thread.join();
        }
        // Not left to closing the descriptor: resolvers hold it too. It fails where the mapping is
        // gone, and then nobody waits.
        let _ = sys::unregister(&self.shared.faults, &self.shared.area.memory);
    }
}

/// Resolves the page requests of devices for a [`PostCopy`]. It never blocks. Unrecoverable faults
/// are logged.
#[derive(Clone)]
pub struct PostCopyResolver(Arc<Shared>);

impl fmt::Debug for PostCopyResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostCopyResolver")
    }
}

impl Resolver for PostCopyResolver {
    fn group(&mut self, group: &Group, pages: GroupPages<'_>) -> Decision {
        let shared = &self.0;
        let numbers = pages.clone().map(|page| shared.number(&page));
        if numbers.clone().any(|number| number.is_none()) {
            return Decision::Answer(Response::Invalid);
        }
        let mut state = shared.state();
        if state.stop {
            return Decision::Refuse;
        }
        let State {
            pages: all, counts, ..
        } = &mut *state;
        let mut asked = all.ask(group.handle, numbers.clone().flatten());
        if asked == Asked::Full {
            all.prune(|handle| pages.is_waiting(handle));
            asked = all.ask(group.handle, numbers.flatten());
        }
        match asked {
            Asked::Present => Decision::Answer(Response::Success),
            Asked::Gone => Decision::Answer(Response::Invalid),
            Asked::Full => {
                counts.refused += 1;
                Decision::Refuse
            }
            Asked::Waits => {
                counts.groups += 1;
                drop(state);
                shared.work.notify_all();
                Decision::Later
            }
        }
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}
