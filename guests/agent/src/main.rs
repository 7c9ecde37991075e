//! The agent: the first process of a test's guest, which does there what the test asks for.
//!
//! As process 1 it mounts the kernel's file systems, loads the modules that `/etc/iopf/modules`
//! lists, says hello on the second serial port and serves commands there. The kernel's log has the
//! first port to itself.
//!
//! Protocol, one line each, fields separated by one space:
//!
//! ```text
//! host   ID COMMAND ARGUMENTS…
//! guest  ID | text               none or more
//! guest  ID = STATUS             once; 0 is success, else an error number of Linux or 1
//! guest  * hello KEY=VALUE…      unasked, once a boot
//! ```
//!
//! Commands are served one at a time, in order. What takes long, waits, or is to be killed runs as a
//! process of its own: `spawn`, `wait`, `signal`. As any other process (`agent run COMMAND…`) the
//! agent runs one command, prints its lines and ends with its status.
//!
//! A new command is a file in `commands/` and one line in `commands/mod.rs`.

mod args;
mod commands;
mod init;
mod reply;
mod serve;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((verb, rest)) if verb == "run" => {
            let mut out = reply::Reply::plain(std::io::stdout());
            let status = commands::run(&rest.join(" "), &mut out);
            ExitCode::from(u8::try_from(status).unwrap_or(1))
        }
        _ => {
            println!("usage: run COMMAND ARGUMENTS…; the commands are");
            for command in commands::all() {
                println!("  {}", command.usage);
            }
            ExitCode::from(2)
        }
    }
}
