//! Completions and manual pages, from the table of arguments.

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::{Exit, Stop};
use clap::CommandFactory;
use std::io::Write;

/// `iopf completions`.
pub(crate) fn completions(args: &CompletionsArgs, out: &mut dyn Write) -> Result<Exit, Stop> {
    // The generator panics on a write error, so it writes to memory.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "iopf", &mut text);
    out.write_all(&text)?;
    Ok(Exit::Done)
}

/// `iopf man`.
pub(crate) fn man(args: &ManArgs, out: &mut dyn Write) -> Result<Exit, Stop> {
    let mut root = Cli::command();
    root.build();
    let command = match &args.command {
        None => root,
        Some(name) => match root.find_subcommand(name) {
            Some(command) => command.clone(),
            None => {
                return Err(Stop::usage(format_args!(
                    "no command `{name}`; see `iopf --help`"
                )));
            }
        },
    };
    clap_mangen::Man::new(command).render(out)?;
    Ok(Exit::Done)
}
