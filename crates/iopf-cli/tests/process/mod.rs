//! What a process holds, as `/proc` counts it.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// Memory in KiB, threads and descriptors of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Memory that is there now (VmRSS): with the pages of the guest that it has touched.
    pub(crate) resident: u64,
    /// The most that ever was (VmHWM).
    pub(crate) peak: u64,
    /// Of what is there now, memory that is the process's own (RssAnon).
    pub(crate) own: u64,
    /// Entries of `/proc/PID/task`.
    pub(crate) threads: usize,
    /// Entries of `/proc/PID/fd`.
    pub(crate) descriptors: usize,
}

impl Usage {
    /// Looks at process `pid`, which must be there.
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next());
            value.and_then(|value| value.parse().ok()).expect("a size")
        };
        let count = |folder: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/{folder}"));
            entries.expect("it runs").count()
        };
        Self {
            resident: kib("VmRSS:"),
            peak: kib("VmHWM:"),
            own: kib("RssAnon:"),
            threads: count("task"),
            descriptors: count("fd"),
        }
    }

    /// Looks until threads and descriptors are as wanted: what a connection leaves goes a moment
    /// after it is said to be gone. Gives what is there in the end.
    pub(crate) fn settled(pid: u32, wanted: (usize, usize)) -> Self {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let usage = Self::of(pid);
            if usage.held() == wanted || Instant::now() > deadline {
                return usage;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Threads and descriptors.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.threads, self.descriptors)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VmRSS {} KiB ({} of its own), VmHWM {} KiB, {} threads, {} descriptors",
            self.resident, self.own, self.peak, self.threads, self.descriptors
        )
    }
}
