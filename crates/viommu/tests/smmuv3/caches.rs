//! What is cached stays until it is invalidated, and each invalidation takes what it names.

use crate::bed::AtEnd;
use crate::rig::{
    A, AT, CFGI_ALL, CFGI_CD_ALL, CFGI_STE, CONTEXTS, OTHER_CONTEXTS, OTHER_PAGE, OTHER_TABLES,
    PAGE, R, RW, RW2, Rig, STAGE2, STE, SYNC, TABLES, TLBI_NSNH_ALL, cfgi_cd, first, nested,
    second, tlbi_asid, tlbi_va,
};
use iopf::{Access, Dma, Rid};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use viommu::smmuv3::Config;
use viommu_api::Translate;

/// Where stage 1's lowest entry for [`AT`] lies.
const LEAF: u64 = TABLES + 0x3008;
/// Where stage 2's does.
const LEAF2: u64 = STAGE2 + 0x3008;

/// Has [`AT`] cached, then moved to [`OTHER_PAGE`]; the commands; where it is found then.
fn after(rig: &Rig, leaf: u64, bits: u64, commands: &[[u64; 2]]) -> u64 {
    rig.put(leaf, PAGE | bits);
    rig.submit(&[TLBI_NSNH_ALL]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(leaf, OTHER_PAGE | bits);
    rig.submit(commands);
    rig.read_at(None, AT).expect("it is mapped")
}

#[test]
fn a_page_is_remembered_until_its_translation_is_invalidated() {
    let rig = first(Config::default());
    let kept: &[&[[u64; 2]]] = &[
        &[],
        &[SYNC],
        // Configuration is not translation.
        &[CFGI_STE, CFGI_ALL, CFGI_CD_ALL, cfgi_cd(0)],
        // Another page, another address space, another virtual machine.
        &[tlbi_va(5, 0x2000), tlbi_va(6, AT)],
        &[tlbi_asid(6), [0x11 | 1 << 32 | 5 << 48, 0]],
        &[[0x10 | 1 << 32, 0], [0x13, 0x2001]],
        &[[0x13 | 1 << 32, AT], [0x28 | 1 << 32, 0]],
        // Stage 2 does not translate it.
        &[[0x2a, AT]],
        // Hints.
        &[[0x01 | 0x20 << 32, 0], [0x02 | 0x20 << 32, AT]],
    ];
    for commands in kept {
        assert_eq!(after(&rig, LEAF, RW, commands), PAGE, "{commands:x?}");
    }
    let gone = [
        tlbi_va(5, AT),
        tlbi_asid(5),
        [0x10, 0],
        [0x13, AT],
        [0x28, 0],
        TLBI_NSNH_ALL,
        // The top byte of an address is no part of it.
        tlbi_va(5, 0xab << 56 | AT),
        // Ranges of TG 1: two pages from 0 on; SCALE 1 and NUM 1, four of them; one of level 3.
        [0x12 | 5 << 48 | 1 << 12, 1 << 10],
        [0x12 | 5 << 48 | 1 << 20 | 1 << 12, 1 << 10],
        [0x12 | 5 << 48, AT | 1 << 10 | 3 << 8 | 1],
        [0x13 | 1 << 12, 1 << 10],
    ];
    for command in gone {
        assert_eq!(
            after(&rig, LEAF, RW, &[command]),
            OTHER_PAGE,
            "{command:x?}"
        );
    }
    // A range that ends before it, and one that begins behind it.
    for range in [
        [0x12 | 5 << 48, 1 << 10 | 3 << 8],
        [0x12 | 5 << 48 | 1 << 20, 0x2000 | 1 << 10],
    ] {
        assert_eq!(after(&rig, LEAF, RW, &[range]), PAGE, "{range:x?}");
    }
}

#[test]
fn a_global_page_is_every_address_spaces() {
    let rig = first(Config::default());
    // Without nG.
    let global = RW & !(1 << 11);
    let kept: &[&[[u64; 2]]] = &[
        // By ASID, global pages stay.
        &[tlbi_asid(5)],
        &[tlbi_va(5, 0x2000)],
        &[[0x10 | 1 << 32, 0]],
    ];
    for commands in kept {
        assert_eq!(after(&rig, LEAF, global, commands), PAGE, "{commands:x?}");
    }
    for command in [
        tlbi_va(5, AT),
        // By address, they go with any.
        tlbi_va(9, AT),
        [0x13, AT],
        [0x10, 0],
        [0x28, 0],
    ] {
        assert_eq!(
            after(&rig, LEAF, global, &[command]),
            OTHER_PAGE,
            "{command:x?}"
        );
    }
    // It serves the other address space, whose own tables have it elsewhere by now.
    rig.put(LEAF, PAGE | global);
    rig.submit(&[TLBI_NSNH_ALL]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(LEAF, OTHER_PAGE | global);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    // One that is shared with processors, which has ASET clear, has global pages of its own.
    rig.put(CONTEXTS + 3 * 64, rig.get(CONTEXTS + 3 * 64) & !(1 << 47));
    rig.submit(&[cfgi_cd(3)]);
    assert_eq!(rig.read_at(Some(3), AT), Some(OTHER_PAGE));
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

#[test]
fn address_spaces_of_one_number_share_what_is_cached() {
    let rig = first(Config::default());
    rig.context(CONTEXTS + 3 * 64, OTHER_TABLES, 5, R | A);
    rig.tables(OTHER_TABLES, OTHER_PAGE | RW);
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    rig.submit(&[tlbi_asid(5)]);
    assert_eq!(rig.read_at(Some(3), AT), Some(OTHER_PAGE));
    assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE));
}

#[test]
fn a_page_of_stage_2_goes_with_its_virtual_machine_or_its_address() {
    let rig = second(Config::default());
    let kept: &[&[[u64; 2]]] = &[
        &[],
        &[CFGI_ALL],
        &[[0x2a | 7 << 32, 0x2000], [0x2a | 6 << 32, AT]],
        &[[0x28 | 6 << 32, 0]],
        // Those of stage 1.
        &[[0x10 | 7 << 32, 0], [0x13 | 7 << 32, AT]],
        &[[0x12 | 7 << 32, AT], [0x11 | 7 << 32, 0]],
    ];
    for commands in kept {
        assert_eq!(after(&rig, LEAF2, RW2, commands), PAGE, "{commands:x?}");
    }
    for command in [
        [0x2a | 7 << 32, AT],
        [0x2a | 7 << 32, AT | 1],
        // TG 1, NUM 1.
        [0x2a | 7 << 32 | 1 << 12, 1 << 10],
        [0x28 | 7 << 32, 0],
        TLBI_NSNH_ALL,
    ] {
        assert_eq!(
            after(&rig, LEAF2, RW2, &[command]),
            OTHER_PAGE,
            "{command:x?}"
        );
    }
}

#[test]
fn a_page_of_both_stages_is_one_of_stage_1() {
    let rig = nested(Config::default());
    // The intermediate address of the page is that of the second table's first entry.
    let leaf = STAGE2 + 0x4000;
    let kept: &[&[[u64; 2]]] = &[
        &[],
        // What stage 2 alone would have cached is gone; what both made is not.
        &[[0x2a | 7 << 32, OTHER_PAGE], [0x2a | 7 << 32, AT]],
        &[[0x12 | 5 << 48, AT], [0x10, 0]],
    ];
    for commands in kept {
        assert_eq!(after(&rig, leaf, RW2, commands), PAGE, "{commands:x?}");
    }
    for command in [
        [0x12 | 7 << 32 | 5 << 48, AT],
        [0x11 | 7 << 32 | 5 << 48, 0],
        [0x13 | 7 << 32, AT],
        [0x10 | 7 << 32, 0],
        [0x28 | 7 << 32, 0],
        TLBI_NSNH_ALL,
    ] {
        assert_eq!(
            after(&rig, leaf, RW2, &[command]),
            OTHER_PAGE,
            "{command:x?}"
        );
    }
}

/// Linux without ranges (`arm_smmu_cmdq_batch_add_range`) names each block of stage 1 once, however small stage 2's
/// pages are.
#[test]
fn an_invalidation_of_an_address_in_a_block_takes_all_that_stage_2_made_of_it() {
    let rig = nested(Config::default());
    let block = TABLES + 0x2008;
    let of_block = [0x20_0000, 0x20_1000, 0x20_f000];
    for command in [
        [0x12 | 7 << 32 | 5 << 48, 0x20_0000],
        [0x12 | 7 << 32 | 5 << 48, 0x20_1000 | 1],
        [0x13 | 7 << 32, 0x20_3000],
        // TG 1, TTL 2: one entry of that level.
        [0x12 | 7 << 32 | 5 << 48, 0x20_0000 | 1 << 10 | 2 << 8 | 1],
    ] {
        // 2 MiB at the intermediate address 0, of which stage 2 maps the first half, page by page.
        rig.put(block, RW & !2);
        for at in of_block {
            assert_eq!(rig.read_at(None, at), Some(at - 0x20_0000));
        }
        rig.put(block, 0);
        rig.submit(&[command]);
        for at in of_block {
            assert_eq!(rig.read_at(None, at), None, "{at:#x} after {command:x?}");
        }
    }
}

/// Changes the configuration so that [`AT`] is somewhere else, which nobody notices; the commands; where
/// it is found then.
fn reconfigured(change: fn(&Rig), pasid: Option<u32>, commands: &[[u64; 2]]) -> u64 {
    let rig = first(Config::default());
    rig.tables(OTHER_TABLES, OTHER_PAGE | RW);
    rig.context(OTHER_CONTEXTS, OTHER_TABLES, 8, R | A);
    rig.context(OTHER_CONTEXTS + 3 * 64, OTHER_TABLES, 9, R | A);
    assert_eq!(rig.read_at(pasid, AT), Some(PAGE));
    change(&rig);
    rig.submit(commands);
    rig.read_at(pasid, AT).expect("it is mapped")
}

#[test]
fn a_stream_table_entry_is_remembered_until_it_is_invalidated() {
    let change = |rig: &Rig| rig.put(STE, rig.get(STE) ^ CONTEXTS ^ OTHER_CONTEXTS);
    for pasid in [None, Some(3)] {
        let kept: &[&[[u64; 2]]] = &[
            &[],
            &[TLBI_NSNH_ALL],
            &[[0x03 | 0x21 << 32, 1], [0x03, 1]],
            &[[0x04 | 0x21 << 32 | 0x100 << 32, 5]],
            &[[0x04 | 0x22 << 32, 0]],
            // Context descriptors are read anew, from where the entry has them.
            &[CFGI_CD_ALL, cfgi_cd(0), cfgi_cd(3)],
        ];
        for commands in kept {
            assert_eq!(reconfigured(change, pasid, commands), PAGE, "{commands:x?}");
        }
        for command in [
            CFGI_STE,
            [0x03 | 0x20 << 32, 0],
            CFGI_ALL,
            [0x04 | 0xffff << 32, 31],
            // Two and 64 of them.
            [0x04 | 0x21 << 32, 0],
            [0x04 | 0x3f << 32, 5],
        ] {
            assert_eq!(
                reconfigured(change, pasid, &[command]),
                OTHER_PAGE,
                "{command:x?}"
            );
        }
    }
}

#[test]
fn a_context_descriptor_is_remembered_until_it_is_invalidated() {
    let change = |rig: &Rig| rig.context(CONTEXTS + 3 * 64, OTHER_TABLES, 9, R | A);
    let kept: &[&[[u64; 2]]] = &[
        &[],
        &[TLBI_NSNH_ALL],
        &[cfgi_cd(0), cfgi_cd(2), [0x05 | 3 << 12 | 0x21 << 32, 1]],
        &[[0x06 | 0x21 << 32, 0]],
    ];
    for commands in kept {
        assert_eq!(
            reconfigured(change, Some(3), commands),
            PAGE,
            "{commands:x?}"
        );
    }
    for command in [cfgi_cd(3), CFGI_CD_ALL, CFGI_STE, CFGI_ALL] {
        assert_eq!(
            reconfigured(change, Some(3), &[command]),
            OTHER_PAGE,
            "{command:x?}"
        );
    }
    // Requests without a substream have the first.
    let change = |rig: &Rig| rig.context(CONTEXTS, OTHER_TABLES, 9, R | A);
    assert_eq!(reconfigured(change, None, &[cfgi_cd(3)]), PAGE);
    assert_eq!(reconfigured(change, None, &[cfgi_cd(0)]), OTHER_PAGE);
}

#[test]
fn what_failed_is_not_remembered() {
    let rig = first(Config::default());
    rig.put(LEAF, 0);
    assert_eq!(rig.read_at(None, AT), None);
    rig.put(LEAF, PAGE | RW);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    let entry = rig.get(STE);
    rig.put(STE, 0);
    rig.submit(&[CFGI_STE]);
    assert_eq!(rig.read_at(None, AT), None);
    rig.put(STE, entry);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

#[test]
fn the_top_byte_is_a_tag_where_the_context_says_so() {
    let rig = first(Config::default());
    let tagged = 0xab << 56 | AT;
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    assert_eq!(
        rig.read_at(None, tagged),
        None,
        "it is an address of its own"
    );
    // TBI0
    rig.put(CONTEXTS, rig.get(CONTEXTS) | 1 << 38);
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(None, tagged), Some(PAGE));
    rig.put(LEAF, OTHER_PAGE | RW);
    assert_eq!(
        rig.read_at(None, 0xcd << 56 | AT),
        Some(PAGE),
        "it is cached"
    );
    rig.submit(&[tlbi_va(5, AT)]);
    assert_eq!(rig.read_at(None, tagged), Some(OTHER_PAGE));
    // It says nothing about upper addresses.
    assert_eq!(rig.read_at(None, 0xab80_0000_0000_1000), None);
}

#[test]
fn privilege_and_instructions_are_as_the_stream_has_them() {
    let rig = first(Config::default());
    let can = |access: Access| {
        let dma = rig.dma(Some(3), AT, access);
        // Once walked, once cached.
        let first = rig.access(&dma, 1).is_ok();
        assert_eq!(rig.access(&dma, 1).is_ok(), first);
        first
    };
    let set = |config: u64, page: u64| {
        rig.put(STE + 8, 1 << 44 | 1 << 28 | 2 | config);
        rig.put(LEAF, PAGE | page);
        rig.submit(&[CFGI_ALL, TLBI_NSNH_ALL]);
    };
    let (read, exec, privileged) = (Access::READ, Access::EXEC, Access::PRIV);
    // For privileged requests alone, UXN and PXN clear.
    let own = RW & !(1 << 6);
    set(0, own);
    assert!(!can(read) && can(read | privileged) && can(exec | privileged));
    // PRIVCFG 2 and 3.
    set(2 << 48, own);
    assert!(!can(read) && !can(read | privileged));
    set(3 << 48, own);
    assert!(can(read) && can(read | privileged) && can(exec));
    // UXN; INSTCFG 2 and 3.
    let data = RW | 1 << 54;
    set(0, data);
    assert!(can(read) && !can(exec));
    set(2 << 50, data);
    assert!(can(read) && can(exec));
    set(3 << 50, data);
    assert!(!can(read) && !can(exec) && can(Access::WRITE));
}

#[test]
fn a_unit_without_caches_looks_every_time() {
    let rig = first(Config {
        iotlb_entries: 0,
        ..Config::default()
    });
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(LEAF, OTHER_PAGE | RW);
    assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE));
    rig.put(STE, 0);
    assert_eq!(rig.read_at(None, AT), None);
}

#[test]
fn more_streams_and_substreams_than_the_caches_hold_are_served() {
    let rig = first(Config::default());
    // The table of context descriptors has 2^13 entries, all of them the same, in the last half of memory.
    let contexts = 0x30_0000;
    for context in 0..0x2000 {
        rig.context(contexts + context * 64, TABLES, 5, R | A);
    }
    rig.put(STE, 13 << 59 | contexts | 5 << 1 | 1);
    rig.submit(&[CFGI_ALL]);
    for round in 0..2 {
        for substream in 1..0x2000 {
            let found = rig.read_at(Some(substream), AT);
            assert_eq!(found, Some(PAGE), "{substream:#x}, {round}");
        }
    }
}

#[test]
fn stream_ids_of_32_bits_are_streams_of_their_own() {
    let config = Config {
        stream_bits: 32,
        ..Config::default()
    };
    let rig = Rig::new(config);
    rig.tables(TABLES, PAGE | RW);
    rig.tables(OTHER_TABLES, OTHER_PAGE | RW);
    rig.context(CONTEXTS, TABLES, 5, R | A);
    rig.context(OTHER_CONTEXTS, OTHER_TABLES, 6, R | A);
    rig.start();
    rig.w32(crate::rig::CR0, 0);
    // Two levels, SPLIT 10: 2^22 descriptors, of which memory has the first; 16 of them are used.
    rig.w64(crate::rig::STRTAB_BASE, 0x6_0000);
    rig.w32(crate::rig::STRTAB_BASE_CFG, 1 << 16 | 10 << 6 | 14);
    rig.put(0x6_0000, STE & !0xfff | 7);
    rig.put(0x6_0000 + 15 * 8, 0x7_0000 | 6);
    rig.first_entry(CONTEXTS);
    rig.put(0x7_0000 + 0x10 * 64 + 8, 1 << 44);
    rig.put(0x7_0000 + 0x10 * 64, OTHER_CONTEXTS | 5 << 1 | 1);
    rig.w32(crate::rig::CR0, crate::rig::ALL_ON);
    rig.submit(&[CFGI_ALL]);
    let at = |stream: u32| {
        let dma = Dma {
            requester: Rid(stream),
            ..rig.dma(None, AT, Access::READ)
        };
        rig.access(&dma, 1).ok()
    };
    for _ in 0..2 {
        assert_eq!(at(0x20), Some(vec![(PAGE, 1)]));
        assert_eq!(at(0x3c10), Some(vec![(OTHER_PAGE, 1)]));
        // In no table: beyond it, a descriptor without one, beyond the second level.
        assert_eq!(at(0x1_0020), None);
        assert_eq!(at(0x0420), None);
        assert_eq!(at(0x0060), None);
        assert_eq!(at(0xffff_ffff), None);
    }
}

#[test]
fn after_a_sync_nobody_uses_what_was_invalidated() {
    let rig = first(Config::default());
    let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (rig, stop, turns) = (&rig, &stop, &turns);
            scope.spawn(move || {
                let dma = rig.dma(None, AT, Access::READ);
                while !stop.load(Ordering::Acquire) {
                    let _ = rig.unit.with_translation(&dma, 8, &mut |at, _| {
                        // What a page that is in use has been given away holds.
                        assert_eq!(rig.get(at.0), 0, "a page that was taken away");
                    });
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _end = AtEnd(|| stop.store(true, Ordering::Release));
        let start = Instant::now();
        while turns.load(Ordering::Relaxed) == 0 {
            assert!(start.elapsed().as_secs() < 300, "no thread came to it");
            std::thread::yield_now();
        }
        for _ in 0..200 {
            for (page, other) in [(PAGE, OTHER_PAGE), (OTHER_PAGE, PAGE)] {
                rig.put(other, 0);
                rig.put(LEAF, other | RW);
                rig.submit(&[tlbi_va(5, AT)]);
                rig.put(page, 1);
            }
        }
    });
}
