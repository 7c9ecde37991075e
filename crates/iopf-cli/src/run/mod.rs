//! `iopf run`: guest memory, a virtual IOMMU, DMA devices and a scripted guest in one process; or, with
//! `--backend iommufd`, devices of this machine (`iommufd/`).
//!
//! [`Args`] make a plan, the plan runs, the run fills a [`report::Report`], and each view is a
//! function of that report.

mod arch;
mod args;
mod clock;
mod collect;
mod healthy;
mod host;
mod iommufd;
mod latency;
mod machine;
mod mistakes;
mod progress;
mod report;
mod rng;
mod storm;
mod text;
mod workload;

pub(crate) use args::Args;

use crate::args::ArchArg;
use crate::exit::{Exit, Stop};
use args::{Plan, Work};
use clock::Clock;
use machine::TestResult;
use mistakes::Spoilt;
use progress::{Progress, Silent, Visible};
use report::{Report, Scenario};
use std::fmt::Write as _;
use std::io::Write;
use viommu::amdvi::Amdvi;
use viommu::smmuv3::Smmuv3;
use viommu::vtd::Vtd;

/// Runs what `args` ask for, and writes the report to `out`.
///
/// Ends with [`Exit::Found`] when a check of the run itself fails, and with `--fail-on-fault` when
/// a fault was found.
pub(crate) fn main(args: &Args, out: &mut dyn Write) -> Result<Exit, Stop> {
    match args.work().map_err(Stop::usage)? {
        Work::Model(plan) => model(args, &plan, out),
        Work::Iommufd(plan) => iommufd::main(&plan, out),
    }
}

fn model(args: &Args, plan: &Plan, out: &mut dyn Write) -> Result<Exit, Stop> {
    let mut progress: Box<dyn Progress> = if args.quiet {
        Box::new(Silent)
    } else {
        Box::new(Visible::new())
    };
    let report = match plan.arch {
        ArchArg::Vtd => run::<Vtd>(plan, progress.as_mut()),
        ArchArg::Amdvi => run::<Amdvi>(plan, progress.as_mut()),
        ArchArg::Smmuv3 => run::<Smmuv3>(plan, progress.as_mut()),
    }
    .map_err(Stop::host)?;
    if args.json {
        serde_json::to_writer(&mut *out, &report)
            .map_err(|e| Stop::from(std::io::Error::from(e)))?;
        writeln!(out)?;
    } else {
        let mut view = String::new();
        text::text(&report, &mut view).map_err(Stop::host)?;
        out.write_all(view.as_bytes())?;
    }
    let found = !report.passed || (args.fail_on_fault && report.has_faults());
    Ok(if found { Exit::Found } else { Exit::Done })
}

/// A scenario: its name, whether the plan has it, how much work it is, and how it is played.
type Part = (
    &'static str,
    bool,
    u64,
    fn(&Plan, &mut dyn Progress) -> TestResult<Scenario>,
);

fn run<X: Spoilt>(plan: &Plan, progress: &mut dyn Progress) -> Result<Report, String> {
    let clock = Clock::start();
    let parts: [Part; 3] = [
        ("healthy", plan.healthy, plan.work(), healthy::play::<X>),
        (
            "mistakes",
            plan.mistakes,
            mistakes::total::<X>(),
            mistakes::play::<X>,
        ),
        ("storm", plan.storm, storm::PAGES, storm::play::<X>),
    ];
    let mut scenarios = Vec::new();
    for (name, wanted, total, play) in parts {
        if !wanted {
            continue;
        }
        progress.start(name, total);
        let scenario = play(plan, progress).map_err(|e| message(name, &*e));
        progress.end(scenario.as_ref().is_ok_and(|s| s.passed));
        scenarios.push(scenario?);
    }
    Ok(Report {
        schema: 1,
        arch: X::NAME.to_owned(),
        seed: plan.seed,
        elapsed_ns: clock.nanos(),
        passed: scenarios.iter().all(|s| s.passed),
        scenarios,
    })
}

fn message(name: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{name}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
