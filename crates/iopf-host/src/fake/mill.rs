//! A fault file for benches: next to no work of its own, and nothing allocated.

use crate::record::{RawAnswer, RawFault};
use crate::{Errno, FaultFile};
use rustix::event::{EventfdFlags, eventfd};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use zerocopy::IntoBytes;

/// Grinds out groups of one page, as many at a time as it is told. It is always readable, so that
/// poll(2) never waits. Clones are the same file.
#[derive(Clone, Debug)]
pub struct Mill(Rc<State>);

#[derive(Debug)]
struct State {
    ready: OwnedFd,
    page: RawFault,
    waiting: Cell<u32>,
    reads: Cell<u64>,
    writes: Cell<u64>,
    answered: Cell<u64>,
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

impl Mill {
    /// Groups of the device `dev_id`.
    ///
    /// # Panics
    /// Without a descriptor to spare.
    #[must_use]
    pub fn new(dev_id: u32) -> Self {
        let ready = eventfd(1, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        Self(Rc::new(State {
            ready: ready.expect("a descriptor"),
            page: RawFault {
                flags: RawFault::LAST_PAGE,
                dev_id,
                perm: 3,
                addr: 0x1000,
                ..RawFault::default()
            },
            waiting: Cell::new(0),
            reads: Cell::new(0),
            writes: Cell::new(0),
            answered: Cell::new(0),
        }))
    }

    /// So many groups wait to be read, with the cookies from 1 on.
    pub fn supply(&self, groups: u32) {
        self.0.waiting.set(groups);
    }

    /// Calls of read, calls of write, and answers taken.
    #[must_use]
    pub fn calls(&self) -> (u64, u64, u64) {
        (
            self.0.reads.get(),
            self.0.writes.get(),
            self.0.answered.get(),
        )
    }
}

impl AsFd for Mill {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.ready.as_fd()
    }
}

impl FaultFile for Mill {
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        const RECORD: usize = size_of::<RawFault>();
        add(&self.0.reads, 1);
        let mut done = 0;
        let mut cookie = self.0.waiting.get();
        for room in buffer.as_chunks_mut::<RECORD>().0 {
            if cookie == 0 {
                break;
            }
            let page = RawFault {
                cookie,
                ..self.0.page
            };
            room.copy_from_slice(page.as_bytes());
            cookie -= 1;
            done += RECORD;
        }
        self.0.waiting.set(cookie);
        Ok(done)
    }

    fn write(&self, answers: &[u8]) -> Result<usize, Errno> {
        add(&self.0.writes, 1);
        add(
            &self.0.answered,
            (answers.len() / size_of::<RawAnswer>()) as u64,
        );
        Ok(answers.len())
    }
}
