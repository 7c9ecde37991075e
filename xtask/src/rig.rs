//! The kernel rig: `testkit::rig` from the command line.

use crate::run::root;
use std::process::{Command, ExitCode};

/// Runs a static program in a guest with our own kernel; gives the program's status. The words after
/// `rig` go to the example `rig` of testkit, which explains them, as they are: clap would take the
/// first `--` away.
pub(crate) fn run() -> Result<ExitCode, String> {
    // Not in the workspace's folder: the paths among the words are the caller's.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = cargo
        .args(["run", "--quiet", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .args(["-p", "testkit", "--example", "rig", "--"])
        .args(std::env::args_os().skip(2))
        .status()
        .map_err(|error| format!("rig: cannot start cargo: {error}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map(ExitCode::from)
        .ok_or_else(|| format!("rig: {status}"))
}
