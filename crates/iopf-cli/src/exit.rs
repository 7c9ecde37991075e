//! Process status, part of the interface that scripts rely on.

use std::fmt::{self, Display};
use std::io;
use std::process::ExitCode;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done, whether it found faults or not.
    Done = 0,
    /// `--check` found a difference, or `--fail-on-fault` a fault.
    Found = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// The host refused something.
    Host = 3,
    /// The input is not what it claims to be.
    Input = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command stopped before its end: what to say on stderr, and the status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Stop {
    /// Something that was looked for was found.
    pub(crate) fn found(message: impl Display) -> Self {
        Self::new(Exit::Found, message)
    }

    /// The arguments make no sense together.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The host refused something.
    pub(crate) fn host(message: impl Display) -> Self {
        Self::new(Exit::Host, message)
    }

    /// The input is not what it claims to be.
    pub(crate) fn input(message: impl Display) -> Self {
        Self::new(Exit::Input, message)
    }

    fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }
}

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Errors of writing the output. A reader that has seen enough is no error: the command ends as if
/// it had written everything.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Exit::Done, "")
        } else {
            Self::host(format_args!("cannot write the output: {error}"))
        }
    }
}
