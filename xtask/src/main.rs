//! Automation for the workspace: test tiers, the rule on dependencies, the rule on file length.

mod ci;
mod demo;
mod floors;
mod qemu;
mod rig;
mod run;
mod sizes;
mod tiers;
mod tools;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Automation for the iopf workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", after_help = HELP)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "Examples:
  cargo xtask test                       every tier, with all set-up
  cargo xtask test --tier unit           unit, property and snapshot tests alone
  cargo xtask test --tier differential   our walks against QEMU's models
  cargo xtask test --tier guests         real Linux guests in QEMU
  cargo xtask test --tier rig            the real iommufd of our own kernel, in QEMU
  cargo xtask rig -- PROGRAM ARGUMENTS   a static program on our own kernel, in QEMU
  cargo xtask demo                       one fault of a stock guest, told step by step
  cargo xtask demo --both                page requests seen from IOMMU and guest at once
  cargo xtask ci                         format, lints, docs, floors, sizes, then every tier";

#[derive(Subcommand)]
enum Command {
    /// Runs the tests and does all their set-up.
    Test {
        /// Only this tier; may be given more than once.
        #[arg(long = "tier", value_enum)]
        tiers: Vec<tiers::Tier>,
    },
    /// Format, lints and docs as errors, floors, sizes, then every test tier.
    Ci,
    /// Boots a stock guest and tells the story of one fault of shared memory, with the time of each step.
    Demo {
        /// Page requests of a DMA engine instead, answered by `iopf run` in the guest: one trace from both
        /// sides.
        #[arg(long)]
        both: bool,
    },
    /// Runs a static program in a guest with our own kernel; its output and its status are those of this
    /// command. `cargo xtask rig --help` says more.
    #[command(disable_help_flag = true)]
    Rig {
        /// Options, then `--`, the program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _words: Vec<OsString>,
    },
    /// Checks who may depend on whom.
    Floors,
    /// Prints the code lines of every file; fails over the wall of 600.
    Sizes,
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Test { tiers } => tiers::run(&tiers),
        Command::Ci => ci::run(),
        Command::Demo { both } => demo::run(both),
        Command::Rig { .. } => {
            return rig::run().unwrap_or_else(|error| {
                eprintln!("xtask: {error}");
                ExitCode::FAILURE
            });
        }
        Command::Floors => floors::report(),
        Command::Sizes => sizes::report(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
