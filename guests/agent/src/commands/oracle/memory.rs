//! A kernel without memory for this process: fault injection.
//!
//! Source: Linux `Documentation/fault-injection/fault-injection.rst`, "failslab".

use crate::reply::{Context as _, Failure};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// The switches of the injection.
const FAILSLAB: &str = "/sys/kernel/debug/failslab";

/// Every allocation of a process that is to fail, whatever it could wait for; no word in the log.
const SETTINGS: [(&str, &str); 6] = [
    ("task-filter", "Y"),
    ("ignore-gfp-wait", "N"),
    ("interval", "1"),
    ("times", "-1"),
    ("verbose", "0"),
    ("probability", "100"),
];

/// Whether allocations for this thread fail.
const SWITCH: &str = "/proc/thread-self/make-it-fail";

/// The switch, off.
#[derive(Debug)]
pub(super) struct Memory(File);

impl Memory {
    pub(super) fn new() -> Result<Self, Failure> {
        for (name, value) in SETTINGS {
            let path = format!("{FAILSLAB}/{name}");
            fs::write(&path, value).context(path)?;
        }
        let switch = File::options().write(true).open(SWITCH);
        Ok(Self(switch.context(SWITCH)?))
    }

    /// What `call` comes to without memory.
    pub(super) fn without<T>(&self, call: impl FnOnce() -> T) -> Result<T, Failure> {
        self.0.write_all_at(b"1", 0).context(SWITCH)?;
        let came = call();
        self.0.write_all_at(b"0", 0).context(SWITCH)?;
        Ok(came)
    }
}
