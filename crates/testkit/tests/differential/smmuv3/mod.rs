//! SMMUv3: stage 1, stage 2 and both, with stream tables of one level and of two, on the SMMU of the
//! machine `virt`.
//!
//! Not covered, for want of a device or a capability of QEMU's: SubstreamIDs, ATS and page requests,
//! stalls, updates of flags by the unit, privileged and execute requests, 52-bit addresses, AArch32
//! tables and StreamIDs beyond bus 0. Two things end QEMU, so no case has them: a stream table entry for
//! stage 2 with S2AA64 clear, and a context descriptor with IPS above 0b101.

mod deviations;
mod generate;
mod record;
mod unit;
mod view;

use crate::harness::differential;

/// QEMU's unit: SMMU_IDR0, 1, 3 and 5, and whether it has been told of a table of two levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Smmuv3 {
    idr: [u32; 6],
    two_levels: bool,
}

/// The stages that a case goes through, if no change is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Config {
    Stage1,
    Stage2,
    Both,
}

/// What a run of cases is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    config: Config,
    /// Most stream tables have two levels, else none has.
    two_levels: bool,
}

#[test]
fn stage_1_translation_agrees_with_qemu() {
    let mode = Mode {
        config: Config::Stage1,
        two_levels: false,
    };
    differential::<Smmuv3>("arm-smmuv3.stage=1", mode, 4000);
}

#[test]
fn stage_2_translation_agrees_with_qemu() {
    let mode = Mode {
        config: Config::Stage2,
        two_levels: true,
    };
    differential::<Smmuv3>("arm-smmuv3.stage=2", mode, 4000);
}

#[test]
fn nested_translation_agrees_with_qemu() {
    let mode = Mode {
        config: Config::Both,
        two_levels: true,
    };
    differential::<Smmuv3>("arm-smmuv3.stage=nested", mode, 6000);
}
