//! Faults that are put in on purpose: an allocation of the kernel's that fails, a descriptor that is
//! not to be had.
//!
//! Source: Linux, `Documentation/fault-injection/fault-injection.rst`, "Systematic faults using
//! fail-nth".

use crate::Outcome;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Where the knobs of fault injection are.
const DEBUG: &str = "/sys/kernel/debug";

/// The knobs of this thread: the n-th allocation from now on fails, or all do.
#[derive(Debug)]
pub(crate) struct Failing {
    nth: File,
    all: File,
}

impl Failing {
    /// Sets fault injection up: every allocation of slabs may fail, also one that could wait, and
    /// the kernel does not tell of each.
    pub(crate) fn new() -> Outcome<Self> {
        // All allocations fail, of a thread that was chosen.
        for (knob, value) in [
            ("ignore-gfp-wait", "N"),
            ("task-filter", "Y"),
            ("probability", "100"),
            ("times", "-1"),
        ] {
            let knob = Path::new(DEBUG).join("failslab").join(knob);
            std::fs::write(&knob, value).map_err(|e| format!("{}: {e}", knob.display()))?;
        }
        for kind in ["failslab", "fail_iommufd"] {
            std::fs::write(Path::new(DEBUG).join(kind).join("verbose"), "0")?;
        }
        let mut knob = File::options();
        let knob = knob.read(true).write(true);
        Ok(Self {
            nth: knob.open("/proc/thread-self/fail-nth")?,
            all: knob.open("/proc/thread-self/make-it-fail")?,
        })
    }

    /// Does `act` with its n-th allocation in the kernel failing, from 1 on. Says whether there was
    /// an n-th.
    pub(crate) fn nth<T>(&self, n: u32, act: impl FnOnce() -> T) -> Outcome<(T, bool)> {
        // Nothing of ours allocates between here and `act`.
        let mut left = [0; 16];
        let text = n.to_string();
        self.nth.write_all_at(text.as_bytes(), 0)?;
        let came = act();
        let len = self.nth.read_at(&mut left, 0);
        self.nth.write_all_at(b"0", 0)?;
        let left = std::str::from_utf8(&left[..len?])?.trim().parse::<u32>()?;
        Ok((came, left == 0))
    }
}

impl Failing {
    /// Does `act` while the kernel has no memory at all for this thread.
    pub(crate) fn all<T>(&self, act: impl FnOnce() -> T) -> Outcome<T> {
        self.all.write_all_at(b"1", 0)?;
        let came = act();
        self.all.write_all_at(b"0", 0)?;
        Ok(came)
    }
}

/// Does `act` while no further descriptor is to be had.
pub(crate) fn without_descriptors<T>(act: impl FnOnce() -> T) -> Outcome<T> {
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        maximum: before.maximum,
    };
    setrlimit(Resource::Nofile, none)?;
    let came = act();
    setrlimit(Resource::Nofile, before)?;
    Ok(came)
}

/// Open descriptors of this process.
pub(crate) fn descriptors() -> Outcome<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
