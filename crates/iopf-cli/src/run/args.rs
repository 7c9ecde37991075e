//! The arguments of `iopf run`, and the plan they make. Parsing has no effects.

use clap::ValueEnum;
use std::time::Duration;

/// Which IOMMU stands in front of the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// Intel VT-d.
    Vtd,
}

/// What happens during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Devices copy memory of processes that nobody touched before; pages come by page request.
    Healthy,
    /// The guest gets its tables wrong, one way at a time, and finds the reason in its own log.
    Mistakes,
    /// One device floods the IOMMU; the others go on.
    Storm,
    /// All of them, one after the other.
    All,
}

/// Run a guest, a virtual IOMMU and DMA devices in this process, and report what happened
///
/// The guest is a script that drives the IOMMU through its registers as Linux does. Devices do real
/// DMA to its memory, with a TLB and page requests of their own, and every byte is checked.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The IOMMU to put in front of the devices
    #[arg(long, value_enum, default_value_t = Arch::Vtd)]
    pub(crate) arch: Arch,
    /// What to play
    #[arg(long, value_enum, default_value_t = Choice::All)]
    pub(crate) scenario: Choice,
    /// Devices behind the IOMMU in the healthy scenario
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) devices: u8,
    /// Pages to copy in the healthy scenario [default: 20000, without a limit if --seconds is given]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) pages: Option<u64>,
    /// Stop the healthy scenario after so many seconds
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// Where the random choices start
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Exit 1 if the guest recorded any fault
    #[arg(long)]
    pub(crate) fail_on_fault: bool,
}

const EXAMPLES: &str = "\
Examples:
  iopf run                                   every scenario, in a few seconds
  iopf run --scenario mistakes               what the guest is told of each of its mistakes
  iopf run --scenario healthy --seconds 60   shared virtual addressing for a minute
  iopf run --json --quiet | jq .scenarios    the same report as JSON

Exit status 1 also means that the run did not see what it had to see; the report says where.";

/// What to do, with every choice made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) healthy: bool,
    pub(crate) mistakes: bool,
    pub(crate) storm: bool,
    pub(crate) devices: u8,
    pub(crate) pages: u64,
    pub(crate) seconds: Option<u64>,
    pub(crate) seed: u64,
}

impl Args {
    pub(crate) fn plan(&self) -> Plan {
        let all = self.scenario == Choice::All;
        Plan {
            healthy: all || self.scenario == Choice::Healthy,
            mistakes: all || self.scenario == Choice::Mistakes,
            storm: all || self.scenario == Choice::Storm,
            devices: self.devices,
            pages: match (self.pages, self.seconds) {
                (Some(pages), _) => pages,
                (None, Some(_)) => u64::MAX,
                (None, None) => 20_000,
            },
            seconds: self.seconds,
            seed: self.seed,
        }
    }
}

impl Plan {
    /// How much work the healthy scenario is: pages, or milliseconds where time is the only limit.
    pub(crate) fn work(&self) -> u64 {
        match self.seconds {
            Some(seconds) if self.pages == u64::MAX => seconds * 1000,
            _ => self.pages,
        }
    }

    /// How much of it is done.
    pub(crate) fn progress(&self, pages: u64, elapsed: Duration) -> u64 {
        let done = if self.pages == u64::MAX {
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
        } else {
            pages
        };
        done.min(self.work())
    }
}
