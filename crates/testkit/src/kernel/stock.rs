//! Debian's kernels, unmodified.

use super::modules::{canonical, closure};
use super::{BUILTIN, CONFIG, IMAGE, Kernel, MODULES, SetupError, vouched};
use crate::debian::{Apt, Order, Store, cache_dir};
use crate::qemu::root::Target;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[cfg(test)]
mod tests;

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    /// That of the stable release: 6.12.
    Stable,
    /// The newest one of the release's backports: 7.3 as this is written.
    Newest,
}

/// What a person can do about kernels.
const INSTEAD: &str =
    "run the other tiers (cargo xtask test --tier unit), or copy the cache from another machine";

/// The image of the stable kernel, its modules within.
const STABLE: Order = Order {
    what: "kernel 6.12",
    name: "Debian's kernel 6.12",
    suite: "trixie",
    packages: &["linux-image-amd64"],
    only: &["linux-image-6"],
    named_after: "linux-image-",
    instead: INSTEAD,
};

/// Since 7.x the image, the modules and the configuration are packages of their own.
const NEWEST: Order = Order {
    what: "newest kernel",
    name: "Debian's newest kernel",
    suite: "trixie-backports",
    packages: &["linux-image-amd64"],
    only: &[
        "linux-base-7",
        "linux-base-8",
        "linux-binary-",
        "linux-modules-7",
        "linux-modules-8",
    ],
    named_after: "linux-binary-",
    instead: INSTEAD,
};

/// The same kernel for arm64, whose packages are called the same.
const fn arm64(order: Order) -> Order {
    Order {
        what: "kernel for arm64",
        name: "Debian's kernel for arm64",
        packages: &["linux-image-arm64:arm64"],
        ..order
    }
}

/// What tests may want to load. What these need is kept as well; what a kernel has built in has no
/// file and is passed over.
const WANTED: [&str; 11] = [
    "idxd",
    "irqbypass",
    "uio",
    "uio_pci_generic",
    "uio_pci_generic_sva",
    "vfio",
    "vfio_iommu_type1",
    "vfio_pci",
    "virtio_iommu",
    "virtio_pci",
    "virtio_rng",
];

/// What was wanted when a kernel was kept.
const LIST: &str = "wanted.txt";

fn list() -> String {
    WANTED.join("\n")
}

/// [`stock_for`] x86-64.
///
/// # Errors
/// As of [`stock_for`].
pub fn stock(which: Stock) -> Result<&'static Kernel, &'static SetupError> {
    stock_for(Target::X86_64, which)
}

/// Finds or fetches one of Debian's kernels, once a process. Progress goes to standard error.
///
/// # Errors
/// As [`SetupError`] says.
pub fn stock_for(target: Target, which: Stock) -> Result<&'static Kernel, &'static SetupError> {
    type Found = OnceLock<Result<Kernel, SetupError>>;
    static KERNELS: [Found; 4] = [const { OnceLock::new() }; 4];
    let (kernel, order, name) = match (target, which) {
        (Target::X86_64, Stock::Stable) => (&KERNELS[0], STABLE, "stable"),
        (Target::X86_64, Stock::Newest) => (&KERNELS[1], NEWEST, "newest"),
        (Target::Aarch64, Stock::Stable) => (&KERNELS[2], arm64(STABLE), "stable-arm64"),
        (Target::Aarch64, Stock::Newest) => (&KERNELS[3], arm64(NEWEST), "newest-arm64"),
    };
    kernel
        .get_or_init(|| {
            let kernels = cache_dir().join("kernels");
            let apt = Apt::new(&cache_dir().join("debian"));
            store(target, order, kernels.join(name), apt).ensure(&mut io::stderr())
        })
        .as_ref()
}

fn store(target: Target, order: Order, dir: PathBuf, apt: Apt) -> Store<Kernel> {
    Store {
        order,
        dir,
        apt,
        arrange: Box::new(arrange),
        vouched: Box::new(vouched),
        open: Box::new(move |dir| {
            // A longer list is another kernel: it is fetched anew.
            let kept = fs::read_to_string(dir.join(LIST)).unwrap_or_default();
            if kept == list() {
                Kernel::open(dir, target)
            } else {
                Err("the list of wanted modules has changed".to_owned())
            }
        }),
    }
}

/// Keeps the image, the configuration and the wanted modules, decompressed.
fn arrange(tree: &Path, keep: &Path) -> Result<(), String> {
    let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let (mut parts, mut found) = (BTreeMap::new(), BTreeMap::new());
    for folder in ["boot", "usr/lib/modules", "lib/modules"] {
        let folder = tree.join(folder);
        visit(&folder, &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(stem) = name.strip_suffix(".ko.xz").or(name.strip_suffix(".ko")) {
                found.insert(canonical(stem), path.clone());
            }
            for part in [IMAGE, CONFIG, BUILTIN] {
                // With or without the version behind it.
                if name == part || name.starts_with(&format!("{part}-")) {
                    parts.insert(part, path.clone());
                }
            }
        })
        .map_err(|error| at(&folder, error))?;
    }
    let wanted: Vec<_> = WANTED
        .into_iter()
        .filter(|name| found.contains_key(*name))
        .collect();
    let file = |name: &str| read_module(found.get(name)?).ok();
    let names = closure(&wanted, file).map_err(|name| format!("module {name} is missing"))?;
    let modules = keep.join(MODULES);
    fs::create_dir_all(&modules).map_err(|error| at(&modules, error))?;
    for part in [IMAGE, CONFIG, BUILTIN] {
        let from = parts
            .get(part)
            .ok_or_else(|| format!("the packages hold no {part}"))?;
        fs::rename(from, keep.join(part)).map_err(|error| at(from, error))?;
    }
    for name in names {
        let module = read_module(&found[&name]).map_err(|error| at(&found[&name], error))?;
        let place = modules.join(format!("{name}.ko"));
        fs::write(&place, module).map_err(|error| at(&place, error))?;
    }
    fs::write(keep.join(LIST), list()).map_err(|error| at(keep, error))
}

/// Calls `each` for every file under a folder; a folder that is not there has none.
fn visit(folder: &Path, each: &mut impl FnMut(PathBuf)) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            visit(&entry.path(), each)?;
        } else {
            each(entry.path());
        }
    }
    Ok(())
}

/// A module's bytes, decompressed where its name ends in `.xz`.
fn read_module(path: &Path) -> io::Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path);
    }
    let mut module = Vec::new();
    io::copy(
        &mut lzma_rust2::XzReader::new(File::open(path)?, true),
        &mut module,
    )?;
    Ok(module)
}
