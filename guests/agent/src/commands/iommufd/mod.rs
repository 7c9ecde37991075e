//! A user of iommufd: a DMA engine behind vfio, on page tables that this program writes itself, so
//! that it decides what is present, with a fault queue for what is not.
//!
//! ```text
//! iommufd BDF SCENARIO   plays one scenario; the function's driver is vfio-pci
//! ```
//!
//! The scenarios are in `scenarios.rs`. Behind VT-d, stage 2 is an I/O address space of the kernel with
//! memory of ours, and stage 1 lies in that memory. Behind another IOMMU the kernel writes the only
//! stage, after an address space of its own for each device. Both the device itself and one PASID of it
//! can be attached.

mod bench;
mod faults;
mod scenarios;
mod tables;

use super::{Command, pci};
use crate::args::Args;
use crate::reply::{Done, Failure, Reply};
use bench::Bench;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "iommufd",
    usage: "iommufd BDF SCENARIO",
    run: iommufd,
}];

fn iommufd(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let sysfs = pci::device(args.word("BDF")?)?;
    let name = args.word("SCENARIO")?;
    args.end()?;
    let script = scenarios::ALL.iter().find(|(other, _)| *other == name);
    let Some((_, script)) = script else {
        let names: Vec<_> = scenarios::ALL.iter().map(|(name, _)| *name).collect();
        let names = names.join(" ");
        return Err(Failure::usage(format!(
            "no scenario {name}; one of {names}"
        )));
    };
    script(&mut Bench::new(&sysfs, out)?)
}
