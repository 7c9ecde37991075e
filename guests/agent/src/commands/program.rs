//! A program to its end, with its output as it comes.

use super::Command;
use super::process::code;
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;
use std::sync::mpsc::{Sender, channel};
use std::thread;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "program",
    usage: "program PATH ARGUMENTS…",
    run: program,
}];

/// The longest line; what is longer comes in pieces.
const LINE: u64 = 1 << 16;

/// Runs a program. Its words come with `%XX` for bytes that a command cannot hold; a lone `%` is an
/// empty word. Its lines are said as they come, `1 TEXT` for standard output and `2 TEXT` for
/// standard error, and `exit=CODE` in the end. The status is 0 if the program ran, whatever its code.
fn program(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let path = decode(args.word("PATH")?)?;
    let words = args.rest().split(' ').filter(|word| !word.is_empty());
    let words = words.map(decode).collect::<Result<Vec<_>, _>>()?;
    let mut child = std::process::Command::new(&path)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(path.display())?;
    let (sender, lines) = channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let readers = [
        stdout.map(|pipe| reader(1, pipe, sender.clone())),
        stderr.map(|pipe| reader(2, pipe, sender)),
    ];
    for (stream, line) in lines {
        out.line(format_args!("{stream} {line}"));
        out.flush();
    }
    for reader in readers.into_iter().flatten() {
        // It cannot panic; a line that it could not read is the end of its stream.
        let _ = reader.join();
    }
    out.line(format_args!("exit={}", code(child.wait()?)));
    Ok(())
}

/// Sends the lines of a stream on, until it ends.
fn reader(
    stream: u8,
    pipe: impl Read + Send + 'static,
    to: Sender<(u8, String)>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while (&mut pipe)
            .take(LINE)
            .read_until(b'\n', &mut line)
            .is_ok_and(|len| len > 0)
        {
            let text = String::from_utf8_lossy(&line);
            let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
            // Nobody listens any more when the channel to the host is gone.
            let _ = to.send((stream, text));
            line.clear();
        }
    })
}

/// A word as its program gets it.
fn decode(word: &str) -> Result<OsString, Failure> {
    let wrong = || Failure::usage(format!("not a word: {word}"));
    let mut bytes = Vec::new();
    if word != "%" {
        let mut pieces = word.split('%');
        bytes.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
        for piece in pieces {
            let (digits, rest) = piece.split_at_checked(2).ok_or_else(wrong)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
            bytes.extend_from_slice(rest.as_bytes());
        }
    }
    Ok(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use crate::commands::said;

    #[test]
    fn a_program_gives_its_lines_by_stream_and_its_code_apart_from_the_status() {
        let script = "echo%20a;%20echo%20$1%20>&2;%20printf%20b;%20exit%203";
        let (status, sent) = said(&format!("program /bin/sh -c {script} sh %"));
        let mut lines: Vec<_> = sent.lines().collect();
        assert_eq!((status, lines.pop()), (0, Some("exit=3")));
        // The two streams may come in any order.
        lines.sort_unstable();
        assert_eq!(lines, ["1 a", "1 b", "2 "]);
    }

    #[test]
    fn a_signal_counts_as_128_and_its_number() {
        let (status, sent) = said("program /bin/sh -c kill%20-9%20$$");
        assert_eq!((status, &*sent), (0, "exit=137\n"));
    }

    #[test]
    fn a_program_that_is_not_there_is_a_failure() {
        let (status, sent) = said("program /no/such");
        assert_eq!(status, 2);
        assert!(sent.starts_with("error: /no/such: No such file"), "{sent}");
        assert_eq!(said("program /bin/echo %zz").0, 64);
    }
}
