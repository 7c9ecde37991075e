//! The story of one fault: a process in an unmodified guest shares its memory with a device, and
//! the device meets a page that is not there yet.
//!
//! [`run`] starts `iopf serve`, boots Debian's newest kernel in front of it, has `accel-config` set
//! a work queue up, and has one process copy one page onto memory that it never touched. What the
//! server saw (its `--trace`) and what the process saw become a [`Report`]; [`text`] shows it.

mod both;
mod report;
mod server;

pub use both::{Both, Fault, Seen, Side, both, both_text};
pub use report::{Process, Report, Step, text};

use crate::guest::{Guest, GuestError, accel_config, agent};
use crate::kernel::{Stock, stock};
use crate::qemu::root;
use server::Server;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the device is.
const SLOT: &str = "dsa@07.0";

/// How users set a work queue up for their processes.
const SET_UP: [&str; 4] = [
    "config-wq dsa0/wq0.0 --group-id=0 --mode=dedicated --wq-size=16 --priority=10 --type=user \
     --name=iopf --driver-name=user --block-on-fault=1 --max-transfer-size=16777216 --max-batch-size=32",
    "config-engine dsa0/engine0.0 --group-id=0",
    "enable-device dsa0",
    "enable-wq dsa0/wq0.0",
];

/// Why there is no story.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The guest, or what it is made of.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The server did not do something in time, or ended.
    #[error("iopf serve: {why}; it said:\n{said}")]
    Server {
        /// What was waited for, and what happened instead.
        why: String,
        /// The end of what it said.
        said: String,
    },
    /// What was seen makes no story.
    #[error("{why}; what was seen:\n{seen}")]
    Story {
        /// What is missing or does not fit.
        why: String,
        /// The lines it was looked for in.
        seen: String,
    },
    /// The screen or a file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<&'static crate::kernel::SetupError> for DemoError {
    fn from(error: &'static crate::kernel::SetupError) -> Self {
        Self::Guest(error.into())
    }
}

/// What is done before the story starts, told as it happens: seconds since the start, and a sentence.
struct Stage<'a> {
    start: Instant,
    out: &'a mut dyn Write,
}

impl Stage<'_> {
    fn say(&mut self, what: &str) -> io::Result<()> {
        let seconds = self.start.elapsed().as_secs_f64();
        writeln!(self.out, "{seconds:>6.1} s  {what}")?;
        self.out.flush()
    }
}

/// Plays it with the program `iopf` at this path. What goes on before the fault is written to `out`
/// as it happens; nothing is left behind, whatever happens.
///
/// # Errors
/// As [`DemoError`] says; the text is for a person.
pub fn run(iopf: &Path, out: &mut dyn Write) -> Result<Report, DemoError> {
    let start = Instant::now();
    let mut stage = Stage { start, out };
    let kernel = stock(Stock::Newest)?;
    let tool = accel_config()?;
    let qemu = root::ensure()?.version();
    stage.say(&format!("QEMU: {qemu}"))?;
    stage.say(&format!("kernel: Debian's {}", kernel.version()))?;
    agent::binary().map_err(GuestError::Initramfs)?;
    stage.say("the guest's first process, our agent, is built")?;

    let mut server = Server::start(iopf, SLOT)?;
    stage.say("iopf serve listens: a VT-d unit at 00:05.0, an Intel DSA at 00:07.0 behind it")?;
    let guest = server.attach(
        Guest::builder(kernel)
            .append("intel_iommu=on,sm_on setcpuid=movdir64b")
            .module("idxd")
            .program(tool),
    )?;
    guest.probe()?;
    let bar = server.wait("bar", Duration::from_secs(20))?;
    let address = bar["address"].as_str().unwrap_or_default();
    stage.say(&format!(
        "firmware alone has run: the unit's registers are at {address}, and the DMAR table says so"
    ))?;
    let guest = guest.boot()?;
    let release = &guest.hello().release;
    stage.say(&format!(
        "Linux {release} is up, with its own VT-d driver and its own idxd"
    ))?;
    for step in SET_UP {
        guest.must(&format!("exec /usr/bin/accel-config {step}"))?;
    }
    stage.say("accel-config has set up /dev/dsa/wq0.0, a work queue for processes")?;

    // What came up to here is no part of the story.
    server.catch_up();
    let from = server.events.len();
    let lines = guest.must("exec /init run dsa /dev/dsa/wq0.0 page")?;
    stage.say("a process has used it")?;
    // What the process saw has happened; the server's lines may still be on their way.
    server.wait_step(report::FOUND, from, Duration::from_secs(10))?;
    let process = Process::parse(&lines).map_err(|why| DemoError::Story {
        why,
        seen: lines.join("\n"),
    })?;
    let report = Report::of(release, process, &server.events[from..]);
    let said = server.said();
    let story = |why| DemoError::Story { why, seen: said };
    let report = match report {
        Ok(report) => report,
        Err(why) => return Err(story(why)),
    };
    drop(guest);
    let counts = server.stop()?;
    let of = |name: &str| counts[name].as_u64();
    if (of("page_requests"), of("faults")) != (Some(1), Some(0)) {
        return Err(story(format!(
            "one page request and no fault, says the story: {counts}"
        )));
    }
    Ok(report)
}
