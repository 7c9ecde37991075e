//! What a command says and how it ends.

use std::fmt;
use std::io::{self, Write};

/// Status of a command that was called wrongly: `EX_USAGE` of sysexits.h.
pub(crate) const USAGE: i32 = 64;

/// Why a command did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// An error number of Linux, or 1 where there is none. Never 0.
    pub(crate) status: i32,
    /// One line for a person.
    pub(crate) text: String,
}

/// How a command ends.
pub(crate) type Done = Result<(), Failure>;

impl Failure {
    /// A failure without an error number.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            status: 1,
            text: text.into(),
        }
    }

    /// The command was called wrongly.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            status: USAGE,
            text: text.into(),
        }
    }

    /// Puts what was being done in front.
    pub(crate) fn at(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self {
            status: error.raw_os_error().unwrap_or(1),
            text: error.to_string(),
        }
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<iopf_host::Outside> for Failure {
    fn from(error: iopf_host::Outside) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<iopf_host::Refused> for Failure {
    fn from(error: iopf_host::Refused) -> Self {
        Self {
            status: error.errno.raw_os_error(),
            text: error.to_string(),
        }
    }
}

impl From<iopf_host::VfioError> for Failure {
    fn from(error: iopf_host::VfioError) -> Self {
        match error {
            iopf_host::VfioError::Refused(refused) => refused.into(),
            other => Self::new(other.to_string()),
        }
    }
}

impl From<iopf_host::OpenError> for Failure {
    fn from(error: iopf_host::OpenError) -> Self {
        Self::new(error.to_string())
    }
}

/// Names what was being done when an operation failed.
pub(crate) trait Context<T> {
    /// Puts `what` in front of the failure's text.
    fn context(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| error.into().at(what))
    }
}

/// Where a command's lines go.
pub(crate) struct Reply<'a> {
    to: Box<dyn Write + 'a>,
    mark: String,
}

impl<'a> Reply<'a> {
    /// Lines as they are.
    pub(crate) fn plain(to: impl Write + 'a) -> Self {
        Self {
            to: Box::new(to),
            mark: String::new(),
        }
    }

    /// Lines marked as the answer to request `id`.
    pub(crate) fn to_request(to: impl Write + 'a, id: &str) -> Self {
        Self {
            to: Box::new(to),
            mark: format!("{id} | "),
        }
    }

    /// Says one line. Control characters are escaped, so that a line stays one.
    pub(crate) fn line(&mut self, text: impl fmt::Display) {
        let mut line = self.mark.clone();
        for c in text.to_string().chars() {
            if c.is_control() && c != '\t' {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        line.push('\n');
        // Nobody is left to tell when the channel is gone.
        let _ = self.to.write_all(line.as_bytes());
    }

    /// Sends what was said so far.
    pub(crate) fn flush(&mut self) {
        let _ = self.to.flush();
    }

    /// Says every line of a text.
    pub(crate) fn lines(&mut self, text: &str) {
        for line in text.lines() {
            self.line(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_whatever_is_in_it() {
        let mut sent = Vec::new();
        Reply::to_request(&mut sent, "7").line("a\nb\tc\u{1b}[0m");
        assert_eq!(sent, b"7 | a\\nb\tc\\u{1b}[0m\n");
    }

    #[test]
    fn a_failure_keeps_the_error_number_and_says_what_was_done() {
        // ENOENT is 2 in Linux's include/uapi/asm-generic/errno-base.h.
        let missing = std::fs::read("/no/such/file").context("reading it");
        let failure = missing.unwrap_err();
        assert_eq!(failure.status, 2);
        assert!(failure.text.starts_with("reading it: No such file"));
    }
}
