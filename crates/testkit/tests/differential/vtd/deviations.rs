//! Where QEMU departs from the specification, each departure with a name.
//!
//! A deviation does not excuse a disagreement; it says what QEMU makes of the case, and the test
//! then holds QEMU to that. The functions named are those of QEMU `hw/i386/intel_iommu.c`, which
//! is also where the masks come from (`intel_iommu_internal.h`). The specification is Intel VT-d,
//! sections by name.

use super::Vtd;
use super::generate::Mode;
use super::unit::{Record, record};
use crate::harness::{self, NOWHERE};
use iommu_walk::vtd::Cause;
use iommu_walk::{Step, Table, Verdict};

type Walked = harness::Walked<Vtd>;
type Case = harness::Case<Vtd>;
type End = harness::End<Vtd>;
type Deviation = harness::Deviation<Vtd>;

/// The deviations that cases of this mode must meet.
pub(crate) fn of(mode: Mode) -> Vec<&'static Deviation> {
    let groups: &[&'static [Deviation]] = match mode {
        Mode::Legacy { .. } => &[ALL],
        Mode::Second => &[ALL, SCALABLE, SECOND],
        Mode::First => &[ALL, SCALABLE, FIRST],
    };
    groups.iter().copied().flatten().collect()
}

/// In every mode.
const ALL: &[Deviation] = &[
    // "Access Rights": a request is weighed against a *valid* translation, so the whole path is
    // read and checked first. `vtd_iova_to_slpte` and `vtd_iova_to_flpte` test the right at each
    // level before that level's reserved bits, and before they read the next level.
    Deviation {
        name: "a missing right is reported before what is wrong at or below its level",
        as_qemu: |walked| rights_first(walked),
    },
    // "Pass-through Translation": an address beyond the host address width is blocked (LGN.1,
    // SGN.4). `vtd_do_iommu_translate` returns a pass-through translation before any check of the
    // address.
    Deviation {
        name: "pass-through does not check the width of the address",
        as_qemu: |walked| {
            let wide = [Cause::LegacyPassThroughWidth, Cause::PassThroughWidth];
            failed(walked, &wide).map(|_| walked.ending(End::Nothing))
        },
    },
    // "Handling Requests to Interrupt Address Range": blocked when they *result in an address in
    // the interrupt address range*. `vtd_do_iommu_translate` compares the whole page.
    Deviation {
        name: "a large page around the interrupt range is blocked everywhere",
        as_qemu: |walked| whole_page(walked),
    },
    // "Fault Conditions ...": LCT.3 and SCT.3 are qualified. `vtd_qualified_faults` has no entry
    // for VTD_FR_CONTEXT_ENTRY_RSVD, so FPD does not suppress it.
    Deviation {
        name: "reserved bits in a context entry are recorded despite its FPD",
        as_qemu: |walked| {
            let reserved = [Cause::ContextReserved, Cause::ScalableContextReserved];
            unhidden(walked, &reserved)
        },
    },
];

/// In both scalable modes.
const SCALABLE: &[Deviation] = &[
    // `enum VTDFaultReason` has no scalable-mode numbers for the root and context tables and for
    // most of the second stage; the functions that walk them return the legacy ones.
    Deviation {
        name: "scalable mode reports the root table with legacy numbers",
        as_qemu: |walked| renumbered(walked, &[(0x38, 0x08), (0x39, 0x01), (0x3a, 0x0a)]),
    },
    Deviation {
        name: "scalable mode reports the context table with legacy numbers",
        as_qemu: |walked| renumbered(walked, &[(0x40, 0x09), (0x41, 0x02), (0x42, 0x0b)]),
    },
    // "Root Entry", scalable: the half that a request does not use plays no part in it.
    // `vtd_root_entry_rsvd_bits_check` checks both.
    Deviation {
        name: "reserved bits in the unused half of a scalable root entry count",
        as_qemu: |walked| other_half(walked),
    },
    // "Scalable-Mode Context-Entry": DTE, PASIDE and PRE are reserved where ECAP lacks DT, PASID
    // and PRS, RID_PASID and RID_PRIV where it lacks RPS and RPRIVS.
    // VTD_SM_CONTEXT_ENTRY_RSVD_VAL0 and _VAL1 have none of the five.
    Deviation {
        name: "context bits of absent capabilities are accepted",
        as_qemu: |walked| {
            let lo = at_step(walked, Table::Context)?.addr;
            let blamed = |at: &Walked| at.failure.and_then(|f| f.entry_addr);
            let mask = |at: &Walked| {
                if blamed(at) == Some(lo) {
                    0b11100
                } else {
                    0x1f_ffff
                }
            };
            ignoring(walked, &[Cause::ScalableContextReserved], mask)
        },
    },
    // "Scalable-Mode PASID Directory Entry": bits 11:2 and those beyond the host address width are
    // reserved. Nothing between `vtd_get_pdire_from_pdir_table` and its callers checks them.
    Deviation {
        name: "no reserved bits in PASID directory entries",
        as_qemu: |walked| ignoring(walked, &[Cause::DirectoryReserved], |_| 0xffc),
    },
    // "Scalable-Mode PASID Table Entry". `vtd_get_pe_in_pasid_leaf_table` checks the type and the
    // number of levels, and nothing else.
    Deviation {
        name: "no reserved bits in PASID table entries",
        as_qemu: |walked| {
            let mask = |at: &Walked| if pointer_in_use(at) { 0xfff } else { !0 };
            ignoring(walked, &[Cause::PasidEntryReserved], mask)
        },
    },
    // The pointers of both are cut off at the host address width nowhere (VTD_PASID_TABLE_BASE_
    // ADDR_MASK, VTD_SM_PASID_ENTRY_FLPTPTR and _SLPTPTR are ~0xfff): the reserved bits become part
    // of an address where there is no memory.
    Deviation {
        name: "reserved bits of PASID pointers are taken for address bits",
        as_qemu: |walked| {
            let cause = failed(
                walked,
                &[Cause::DirectoryReserved, Cause::PasidEntryReserved],
            )?;
            let failure = walked.failure?;
            let wide = failure.bits & !0 << walked.unit.haw();
            let pointer = cause == Cause::DirectoryReserved || pointer_in_use(walked);
            let at = failure.entry_addr?.0;
            (pointer && wide != 0).then(|| {
                walked.with(|case| {
                    let word = case.memory.words.entry(at).or_default();
                    *word = *word & !wide | NOWHERE;
                })
            })
        },
    },
    // Presence comes before everything else. `vtd_get_pe_in_pasid_leaf_table` checks type and
    // levels, and only its caller's caller, `vtd_get_pe_from_pasid_table`, presence.
    Deviation {
        name: "an absent PASID table entry is checked for its type first",
        as_qemu: |walked| type_before_presence(walked),
    },
    // "Scalable-Mode PASID Table Entry" and "... Directory Entry", FPD. `vtd_do_iommu_translate`
    // looks at the FPD of these two only after `vtd_dev_to_context_entry`, which has read both by
    // way of `vtd_ce_rid2pasid_check`, found no fault.
    Deviation {
        name: "FPD of PASID entries does not suppress faults of these entries",
        as_qemu: |walked| pasid_fpd(walked),
    },
];

/// With second-stage tables, scalable.
const SECOND: &[Deviation] = &[
    Deviation {
        name: "scalable mode reports the second stage with legacy numbers",
        as_qemu: |walked| {
            // SSL.2, no right at all, is an ordinary missing right there.
            let none = if walked.case.device.writes() { 5 } else { 6 };
            let numbers = [
                (0x78, 0x07),
                (0x79, none),
                (0x7a, 0x0c),
                (0x7b, 0x03),
                (0x84, 0x04),
                (0x85, 0x05),
                (0x86, 0x06),
            ];
            renumbered(walked, &numbers)
        },
    },
    // "Second-Stage Paging Entries": SNP is reserved where ECAP.SC is clear. `vtd_init` takes it
    // out of the reserved bits of leaves in scalable mode, whatever ECAP says.
    Deviation {
        name: "SNP is accepted in second-stage leaves without snoop control",
        as_qemu: |walked| ignoring(walked, &[Cause::SecondEntryReserved], |_| 1 << 11),
    },
];

/// With first-stage tables.
const FIRST: &[Deviation] = &[
    // "First-Stage Translation", canonical addresses: 48 bits for four levels.
    // `vtd_iova_fl_check_canonical` takes the width from the second stage's AW field of the PASID
    // table entry, which has no meaning there.
    Deviation {
        name: "the canonical form follows the second stage's width",
        as_qemu: |walked| canonical(walked),
    },
    // "Accessed and Dirty Flags". `vtd_set_flag_in_pte` is asked for both flags at the leaf of a
    // write, and writes nothing if one of them is set already: a page that was read is never
    // marked dirty.
    Deviation {
        name: "a write marks nothing in a leaf that has one flag already",
        as_qemu: |walked| {
            let leaf = page_steps(walked).find(|step| step.verdict == Verdict::Leaf)?;
            let marked = leaf.raw.words().first()? & FLAGS != 0;
            let mut next = walked.clone();
            let removed = next.marks.remove(&leaf.addr.0);
            (marked && walked.case.device.writes() && removed.is_some()).then_some(next)
        },
    },
    // A request that is blocked uses no page. `vtd_iova_to_flpte` sets the leaf's flags before
    // `vtd_do_iommu_translate` looks at the address.
    Deviation {
        name: "a leaf is marked though its page is in the interrupt range",
        as_qemu: |walked| {
            failed(walked, &[Cause::InterruptRange])?;
            mark_leaf(walked)
        },
    },
];

/// The cause, if it is one of these.
fn failed(walked: &Walked, causes: &[Cause]) -> Option<Cause> {
    let cause = walked.failure?.cause;
    causes.contains(&cause).then_some(cause)
}

fn set(case: &mut Case, at: u64, bits: u64) {
    *case.memory.words.entry(at).or_default() |= bits;
}

fn at_step(walked: &Walked, table: Table) -> Option<&Step> {
    walked.trail.steps().iter().find(|step| step.table == table)
}

fn page_steps(walked: &Walked) -> impl Iterator<Item = &Step> {
    let pages = |step: &&Step| matches!(step.table, Table::FirstStage | Table::SecondStage);
    walked.trail.steps().iter().filter(pages)
}

/// Accessed and dirty, in a first-stage entry.
const FLAGS: u64 = 1 << 5 | 1 << 6;

/// Whether the blamed word of the PASID table entry holds the pointer that its type uses.
fn pointer_in_use(walked: &Walked) -> bool {
    let found = || {
        let entry = at_step(walked, Table::PasidTable)?;
        let word = walked.failure?.entry_addr?.0.checked_sub(entry.addr.0)?;
        let kind = entry.raw.words().first()? >> 6 & 7;
        Some((kind, word) == (1, 16) || (kind, word) == (2, 0))
    };
    found().unwrap_or(false)
}

/// FPD in an entry up to this table.
fn hidden(walked: &Walked, tables: &[Table]) -> bool {
    let steps = walked.trail.steps().iter();
    let mut of = steps.filter(|step| tables.contains(&step.table));
    of.any(|step| step.raw.words().first().is_some_and(|word| word & 2 != 0))
}

const CONFIGURATION: [Table; 3] = [Table::Context, Table::PasidDirectory, Table::PasidTable];

/// The end of a qualified fault with this reason.
fn qualified(walked: &Walked, reason: u32) -> End {
    if hidden(walked, &CONFIGURATION) {
        End::Nothing
    } else {
        record(&walked.case, reason)
    }
}

/// Ends at the first entry that lacks a right, as if nothing were known of what comes after.
///
/// Only of a request that fails on our side too: both sides agree on what the rights are.
fn rights_first(walked: &Walked) -> Option<Walked> {
    walked.failure?;
    let write = walked.case.device.writes();
    let scalable = walked.case.setup.0 >> 10 & 1 != 0;
    let first = page_steps(walked).any(|step| step.table == Table::FirstStage);
    // What each table must grant, and the reason when it does not.
    let needs: &[(u64, u32)] = match (first, write, scalable) {
        (true, true, _) => &[(1 << 2, 0x81), (1 << 1, 0x85)],
        (true, false, _) => &[(1 << 2, 0x81)],
        (false, true, true) => &[(1 << 1, 0x85)],
        (false, false, true) => &[(1 << 0, 0x86)],
        (false, true, false) => &[(1 << 1, 0x05)],
        (false, false, false) => &[(1 << 0, 0x06)],
    };
    let mut next = walked.clone();
    let mut before = true;
    for step in page_steps(walked) {
        let lacks = |raw: u64| needs.iter().find(|(bit, _)| raw & bit == 0);
        let missing = step.raw.words().first().and_then(|raw| lacks(*raw));
        // An entry that is not present is reported as such on either side.
        let present = step.verdict != Verdict::NotPresent;
        if let (true, true, Some((_, reason))) = (before, present, missing) {
            next.end = qualified(walked, *reason);
            before = false;
        }
        if !before {
            next.marks.remove(&step.addr.0);
        }
    }
    (!before && (next.end != walked.end || next.marks != walked.marks)).then_some(next)
}

/// Blocks a request whose page holds the interrupt range, though it is for an address outside.
fn whole_page(walked: &Walked) -> Option<Walked> {
    let leaf = page_steps(walked).find(|step| step.verdict == Verdict::Leaf)?;
    let raw = *leaf.raw.words().first()?;
    let shift = 12 + 9 * (leaf.level - 1);
    let page = raw & ((1 << walked.unit.haw()) - 1) & !((1 << shift) - 1);
    let address = page | walked.case.iova & ((1 << shift) - 1);
    let holds = page >> shift == 0xfee0_0000 >> shift;
    let outside = address >> 20 != 0xfee;
    let ends_well = walked.failure.is_none();
    let scalable = walked.case.setup.0 >> 10 & 1 != 0;
    let reason = if scalable { 0x87 } else { 0x0e };
    (holds && outside && ends_well).then(|| walked.ending(qualified(walked, reason)))
}

/// The record that FPD suppressed.
fn unhidden(walked: &Walked, causes: &[Cause]) -> Option<Walked> {
    let cause = failed(walked, causes)?;
    let end = record(&walked.case, cause.reason().0);
    (walked.end == End::Nothing).then(|| walked.ending(end))
}

/// Another number for the same condition.
fn renumbered(walked: &Walked, numbers: &[(u8, u8)]) -> Option<Walked> {
    let End::Fault(Record { reason, .. }) = walked.end else {
        return None;
    };
    let (_, theirs) = numbers.iter().find(|(ours, _)| *ours == reason)?;
    Some(walked.ending(record(&walked.case, u32::from(*theirs))))
}

fn other_half(walked: &Walked) -> Option<Walked> {
    let step = at_step(walked, Table::Root)?;
    let upper = walked.case.device.rid() & 0x80 != 0;
    let unused = *step.raw.words().get(usize::from(!upper))?;
    let reserved = unused & (0xffe | !0 << walked.unit.haw()) != 0;
    // Both sides look at the presence of the used half first.
    let found = reserved && step.verdict == Verdict::Next;
    found.then(|| Walked {
        marks: [].into(),
        failure: None,
        ..walked.ending(record(&walked.case, 0x3a))
    })
}

/// Walks again without the reserved bits that this failure is about, as far as `mask` goes, until
/// it is about something else.
fn ignoring(walked: &Walked, causes: &[Cause], mask: impl Fn(&Walked) -> u64) -> Option<Walked> {
    let once = |walked: &Walked| {
        failed(walked, causes)?;
        let failure = walked.failure?;
        let (at, bits) = (failure.entry_addr?.0, failure.bits & mask(walked));
        let change = |case: &mut Case| *case.memory.words.entry(at).or_default() &= !bits;
        (bits != 0).then(|| walked.with(change))
    };
    std::iter::successors(once(walked), once).last()
}

fn type_before_presence(walked: &Walked) -> Option<Walked> {
    failed(walked, &[Cause::PasidEntryNotPresent])?;
    let entry = at_step(walked, Table::PasidTable)?;
    let present = walked.with(|case| set(case, entry.addr.0, 1));
    let kinds = [
        Cause::PasidEntryType,
        Cause::PasidEntryWidth,
        Cause::PasidEntryPagingMode,
        // Looked past by another deviation.
        Cause::PasidEntryReserved,
    ];
    failed(&present, &kinds).map(|_| present)
}

fn pasid_fpd(walked: &Walked) -> Option<Walked> {
    let causes = [
        Cause::DirectoryNotPresent,
        Cause::PasidEntryNotPresent,
        Cause::PasidEntryType,
        Cause::PasidEntryWidth,
        Cause::PasidEntryPagingMode,
    ];
    let by_context = hidden(walked, &[Table::Context]);
    if by_context {
        return None;
    }
    unhidden(walked, &causes)
}

fn canonical(walked: &Walked) -> Option<Walked> {
    let entry = at_step(walked, Table::PasidTable)?;
    let words = entry.raw.words();
    let width = (30 + 9 * (words.first()? >> 2 & 7)).min(48);
    if words.first()? >> 6 & 7 != 1 || entry.verdict != Verdict::Next {
        return None;
    }
    let unused = 64 - width;
    let input = walked.case.iova.cast_signed();
    let canonical = input << unused >> unused == input;
    (!canonical && walked.failure.map(|f| f.cause) != Some(Cause::NotCanonical)).then(|| Walked {
        marks: [].into(),
        ..walked.ending(qualified(walked, 0x80))
    })
}

fn mark_leaf(walked: &Walked) -> Option<Walked> {
    let leaf = page_steps(walked).find(|step| step.verdict == Verdict::Leaf)?;
    let raw = *leaf.raw.words().first()?;
    let dirty = if walked.case.device.writes() {
        1 << 6
    } else {
        0
    };
    let bits = (1 << 5 | dirty) & !raw;
    if leaf.table != Table::FirstStage || bits == 0 || walked.marks.contains_key(&leaf.addr.0) {
        return None;
    }
    let mut next = walked.clone();
    next.marks.insert(leaf.addr.0, bits);
    Some(next)
}
