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
use crate::view::{View, stop_on_signals};
use event::{Event, Events};
use service::Service;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use watch::Watch;

/// How often the live line is drawn and signals are looked for.
const BEAT: Duration = Duration::from_millis(200);

/// Serves until a signal, the time or the number of groups ends it.
pub(crate) fn main(plan: &Plan, out: &mut dyn Write) -> Result<Exit, Stop> {
    let stop = stop_on_signals()?;
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
    let shown = run(&mut view, &lines, &watch, || {
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

/// Shows events until `over` says so.
fn run(
    view: &mut View<'_>,
    lines: &Receiver<Event>,
    watch: &Watch,
    mut over: impl FnMut() -> bool,
) -> Result<(), Stop> {
    let mut due = Instant::now() + BEAT;
    while !over() {
        let left = due.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(event) => {
                view.show(&event)?;
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
        view.status
            .draw(|| format!("{read} groups read, {answered} answered"));
    }
    Ok(())
}
