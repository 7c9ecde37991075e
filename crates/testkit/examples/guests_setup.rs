//! Fetches and builds all that the guests of the tests need, once, and says what is used.

use std::process::ExitCode;
use testkit::guest::{accel_config, agent};
use testkit::kernel::{SetupError, Stock, own, stock};
use testkit::qemu::root;

fn main() -> ExitCode {
    let done = set_up().map_err(|error| error.to_string());
    match done.and_then(|()| agent::binary().map(|_| ())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn set_up() -> Result<(), &'static SetupError> {
    println!("QEMU: {}", root::ensure()?.version());
    println!("stable kernel: {}", stock(Stock::Stable)?.version());
    println!("newest kernel: {}", stock(Stock::Newest)?.version());
    println!("accel-config: {}", accel_config()?.version());
    println!("own kernel: {}", own()?.version());
    Ok(())
}
