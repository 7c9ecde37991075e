//! Who a transaction comes from, and what kind of transaction it is.

use crate::{Access, Iova};
use core::fmt;

/// A requester ID: by what an IOMMU knows where a transaction comes from.
///
/// On PCIe it has 16 bits: bus in bits 15:8, device in 7:3, function in 2:0 (PCI Express Base
/// Specification, "Transaction ID"). Other machines number what is behind an IOMMU as they like: the
/// StreamID of an Arm SMMU has up to 32 bits, the device_id of a RISC-V IOMMU up to 24.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rid(pub u32);

impl Rid {
    /// The requester ID of `bus`, `device` (0–31) and `function` (0–7), or `None` out of range.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self(
            (bus as u32) << 8 | (device as u32) << 3 | function as u32,
        ))
    }

    /// The requester ID that PCIe carries as `id`.
    #[must_use]
    pub const fn from_pci(id: u16) -> Self {
        Self(id as u32)
    }

    /// Bits 15:0: all that PCIe, and the tables and records of IOMMUs made for it, can carry.
    #[must_use]
    pub const fn pci(self) -> u16 {
        let [low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// Device and function number together, as tables index them.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// Device number, 0–31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.devfn() >> 3
    }

    /// Function number, 0–7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.devfn() & 7
    }
}

/// Bus, device and function; what has more than 16 bits is one number.
impl fmt::Display for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0xffff {
            return write!(f, "{:#x}", self.0);
        }
        write!(
            f,
            "{:02x}:{:02x}.{}",
            self.bus(),
            self.device(),
            self.function()
        )
    }
}

impl fmt::Debug for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rid:{self}")
    }
}

/// A process address space ID: 20 bits, 0–0xfffff.
///
/// PCI Express Base Specification, "PASID TLP Prefix".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pasid(u32);

impl Pasid {
    /// The largest value, 0xfffff.
    pub const MAX: Self = Self(0xf_ffff);

    /// A PASID, or `None` where `value` needs more than 20 bits.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX.0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The PASID in the low 20 bits of `value`; the rest is dropped.
    #[must_use]
    pub const fn truncate(value: u32) -> Self {
        Self(value & Self::MAX.0)
    }

    /// The number, 0–0xfffff.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Pasid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Pasid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pasid:{:#x}", self.0)
    }
}

/// How a request's address is to be understood: the AT field of a TLP.
///
/// PCI Express Base Specification, "Address Translation Services".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DmaKind {
    /// AT=00: memory request whose address the IOMMU translates.
    Untranslated,
    /// AT=01: the device asks for a translation to keep in its own TLB.
    Translation {
        /// The NW flag: the device does not ask for write permission.
        no_write: bool,
    },
    /// AT=10: the address is already translated.
    Translated,
}

/// One transaction as the IOMMU meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dma {
    /// Who asks.
    pub requester: Rid,
    /// In which of the requester's address spaces, where it named one.
    pub pasid: Option<Pasid>,
    /// What the address means.
    pub kind: DmaKind,
    /// Where.
    pub addr: Iova,
    /// To do what. A translation request asks for [`Access::READ`], for write unless `no_write`,
    /// and for execute where [`Access::EXEC`] is set; [`Access::PRIV`] is its privileged flag.
    pub access: Access,
}
