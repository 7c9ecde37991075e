//! Instructions of a program's own, and its system calls, counted one by one.
//!
//! The answerer runs in a process of its own, which is single-stepped with ptrace(2). What is between
//! two calls of getppid(2), which nobody else makes, is counted. [`places`] tells where in the
//! program the instructions are, for `addr2line`.

use crate::Outcome;
use crate::answerer::named;
use crate::mock::Mock;
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::getppid;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

/// Times that an answerer's turn comes, after as many that do not count: a step takes long.
fn turns(waiting: usize) -> usize {
    (8 / waiting).max(2)
}

/// System calls of x86-64: Linux, `arch/x86/entry/syscalls/syscall_64.tbl`.
const READ: u64 = 0;
const WRITE: u64 = 1;
const POLL: u64 = 7;
const PPOLL: u64 = 271;
const EPOLL: [u64; 3] = [232, 281, 441];
const GETPPID: u64 = 110;

/// The instruction `syscall`, as the low half of a word in memory.
const SYSCALL: u64 = 0x050f;

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    /// Faults answered.
    pub(crate) faults: u64,
    /// Instructions of the program itself.
    pub(crate) user: u64,
    /// poll(2), epoll_wait(2) and their kin.
    pub(crate) poll: u64,
    /// read(2).
    pub(crate) read: u64,
    /// write(2).
    pub(crate) write: u64,
    /// Other system calls.
    pub(crate) other: u64,
}

impl Steps {
    /// All system calls.
    pub(crate) fn calls(&self) -> u64 {
        self.poll + self.read + self.write + self.other
    }
}

/// The process that is stepped: sets up, says so, waits for a line, and answers.
pub(crate) fn stepped(who: &str, waiting: &str) -> Outcome<()> {
    let waiting: usize = waiting.parse()?;
    let (mut mock, file) = Mock::new()?;
    let mut answerer = named(who, &mock, &file)?;
    let mut turn = |counted: bool| -> Outcome<()> {
        for _ in 0..waiting {
            mock.ask()?;
        }
        let mut answered = 0;
        if counted {
            let _ = getppid();
        }
        while answered < waiting {
            answered += answerer.turn()?;
        }
        if counted {
            let _ = getppid();
        }
        Ok(())
    };
    for _ in 0..turns(waiting) {
        turn(false)?;
    }
    println!("ready");
    std::io::stdin().read_exact(&mut [0])?;
    // What an empty stretch takes.
    let _ = getppid();
    let _ = getppid();
    for _ in 0..turns(waiting) {
        turn(true)?;
    }
    Ok(())
}

/// Says how often each instruction of an answerer was executed, a line `OFFSET COUNT` each: the
/// offset is from where the program is loaded.
pub(crate) fn places(who: &str, waiting: &str) -> Outcome<()> {
    let mut places = BTreeMap::new();
    let steps = watch(who, waiting.parse()?, &mut |place| {
        *places.entry(place).or_insert(0u64) += 1;
    })?;
    println!("places who={who} waiting={waiting} faults={}", steps.faults);
    for (place, count) in places {
        println!("{place:#x} {count}");
    }
    Ok(())
}

/// Steps an answerer through its turns.
pub(crate) fn of(who: &str, waiting: usize) -> Outcome<Steps> {
    watch(who, waiting, &mut |_| ())
}

/// The same; `each` is told the place of each instruction.
fn watch(who: &str, waiting: usize, each: &mut dyn FnMut(u64)) -> Outcome<Steps> {
    let mut child = Command::new("/proc/self/exe")
        .args(["stepped", who, &waiting.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let counted = step(&mut child, each);
    // It may have ended by itself; either way it is reaped.
    let _ = child.kill();
    let _ = child.wait();
    let (mut steps, stretches) = counted?;
    let turns = turns(waiting);
    if stretches != turns {
        return Err(format!("{who}: {stretches} of {turns} turns were seen").into());
    }
    steps.faults = (turns * waiting) as u64;
    Ok(steps)
}

/// Where a process has its program: the first mapping of that file.
fn base(pid: u32) -> Outcome<u64> {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    let program = program.to_string_lossy();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let first = maps.lines().find(|line| line.ends_with(&*program));
    let start = first.and_then(|line| line.split('-').next());
    Ok(u64::from_str_radix(start.ok_or("no mapping")?, 16)?)
}

/// Steps it to its end; gives what was counted in all stretches but the first, which is empty, and
/// how many those were.
fn step(child: &mut Child, each: &mut dyn FnMut(u64)) -> Outcome<(Steps, usize)> {
    let stdout = child.stdout.take().ok_or("no pipe")?;
    let mut ready = String::new();
    BufReader::new(stdout).read_line(&mut ready)?;
    if ready != "ready\n" {
        return Err("the process to step did not get ready".into());
    }
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let base = base(child.id())?;
    ptrace::attach(pid)?;
    waitpid(pid, None)?;
    child.stdin.take().ok_or("no pipe")?.write_all(b"\n")?;
    let (mut steps, mut empty, mut stretch) = (Steps::default(), None, None);
    let mut stretches = 0;
    loop {
        let registers = ptrace::getregs(pid)?;
        let place = usize::try_from(registers.rip)? as ptrace::AddressType;
        let word = ptrace::read(pid, place)?.cast_unsigned();
        let call = (word & 0xffff == SYSCALL).then_some(registers.rax);
        match (call, stretch) {
            (Some(GETPPID), None) => stretch = Some(0),
            (Some(GETPPID), Some(count)) => {
                stretch = None;
                match empty {
                    None => empty = Some(count),
                    Some(empty) => {
                        steps.user += count - empty;
                        stretches += 1;
                    }
                }
            }
            (call, Some(count)) => {
                stretch = Some(count + 1);
                if empty.is_some() {
                    each(registers.rip.wrapping_sub(base));
                }
                match call {
                    Some(POLL | PPOLL) => steps.poll += 1,
                    Some(call) if EPOLL.contains(&call) => steps.poll += 1,
                    Some(READ) => steps.read += 1,
                    Some(WRITE) => steps.write += 1,
                    Some(_) => steps.other += 1,
                    None => {}
                }
            }
            (_, None) => {}
        }
        ptrace::step(pid, None)?;
        match waitpid(pid, None)? {
            WaitStatus::Stopped(..) => {}
            WaitStatus::Exited(_, 0) => return Ok((steps, stretches)),
            other => return Err(format!("the stepped process: {other:?}").into()),
        }
    }
}
