//! Fetches and builds all that the guests of the tests need, once, and says what is used.

use std::process::ExitCode;
use testkit::guest::{accel_config, agent};
use testkit::kernel::{Stock, Target, own_for, stock_for};
use testkit::qemu::root;

fn main() -> ExitCode {
    match set_up() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn set_up() -> Result<(), String> {
    for (target, name) in [(Target::X86_64, "x86-64"), (Target::Aarch64, "arm64")] {
        let qemu = root::ensure_for(target).map_err(ToString::to_string)?;
        println!("{name}: QEMU: {}", qemu.version());
        for (which, what) in [(Stock::Stable, "stable"), (Stock::Newest, "newest")] {
            let kernel = stock_for(target, which).map_err(ToString::to_string)?;
            println!("{name}: {what} kernel: {}", kernel.version());
        }
        // Before our own kernel: what is missing is told without the wait for a build.
        agent::binary_for(target)?;
        let kernel = own_for(target).map_err(ToString::to_string)?;
        println!("{name}: own kernel: {}", kernel.version());
    }
    let program = accel_config().map_err(ToString::to_string)?;
    println!("accel-config: {}", program.version());
    Ok(())
}
