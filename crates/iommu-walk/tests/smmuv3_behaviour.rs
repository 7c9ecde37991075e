//! What an SMMUv3 walk does besides failing: translations, updates, completions, the trail.

mod bed;

use bed::smmuv3::*;
use iommu_walk::smmuv3::{
    Applied, Cause, Completion, Override, Rights, Space, Substream, Switches, apply, read_context,
    read_space, read_stream, walk,
};
use iommu_walk::{PageTable, Table, Trail, Updates, Verdict};
use iopf::{Access, Dma, DmaKind, Gpa, Pasid, Rid};

const RX: Access = Access::READ.union(Access::EXEC);
const RWX: Access = Access::RW.union(Access::EXEC);
const X: Access = Access::EXEC;
const NONE: Access = Access::empty();

fn substream(number: u32, dma: Dma) -> Dma {
    Dma {
        pasid: Pasid::new(number),
        ..dma
    }
}

/// A translation request of a substream.
fn asks(access: Access, no_write: bool) -> Dma {
    Dma {
        kind: DmaKind::Translation { no_write },
        ..substream(5, Dma { access, ..read() })
    }
}

#[test]
fn a_page_of_stage_1_translates_with_its_offset() {
    let translation = Bed::first().passes(&write());
    assert_eq!(translation.pa, Gpa(0x8_0abc));
    assert_eq!(translation.page_shift, 12);
    // What unprivileged requests may write, privileged ones do not execute.
    let rights = Rights {
        user: RWX,
        privileged: Access::RW,
    };
    assert_eq!((translation.rights, translation.perms), (rights, RWX));
    assert!(translation.dirty && translation.snoop);
}

#[test]
fn a_page_of_stage_2_translates_with_its_offset() {
    let translation = Bed::second().passes(&write());
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x8_0abc), 12)
    );
    let rights = Rights {
        user: RWX,
        privileged: RWX,
    };
    assert_eq!((translation.rights, translation.perms), (rights, RWX));
}

#[test]
fn a_nested_page_translates_and_has_the_rights_of_both_stages() {
    let translation = Bed::nested().passes(&write());
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x8_0abc), 12)
    );
    let rights = Rights {
        user: RWX,
        privileged: Access::RW,
    };
    assert_eq!(translation.rights, rights);
    // A right that only one stage grants.
    let read_only = Bed::nested().take(0x1_3400, 0x80).passes(&read());
    assert_eq!((read_only.rights.user, read_only.perms), (RX, RX));
    // Stage 2 moves the page, and every table.
    let moved = Bed::nested()
        .set(0x1_3400, 0x9_04ff)
        .set(0x1_3118, 0xa_34ff)
        .set(0xa_3008, PAGE);
    assert_eq!(moved.passes(&read()).pa, Gpa(0x9_0abc));
}

#[test]
fn where_no_stage_translates_the_address_stays() {
    let translation = Bed::bypass().passes(&write());
    assert_eq!((translation.pa, translation.perms), (Gpa(ADDR), RWX));
    let off = Bed::first().control(0, 0).passes(&read());
    assert_eq!((off.pa, off.perms), (Gpa(ADDR), RWX));
    // S1DSS 01b: the same for requests without a substream.
    let skips = Bed::substreams().take(STE1, 3).add(STE1, 1);
    assert_eq!(skips.passes(&write()).pa, Gpa(ADDR));
    assert_eq!(skips.passes(&substream(5, write())).pa, Gpa(0x8_0abc));
    // Stage 2 does translate.
    let both = Bed::nested().add(STE, 5 << 59).add(STE1, 1);
    let both = both.set(0x1_0008, 0xb_1003).set(0xb_1008, 0xb_2003);
    let both = both.set(0xb_2008, 0xb_3003).set(0xb_3008, 0x9_04ff);
    assert_eq!(both.passes(&write()).pa, Gpa(0x9_0abc));
    // No context descriptor is read then.
    let (_, _, trail) = both.abort(CD).run(&write());
    let tables: Vec<_> = trail.steps().iter().map(|step| step.table).collect();
    assert!(!tables.contains(&Table::ContextDescriptor));
    assert!(!tables.contains(&Table::FirstStage));
}

/// DDI 0487 "Global and process-specific translation table entries": nG.
#[test]
fn a_page_of_stage_1_is_global_unless_its_entry_says_no() {
    for bed in [Bed::first(), Bed::nested()] {
        assert!(bed.passes(&read()).global);
        assert!(!bed.add(LEAF, 1 << 11).passes(&read()).global);
    }
    assert!(!Bed::second().passes(&read()).global);
    assert!(!Bed::bypass().passes(&read()).global);
}

/// TG0, TG1 or `S2TG`, the page as a power of two, the levels of 48 bits, and the highest with blocks.
const GRANULES: [(u64, u64, u32, u32, u32); 3] =
    [(0, 2, 12, 4, 3), (2, 1, 14, 4, 2), (1, 3, 16, 3, 2)];

/// Types tables from `top` down to `leaf` for an address, the first at `root`, the others every 64 KiB
/// after it; the entry that maps something is `word`, with 0xb00_0000 in it as an address.
fn chain(bed: Bed, root: u64, page: u32, (top, leaf): (u32, u32), addr: u64, word: u64) -> Bed {
    let stride = page - 3;
    let mut bed = bed;
    let mut table = root;
    for level in (leaf..=top).rev() {
        let index = addr >> (page + stride * (level - 1)) & ((1 << stride) - 1);
        let next = table + 0x1_0000;
        let entry = if level == leaf {
            // A block has bit 1 clear, a page has it set.
            word | if level == 1 { 3 } else { 1 }
        } else {
            next | 3
        };
        bed = bed.set(table + 8 * index, entry);
        table = next;
    }
    bed
}

/// DDI 0487, the granules' tables of sizes: every level that maps something, in both ranges.
#[test]
fn pages_and_blocks_of_stage_1_have_the_size_of_their_level() {
    for (tg0, tg1, page, top, highest) in GRANULES {
        for leaf in 1..=highest {
            let shift = page + (page - 3) * (leaf - 1);
            let base = 0x4000_0000_0000_u64;
            let addr = 0x0000_7654_3210_9abc_u64;
            let word = base | 0x440;
            let offset = addr & ((1 << shift) - 1);
            let lower = Bed::first()
                .set(CD, CD_WORD0 | tg0 << 6)
                .set(CD1, 0x20_0000);
            let lower = chain(lower, 0x20_0000, page, (top, leaf), addr, word);
            let translation = lower.passes(&at(addr, read()));
            assert_eq!(translation.pa, Gpa(base | offset), "{page} {leaf}");
            assert_eq!(u32::from(translation.page_shift), shift);

            // T1SZ 16, EPD0.
            let descriptor = 0x0007_6205_8010_4000 | tg1 << 22;
            let upper = Bed::first().set(CD, descriptor).set(CD2, 0x20_0000);
            let upper = chain(upper, 0x20_0000, page, (top, leaf), addr, word);
            let high = at(addr | !0 << 48, read());
            assert_eq!(upper.passes(&high).pa, Gpa(base | offset));
        }
        for leaf in highest + 1..=top {
            let bed = Bed::first()
                .set(CD, CD_WORD0 | tg0 << 6)
                .set(CD1, 0x20_0000);
            let bed = chain(bed, 0x20_0000, page, (top, leaf), ADDR, 0x440);
            let failure = bed.failure(&read());
            assert_eq!(failure.cause, Cause::FirstInvalid, "{page} {leaf}");
        }
    }
}

#[test]
fn pages_and_blocks_of_stage_2_have_the_size_of_their_level() {
    for (tg, _, page, top, highest) in GRANULES {
        // S2SL0 10b: levels 0, 1 and 1. With 16 KiB level 0 would take 52-bit addresses, and level 1 has
        // two tables.
        let top = if page == 14 { top - 1 } else { top };
        for leaf in 1..=highest {
            let shift = page + (page - 3) * (leaf - 1);
            let base = 0x4000_0000_0000_u64;
            let addr = 0x0000_7654_3210_9abc_u64;
            let word2 = 0x040d_0010_0000_0009 | tg << 46 | 2 << 38;
            let bed = Bed::second().set(STE2, word2).set(STE3, 0x20_0000);
            let bed = chain(bed, 0x20_0000, page, (top, leaf), addr, base | 0x4fc);
            let translation = bed.passes(&at(addr, read()));
            let offset = addr & ((1 << shift) - 1);
            assert_eq!(translation.pa, Gpa(base | offset), "{page} {leaf}");
            assert_eq!(u32::from(translation.page_shift), shift);
        }
    }
}

/// The top table has as many entries as the range needs, and is aligned to them.
#[test]
fn every_t0sz_starts_at_the_level_that_resolves_it() {
    for (tg0, _, page, _, _) in GRANULES {
        let largest = if page == 16 { 47 } else { 48 };
        for t0sz in 16..=largest {
            let bits = 64 - t0sz;
            let levels = (bits - page).div_ceil(page - 3);
            let top_bits = bits - page - (page - 3) * (levels - 1);
            // The last page of the range: every index is the last.
            let addr = (1_u64 << bits) - 0x544;
            let size = 8_u64 << top_bits;
            let root = 0x20_0000 + size;
            let word0 = CD_WORD0 & !0x3f | u64::from(t0sz) | tg0 << 6;
            // What lies below its size in TTB0 does not count.
            let bed = Bed::first()
                .set(CD, word0)
                .set(CD1, root | (size - 1) & 0xff0);
            let index = (1 << top_bits) - 1;
            let bed = if levels == 1 {
                bed.set(root + 8 * index, 0xb0_0443)
            } else {
                let bed = bed.set(root + 8 * index, 0x40_0003);
                chain(bed, 0x40_0000, page, (levels - 1, 1), addr, 0xb0_0440)
            };
            let dma = at(addr, read());
            let translation = bed.passes(&dma);
            let offset = addr & ((1 << page) - 1);
            assert_eq!(translation.pa, Gpa(0xb0_0000 | offset), "{page} {t0sz}");
            // The trail has the index in the smaller table.
            let (_, _, trail) = bed.run(&dma);
            let step = trail.steps()[2];
            assert_eq!(
                (u64::from(step.index), u32::from(step.level)),
                (index, levels)
            );
            let outside = bed.failure(&at(1 << bits, read()));
            assert_eq!(outside.cause, Cause::FirstOutside);
        }
    }
}

/// DDI 0487 "Concatenated translation tables": up to 16 top tables.
#[test]
fn concatenated_top_tables_of_stage_2_are_one_table() {
    // 4 KiB, levels 1 and 2; 16 KiB, level 1; 64 KiB, level 2.
    for (tg, sl0, page, levels, t0sz) in [
        (0_u64, 1_u64, 12, 3, 21_u32),
        (0, 1, 12, 3, 24),
        (0, 0, 12, 2, 30),
        (2, 2, 14, 3, 16),
        (1, 1, 16, 2, 18),
    ] {
        let bits = 64 - t0sz;
        let addr = (1_u64 << bits) - 0x544;
        let word2 = 0x040d_0000_0000_0009 | u64::from(t0sz) << 32 | sl0 << 38 | tg << 46;
        // Aligned to all 16.
        let bed = Bed::second().set(STE2, word2).set(STE3, 0x40_0000);
        let index = addr >> (page + (page - 3) * (levels - 1));
        let bed = bed.set(0x40_0000 + 8 * index, 0x80_0003);
        let bed = chain(bed, 0x80_0000, page, (levels - 1, 1), addr, 0xb0_04fc);
        let dma = at(addr, read());
        let offset = addr & ((1 << page) - 1);
        assert_eq!(
            bed.passes(&dma).pa,
            Gpa(0xb0_0000 | offset),
            "{page} {t0sz}"
        );
        let (_, _, trail) = bed.run(&dma);
        assert_eq!(u64::from(trail.steps()[1].index), index);
    }
}

#[test]
fn a_nested_page_is_as_large_as_the_smaller_of_its_two() {
    // A block of 2 MiB in stage 1, over a page of 4 KiB.
    let bed = Bed::nested().set(0x2_2008, 0x441).set(0x1_3008, 0x9_04ff);
    let translation = bed.passes(&read());
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x9_0abc), 12)
    );
    // And the other way round; with granules of 64 KiB over 4 KiB.
    let block = Bed::nested().set(0x1_2000, 0x4fd);
    assert_eq!(block.passes(&read()).page_shift, 12);
    let mixed = Bed::nested().set(0x1_2000, 0x4fd);
    let mixed = mixed.set(CD, CD_WORD0 | 1 << 6).set(CD1, 0x10_0000);
    let mixed = chain(mixed, 0x10_0000, 16, (3, 1), 0x1_2abc, 0x8_0440);
    let translation = mixed.passes(&at(0x1_2abc, read()));
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x8_2abc), 16)
    );
}

/// IHI 0070 "Input address size and Virtual Address size".
#[test]
fn bit_55_chooses_the_range_and_tbi_ignores_what_is_above() {
    let tagged = at(0xa5 << 56 | ADDR, read());
    let bed = Bed::first();
    assert_eq!(bed.failure(&tagged).cause, Cause::FirstOutside);
    let bed = bed.add(CD, 1 << 38);
    assert_eq!(bed.passes(&tagged).pa, Gpa(0x8_0abc));
    // TBI1 is not TBI0.
    let other = Bed::first().add(CD, 1 << 39);
    assert_eq!(other.failure(&tagged).cause, Cause::FirstOutside);
    // Bits 55:48 count all the same.
    let failure = bed.failure(&at(0xa501 << 48 | ADDR, read()));
    assert_eq!(failure.cause, Cause::FirstOutside);
    // The upper range, T1SZ 16: the same tables through TTB1, and TBI1.
    let upper = Bed::first()
        .set(CD, 0x0007_6205_8090_4000)
        .set(CD2, 0x2_0000);
    let high = 0xffff_0000_0000_0000 | ADDR;
    assert_eq!(upper.passes(&at(high, read())).pa, Gpa(0x8_0abc));
    let tagged = at(0xa5ff_0000_0000_0000 | ADDR, read());
    assert_eq!(upper.failure(&tagged).cause, Cause::FirstOutside);
    assert_eq!(upper.add(CD, 1 << 39).passes(&tagged).pa, Gpa(0x8_0abc));
}

/// Both ranges at once, of different sizes and granules.
#[test]
fn the_ranges_have_tables_of_their_own() {
    // T0SZ 16 with 4 KiB, T1SZ 25 with 64 KiB: 39 bits, two levels.
    let bed = Bed::first()
        .set(CD, 0x0007_6205_80d9_0010)
        .set(CD2, 0x40_0000);
    let addr = 0x7f_4321_0abc;
    let bed = chain(bed, 0x40_0000, 16, (2, 1), addr, 0xb0_0440);
    let high = at(!0 << 39 | addr, read());
    assert_eq!(bed.passes(&high).pa, Gpa(0xb0_0abc));
    assert_eq!(bed.passes(&read()).pa, Gpa(0x8_0abc));
    let outside = at(!0 << 40 | addr, read());
    assert_eq!(bed.failure(&outside).cause, Cause::FirstOutside);
}

/// DDI 0487 "Summary of possible memory access permissions using Direct permissions for a stage 1
/// translation supporting two Exception levels": UXN, PXN, AP[2:1], WXN; privileged, unprivileged.
#[test]
fn rights_of_stage_1_are_those_of_the_summary() {
    let rows = [
        (0, 0, 0, 0, RWX, X),
        (0, 0, 0, 1, Access::RW, X),
        (0, 0, 1, 0, Access::RW, RWX),
        (0, 0, 1, 1, Access::RW, Access::RW),
        (0, 0, 2, 0, RX, X),
        (0, 0, 2, 1, RX, X),
        (0, 0, 3, 0, RX, RX),
        (0, 0, 3, 1, RX, RX),
        (0, 1, 0, 0, Access::RW, X),
        (0, 1, 0, 1, Access::RW, X),
        (0, 1, 1, 0, Access::RW, RWX),
        (0, 1, 1, 1, Access::RW, Access::RW),
        (0, 1, 2, 0, Access::READ, X),
        (0, 1, 3, 0, Access::READ, RX),
        (1, 0, 0, 0, RWX, NONE),
        (1, 0, 0, 1, Access::RW, NONE),
        (1, 0, 1, 0, Access::RW, Access::RW),
        (1, 0, 1, 1, Access::RW, Access::RW),
        (1, 0, 2, 0, RX, NONE),
        (1, 0, 3, 0, RX, Access::READ),
        (1, 1, 0, 0, Access::RW, NONE),
        (1, 1, 1, 0, Access::RW, Access::RW),
        (1, 1, 2, 0, Access::READ, NONE),
        (1, 1, 3, 0, Access::READ, Access::READ),
    ];
    for (uxn, pxn, ap, wxn, privileged_rights, user) in rows {
        let word = 0x8_0403_u64 | uxn << 54 | pxn << 53 | ap << 6;
        let bed = Bed::substreams()
            .set(LEAF, word)
            .add(CD + 5 * 64, wxn << 36);
        let dma = privileged(substream(5, read()));
        let translation = bed.passes(&dma);
        let rights = Rights {
            user,
            privileged: privileged_rights,
        };
        assert_eq!(translation.rights, rights, "{uxn} {pxn} {ap} {wxn}");
        assert_eq!(translation.perms, privileged_rights);
        // What a request may do goes by them.
        for access in [Access::READ, Access::WRITE, Access::RW, X] {
            for supervisor in [false, true] {
                let dma = substream(5, Dma { access, ..read() });
                let dma = if supervisor { privileged(dma) } else { dma };
                let granted = rights.of(supervisor).contains(access);
                assert_eq!(bed.run(&dma).0.is_ok(), granted, "{word:x} {dma:?}");
            }
        }
    }
}

/// DDI 0487 "Effect of `APTable[1:0]` on subsequent lookup levels" and the rest; HAD ignores them all.
#[test]
fn rights_in_entries_that_point_to_tables_take_away() {
    let rows = [
        (59, Access::READ, RX),
        (60, RX, Access::READ),
        (61, RX, X),
        (62, RX, RX),
    ];
    for (bit, privileged_rights, user) in rows {
        for table in [0x2_0008, 0x2_1008, 0x2_2008] {
            let bed = Bed::substreams().add(LEAF, 0x80).add(table, 1 << bit);
            let dma = privileged(substream(5, read()));
            let rights = bed.passes(&dma).rights;
            let wanted = Rights {
                user,
                privileged: privileged_rights,
            };
            assert_eq!(rights, wanted, "{bit}");
            let disabled = bed.add(CD + 5 * 64 + 8, 2);
            let all = Rights {
                user: RX,
                privileged: RX,
            };
            assert_eq!(disabled.passes(&dma).rights, all);
            // Ignored without IDR3.HAD.
            let plain = disabled.features(|f| f.idr3 &= !4);
            assert_eq!(plain.passes(&dma).rights, wanted);
        }
    }
    // What one level takes, the next does not give back.
    let two = Bed::substreams()
        .add(0x2_0008, 1 << 61)
        .add(0x2_2008, 1 << 62);
    let rights = two.passes(&privileged(substream(5, read()))).rights;
    assert_eq!((rights.user, rights.privileged), (X, RX));
    // APTable[1] on a page that is writable.
    let bed = Bed::first().add(0x2_2008, 1 << 62);
    assert_eq!(bed.passes(&read()).rights.user, RX);
    // The bits mean nothing in an entry that maps a page, and the same in stage 2.
    let bed = Bed::nested().add(LEAF, 0xf << 59).add(0x1_2000, 0xf << 59);
    assert_eq!(bed.passes(&write()).rights.user, RWX);
}

/// IHI 0070 "PAN", "EPAN".
#[test]
fn privileged_data_accesses_stay_out_of_what_is_unprivileged() {
    let dma = privileged(substream(5, read()));
    let bed = |word| Bed::substreams().set(LEAF, word).add(CD + 5 * 64, 1 << 40);
    // Read-only for all: a privileged request may still execute.
    let rights = bed(0x8_04c3).passes(&substream(5, read())).rights;
    assert_eq!(rights.privileged, X);
    bed(0x8_04c3).passes(&substream(5, privileged(fetch())));
    // Not for users: all is as without.
    assert_eq!(bed(0x8_0483).passes(&dma).rights.privileged, RX);
    // Execute-only for users: EPAN makes the difference.
    let enhanced = bed(0x8_0483).add(CD + 5 * 64 + 8, 1 << 59);
    assert_eq!(enhanced.failure(&dma).cause, Cause::FirstPrivilegedDenied);
    enhanced
        .clone()
        .features(|f| f.idr3 &= !(1 << 17))
        .passes(&dma);
    enhanced.add(LEAF, 1 << 54).passes(&dma);
}

/// DDI 0487 "Data access permissions for a stage 2 translation".
#[test]
fn rights_of_stage_2_are_those_of_its_entry() {
    for (s2ap, data) in [
        (0, NONE),
        (1, Access::READ),
        (2, Access::WRITE),
        (3, Access::RW),
    ] {
        let bed = Bed::second().set(LEAF2, 0x8_043f | s2ap << 6);
        for access in [Access::READ, Access::WRITE, Access::RW] {
            let dma = Dma { access, ..read() };
            let outcome = bed.run(&dma).0;
            assert_eq!(outcome.is_ok(), data.contains(access), "{s2ap} {access:?}");
        }
        // Execute is apart: INSTCFG makes the read one of instructions.
        let instructions = bed.add(STE1, 3 << 50).passes(&read());
        assert_eq!(instructions.rights.user, data | X);
    }
}

/// Stage 2 of a stage 1 table may be write-only as little as unreadable; execute does not matter there.
#[test]
fn a_stage_1_table_needs_read_of_stage_2_and_nothing_else() {
    let bed = Bed::nested().set(0x1_3118, 0x40_0000_0002_347f);
    bed.passes(&read());
}

// ---- hardware updates ----

const HA: u64 = 1 << 43;
const HD: u64 = 1 << 42;
const DBM: u64 = 1 << 51;
const S2HA: u64 = 1 << 56;
const S2HD: u64 = 1 << 55;

#[test]
fn the_access_flag_is_set_in_the_entry_that_maps_the_page_and_nowhere_else() {
    let bed = Bed::first().add(CD, HA).take(LEAF, 0x400);
    assert_eq!(bed.updates(&read()), [(LEAF, 0x8_0043, 0x8_0443)]);
    assert_eq!(bed.updates(&ats()), [(LEAF, 0x8_0043, 0x8_0443)]);
    assert_eq!(Bed::first().add(CD, HA).updates(&read()), []);
    // A request that is denied leaves it.
    let denied = bed.add(LEAF, 0x80);
    assert_eq!(denied.updates(&write()), []);
}

/// DDI 0487 "Hardware management of the dirty state": DBM, AP[2]. The bit is cleared.
#[test]
fn a_write_makes_a_clean_page_of_stage_1_dirty() {
    let bed = Bed::first().add(CD, HA | HD).add(LEAF, 0x80 | DBM);
    let word = 0x8_04c3 | DBM;
    assert_eq!(bed.updates(&write()), [(LEAF, word, word & !0x80)]);
    let read_translation = bed.passes(&read());
    assert_eq!(bed.updates(&read()), []);
    // It is writable all the same; a later write has to walk.
    assert_eq!(read_translation.rights.user, RWX);
    assert!(!read_translation.dirty && bed.passes(&write()).dirty);
    // Both at once.
    let both = bed.clone().take(LEAF, 0x400);
    let word = 0x8_00c3 | DBM;
    assert_eq!(both.updates(&write()), [(LEAF, word, word & !0x80 | 0x400)]);
    assert_eq!(both.updates(&read()), [(LEAF, word, word | 0x400)]);
    // Without DBM, without HD, without HA, and under APTable[1], it is read-only.
    for bed in [
        bed.clone().take(LEAF, DBM),
        bed.clone().take(CD, HD),
        bed.clone().take(CD, HA),
        bed.clone().add(0x2_1008, 1 << 62),
    ] {
        assert_eq!(bed.failure(&write()).cause, Cause::FirstWriteDenied);
        assert!(bed.passes(&read()).dirty);
    }
    // One that is dirty stays as it is.
    let dirty = Bed::first().add(CD, HA | HD).add(LEAF, DBM);
    assert_eq!(dirty.updates(&write()), []);
    assert!(dirty.passes(&read()).dirty);
}

/// DDI 0487 "Implications of enabling the dirty state management mechanism".
#[test]
fn a_clean_page_counts_as_writable_for_what_may_be_executed() {
    let bed = Bed::substreams()
        .add(CD + 5 * 64, HA | HD)
        .add(LEAF, 0x80 | DBM);
    let rights = bed.passes(&substream(5, read())).rights;
    assert_eq!((rights.user, rights.privileged), (RWX, Access::RW));
    let wxn = bed.add(CD + 5 * 64, 1 << 36);
    let rights = wxn.passes(&substream(5, read())).rights;
    assert_eq!(rights.user, Access::RW);
}

#[test]
fn stage_2_sets_access_flag_and_dirty_state() {
    let bed = Bed::second().add(STE2, S2HA | S2HD);
    let clean = bed.clone().set(LEAF2, 0x8_007f | DBM);
    let word = 0x8_007f | DBM;
    assert_eq!(clean.updates(&read()), [(LEAF2, word, word | 0x400)]);
    assert_eq!(clean.updates(&write()), [(LEAF2, word, word | 0x480)]);
    let translation = clean.passes(&read());
    assert_eq!(translation.rights.user, RWX);
    assert!(!translation.dirty && clean.passes(&write()).dirty);
    let read_only = bed.set(LEAF2, 0x8_007f);
    assert_eq!(read_only.failure(&write()).cause, Cause::IpaWriteDenied);
    let access_only = clean.take(STE2, S2HD);
    assert_eq!(access_only.failure(&write()).cause, Cause::IpaWriteDenied);
}

/// IHI 0070 "HTTU with two stages of translation".
#[test]
fn a_nested_walk_updates_every_entry_it_is_due_in() {
    let pages = [0x1_3180, 0x1_3100, 0x1_3108, 0x1_3110, 0x1_3118, 0x1_3400];
    let bed = pages.into_iter().fold(
        Bed::nested().add(STE2, S2HA | S2HD).add(CD, HA | HD),
        |bed, entry| bed.take(entry, 0x480).add(entry, DBM),
    );
    let bed = bed.set(LEAF, 0x8_00c3 | DBM);
    let got = bed.updates(&write());
    let entry = |at: u64, page: u64, set: u64| (at, page | 0x7f | DBM, page | 0x7f | DBM | set);
    let wanted = [
        // The context descriptor's page is read, never written.
        entry(0x1_3180, 0x3_0000, 0x400),
        entry(0x1_3100, 0x2_0000, 0x400),
        entry(0x1_3108, 0x2_1000, 0x400),
        entry(0x1_3110, 0x2_2000, 0x400),
        // The lowest table's page is written to, for the stage 1 entry.
        entry(0x1_3118, 0x2_3000, 0x480),
        (LEAF, 0x8_00c3 | DBM, 0x8_0443 | DBM),
        entry(0x1_3400, 0x8_0000, 0x480),
    ];
    assert_eq!(got, wanted);
    // A stage 1 page that is read-only leaves the dirty state of stage 2.
    let read_only = bed.take(LEAF, DBM);
    let got = read_only.updates(&ats());
    assert_eq!(got[6], entry(0x1_3400, 0x8_0000, 0x400));
}

#[test]
fn an_update_that_the_guest_was_faster_with_is_walked_again() {
    let bed = Bed::first().add(CD, HA | HD).set(LEAF, 0x8_00c3 | DBM);
    let mut updates = Updates::new();
    let (unit, mem) = (&bed.unit, &bed.mem);
    iommu_walk::smmuv3::translate(unit, mem, &write(), &mut updates, &mut ()).expect("it passes");
    let bed = bed.clone().set(LEAF, 0x8_04c3 | DBM);
    let detail = Default::default();
    assert_eq!(apply(&updates, &bed.mem, detail), Applied::Retry);
    let again = bed.updates(&write());
    assert_eq!(again, [(LEAF, 0x8_04c3 | DBM, 0x8_0443 | DBM)]);
    iommu_walk::smmuv3::translate(unit, &bed.mem, &write(), &mut updates, &mut ()).expect("passes");
    assert_eq!(apply(&updates, &bed.mem, detail), Applied::Done);
    assert_eq!(bed.updates(&write()), []);
}

// ---- overrides ----

/// IHI 0070 "PRIVCFG", "INSTCFG", "Attribute definitions".
#[test]
fn the_stream_says_what_a_request_counts_as() {
    let privileged_page = |config: u64| {
        Bed::first()
            .take(LEAF, 0x40)
            .add(STE1, config << 48)
            .run(&read())
            .0
    };
    assert!(privileged_page(0).is_err() && privileged_page(1).is_err());
    assert!(privileged_page(2).is_err() && privileged_page(3).is_ok());
    let stream = |bits: u64| {
        let bed = Bed::first().add(STE1, bits);
        read_stream(&bed.unit, &bed.mem, Rid(0x28), &mut ()).expect("the entry is good")
    };
    let plain = stream(0);
    assert_eq!(plain.privilege(), Override::Incoming);
    assert_eq!(stream(1 << 50).instruction(), Override::Incoming);
    assert_eq!(stream(2 << 50).instruction(), Override::Clear);
    assert_eq!(stream(3 << 48).privilege(), Override::Set);
    let pasid = Pasid::new(5);
    let supervisor = Access::PRIV;
    assert_eq!(plain.effective(RX | supervisor, pasid), X | supervisor);
    assert_eq!(plain.effective(RX | supervisor, None), Access::READ);
    assert_eq!(plain.effective(NONE, None), Access::READ);
    // An atomic operation is of data.
    assert_eq!(plain.effective(RWX, pasid), Access::RW);
    assert_eq!(stream(3 << 50).effective(Access::READ, None), X);
    assert_eq!(
        stream(3 << 50).effective(Access::WRITE, None),
        Access::WRITE
    );
    assert_eq!(stream(2 << 50).effective(X, pasid), Access::READ);
    let clear = stream(2 << 48).effective(Access::READ | supervisor, pasid);
    assert_eq!(clear, Access::READ);
}

// ---- ATS ----

/// IHI 0070 "PCIe permission attribute interpretation", its examples: NW, Exe, Priv; the page; R, W, Exe.
#[test]
fn translation_requests_are_told_of_rights_as_in_the_examples() {
    // User-RO, Priv-RW cannot be said with AP, nor is it needed: rights go by the mode.
    let (rw, ro) = (0x8_0443, 0x8_04c3);
    let uxn = 1 << 54;
    let rows = [
        (rw, NONE, true, Access::READ),
        (ro, NONE, true, Access::READ),
        (rw, NONE, false, Access::RW),
        (ro, NONE, false, Access::READ),
        (rw | uxn, X, true, Access::READ),
        (rw | uxn, NONE, false, Access::RW),
        (rw, X, false, RWX),
        (ro, X, false, RX),
    ];
    for (word, access, no_write, perms) in rows {
        let bed = Bed::substreams().set(LEAF, word);
        let translation = bed.passes(&asks(access, no_write));
        assert_eq!(translation.perms, perms, "{word:x} {access:?} {no_write}");
    }
    // User-X, Priv-RW: no access.
    let execute_only = Bed::substreams().set(LEAF, 0x8_0403);
    let failure = execute_only.failure(&asks(X, false));
    let completion = failure.cause.completion(asks(X, false).kind);
    assert_eq!(completion, Completion::NoAccess);
    assert!(!failure.recorded(asks(X, false).kind));
    // But INSTCFG makes every read one of instructions.
    let instructions = execute_only.add(STE1, 3 << 50);
    assert_eq!(instructions.passes(&asks(X, false)).perms, RX);
    // Data: execute goes with read.
    let data = Bed::substreams().set(LEAF, ro | uxn).add(STE1, 2 << 50);
    assert_eq!(data.passes(&asks(X, true)).perms, RX);
    // Execute takes read, which stage 2 may keep back.
    let write_only = Bed::nested()
        .add(STE, 5 << 59)
        .descriptor(CD + 5 * 64)
        .take(0x1_3400, 0x40);
    assert_eq!(write_only.passes(&asks(X, false)).perms, Access::WRITE);
    // PRIVCFG.
    let of_all = Bed::substreams().set(LEAF, 0x8_0403).add(STE1, 3 << 48);
    assert_eq!(of_all.passes(&asks(NONE, false)).perms, Access::RW);
}

/// IHI 0070 "Hardware flag update for ATS & PRI".
#[test]
fn a_translation_request_for_write_makes_the_page_dirty() {
    let bed = Bed::substreams()
        .add(CD + 5 * 64, HA | HD)
        .add(LEAF, 0x80 | DBM);
    let word = 0x8_04c3 | DBM;
    let dma = asks(NONE, false);
    assert_eq!(bed.updates(&dma), [(LEAF, word, word & !0x80)]);
    assert_eq!(bed.passes(&dma).perms, Access::RW);
    let dma = asks(NONE, true);
    assert_eq!(bed.updates(&dma), []);
    assert_eq!(bed.passes(&dma).perms, Access::READ);
    // Without HD: no write.
    let bed = bed.take(CD + 5 * 64, HD);
    assert_eq!(bed.passes(&asks(NONE, false)).perms, Access::READ);
}

/// IHI 0070 "Full ATS skipping stage 1".
#[test]
fn a_translation_request_that_skips_stage_1_is_answered_with_its_own_address() {
    let bed = Bed::substreams().take(STE1, 3).add(STE1, 1);
    let translation = bed.passes(&ats());
    assert_eq!((translation.pa, translation.perms), (Gpa(ADDR), Access::RW));
    let failure = bed.failure(&at(1 << 48, ats()));
    assert_eq!(failure.cause, Cause::InputSize);
}

#[test]
fn a_translated_request_passes_where_ats_is_allowed() {
    let translation = Bed::first().passes(&translated());
    assert_eq!((translation.pa, translation.perms), (Gpa(ADDR), Access::RW));
    // No page table is read.
    let (_, _, trail) = Bed::first().run(&translated());
    assert_eq!(trail.steps().len(), 1);
    // Without ATSCHK, not even the stream table.
    let (_, _, trail) = Bed::first().control(3, 0).set(STE, 0).run(&translated());
    assert_eq!(trail.steps().len(), 0);
    // What is wrong with the stream is recorded nowhere.
    let failure = Bed::first().set(STE, 0).failure(&translated());
    assert_eq!(failure.cause, Cause::StreamInvalid);
    assert!(!failure.recorded(DmaKind::Translated));
}

// ---- configuration tables ----

#[test]
fn stream_tables_of_two_levels_split_where_the_register_says() {
    let dma = |stream| Dma {
        requester: Rid(stream),
        ..read()
    };
    for (split, register) in [(6_u32, 6_u32), (8, 8), (10, 10), (6, 7)] {
        let stream = 3 << split | 0x28;
        // 2^16 streams; the level 1 table at 0x10_0000 is aligned to its size.
        let config = 1 << 16 | register << 6 | 16;
        let span = u64::from(split) + 1;
        let bed = Bed::first()
            .stream_table(0x10_0040, config)
            .set(0x10_0018, 0x10_0000 | 0x10_0000 << 1 | span);
        let table = 0x30_0000_u64 & !((1 << (split + 6)) - 1);
        let bed = bed
            .set(table + 0x28 * 64, 0x3_000b)
            .set(table + 0x28 * 64 + 8, 0);
        assert_eq!(bed.passes(&dma(stream)).pa, Gpa(0x8_0abc), "{split}");
        let (_, _, trail) = bed.run(&dma(stream));
        let steps = trail.steps();
        assert_eq!((steps[0].table, steps[0].index), (Table::StreamLevel1, 3));
        assert_eq!((steps[1].table, steps[1].index), (Table::Stream, 0x28));
        // FMT does not count on a unit with linear tables only.
        let linear = bed.features(|f| f.idr0 &= !(3 << 27));
        assert_eq!(linear.failure(&dma(stream)).cause, Cause::StreamInvalid);
    }
    // A linear table is aligned to its size as it is written.
    let bed = Bed::first().stream_table(0x4fc0, 8);
    assert_eq!(bed.passes(&read()).pa, Gpa(0x8_0abc));
}

#[test]
fn context_descriptors_are_found_in_every_kind_of_table() {
    let other = 0x9_0443;
    // Linear, 2^7 of them, aligned to 8 KiB; S1Fmt 11b is linear, too.
    for format in [0_u64, 3] {
        let bed = Bed::first()
            .set(STE, 0x3_004b | format << 4 | 7 << 59)
            .set(STE1, 0)
            .descriptor(CD + 69 * 64);
        assert_eq!(bed.passes(&substream(69, read())).pa, Gpa(0x8_0abc));
    }
    // Two levels; leaves of 4 KiB have 64 descriptors, those of 64 KiB 1024.
    for (format, split, number) in [(1_u64, 6_u32, 69_u32), (2, 10, 1024 + 69), (2, 10, 69)] {
        let index = number >> split;
        let leaf = 0x50_0000;
        let at = leaf + u64::from(number & ((1 << split) - 1)) * 64;
        let bed = Bed::first()
            .set(STE, 0x40_000b | format << 4 | 16 << 59)
            .set(STE1, 0)
            // Leaves of 64 KiB are aligned to that, whatever the pointer says.
            .set(
                0x40_0000 + 8 * u64::from(index),
                leaf | if format == 2 { 0x7001 } else { 1 },
            )
            .descriptor(at);
        let dma = substream(number, read());
        assert_eq!(bed.passes(&dma).pa, Gpa(0x8_0abc), "{format} {number}");
        let (_, _, trail) = bed.run(&dma);
        let steps = trail.steps();
        assert_eq!(
            (steps[1].table, steps[1].index),
            (Table::ContextLevel1, index)
        );
        assert_eq!(
            (steps[2].table, steps[2].index, steps[2].addr),
            (Table::ContextDescriptor, number, Gpa(at))
        );
    }
    // Each substream has its own.
    let bed = Bed::substreams()
        .set(CD + 7 * 64, CD_WORD0)
        .set(CD + 7 * 64 + 8, 0x40_0000);
    let bed = chain(bed, 0x40_0000, 12, (4, 1), ADDR, other);
    assert_eq!(bed.passes(&substream(7, read())).pa, Gpa(0x9_0abc));
    assert_eq!(bed.passes(&substream(5, read())).pa, Gpa(0x8_0abc));
}

#[test]
fn stream_and_substream_can_be_cached_apart() {
    let bed = Bed::nested();
    let (unit, mem) = (&bed.unit, &bed.mem);
    let stream = read_stream(unit, mem, Rid(0x28), &mut ()).expect("the entry is good");
    assert_eq!(stream.substream(unit, None), Ok(Substream::Number(0)));
    let mut updates = Updates::new();
    let context = read_context(unit, &stream, mem, &read(), 0, &mut updates, &mut ())
        .expect("the descriptor is good");
    let space = Space {
        stream,
        context: Some(context),
    };
    let whole = read_space(unit, mem, &read(), &mut updates, &mut ());
    assert_eq!(whole, Ok(space));
    assert_eq!((context.asid(), stream.vmid()), (7, 9));
    let switches = Switches::RECORD | Switches::ABORT;
    assert_eq!(context.switches(), switches);
    let table = |root| PageTable {
        root: Gpa(root),
        levels: 4,
    };
    assert_eq!(space.first(), [Some(table(0x2_0000)), None]);
    assert_eq!(space.second(), Some(table(0x1_0000)));
    // Memory may change: what is cached stays.
    let changed = bed.clone().set(STE, 0).set(CD, 0);
    let mut trail = Trail::new();
    let outcome = walk(
        &changed.unit,
        &space,
        &changed.mem,
        &read(),
        &mut updates,
        &mut trail,
    );
    assert!(outcome.is_ok());
    let tables = [Table::FirstStage, Table::SecondStage];
    assert!(
        trail
            .steps()
            .iter()
            .all(|step| tables.contains(&step.table))
    );
}

#[test]
fn the_trail_has_every_entry_in_the_order_of_the_walk() {
    let (_, _, trail) = Bed::first().run(&read());
    let steps: Vec<_> = trail
        .steps()
        .iter()
        .map(|step| (step.table, step.level, step.addr.0, step.verdict))
        .collect();
    let wanted = [
        (Table::Stream, 0, STE, Verdict::Next),
        (Table::ContextDescriptor, 0, CD, Verdict::Next),
        (Table::FirstStage, 4, 0x2_0008, Verdict::Next),
        (Table::FirstStage, 3, 0x2_1008, Verdict::Next),
        (Table::FirstStage, 2, 0x2_2008, Verdict::Next),
        (Table::FirstStage, 1, LEAF, Verdict::Leaf),
    ];
    assert_eq!(steps, wanted);
    // Entries are as they were read, whatever polarity their bits have.
    assert_eq!(trail.steps()[5].raw.words(), [PAGE]);
    let failure = Bed::first().add(LEAF, 0x80).failure(&write());
    assert_eq!((failure.entry, failure.bits), (Some(PAGE | 0x80), 0x80));
    // The stream table entry, four steps to the context descriptor and itself; four times four and one;
    // four for the page.
    let (_, _, trail) = Bed::nested().run(&read());
    assert_eq!(trail.steps().len(), 1 + 5 + 4 * 5 + 4);
    let step = trail.steps()[5];
    assert_eq!(
        (step.table, step.guest_addr),
        (Table::ContextDescriptor, Some(Gpa(CD)))
    );
}
