//! Programs that run in a guest, with their output as it comes.

use super::{Guest, GuestError, PoisonError};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

/// Where a program says a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Guest {
    /// Runs a program to its end, within `patience`. `words` are its path in the guest and its
    /// arguments; its standard input is empty. Each line is given on as it comes, without its end;
    /// control characters in it are escaped, lines over 64 KiB come in pieces, and between the two
    /// streams there is no order.
    ///
    /// Gives the program's exit code. A signal counts as 128 and its number, as for a shell.
    ///
    /// # Errors
    /// Where the program is not there, the guest ends, or the program does not end in time: it then
    /// runs on, and the guest takes no other command until it ends.
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        words: &[S],
        patience: Duration,
        each: &mut dyn FnMut(Stream, &str),
    ) -> Result<i32, GuestError> {
        let mut command = "program".to_owned();
        for word in words {
            command.push(' ');
            encode(word.as_ref().as_bytes(), &mut command);
        }
        let (mut code, mut other) = (None, Vec::new());
        let mut line = |line: &str| match line.split_once(' ') {
            Some(("1", text)) => each(Stream::Out, text),
            Some(("2", text)) => each(Stream::Err, text),
            _ => match line.strip_prefix("exit=").map(str::parse) {
                Some(Ok(value)) => code = Some(value),
                _ => other.push(line.to_owned()),
            },
        };
        let status = {
            let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            control.stream(&command, Instant::now() + patience, &mut line)
        };
        let status = status.map_err(|why| self.machine.down(&command, why))?;
        code.filter(|_| status == 0).ok_or(GuestError::Refused {
            command,
            status,
            lines: other.join("\n"),
        })
    }
}

/// Adds a word with `%XX` for bytes that a command cannot hold, as the agent's `program` takes it
/// (`guests/agent/src/commands/program.rs`).
fn encode(word: &[u8], to: &mut String) {
    if word.is_empty() {
        to.push('%');
    }
    for byte in word {
        match byte {
            b'!'..=b'~' if *byte != b'%' => to.push(char::from(*byte)),
            // A string takes everything.
            _ => _ = write!(to, "%{byte:02x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_no_space_and_is_never_empty() {
        for (word, encoded) in [
            ("-c", "-c"),
            ("echo $1", "echo%20$1"),
            ("100 %\n", "100%20%25%0a"),
            ("é", "%c3%a9"),
            ("", "%"),
        ] {
            let mut command = String::new();
            encode(word.as_bytes(), &mut command);
            assert_eq!(command, encoded, "{word:?}");
        }
    }
}
