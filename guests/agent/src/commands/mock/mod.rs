//! Objects of iommufd, virtual IOMMUs and their events above all, on the kernel's own mock devices.
//!
//! ```text
//! mock SCENARIO   plays one scenario; the kernel has CONFIG_IOMMUFD_TEST
//! ```
//!
//! A scenario says what happens one line each, and who asked for it knows what they must be.

mod bench;
mod drops;
mod memory;
mod missing;
mod scenarios;
mod tables;

use super::Command;
use crate::args::Args;
use crate::reply::{Done, Failure, Reply};

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "mock",
    usage: "mock SCENARIO",
    run: mock,
}];

/// A script.
type Script = fn(&mut Reply<'_>) -> Done;

/// Every script and its name.
const ALL: &[(&str, Script)] = &[
    ("missing", missing::missing),
    ("device", scenarios::device),
    ("memory", memory::memory),
    ("tables", tables::tables),
    ("events", scenarios::events),
    ("refused", scenarios::refused),
    ("trailing", scenarios::trailing),
    ("gap", scenarios::gap),
    ("sizes", scenarios::sizes),
    ("grows", scenarios::grows),
    ("storm", scenarios::storm),
    ("drops", drops::drops),
    ("left-behind", drops::left_behind),
];

fn mock(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let name = args.word("SCENARIO")?;
    args.end()?;
    let script = ALL.iter().find(|(other, _)| *other == name);
    let Some((_, script)) = script else {
        let names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        let names = names.join(" ");
        return Err(Failure::usage(format!(
            "no scenario {name}; one of {names}"
        )));
    };
    script(out)
}
