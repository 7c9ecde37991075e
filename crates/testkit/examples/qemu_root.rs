//! Sets up the QEMU that the differential tests need, with progress, and prints its version.
//!
//! The tests do the same by themselves; run this first to see the progress.

use std::process::ExitCode;

fn main() -> ExitCode {
    match testkit::qemu::root::ensure() {
        Ok(root) => {
            println!("{}", root.version());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
