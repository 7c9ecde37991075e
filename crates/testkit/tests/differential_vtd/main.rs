//! Our VT-d walk against QEMU's model, case by random case, on the same tables.
//!
//! QEMU (10.1 or later, with `iommu-testdev`) is found or fetched by the test itself. Where QEMU
//! departs from the specification, the departure has a name, a predicate and its evidence in
//! `deviations`; everything else must agree: whether the DMA reached memory and where, the fault
//! record, and the accessed and dirty bits.
//!
//! Not covered, for want of a device or a capability of QEMU's: PASIDs, privileged and execute
//! requests, device TLBs, five levels, nesting, buses other than 0, and reserved values of the
//! root table address register.
//!
//! `IOPF_SEED` and `IOPF_CASE` replay: the seed of a run, and the number of one case in it.

mod case;
mod deviations;
mod generate;
mod machine;
mod run;

use generate::Mode;

#[test]
fn legacy_translation_agrees_with_qemu() {
    run::differential("intel-iommu", Mode::Legacy { width: 48 }, 4000);
}

#[test]
fn legacy_translation_of_39_bits_agrees_with_qemu() {
    run::differential("intel-iommu,aw-bits=39", Mode::Legacy { width: 39 }, 1500);
}

#[test]
fn scalable_second_stage_translation_agrees_with_qemu() {
    run::differential("intel-iommu,scalable-mode=on", Mode::Second, 4000);
}

#[test]
fn scalable_first_stage_translation_agrees_with_qemu() {
    run::differential("intel-iommu,scalable-mode=on,fsts=on", Mode::First, 4000);
}
