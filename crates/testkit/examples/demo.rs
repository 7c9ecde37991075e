//! Tells the story of one fault of shared memory, with a real guest: `demo IOPF`, where `IOPF` is the
//! program; `demo IOPF --both` that of page requests which `iopf run` answers in the guest.
//! `cargo xtask demo` builds the program and runs this.

use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use testkit::demo::{DemoError, both, both_text, run, text};

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let told = match words.as_slice() {
        [iopf] => tell(Path::new(iopf)),
        [iopf, word] if word == "--both" => tell_both(Path::new(iopf)),
        _ => {
            eprintln!("usage: demo IOPF [--both], where IOPF is the program iopf");
            return ExitCode::from(2);
        }
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(iopf: &Path) -> Result<(), DemoError> {
    let report = run(iopf, &mut stdout())?;
    let mut story = String::new();
    // A string takes everything.
    let _ = text(&report, &mut story);
    write!(stdout(), "\n{story}")?;
    Ok(())
}

fn tell_both(iopf: &Path) -> Result<(), DemoError> {
    let seen = both(iopf, &mut stdout())?;
    let mut story = String::new();
    // A string takes everything.
    let _ = both_text(&seen, &mut story);
    write!(stdout(), "\n{story}")?;
    Ok(())
}
