//! What the kernel rig's tests run inside a guest, on a real iommufd: `crates/testkit/tests/rig_*.rs`
//! start it and judge what it says.
//!
//! ```text
//! iopf-rig speed ROUNDS         who answers faster: the pump or the smallest loop
//! iopf-rig places WHO WAITING   where the instructions of `pump`, `smallest` or `epoll` are
//! iopf-rig faults               no memory and no descriptors in the kernel
//! iopf-rig inject SCENE         a guest's VT-d unit answers for devices of the kernel
//! ```
//!
//! It says lines of `name key=value…`, and ends with 1 and a sentence where it could not do its work.

mod answerer;
mod failing;
mod faults;
mod heap;
mod inject;
mod mock;
mod oracle;
mod speed;
mod steps;
mod tsc;

use std::process::ExitCode;

/// What a part of the program comes to. It is told to a person, not to a program.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: iopf-rig speed ROUNDS | places WHO WAITING | faults | inject SCENE";

/// Whether an assumption holds; the sentence says which does not.
fn ensure(holds: bool, what: impl std::fmt::Display) -> Outcome<()> {
    holds.then_some(()).ok_or_else(|| what.to_string().into())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["speed", rounds] => rounds.parse().map_err(Into::into).and_then(speed::run),
        ["places", who, waiting] => steps::places(who, waiting),
        ["faults"] => faults::run(),
        ["inject", scene] => inject::run(scene),
        ["stepped", who, waiting] => steps::stepped(who, waiting),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iopf-rig: {error}");
            ExitCode::FAILURE
        }
    }
}
