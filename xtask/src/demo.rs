//! The demonstration: `testkit::demo` with a program built for speed.

use crate::run::{Done, cargo, root, step};
use cargo_metadata::MetadataCommand;

/// Boots a guest against `iopf serve` and tells the story of one fault: of a stock guest, or with `both`
/// of one in which `iopf run` answers.
pub(crate) fn run(both: bool) -> Done {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|error| format!("demo: {error}"))?;
    let iopf = metadata.target_directory.join("release/iopf");
    step(
        "iopf, built for speed",
        cargo().args(["build", "--quiet", "--release", "-p", "iopf-cli"]),
    )?;
    step(
        "a guest, a device and one page",
        cargo()
            .args(["run", "--quiet", "-p", "testkit", "--example", "demo", "--"])
            .arg(iopf)
            .args(both.then_some("--both")),
    )
}
