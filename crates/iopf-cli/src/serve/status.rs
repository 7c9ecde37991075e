//! The live line at the bottom of a terminal.

use super::event::Counts;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};

/// A line that is redrawn in place; nothing where standard error is no terminal.
pub(super) struct Line(Option<ProgressBar>);

impl Line {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::no_length();
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) = ProgressStyle::with_template("[{elapsed_precise}] {msg}") {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    /// Draws the counts.
    pub(super) fn draw(&self, counts: &Counts, connected: usize) {
        if let Some(bar) = &self.0 {
            bar.set_message(format!("{connected} functions connected; {counts}"));
            bar.tick();
        }
    }

    /// Prints a line above.
    pub(super) fn around(&self, print: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
