//! A process that shares its memory with a Data Streaming Accelerator: `dsa QUEUE SCENARIO`, and
//! `dsa-mix QUEUE SECONDS SEED` for traffic without end, `dsa-soak` (`soak.rs`) for traffic on memory
//! that changes under it.
//!
//! Each scenario does one thing to memory, has the device work on it, and checks what became of both.
//! It says one line for each completion record, and ends with an error where anything is not as
//! expected. It must run as a process of its own (`exec /init run dsa …`): the device uses the address
//! space of whoever opens the queue.

mod mix;
mod page;
mod queue;
mod scenarios;
mod soak;

use super::Command;
use crate::args::Args;
use crate::reply::{Done, Failure, Reply};
use queue::{Descriptor, Queue, Record};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "dsa",
        usage: "dsa QUEUE SCENARIO",
        run: dsa,
    },
    Command {
        name: "dsa-mix",
        usage: "dsa-mix QUEUE SECONDS SEED",
        run: |mut args, out| {
            let queue = args.word("QUEUE")?;
            let (seconds, seed) = (args.number("SECONDS")?, args.number("SEED")?);
            args.end()?;
            mix::mix(&Queue::open(queue)?, seconds, seed, out)
        },
    },
    Command {
        name: "dsa-soak",
        usage: "dsa-soak QUEUE MILLISECONDS SEED [reads|present]",
        run: soak::soak,
    },
    Command {
        name: "shake",
        usage: "shake MILLISECONDS SEED",
        run: soak::shake,
    },
];

fn dsa(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let path = args.word("QUEUE")?;
    let name = args.word("SCENARIO")?;
    args.end()?;
    let scenario = scenarios::ALL.iter().find(|(known, _)| *known == name);
    let Some((_, run)) = scenario else {
        let names: Vec<_> = scenarios::ALL.iter().map(|(name, _)| *name).collect();
        return Err(Failure::usage(format!(
            "scenarios are {}",
            names.join(", ")
        )));
    };
    let queue = Queue::open(path)?;
    run(&mut Stage { queue, out })
}

/// A queue, and who listens.
struct Stage<'a, 'b> {
    queue: Queue,
    out: &'a mut Reply<'b>,
}

impl Stage<'_, '_> {
    /// Has the device do this, says what its record holds, and checks that.
    fn expect(&mut self, what: &str, descriptor: &Descriptor, expected: Record) -> Done {
        let record = self.queue.run(descriptor)?;
        self.out.line(format_args!("{what}: {record}"));
        check(what, &record, &expected)
    }
}

/// Refuses what is not as expected.
fn check<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Done {
    if found == expected {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{what}: {found:x?}, expected {expected:x?}"
    )))
}
