//! VFIO with its type 1 IOMMU: mappings of a process for a device that has no driver of its own.
//!
//! Source: Linux `include/uapi/linux/vfio.h`. The device must be bound to vfio-pci.

use super::{Command, pci};
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use crate::sys::{Mapping, Width, set_container, set_iommu, share_type1};
use std::fs::File;
use std::sync::{Mutex, PoisonError};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "vfio-open",
        usage: "vfio-open BDF",
        run: open,
    },
    Command {
        name: "vfio-map",
        usage: "vfio-map IOVA LEN r|w|rw PATTERN",
        run: map,
    },
    Command {
        name: "vfio-close",
        usage: "vfio-close",
        run: |args, _| {
            args.end()?;
            *held() = None;
            Ok(())
        },
    },
];

/// `VFIO_TYPE1v2_IOMMU`.
const TYPE1V2: usize = 3;

/// `VFIO_DMA_MAP_FLAG_READ` and `VFIO_DMA_MAP_FLAG_WRITE`.
const READ: u32 = 1;
const WRITE: u32 = 2;

/// A container with one group, and the memory mapped for it.
#[derive(Debug)]
struct Held {
    container: File,
    _group: File,
    memory: Vec<Mapping>,
}

/// What the last `vfio-open` opened, until `vfio-close`.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

fn held() -> std::sync::MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let device = pci::device(args.word("BDF")?)?;
    args.end()?;
    let link = device.join("iommu_group");
    let group = std::fs::read_link(&link).context(link.display())?;
    let number = group.file_name().unwrap_or_default().to_string_lossy();
    let file = |path: &str| {
        File::options()
            .read(true)
            .write(true)
            .open(path)
            .context(path)
    };
    let container = file("/dev/vfio/vfio")?;
    let group = file(&format!("/dev/vfio/{number}"))?;
    set_container(&group, &container).context("VFIO_GROUP_SET_CONTAINER")?;
    set_iommu(&container, TYPE1V2).context("VFIO_SET_IOMMU")?;
    out.line(format_args!("group={number}"));
    *held() = Some(Held {
        container,
        _group: group,
        memory: Vec::new(),
    });
    Ok(())
}

/// Maps fresh memory, every 64-bit word of which is the pattern.
fn map(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let iova = args.number("IOVA")?;
    let size = args.number("LEN")?;
    let flags = match args.word("RIGHTS")? {
        "r" => READ,
        "w" => WRITE,
        "rw" => READ | WRITE,
        other => return Err(Failure::usage(format!("no rights {other:?}"))),
    };
    let pattern = args.number("PATTERN")?;
    args.end()?;
    let mut held = held();
    let held = held
        .as_mut()
        .ok_or_else(|| Failure::new("vfio-open comes first"))?;
    let len = usize::try_from(size).map_err(|_| Failure::usage("LEN is too large"))?;
    let memory = Mapping::anonymous(len).context("memory")?;
    for at in (0..len).step_by(8) {
        memory.write(at, Width::Eight, pattern)?;
    }
    share_type1(&held.container, iova, flags, &memory).context("VFIO_IOMMU_MAP_DMA")?;
    held.memory.push(memory);
    out.line(format_args!("iova={iova:#x} len={size:#x}"));
    Ok(())
}
