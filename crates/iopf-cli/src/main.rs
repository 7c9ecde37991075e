//! The program `iopf`.
//!
//! Arguments become a plan, the plan runs, and views show what came of it.

mod args;
mod decode;
mod exit;
mod explain;
mod help;
mod input;
mod quota;
mod run;
mod serve;
mod status;
mod step;
mod view;

use args::{Cli, Command};
use clap::Parser;
use exit::{Exit, Stop};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            // Help that nobody reads to its end is no error.
            let _ = error.print();
            return exit.into();
        }
    };
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let done = run(&cli.command, &mut out);
    let flushed = out.flush().map_err(Stop::from);
    match done.and_then(|exit| flushed.map(|()| exit)) {
        Ok(exit) => exit.into(),
        Err(stop) => {
            if !stop.message.is_empty() {
                // Where stderr is closed, the status still tells.
                let _ = writeln!(io::stderr(), "iopf: {stop}");
            }
            stop.exit.into()
        }
    }
}

fn run(command: &Command, out: &mut dyn Write) -> Result<Exit, Stop> {
    match command {
        Command::Explain(args) => explain::main(args, out),
        Command::Decode(args) => decode::main(args, out),
        Command::Run(args) => run::main(args, out),
        Command::Serve(args) => serve::main(args, out),
        Command::Completions(args) => help::completions(args, out),
        Command::Man(args) => help::man(args, out),
    }
}
