//! Page tables of either stage.

use super::{
    Deviation, SPARE, Walked, bits, ending, failed, failing, field, geometry, low, shift, step,
    translates, width, word,
};
use crate::harness::{BUSY, End, NOWHERE};
use iommu_walk::smmuv3::{Cause, Failure};
use iommu_walk::{Stage, Table};
use iopf::Gpa;

/// With stage 1.
pub(super) const STAGE_1: &[Deviation] = &[
    // "CD", TBI: bit 39 is for the upper half. `TBI1` of `smmu-internal.h` is `tbi & 0x2 >> 1`, which is
    // bit 0 of it.
    Deviation {
        name: "TBI0 is for the upper half as well",
        as_qemu: |walked| {
            let at = step(walked, Table::ContextDescriptor)?.addr.0;
            let tbi = bits(walked.case.memory.get(at), 38, 2);
            let upper = walked.case.iova >> 55 & 1 != 0;
            (upper && matches!(tbi, 0b01 | 0b10)).then(|| {
                walked.with(|case| {
                    *case.memory.word(at) ^= 1 << 39;
                })
            })
        },
    },
    // DDI 0487, AP[1]: no access to unprivileged requests, as those of devices are. `is_permission_fault`
    // looks at AP[2] alone.
    Deviation {
        name: "requests are privileged",
        as_qemu: |walked| {
            failed(walked, &[Cause::FirstUserDenied])?;
            Some(privileged(walked))
        },
    },
    // "Event queue record priorities": rights are of the last descriptor. `smmu_ptw_64_s1` looks at
    // APTable when it meets it.
    Deviation {
        name: "APTable is looked at before what follows",
        as_qemu: |walked| table_rights(walked),
    },
    // The same: F_ADDR_SIZE comes before F_ACCESS and F_PERMISSION.
    Deviation {
        name: "the width of a page's address is looked at last, in stage 1",
        as_qemu: |walked| width_last(walked, &FIRST),
    },
    // "F_ADDR_SIZE": of an intermediate descriptor as well. `smmu_ptw_64_s1` reads the table.
    Deviation {
        name: "a table may be anywhere, in stage 1",
        as_qemu: |walked| {
            let alone = !translates(walked, 0b10);
            table_anywhere(walked, &FIRST).filter(|_| alone)
        },
    },
    // DDI 0487: blocks at level 1 with 4 KiB, at level 2 with 4 KiB, 16 KiB and 64 KiB. `is_block_pte`
    // knows any level above the lowest.
    Deviation {
        name: "a block may be at any level, in stage 1",
        as_qemu: |walked| {
            let alone = !translates(walked, 0b10);
            block_anywhere(walked, &FIRST).filter(|_| alone)
        },
    },
];

/// With stage 2.
pub(super) const STAGE_2: &[Deviation] = &[
    // DDI 0487, "Concatenated translation tables". `smmu_ptw_64_s2` adds the number of the table to the
    // base, and then clears it again with `VMSA_IDXMSK`.
    Deviation {
        name: "the first of concatenated tables stands for all",
        as_qemu: |walked| std::iter::successors(first_table(walked), first_table).last(),
    },
    Deviation {
        name: "the width of a page's address is looked at last, in stage 2",
        as_qemu: |walked| width_last(walked, &SECOND),
    },
    Deviation {
        name: "a table may be anywhere, in stage 2",
        as_qemu: |walked| table_anywhere(walked, &SECOND),
    },
    Deviation {
        name: "a block may be at any level, in stage 2",
        as_qemu: |walked| block_anywhere(walked, &SECOND),
    },
    // "Address sizes": F_ADDR_SIZE is recorded. `smmu_ptw` calls it a fault of stage 1, which
    // `PTW_RECORD_FAULT` leaves to a CD.R that there is not.
    Deviation {
        name: "an address that is too wide for a stage 1 that does nothing leaves no record",
        as_qemu: |walked| {
            failed(walked, &[Cause::InputSize])?;
            let alone = translates(walked, 0b10) && !translates(walked, 0b01);
            alone.then(|| ending(walked, End::Nothing))
        },
    },
];

/// The causes of one stage, for each use that it is put to the same number in each list.
struct Causes {
    stage: Stage,
    /// Where tables of our own may be.
    spare: u64,
    width: &'static [Cause],
    invalid: &'static [Cause],
    unreadable: &'static [Cause],
    /// AF, and rights that QEMU looks at.
    later: &'static [Cause],
}

const FIRST: Causes = Causes {
    stage: Stage::First,
    spare: 0x10_0000,
    width: &[Cause::FirstOutputSize],
    invalid: &[Cause::FirstInvalid],
    unreadable: &[Cause::FirstUnreadable],
    later: &[Cause::FirstAccessFlag, Cause::FirstWriteDenied],
};
const SECOND: Causes = Causes {
    stage: Stage::Second,
    spare: 0x50_0000,
    width: &[
        Cause::IpaOutputSize,
        Cause::TableIpaOutputSize,
        Cause::ContextIpaOutputSize,
    ],
    invalid: &[
        Cause::IpaInvalid,
        Cause::TableIpaInvalid,
        Cause::ContextIpaInvalid,
    ],
    unreadable: &[
        Cause::IpaUnreadable,
        Cause::TableIpaUnreadable,
        Cause::ContextIpaUnreadable,
    ],
    later: &[
        Cause::IpaAccessFlag,
        Cause::IpaReadDenied,
        Cause::IpaWriteDenied,
        Cause::TableIpaAccessFlag,
        Cause::TableIpaReadDenied,
        Cause::ContextIpaAccessFlag,
        Cause::ContextIpaDenied,
    ],
};

impl Causes {
    /// The word that says how wide an output may be, the field, and its largest value.
    fn sizes(&self, walked: &Walked) -> Option<(u64, u8, u64)> {
        Some(match self.stage {
            Stage::First => (step(walked, Table::ContextDescriptor)?.addr.0, 32, 4),
            Stage::Second => (step(walked, Table::Stream)?.addr.0 + 16, 48, 4),
        })
    }
}

/// An address of up to 48 bits, in an entry.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// What tells a table, or a page at level 1, from a block.
const KIND: u64 = 0b11;
const BLOCK: u64 = 0b01;
const TABLE: u64 = 0b11;

/// The walk as if nothing were refused for want of privilege.
fn privileged(walked: &Walked) -> Walked {
    let steps = walked.trail.steps().iter();
    let first: Vec<_> = steps
        .filter(|step| step.table == Table::FirstStage)
        .collect();
    walked.with(|case| {
        for step in first {
            let word = case.memory.word(step.addr.0);
            let page = step.level == 1 || *word & KIND == BLOCK;
            *word = if page {
                *word | 1 << 6
            } else {
                *word & !(1 << 61)
            };
        }
    })
}

/// F_PERMISSION for a write through a table that may only be read through, and behind which there is a
/// fault.
fn table_rights(walked: &Walked) -> Option<Walked> {
    walked.failure?;
    let context = step(walked, Table::ContextDescriptor)?.addr.0;
    let half = if walked.case.iova >> 55 & 1 == 0 {
        8
    } else {
        16
    };
    let ignored = walked.case.memory.get(context + half) & 0b10 != 0;
    let read_only = |step: &&iommu_walk::Step| {
        let word = walked.case.memory.get(step.addr.0);
        let pointer = step.table == Table::FirstStage && step.level > 1 && word & KIND == TABLE;
        pointer && word >> 62 & 1 != 0
    };
    let step = *walked.trail.steps().iter().find(read_only)?;
    let already = failed(walked, &[Cause::FirstWriteDenied]).is_some();
    if ignored || already || !walked.case.device.writes() {
        return None;
    }
    let recorded = bits(walked.case.memory.get(context), 45, 1) != 0;
    let failure = Failure {
        entry_addr: Some(step.addr),
        hidden: !recorded,
        ..Failure::with(Cause::FirstWriteDenied, iommu_walk::smmuv3::Detail::empty())
    };
    Some(failing(walked, failure))
}

/// An entry whose address is too wide, with its level and how many bits it may have.
fn too_wide(walked: &Walked, causes: &Causes) -> Option<(u64, u8, u8)> {
    failed(walked, causes.width)?;
    let failure = walked.failure?;
    let (sizes, field, _) = causes.sizes(walked)?;
    let bits = width(bits(walked.case.memory.get(sizes), field, 3));
    let at = failure.entry_addr?.0;
    let wide = walked.case.memory.get(at) & ADDRESS & !low(bits) != 0;
    wide.then_some((at, failure.level, bits))
}

/// What a page's entry says besides its address, if QEMU has something against it.
fn width_last(walked: &Walked, causes: &Causes) -> Option<Walked> {
    let (at, level, bits) = too_wide(walked, causes)?;
    let page = level == 1 || walked.case.memory.get(at) & KIND == BLOCK;
    let narrowed = walked.with(|case| *case.memory.word(at) &= !(ADDRESS & !low(bits)));
    let narrowed = match causes.stage {
        Stage::First => privileged(&narrowed),
        Stage::Second => narrowed,
    };
    failed(&narrowed, causes.later)?;
    let same = narrowed.failure?.entry_addr?.0 == at;
    (page && same).then_some(narrowed)
}

/// The read of a table where there is nothing.
fn table_anywhere(walked: &Walked, causes: &Causes) -> Option<Walked> {
    let (at, level, _) = too_wide(walked, causes)?;
    let failure = walked.failure?;
    let entry = walked.case.memory.get(at);
    if level == 1 || entry & KIND != TABLE {
        return None;
    }
    let (granule, _) = geometry(walked, causes.stage)?;
    let from = input(walked, causes.stage)?;
    let index = bits(from, shift(granule, level - 1), granule - 3);
    let fetch = (entry & ADDRESS & !low(granule)) + index * 8;
    let place = causes
        .width
        .iter()
        .position(|cause| *cause == failure.cause)?;
    let failure = Failure {
        cause: *causes.unreadable.get(place)?,
        entry_addr: Some(Gpa(fetch)),
        hidden: false,
        ..failure
    };
    Some(failing(walked, failure))
}

/// What the failing stage translates.
fn input(walked: &Walked, stage: Stage) -> Option<u64> {
    match stage {
        Stage::First => Some(walked.case.iova),
        Stage::Second => walked.failure?.guest_addr.map(|at| at.0),
    }
}

/// Has tables below each entry that maps a block where none may be, down to where one may.
fn block_anywhere(walked: &Walked, causes: &Causes) -> Option<Walked> {
    let once = |walked: &Walked| block_lowered(walked, causes);
    std::iter::successors(once(walked), once).last()
}

fn block_lowered(walked: &Walked, causes: &Causes) -> Option<Walked> {
    failed(walked, causes.invalid)?;
    let failure = walked.failure?;
    let (granule, _) = geometry(walked, causes.stage)?;
    let (at, from) = (failure.entry_addr?.0, input(walked, causes.stage)?);
    let entry = walked.case.memory.get(at);
    let highest = if granule == 12 { 3 } else { 2 };
    let (mut level, block) = (failure.level, entry & KIND == BLOCK);
    if !block || level <= highest {
        return None;
    }
    let size = shift(granule, level);
    let start = entry & ADDRESS & !low(size);
    let attributes = entry & !(ADDRESS | KIND);
    // Only where the block starts is compared with the width.
    let (sizes, field, widest) = causes.sizes(walked)?;
    let narrow = start >> width(bits(walked.case.memory.get(sizes), field, 3)) == 0;
    let to = match start | from & low(size) {
        far if narrow && far >= BUSY => NOWHERE,
        to => to,
    };
    // Room for the tables of each level, below this entry alone.
    let spare = SPARE + causes.spare + (at >> 3 & 7) * 0x8_0000;
    Some(walked.with(|case| {
        if narrow {
            let word = case.memory.word(sizes);
            *word = *word & !(0b111 << field) | widest << field;
        }
        let mut at = at;
        while level > highest {
            let table = spare + (u64::from(level) << 16);
            *case.memory.word(at) = table | TABLE;
            level -= 1;
            at = table + bits(from, shift(granule, level), granule - 3) * 8;
        }
        *case.memory.word(at) = to & !low(shift(granule, level)) | attributes | BLOCK;
    }))
}

/// Has the next entry of a concatenated table be that of the first table.
fn first_table(walked: &Walked) -> Option<Walked> {
    let third = word(walked, Table::Stream, 2)?;
    let (granule, input) = geometry(walked, Stage::Second)?;
    let highest = if granule == 12 { 2 } else { 1 };
    let start = highest + field(third, 38, 2);
    let size = input.checked_sub(shift(granule, start))? + 3;
    let base = word(walked, Table::Stream, 3)? & 0x000f_ffff_ffff_fff0;
    if size <= granule {
        return None;
    }
    let other = |at: u64| {
        let table = (at & low(size)) >> granule << granule;
        base.wrapping_add(table) & !low(size) | at & low(granule)
    };
    let steps = walked.trail.steps().iter();
    let mut starts = steps.filter(|step| step.table == Table::SecondStage && step.level == start);
    let memory = &walked.case.memory;
    let found = starts.find(|step| memory.get(other(step.addr.0)) != memory.get(step.addr.0));
    if let Some(step) = found {
        let at = step.addr.0;
        return Some(walked.with(|case| {
            *case.memory.word(at) = case.memory.get(other(at));
        }));
    }
    failed(walked, SECOND.unreadable)?;
    let failure = walked.failure?;
    let at = failure.entry_addr?.0;
    let ours = at & !low(size) == base & !low(size);
    (failure.level == start && ours && other(at) != at).then(|| {
        let entry_addr = Some(Gpa(other(at)));
        failing(
            walked,
            Failure {
                entry_addr,
                ..failure
            },
        )
    })
}
