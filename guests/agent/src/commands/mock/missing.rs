//! What is said where something is missing.

use super::bench::Bench;
use crate::reply::{Done, Reply};
use iopf_host::{FaultQueueObject, Iommufd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;

/// Where the node goes for a while.
const NODE: &str = "/dev/iommu";
const AWAY: &str = "/dev/iommu-away";

/// No node, though the kernel has iommufd; a node of nothing; no descriptor left.
pub(super) fn missing(out: &mut Reply<'_>) -> Done {
    let say = |out: &mut Reply<'_>| match Iommufd::open() {
        Ok(_) => out.line("open"),
        Err(error) => out.line(error),
    };
    fs::rename(NODE, AWAY)?;
    say(out);
    // A character device that no driver has: the major number is for local use.
    let kind = rustix::fs::FileType::CharacterDevice;
    let (mode, number) = (rustix::fs::Mode::RUSR, rustix::fs::makedev(240, 0));
    let made = rustix::fs::mknodat(rustix::fs::CWD, NODE, kind, mode, number);
    if made.is_ok() {
        say(out);
        fs::remove_file(NODE)?;
    }
    fs::rename(AWAY, NODE)?;
    made?;
    say(out);

    let bench = Bench::new(out)?;
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..before
    };
    setrlimit(Resource::Nofile, none)?;
    let came = (
        Iommufd::open(),
        FaultQueueObject::new(&bench.iommufd),
        bench.queue(1),
    );
    setrlimit(Resource::Nofile, before)?;
    match came {
        (Err(open), Err(faults), Err(events)) => {
            bench.out.line(open);
            bench.out.line(faults);
            bench.out.line(events);
        }
        came => bench.out.line(format_args!("{came:?}")),
    }
    // Nothing was made that nobody knows of: there can still be one of its kind.
    bench.queue(1)?;
    bench
        .out
        .line(format_args!("{} left behind", bench.iommufd.left_behind()));
    Ok(())
}
