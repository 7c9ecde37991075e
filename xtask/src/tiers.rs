//! The test tiers and what each needs.

use crate::run::{Done, cargo, step, step_beside};
use crate::{qemu, tools};
use clap::ValueEnum;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A part of the tests that can run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Unit, property and snapshot tests, fuzz corpora, examples.
    Unit,
    /// Our models against independent ones: QEMU over qtest.
    Differential,
    /// Real Linux guests in QEMU.
    Guests,
    /// The host half on the real iommufd of our own kernel, and that kernel's own tests, in QEMU.
    Rig,
    /// Ten minutes of mixed traffic in a guest; not in the default run.
    Soak,
    /// Documentation examples.
    Doc,
    /// The pure crates and the walker under Miri, where the machine has it.
    Miri,
    /// Coverage-guided fuzzing: ten seconds a target, three in the default run.
    Fuzz,
}

/// What runs when no tier is named. Nextest comes last, so that its summary does.
const DEFAULT: [Tier; 6] = [
    Tier::Doc,
    Tier::Fuzz,
    Tier::Unit,
    Tier::Differential,
    Tier::Guests,
    Tier::Rig,
];

/// How the names of the test binaries start in the tiers that have their own; all others are of
/// the unit tier.
const BINARIES: [(Tier, &str); 4] = [
    (Tier::Differential, "differential"),
    (Tier::Guests, "guests"),
    (Tier::Rig, "rig"),
    (Tier::Soak, "soak"),
];

/// The nextest filter of the tiers that `has` names; `None` where none of them is nextest's.
fn filter(has: impl Fn(Tier) -> bool) -> Option<String> {
    let with = |wanted: bool| {
        let names = BINARIES.iter().filter(|(tier, _)| has(*tier) == wanted);
        let names: Vec<_> = names.map(|(_, name)| *name).collect();
        (!names.is_empty()).then(|| format!("binary(/^({})/)", names.join("|")))
    };
    if has(Tier::Unit) {
        Some(with(false).map_or("all()".to_owned(), |others| format!("not {others}")))
    } else {
        with(true)
    }
}

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
        fuzz(if all { SHORT } else { LONG })?;
    }
    let Some(filter) = filter(has) else {
        return Ok(());
    };
    tools::nextest()?;
    // Here, where its progress can be seen: nextest keeps what a test prints.
    if [Tier::Guests, Tier::Rig, Tier::Soak].into_iter().any(has) {
        qemu::guests()?;
    } else if has(Tier::Differential) {
        qemu::ensure()?;
    }
    step(
        "tests",
        cargo()
            .args(["nextest", "run", "--workspace", "--all-features", "-E"])
            .arg(&filter)
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
const CORPORA: [(&str, &str); 18] = [
    ("engine_steps", "crates/iopf/corpus/engine_steps"),
    ("vtd_walk", "crates/iommu-walk/tests/corpus/vtd_walk"),
    ("amdvi_walk", "crates/iommu-walk/tests/corpus/amdvi_walk"),
    ("smmuv3_walk", "crates/iommu-walk/tests/corpus/smmuv3_walk"),
    ("vtd_model", "crates/viommu/tests/corpus/vtd_model"),
    ("amdvi_model", "crates/viommu/tests/corpus/amdvi_model"),
    ("smmuv3_model", "crates/viommu/tests/corpus/smmuv3_model"),
    (
        "vfio_user_codec",
        "crates/vfio-user-server/tests/corpus/vfio_user_codec",
    ),
    (
        "vfio_user_session",
        "crates/vfio-user-server/tests/corpus/vfio_user_session",
    ),
    ("config_space", "crates/endpoint/tests/corpus/config_space"),
    ("dma_engine", "crates/endpoint/tests/corpus/dma_engine"),
    ("dsa", "crates/endpoint/tests/corpus/dsa"),
    ("virtio_rng", "crates/endpoint/tests/corpus/virtio_rng"),
    ("veventq", "crates/iopf-host/tests/corpus/veventq"),
    ("fault_queue", "crates/iopf-host/tests/corpus/fault_queue"),
    ("kernel_log", "crates/iopf-scene/tests/data/log"),
    ("capture", "examples/captures"),
    ("explain", "examples/captures"),
];

/// Seconds for each target in the default run, and in the tier alone.
const SHORT: u32 = 3;
const LONG: u32 = 10;

/// Runs every target for so many seconds, one on each processor at a time. The code under test has no unsafe blocks of its own, so a
/// sanitizer would find nothing that a panic does not tell.
fn fuzz(seconds: u32) -> Done {
    tools::cargo_fuzz()?;
    let root = crate::run::root();
    let fuzz = |what: &str| {
        let mut command = cargo();
        command
            .current_dir(root.join("fuzz"))
            .env("PATH", tools::path())
            // Coverage is a matter of compiler flags that only a nightly takes without this.
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", what, "--sanitizer", "none"]);
        command
    };
    step("building the fuzz targets", &mut fuzz("build"))?;
    let run = |target: &str, seeds: &str| {
        // New finds go where git ignores them; the seeds are read, not written.
        let finds = root.join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&finds).map_err(|error| format!("fuzz: {error}"))?;
        let mut command = fuzz("run");
        command
            .arg(target)
            .args([finds, root.join(seeds)])
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-verbosity=0"]);
        step_beside(&format!("fuzz {target} for {seconds} s"), &mut command)
    };
    each_processor(&CORPORA, |(target, seeds)| run(target, seeds))
}

/// Does all of a list, one on each processor at a time; gives the first failure, after which nothing new
/// is begun.
fn each_processor<T: Sync>(list: &[T], work: impl Fn(&T) -> Done + Sync) -> Done {
    let (left, failed) = (Mutex::new(list.iter()), Mutex::new(Ok(())));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(item) = next() {
                    if let Err(error) = work(item) {
                        *left.lock().unwrap_or_else(PoisonError::into_inner) = [].iter();
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        if failed.is_ok() {
                            *failed = Err(error);
                        }
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_run_leaves_out_nothing_but_the_soak() {
        let default = filter(|tier| DEFAULT.contains(&tier));
        assert_eq!(default.as_deref(), Some("not binary(/^(soak)/)"));
        let every = [
            Tier::Unit,
            Tier::Differential,
            Tier::Guests,
            Tier::Rig,
            Tier::Soak,
        ];
        assert_eq!(
            filter(|tier| every.contains(&tier)).as_deref(),
            Some("all()")
        );
    }

    #[test]
    fn everything_of_a_list_is_done_once_and_the_first_failure_ends_it() {
        let done = Mutex::new(Vec::new());
        let list: Vec<u32> = (0..20).collect();
        let count = |item: &u32| {
            done.lock().expect("no panic").push(*item);
            Ok(())
        };
        assert_eq!(each_processor(&list, count), Ok(()));
        let mut all = done.into_inner().expect("no panic");
        all.sort_unstable();
        assert_eq!(all, list);

        let begun = Mutex::new(0);
        let fail = |_: &u32| {
            *begun.lock().expect("no panic") += 1;
            Err("no".to_owned())
        };
        assert_eq!(each_processor(&list, fail), Err("no".to_owned()));
        let begun = begun.into_inner().expect("no panic");
        // One of each thread at most.
        let threads = thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=threads).contains(&begun), "{begun}");
    }

    #[test]
    fn a_tier_alone_runs_its_own_binaries() {
        let of = |tiers: &[Tier]| filter(|tier| tiers.contains(&tier));
        assert_eq!(of(&[Tier::Guests]).as_deref(), Some("binary(/^(guests)/)"));
        let unit = "not binary(/^(differential|guests|rig|soak)/)";
        assert_eq!(of(&[Tier::Unit]).as_deref(), Some(unit));
        assert_eq!(of(&[Tier::Miri]), None);
    }
}
