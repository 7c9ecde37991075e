//! AMD-Vi: host page tables of every mode, on the unit `amd-iommu`.
//!
//! Of an event, QEMU has the code and the requester: which of the flags PR, PE and RZ a page fault has
//! is not compared, nor is its address.
//!
//! Not covered, for want of a device or a capability of QEMU's: guest page tables and PASIDs, device
//! TLBs, page requests, accessed and dirty bits of host tables, device table segments, interrupt
//! remapping, buses other than 0, and a unit that has fewer than six levels.

mod deviations;
mod generate;
mod page;
mod unit;

use crate::harness::differential;

/// QEMU's unit: what it says that it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Amdvi {
    /// The Extended Feature Register.
    efr: u64,
}

#[test]
fn host_translation_agrees_with_qemu() {
    differential::<Amdvi>("amd-iommu,dma-remap=on", (), 4000);
}
