//! PCI functions as sysfs shows them.

use super::Command;
use crate::args::{Args, hex};
use crate::reply::{Context as _, Done, Failure, Reply};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "lspci",
        usage: "lspci",
        run: lspci,
    },
    Command {
        name: "bind",
        usage: "bind BDF DRIVER",
        run: bind,
    },
    Command {
        name: "unbind",
        usage: "unbind BDF",
        run: |mut args, _| {
            let device = device(args.word("BDF")?)?;
            args.end()?;
            unbind(&device)
        },
    },
    Command {
        name: "remove",
        usage: "remove BDF",
        run: |mut args, _| {
            let device = device(args.word("BDF")?)?;
            args.end()?;
            put(&device.join("remove"), "1")
        },
    },
    Command {
        name: "rescan",
        usage: "rescan",
        run: |args, _| {
            args.end()?;
            put(Path::new("/sys/bus/pci/rescan"), "1")
        },
    },
    Command {
        name: "reset",
        usage: "reset BDF",
        run: |mut args, _| {
            let device = device(args.word("BDF")?)?;
            args.end()?;
            put(&device.join("reset"), "1")
        },
    },
    Command {
        name: "bus-master",
        usage: "bus-master BDF on|off",
        run: bus_master,
    },
    Command {
        name: "config",
        usage: "config BDF read OFFSET WIDTH | write OFFSET WIDTH VALUE | dump",
        run: config,
    },
];

const DEVICES: &str = "/sys/bus/pci/devices";

/// The COMMAND register and two of its bits: Linux include/uapi/linux/pci_regs.h.
const COMMAND: u64 = 4;
const MEMORY: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;

/// The folder of a function; `00:04.0` is short for `0000:00:04.0`.
pub(super) fn device(bdf: &str) -> Result<PathBuf, Failure> {
    let long = if bdf.matches(':').count() == 1 {
        format!("0000:{bdf}")
    } else {
        bdf.to_owned()
    };
    let path = Path::new(DEVICES).join(&long);
    if path.exists() {
        Ok(path)
    } else {
        Err(Failure::from(rustix::io::Errno::NODEV).at(format!("no PCI function {long}")))
    }
}

/// Lets a function decode its BARs and, with `master`, do DMA: what a driver's probe would do.
pub(super) fn enable(device: &Path, master: bool) -> Done {
    let path = device.join("config");
    let file = File::options().read(true).write(true).open(&path);
    let file = file.context(path.display())?;
    let mut word = [0; 2];
    file.read_exact_at(&mut word, COMMAND)?;
    let old = u16::from_le_bytes(word);
    let new = old | MEMORY | if master { BUS_MASTER } else { 0 };
    if new != old {
        file.write_all_at(&new.to_le_bytes(), COMMAND)?;
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Done {
    fs::write(path, text).context(path.display())
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The last part of where a link leads, or `-`.
fn link(path: PathBuf) -> String {
    let target = fs::read_link(path).unwrap_or_default();
    let name = target.file_name().unwrap_or("-".as_ref());
    name.to_string_lossy().into_owned()
}

/// One function a line: address, ids, class, driver, IOMMU group, BARs as `barN=ADDRESS+SIZE`.
fn lspci(args: Args<'_>, out: &mut Reply<'_>) -> Done {
    args.end()?;
    let mut names = Vec::new();
    for entry in fs::read_dir(DEVICES).context(DEVICES)? {
        names.push(entry?.file_name());
    }
    names.sort();
    for name in names {
        let at = Path::new(DEVICES).join(&name);
        let id = |file: &str| text(at.join(file)).trim_start_matches("0x").to_owned();
        let mut line = format!(
            "{} {}:{} class={} driver={} group={}",
            name.to_string_lossy(),
            id("vendor"),
            id("device"),
            id("class"),
            link(at.join("driver")),
            link(at.join("iommu_group"))
        );
        line.extend(bars(&text(at.join("resource"))));
        out.line(line);
    }
    Ok(())
}

/// The first six lines of a `resource` file are the BARs: start, end, flags.
fn bars(resource: &str) -> Vec<String> {
    let parse = |(index, line): (usize, &str)| {
        let mut words = line.split(' ').map(|word| word.strip_prefix("0x"));
        let mut next = || u64::from_str_radix(words.next()??, 16).ok();
        let (start, end) = (next()?, next()?);
        let size = end.checked_sub(start)?.checked_add(1)?;
        (end > 0).then(|| format!(" bar{index}={start:#x}+{size:#x}"))
    };
    resource
        .lines()
        .take(6)
        .enumerate()
        .filter_map(parse)
        .collect()
}

/// Binds a function to a driver of its name and to no other.
fn bind(mut args: Args<'_>, _: &mut Reply<'_>) -> Done {
    let device = device(args.word("BDF")?)?;
    let driver = args.word("DRIVER")?;
    args.end()?;
    put(&device.join("driver_override"), driver)?;
    unbind(&device)?;
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    put(Path::new("/sys/bus/pci/drivers_probe"), &name)?;
    let bound = link(device.join("driver"));
    if bound == driver {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{driver} did not take {name}: its driver is {bound}"
        )))
    }
}

fn unbind(device: &Path) -> Done {
    let unbind = device.join("driver/unbind");
    if !unbind.exists() {
        return Ok(());
    }
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    put(&unbind, &name)
}

fn bus_master(mut args: Args<'_>, _: &mut Reply<'_>) -> Done {
    let device = device(args.word("BDF")?)?;
    let on = match args.word("on|off")? {
        "on" => true,
        "off" => false,
        other => return Err(Failure::usage(format!("on or off, not {other}"))),
    };
    args.end()?;
    if on {
        return enable(&device, true);
    }
    let file = File::options()
        .read(true)
        .write(true)
        .open(device.join("config"))?;
    let mut word = [0; 2];
    file.read_exact_at(&mut word, COMMAND)?;
    let value = u16::from_le_bytes(word) & !BUS_MASTER;
    Ok(file.write_all_at(&value.to_le_bytes(), COMMAND)?)
}

fn config(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let path = device(args.word("BDF")?)?.join("config");
    let verb = args.word("read|write|dump")?;
    let file = File::options().read(true).write(true).open(&path);
    let file = file.context(path.display())?;
    if verb == "dump" {
        args.end()?;
        let data = fs::read(&path)?;
        for (row, bytes) in data.chunks(32).enumerate() {
            out.line(format_args!("{:03x} {}", row * 32, hex(bytes)));
        }
        return Ok(());
    }
    let offset = args.number("OFFSET")?;
    let width = args.number("WIDTH")?;
    if ![1, 2, 4].contains(&width) {
        return Err(Failure::usage(format!("no access has {width} bytes")));
    }
    let mut word = [0; 8];
    let part = &mut word[..usize::try_from(width).unwrap_or(4)];
    match verb {
        "read" => {
            args.end()?;
            file.read_exact_at(part, offset)?;
            out.line(format_args!("{:#x}", u64::from_le_bytes(word)));
            Ok(())
        }
        "write" => {
            let value = args.number("VALUE")?.to_le_bytes();
            args.end()?;
            part.copy_from_slice(&value[..part.len()]);
            Ok(file.write_all_at(part, offset)?)
        }
        other => Err(Failure::usage(format!("read, write or dump, not {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_come_with_address_and_size() {
        // As a 7.3 guest prints it: BAR 0 in use, the others not.
        let zero = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let used = "0x00000000febf0000 0x00000000febf7fff 0x0000000000040200\n";
        assert_eq!(
            bars(&(used.to_owned() + &zero.repeat(6))),
            [" bar0=0xfebf0000+0x8000"]
        );
    }
}
