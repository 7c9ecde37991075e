//! What a person sees while a run is under way.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Hears how far a scenario is.
pub(crate) trait Progress {
    /// A scenario starts, with so many units of work ahead.
    fn start(&mut self, name: &str, total: u64);
    /// So many of them are done.
    fn at(&mut self, done: u64);
    /// It is over.
    fn end(&mut self, passed: bool);
}

/// Nobody looks.
#[derive(Debug)]
pub(crate) struct Silent;

impl Progress for Silent {
    fn start(&mut self, _name: &str, _total: u64) {}
    fn at(&mut self, _done: u64) {}
    fn end(&mut self, _passed: bool) {}
}

/// A bar on stderr when that is a terminal, a line a second otherwise.
#[derive(Debug)]
pub(crate) struct Visible {
    bar: Option<ProgressBar>,
    name: String,
    total: u64,
    spoke: Instant,
}

impl Visible {
    pub(crate) fn new() -> Self {
        Self {
            bar: None,
            name: String::new(),
            total: 0,
            spoke: Instant::now(),
        }
    }

    fn say(&self, line: &str) {
        // Nobody left to read it is no reason to stop the run.
        let _closed = writeln!(std::io::stderr(), "{}: {line}", self.name);
    }
}

impl Progress for Visible {
    fn start(&mut self, name: &str, total: u64) {
        name.clone_into(&mut self.name);
        self.total = total;
        self.spoke = Instant::now();
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{msg:10} {wide_bar} {pos}/{len} {eta}");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.set_message(self.name.clone());
            self.bar = Some(bar);
        } else {
            self.say("started");
        }
    }

    fn at(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.spoke.elapsed() > Duration::from_secs(1) {
            self.spoke = Instant::now();
            self.say(&format!("{done} of {}", self.total));
        }
    }

    fn end(&mut self, passed: bool) {
        match self.bar.take() {
            Some(bar) => bar.finish_and_clear(),
            None => self.say(if passed { "passed" } else { "FAILED" }),
        }
    }
}
