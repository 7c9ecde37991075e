//! The process that `iopf run --resolver forward` has decide.

use super::Command;
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use iopf::Response;
use iopf_host::FaultQueue;
use iopf_host::forward::ForwardedFile;
use iopf_host::queue::Read;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::path::Path;
use std::time::Duration;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "forwarded",
    usage: "forwarded SOCKET GROUPS",
    run: forwarded,
}];

/// How long anything may take.
const SOON: Duration = Duration::from_secs(30);

/// Pages that are read at once.
const ROOM: usize = 512;

/// Answers so many groups SUCCESS, and says them.
fn forwarded(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let path = args.word("SOCKET")?;
    let groups: usize = args.small("GROUPS")?;
    args.end()?;
    let file = ForwardedFile::connect(Path::new(path), SOON);
    let file = file.map_err(|error| Failure::new(error.to_string()))?;
    let mut queue = FaultQueue::new(file);
    let patience = Timespec::try_from(SOON).map_err(|_| rustix::io::Errno::INVAL)?;
    let mut answered = 0;
    while answered < groups {
        let mut ready = [PollFd::new(queue.file(), PollFlags::IN)];
        if poll(&mut ready, Some(&patience)).context("poll")? == 0 {
            return Err(Failure::new(format!("{answered} of {groups} groups came")));
        }
        let read = queue
            .read(ROOM)
            .map_err(|error| Failure::new(error.to_string()))?;
        if let Read::NoRoom = read {
            return Err(Failure::new("a group of more than 512 pages"));
        }
        let mut cookies = Vec::new();
        while let Some(group) = queue.next_group() {
            let group = group.map_err(|_| Failure::new("a malformed group"))?;
            let page = group.last([0; 2]);
            out.line(format_args!("group {} at {:#x}", page.group.0, page.addr.0));
            cookies.push(group.cookie());
        }
        for cookie in cookies {
            queue.answer(cookie, Response::Success);
            answered += 1;
        }
        queue
            .flush()
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(())
}
