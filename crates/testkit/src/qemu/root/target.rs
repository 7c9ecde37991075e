//! The processors whose machines the tests run, each an emulator of its own.

use crate::debian::Order;

/// What QEMU calls a target: the processor of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `qemu-system-x86_64`.
    X86_64,
    /// `qemu-system-aarch64`.
    Aarch64,
}

impl Target {
    /// The program.
    #[must_use]
    pub const fn binary(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The environment variable that names a binary to use instead.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::X86_64 => "IOPF_QEMU",
            Self::Aarch64 => "IOPF_QEMU_AARCH64",
        }
    }

    /// What the tests need, each with a property or device QEMU must list under its help.
    pub(super) const fn needed(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::X86_64 => &[
                ("iommu-testdev", "iommu-testdev options:"),
                ("intel-iommu", "fsts="),
                ("edu", "dma_mask="),
            ],
            Self::Aarch64 => &[
                ("iommu-testdev", "iommu-testdev options:"),
                ("arm-smmuv3", "stage="),
                ("edu", "dma_mask="),
                ("vfio-user-pci", "socket="),
            ],
        }
    }

    /// QEMU and its firmware; apt adds everything they run on.
    pub(super) const fn order(self) -> Order {
        let order = Order {
            what: "qemu",
            name: "QEMU",
            suite: "trixie-backports",
            packages: &["qemu-system-x86", "seabios"],
            only: &[],
            named_after: "qemu-system-x86_",
            instead: "install QEMU 11 or later (with iommu-testdev), or name one in IOPF_QEMU",
        };
        match self {
            Self::X86_64 => order,
            Self::Aarch64 => Order {
                what: "qemu for arm64",
                name: "QEMU for arm64",
                packages: &["qemu-system-arm"],
                named_after: "qemu-system-arm_",
                instead: "install QEMU 11 or later (with qemu-system-aarch64 and iommu-testdev), or \
                          name one in IOPF_QEMU_AARCH64",
                ..order
            },
        }
    }

    /// The directory of unpacked ones in the cache.
    pub(super) const fn cached(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu",
            Self::Aarch64 => "qemu-aarch64",
        }
    }
}
