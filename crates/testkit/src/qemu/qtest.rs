//! A client for QEMU's qtest protocol: a machine without a guest, driven from outside.
//!
//! Source: QEMU `system/qtest.c`, the comment "QTest Protocol". One line a command, one line an
//! answer, in order; `IRQ` lines may come between answers.

use super::root::QemuRoot;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[cfg(test)]
mod tests;

/// Commands that may wait for their answers. QEMU stops reading commands while nobody reads its
/// answers, so an unbounded burst would stop both sides.
const IN_FLIGHT: usize = 256;

/// How long QEMU may take to connect, or to answer one command.
const PATIENCE: Duration = Duration::from_secs(20);

/// What went wrong between us and QEMU.
#[derive(Debug, thiserror::Error)]
pub enum QtestError {
    /// QEMU could not be started, or its socket could not be made.
    #[error("starting QEMU: {0}")]
    Start(io::Error),
    /// QEMU ended or stopped talking.
    #[error("QEMU did not answer {waiting:?}: {why}; it said: {said}")]
    Silent {
        /// The oldest command without an answer.
        waiting: String,
        /// What the socket said.
        why: io::Error,
        /// The end of QEMU's standard error.
        said: String,
    },
    /// An answer that is not `OK`.
    #[error("QEMU answered {command:?} with {answer:?}")]
    Refused {
        /// The command.
        command: String,
        /// The line that came back.
        answer: String,
    },
}

/// A running QEMU under qtest. Dropping it ends the process, also on a panic.
#[derive(Debug)]
pub struct Qtest {
    child: Child,
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    outgoing: Vec<u8>,
    waiting: VecDeque<String>,
    dir: TempDir,
}

impl Qtest {
    /// Starts QEMU with `args` and no devices of its own, and waits for it to connect.
    ///
    /// # Errors
    /// Where it does not start or does not connect in time.
    pub fn start(root: &QemuRoot, args: &[&str]) -> Result<Self, QtestError> {
        let dir = tempfile::Builder::new()
            .prefix("iopf-qtest")
            .tempdir()
            .map_err(QtestError::Start)?;
        let socket = dir.path().join("qtest.sock");
        let listener = UnixListener::bind(&socket).map_err(QtestError::Start)?;
        let errors = File::create(dir.path().join("stderr")).map_err(QtestError::Start)?;
        let mut command = root.command();
        command
            .args(["-nodefaults", "-display", "none", "-accel", "qtest"])
            .arg("-qtest")
            .arg(format!("unix:{}", socket.display()))
            .args(["-qtest-log", "/dev/null"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        let mut child = command.spawn().map_err(QtestError::Start)?;
        let connected = connect(&listener, &mut child).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok((stream.try_clone()?, stream))
        });
        match connected {
            Ok((reader, writer)) => Ok(Self::over(child, reader, writer, dir)),
            Err(why) => {
                end(&mut child);
                Err(QtestError::Silent {
                    waiting: "the connection".to_owned(),
                    why,
                    said: last_words(dir.path().join("stderr")),
                })
            }
        }
    }

    fn over(child: Child, reader: UnixStream, writer: UnixStream, dir: TempDir) -> Self {
        Self {
            child,
            reader: BufReader::new(reader),
            writer,
            outgoing: Vec::new(),
            waiting: VecDeque::new(),
            dir,
        }
    }

    /// Writes a 64-bit word at physical address `at`.
    ///
    /// Writes are sent in bursts; their errors surface at a later call.
    ///
    /// # Errors
    /// Where QEMU no longer answers.
    pub fn writeq(&mut self, at: u64, value: u64) -> Result<(), QtestError> {
        self.post(format!("writeq {at:#x} {value:#x}"))
    }

    /// Writes a 32-bit word at physical address `at`.
    ///
    /// # Errors
    /// Where QEMU no longer answers.
    pub fn writel(&mut self, at: u64, value: u32) -> Result<(), QtestError> {
        self.post(format!("writel {at:#x} {value:#x}"))
    }

    /// Writes a 32-bit word to an x86 I/O port.
    ///
    /// # Errors
    /// Where QEMU no longer answers.
    pub fn outl(&mut self, port: u16, value: u32) -> Result<(), QtestError> {
        self.post(format!("outl {port:#x} {value:#x}"))
    }

    /// Lets `nanoseconds` of the machine's time pass.
    ///
    /// # Errors
    /// Where QEMU no longer answers.
    pub fn clock_step(&mut self, nanoseconds: u64) -> Result<(), QtestError> {
        self.post(format!("clock_step {nanoseconds}"))
    }

    /// Reads a 64-bit word at physical address `at`.
    ///
    /// # Errors
    /// Where QEMU refused this or an earlier command, or no longer answers.
    pub fn readq(&mut self, at: u64) -> Result<u64, QtestError> {
        Ok(self.reads(&[Read::Quad(at)])?[0])
    }

    /// Reads a 32-bit word at physical address `at`.
    ///
    /// # Errors
    /// Where QEMU refused this or an earlier command, or no longer answers.
    pub fn readl(&mut self, at: u64) -> Result<u64, QtestError> {
        Ok(self.reads(&[Read::Long(at)])?[0])
    }

    /// Reads several words in one round trip; the values come in the order asked for.
    ///
    /// # Errors
    /// Where QEMU refused this or an earlier command, or no longer answers.
    pub fn reads(&mut self, list: &[Read]) -> Result<Vec<u64>, QtestError> {
        let mut values = Vec::with_capacity(list.len());
        for part in list.chunks(IN_FLIGHT / 2) {
            self.settle()?;
            for read in part {
                self.post(match read {
                    Read::Quad(at) => format!("readq {at:#x}"),
                    Read::Long(at) => format!("readl {at:#x}"),
                })?;
            }
            self.flush()?;
            while let Some((command, answer)) = self.answer()? {
                let hex = answer.strip_prefix("OK 0x").map(str::trim);
                let value = hex.and_then(|hex| u64::from_str_radix(hex, 16).ok());
                values.push(value.ok_or(QtestError::Refused { command, answer })?);
            }
        }
        Ok(values)
    }

    /// Waits until every command so far is done.
    ///
    /// # Errors
    /// Where QEMU refused one of them, or no longer answers.
    pub fn settle(&mut self) -> Result<(), QtestError> {
        self.flush()?;
        while let Some((command, answer)) = self.answer()? {
            if !answer.starts_with("OK") {
                return Err(QtestError::Refused { command, answer });
            }
        }
        Ok(())
    }

    /// The end of what QEMU wrote to its standard error.
    #[must_use]
    pub fn said(&self) -> String {
        last_words(self.dir.path().join("stderr"))
    }

    fn post(&mut self, command: String) -> Result<(), QtestError> {
        if self.waiting.len() >= IN_FLIGHT {
            self.settle()?;
        }
        self.outgoing.extend_from_slice(command.as_bytes());
        self.outgoing.push(b'\n');
        self.waiting.push_back(command);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), QtestError> {
        let sent = self.writer.write_all(&self.outgoing);
        self.outgoing.clear();
        sent.map_err(|why| self.silent(why))
    }

    /// The oldest command that waits, with its answer.
    fn answer(&mut self) -> Result<Option<(String, String)>, QtestError> {
        let Some(command) = self.waiting.front().cloned() else {
            return Ok(None);
        };
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) => return Err(self.silent(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) if line.starts_with("IRQ") => {}
                Ok(_) => {
                    self.waiting.pop_front();
                    return Ok(Some((command, line)));
                }
                Err(why) => return Err(self.silent(why)),
            }
        }
    }

    fn silent(&self, why: io::Error) -> QtestError {
        QtestError::Silent {
            waiting: self.waiting.front().cloned().unwrap_or_default(),
            why,
            said: self.said(),
        }
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A word to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// 64 bits at a physical address.
    Quad(u64),
    /// 32 bits at a physical address.
    Long(u64),
}

fn end(child: &mut Child) {
    // It may have ended by itself; either way it is reaped.
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for QEMU to connect, or to end.
fn connect(listener: &UnixListener, child: &mut Child) -> io::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let started = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        if started.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn last_words(path: PathBuf) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
