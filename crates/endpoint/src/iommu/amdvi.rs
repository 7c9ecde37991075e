//! The PCI function that an AMD IOMMU is: no BAR, a capability block, and MSI.
//!
//! Spec: AMD I/O Virtualization Technology (IOMMU) Specification (48882), "PCI Resources". The second
//! authors of each field are VirtualBox (`iommu-amd.h`, `IOMMU_BF_CAPHDR_*` and below) and Linux
//! (`drivers/iommu/amd/amd_iommu_types.h`, `IOMMU_CAP_*`).
//!
//! Its registers need room in the address space, which firmware gives to BARs only. They are behind
//! the BAR of a second function, [`IommuFunction`]; the block here says where that is. They cannot be
//! one function: Linux reserves the registers' addresses before it looks at PCI, and a function whose
//! BAR is taken cannot be enabled.

use super::IommuFunction;
use crate::pci::{Builder, ConfigSpace, Identity, Impossible, Message};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu_api::{Interrupts, PciFunction};

/// Not assigned by the PCI-SIG: "IO", and "AV".
const IDENTITY: Identity = Identity {
    vendor: 0x494f,
    device: 0x5641,
    // A system peripheral: IOMMU.
    class: 0x08_0600,
    revision: 0,
    subsystem_vendor: 0x494f,
    subsystem: 0x5641,
};

/// Identifier of a secure device's capability. PCI Local Bus Specification, "Capability IDs".
const SECURE_DEVICE: u8 = 0x0f;
/// CapType: an IOMMU; CapRev: 1. Bits 18:16 and 23:19 of the header.
const TYPE_AND_REVISION: u32 = 3 << 16 | 1 << 19;
/// IotlbSup: ATS is understood.
const IOTLB: u32 = 1 << 24;
/// EFRSup: the extended feature register is there.
const EXTENDED_FEATURES: u32 = 1 << 27;
/// CapExt: the second register of miscellaneous information is there.
const EXTENDED: u32 = 1 << 28;

/// Offset of the base address in the block, low half first.
const BASE: u16 = 4;
/// Bit 0 of the base address: the registers answer.
const ENABLE: u64 = 1;
/// Offset of the miscellaneous information in the block.
const INFORMATION: usize = 0x10;
/// GVAsize, bits 7:5: 48 bits is the only value that the specification has.
const GUEST_VIRTUAL_48: u32 = 2 << 5;
/// Length of the block in bytes.
const LENGTH: usize = 0x18;

/// What an AMD IOMMU's capability block says beside the place of its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmdviCapability {
    /// It understands ATS (IotlbSup).
    pub iotlb: bool,
    /// Bits of a physical address: 32–64.
    pub physical_bits: u8,
    /// Bits of a virtual address that host tables translate: 32–64.
    pub virtual_bits: u8,
}

impl AmdviCapability {
    /// The block after identifier and link, without the base address.
    ///
    /// RngValid is clear: which functions are behind the IOMMU is in the ACPI table alone.
    fn body(&self) -> Vec<u8> {
        let mut block = [0; LENGTH];
        let iotlb = if self.iotlb { IOTLB } else { 0 };
        let header = TYPE_AND_REVISION | iotlb | EXTENDED_FEATURES | EXTENDED;
        block[..4].copy_from_slice(&header.to_le_bytes());
        let sizes = u32::from(self.physical_bits) << 8 | u32::from(self.virtual_bits) << 15;
        let information = GUEST_VIRTUAL_48 | sizes;
        block[INFORMATION..INFORMATION + 4].copy_from_slice(&information.to_le_bytes());
        block[2..].to_vec()
    }
}

/// An AMD IOMMU as software finds it: class 0x0806, a capability block, one MSI message.
///
/// The message is the interrupt of event log, page request log and completion wait alike: raise
/// vector 0 of [`InterruptKind::Msi`](viommu_api::InterruptKind::Msi) for it. Bus Master is always on.
pub struct AmdviFunction {
    registers: Arc<IommuFunction>,
    config: Mutex<ConfigSpace>,
}

impl fmt::Debug for AmdviFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmdviFunction").finish_non_exhaustive()
    }
}

impl AmdviFunction {
    /// Byte offset of the capability block in configuration space, behind MSI: the ACPI table names it.
    pub const CAPABILITY: u16 = 0x50;

    /// The function of the IOMMU whose registers are behind the BAR of `registers`.
    ///
    /// # Errors
    /// None that a caller could cause: the layout is the same for every `capability`.
    pub fn new(
        registers: Arc<IommuFunction>,
        capability: &AmdviCapability,
    ) -> Result<Self, Impossible> {
        let body = capability.body();
        let read_only = vec![0; body.len()];
        let config = Builder::new(IDENTITY)
            .always_master()
            .msi()
            .capability(SECURE_DEVICE, &body, &read_only)
            .build()?;
        Ok(Self {
            registers,
            config: Mutex::new(config),
        })
    }

    /// The message that the guest has set up, for a VMM that sends it by itself.
    #[must_use]
    pub fn message(&self) -> Option<Message> {
        self.config().msi()
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PciFunction for AmdviFunction {
    fn bar_size(&self, _: u8) -> u64 {
        0
    }

    fn interrupts(&self) -> Interrupts {
        self.config().interrupts()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) {
        let base = self.registers.bar_address();
        let base = base.map_or(0, |at| at | ENABLE).to_le_bytes();
        let mut config = self.config();
        config.put(Self::CAPABILITY + BASE, &base);
        config.read(offset, data);
    }

    fn write_config(&self, offset: u16, data: &[u8]) {
        // Nothing that can be switched here changes what the registers do.
        drop(self.config().write(offset, data));
    }

    fn read_bar(&self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write_bar(&self, _: u8, _: u64, _: &[u8]) {}

    /// The registers are reset with the function that has them.
    fn reset(&self) {
        self.config().reset();
    }
}

#[cfg(test)]
mod tests;
