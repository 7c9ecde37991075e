//! Tells the story of one fault of shared memory, with a real guest: `demo IOPF`, where `IOPF` is the
//! program. `cargo xtask demo` builds that and runs this.

use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use testkit::demo::{DemoError, run, text};

fn main() -> ExitCode {
    let Some(iopf) = std::env::args_os().nth(1) else {
        eprintln!("usage: demo IOPF, where IOPF is the program iopf");
        return ExitCode::from(2);
    };
    match tell(Path::new(&iopf)) {
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
