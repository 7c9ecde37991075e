//! What messages talk of: regions, interrupts, access to memory.
//!
//! Spec: `<linux/vfio.h>`, and vfio-user, "VFIO_USER_DEVICE_SET_IRQS" and "VFIO_USER_DMA_MAP".

use std::fmt;

bitflags::bitflags! {
    /// What a mapped range may be used for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct MapAccess: u32 {
        /// The device may read.
        const READ = 1;
        /// The device may write.
        const WRITE = 2;
    }
}

/// A region of a PCI device. `<linux/vfio.h>`, `VFIO_PCI_*_REGION_INDEX`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Region {
    /// Behind a base address register, 0–5.
    Bar(u8),
    /// The expansion ROM.
    Rom,
    /// Configuration space.
    Config,
    /// Legacy VGA ranges.
    Vga,
}

impl Region {
    /// Number of regions.
    pub const COUNT: u32 = 9;

    /// The region of a number.
    #[must_use]
    pub const fn from_index(index: u32) -> Option<Self> {
        Some(match index {
            0 => Self::Bar(0),
            1 => Self::Bar(1),
            2 => Self::Bar(2),
            3 => Self::Bar(3),
            4 => Self::Bar(4),
            5 => Self::Bar(5),
            6 => Self::Rom,
            7 => Self::Config,
            8 => Self::Vga,
            _ => return None,
        })
    }

    /// Its number, 0–8.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Self::Bar(bar) => bar as u32,
            Self::Rom => 6,
            Self::Config => 7,
            Self::Vga => 8,
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bar(bar) => write!(f, "BAR {bar}"),
            Self::Rom => f.write_str("the ROM"),
            Self::Config => f.write_str("configuration space"),
            Self::Vga => f.write_str("the VGA region"),
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A kind of interrupt. `<linux/vfio.h>`, `VFIO_PCI_*_IRQ_INDEX`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum IrqIndex {
    /// The pin.
    Intx,
    /// MSI.
    Msi,
    /// MSI-X.
    Msix,
    /// An error of the device, for the client.
    Error,
    /// The device is wanted back, for the client.
    Request,
}

impl IrqIndex {
    /// Number of kinds.
    pub const COUNT: u32 = 5;

    /// The kind of a number.
    #[must_use]
    pub const fn from_index(index: u32) -> Option<Self> {
        Some(match index {
            0 => Self::Intx,
            1 => Self::Msi,
            2 => Self::Msix,
            3 => Self::Error,
            4 => Self::Request,
            _ => return None,
        })
    }

    /// Its number, 0–4.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Self::Intx => 0,
            Self::Msi => 1,
            Self::Msix => 2,
            Self::Error => 3,
            Self::Request => 4,
        }
    }
}

impl fmt::Display for IrqIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intx => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
            Self::Error => "the error interrupt",
            Self::Request => "the request interrupt",
        })
    }
}

impl fmt::Debug for IrqIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What SET_IRQS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// Holds interrupts back.
    Mask,
    /// Lets them through again.
    Unmask,
    /// Raises them, or says where they go.
    Trigger,
}

impl IrqAction {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Mask => 1 << 3,
            Self::Unmask => 1 << 4,
            Self::Trigger => 1 << 5,
        }
    }
}

/// The data of SET_IRQS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqData<'a> {
    /// None: the action is meant for every vector of the range.
    None,
    /// One byte a vector: not 0 means it is meant.
    Bool(&'a [u8]),
    /// One descriptor a vector, beside the message; or none, which takes them away.
    Eventfd,
}

impl IrqData<'_> {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::None => 1,
            Self::Bool(_) => 2,
            Self::Eventfd => 4,
        }
    }
}
