//! `iopf serve`: a virtual IOMMU and functions behind it, in front of a guest in QEMU.

mod arch;
mod args;
mod asked;
mod captures;
mod command;
mod dmar;
mod event;
mod functions;
mod host;
mod ivrs;
mod log;
mod machine;
mod place;
mod told;
mod watcher;
mod worker;

pub(crate) use args::Args;

use crate::args::ArchArg;
use crate::exit::{Exit, Stop};
use crate::status::Line;
use crate::view::{View, stop_on_signals};
use arch::Serve;
use args::Plan;
use event::{Event, Events, Function};
use machine::Machine;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use viommu::amdvi::Amdvi;
use viommu::smmuv3::Smmuv3;
use viommu::vtd::Vtd;

/// How often counts are looked at, and the status line drawn.
const BEAT: Duration = Duration::from_millis(200);

/// Runs the command until it is told to stop.
pub(crate) fn main(args: &Args, out: &mut dyn Write) -> Result<Exit, Stop> {
    match args.arch {
        ArchArg::Vtd => serve::<Vtd>(args, out),
        ArchArg::Amdvi => serve::<Amdvi>(args, out),
        ArchArg::Smmuv3 => serve::<Smmuv3>(args, out),
    }
}

fn serve<X: Serve>(args: &Args, out: &mut dyn Write) -> Result<Exit, Stop> {
    let plan = Plan::of::<X>(args).map_err(Stop::usage)?;
    let stop = stop_on_signals()?;
    let dir = Dir::new(args.dir.as_deref())?;
    let (events, lines) = Events::new();
    let events = Arc::new(events);
    let machine = Machine::<X>::start(&plan, &dir.path, &events)?;
    let mut view = View {
        out,
        json: args.json,
        status: Line::new(args.json),
    };
    view.show(&ready(&plan, &dir.path, &machine)?)?;
    let served = run(&mut view, &machine, &lines, &stop);
    let counts = machine.stop();
    served?;
    // What the threads said before they ended.
    while let Ok(event) = lines.try_recv() {
        view.show(&event)?;
    }
    view.show(&Event::Stopped {
        counts,
        lines_lost: events.lost(),
    })?;
    Ok(Exit::Done)
}

fn ready<X: Serve>(plan: &Plan, dir: &Path, machine: &Machine<X>) -> Result<Event, Stop> {
    let sockets = machine.sockets();
    let told = machine.told();
    let qemu = command::arguments(&X::NAMES, &plan.memory, told.arguments(), &sockets);
    let script = dir.join("qemu-arguments");
    fs::write(&script, qemu.join("\n") + "\n")
        .map_err(|error| Stop::host(format_args!("{}: {error}", script.display())))?;
    Ok(Event::Ready {
        arch: X::NAMES.arch,
        dir: dir.to_owned(),
        table: told.path().to_owned(),
        bar: event::Hex(told.base()),
        functions: machine
            .functions()
            .map(|(rid, kind, socket)| Function {
                function: rid.to_string(),
                kind,
                socket: socket.to_owned(),
            })
            .collect(),
        program: X::NAMES.program,
        qemu,
        kernel: X::NAMES.kernel,
        by_hand: told.by_hand().map(str::to_owned),
    })
}

/// Shows events and counts until `stop`.
fn run<X: Serve>(
    view: &mut View<'_>,
    machine: &Machine<X>,
    lines: &Receiver<Event>,
    stop: &AtomicBool,
) -> Result<(), Stop> {
    let mut counts = machine.counts();
    let mut due = Instant::now() + BEAT;
    while !stop.load(Ordering::Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        if let Ok(event) = lines.recv_timeout(left) {
            view.show(&event)?;
            // A burst is shown before the counts are looked at again, unless it has no end.
            if Instant::now() < due {
                continue;
            }
        }
        due = Instant::now() + BEAT;
        machine.beat();
        let now = machine.counts();
        view.status
            .draw(|| format!("{} functions connected; {now}", machine.connected()));
        if now != counts {
            counts = now;
            if view.json {
                view.show(&Event::Counts(now))?;
            }
        }
    }
    Ok(())
}

/// The folder of the sockets. One that was made for this run goes with it.
struct Dir {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Dir {
    fn new(path: Option<&Path>) -> Result<Self, Stop> {
        let refused = |error| Stop::host(format_args!("cannot make the folder: {error}"));
        if let Some(path) = path {
            fs::create_dir_all(path).map_err(refused)?;
            return Ok(Self {
                path: path.to_owned(),
                _temporary: None,
            });
        }
        let made = tempfile::Builder::new()
            .prefix("iopf-")
            .tempdir()
            .map_err(refused)?;
        Ok(Self {
            path: made.path().to_owned(),
            _temporary: Some(made),
        })
    }
}
