//! A QEMU process with the files it writes.

use super::GuestError;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How much of a log an error shows.
const TAIL: usize = 40;

/// How often a file or a process is looked at while waiting for it.
const PAUSE: Duration = Duration::from_millis(5);

/// A running QEMU. Dropping it ends the process, also on a panic.
#[derive(Debug)]
pub(super) struct Machine {
    child: Mutex<Child>,
    dir: TempDir,
}

impl Machine {
    /// The directory for everything of one machine.
    pub(super) fn directory() -> Result<TempDir, GuestError> {
        Ok(tempfile::Builder::new().prefix("iopf-guest").tempdir()?)
    }

    /// The kernel's console, or what firmware says where there is no kernel.
    pub(super) fn console(dir: &Path) -> PathBuf {
        dir.join("console.log")
    }

    /// QEMU's standard error.
    pub(super) fn errors(dir: &Path) -> PathBuf {
        dir.join("qemu.log")
    }

    pub(super) fn new(child: Child, dir: TempDir) -> Self {
        Self {
            child: Mutex::new(child),
            dir,
        }
    }

    /// How QEMU ended, if it did.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().ok().flatten()
    }

    pub(super) fn pid(&self) -> u32 {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.id()
    }

    /// Ends QEMU and waits for it.
    pub(super) fn stop(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself; either way it is reaped.
        let _ = child.kill();
        let _ = child.wait();
    }

    pub(super) fn log(&self) -> String {
        let text = fs::read(Self::console(self.dir.path())).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\r', "")
    }

    pub(super) fn wait_log(&self, text: &str, patience: Duration) -> Result<String, GuestError> {
        let deadline = Instant::now() + patience;
        loop {
            // In this order: what was written before the end is seen.
            let ended = self.ended();
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if ended.is_some() || Instant::now() > deadline {
                let why = format!("no such line in {} s", patience.as_secs_f32());
                return Err(self.down(text, why));
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(super) fn wait_end(&self, patience: Duration) -> Result<(), GuestError> {
        let deadline = Instant::now() + patience;
        while self.ended().is_none() {
            if Instant::now() > deadline {
                return Err(self.down("the end", format!("it still runs after {patience:?}")));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The error for something that was waited for in vain.
    pub(super) fn down(&self, waiting: &str, why: impl ToString) -> GuestError {
        let mut why = why.to_string();
        // A socket closes a moment before its process can be waited for.
        let started = Instant::now();
        while self.ended().is_none() && started.elapsed() < 20 * PAUSE {
            std::thread::sleep(PAUSE);
        }
        if let Some(status) = self.ended() {
            why += &format!(" (QEMU ended with {status})");
        }
        let said = fs::read(Self::errors(self.dir.path())).unwrap_or_default();
        GuestError::Down {
            waiting: waiting.to_owned(),
            why,
            said: tail(&String::from_utf8_lossy(&said), 5),
            log: tail(&self.log(), TAIL),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last lines of a text.
fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
