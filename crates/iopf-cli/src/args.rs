//! The command line: help, man page and completions all come from here.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Why did this DMA fault?
///
/// iopf explains and decodes the faults of IOMMUs, and runs a virtual one with devices behind it.
#[derive(Debug, Parser)]
#[command(name = "iopf", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
  0  done, whether faults were found or not
  1  --check found a difference, or --fail-on-fault a fault
  2  the arguments make no sense
  3  the host refused something
  4  the input is not what it claims to be";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(crate::run::Args),
    Serve(crate::serve::Args),
    Explain(ExplainArgs),
    Decode(DecodeArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Explain why DMA requests fault, from a capture of tables and registers
///
/// Walks the tables of a capture as the IOMMU does and says for each request where it went and
/// what to do. A capture is JSON, plain or gzip: registers, the memory that holds the tables, and
/// the requests of devices.
#[derive(Args, Debug)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// The capture, or - for stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Take captures of this IOMMU only; a capture says itself whose it is
    #[arg(long, value_enum)]
    pub(crate) arch: Option<ArchArg>,
    /// Print one JSON object a line for each request
    #[arg(long)]
    pub(crate) json: bool,
    /// Read one capture a line and print JSON; a bad capture gives an error line, the next goes on
    #[arg(long)]
    pub(crate) lines: bool,
    /// Compare with the capture's "expect" and exit 1 at the first difference
    #[arg(long)]
    pub(crate) check: bool,
    /// Exit 1 if any request faults
    #[arg(long)]
    pub(crate) fail_on_fault: bool,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  iopf explain fault.json              the walk, step by step, and what to do
  iopf explain --json fault.json.gz    the same as JSON, one object a request
  iopf explain --check fault.json      is the outcome the one the capture expects?
  cat *.jsonl | iopf explain --lines - one capture a line; adds \"capture\": N to each object

A capture that shows each kind of guest mistake lies in examples/captures of the source tree.";

/// Decode fault records and kernel log lines into one normal form
///
/// Reads what people paste: dmesg and journals with any prefix, or the records themselves in hex or
/// binary. No memory image is needed.
#[derive(Args, Debug)]
#[command(after_help = DECODE_EXAMPLES)]
pub(crate) struct DecodeArgs {
    /// The log or the records, or - for stdin
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Whose records these are, vtd if it is left out; kernel log lines say so themselves
    #[arg(long, value_enum)]
    pub(crate) arch: Option<ArchArg>,
    /// Print one JSON object a line for each fault, then a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit 1 if there is any fault
    #[arg(long)]
    pub(crate) fail_on_fault: bool,
}

const DECODE_EXAMPLES: &str = "\
Examples:
  dmesg | iopf decode                  the DMA faults in the kernel log
  journalctl -k -o json | iopf decode --json
  iopf decode --arch vtd records.bin   fault records as they lie in the registers
  iopf decode --arch amdvi log.bin     entries of the event log, or of the PPR log
  iopf decode --arch smmuv3 evtq.bin   records of the event queue, or entries of the PRI queue
  echo '00 10 00 7f 00 00 00 00 28 00 00 00 06 00 00 c0' | iopf decode --arch vtd";

/// An architecture, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ArchArg {
    /// Intel VT-d
    Vtd,
    /// AMD-Vi
    Amdvi,
    /// Arm SMMUv3
    Smmuv3,
}

/// Print the completions of a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  iopf completions bash > ~/.local/share/bash-completion/completions/iopf")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Print a manual page
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  iopf man > iopf.1
  iopf man explain | man -l -")]
pub(crate) struct ManArgs {
    /// The command whose page it is; without it, the page of iopf itself
    pub(crate) command: Option<String>,
}
