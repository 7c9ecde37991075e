//! Sets up the QEMUs that the differential tests need, with progress, and prints their versions.
//!
//! The tests do the same by themselves; run this first to see the progress.

use std::process::ExitCode;
use testkit::qemu::root::{Target, ensure_for};

fn main() -> ExitCode {
    for target in [Target::X86_64, Target::Aarch64] {
        match ensure_for(target) {
            Ok(root) => println!("{}: {}", target.binary(), root.version()),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
