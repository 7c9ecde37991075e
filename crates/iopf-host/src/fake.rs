//! A fault file in memory, for tests and benches: it does as the kernel's until it is told not to.
//!
//! Inside are an [`Engine`] under [`Policy::linux`] and [`Forward`], which the project holds against
//! the kernel itself.

mod mill;

pub use mill::Mill;

use crate::{Errno, FaultFile};
use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy, Reported, Tick};
use iopf::resolve::{Forward, serve};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The file. Clones are the same file, so that a test keeps one.
#[derive(Clone, Debug)]
pub struct FakeFile {
    ready: Arc<OwnedFd>,
    state: Arc<Mutex<State>>,
}

/// What the next read does instead of its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadRead {
    /// Fails, and changes nothing.
    Fail(Errno),
    /// Gives these bytes, cut to the buffer, and changes nothing.
    Bytes(Vec<u8>),
    /// Does its work, and claims so many bytes fewer.
    Short(usize),
}

/// What the next write does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadWrite {
    /// Fails, and changes nothing.
    Fail(Errno),
    /// Takes so many bytes at most.
    Take(usize),
    /// Does its work, and claims so many bytes.
    Claim(usize),
}

/// How a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What [`FakeFile::fault`] returned.
    pub group: u64,
    /// The answer.
    pub response: Response,
    /// The file itself gave it: nothing took the group, or a detach was faster.
    pub by_kernel: bool,
}

/// Calls made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Of read.
    pub reads: u64,
    /// Of write.
    pub writes: u64,
    /// Answers that named no waiting group, or no code.
    pub refused: u64,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    forward: Forward,
    /// A domain for each device and PASID, never the same twice.
    domains: HashMap<(u32, Option<Pasid>), DomainId>,
    last_domain: u32,
    groups: u64,
    bad_reads: VecDeque<BadRead>,
    bad_writes: VecDeque<BadWrite>,
    ended: Vec<Ended>,
    calls: Calls,
    readable: bool,
}

impl State {
    /// Notes the answers given since the last time.
    fn note(&mut self, by_kernel: bool) {
        while let Some(answer) = self.engine.poll_answer() {
            self.ended.push(Ended {
                group: answer.private_data[0],
                response: answer.response,
                by_kernel,
            });
        }
    }

    fn report(&mut self, dev_id: u32, page: PageRequest) {
        let fault = Fault::PageRequest(page);
        let reported = self.engine.report(Tick(0), DeviceId(dev_id), &fault);
        // The kernel answers pages before the last too, where nothing takes them.
        if let Ok(Reported::Answered(answer, _)) = reported
            && page.last
        {
            self.ended.push(Ended {
                group: answer.private_data[0],
                response: answer.response,
                by_kernel: true,
            });
        }
        serve(&mut self.engine, Tick(0), &mut self.forward, usize::MAX);
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.calls.reads += 1;
        let less = match self.bad_reads.pop_front() {
            Some(BadRead::Fail(error)) => return Err(error),
            Some(BadRead::Bytes(bytes)) => {
                let len = bytes.len().min(buffer.len());
                buffer[..len].copy_from_slice(&bytes[..len]);
                return Ok(len);
            }
            Some(BadRead::Short(less)) => less,
            None => 0,
        };
        let read = self.forward.read_into(&self.engine, buffer);
        read.map(|bytes| bytes.saturating_sub(less))
            .map_err(|error| Errno::from_raw_os_error(error.errno()))
    }

    fn write(&mut self, answers: &[u8]) -> Result<usize, Errno> {
        self.calls.writes += 1;
        let (most, claim) = match self.bad_writes.pop_front() {
            Some(BadWrite::Fail(error)) => return Err(error),
            Some(BadWrite::Take(bytes)) => (bytes.min(answers.len()), None),
            Some(BadWrite::Claim(bytes)) => (answers.len(), Some(bytes)),
            None => (answers.len(), None),
        };
        let engine = &mut self.engine;
        let taken = self.forward.write_from(Tick(0), engine, &answers[..most]);
        self.note(false);
        self.calls.refused += u64::from(taken.is_err());
        let taken = taken.map_err(|error| Errno::from_raw_os_error(error.errno()));
        claim.map_or(taken, Ok)
    }
}

impl Default for FakeFile {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeFile {
    /// A file without groups.
    ///
    /// # Panics
    /// Without a descriptor to spare.
    #[must_use]
    pub fn new() -> Self {
        let policy = Policy::linux();
        let ready = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        Self {
            ready: Arc::new(ready.expect("a descriptor")),
            state: Arc::new(Mutex::new(State {
                engine: Engine::new(policy),
                forward: Forward::new(&policy),
                domains: HashMap::new(),
                last_domain: 0,
                groups: 0,
                bad_reads: VecDeque::new(),
                bad_writes: VecDeque::new(),
                ended: Vec::new(),
                calls: Calls::default(),
                readable: false,
            })),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let state: MutexGuard<'_, State> =
            self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = state;
        let result = act(&mut state);
        let state = &mut *state;
        let ready = state.forward.is_readable(&state.engine) || !state.bad_reads.is_empty();
        if ready != state.readable {
            state.readable = ready;
            // One of the two always finds the count as it left it, so neither can fail.
            let _ = if ready {
                rustix::io::write(&*self.ready, &1u64.to_ne_bytes())
            } else {
                rustix::io::read(&*self.ready, &mut [0; 8])
            };
        }
        result
    }

    /// Attaches an address space of a device to a page table that takes page requests.
    pub fn attach(&self, dev_id: u32, pasid: Option<Pasid>) {
        self.with(|state| {
            let device = DeviceId(dev_id);
            // It may be there already.
            let _ = state.engine.add_device(device, DeviceConfig::default());
            state.last_domain += 1;
            let domain = DomainId(state.last_domain);
            let attached = state.engine.attach(device, pasid, Attachment::new(domain));
            if attached.is_ok() {
                state.domains.insert((dev_id, pasid), domain);
            }
        });
    }

    /// Detaches it, and answers its groups INVALID; how many.
    pub fn detach(&self, dev_id: u32, pasid: Option<Pasid>) -> usize {
        self.with(|state| {
            let device = DeviceId(dev_id);
            let Some(domain) = state.domains.remove(&(dev_id, pasid)) else {
                return 0;
            };
            // It is attached: the table of domains says so.
            let _ = state.engine.detach(Tick(0), device, pasid);
            let engine = &mut state.engine;
            let ended = state.forward.detached(Tick(0), engine, device, domain);
            state.note(true);
            ended
        })
    }

    /// A device asks for `pages` pages in one group; the number of the group, from 0 on.
    pub fn fault(&self, dev_id: u32, pasid: Option<Pasid>, pages: u32) -> u64 {
        self.with(|state| {
            let group = state.groups;
            state.groups += 1;
            for page in 1..=pages {
                state.report(
                    dev_id,
                    PageRequest {
                        pasid,
                        group: GroupIndex(7),
                        addr: Iova(u64::from(page) << 12),
                        access: Access::RW,
                        last: page == pages,
                        response_needs_pasid: pasid.is_some(),
                        private_data: [group, 0],
                    },
                );
            }
            group
        })
    }

    /// A device sends one page request. As the last of its group it ends in [`ended`](Self::ended)
    /// under the first number of its private data.
    pub fn page(&self, dev_id: u32, page: PageRequest) {
        self.with(|state| state.report(dev_id, page));
    }

    /// The next reads, in order, do this instead.
    pub fn bad_reads(&self, bad: impl IntoIterator<Item = BadRead>) {
        self.with(|state| state.bad_reads.extend(bad));
    }

    /// The next writes, in order, do this instead.
    pub fn bad_writes(&self, bad: impl IntoIterator<Item = BadWrite>) {
        self.with(|state| state.bad_writes.extend(bad));
    }

    /// How groups ended since the last call, in order.
    #[must_use]
    pub fn ended(&self) -> Vec<Ended> {
        self.with(|state| std::mem::take(&mut state.ended))
    }

    /// Groups that nobody has answered: not read yet, and read.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.with(|state| state.forward.held())
    }

    /// Calls made so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.with(|state| state.calls)
    }
}

impl AsFd for FakeFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

impl FaultFile for FakeFile {
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        self.with(|state| state.read(buffer))
    }

    fn write(&self, answers: &[u8]) -> Result<usize, Errno> {
        self.with(|state| state.write(answers))
    }
}
