//! Shared virtual addressing through `uio_pci_generic_sva`: opening its device file binds the
//! agent's own address space to the PCI function, which then works on memory of the agent.
//!
//! Source: Linux `drivers/uio/uio_pci_generic_sva.c`. The function must be bound to `uio_pci_sva`.

use super::dma::{CHANNEL, Channel, Job};
use super::{Command, bar, pci};
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use crate::sys::{Mapping, Memory, Width};
use rustix::mm::Advice;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
        name: "sva-churn",
        usage: "sva-churn BDF LEN ROUNDS",
        run: churn,
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

/// A process whose memory the DMA engine fills again and again, without device TLB and page requests,
/// each time anew: its pages are given up after every round. What it says first is that a round is over.
fn churn(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let sysfs = pci::device(args.word("BDF")?)?;
    let len: usize = args.small("LEN")?;
    let rounds = args.number("ROUNDS")?;
    args.end()?;
    let (_binding, pasid) = bind(&sysfs)?;
    let page = usize::try_from(CHANNEL).unwrap_or_default();
    let channel = Channel::over(bar::map(&sysfs, 0, 0, page)?)?;
    let memory = Memory::anonymous(len)?;
    let address = memory.address();
    let job = format!("fill {address:#x} {len} pattern=0x77 pasid={pasid} via=untranslated");
    let job = Job::parse(&mut Args::new(&job))?;
    for round in 0..rounds {
        channel.start(&job)?;
        channel.wait(PATIENCE)?;
        let standing = channel.standing()?;
        if standing.state != "done" {
            return Err(Failure::new(format!("round {round}: {standing:?}")));
        }
        if memory.word(len - 8) != 0x77 {
            return Err(Failure::new(format!(
                "round {round}: the last word is missing"
            )));
        }
        memory.advise(Advice::LinuxDontNeed)?;
        if round == 0 {
            out.line("the device is at work");
        }
    }
    out.line(format_args!("{rounds} rounds"));
    Ok(())
}

/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Binds this process to a function; also says its PASID.
fn bind(sysfs: &Path) -> Result<(File, String), Failure> {
    let folder = sysfs.join("uio");
    let entry = fs::read_dir(&folder).context(folder.display())?.next();
    let name = entry.ok_or_else(|| Failure::new("the function has no UIO device"))??;
    let path = Path::new("/dev").join(name.file_name());
    let binding = File::options().read(true).write(true).open(&path);
    let binding = binding.context(path.display())?;
    let file = sysfs.join("pasid");
    let pasid = fs::read_to_string(&file).context(file.display())?;
    Ok((binding, pasid.trim().to_owned()))
}

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
    let (binding, pasid) = bind(&device)?;
    let memory = Mapping::anonymous(len).context("memory")?;
    let address = memory.address();
    out.line(format_args!("pasid={pasid} addr={address:#x}"));
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
