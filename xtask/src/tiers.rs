//! The test tiers and what each needs.

use crate::run::{Done, cargo, step};
use crate::{qemu, tools};
use clap::ValueEnum;
use std::process::Command;

/// A part of the tests that can run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Unit, property and snapshot tests, fuzz corpora, examples.
    Unit,
    /// Our models against independent ones: QEMU over qtest.
    Differential,
    /// Documentation examples.
    Doc,
    /// The pure crates and the walker under Miri, where the machine has it.
    Miri,
    /// A minute of coverage-guided fuzzing, where the machine has cargo-fuzz.
    Fuzz,
}

/// What runs when no tier is named. Nextest comes last, so that its summary does.
const DEFAULT: [Tier; 3] = [Tier::Doc, Tier::Unit, Tier::Differential];

/// Test binaries that belong to the differential tier.
const DIFFERENTIAL: &str = "binary(/^differential/)";

pub(crate) fn run(chosen: &[Tier]) -> Done {
    let all = chosen.is_empty();
    let has = |tier| chosen.contains(&tier) || (all && DEFAULT.contains(&tier));
    if has(Tier::Doc) {
        step(
            "documentation examples",
            cargo().args(["test", "--workspace", "--all-features", "--doc", "--quiet"]),
        )?;
    }
    if has(Tier::Miri) {
        miri()?;
    }
    if has(Tier::Fuzz) {
        fuzz()?;
    }
    let (what, filter) = match (has(Tier::Unit), has(Tier::Differential)) {
        (true, true) => ("unit and differential tests", "all()".to_owned()),
        (true, false) => ("unit tests", format!("not {DIFFERENTIAL}")),
        (false, true) => ("differential tests", DIFFERENTIAL.to_owned()),
        (false, false) => return Ok(()),
    };
    tools::nextest()?;
    if has(Tier::Differential) {
        // Here, where its progress can be seen: nextest keeps what a test prints.
        qemu::ensure()?;
    }
    step(
        what,
        cargo()
            .args([
                "nextest",
                "run",
                "--workspace",
                "--all-features",
                "-E",
                &filter,
            ])
            .env("PATH", tools::path()),
    )
}

/// The crates Miri runs: those without memory maps.
const MIRI_CRATES: [&str; 3] = ["iopf", "iommu-wire", "iommu-walk"];

fn miri() -> Done {
    let mut nightly = Command::new("cargo");
    if !tools::answers(nightly.args(["+nightly", "miri", "--version"])) {
        println!(
            "miri: NOT RUN: this machine has no Miri; `rustup +nightly component add miri` adds it"
        );
        return Ok(());
    }
    let mut command = Command::new("cargo");
    command
        .current_dir(crate::run::root())
        .args(["+nightly", "miri", "test", "--lib"]);
    for name in MIRI_CRATES {
        command.args(["-p", name]);
    }
    step(
        "miri",
        command
            .env("MIRIFLAGS", "-Zmiri-disable-isolation")
            .env("PROPTEST_CASES", "4"),
    )
}

/// The fuzz targets, and where the unit tests keep what each starts from.
const CORPORA: [(&str, &str); 11] = [
    ("engine_steps", "crates/iopf/corpus/engine_steps"),
    ("vtd_walk", "crates/iommu-walk/tests/corpus/vtd_walk"),
    ("vtd_model", "crates/viommu/tests/corpus/vtd_model"),
    ("config_space", "crates/endpoint/tests/corpus/config_space"),
    ("dma_engine", "crates/endpoint/tests/corpus/dma_engine"),
    ("virtio_rng", "crates/endpoint/tests/corpus/virtio_rng"),
    (
        "vfio_user_codec",
        "crates/vfio-user-server/tests/corpus/vfio_user_codec",
    ),
    (
        "vfio_user_session",
        "crates/vfio-user-server/tests/corpus/vfio_user_session",
    ),
    ("kernel_log", "crates/iopf-scene/tests/data/log"),
    ("capture", "examples/captures"),
    ("explain", "examples/captures"),
];

fn fuzz() -> Done {
    let root = crate::run::root();
    let mut probe = Command::new("cargo");
    if !tools::answers(probe.args(["+nightly", "fuzz", "--version"])) {
        println!("fuzz: NOT RUN: it needs a nightly toolchain and `cargo install cargo-fuzz`");
        println!("fuzz: the committed corpora run on stable in the unit tier");
        return Ok(());
    }
    for (target, seeds) in CORPORA {
        // New finds go where git ignores them; the seeds are read, not written.
        let finds = root.join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&finds).map_err(|error| format!("fuzz: {error}"))?;
        let mut command = Command::new("cargo");
        command
            .current_dir(root.join("fuzz"))
            .args(["+nightly", "fuzz", "run", target])
            .args([finds, root.join(seeds)])
            .args([
                "--",
                "-max_total_time=10",
                "-timeout=10",
                "-rss_limit_mb=2048",
            ]);
        step(&format!("fuzz {target} for 10 s"), &mut command)?;
    }
    Ok(())
}
