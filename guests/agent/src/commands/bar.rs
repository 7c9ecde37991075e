//! Registers behind a BAR, through sysfs.

use super::{Command, pci};
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use crate::sys::{Mapping, Width};
use std::fs::File;
use std::path::Path;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "bar",
    usage: "bar BDF BAR read OFFSET WIDTH [COUNT] | write OFFSET WIDTH VALUE",
    run: bar,
}];

/// Maps `len` bytes (0: all of it) of a function's BAR from `offset`, and lets it decode them.
pub(super) fn map(device: &Path, bar: u8, offset: u64, len: usize) -> Result<Mapping, Failure> {
    let path = device.join(format!("resource{bar}"));
    let file = File::options().read(true).write(true).open(&path);
    let file = file.context(path.display())?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let len = if len == 0 { size } else { len };
    pci::enable(device, false)?;
    Mapping::new(&file, offset, len).context(path.display())
}

/// The width of an access of so many bytes.
fn width(bytes: u64) -> Result<Width, Failure> {
    Width::of(bytes).ok_or_else(|| Failure::usage(format!("no access has {bytes} bytes")))
}

fn bar(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let device = pci::device(args.word("BDF")?)?;
    let bar: u8 = args.small("BAR")?;
    let verb = args.word("read|write")?;
    let mut offset: usize = args.small("OFFSET")?;
    let width = width(args.number("WIDTH")?)?;
    let mapping = map(&device, bar, 0, 0)?;
    match verb {
        "read" => {
            let count = args
                .next()
                .map_or(Ok(1), |word| crate::args::number("COUNT", word))?;
            args.end()?;
            for _ in 0..count {
                out.line(format_args!("{:#x}", mapping.read(offset, width)?));
                offset += width.bytes();
            }
            Ok(())
        }
        "write" => {
            let value = args.number("VALUE")?;
            args.end()?;
            Ok(mapping.write(offset, width, value)?)
        }
        other => Err(Failure::usage(format!("read or write, not {other}"))),
    }
}
