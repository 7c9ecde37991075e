//! Static programs of this workspace for guests, above all the agent; built when they are missing or
//! stale.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The agent's package, the profile in the root manifest, and the target it is built for.
const PACKAGE: &str = "iopf-guest";
const PROFILE: &str = "guest";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the agent, static, into a target directory of its own; cargo knows whether there is
/// anything to do. Once a process.
///
/// # Errors
/// Where cargo does not start or the build fails; the text is what cargo said.
pub fn binary() -> Result<&'static Path, String> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY
        .get_or_init(|| build(PACKAGE, PACKAGE, PROFILE))
        .as_ref();
    built.map(PathBuf::as_path).map_err(Clone::clone)
}

/// Builds a program of a package of this workspace, with a profile of the root manifest, as
/// [`binary`] builds the agent.
///
/// # Errors
/// As of [`binary`].
pub fn build(package: &str, program: &str, profile: &str) -> Result<PathBuf, String> {
    let (mut cargo, target) = cargo("build");
    let output = cargo
        .args([
            "--quiet",
            "-p",
            package,
            "--bin",
            program,
            "--profile",
            profile,
        ])
        .output()
        .map_err(|error| format!("building {program}: starting cargo: {error}"))?;
    said(program, &output)?;
    Ok(target.join(TARGET).join(profile).join(program))
}

/// Builds a test program of a package of this workspace, with some of its features, static as the agent
/// is: a test of this machine that runs in a guest too.
///
/// # Errors
/// As of [`binary`].
pub fn build_test(package: &str, test: &str, features: &str) -> Result<PathBuf, String> {
    let (mut cargo, _) = cargo("test");
    let output = cargo
        .args(["--quiet", "--no-run", "--message-format", "json"])
        .args(["-p", package, "--test", test, "--features", features])
        // It is unpacked in a guest's memory.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .output()
        .map_err(|error| format!("building {test}: starting cargo: {error}"))?;
    said(test, &output)?;
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let program = lines
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == test)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.ok_or_else(|| format!("building {test}: cargo names no program"))
}

/// A command of cargo's for static programs, and the directory it builds in.
fn cargo(command: &str) -> (Command, PathBuf) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |dir| root.join(dir))
        .join("guest");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(&root)
        .args([command, "--target", TARGET, "--target-dir"])
        .arg(&target)
        // There is no C library in the guest.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    (cargo, target)
}

/// What cargo said, if it failed.
fn said(what: &str, output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("building {what} with cargo:\n{said}"))
}
