//! Static programs of this workspace for guests, above all the agent; built when they are missing or
//! stale.

use std::path::{Path, PathBuf};
use std::process::Command;
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |dir| root.join(dir))
        .join("guest");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(&root)
        .args(["build", "--quiet", "-p", package, "--bin", program])
        .args(["--profile", profile, "--target", TARGET, "--target-dir"])
        .arg(&target)
        // There is no C library in the guest.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .map_err(|error| format!("building {program}: starting cargo: {error}"))?;
    if output.status.success() {
        return Ok(target.join(TARGET).join(profile).join(program));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("building {program} with cargo:\n{said}"))
}
