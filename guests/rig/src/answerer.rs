//! Those who are compared: each waits for page requests and answers them.

use crate::Outcome;
use crate::mock::{Mock, again};
use iopf_host::{FaultFd, FaultQueue, RawAnswer, RawFault};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::OwnedFd;

/// Somebody who answers.
pub(crate) trait Answerer {
    /// Waits until there is something to answer, and answers; how many groups.
    fn turn(&mut self) -> Outcome<usize>;
}

/// The smallest loop that is right for groups of one page: poll, read, write.
#[derive(Debug)]
pub(crate) struct Smallest(pub(crate) OwnedFd);

/// The records of a read as bytes, without a crate's help.
const FAULT: usize = size_of::<RawFault>();

impl Answerer for Smallest {
    #[inline]
    fn turn(&mut self) -> Outcome<usize> {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None)?;
        let mut fault = [0; FAULT];
        if rustix::io::read(&self.0, &mut fault)? == 0 {
            return Ok(0);
        }
        // The cookie is the last word of the record.
        let [.., a, b, c, d] = fault;
        let answer = [a, b, c, d, 0, 0, 0, 0];
        debug_assert_eq!(RawAnswer::SUCCESS, 0);
        rustix::io::write(&self.0, &answer)?;
        Ok(1)
    }
}

/// Everyone who is compared.
pub(crate) const WHO: [&str; 2] = ["smallest", "queue"];

/// The answerer of that name, on this file.
pub(crate) fn named(who: &str, _: &Mock, file: &FaultFd) -> Outcome<Box<dyn Answerer>> {
    let file = again(file)?;
    Ok(match who {
        "smallest" => Box::new(Smallest(file)),
        "queue" => Box::new(Queue(FaultQueue::new(file.into()))),
        _ => return Err(format!("nobody is called {who}").into()),
    })
}

struct Queue(FaultQueue<FaultFd>);
impl Answerer for Queue {
    fn turn(&mut self) -> Outcome<usize> {
        poll(&mut [PollFd::new(self.0.file(), PollFlags::IN)], None)?;
        self.0.read(128)?;
        let mut n = 0;
        while let Some(group) = self.0.next_group() {
            let c = group?.cookie();
            self.0.answer(c, iopf::Response::Success);
            n += 1;
        }
        self.0.flush()?;
        Ok(n)
    }
}
