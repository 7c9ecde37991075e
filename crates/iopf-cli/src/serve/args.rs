//! Arguments of `iopf serve`, and the plan they become.

use super::arch::Serve;
use super::told::Given;
use crate::args::ArchArg;
use endpoint::Signals;
use iopf::Rid;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Put the virtual IOMMU and devices behind it in front of a guest in QEMU
///
/// Serves an Intel VT-d unit, an AMD IOMMU or an Arm SMMU and the functions behind it over vfio-user,
/// one socket a function, and writes what QEMU needs: the ACPI table or the device tree, and the
/// command line. QEMU 10.1 or newer has the client. The devices that QEMU models itself stay out of
/// the IOMMU's reach.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Whose IOMMU
    #[arg(long, value_enum, default_value = "vtd")]
    pub(crate) arch: ArchArg,
    /// Folder for the sockets, the table and the command line [default: a new one in the temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// A function behind the IOMMU: dma, rng or dsa, and its place on bus 0; may be given again.
    /// A deaf-dsa ignores invalidations, as a broken device does: its guest may well crash
    /// [default: dma@04.0, rng@06.0, and dsa@07.0 on x86]
    #[arg(long = "endpoint", value_name = "KIND@SLOT")]
    pub(crate) endpoints: Vec<EndpointArg>,
    /// The IOMMU's own place on bus 0
    #[arg(long, value_name = "SLOT", default_value = "05.0")]
    pub(crate) slot: SlotArg,
    /// Where the IOMMU's registers are. On x86 firmware decides; a wrong guess is reported and the
    /// table put right [default: 0xfebf0000, or the end of the device tree's PCI window]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) bar: Option<u64>,
    /// The device tree of the guest's machine (QEMU: -machine …,dumpdtb=FILE), for smmuv3
    #[arg(long, value_name = "FILE")]
    pub(crate) dtb_in: Option<PathBuf>,
    /// Where the tree with the IOMMU goes [default: guest.dtb in the folder]
    #[arg(long, value_name = "FILE", requires = "dtb_in")]
    pub(crate) dtb_out: Option<PathBuf>,
    /// The guest's kernel, an arm64 Image, on the QEMU command line that is printed
    #[arg(long, value_name = "IMAGE", requires = "dtb_in")]
    pub(crate) kernel: Option<PathBuf>,
    /// A function whose transactions the SMMU may hold, if its driver lets it ("dma-can-stall" in the
    /// device tree); may be given again
    #[arg(long = "stall", value_name = "SLOT", requires = "dtb_in")]
    pub(crate) stalls: Vec<SlotArg>,
    /// The SMMU holds the transactions of every function that its driver lets it (SMMU_IDR0.STALL_MODEL
    /// is 10b)
    #[arg(long)]
    pub(crate) force_stall: bool,
    /// Room for events of the SMMU, as a power of two (SMMU_IDR1.EVENTQS): a guest that is slower than
    /// its devices loses the sooner some
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(crate) event_queue: Option<u8>,
    /// Legacy mode only: no PASIDs, no page requests
    #[arg(long)]
    pub(crate) legacy: bool,
    /// Where the entropy device has its bytes from, over and over
    #[arg(long, value_name = "FILE", default_value = "/dev/urandom")]
    pub(crate) entropy: PathBuf,
    /// Guest memory on the QEMU command line that is printed
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub(crate) memory: String,
    /// Write a capture for iopf explain into this folder at each new kind of fault
    #[arg(long, value_name = "DIR")]
    pub(crate) capture_dir: Option<PathBuf>,
    /// Log what the guest does wrong, within a budget for each device; by default it is counted only
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// One line for each step of a page request, with its time
    #[arg(long)]
    pub(crate) trace: bool,
    /// Events as JSON, one a line, on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Accept guest memory that its owner could truncate under us
    #[arg(long)]
    pub(crate) trust_unsealed: bool,
}

const EXAMPLES: &str = "\
Examples:
  iopf serve                              sockets in a new folder, and the QEMU command line
  iopf serve --dir /run/vm1 --capture-dir /run/vm1/faults
  iopf serve --endpoint dma@04.0 --legacy
  iopf serve --json --trace | jq -c 'select(.event == \"step\")'

Stop it with Ctrl-C or SIGTERM: it then removes its sockets and says what it counted.
A second one ends it at once.";

/// A place on bus 0: `04.0`, or `4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotArg(pub(crate) Rid);

impl FromStr for SlotArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no place on bus 0: write 04.0, with a device of 1 to 1f");
        let (device, function) = text.split_once('.').unwrap_or((text, "0"));
        let device = u8::from_str_radix(device, 16).map_err(|_| wrong())?;
        let function = function.parse().map_err(|_| wrong())?;
        let rid = Rid::new(0, device, function).ok_or_else(wrong)?;
        // 00:00.0 is the host bridge.
        if device == 0 {
            Err(wrong())
        } else {
            Ok(Self(rid))
        }
    }
}

impl fmt::Display for SlotArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{}", self.0.device(), self.0.function())
    }
}

/// The kinds of function that can be put behind the IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The DMA engine of `docs/endpoints.md`.
    Dma,
    /// virtio-rng.
    Rng,
    /// Intel DSA.
    Dsa,
    /// Intel DSA that ignores invalidations of its TLB.
    DeafDsa,
}

impl Kind {
    /// All of them, as arguments name them.
    const ALL: [(&'static str, Self); 4] = [
        ("dma", Self::Dma),
        ("rng", Self::Rng),
        ("dsa", Self::Dsa),
        ("deaf-dsa", Self::DeafDsa),
    ];

    /// Whether its driver wants MSI-X.
    fn needs_messages(self) -> bool {
        matches!(self, Self::Dsa | Self::DeafDsa)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// A kind and its place: `dma@04.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndpointArg {
    pub(crate) kind: Kind,
    pub(crate) slot: SlotArg,
}

impl FromStr for EndpointArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, slot) = text
            .split_once('@')
            .ok_or_else(|| format!("{text:?} names no place: write dma@04.0"))?;
        let kind = Kind::ALL
            .into_iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, kind)| kind)
            .ok_or_else(|| {
                format!("there is no endpoint {kind:?}: write dma, rng, dsa or deaf-dsa")
            })?;
        Ok(Self {
            kind,
            slot: slot.parse()?,
        })
    }
}

fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match u64::from_str_radix(digits, 16) {
        Ok(at) if at != 0 && at.is_multiple_of(4096) => Ok(at),
        _ => Err("write a page's address in hex, such as 0xfebf0000".to_owned()),
    }
}

/// What is to be served, checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) unit: Rid,
    pub(super) endpoints: Vec<(Kind, Rid)>,
    /// Where the registers are to be, if somebody says so.
    pub(super) bar: Option<u64>,
    /// The guest's device tree.
    pub(super) tree: Option<Given>,
    /// Functions that may stall.
    pub(super) stalls: Vec<Rid>,
    pub(super) force_stall: bool,
    /// Room for events, as a power of two.
    pub(super) event_queue: Option<u8>,
    pub(super) legacy: bool,
    pub(super) memory: String,
    pub(super) entropy: PathBuf,
    pub(super) captures: Option<PathBuf>,
    pub(super) verbose: bool,
    pub(super) trace: bool,
    pub(super) trust_unsealed: bool,
}

impl Plan {
    /// What the arguments ask for; the unit takes [`Serve::FUNCTIONS`] places from its own on.
    ///
    /// # Errors
    /// A sentence, where two functions want one place, or one asks for what there is not.
    pub(super) fn of<X: Serve>(args: &Args) -> Result<Self, String> {
        let functions = X::FUNCTIONS;
        let given = args.endpoints.iter();
        let mut endpoints: Vec<_> = given.map(|given| (given.kind, given.slot.0)).collect();
        if endpoints.is_empty() {
            endpoints.extend(X::ENDPOINTS);
        }
        if X::SIGNALS == Signals::Pin
            && let Some((kind, _)) = endpoints.iter().find(|(kind, _)| kind.needs_messages())
        {
            return Err(format!(
                "a {} has no interrupt but messages, which QEMU does not bring past an SMMU",
                kind.name()
            ));
        }
        let stalls: Vec<Rid> = args.stalls.iter().map(|slot| slot.0).collect();
        let for_smmuv3 = [
            ("--dtb-in", args.dtb_in.is_some()),
            ("--force-stall", args.force_stall),
            ("--event-queue", args.event_queue.is_some()),
        ];
        if let Some((option, _)) = for_smmuv3.iter().find(|(_, given)| *given && !X::TREE) {
            return Err(format!("{option} is for smmuv3, not for {}", X::NAMES.arch));
        }
        if let Some(rid) = stalls
            .iter()
            .find(|rid| !endpoints.iter().any(|(_, r)| r == *rid))
        {
            return Err(format!("no function of ours is at {}", SlotArg(*rid)));
        }
        let mut places: Vec<Rid> = endpoints.iter().map(|(_, rid)| *rid).collect();
        let unit = args.slot.0;
        if functions > 1 && unit.function() != 0 {
            return Err(format!(
                "the IOMMU takes {functions} functions: {} is no function 0",
                args.slot
            ));
        }
        places.extend((0..u32::from(functions)).map(|function| Rid(unit.0 + function)));
        places.sort();
        if let Some([rid, _]) = places.array_windows().find(|[a, b]| a == b) {
            return Err(format!("two functions at {}", SlotArg(*rid)));
        }
        // PCI: a device is looked for at its function 0.
        let alone = places
            .iter()
            .find(|rid| rid.function() != 0 && !places.iter().any(|r| r.0 == rid.0 & !7));
        if let Some(rid) = alone {
            return Err(format!(
                "a guest finds {} only beside a function 0",
                SlotArg(*rid)
            ));
        }
        Ok(Self {
            unit,
            endpoints,
            bar: args.bar,
            tree: args.dtb_in.as_ref().map(|tree| Given {
                tree: tree.clone(),
                out: args.dtb_out.clone(),
                kernel: args.kernel.clone(),
            }),
            stalls,
            force_stall: args.force_stall,
            event_queue: args.event_queue,
            legacy: args.legacy,
            memory: args.memory.clone(),
            entropy: args.entropy.clone(),
            captures: args.capture_dir.clone(),
            verbose: args.verbose,
            trace: args.trace,
            trust_unsealed: args.trust_unsealed,
        })
    }
}
