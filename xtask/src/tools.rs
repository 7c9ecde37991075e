//! Tools that the tests need and that a machine with just Rust may lack.

use crate::run::{Done, cargo, root, step};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Installed where the machine has none; any newer one on the path serves as well.
const NEXTEST: &str = "0.9.143";
const FUZZ: &str = "0.13.2";

/// The folder for everything that outlives a checkout: `IOPF_CACHE`, else the user's cache.
pub(crate) fn cache() -> PathBuf {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    var("IOPF_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|at| at.join("iopf")))
        .or_else(|| var("HOME").map(|at| at.join(".cache/iopf")))
        .unwrap_or_else(|| root().join("target/iopf-cache"))
}

/// The path for child processes: ours first, so that an installed tool is found.
pub(crate) fn path() -> std::ffi::OsString {
    let mut path = cache().join("tools/bin").into_os_string();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

/// Makes sure that `cargo nextest` runs.
pub(crate) fn nextest() -> Done {
    subcommand("nextest", NEXTEST)
}

/// Makes sure that `cargo fuzz` runs.
pub(crate) fn cargo_fuzz() -> Done {
    subcommand("fuzz", FUZZ)
}

/// Makes sure that cargo has a subcommand, which comes from a package of the usual name.
fn subcommand(name: &str, version: &str) -> Done {
    if answers(cargo().args([name, "--version"]).env("PATH", path())) {
        return Ok(());
    }
    let package = format!("cargo-{name}");
    step(
        &format!(
            "installing {package} {version} once, into {}",
            cache().join("tools").display()
        ),
        cargo()
            .args(["install", &package, "--locked", "--version", version])
            .arg("--root")
            .arg(cache().join("tools")),
    )
    .map_err(|error| {
        format!("{error}; is crates.io in reach? `cargo install {package}` by hand also does")
    })
}

/// Whether a command starts and ends well, quietly.
pub(crate) fn answers(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
