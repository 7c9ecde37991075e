//! The arguments of `iopf run`, and the plan they make. Parsing has no effects.

use super::iommufd;
use crate::args::ArchArg;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// Where the faults come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// A virtual IOMMU, devices and a scripted guest in this process.
    Model,
    /// This machine's IOMMU and devices, through /dev/iommu and vfio.
    Iommufd,
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

/// Who decides about page requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResolverArg {
    /// Nothing is resolvable: every group is answered INVALID.
    Deny,
    /// A page of this process's memory is mapped where it is asked for.
    Memory,
    /// The device is looked at while it stands still, then let go.
    Inspect,
    /// Another process decides, through a socket.
    Forward,
}

/// Run faults through the engine: of a model in this process, or of real devices
///
/// The model is a guest, a virtual IOMMU and DMA devices in this process. The guest is a script that
/// drives the IOMMU through its registers as Linux does. Devices do real DMA to its memory, with a TLB
/// and page requests of their own, and every byte is checked.
///
/// With --backend iommufd, devices that vfio-pci drives are put on page tables in which nothing is
/// mapped, and their page requests are answered from here until Ctrl-C or SIGTERM.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the faults come from
    #[arg(long, value_enum, default_value_t = Backend::Model)]
    pub(crate) backend: Backend,
    /// Stop after so many seconds: the healthy scenario, or the run with iommufd
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// Print JSON: the model's report as one object; with iommufd events, one a line, the report last
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Exit 1 if the guest recorded any fault; with iommufd, if any group was answered INVALID
    #[arg(long)]
    pub(crate) fail_on_fault: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) iommufd: IommufdArgs,
}

/// What belongs to the model.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of --backend model")]
pub(crate) struct ModelArgs {
    /// The IOMMU to put in front of the devices [default: vtd]
    #[arg(long, value_enum)]
    pub(crate) arch: Option<ArchArg>,
    /// What to play [default: all]
    #[arg(long, value_enum)]
    pub(crate) scenario: Option<Choice>,
    /// Devices behind the IOMMU in the healthy scenario [default: 4]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) devices: Option<u8>,
    /// Pages to copy in the healthy scenario [default: 20000, without a limit if --seconds is given]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) pages: Option<u64>,
    /// Where the random choices start [default: 1]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// What belongs to iommufd.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of --backend iommufd")]
pub(crate) struct IommufdArgs {
    /// A PCI function that vfio-pci drives, such as 0000:00:04.0; may be given again
    #[arg(long = "device", value_name = "ADDRESS")]
    pub(crate) functions: Vec<String>,
    /// Attach this PASID of each device as well, 1 to 1048575
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=0xf_ffff))]
    pub(crate) pasid: Option<u32>,
    /// Who decides about page requests [default: deny]
    #[arg(long, value_enum)]
    pub(crate) resolver: Option<ResolverArg>,
    /// Where memory starts for the devices (memory, forward) [default: 0x100000000]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) iova: Option<String>,
    /// How much memory there is, such as 64M (memory, forward) [default: 64M]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// A file that is the memory, made longer if need be; on tmpfs, since its pages are pinned
    /// (memory, forward)
    #[arg(long, value_name = "FILE")]
    pub(crate) backing: Option<PathBuf>,
    /// Let the device go with SUCCESS instead of INVALID once it was looked at (inspect)
    #[arg(long)]
    pub(crate) resume: bool,
    /// Where the other process connects (forward)
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Answer INVALID what has waited so long, in seconds, such as 0.5 [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) deadline: Option<f64>,
    /// Stop after so many groups were answered
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) groups: Option<u64>,
    /// One line for each step of a page request, with its time
    #[arg(long)]
    pub(crate) trace: bool,
}

const EXAMPLES: &str = "\
Examples:
  iopf run                                   every scenario of the model, in a few seconds
  iopf run --scenario mistakes               what the guest is told of each of its mistakes
  iopf run --arch amdvi --scenario mistakes  the same in front of an AMD IOMMU
  iopf run --arch smmuv3 --scenario healthy  devices that stall at missing pages, and some that ask for them
  iopf run --scenario healthy --seconds 60   shared virtual addressing for a minute
  iopf run --json --quiet | jq .scenarios    the same report as JSON
  iopf run --backend iommufd --device 0000:00:04.0 --resolver memory --memory 1G
                                             memory on demand for a device, until Ctrl-C
  iopf run --backend iommufd --device 0000:00:04.0 --resolver inspect --groups 1
                                             what the device looks like at its first fault

With the model, exit status 1 also means that the run did not see what it had to see; the report
says where.";

/// What to do, with every choice made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Work {
    /// Play scenarios.
    Model(Plan),
    /// Serve devices.
    Iommufd(iommufd::Plan),
}

/// What the model is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) arch: ArchArg,
    pub(crate) healthy: bool,
    pub(crate) mistakes: bool,
    pub(crate) storm: bool,
    pub(crate) devices: u8,
    pub(crate) pages: u64,
    pub(crate) seconds: Option<u64>,
    pub(crate) seed: u64,
}

impl Args {
    /// What they ask for.
    ///
    /// # Errors
    /// A sentence, where an argument belongs to the other backend or makes no sense with another.
    pub(crate) fn work(&self) -> Result<Work, String> {
        match self.backend {
            Backend::Model => {
                belongs(&self.iommufd.given(), "iommufd")?;
                Ok(Work::Model(self.model.plan(self.seconds)))
            }
            Backend::Iommufd => {
                belongs(&self.model.given(), "model")?;
                Ok(Work::Iommufd(iommufd::Plan::of(self)?))
            }
        }
    }
}

/// Refuses the first of `arguments` that was given.
fn belongs(arguments: &[(&str, bool)], backend: &str) -> Result<(), String> {
    match arguments.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(format!("{name} belongs to --backend {backend}")),
        None => Ok(()),
    }
}

impl ModelArgs {
    fn given(&self) -> [(&'static str, bool); 5] {
        [
            ("--arch", self.arch.is_some()),
            ("--scenario", self.scenario.is_some()),
            ("--devices", self.devices.is_some()),
            ("--pages", self.pages.is_some()),
            ("--seed", self.seed.is_some()),
        ]
    }

    fn plan(&self, seconds: Option<u64>) -> Plan {
        let scenario = self.scenario.unwrap_or(Choice::All);
        let all = scenario == Choice::All;
        Plan {
            arch: self.arch.unwrap_or(ArchArg::Vtd),
            healthy: all || scenario == Choice::Healthy,
            mistakes: all || scenario == Choice::Mistakes,
            storm: all || scenario == Choice::Storm,
            devices: self.devices.unwrap_or(4),
            pages: match (self.pages, seconds) {
                (Some(pages), _) => pages,
                (None, Some(_)) => u64::MAX,
                (None, None) => 20_000,
            },
            seconds,
            seed: self.seed.unwrap_or(1),
        }
    }
}

impl IommufdArgs {
    fn given(&self) -> [(&'static str, bool); 11] {
        [
            ("--device", !self.functions.is_empty()),
            ("--pasid", self.pasid.is_some()),
            ("--resolver", self.resolver.is_some()),
            ("--iova", self.iova.is_some()),
            ("--memory", self.memory.is_some()),
            ("--backing", self.backing.is_some()),
            ("--resume", self.resume),
            ("--socket", self.socket.is_some()),
            ("--deadline", self.deadline.is_some()),
            ("--groups", self.groups.is_some()),
            ("--trace", self.trace),
        ]
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
