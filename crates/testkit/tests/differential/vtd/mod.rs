//! VT-d: legacy and scalable mode, on the unit `intel-iommu`.
//!
//! Not covered, for want of a device or a capability of QEMU's: PASIDs, privileged and execute
//! requests, device TLBs, five levels, nesting, buses other than 0, and reserved values of the
//! root table address register.

mod deviations;
mod generate;
mod unit;

use crate::harness::differential;
use generate::Mode;

/// QEMU's unit: its capabilities, its address width, and the tables between cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vtd {
    cap: u64,
    ecap: u64,
    /// As many host address bits as QEMU takes it to have.
    width: u8,
    /// `RTADDR_REG` for tables that map the readers' buffer page to itself.
    ///
    /// Turning translation off would do as well, and takes QEMU 20 ms.
    fixed: u64,
}

#[test]
fn legacy_translation_agrees_with_qemu() {
    differential::<Vtd>("intel-iommu", Mode::Legacy { width: 48 }, 4000);
}

#[test]
fn legacy_translation_of_39_bits_agrees_with_qemu() {
    differential::<Vtd>("intel-iommu,aw-bits=39", Mode::Legacy { width: 39 }, 1500);
}

#[test]
fn scalable_second_stage_translation_agrees_with_qemu() {
    differential::<Vtd>("intel-iommu,scalable-mode=on", Mode::Second, 4000);
}

#[test]
fn scalable_first_stage_translation_agrees_with_qemu() {
    differential::<Vtd>("intel-iommu,scalable-mode=on,fsts=on", Mode::First, 4000);
}
