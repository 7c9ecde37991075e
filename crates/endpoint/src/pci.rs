//! PCI configuration space: a type 0 header, its base address registers and its capabilities.
//!
//! Spec: PCI Express Base Specification, revision 6.0, "Software Initialization and Configuration";
//! numbers as in Linux's `pci_regs.h`.
//!
//! [`ConfigSpace`] is storage and rules, without a function behind it: a write that moves a switch of
//! the guest comes back as an [`Effect`]. [`Builder`] lays the capabilities out.
//!
//! Modelled: 32-bit and 64-bit memory BARs, COMMAND and STATUS, the interrupt pin, PCI Express
//! (version 2, normal or root-complex integrated endpoint, function-level reset), MSI (one message),
//! MSI-X, vendor capabilities, ATS, PRI, PASID.
//! Not modelled: I/O BARs, expansion ROMs, power management, advanced error reporting, links.

mod build;
mod config;
mod msix;
pub(crate) mod store;

pub use build::{AtsCapability, Bar, Builder, Identity, Impossible, MsixCapability};
pub use build::{PasidCapability, Port, PriCapability};
pub use config::{AtsControl, ConfigSpace, Effect, Message, MsixControl, PasidControl, PriControl};
pub use msix::MsixTable;

/// Offsets of the registers, within the header or within their capability.
mod reg {
    pub(super) const VENDOR: u16 = 0x00;
    pub(super) const COMMAND: u16 = 0x04;
    pub(super) const STATUS: u16 = 0x06;
    pub(super) const CLASS_REVISION: u16 = 0x08;
    pub(super) const CACHE_LINE: u16 = 0x0c;
    pub(super) const BAR0: u16 = 0x10;
    pub(super) const SUBSYSTEM: u16 = 0x2c;
    pub(super) const CAPABILITIES: u16 = 0x34;
    pub(super) const INTERRUPT_LINE: u16 = 0x3c;
    pub(super) const INTERRUPT_PIN: u16 = 0x3d;
    /// First byte after the header.
    pub(super) const HEADER_END: u16 = 0x40;
    /// First byte after the space of the original PCI.
    pub(super) const EXTENDED: u16 = 0x100;

    pub(super) const MSI_CONTROL: u16 = 2;
    pub(super) const MSI_ADDRESS: u16 = 4;
    pub(super) const MSI_DATA: u16 = 12;

    pub(super) const MSIX_CONTROL: u16 = 2;

    pub(super) const EXP_DEVICE_CONTROL: u16 = 8;

    pub(super) const ATS_CONTROL: u16 = 6;

    pub(super) const PRI_CONTROL: u16 = 4;
    pub(super) const PRI_STATUS: u16 = 6;
    pub(super) const PRI_CAPACITY: u16 = 8;
    pub(super) const PRI_ALLOCATION: u16 = 12;

    pub(super) const PASID_CAPABILITY: u16 = 4;
    pub(super) const PASID_CONTROL: u16 = 6;
}

/// Bits of the registers.
mod bit {
    pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
    pub(super) const COMMAND_MASTER: u16 = 1 << 2;
    pub(super) const COMMAND_PARITY: u16 = 1 << 6;
    pub(super) const COMMAND_SERR: u16 = 1 << 8;
    pub(super) const COMMAND_INTX_DISABLE: u16 = 1 << 10;

    pub(super) const STATUS_INTX: u16 = 1 << 3;
    pub(super) const STATUS_CAPABILITIES: u16 = 1 << 4;
    /// Master data parity error, and the five error bits at the top: cleared by writing ones.
    pub(super) const STATUS_ERRORS: u16 = 0xf900;

    pub(super) const MSI_ENABLE: u16 = 1;
    pub(super) const MSI_TAKEN: u16 = 7 << 4;
    pub(super) const MSI_WIDE: u16 = 1 << 7;

    pub(super) const MSIX_MASK: u16 = 1 << 14;
    pub(super) const MSIX_ENABLE: u16 = 1 << 15;

    pub(super) const EXP_RESET: u16 = 1 << 15;

    pub(super) const ATS_ENABLE: u16 = 1 << 15;
    pub(super) const ATS_STU: u16 = 0x1f;

    pub(super) const PRI_ENABLE: u16 = 1;
    pub(super) const PRI_RESET: u16 = 1 << 1;
    pub(super) const PRI_FAILURE: u16 = 1;
    pub(super) const PRI_UNEXPECTED: u16 = 1 << 1;
    pub(super) const PRI_STOPPED: u16 = 1 << 8;
    pub(super) const PRI_NEEDS_PASID: u16 = 1 << 15;

    pub(super) const PASID_ENABLE: u16 = 1;
    pub(super) const PASID_EXECUTE: u16 = 1 << 1;
    pub(super) const PASID_PRIVILEGED: u16 = 1 << 2;
}
