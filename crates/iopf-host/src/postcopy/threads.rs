//! The threads of a [`PostCopy`](super::PostCopy): one reads faults, the others fetch pages.

use super::pages::{Next, Status};
use super::{Shared, SourceError};
use crate::space::page_size;
use crate::sys;
use iopf::Response;
use iopf::engine::Handle;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Instant;

/// Bytes of `struct uffd_msg`: the event at 0, and of a page fault flags at 8 and the address at 16.
const MESSAGE: usize = 32;
/// `UFFD_EVENT_PAGEFAULT`.
const PAGE_FAULT: u8 = 0x12;
/// Messages read at a time.
const BATCH: usize = 16;

/// The address of a page fault.
fn fault_address(message: &[u8; MESSAGE]) -> Option<u64> {
    let [event, ..] = message;
    let address = message.get(16..)?.first_chunk()?;
    (*event == PAGE_FAULT).then(|| u64::from_ne_bytes(*address))
}

impl Shared {
    /// Reads faults until the end.
    pub(super) fn read_faults(&self) {
        let mut messages = [0; BATCH * MESSAGE];
        loop {
            let mut files = [
                PollFd::new(&self.faults, PollFlags::IN),
                PollFd::new(&self.ended, PollFlags::IN),
            ];
            match poll(&mut files, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            if !files[1].revents().is_empty() {
                return;
            }
            // `EAGAIN`: whoever faulted was woken meanwhile.
            let Ok(len) = rustix::io::read(&self.faults, &mut messages) else {
                continue;
            };
            let (read, _) = messages[..len].as_chunks::<MESSAGE>();
            for address in read.iter().filter_map(fault_address) {
                self.touched(address);
            }
        }
    }

    /// A thread waits for the page around `address` of this process.
    fn touched(&self, address: u64) {
        let base = self.area.memory.as_ptr().addr() as u64;
        let Ok(offset) = usize::try_from(address.wrapping_sub(base)) else {
            return;
        };
        let page = offset / page_size();
        let status = {
            let mut state = self.state();
            state.counts.touches += 1;
            state.pages.touch(page)
        };
        match status {
            // The page came while the message was on its way.
            Status::Present => self.wake(page),
            Status::Gone => self.poison(page),
            _ => self.work.notify_one(),
        }
    }

    fn wake(&self, page: usize) {
        let size = page_size();
        // It fails only where the mapping is gone, and whoever waited for it too.
        let _ = sys::wake(&self.faults, &self.area.memory, page * size, size);
    }

    fn poison(&self, page: usize) {
        if self.abilities.poison {
            let size = page_size();
            // `EEXIST`: it is poisoned already.
            let _ = sys::poison(&self.faults, &self.area.memory, page * size, size);
            self.wake(page);
        }
    }

    /// Fetches pages until the end.
    pub(super) fn fetch_pages(&self) {
        let mut bytes = vec![0; page_size()];
        while let Some(page) = self.next() {
            let offset = page * page_size();
            let fetch = || self.source.fetch(offset, &mut bytes);
            let fetched = catch_unwind(AssertUnwindSafe(fetch));
            match fetched.unwrap_or(Err(SourceError::NotNow)) {
                Ok(()) => match self.place(offset, &bytes) {
                    Ok(()) => self.placed(page),
                    Err(_) => self.failed(page, None),
                },
                Err(error) => self.failed(page, Some(error)),
            }
        }
    }

    /// The next page to fetch; `None` at the end.
    fn next(&self) -> Option<usize> {
        let mut state = self.state();
        loop {
            if state.stop {
                return None;
            }
            let now = Instant::now();
            state = match state.pages.next(now) {
                Next::Fetch(page) => return Some(page),
                Next::At(at) => {
                    let wait = at.saturating_duration_since(now);
                    let woken = self.work.wait_timeout(state, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                Next::Idle => {
                    let woken = self.work.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Puts a page in place, and wakes the threads that wait for it.
    fn place(&self, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        loop {
            match sys::copy(&self.faults, &self.area.memory, offset, bytes) {
                Ok(()) => return Ok(()),
                // It was there before it was watched.
                Err(Errno::EXIST) => {
                    self.wake(offset / page_size());
                    return Ok(());
                }
                // The mappings of this process are about to change.
                Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Answers groups.
    pub(super) fn give(&self, groups: Vec<Handle>, response: Response) {
        for group in groups {
            // Told by then, and no reason to leave others without their pages.
            let _ = catch_unwind(AssertUnwindSafe(|| (self.answer)(group, response)));
        }
    }

    fn placed(&self, page: usize) {
        let done = {
            let mut state = self.state();
            state.counts.fetched += 1;
            state.pages.placed(page)
        };
        self.give(done, Response::Success);
        self.settled.notify_all();
    }

    /// The page did not come, or (`None`) could not be put in place.
    fn failed(&self, page: usize, error: Option<SourceError>) {
        let lost = error == Some(SourceError::Lost);
        let failed = {
            let mut state = self.state();
            let counts = &mut state.counts;
            match error {
                Some(_) => counts.failures += 1,
                None => counts.misplaced += 1,
            }
            counts.lost += u64::from(lost);
            state.pages.failed(page, Instant::now(), lost)
        };
        if lost {
            self.poison(page);
            self.settled.notify_all();
        }
        self.give(failed, Response::Invalid);
        // It may be due again before what the others wait for.
        self.work.notify_one();
    }
}
