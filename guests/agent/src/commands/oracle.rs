//! A script of steps, played on the kernel's iommufd with mock devices.
//!
//! ```text
//! oracle PATH              plays the steps of a file, one a line
//! oracle-steps STEP;STEP…  plays these
//! ```
//!
//! Each step comes to one line: what the call returned, the records that it read (`r:`), and the
//! answers that the mock devices got meanwhile (`a:`), in their order. What the words of a step mean
//! is said at `testkit::oracle::Step`; `world.rs` there is the model that must say the same. One more
//! is `wait MILLISECONDS`, for which a model has no use. What is left in the end is closed, and no line tells of it.
//!
//! It needs our own kernel: `guests/kernel/oracle/README.md`.

mod events;
mod memory;
mod player;

use super::Command;
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use player::Player;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "oracle",
        usage: "oracle PATH",
        run: |mut args, out| {
            let path = args.word("PATH")?;
            args.end()?;
            let script = std::fs::read_to_string(path).context(path)?;
            play(script.lines(), out)
        },
    },
    Command {
        name: "oracle-steps",
        usage: "oracle-steps STEP;STEP…",
        run: |args, out| play(args.rest().split(';'), out),
    },
];

fn play<'a>(steps: impl Iterator<Item = &'a str>, out: &mut Reply<'_>) -> Done {
    let mut player = Player::new()?;
    for step in steps {
        let line = player
            .play(Args::new(step))
            .map_err(|error| error.at(step))?;
        out.line(line);
    }
    Ok(())
}

/// The number of an object's name: what follows its letter.
fn name(letter: char, word: &str) -> Result<u8, Failure> {
    let number = word.strip_prefix(letter).and_then(|rest| rest.parse().ok());
    number.ok_or_else(|| Failure::usage(format!("{word} is no {letter}NUMBER")))
}
