//! The hardware random number generator.

use super::Command;
use crate::args::{Args, hex};
use crate::reply::{Context as _, Done, Reply};
use std::fs::File;
use std::io::Read as _;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "hwrng",
    usage: "hwrng BYTES",
    run: hwrng,
}];

/// Bytes as `/dev/hwrng` gives them, 32 a line.
fn hwrng(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let count: u16 = args.small("BYTES")?;
    args.end()?;
    let mut data = vec![0; count.into()];
    let mut device = File::open("/dev/hwrng").context("/dev/hwrng")?;
    device.read_exact(&mut data).context("/dev/hwrng")?;
    for row in data.chunks(32) {
        out.line(hex(row));
    }
    Ok(())
}
