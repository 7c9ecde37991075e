//! Everything a change must pass before it lands.

use crate::run::{Done, cargo, step};
use crate::{floors, sizes, tiers};

pub(crate) fn run() -> Done {
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    step(
        "lints",
        cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-Dwarnings",
        ]),
    )?;
    step(
        "documentation",
        cargo()
            .args([
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
            ])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    floors::report()?;
    sizes::report()?;
    tiers::run(&[])
}
