//! Sees every group come out of the fault descriptor and every answer go in.

use super::super::latency::Histogram;
use super::event::{Event, Events};
use super::memory::Memory;
use crate::quota::Quotas;
use crate::step::{Hex, Step};
use iopf::Access;
use iopf::engine::DeviceId;
use iopf_host::{Errno, FaultFd, FaultFile, RawAnswer, RawFault};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// The kernel's fault descriptor, with somebody who looks on.
#[derive(Debug)]
pub(super) struct Watched {
    file: FaultFd,
    watch: Arc<Watch>,
}

impl Watched {
    pub(super) fn new(file: FaultFd, watch: &Arc<Watch>) -> Self {
        Self {
            file,
            watch: watch.clone(),
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl FaultFile for Watched {
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let len = self.file.read(buffer)?;
        self.watch.read(&buffer[..len]);
        Ok(len)
    }

    fn write(&self, answers: &[u8]) -> Result<usize, Errno> {
        let mapped;
        let answers = match &self.watch.behind {
            // What another process has answered is true only once the pages are there.
            Some(memory) => {
                mapped = self.watch.mapped(memory, answers);
                &mapped[..]
            }
            None => answers,
        };
        let begun = self.watch.events.elapsed();
        let len = self.file.write(answers)?;
        self.watch.written(begun, &answers[..len]);
        Ok(len)
    }
}

/// A group that was read and not answered.
#[derive(Debug)]
struct Open {
    read: Duration,
    device: DeviceId,
    group: u32,
    pasid: Option<u32>,
    access: Access,
    pages: Vec<u64>,
}

/// What came of one device's faults.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) pages: u64,
    pub(super) groups: u64,
    pub(super) success: u64,
    pub(super) invalid: u64,
    pub(super) latency: Histogram,
}

#[derive(Debug, Default)]
struct Inner {
    /// By cookie.
    open: HashMap<u32, Open>,
    books: BTreeMap<DeviceId, Books>,
    quotas: Quotas,
}

/// What was read and written, by device.
#[derive(Debug)]
pub(super) struct Watch {
    events: Arc<Events>,
    names: BTreeMap<DeviceId, String>,
    trace: bool,
    behind: Option<Memory>,
    answered: AtomicU64,
    read: AtomicU64,
    inner: Mutex<Inner>,
}

impl Watch {
    /// Watches for devices of these names. `behind`: memory that is mapped where SUCCESS is written.
    pub(super) fn new(
        events: &Arc<Events>,
        names: BTreeMap<DeviceId, String>,
        trace: bool,
        behind: Option<Memory>,
    ) -> Arc<Self> {
        Arc::new(Self {
            events: events.clone(),
            names,
            trace,
            behind,
            answered: AtomicU64::new(0),
            read: AtomicU64::new(0),
            inner: Mutex::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Groups that were read, and those answered.
    pub(super) fn groups(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.read), of(&self.answered))
    }

    /// The books, and how many groups have no answer.
    pub(super) fn close(&self) -> (BTreeMap<DeviceId, Books>, u64) {
        let mut inner = self.inner();
        let open = inner.open.len() as u64;
        (std::mem::take(&mut inner.books), open)
    }

    pub(super) fn name(&self, id: DeviceId) -> String {
        let name = self.names.get(&id);
        name.cloned().unwrap_or_else(|| format!("device {}", id.0))
    }

    /// Says a step, with --trace.
    pub(super) fn step(
        &self,
        step: &'static str,
        id: DeviceId,
        group: u32,
        note: impl FnOnce() -> String,
    ) {
        if self.trace {
            self.step_at(self.events.elapsed(), step, id, group, note());
        }
    }

    fn step_at(&self, at: Duration, step: &'static str, id: DeviceId, group: u32, note: String) {
        self.events.say(Event::Step(Step {
            nanos: nanos(at),
            step,
            device: Some(self.name(id)),
            group: Some(group),
            note,
        }));
    }

    fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now = self.events.elapsed();
        let mut inner = self.inner();
        for record in bytes.chunks_exact(size_of::<RawFault>()) {
            let Ok(fault) = RawFault::read_from_bytes(record) else {
                continue;
            };
            let id = DeviceId(fault.dev_id);
            let access = fault.request([0; 2]).access;
            let pasid = (fault.flags & RawFault::PASID_VALID != 0).then_some(fault.pasid);
            let new = || Open {
                read: now,
                device: id,
                group: fault.grpid,
                pasid,
                access,
                pages: Vec::new(),
            };
            // All pages of a group come in one read, one behind the other. An older group of this
            // cookie was answered by the kernel itself.
            let open = inner.open.entry(fault.cookie).or_insert_with(new);
            if open.read != now {
                *open = new();
            }
            open.access |= access;
            open.pages.push(fault.addr);
            let (pages, last) = (open.pages.len(), fault.is_last());
            let books = inner.books.entry(id).or_default();
            books.pages += 1;
            if last {
                books.groups += 1;
                self.read.fetch_add(1, Ordering::Relaxed);
                if self.trace {
                    let note = format!("{access} at {:#x}, {pages} pages", fault.addr);
                    self.step_at(now, "fault read", id, fault.grpid, note);
                }
            }
        }
    }

    /// The answers, with INVALID where the pages of a SUCCESS could not be mapped.
    fn mapped(&self, memory: &Memory, answers: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(answers.len());
        for record in answers.chunks_exact(size_of::<RawAnswer>()) {
            let Ok(mut answer) = RawAnswer::read_from_bytes(record) else {
                continue;
            };
            if answer.code == RawAnswer::SUCCESS {
                let open = self.inner().open.remove(&answer.cookie);
                if let Some(open) = open {
                    let done = memory.populate(open.access, open.pages.iter().copied());
                    if done.is_err() {
                        answer.code = RawAnswer::INVALID;
                    } else {
                        self.step("IOAS_MAP done", open.device, open.group, String::new);
                    }
                    self.inner().open.insert(answer.cookie, open);
                }
            }
            out.extend(answer.as_bytes());
        }
        out
    }

    fn written(&self, begun: Duration, bytes: &[u8]) {
        let now = self.events.elapsed();
        let mut inner = self.inner();
        let inner = &mut *inner;
        for record in bytes.chunks_exact(size_of::<RawAnswer>()) {
            let Ok(answer) = RawAnswer::read_from_bytes(record) else {
                continue;
            };
            let Some(open) = inner.open.remove(&answer.cookie) else {
                continue;
            };
            self.answered.fetch_add(1, Ordering::Relaxed);
            let took = now.saturating_sub(open.read);
            let books = inner.books.entry(open.device).or_default();
            books.latency.add(took);
            let said = match answer.code {
                RawAnswer::SUCCESS => {
                    books.success += 1;
                    "SUCCESS"
                }
                _ => {
                    books.invalid += 1;
                    "INVALID"
                }
            };
            if self.trace {
                let (id, group) = (open.device, open.group);
                self.step_at(begun, "answer on its way", id, group, said.to_owned());
                self.step_at(now, "answer written", id, group, said.to_owned());
            }
            let device = self.name(open.device);
            let may = inner.quotas.take(now, &device);
            self.unsaid(&mut inner.quotas, now);
            if may {
                self.events.say(Event::Fault {
                    device,
                    group: open.group,
                    pasid: open.pasid,
                    access: open.access.to_string(),
                    address: Hex(open.pages.first().copied().unwrap_or_default()),
                    pages: open.pages.len() as u64,
                    answer: said,
                    nanos: nanos(took),
                });
            }
        }
    }

    fn unsaid(&self, quotas: &mut Quotas, now: Duration) {
        for (device, count) in quotas.handle_timeout(now) {
            self.events.say(Event::Unsaid { device, count });
        }
    }

    /// Says the counts of lines of the intervals that are over; at [`Duration::MAX`] all are.
    pub(super) fn end_intervals(&self, now: Duration) {
        self.unsaid(&mut self.inner().quotas, now);
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
