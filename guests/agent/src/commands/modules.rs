//! Loading modules after boot.

use super::Command;
use crate::reply::Context as _;
use crate::sys;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "insmod",
    usage: "insmod PATH PARAMETERS…",
    run: |mut args, _| {
        let path = args.word("PATH")?;
        sys::load_module(path, args.rest()).context(path)
    },
}];
