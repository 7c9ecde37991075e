//! `iopf serve` as a process of its own, heard through its `--json`.

use super::DemoError;
use crate::guest::Builder;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How much of what it said an error shows.
const TAIL: usize = 20;

/// A running server. Dropping it ends the process, also on a panic.
pub(super) struct Server {
    child: Child,
    _dir: TempDir,
    lines: Receiver<Value>,
    /// Every event so far.
    pub(super) events: Vec<Value>,
}

impl Server {
    /// Starts it with one endpoint, and waits until it listens.
    pub(super) fn start(iopf: &Path, endpoint: &str) -> Result<Self, DemoError> {
        let dir = tempfile::Builder::new().prefix("iopf-demo").tempdir()?;
        let mut child = Command::new(iopf)
            .args([
                "serve",
                "--json",
                "--trace",
                "--endpoint",
                endpoint,
                "--dir",
            ])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| DemoError::Server {
                why: format!("starting {}: {error}", iopf.display()),
                said: String::new(),
            })?;
        let out = child.stdout.take();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines());
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut server = Self {
            child,
            _dir: dir,
            lines,
            events: Vec::new(),
        };
        server.wait("ready", Duration::from_secs(20))?;
        Ok(server)
    }

    /// Takes in what was said meanwhile.
    pub(super) fn catch_up(&mut self) {
        self.events.extend(self.lines.try_iter());
    }

    /// Waits for an event of this name, among all so far and those to come.
    pub(super) fn wait(&mut self, name: &str, patience: Duration) -> Result<Value, DemoError> {
        self.wait_for(name, 0, patience, |event| event["event"] == name)
    }

    /// Waits for a step of this name, among the events from `from` on.
    pub(super) fn wait_step(
        &mut self,
        step: &str,
        from: usize,
        patience: Duration,
    ) -> Result<Value, DemoError> {
        self.wait_for(step, from, patience, |event| event["step"] == step)
    }

    fn wait_for(
        &mut self,
        what: &str,
        from: usize,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, DemoError> {
        let deadline = Instant::now() + patience;
        let mut looked = from;
        loop {
            while let Some(event) = self.events.get(looked) {
                if wanted(event) {
                    return Ok(event.clone());
                }
                looked += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(event) => self.events.push(event),
                Err(why) => {
                    return Err(DemoError::Server {
                        why: format!("waiting for {what:?}: {why}"),
                        said: self.said(),
                    });
                }
            }
        }
    }

    /// The end of what it said, one event a line.
    pub(super) fn said(&self) -> String {
        let from = self.events.len().saturating_sub(TAIL);
        let lines = self.events[from..].iter().map(Value::to_string);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Gives a guest the functions and the DMAR table.
    pub(super) fn attach(&mut self, mut guest: Builder) -> Result<Builder, DemoError> {
        let ready = self.wait("ready", Duration::ZERO)?;
        for function in ready["functions"].as_array().into_iter().flatten() {
            let (place, socket) = (function["function"].as_str(), function["socket"].as_str());
            if let (Some(place), Some(socket)) = (place, socket) {
                guest = guest.device(Path::new(socket), place.trim_start_matches("00:"));
            }
        }
        // The rest of its words are the machine, which the guest brings.
        let words = ready["qemu"].as_array().into_iter().flatten();
        let mut words = words.filter_map(Value::as_str);
        let table = words.by_ref().skip_while(|word| *word != "-acpitable");
        Ok(guest.arguments(table.take(2).map(str::to_owned).collect::<Vec<_>>()))
    }

    /// Stops it as a user would; gives its last counts.
    pub(super) fn stop(mut self) -> Result<Value, DemoError> {
        let pid = rustix::process::Pid::from_child(&self.child);
        // One that has ended already is found out by waiting for its last word.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let last = self.wait("stopped", Duration::from_secs(20))?;
        Ok(last["counts"].clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped, and its folder goes as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(program: &str) -> String {
        match Server::start(Path::new(program), "dsa@07.0") {
            Ok(_) => panic!("{program} is no server"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let why = refused("/no/such/iopf");
        assert!(
            why.contains("starting /no/such/iopf: No such file"),
            "{why}"
        );
    }

    #[test]
    fn a_program_that_ends_without_a_word_is_not_waited_for() {
        let start = Instant::now();
        let why = refused("/bin/true");
        assert!(why.contains("waiting for \"ready\""), "{why}");
        assert!(start.elapsed() < Duration::from_secs(10), "{why}");
    }

    #[test]
    fn what_a_program_says_instead_is_shown() {
        // It repeats its arguments, which are no event.
        let why = refused("/bin/echo");
        assert!(
            why.contains("serve --json --trace --endpoint dsa@07.0"),
            "{why}"
        );
    }
}
