//! The live line at the bottom of a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};

/// A line that is redrawn in place; nothing where standard error is no terminal.
pub(crate) struct Line(Option<ProgressBar>);

impl Line {
    pub(crate) fn new(quiet: bool) -> Self {
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

    /// Draws it. What it says is not made where nobody sees it.
    pub(crate) fn draw(&self, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.0 {
            bar.set_message(message());
            bar.tick();
        }
    }

    /// Prints a line above.
    pub(crate) fn around(&self, print: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
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
