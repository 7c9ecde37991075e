//! Commands that run until they are told to stop: their signals, and what they say meanwhile.

use crate::exit::Stop;
use crate::status::Line;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The status of a process that a signal has ended is this plus the signal's number, as shells say it.
const KILLED: i32 = 128;

/// Events that wait for the printer at most.
const ROOM: usize = 1024;

/// True once SIGINT or SIGTERM has come. The second one ends the process at once, for whoever can't
/// wait for a reader of ours that does not read, or for a file that gives nothing.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>, Stop> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order.
        flag::register_conditional_shutdown(signal, KILLED + signal, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| Stop::host(format_args!("cannot listen for signals: {error}")))?;
    }
    Ok(stop)
}

/// Shows events as they come: a line each, or one JSON object a line.
pub(crate) struct View<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) json: bool,
    pub(crate) status: Line,
}

impl View<'_> {
    pub(crate) fn show(&mut self, event: &(impl Serialize + Display)) -> Result<(), Stop> {
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
}

/// The way of events to whoever prints them, and the clock of their times. Nobody waits on it.
#[derive(Debug)]
pub(crate) struct Outlet<E> {
    sender: SyncSender<E>,
    lost: AtomicU64,
    started: Instant,
}

impl<E> Outlet<E> {
    pub(crate) fn new() -> (Self, Receiver<E>) {
        let (sender, receiver) = sync_channel(ROOM);
        let outlet = Self {
            sender,
            lost: AtomicU64::new(0),
            started: Instant::now(),
        };
        (outlet, receiver)
    }

    /// Says it, unless the printer is too far behind.
    pub(crate) fn say(&self, event: E) {
        if self.sender.try_send(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that found no room on their way to the printer.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
