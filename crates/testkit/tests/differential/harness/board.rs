//! The machines of QEMU that have an IOMMU: where their memory is, and how their PCI functions are
//! set up.

use testkit::qemu::qtest::{Qtest, QtestError};
use testkit::qemu::root::Target;

/// A machine, as far as the harness must know it.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) target: Target,
    /// What `-machine` names.
    pub(crate) machine: &'static str,
    /// The option whose value the unit and its properties are.
    pub(crate) unit: &'static str,
    /// Where guest memory starts.
    pub(crate) ram: u64,
    /// Where functions get their BARs, 1 MiB a slot.
    bars: u64,
    configuration: Configuration,
}

/// The way to configuration space.
#[derive(Debug)]
enum Configuration {
    /// The two I/O ports of a PC.
    Ports,
    /// A window of memory: PCIe, "Enhanced Configuration Access Mechanism".
    Window(u64),
}

/// The PC with PCIe, whose IOMMU is a device of its own.
pub(crate) const Q35: Board = Board {
    target: Target::X86_64,
    machine: "q35",
    unit: "-device",
    ram: 0,
    bars: 0xe000_0000,
    configuration: Configuration::Ports,
};

/// The machine of arm64 guests, whose IOMMU is built in. Addresses: QEMU `hw/arm/virt.c`,
/// `base_memmap`; without `highmem` nothing lies above 4 GiB.
pub(crate) const VIRT: Board = Board {
    target: Target::Aarch64,
    machine: "virt-9.1,iommu=smmuv3,highmem=off,gic-version=3,acpi=off",
    unit: "-global",
    ram: 0x4000_0000,
    bars: 0x1000_0000,
    configuration: Configuration::Window(0x3f00_0000),
};

impl Board {
    /// Where the function in this slot has its BAR.
    pub(crate) const fn bar(&self, slot: u16) -> u64 {
        self.bars + ((slot as u64) << 20)
    }

    /// Gives the function with this requester ID, on bus 0, its BAR, and lets it do DMA.
    pub(crate) fn plug(&self, qtest: &mut Qtest, rid: u16) -> Result<(), QtestError> {
        let bar = (self.bar(rid >> 3) & 0xffff_ffff) as u32;
        for (register, value) in [(0x10, bar), (0x04, 0b110)] {
            match self.configuration {
                Configuration::Ports => {
                    qtest.outl(0xcf8, 1 << 31 | u32::from(rid) << 8 | register)?;
                    qtest.outl(0xcfc, value)?;
                }
                Configuration::Window(base) => {
                    let function = base + (u64::from(rid) << 12);
                    qtest.writel(function + u64::from(register), value)?;
                }
            }
        }
        Ok(())
    }
}
