//! The commands. Each file has its own; each file has one line in `ALL`.

use crate::args::Args;
use crate::reply::{Done, Reply, USAGE};

mod bar;
mod dma;
mod dsa;
mod files;
mod forwarded;
mod hwrng;
mod iommufd;
mod kmsg;
mod mock;
mod modules;
mod oracle;
mod pci;
mod process;
mod program;
mod system;
mod uio_sva;
mod vfio;

pub(crate) use system::power_off;

/// Something the agent can do.
pub(crate) struct Command {
    /// Its name, the first word of a request.
    pub(crate) name: &'static str,
    /// Its name and what it takes.
    pub(crate) usage: &'static str,
    /// Does it. The argument is what followed the name.
    pub(crate) run: fn(Args<'_>, &mut Reply<'_>) -> Done,
}

/// Every command there is.
const ALL: &[&[Command]] = &[
    bar::COMMANDS,
    dma::COMMANDS,
    dsa::COMMANDS,
    files::COMMANDS,
    forwarded::COMMANDS,
    hwrng::COMMANDS,
    iommufd::COMMANDS,
    kmsg::COMMANDS,
    mock::COMMANDS,
    modules::COMMANDS,
    oracle::COMMANDS,
    pci::COMMANDS,
    process::COMMANDS,
    program::COMMANDS,
    system::COMMANDS,
    uio_sva::COMMANDS,
    vfio::COMMANDS,
];

/// Every command there is, in one row.
pub(crate) fn all() -> impl Iterator<Item = &'static Command> {
    ALL.iter().copied().flatten()
}

/// Runs a command line; gives its status.
pub(crate) fn run(line: &str, out: &mut Reply<'_>) -> i32 {
    let mut args = Args::new(line);
    let name = args.next().unwrap_or_default();
    let Some(command) = all().find(|command| command.name == name) else {
        out.line(format_args!("error: no command {name:?}"));
        return USAGE;
    };
    match (command.run)(args, out) {
        Ok(()) => 0,
        Err(failure) if failure.status == USAGE => {
            out.line(format_args!(
                "error: {} (usage: {})",
                failure.text, command.usage
            ));
            failure.status
        }
        Err(failure) => {
            out.line(format_args!("error: {}", failure.text));
            failure.status
        }
    }
}

/// What a command comes to and says, in tests.
#[cfg(test)]
fn said(command: &str) -> (i32, String) {
    let mut sent = Vec::new();
    let status = run(command, &mut Reply::plain(&mut sent));
    (status, String::from_utf8(sent).expect("text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_name_of_its_own_and_a_usage_that_starts_with_it() {
        let mut names: Vec<_> = all().map(|command| command.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for command in all() {
            assert_eq!(command.usage.split(' ').next(), Some(command.name));
        }
    }
}
