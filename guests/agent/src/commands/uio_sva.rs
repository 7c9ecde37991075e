//! Shared virtual addressing through `uio_pci_generic_sva`: opening its device file binds the
//! agent's own address space to the PCI function, which then works on memory of the agent.
//!
//! Source: Linux `drivers/uio/uio_pci_generic_sva.c`. The function must be bound to `uio_pci_sva`.

use super::{Command, pci};
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use crate::sys::{Mapping, Width};
use std::fs::{self, File};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "sva-open",
        usage: "sva-open BDF LEN",
        run: open,
    },
    Command {
        name: "sva-count",
        usage: "sva-count OFFSET LEN PATTERN",
        run: count,
    },
    Command {
        name: "sva-close",
        usage: "sva-close",
        run: |args, _| {
            args.end()?;
            *held() = None;
            Ok(())
        },
    },
];

/// A binding, and memory for the function to work on.
#[derive(Debug)]
struct Held {
    _binding: File,
    memory: Mapping,
}

/// What the last `sva-open` opened, until `sva-close`.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds, and says the PASID and where LEN bytes of untouched anonymous memory are.
fn open(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let device = pci::device(args.word("BDF")?)?;
    let len: usize = args.small("LEN")?;
    args.end()?;
    *held() = None;
    let folder = device.join("uio");
    let entry = fs::read_dir(&folder).context(folder.display())?.next();
    let name = entry.ok_or_else(|| Failure::new("the function has no UIO device"))??;
    let path = std::path::Path::new("/dev").join(name.file_name());
    let binding = File::options().read(true).write(true).open(&path);
    let binding = binding.context(path.display())?;
    let file = device.join("pasid");
    let pasid = fs::read_to_string(&file).context(file.display())?;
    let memory = Mapping::anonymous(len).context("memory")?;
    let address = memory.address();
    out.line(format_args!("pasid={} addr={address:#x}", pasid.trim()));
    *held() = Some(Held {
        _binding: binding,
        memory,
    });
    Ok(())
}

/// Says how many 64-bit words of LEN bytes at OFFSET are the pattern.
fn count(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let offset: usize = args.small("OFFSET")?;
    let len: usize = args.small("LEN")?;
    let pattern = args.number("PATTERN")?;
    args.end()?;
    let held = held();
    let held = held
        .as_ref()
        .ok_or_else(|| Failure::new("sva-open comes first"))?;
    let mut same = 0;
    for at in (offset..offset.saturating_add(len)).step_by(8) {
        same += u64::from(held.memory.read(at, Width::Eight)? == pattern);
    }
    out.line(format_args!("words={same}"));
    Ok(())
}
