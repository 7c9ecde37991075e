//! Our end of the agent's command channel; `guests/agent/src/main.rs` says what it carries.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// What a command said and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its lines.
    pub lines: Vec<String>,
    /// 0 for success, else an error number of Linux, the exit code of a program, or 1.
    pub status: i32,
}

impl Output {
    /// The value of the first `name=value` among the words of all lines.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let words = self.lines.iter().flat_map(|line| line.split(' '));
        words
            .filter_map(|word| word.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// What the agent says when it comes up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// Seconds since the kernel started, as it counts.
    pub uptime: String,
    /// What did not work while coming up; empty if all did.
    pub failed: String,
}

impl Hello {
    fn parse(line: &str) -> Option<Self> {
        let (line, failed) = line.split_once(" failed=").unwrap_or((line, ""));
        let mut hello = Self {
            failed: failed.to_owned(),
            ..Self::default()
        };
        let mut words = line.split(' ');
        if (words.next(), words.next()) != (Some("*"), Some("hello")) {
            return None;
        }
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "release" => value.clone_into(&mut hello.release),
                "uptime" => value.clone_into(&mut hello.uptime),
                _ => {}
            }
        }
        Some(hello)
    }
}

/// The host's end of the channel.
#[derive(Debug)]
pub(super) struct Control {
    stream: UnixStream,
    /// What came and is not a whole line yet.
    pending: Vec<u8>,
    hellos: Vec<Hello>,
    last: u64,
}

impl Control {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            stream,
            pending: Vec::new(),
            hellos: Vec::new(),
            last: 0,
        })
    }

    /// Waits for the agent to come up.
    pub(super) fn hello(&mut self, deadline: Instant) -> io::Result<Hello> {
        loop {
            if !self.hellos.is_empty() {
                return Ok(self.hellos.remove(0));
            }
            // An answer that nobody waits for any more.
            let _ = self.line(deadline)?;
        }
    }

    /// Sends a command; gives its number.
    pub(super) fn send(&mut self, command: &str) -> io::Result<u64> {
        if command.contains('\n') {
            return Err(io::Error::other("a command is one line"));
        }
        self.last += 1;
        let line = format!("{} {command}\n", self.last);
        self.stream.write_all(line.as_bytes())?;
        Ok(self.last)
    }

    /// Sends a command and waits for its answer.
    pub(super) fn run(&mut self, command: &str, deadline: Instant) -> io::Result<Output> {
        let mut lines = Vec::new();
        let status = self.stream(command, deadline, &mut |line| lines.push(line.to_owned()))?;
        Ok(Output { lines, status })
    }

    /// Sends a command, gives its lines on as they come, and waits for its status.
    pub(super) fn stream(
        &mut self,
        command: &str,
        deadline: Instant,
        each: &mut dyn FnMut(&str),
    ) -> io::Result<i32> {
        let id = self.send(command)?.to_string();
        loop {
            let line = self.line(deadline)?;
            let Some(rest) = line
                .strip_prefix(&id)
                .and_then(|rest| rest.strip_prefix(' '))
            else {
                continue;
            };
            if let Some(text) = rest.strip_prefix("| ") {
                each(text);
            } else if let Some(status) = rest.strip_prefix("= ") {
                return status.parse().map_err(|_| io::Error::other(line.clone()));
            }
        }
    }

    /// The next line that is not a hello.
    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end_matches(['\r', '\n']).to_owned();
                match Hello::parse(&line) {
                    Some(hello) => self.hellos.push(hello),
                    None => return Ok(line),
                }
                // The caller may have waited for just this.
                return Ok(String::new());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.pending.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
