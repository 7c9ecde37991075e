//! The guest as a whole: who it is, how it goes down.

use super::Command;
use crate::args::Args;
use crate::reply::{Context as _, Done, Reply};
use rustix::system::RebootCommand;
use std::fs;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "ping",
        usage: "ping",
        run: |args, out| {
            args.end()?;
            out.line("pong");
            Ok(())
        },
    },
    Command {
        name: "uname",
        usage: "uname",
        run: uname,
    },
    Command {
        name: "meminfo",
        usage: "meminfo",
        run: |args, out| {
            args.end()?;
            out.lines(&fs::read_to_string("/proc/meminfo")?);
            Ok(())
        },
    },
    Command {
        name: "sleep",
        usage: "sleep MILLISECONDS",
        run: |mut args, _| {
            let time = args.number("MILLISECONDS")?;
            args.end()?;
            std::thread::sleep(std::time::Duration::from_millis(time));
            Ok(())
        },
    },
    Command {
        name: "poweroff",
        usage: "poweroff",
        run: |args, _| down(args, RebootCommand::PowerOff),
    },
    Command {
        name: "reboot",
        usage: "reboot",
        run: |args, _| down(args, RebootCommand::Restart),
    },
    Command {
        name: "panic",
        usage: "panic",
        run: |args, _| {
            args.end()?;
            // Linux, Documentation/admin-guide/sysrq.rst: "c" crashes the system.
            fs::write("/proc/sysrq-trigger", "c").context("/proc/sysrq-trigger")
        },
    },
];

fn uname(args: Args<'_>, out: &mut Reply<'_>) -> Done {
    args.end()?;
    let uname = rustix::system::uname();
    let words = [
        uname.sysname(),
        uname.release(),
        uname.version(),
        uname.machine(),
    ];
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    out.line(words.join(" "));
    Ok(())
}

/// There is no answer to this one: the channel ends.
fn down(args: Args<'_>, how: RebootCommand) -> Done {
    args.end()?;
    rustix::fs::sync();
    rustix::system::reboot(how)?;
    Ok(())
}

/// Ends the machine, come what may.
pub(crate) fn power_off() -> ! {
    loop {
        let _ = rustix::system::reboot(RebootCommand::PowerOff);
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
