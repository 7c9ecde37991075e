//! Where input comes from: a file, or stdin for `-`.

use crate::exit::Stop;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// A file that a command reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// `-`.
    Stdin,
    /// A path.
    File(PathBuf),
}

impl From<&Path> for Input {
    fn from(path: &Path) -> Self {
        if path == Path::new("-") {
            Self::Stdin
        } else {
            Self::File(path.to_owned())
        }
    }
}

impl Input {
    /// How errors name it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".into(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Opens it for reading.
    pub(crate) fn open(&self) -> Result<BufReader<Box<dyn Read>>, Stop> {
        let from: Box<dyn Read> = match self {
            Self::Stdin => Box::new(io::stdin().lock()),
            Self::File(path) => match File::open(path) {
                Ok(file) => Box::new(file),
                Err(error) => return Err(self.refused(&error)),
            },
        };
        Ok(BufReader::with_capacity(1 << 16, from))
    }

    /// Everything in it, of which a reader takes `limit` bytes; one more is read, so that the
    /// reader can tell.
    pub(crate) fn read_all(&self, limit: usize) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();
        let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        self.open()?
            .take(bound)
            .read_to_end(&mut bytes)
            .map_err(|error| self.refused(&error))?;
        Ok(bytes)
    }

    /// Why the host would not let it be read, and what to do.
    pub(crate) fn refused(&self, error: &io::Error) -> Stop {
        let name = self.name();
        match error.kind() {
            ErrorKind::NotFound => Stop::host(format_args!(
                "{name}: no such file; give the path of a file, or - for stdin"
            )),
            ErrorKind::IsADirectory => Stop::input(format_args!(
                "{name}: a directory; give one of the files in it, or - for stdin"
            )),
            _ => Stop::host(format_args!("{name}: cannot be read: {error}")),
        }
    }
}

/// One line of input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A whole line is in the buffer, without its end.
    Whole,
    /// The line is longer than the limit; all of it has been passed over.
    TooLong,
    /// There is no more.
    End,
}

/// Reads one line into `line`, which it clears first, keeping at most `limit` bytes.
pub(crate) fn read_line(
    from: &mut impl BufRead,
    line: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Line> {
    line.clear();
    let (mut any, mut long) = (false, false);
    loop {
        let buffer = match from.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            break;
        }
        any = true;
        let end = buffer.iter().position(|&b| b == b'\n');
        let text = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or(buffer);
        if long || line.len() + text.len() > limit {
            long = true;
            line.clear();
        } else {
            line.extend_from_slice(text);
        }
        let used = text.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            break;
        }
    }
    Ok(match (any, long) {
        (false, _) => Line::End,
        (true, true) => Line::TooLong,
        (true, false) => Line::Whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_one_after_a_long_line_is_whole() {
        let mut from: &[u8] = b"ab\n\nabcdef\ncd";
        let mut line = Vec::new();
        let mut read = |line: &mut Vec<u8>| read_line(&mut from, line, 4).unwrap();
        assert_eq!(read(&mut line), Line::Whole);
        assert_eq!(line, b"ab");
        assert_eq!(read(&mut line), Line::Whole);
        assert_eq!(line, b"");
        assert_eq!(read(&mut line), Line::TooLong);
        assert_eq!(read(&mut line), Line::Whole);
        assert_eq!(line, b"cd");
        assert_eq!(read(&mut line), Line::End);
    }
}
