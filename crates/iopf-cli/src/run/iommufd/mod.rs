//! `iopf run --backend iommufd`: devices of this machine, their page requests answered from here.

mod attach;
mod event;
mod look;
mod memory;
mod missing;
mod plan;
mod report;
mod service;
mod watch;

pub(crate) use plan::Plan;

use crate::exit::{Exit, Stop};
use crate::status::Line;
use event::{Event, Events};
use service::Service;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use watch::Watch;

/// How often the live line is drawn and signals are looked for.
const BEAT: Duration = Duration::from_millis(200);

/// The status of a process that a signal has ended is this plus the signal's number, as shells say it.
const KILLED: i32 = 128;

/// Serves until a signal, the time or the number of groups ends it.
pub(crate) fn main(plan: &Plan, out: &mut dyn Write) -> Result<Exit, Stop> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second signal ends the process at once. The kernel then answers what waits.
        flag::register_conditional_shutdown(signal, KILLED + signal, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| Stop::host(format_args!("cannot listen for signals: {error}")))?;
    }
    let (events, lines) = Events::new();
    let events = Arc::new(events);
    let service = Service::start(plan, &events)?;
    let (handle, watch) = (service.handle(), service.watch());
    // Faults are served while the printer waits for its reader.
    let serving = std::thread::Builder::new()
        .name("pump".to_owned())
        .spawn(move || service.run())
        .map_err(|error| Stop::host(format_args!("no thread: {error}")))?;
    drop(events);
    let mut view = View {
        out,
        json: plan.json,
        status: Line::new(plan.quiet || plan.json),
    };
    let end = plan.seconds.map(|time| Instant::now() + time);
    let mut told = false;
    let shown = view.run(&lines, &watch, || {
        let over = stop.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end);
        if over && !told {
            told = true;
            // It may have stopped by itself.
            let _ = handle.stop();
        }
        serving.is_finished()
    });
    if shown.is_err() {
        // Nobody reads on: the devices are let go of in order all the same.
        let _ = handle.stop();
    }
    let report = serving
        .join()
        .map_err(|_| Stop::host("the thread that serves faults panicked"))??;
    shown?;
    while let Ok(event) = lines.try_recv() {
        view.show(&event)?;
    }
    let found = plan.fail_on_fault && report.has_faults();
    view.show(&Event::Report(report))?;
    Ok(if found { Exit::Found } else { Exit::Done })
}

/// Shows events as they come.
struct View<'a> {
    out: &'a mut dyn Write,
    json: bool,
    status: Line,
}

impl View<'_> {
    fn show(&mut self, event: &Event) -> Result<(), Stop> {
        if self.json {
            serde_json::to_writer(&mut self.out, event).map_err(std::io::Error::from)?;
            writeln!(self.out)?;
        } else {
            let out = &mut self.out;
            self.status.around(|| writeln!(out, "{event}"))?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// Until `over` says so.
    fn run(
        &mut self,
        lines: &Receiver<Event>,
        watch: &Watch,
        mut over: impl FnMut() -> bool,
    ) -> Result<(), Stop> {
        let mut due = Instant::now() + BEAT;
        while !over() {
            let left = due.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(event) => {
                    self.show(&event)?;
                    if Instant::now() < due {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The sender lives in the watch as well.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            due = Instant::now() + BEAT;
            let (read, answered) = watch.groups();
            self.status
                .draw(|| format!("{read} groups read, {answered} answered"));
        }
        Ok(())
    }
}
