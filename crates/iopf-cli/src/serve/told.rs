//! How a guest is told where the unit is, and what that adds to QEMU's command line.

mod acpi;
mod starter;
mod tree;

pub(super) use acpi::Acpi;
pub(super) use tree::Wish;

use super::args::Plan;
use super::event::{Event, Events, Hex};
use crate::exit::Stop;
use acpi::Table;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Whose lines those about the registers' place are.
const REGISTERS: &str = "the registers";

/// What a guest is to be told.
pub(super) enum Telling {
    /// An ACPI table. Firmware places the registers, and the table follows.
    Acpi(Acpi),
    /// A device tree. The registers are placed before the kernel starts, where the tree says.
    Tree(Wish),
}

/// What it is told, in files.
#[derive(Debug)]
pub(super) enum Told {
    Acpi(Table),
    Tree(Tree),
}

/// A device tree that knows the unit, or a part of one.
#[derive(Debug)]
pub(super) struct Tree {
    path: PathBuf,
    /// The address that it says, as PCI knows it.
    base: u64,
    /// Nothing, where what there is is a part of a tree.
    start: Option<Start>,
    /// What a person has to do.
    by_hand: Option<String>,
}

/// How the guest starts.
#[derive(Debug)]
struct Start {
    /// The program that places the registers.
    program: PathBuf,
    /// The kernel, and where it lies.
    kernel: PathBuf,
    at: u64,
}

impl Told {
    /// Writes the files of `telling` into `dir`.
    pub(super) fn new(telling: Telling, plan: &Plan, dir: &Path) -> Result<Self, Stop> {
        match telling {
            Telling::Acpi(acpi) => {
                let base = plan.bar.unwrap_or(acpi::BASE);
                let table = Table::new(acpi, dir, base).map_err(Stop::host)?;
                Ok(Self::Acpi(table))
            }
            Telling::Tree(wish) => match &plan.tree {
                Some(given) => Tree::of(given, &wish, plan, dir),
                None => Tree::part(&wish, plan, dir),
            }
            .map(Self::Tree),
        }
    }

    /// The file with the table or the tree.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Acpi(table) => &table.path,
            Self::Tree(tree) => &tree.path,
        }
    }

    /// Where the guest is told that the registers are.
    pub(super) fn base(&self) -> u64 {
        match self {
            Self::Acpi(table) => table.base(),
            Self::Tree(tree) => tree.base,
        }
    }

    /// What QEMU is to be told of it.
    pub(super) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Acpi(table) => table.arguments(),
            Self::Tree(tree) => tree.arguments(),
        }
    }

    /// What a person has to do before the guest can start.
    pub(super) fn by_hand(&self) -> Option<&str> {
        match self {
            Self::Acpi(_) => None,
            Self::Tree(tree) => tree.by_hand.as_deref(),
        }
    }

    /// The registers are at `address`.
    pub(super) fn found(&self, address: u64, events: &Events) {
        match self {
            Self::Acpi(table) => table.found(address, events),
            Self::Tree(tree) => {
                let said = Event::Bar {
                    address: Hex(address),
                    table: Hex(tree.base),
                    fits: tree.base == address,
                    corrected: false,
                };
                events.say_of(REGISTERS, said);
            }
        }
    }
}

/// A device tree of the guest's, and where the one with the unit goes.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) tree: PathBuf,
    pub(super) out: Option<PathBuf>,
    /// The kernel that is to be started.
    pub(super) kernel: Option<PathBuf>,
}

/// An error of a file.
fn at(path: &Path) -> impl Fn(std::io::Error) -> Stop {
    move |error| Stop::host(format_args!("{}: {error}", path.display()))
}

impl Tree {
    /// The guest's own tree, with the unit in it.
    fn of(given: &Given, wish: &Wish, plan: &Plan, dir: &Path) -> Result<Self, Stop> {
        let blob = fs::read(&given.tree).map_err(at(&given.tree))?;
        let site = tree::add(&blob, wish, plan.bar)
            .map_err(|wrong| Stop::input(format_args!("{}: {wrong}", given.tree.display())))?;
        let kernel = site.memory + KERNEL;
        if let Some(image) = &given.kernel {
            check(image)?;
        }
        // Below 4 GiB: the window that it was taken from is one of 32 bits.
        let base = u32::try_from(site.base).map_err(Stop::host)?;
        let path = given.out.clone().unwrap_or_else(|| dir.join("guest.dtb"));
        fs::write(&path, &site.blob).map_err(at(&path))?;
        let program = dir.join("starter.bin");
        let code = starter::program(site.function, base, kernel);
        fs::write(&program, code).map_err(at(&program))?;
        Ok(Self {
            path,
            base: site.base,
            by_hand: given.kernel.is_none().then(|| {
                "and the guest's kernel, an arm64 Image, in place of IMAGE; --kernel names it"
                    .to_owned()
            }),
            start: Some(Start {
                program,
                kernel: given.kernel.clone().unwrap_or_else(|| "IMAGE".into()),
                at: kernel,
            }),
        })
    }

    /// The part of a tree that is about the unit, for a person to put into one.
    fn part(wish: &Wish, plan: &Plan, dir: &Path) -> Result<Self, Stop> {
        let base = plan.bar.unwrap_or(tree::BASE);
        let path = dir.join("iommu.dtsi");
        fs::write(&path, tree::part(wish, base)).map_err(at(&path))?;
        let by_hand = format!(
            "and a device tree that has {} in it, and BAR 0 of the IOMMU at {base:#x} with COMMAND 6 \
             before the kernel starts; with --dtb-in both are done here",
            path.display()
        );
        Ok(Self {
            path,
            base,
            start: None,
            by_hand: Some(by_hand),
        })
    }

    fn arguments(&self) -> Vec<String> {
        let Some(start) = &self.start else {
            return Vec::new();
        };
        let kernel = format!(
            "loader,file={},addr={:#x},force-raw=on",
            // In a value of QEMU's options a comma is written twice.
            start.kernel.display().to_string().replace(',', ",,"),
            start.at
        );
        let [tree, program] = [&self.path, &start.program].map(|path| path.display().to_string());
        ["-dtb".to_owned(), tree, "-kernel".to_owned(), program]
            .into_iter()
            .chain(["-device".to_owned(), kernel])
            .collect()
    }
}

/// Where the kernel lies from the start of memory on: an Image wants a multiple of 2 MiB (Linux,
/// "Booting AArch64 Linux"), and QEMU has the starter in the first.
const KERNEL: u64 = 2 << 20;

/// An arm64 Image that may lie at a multiple of 2 MiB: the magic number at byte 56, and no offset from
/// there (byte 8).
fn check(image: &Path) -> Result<(), Stop> {
    let mut header = [0; 64];
    let read = fs::File::open(image).and_then(|mut file| file.read_exact(&mut header));
    read.map_err(at(image))?;
    if &header[56..60] != b"ARM\x64" || header[8..16] != [0; 8] {
        return Err(Stop::input(format_args!(
            "{}: no arm64 Image of Linux 5.8 or newer, uncompressed",
            image.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_are_not_where_the_tree_says_are_reported_and_the_tree_stays() {
        let tree = Tree {
            path: "/run/guest.dtb".into(),
            base: 0x3efc_0000,
            start: None,
            by_hand: None,
        };
        let told = Told::Tree(tree);
        let (events, lines) = Events::new();
        told.found(0x1000_0000, &events);
        told.found(0x3efc_0000, &events);
        let said: Vec<_> = lines.try_iter().map(|event| event.to_string()).collect();
        assert_eq!(
            said,
            [
                "the IOMMU was put at 0x10000000, but the guest's device tree says 0x3efc0000: the guest \
                 finds nothing there; start it with starter.bin, or put 0x3efc0000 into BAR 0",
                "the IOMMU was put at 0x3efc0000, as the guest is told",
            ]
        );
        assert_eq!(told.base(), 0x3efc_0000);
    }
}
