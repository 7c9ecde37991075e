//! What hardware caches is used, however old, until the guest invalidates it; each invalidation is
//! left out in turn, and then made.

use crate::rig::{
    AT, AtEnd, CR3_TABLE, DEVICE, DTE, INVALIDATE_ALL, OTHER_PAGE, OTHER_TABLES, PAGE, RW, Rig,
    TABLES, guest, host, invalidate_device,
};
use iopf::{Access, Rid};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use viommu::amdvi::Config;

const LEAF: u64 = TABLES + 0x3008;

/// INVALIDATE_IOMMU_PAGES of host translations: the address word has S and PDE.
fn pages(domain: u64, address: u64) -> [u64; 2] {
    [3 << 60 | domain << 32, address]
}
/// The same of a PASID.
fn guest_pages(domain: u64, pasid: u64, address: u64) -> [u64; 2] {
    [3 << 60 | domain << 32 | pasid, address | 4]
}
/// `CMD_INV_IOMMU_ALL_PAGES_ADDRESS` with S and PDE.
const EVERYTHING: u64 = 0x7fff_ffff_ffff_f003;

/// A warm rig, then the guest changes its page table; what `commands` leave behind.
fn after_remap(commands: &[[u64; 2]]) -> Option<u64> {
    let rig = host(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(LEAF, RW | OTHER_PAGE | 1);
    rig.submit(commands);
    rig.read_at(None, AT)
}

#[test]
fn a_changed_page_is_stale_until_an_invalidation_covers_it() {
    for stale in [
        &[][..],
        &[invalidate_device(DEVICE)],
        &[pages(6, EVERYTHING)],
        &[pages(6, AT)],
        &[pages(5, AT + 0x1000)],
        // Two pages from 0x2000, eight from 0x8000.
        &[pages(5, 0x2001)],
        &[pages(5, 0xb001)],
        &[guest_pages(5, 0, EVERYTHING)],
    ] {
        assert_eq!(after_remap(stale), Some(PAGE), "{stale:x?}");
    }
    for fresh in [
        &[INVALIDATE_ALL][..],
        &[pages(5, EVERYTHING)],
        &[pages(5, AT)],
        // PDE asks for no less.
        &[pages(5, AT | 2)],
        // Two pages from 0, eight from 0, 2^52 bytes.
        &[pages(5, 0x0001)],
        &[pages(5, 0x3001)],
        &[pages(5, 0x0007_ffff_ffff_f001)],
        &[pages(5, 0xffff_ffff_ffff_f001)],
    ] {
        assert_eq!(after_remap(fresh), Some(OTHER_PAGE), "{fresh:x?}");
    }
}

#[test]
fn a_changed_guest_page_is_stale_until_an_invalidation_covers_it() {
    let after = |commands: &[[u64; 2]]| {
        let rig = guest(Config::default());
        assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
        rig.put(LEAF, OTHER_PAGE | 0x67);
        rig.submit(commands);
        rig.read_at(Some(3), AT)
    };
    for stale in [
        &[][..],
        &[invalidate_device(DEVICE)],
        &[guest_pages(1, 4, AT)],
        &[guest_pages(1, 4, EVERYTHING)],
        &[guest_pages(2, 3, AT)],
        &[guest_pages(1, 3, AT + 0x1000)],
        &[guest_pages(1, 3, 0x2001)],
    ] {
        assert_eq!(after(stale), Some(PAGE), "{stale:x?}");
    }
    for fresh in [
        &[INVALIDATE_ALL][..],
        &[guest_pages(1, 3, AT)],
        &[guest_pages(1, 3, 0x0001)],
        &[guest_pages(1, 3, EVERYTHING)],
        // The host's whole domain takes the guest's translations with it.
        &[pages(1, EVERYTHING)],
    ] {
        assert_eq!(after(fresh), Some(OTHER_PAGE), "{fresh:x?}");
    }
}

/// A warm rig whose device table entry then names other tables in another domain.
fn after_reattach(commands: &[[u64; 2]]) -> Option<u64> {
    let rig = host(Config::default());
    rig.host_tables(OTHER_TABLES, OTHER_PAGE, RW);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.host_entry(OTHER_TABLES, 6);
    rig.submit(commands);
    rig.read_at(None, AT)
}

#[test]
fn a_changed_device_table_entry_is_stale_until_it_is_invalidated() {
    for stale in [
        &[][..],
        &[pages(5, EVERYTHING), pages(6, EVERYTHING)],
        &[invalidate_device(Rid(DEVICE.0 + 8))],
        // INVALIDATE_INTERRUPT_TABLE
        &[[5 << 60 | 0x20, 0]],
    ] {
        let at = after_reattach(stale);
        // Its domain's translations may be gone, its tables are the old ones.
        assert_eq!(at, Some(PAGE), "{stale:x?}");
    }
    for fresh in [&[invalidate_device(DEVICE)][..], &[INVALIDATE_ALL]] {
        assert_eq!(after_reattach(fresh), Some(OTHER_PAGE), "{fresh:x?}");
    }
}

#[test]
fn a_device_that_was_let_go_still_reaches_its_pages_until_it_is_invalidated() {
    let rig = host(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    // init_device_table_dma: V and TV alone.
    rig.put(DTE, 3);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.submit(&[invalidate_device(DEVICE)]);
    assert_eq!(rig.read_at(None, AT), None);
}

#[test]
fn a_domain_that_is_reused_without_an_invalidation_meets_its_past() {
    let rig = host(Config::default());
    rig.host_tables(OTHER_TABLES, OTHER_PAGE, RW);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.host_entry(OTHER_TABLES, 5);
    rig.submit(&[invalidate_device(DEVICE)]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.submit(&[pages(5, EVERYTHING)]);
    assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE));
}

#[test]
fn devices_of_a_domain_share_translations_and_not_rights() {
    let rig = host(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    // 00:05.0 in the same domain, without IW.
    rig.put(0x1000 + 0x28 * 32, (RW & !(1 << 62)) | TABLES | 4 << 9 | 3);
    rig.put(0x1000 + 0x28 * 32 + 8, 5);
    rig.put(LEAF, RW | OTHER_PAGE | 1);
    let mut dma = rig.dma(None, AT, Access::READ);
    dma.requester = Rid(0x28);
    assert_eq!(
        rig.access(&dma, 1).unwrap(),
        [(PAGE, 1)],
        "what the other cached"
    );
    dma.access = Access::WRITE;
    assert!(rig.access(&dma, 1).is_err());
    assert!(rig.access(&rig.dma(None, AT, Access::WRITE), 1).is_ok());
}

#[test]
fn a_pasid_without_guest_tables_meets_a_fault_whatever_is_cached_for_its_domain() {
    let rig = host(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    for _ in ["walked", "from what the thread remembers"] {
        assert_eq!(rig.read_at(Some(3), AT), None);
    }
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

/// 00:05.0 with a device table entry of its own reads at [`AT`].
fn neighbour(rig: &Rig, entry: [u64; 2], pasid: Option<u32>) -> Option<u64> {
    rig.put(0x1000 + 0x28 * 32, entry[0]);
    rig.put(0x1000 + 0x28 * 32 + 8, entry[1]);
    rig.submit(&[invalidate_device(Rid(0x28))]);
    let mut dma = rig.dma(pasid, AT, Access::READ);
    dma.requester = Rid(0x28);
    let pieces = rig.access(&dma, 1).ok()?;
    pieces.first().map(|(at, _)| *at)
}

#[test]
fn an_entry_that_translates_nothing_meets_a_fault_whatever_is_cached_for_its_domain() {
    let rig = host(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    // V, IR and IW, domain 5, with TV and without.
    let tables = RW | TABLES | 4 << 9;
    assert_eq!(neighbour(&rig, [tables | 3, 5], None), Some(PAGE));
    assert_eq!(neighbour(&rig, [tables | 1, 5], None), None);
    assert_eq!(rig.unit.counters().recorded, 1);
}

#[test]
fn a_pasid_beyond_the_guest_cr3_table_meets_a_fault_whatever_is_cached_for_its_domain() {
    let rig = guest(Config::default());
    // A table of two levels at 0x5000, whose entry 1 is the page that has PASIDs 0x200–0x3ff.
    rig.put(0x5008, 0x6001);
    rig.put(0x6000 + 3 * 8, TABLES | 1);
    let entry = RW | 5 << 58 | 1 << 55 | 3;
    let wide = [entry | 1 << 56, 1];
    assert_eq!(neighbour(&rig, wide, Some(0x203)), Some(PAGE));
    // The device's own table has one level.
    assert_eq!(rig.read_at(Some(0x203), AT), None);
}

#[test]
fn a_device_without_an_entry_shares_nothing_with_domain_0() {
    let rig = host(Config::default());
    rig.host_entry(TABLES, 0);
    rig.submit(&[invalidate_device(DEVICE)]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    let mut dma = rig.dma(None, AT, Access::READ);
    dma.requester = Rid(0x28);
    assert_eq!(rig.access(&dma, 1).unwrap(), [(AT, 1)]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

#[test]
fn an_address_that_is_left_alone_is_the_same_the_second_time() {
    let rig = host(Config::default());
    // An entry that says nothing, and one without host tables: V, TV, domain 5.
    for entry in [[0, 0], [RW | 3, 5]] {
        rig.put(DTE, entry[0]);
        rig.put(DTE + 8, entry[1]);
        rig.submit(&[INVALIDATE_ALL]);
        for addr in [AT, 0x000f_ffff_ffff_f000, 0x0010_0000_0000_1000, !0xfff] {
            for _ in ["walked", "cached, where it can be"] {
                assert_eq!(rig.read_at(None, addr), Some(addr), "{addr:#x}");
            }
        }
    }
}

#[test]
fn a_changed_guest_cr3_is_seen_by_the_next_walk() {
    let rig = guest(Config::default());
    rig.guest_tables(OTHER_TABLES, OTHER_PAGE);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    rig.put(CR3_TABLE + 3 * 8, OTHER_TABLES | 1);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE), "the page is cached");
    rig.submit(&[guest_pages(1, 3, EVERYTHING)]);
    assert_eq!(rig.read_at(Some(3), AT), Some(OTHER_PAGE));
}

#[test]
fn a_page_of_any_size_is_cached_as_a_whole() {
    let rig = host(Config::default());
    // Next Level 7: 64 KiB at 0x10000, whose lowest clear address bit is 15.
    let sized = |page: u64| rig.put(TABLES + 0x3000 + 0x10 * 8, RW | page | 0x7000 | 7 << 9 | 1);
    for part in 0..16 {
        rig.put(TABLES + 0x3000 + (0x10 + part) * 8, RW | PAGE | 0x7e01);
    }
    assert_eq!(rig.read_at(None, 0x1_0123), Some(PAGE + 0x123));
    assert_eq!(rig.read_at(None, 0x1_f123), Some(PAGE + 0xf123));
    sized(OTHER_PAGE);
    assert_eq!(
        rig.read_at(None, 0x1_0123),
        Some(PAGE + 0x123),
        "it is cached"
    );
    // Any part of it will do.
    rig.submit(&[pages(5, 0x1_f000)]);
    assert_eq!(rig.read_at(None, 0x1_0123), Some(OTHER_PAGE + 0x123));
}

#[test]
fn a_fault_is_never_cached() {
    let rig = host(Config::default());
    assert_eq!(rig.read_at(None, 0x5000), None);
    rig.put(TABLES + 0x3000 + 5 * 8, RW | OTHER_PAGE | 1);
    assert_eq!(rig.read_at(None, 0x5000), Some(OTHER_PAGE));
}

#[test]
fn nothing_is_stale_without_caches() {
    let rig = host(Config {
        iotlb_entries: 0,
        ..Config::default()
    });
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(LEAF, RW | OTHER_PAGE | 1);
    assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE));
    rig.put(DTE, 3);
    assert_eq!(rig.read_at(None, AT), None);
}

#[test]
fn a_prefetch_that_invalidates_does_so() {
    // PREFETCH_IOMMU_PAGES with Inval; without it nothing happens.
    let prefetch = |inval: u64| [6 << 60 | 1 << 24 | 0x20, AT | inval << 4];
    assert_eq!(after_remap(&[prefetch(0)]), Some(PAGE));
    assert_eq!(after_remap(&[prefetch(1)]), Some(OTHER_PAGE));
}

/// A race: a device reads through one page while software maps another and waits.
#[test]
fn no_access_that_begins_after_the_wait_uses_what_it_invalidated() {
    let rig = host(Config::default());
    // Even turns map PAGE, odd ones OTHER_PAGE; `done` is the last turn whose wait came true.
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let device = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let before = done.load(Ordering::Acquire);
                let at = rig.read_at(None, AT).expect("it is mapped");
                let after = done.load(Ordering::Acquire);
                // Only where software finished no turn meanwhile, and began none, is it sure.
                if before == after && before % 2 == 1 {
                    let expected = if before % 4 == 1 { PAGE } else { OTHER_PAGE };
                    assert_eq!(at, expected, "turn {before}");
                }
            }
        });
        let end = AtEnd(|| stop.store(true, Ordering::Release));
        for turn in 0..2_000u64 {
            let page = if turn % 2 == 0 { PAGE } else { OTHER_PAGE };
            // Even: a change is under way. Odd: it is done.
            done.store(turn * 2, Ordering::Release);
            rig.put(LEAF, RW | page | 1);
            rig.submit(&[pages(5, AT)]);
            done.store(turn * 2 + 1, Ordering::Release);
        }
        drop(end);
        device.join().expect("no access was stale");
    });
    assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE));
}
