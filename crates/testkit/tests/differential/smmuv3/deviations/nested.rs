//! Stage 1 through stage 2.

use super::records::TABLE;
use super::{Deviation, Walked, bits, failed, geometry, low, shift, step, translates, word};
use crate::harness::End;
use crate::smmuv3::view::{Of, View};
use iommu_walk::smmuv3::Cause;
use iommu_walk::{Stage, Step, Table};
use iopf::Gpa;

/// With both stages.
pub(super) const ALL: &[Deviation] = &[
    // "Event queue record priorities": of the range that the request is in, when its turn comes.
    // `decode_cd` translates the base of each range that is not disabled.
    Deviation {
        name: "TTB0 is translated with its context descriptor, whichever range is asked for",
        as_qemu: |walked| top_table(walked, 0),
    },
    Deviation {
        name: "TTB1 is translated with its context descriptor, whichever range is asked for",
        as_qemu: |walked| top_table(walked, 1),
    },
    // "F_TRANSLATION": what is translated, and recorded, is the address of a descriptor.
    // `translate_table_addr_ipa` is given that of the table.
    Deviation {
        name: "a table is translated by its base",
        as_qemu: |walked| {
            let recorded = bits(word(walked, Table::ContextDescriptor, 0)?, 45, 1) != 0;
            whole(walked)?;
            let bases: Vec<u64> = pointers(walked).map(|step| base(walked, step)).collect();
            let mut views = bases
                .into_iter()
                .filter_map(|base| viewed(walked, base, Of::Table { recorded }));
            let view = views.find(|view| view.failure.is_some())?;
            // Not where the descriptor's address fails so as well.
            let reason = |walked: &Walked| walked.failure.map(|failure| failure.cause.reason());
            let so = failed(walked, TABLE).is_some() && reason(&view) == reason(walked);
            (!so).then_some(view)
        },
    },
    // The same: the rest of a table is taken to follow its base.
    Deviation {
        name: "a table is as contiguous as its pages are not",
        as_qemu: |walked| {
            std::iter::successors(contiguous(walked), contiguous)
                .take(8)
                .last()
        },
    },
    // DDI 0487: blocks at level 1 with 4 KiB, at level 2 with 4 KiB, 16 KiB and 64 KiB. `is_block_pte`
    // knows any level above the lowest.
    Deviation {
        name: "a block may be at any level, in stage 1 of two",
        as_qemu: |walked| block_anywhere(walked),
    },
    // "Address sizes": F_ADDR_SIZE of stage 1, CLASS IN. `smmu_ptw` compares the address of a table with
    // IPS when it translates it, and the record says that a table was looked for.
    Deviation {
        name: "the address of a table that is too wide is found when it is translated",
        as_qemu: |walked| wide_table(walked),
    },
    // "STE", S2PTW. Nothing reads it.
    Deviation {
        name: "S2PTW does nothing",
        as_qemu: |walked| {
            failed(walked, &[Cause::TableIpaDevice, Cause::ContextIpaDevice])?;
            let at = step(walked, Table::Stream)?.addr.0 + 16;
            let set = walked.case.memory.get(at) & PROTECTED_WALK != 0;
            set.then(|| walked.with(|case| *case.memory.word(at) &= !PROTECTED_WALK))
        },
    },
    // "Address sizes of SMMU-originated accesses": C_BAD_STE, or a fault of stage 2. `smmu_ptw` calls it one
    // of stage 1, which `PTW_RECORD_FAULT` leaves to a CD.R that has not been read.
    Deviation {
        name: "S1ContextPtr that is wider than addresses leaves no record",
        as_qemu: |walked| {
            failed(walked, &[Cause::StreamContextPointer])?;
            let wide = bits(word(walked, Table::Stream, 0)?, 44, 12) != 0;
            (wide && translates(walked, 0b11)).then(|| super::ending(walked, End::Nothing))
        },
    },
    // DDI 0487: a table may be wherever stage 2 gives it. `smmu_ptw_64_s1` takes so many bits of it as IPS
    // says, from what it has the top table's address in after stage 2.
    Deviation {
        name: "the physical address of a top table is cut off at IPS",
        as_qemu: |walked| cut_off(walked),
    },
];

/// All of the case, not a part of it.
fn whole(walked: &Walked) -> Option<()> {
    (walked.unit.view.is_none() && translates(walked, 0b11)).then_some(())
}

/// An address through stage 2 alone.
fn viewed(walked: &Walked, address: u64, of: Of) -> Option<Walked> {
    let stream = step(walked, Table::Stream)?.addr.0;
    let mut unit = walked.unit;
    unit.view = Some(View {
        stream,
        address,
        of,
    });
    Some(Walked::new(walked.case.clone(), unit))
}

/// Whether QEMU gets as far as translating the base of this range.
fn decoded(walked: &Walked, half: u8) -> Option<u64> {
    let at = step(walked, Table::ContextDescriptor)?.addr;
    let read = failed(walked, &[Cause::ContextUnreadable]).is_none();
    let context = word(walked, Table::ContextDescriptor, 0)?;
    // V, AA64, A; S, HA and HD; ENDI.
    let set = 1 << 31 | 1 << 41 | 1 << 46;
    let clear = 0b111 << 42 | 1 << 15;
    let valid = context & set == set && context & clear == 0;
    if !read || !valid || walked.case.memory.start > at.0 {
        return None;
    }
    let mut table = None;
    for half in 0..=half {
        let shift = half * 16;
        table = None;
        if bits(context, 14 + shift, 1) == 0 {
            let size = bits(context, shift, 6);
            let granule = bits(context, 6 + shift, 2);
            let reserved = if half == 0 { 3 } else { 0 };
            let base = word(walked, Table::ContextDescriptor, 1 + u64::from(half))?
                & 0x000f_ffff_ffff_fff0;
            let wide = base >> super::width(bits(context, 32, 3)) != 0;
            if !(16..=39).contains(&size) || granule == reserved || wide {
                return None;
            }
            table = Some(base);
        }
    }
    table
}

fn top_table(walked: &Walked, half: u8) -> Option<Walked> {
    whole(walked)?;
    let table = decoded(walked, half)?;
    viewed(walked, table, Of::TopTable)
}

/// The entries of stage 1 that point to tables, as far as the walk has come.
fn pointers(walked: &Walked) -> impl Iterator<Item = &Step> {
    let steps = walked.trail.steps().iter();
    let steps = steps.filter(|step| step.table == Table::FirstStage && step.level > 1);
    steps.filter(|step| walked.case.memory.get(step.addr.0) & 0b11 == 0b11)
}

/// The table that an entry of stage 1 points to.
fn base(walked: &Walked, step: &Step) -> u64 {
    let granule = geometry(walked, Stage::First).map_or(12, |(granule, _)| granule);
    walked.case.memory.get(step.addr.0) & 0x0000_ffff_ffff_ffff & !low(granule)
}

/// The base of the table that a walk of stage 1 wanted to read when it ended, if that is not the top one.
pub(super) fn lower_table(walked: &Walked) -> Option<u64> {
    pointers(walked).last().map(|step| base(walked, step))
}

fn block_anywhere(walked: &Walked) -> Option<Walked> {
    whole(walked)?;
    failed(walked, &[Cause::FirstInvalid])?;
    let failure = walked.failure?;
    let (granule, _) = geometry(walked, Stage::First)?;
    let entry = walked.case.memory.get(failure.entry_addr?.0);
    let highest = if granule == 12 { 3 } else { 2 };
    if entry & 0b11 != 0b01 || failure.level <= highest {
        return None;
    }
    let context = word(walked, Table::ContextDescriptor, 0)?;
    let size = shift(granule, failure.level);
    let start = entry & 0x0000_ffff_ffff_ffff & !low(size);
    let cause = if bits(entry, 10, 1) == 0 && bits(context, 35, 1) == 0 {
        Cause::FirstAccessFlag
    } else if walked.case.device.writes() && bits(entry, 7, 1) != 0 {
        Cause::FirstWriteDenied
    } else if start >> super::width(bits(context, 32, 3)) != 0 {
        Cause::FirstOutputSize
    } else {
        let output = start | walked.case.iova & low(size);
        return viewed(walked, output, Of::Output);
    };
    Some(super::failing(
        walked,
        iommu_walk::smmuv3::Failure { cause, ..failure },
    ))
}

fn wide_table(walked: &Walked) -> Option<Walked> {
    whole(walked)?;
    failed(walked, &[Cause::FirstOutputSize])?;
    let failure = walked.failure?;
    let table = lower_table(walked)?;
    let pointer = pointers(walked).last()?.addr;
    (failure.entry_addr == Some(pointer)).then(|| {
        let guest_addr = Some(Gpa(table));
        let recorded = super::failing(
            walked,
            iommu_walk::smmuv3::Failure {
                guest_addr,
                ..failure
            },
        );
        let as_table = super::rewritten(&recorded, |words| {
            words[1] = words[1] & !crate::smmuv3::record::CLASS | crate::smmuv3::record::OF_TABLE;
            words[3] = table;
        });
        as_table.unwrap_or(recorded)
    })
}

/// With a top table where the lower bits of its address are.
fn cut_off(walked: &Walked) -> Option<Walked> {
    whole(walked)?;
    let steps = walked.trail.steps();
    let read = steps
        .iter()
        .position(|step| step.table == Table::FirstStage);
    let last = match read {
        Some(place) => place,
        None => failed(walked, &[Cause::FirstUnreadable]).map(|_| steps.len())?,
    };
    let at = match read {
        Some(place) => steps.get(place)?.addr,
        None => walked.failure?.entry_addr?,
    };
    let width = super::width(bits(word(walked, Table::ContextDescriptor, 0)?, 32, 3));
    let cut = at.0 & low(width);
    if cut == at.0 {
        return None;
    }
    if cut < walked.case.memory.start {
        // Flash memory, which is empty.
        let cause = Cause::FirstInvalid;
        let recorded = bits(word(walked, Table::ContextDescriptor, 0)?, 45, 1) != 0;
        let failure = iommu_walk::smmuv3::Failure {
            hidden: !recorded,
            ..iommu_walk::smmuv3::Failure::with(cause, iommu_walk::smmuv3::Detail::empty())
        };
        return Some(super::failing(walked, failure));
    }
    let leaf = steps
        .get(..last)?
        .iter()
        .rfind(|step| step.table == Table::SecondStage)?;
    let leaf = leaf.addr.0;
    Some(walked.with(|case| {
        let word = case.memory.word(leaf);
        *word &= !(0x0000_ffff_ffff_f000 & !low(width));
    }))
}

/// A read of a table of stage 1.
struct TableRead {
    /// The table's base, an intermediate physical address.
    base: u64,
    /// Where in it the entry is.
    offset: u64,
    /// The base is aligned to this much after stage 2.
    aligned: u8,
}

/// The reads of tables that a walk of stage 1 needs, as far as it has come.
fn table_reads(walked: &Walked) -> Option<Vec<TableRead>> {
    let (granule, input) = geometry(walked, Stage::First)?;
    let stride = granule - 3;
    let half = if walked.case.iova >> 55 & 1 == 0 {
        1
    } else {
        2
    };
    let top = word(walked, Table::ContextDescriptor, half)? & 0x000f_ffff_ffff_fff0;
    let levels = input.checked_sub(granule + 1)? / stride + 1;
    let from = walked.case.iova & low(input);
    let size = input - shift(granule, levels) + 3;
    let mut reads = vec![TableRead {
        base: top,
        offset: from >> shift(granule, levels) << 3,
        aligned: size,
    }];
    for step in pointers(walked) {
        reads.push(TableRead {
            base: base(walked, step),
            offset: bits(from, shift(granule, step.level - 1), stride) * 8,
            aligned: 0,
        });
    }
    Some(reads)
}

/// With the page of a table's entry where it would be if the table's pages followed each other.
fn contiguous(walked: &Walked) -> Option<Walked> {
    whole(walked)?;
    let (granule, _) = geometry(walked, Stage::Second)?;
    let steps = walked.trail.steps();
    let found: Vec<_> = (0..steps.len())
        .filter(|place| steps[*place].table == Table::FirstStage)
        .collect();
    for (number, read) in table_reads(walked)?.into_iter().enumerate() {
        let (leaf, seen) = match found.get(number) {
            Some(place) => (
                steps.get(place.checked_sub(1)?)?,
                Some(steps[*place].addr.0),
            ),
            None => (step(walked, Table::SecondStage)?, None),
        };
        let view = viewed(walked, read.base, Of::TopTable)?;
        let last = step(&view, Table::SecondStage)?;
        if view.failure.is_some() || last.level != 1 || leaf.level != 1 {
            continue;
        }
        let entry = walked.case.memory.get(last.addr.0);
        let start = entry & ADDRESS & !low(granule) | read.base & low(granule);
        let at = (start & !low(read.aligned)) + read.offset;
        let word = entry & !ADDRESS | at & ADDRESS & !low(granule);
        let same = walked.case.memory.get(leaf.addr.0) == word;
        if seen != Some(at) && !same {
            let leaf = leaf.addr.0;
            return Some(walked.with(|case| *case.memory.word(leaf) = word));
        }
    }
    None
}

/// S2PTW.
const PROTECTED_WALK: u64 = 1 << 54;
/// An address in an entry.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
