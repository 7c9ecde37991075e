//! Starting other programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a step of the automation ends with; the error is a sentence for a person.
pub(crate) type Done = Result<(), String>;

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// The cargo that runs this, or the one on the path.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// As [`step`], for what runs beside others: what it says is shown when it has ended, in one piece.
pub(crate) fn step_beside(what: &str, command: &mut Command) -> Done {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{what}: cannot start {:?}: {error}", command.get_program()))?;
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy);
    eprintln!("==> {what}\n{}", said.concat().trim_end());
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{what}: {}", output.status))
    }
}

/// Says what is about to run, runs it, and turns its failure into a sentence.
pub(crate) fn step(what: &str, command: &mut Command) -> Done {
    eprintln!("==> {what}");
    let status = command
        .status()
        .map_err(|error| format!("{what}: cannot start {:?}: {error}", command.get_program()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{what}: {status}"))
    }
}
