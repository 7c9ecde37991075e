//! What is wrong with a capture, and where.

use std::fmt;

/// Where in a capture something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Names and indices down to the value, such as `memory[3].data`; empty for the whole file.
    pub path: String,
    /// Line and column where reading stopped, both from 1; `None` where the whole file had been
    /// read when it showed.
    pub line: Option<(usize, usize)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), self.line) {
            ("", None) => f.write_str("whole file"),
            ("", Some((line, column))) => write!(f, "line {line}, column {column}"),
            (path, None) => f.write_str(path),
            (path, Some((line, column))) => write!(f, "{path} (line {line}, column {column})"),
        }
    }
}

/// A capture that cannot be taken: the place, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct CaptureError {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

impl CaptureError {
    /// An error about the whole file.
    pub(crate) fn whole(problem: Problem) -> Box<Self> {
        Self::at(String::new(), problem)
    }

    /// An error about the value at `path`.
    pub(crate) fn at(path: String, problem: Problem) -> Box<Self> {
        Box::new(Self {
            place: Place { path, line: None },
            problem,
        })
    }
}

/// What can be wrong with a capture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Larger than a capture may be, packed or unpacked.
    #[error("larger than {0} bytes; a capture holds what a walk touched, not all of memory")]
    TooLarge(usize),
    /// There is nothing in it.
    #[error("empty: not a capture")]
    Empty,
    /// The bytes are no text.
    #[error("not UTF-8 text, so not a capture")]
    NotText,
    /// The file starts like gzip and does not unpack.
    #[error("starts like gzip and does not unpack: {0}")]
    Gzip(String),
    /// Not JSON, or JSON that is no capture: what the reader says, cut to [`Problem::QUOTE`].
    #[error("{0}")]
    Json(String),
    /// A register that this architecture's captures do not have.
    #[error("unknown key: {arch} has no register of this name; known here: {known}")]
    UnknownRegister {
        /// The architecture.
        arch: &'static str,
        /// The names there are.
        known: String,
    },
    /// A value out of its range.
    #[error("{value:#x} is not {wanted}")]
    OutOfRange {
        /// What is there.
        value: u64,
        /// What would be right.
        wanted: &'static str,
    },
    /// Values that exclude each other.
    #[error("{0}")]
    Conflict(&'static str),
}

impl Problem {
    /// How many characters an error repeats at most of what the JSON reader says, which repeats
    /// the file.
    pub const QUOTE: usize = 400;

    /// Cuts `text` to [`Problem::QUOTE`] characters, without control characters.
    pub(crate) fn quote(text: &str) -> String {
        let mut short: String = text
            .chars()
            .take(Self::QUOTE)
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        if text.chars().nth(Self::QUOTE).is_some() {
            short.push('…');
        }
        short
    }
}
