//! Programs, and commands as processes of their own.

use super::Command;
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "exec",
        usage: "exec PROGRAM ARGUMENTS…",
        run: exec,
    },
    Command {
        name: "spawn",
        usage: "spawn COMMAND ARGUMENTS…",
        run: spawn,
    },
    Command {
        name: "start",
        usage: "start PROGRAM ARGUMENTS…",
        run: start,
    },
    Command {
        name: "output",
        usage: "output PID",
        run: |mut args, out| {
            let pid = args.small("PID")?;
            args.end()?;
            say(pid, out);
            Ok(())
        },
    },
    Command {
        name: "wait",
        usage: "wait PID [MILLISECONDS]",
        run: wait,
    },
    Command {
        name: "signal",
        usage: "signal PID NUMBER",
        run: signal,
    },
];

/// What was spawned and not yet waited for.
static CHILDREN: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// How long `wait` waits when it is not told.
const PATIENCE: u64 = 60_000;

/// Runs a program to its end; its lines come back, those of standard error marked.
fn exec(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let program = args.word("PROGRAM")?;
    let words = args.rest().split(' ').filter(|word| !word.is_empty());
    let output = std::process::Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .context(program)?;
    out.lines(&String::from_utf8_lossy(&output.stdout));
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        out.line(format_args!("stderr: {line}"));
    }
    ended(program, output.status)
}

/// The exit code; a signal counts as 128 and its number, as for a shell.
pub(super) fn code(status: ExitStatus) -> i32 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.unwrap_or(1)
}

/// Success, or the exit code.
fn ended(what: &str, status: ExitStatus) -> Done {
    if status.success() {
        return Ok(());
    }
    Err(Failure {
        status: code(status),
        text: format!("{what}: {status}"),
    })
}

/// Where a process of ours leaves its lines.
fn transcript(pid: u32) -> String {
    format!("/run/iopf-guest.{pid}")
}

/// Starts one of our commands as a process of its own and says its process ID.
fn spawn(args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let command = args.rest();
    if command.is_empty() {
        return Err(Failure::usage("COMMAND is missing"));
    }
    let mut process = std::process::Command::new("/proc/self/exe");
    process.arg("run").args(command.split(' '));
    launch(process, out)
}

/// Starts a program and says its process ID.
fn start(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let mut process = std::process::Command::new(args.word("PROGRAM")?);
    process.args(args.rest().split(' ').filter(|word| !word.is_empty()));
    launch(process, out)
}

fn launch(mut process: std::process::Command, out: &mut Reply<'_>) -> Done {
    // The name is not known before the process is: the file gets its name afterwards.
    let file = "/run/iopf-guest.new";
    let lines = File::create(file).context(file)?;
    let child = process
        .stdin(Stdio::null())
        .stdout(lines.try_clone()?)
        .stderr(lines)
        .spawn()
        .context("starting a process")?;
    std::fs::rename(file, transcript(child.id())).context(file)?;
    out.line(child.id());
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    children.push(child);
    Ok(())
}

/// The lines of a process so far.
fn say(pid: u32, out: &mut Reply<'_>) {
    let text = std::fs::read(transcript(pid)).unwrap_or_default();
    out.lines(&String::from_utf8_lossy(&text));
}

/// Waits for a process, says its lines and passes on its status.
fn wait(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let pid: u32 = args.small("PID")?;
    let patience = args.next().map_or(Ok(PATIENCE), |word| {
        crate::args::number("MILLISECONDS", word)
    })?;
    args.end()?;
    let deadline = Instant::now() + Duration::from_millis(patience);
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let at = children.iter().position(|child| child.id() == pid);
    let at = at.ok_or_else(|| Failure::from(rustix::io::Errno::CHILD))?;
    let mut child = children.swap_remove(at);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            children.push(child);
            say(pid, out);
            return Err(rustix::io::Errno::TIMEDOUT.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    say(pid, out);
    let _ = std::fs::remove_file(transcript(pid));
    ended(&format!("process {pid}"), status)
}

fn signal(mut args: Args<'_>, _: &mut Reply<'_>) -> Done {
    let pid: i32 = args.small("PID")?;
    let number: i32 = args.small("NUMBER")?;
    args.end()?;
    let wrong = |what: &str| Failure::usage(format!("no such {what}"));
    let pid = Pid::from_raw(pid).ok_or_else(|| wrong("process"))?;
    let signal = Signal::from_named_raw(number).ok_or_else(|| wrong("signal"))?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

#[cfg(test)]
mod tests {
    use crate::commands::run;
    use crate::reply::Reply;

    #[test]
    fn a_program_gives_its_lines_and_its_status() {
        let mut sent = Vec::new();
        let status = run("exec /bin/ls /no/such", &mut Reply::plain(&mut sent));
        let sent = String::from_utf8(sent).unwrap();
        assert_eq!(status, 2);
        assert!(sent.starts_with("stderr: "), "{sent}");
        assert!(sent.ends_with("error: /bin/ls: exit status: 2\n"), "{sent}");
    }
}
