//! Runs one static program in a guest with our own kernel; `cargo xtask rig` is this.

use clap::Parser;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use testkit::guest::Stream;
use testkit::rig::{Rig, RigError};

/// Runs a static program in a guest of its own: our own kernel in QEMU, without KVM. What it says is
/// said here, and its exit status is the one of this command.
#[derive(Parser)]
#[command(
    bin_name = "cargo xtask rig",
    override_usage = "cargo xtask rig [OPTIONS] -- PROGRAM [ARGUMENTS]...",
    after_help = HELP
)]
struct Args {
    /// Words for the kernel's command line; may be given more than once.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Vec<String>,
    /// A file to put into the guest, and where; may be given more than once.
    #[arg(long = "file", value_name = "HOST:GUEST", value_parser = file)]
    files: Vec<(PathBuf, String)>,
    /// Memory of the guest in MiB.
    #[arg(long, default_value_t = 512)]
    memory: u32,
    /// Processors of the guest.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// Huge pages of 2 MiB to set aside in the guest.
    #[arg(long, default_value_t = 0)]
    huge_pages: u32,
    /// Makes the guest's time its instructions, one a nanosecond; slower.
    #[arg(long)]
    counted: bool,
    /// Seconds that the program may run; a year at most.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    timeout: u64,
    /// The program, a file of this machine, and its arguments.
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    words: Vec<OsString>,
}

const HELP: &str =
    "Status: that of the program; 128 and its number where a signal ended it; 125 where \
the program did not run to its end.

Example:
  cargo xtask rig --huge-pages 64 -- ~/.cache/iopf/kernels/own/*/selftests/iommufd";

fn file(pair: &str) -> Result<(PathBuf, String), String> {
    let (host, guest) = pair.rsplit_once(':').ok_or("write HOST:GUEST")?;
    if guest.starts_with('/') && !host.is_empty() {
        Ok((host.into(), guest.to_owned()))
    } else {
        Err("write HOST:GUEST, GUEST from / on".to_owned())
    }
}

/// What this command ends with where the program has no status, as env(1) and timeout(1) do.
const NOT_RUN: u8 = 125;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(NOT_RUN)),
        Err(error) => {
            eprintln!("rig: {error}");
            ExitCode::from(NOT_RUN)
        }
    }
}

fn run(args: &Args) -> Result<i32, RigError> {
    let program = args.words.first().map(PathBuf::from).unwrap_or_default();
    let mut rig = Rig::new(&program)?
        .huge_pages(args.huge_pages)
        .patience(Duration::from_secs(args.timeout))
        .guest(|mut guest| {
            for words in &args.append {
                guest = guest.append(words);
            }
            let guest = guest.memory(args.memory).cpus(args.cpus);
            if args.counted { guest.counted() } else { guest }
        });
    for word in &args.words[1..] {
        rig = rig.argument(word);
    }
    for (host, guest) in &args.files {
        rig = rig.file(host, guest)?;
    }
    eprintln!("rig: booting");
    let (booted, waiting) = channel();
    let ended = std::thread::scope(|scope| {
        scope.spawn(move || tell(&waiting));
        rig.run(
            |guest, boot| {
                drop(booted);
                eprintln!(
                    "rig: Linux {} is up after {:.1} s, {} s by its own clock",
                    guest.hello().release,
                    boot.as_secs_f32(),
                    guest.hello().uptime
                );
            },
            &mut |stream, line| {
                // A closed pipe is no reason to leave the program alone in its guest.
                let _ = match stream {
                    Stream::Out => writeln!(io::stdout(), "{line}"),
                    Stream::Err => writeln!(io::stderr(), "{line}"),
                };
            },
        )
    })?;
    eprintln!(
        "rig: the program ended with {} after {:.1} s",
        ended.code,
        ended.ran.as_secs_f32()
    );
    Ok(ended.code)
}

/// Says every five seconds that the guest is not up yet, until the other end is dropped.
fn tell(booted: &Receiver<()>) {
    let started = Instant::now();
    while booted.recv_timeout(Duration::from_secs(5)) == Err(RecvTimeoutError::Timeout) {
        eprintln!("rig: booting, {} s", started.elapsed().as_secs());
    }
}
