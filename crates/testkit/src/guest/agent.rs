//! Static programs of this workspace for guests, above all the agent; built when they are missing or
//! stale.

use crate::cross;
use crate::qemu::root::Target;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The agent's package, and the profile in the root manifest.
const PACKAGE: &str = "iopf-guest";
const PROFILE: &str = "guest";

/// What Rust calls a target whose programs run on Linux.
const fn triple(target: Target) -> &'static str {
    match target {
        Target::X86_64 => "x86_64-unknown-linux-gnu",
        Target::Aarch64 => "aarch64-unknown-linux-gnu",
    }
}

/// [`binary_for`] x86-64.
///
/// # Errors
/// As of [`binary_for`].
pub fn binary() -> Result<&'static Path, String> {
    binary_for(Target::X86_64)
}

/// Builds the agent, static, into a target directory of its own; cargo knows whether there is
/// anything to do. Once a process.
///
/// # Errors
/// Where cargo does not start or the build fails; the text is what cargo said. For arm64, also where
/// there is no compiler.
pub fn binary_for(target: Target) -> Result<&'static Path, String> {
    type Built = OnceLock<Result<PathBuf, String>>;
    static X86_64: Built = OnceLock::new();
    static AARCH64: Built = OnceLock::new();
    let binary = match target {
        Target::X86_64 => &X86_64,
        Target::Aarch64 => &AARCH64,
    };
    let built = binary
        .get_or_init(|| build_for(target, PACKAGE, PACKAGE, PROFILE))
        .as_ref();
    built.map(PathBuf::as_path).map_err(Clone::clone)
}

/// [`build_for`] x86-64.
///
/// # Errors
/// As of [`binary_for`].
pub fn build(package: &str, program: &str, profile: &str) -> Result<PathBuf, String> {
    build_for(Target::X86_64, package, program, profile)
}

/// Builds a program of a package of this workspace, with a profile of the root manifest, as
/// [`binary_for`] builds the agent.
///
/// # Errors
/// As of [`binary_for`].
pub fn build_for(
    target: Target,
    package: &str,
    program: &str,
    profile: &str,
) -> Result<PathBuf, String> {
    let (mut cargo, folder) = cargo(target, "build")?;
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
    Ok(folder.join(triple(target)).join(profile).join(program))
}

/// Builds a test program of a package of this workspace, with some of its features, static as the agent
/// is: a test of this machine that runs in a guest too.
///
/// # Errors
/// As of [`binary_for`].
pub fn build_test(package: &str, test: &str, features: &str) -> Result<PathBuf, String> {
    let (mut cargo, _) = cargo(Target::X86_64, "test")?;
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
fn cargo(target: Target, command: &str) -> Result<(Command, PathBuf), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // Two compilers in one directory would forget each other's answers.
    let (name, flags) = match target {
        Target::X86_64 => ("guest", String::new()),
        Target::Aarch64 => ("guest-arm64", format!(" -C linker={}", cross::LINKER)),
    };
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |dir| root.join(dir))
        .join(name);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(&root)
        .args([command, "--target", triple(target), "--target-dir"])
        .arg(&folder)
        // There is no C library in the guest.
        .env("RUSTFLAGS", format!("-C target-feature=+crt-static{flags}"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if target == Target::Aarch64 {
        cargo.env("RUSTC", cross::rustc().map_err(ToString::to_string)?);
    }
    Ok((cargo, folder))
}

/// What cargo said, if it failed.
fn said(what: &str, output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("building {what} with cargo:\n{said}"))
}
