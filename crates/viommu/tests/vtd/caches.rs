//! What hardware caches is used, however old, until the guest invalidates it; each invalidation is
//! left out in turn, and then made.

use crate::rig::{
    AT, CONTEXT, DEVICE, DIRECTORY, OTHER_PAGE, OTHER_TABLES, PAGE, ROOT, Rig, TABLES, legacy,
    scalable,
};
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Rid};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use viommu::vtd::Config;
use viommu_api::{PageRequestOutcome, Pri};

const LEAF: u64 = TABLES + 0x3008;
const OTHER_DIRECTORY: u64 = 0x8000;

/// IOTLB invalidation of a domain's pages.
fn iotlb_pages(domain: u64, addr: u64, mask: u64) -> [u64; 2] {
    [domain << 16 | 3 << 4 | 2, addr | mask]
}
fn iotlb_domain(domain: u64) -> [u64; 2] {
    [domain << 16 | 2 << 4 | 2, 0]
}
const IOTLB: [u64; 2] = [1 << 4 | 2, 0];
const CONTEXTS: [u64; 2] = [1 << 4 | 1, 0];
const PASID_CACHE: [u64; 2] = [3 << 4 | 7, 0];

fn context_device(domain: u64, source: Rid, mask: u64) -> [u64; 2] {
    [
        mask << 48 | u64::from(source.0) << 32 | domain << 16 | 3 << 4 | 1,
        0,
    ]
}

/// A warm rig, then the guest changes its page table; what `descriptors` leave behind.
fn after_remap(descriptors: &[[u64; 2]]) -> Option<u64> {
    let rig = legacy(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(LEAF, OTHER_PAGE | 3);
    rig.submit(descriptors);
    rig.read_at(None, AT)
}

#[test]
fn a_changed_page_is_stale_until_an_iotlb_invalidation_covers_it() {
    for stale in [
        &[][..],
        &[CONTEXTS],
        &[iotlb_domain(6)],
        &[iotlb_pages(6, AT, 0)],
        &[iotlb_pages(5, AT + 0x1000, 0)],
        &[iotlb_pages(5, AT + 0x4000, 2)],
    ] {
        assert_eq!(after_remap(stale), Some(PAGE), "{stale:x?}");
    }
    for fresh in [
        &[IOTLB][..],
        &[iotlb_domain(5)],
        &[iotlb_pages(5, AT, 0)],
        &[iotlb_pages(5, AT, 1)],
        // Only leaf entries changed.
        &[iotlb_pages(5, AT | 1 << 6, 0)],
        &[iotlb_pages(5, 0, 18)],
        &[iotlb_pages(5, 0, 63)],
    ] {
        assert_eq!(after_remap(fresh), Some(OTHER_PAGE), "{fresh:x?}");
    }
}

#[test]
fn the_registers_invalidate_as_the_queue_does() {
    for (address, command, fresh) in [
        (0, 1 << 63 | 1 << 60, true),
        (0, 1 << 63 | 2 << 60 | 5 << 32, true),
        (0, 1 << 63 | 2 << 60 | 6 << 32, false),
        (AT, 1 << 63 | 3 << 60 | 5 << 32, true),
        (AT + 0x1000, 1 << 63 | 3 << 60 | 5 << 32, false),
        // Without IVT nothing starts.
        (0, 1 << 60, false),
    ] {
        let rig = legacy(Config::default());
        assert_eq!(rig.read_at(None, AT), Some(PAGE));
        rig.put(LEAF, OTHER_PAGE | 3);
        rig.w64(0xf0, address);
        rig.w64(0xf8, command);
        let expected = if fresh { OTHER_PAGE } else { PAGE };
        assert_eq!(rig.read_at(None, AT), Some(expected), "{command:x}");
    }
}

/// A warm rig whose context entry then names another table in another domain.
fn after_recontext(act: impl Fn(&Rig)) -> Option<u64> {
    let rig = legacy(Config::default());
    rig.page_table(OTHER_TABLES, OTHER_PAGE, 3);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.legacy_context(OTHER_TABLES, 6);
    act(&rig);
    rig.read_at(None, AT)
}

#[test]
fn a_changed_context_is_stale_until_a_context_invalidation_covers_it() {
    let other = Rid(DEVICE.0 + 8);
    for stale in [
        &[][..],
        &[IOTLB],
        // The domain is the one the cached entry has.
        &[[6 << 16 | 2 << 4 | 1, 0]],
        &[context_device(6, DEVICE, 0)],
        &[context_device(5, other, 0)],
        &[context_device(5, other, 3)],
    ] {
        let at = after_recontext(|rig| rig.submit(stale));
        assert_eq!(at, Some(PAGE), "{stale:x?}");
    }
    let sibling = Rid(DEVICE.0 | 4);
    for fresh in [
        &[CONTEXTS][..],
        &[[5 << 16 | 2 << 4 | 1, 0]],
        &[context_device(5, DEVICE, 0)],
        &[context_device(5, sibling, 1)],
        &[context_device(5, Rid(DEVICE.0 | 6), 2)],
        &[context_device(5, Rid(DEVICE.0 | 7), 3)],
    ] {
        let at = after_recontext(|rig| rig.submit(fresh));
        assert_eq!(at, Some(OTHER_PAGE), "{fresh:x?}");
    }
    // A function mask ignores bit 2 first.
    let wrong = context_device(5, Rid(DEVICE.0 | 1), 2);
    assert_eq!(after_recontext(|rig| rig.submit(&[wrong])), Some(PAGE));
}

#[test]
fn the_context_command_register_invalidates_as_the_queue_does() {
    for (command, fresh) in [
        (1 << 63 | 1 << 61, true),
        (1 << 63 | 2 << 61 | 5, true),
        (1 << 63 | 2 << 61 | 6, false),
        (1 << 63 | 3 << 61 | 0x20 << 16 | 5, true),
        (1 << 63 | 3 << 61 | 0x28 << 16 | 5, false),
        (1 << 61, false),
    ] {
        let at = after_recontext(|rig| rig.w64(0x28, command));
        let expected = if fresh { OTHER_PAGE } else { PAGE };
        assert_eq!(at, Some(expected), "{command:x}");
    }
}

#[test]
fn a_domain_that_is_reused_without_an_iotlb_invalidation_meets_its_past() {
    let rig = legacy(Config::default());
    rig.page_table(OTHER_TABLES, OTHER_PAGE, 3);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.legacy_context(OTHER_TABLES, 5);
    rig.submit(&[CONTEXTS]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE), "the tag is the same");
    rig.submit(&[iotlb_domain(5)]);
    assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE));
}

#[test]
fn a_new_root_table_is_seen_once_contexts_are_invalidated_or_at_once_with_esrtps() {
    for esrtps in [false, true] {
        let rig = legacy(Config {
            root_pointer_invalidates: esrtps,
            ..Config::default()
        });
        rig.page_table(OTHER_TABLES, OTHER_PAGE, 3);
        assert_eq!(rig.read_at(None, AT), Some(PAGE));
        let (root, context) = (0x6000, 0x7000);
        rig.put(root, context | 1);
        rig.put(context + 0x20 * 16, OTHER_TABLES | 1);
        rig.put(context + 0x20 * 16 + 8, 6 << 8 | 2);
        rig.w64(0x20, root);
        rig.w32(0x18, 1 << 31 | 1 << 30 | 1 << 26);
        let expected = if esrtps { OTHER_PAGE } else { PAGE };
        assert_eq!(rig.read_at(None, AT), Some(expected));
        rig.submit(&[CONTEXTS, IOTLB]);
        assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE));
    }
}

/// A warm scalable rig whose PASID entry then names another table, in `domain`.
fn after_repasid(domain: u64, descriptors: &[[u64; 2]]) -> Option<u64> {
    let rig = scalable(Config::default());
    rig.page_table(OTHER_TABLES, OTHER_PAGE, 0x67);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    rig.first_stage(DIRECTORY, 3, OTHER_TABLES, domain);
    rig.submit(descriptors);
    rig.read_at(Some(3), AT)
}

fn pasid_cache(domain: u64, pasid: u64) -> [u64; 2] {
    [pasid << 32 | domain << 16 | 1 << 4 | 7, 0]
}
fn piotlb_all(domain: u64, pasid: u64) -> [u64; 2] {
    [pasid << 32 | domain << 16 | 2 << 4 | 6, 0]
}
fn piotlb_pages(domain: u64, pasid: u64, addr: u64, mask: u64) -> [u64; 2] {
    [pasid << 32 | domain << 16 | 3 << 4 | 6, addr | mask]
}

#[test]
fn a_changed_pasid_entry_is_stale_until_a_pasid_cache_invalidation_covers_it() {
    for stale in [
        &[][..],
        &[IOTLB],
        &[CONTEXTS],
        &[piotlb_all(1, 3)],
        &[pasid_cache(1, 4)],
        &[pasid_cache(2, 3)],
        &[[2 << 16 | 7, 0]],
    ] {
        assert_eq!(after_repasid(2, stale), Some(PAGE), "{stale:x?}");
    }
    for fresh in [
        &[PASID_CACHE][..],
        &[pasid_cache(1, 3)],
        &[[1 << 16 | 7, 0]],
    ] {
        assert_eq!(after_repasid(2, fresh), Some(OTHER_PAGE), "{fresh:x?}");
        // In the same domain the translations are stale as well.
        assert_eq!(after_repasid(1, fresh), Some(PAGE), "{fresh:x?}");
        let both = [fresh[0], piotlb_all(1, 3)];
        assert_eq!(after_repasid(1, &both), Some(OTHER_PAGE), "{fresh:x?}");
    }
}

#[test]
fn a_changed_first_stage_page_is_stale_until_its_pasid_is_invalidated() {
    let after = |descriptors: &[[u64; 2]]| {
        let rig = scalable(Config::default());
        assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
        rig.put(LEAF, OTHER_PAGE | 0x67);
        rig.submit(descriptors);
        rig.read_at(Some(3), AT)
    };
    for stale in [
        &[][..],
        &[CONTEXTS, PASID_CACHE],
        &[piotlb_all(1, 4)],
        &[piotlb_all(2, 3)],
        &[piotlb_pages(1, 3, AT + 0x1000, 0)],
        &[piotlb_pages(1, 4, AT, 0)],
        &[iotlb_domain(2)],
    ] {
        assert_eq!(after(stale), Some(PAGE), "{stale:x?}");
    }
    for fresh in [
        &[IOTLB][..],
        &[iotlb_domain(1)],
        &[piotlb_all(1, 3)],
        &[piotlb_pages(1, 3, AT, 0)],
        &[piotlb_pages(1, 3, 0, 52)],
    ] {
        assert_eq!(after(fresh), Some(OTHER_PAGE), "{fresh:x?}");
    }
}

#[test]
fn a_changed_scalable_context_needs_all_three_invalidations() {
    let after = |descriptors: &[[u64; 2]]| {
        let rig = scalable(Config::default());
        rig.page_table(OTHER_TABLES, OTHER_PAGE, 0x67);
        assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
        rig.first_stage(OTHER_DIRECTORY, 3, OTHER_TABLES, 1);
        rig.scalable_context(OTHER_DIRECTORY);
        rig.submit(descriptors);
        rig.read_at(Some(3), AT)
    };
    let all = [context_device(0, DEVICE, 0), PASID_CACHE, IOTLB];
    for left_out in 0..3 {
        let mut some = all.to_vec();
        some.remove(left_out);
        assert_eq!(after(&some), Some(PAGE), "without {left_out}");
    }
    assert_eq!(after(&all), Some(OTHER_PAGE));
}

#[test]
fn a_fault_is_never_cached() {
    let rig = legacy(Config::default());
    for (at, good) in [
        (ROOT, CONTEXT | 1),
        (CONTEXT + 0x20 * 16, TABLES | 1),
        (TABLES, (TABLES + 0x1000) | 3),
        (TABLES + 0x2000, (TABLES + 0x3000) | 3),
        (LEAF, PAGE | 3),
    ] {
        rig.put(at, 0);
        rig.submit(&[CONTEXTS, IOTLB]);
        assert_eq!(rig.read_at(None, AT), None, "{at:#x}");
        rig.put(at, good);
        assert_eq!(rig.read_at(None, AT), Some(PAGE), "{at:#x}");
    }
    let rig = scalable(Config::default());
    let entry = DIRECTORY + 0x1000 + 3 * 64;
    for (at, good) in [
        (DIRECTORY, (DIRECTORY + 0x1000) | 1),
        (entry, rig.get(entry)),
    ] {
        rig.put(at, 0);
        rig.submit(&[CONTEXTS, PASID_CACHE, IOTLB]);
        assert_eq!(rig.read_at(Some(3), AT), None, "{at:#x}");
        rig.put(at, good);
        assert_eq!(rig.read_at(Some(3), AT), Some(PAGE), "{at:#x}");
    }
}

#[test]
fn a_cached_page_grants_no_more_than_its_tables_did() {
    let rig = legacy(Config::default());
    rig.put(LEAF, PAGE | 1);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    let write = rig.dma(None, AT, Access::WRITE);
    assert!(rig.access(&write, 1).is_err());
    // Granting more needs no invalidation: the walk decides what the cache cannot serve.
    rig.put(LEAF, PAGE | 3);
    assert_eq!(rig.access(&write, 1), Ok(vec![(PAGE, 1)]));
}

#[test]
fn pass_through_is_cached_like_the_rest() {
    let rig = legacy(Config::default());
    rig.put(CONTEXT + 0x20 * 16, 2 << 2 | 1);
    for _ in 0..2 {
        assert_eq!(rig.read_at(None, 0x1234_5678), Some(0x1234_5678));
    }
    rig.put(CONTEXT + 0x20 * 16, TABLES | 1);
    assert_eq!(rig.read_at(None, AT), Some(AT), "stale");
    rig.submit(&[CONTEXTS, IOTLB]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

#[test]
fn privilege_and_execution_are_weighed_on_a_hit_as_on_a_miss() {
    let rig = scalable(Config::default());
    for _ in 0..2 {
        assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
        for denied in [Access::READ | Access::PRIV, Access::READ | Access::EXEC] {
            let dma = rig.dma(Some(3), AT, denied);
            assert!(rig.access(&dma, 1).is_err(), "{denied}");
        }
    }
    // 5D and 5C, in this order, twice; one register, so one record.
    assert_eq!(rig.r32(0x220 + 12) & 0xff, 0x5d);
    // Without a PASID neither flag exists.
    let rig = legacy(Config::default());
    for _ in 0..2 {
        let dma = rig.dma(None, AT, Access::EXEC | Access::PRIV);
        assert_eq!(rig.access(&dma, 1), Ok(vec![(PAGE, 1)]));
    }
}

#[test]
fn without_caches_nothing_is_ever_stale() {
    let rig = legacy(Config {
        iotlb_entries: 0,
        ..Config::default()
    });
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(LEAF, OTHER_PAGE | 3);
    assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE));
    rig.put(ROOT, 0);
    assert_eq!(rig.read_at(None, AT), None);
}

#[test]
fn a_context_that_shuts_a_pasid_out_does_so_whatever_the_pasid_cache_holds() {
    let rig = scalable(Config::default());
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    // PASIDE goes.
    rig.put(CONTEXT + 0x20 * 32, DIRECTORY | 1 << 2 | 1);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE), "stale");
    rig.submit(&[context_device(0, DEVICE, 0)]);
    for _ in 0..2 {
        assert_eq!(rig.read_at(Some(3), AT), None);
    }
    assert_eq!(rig.r32(0x220 + 12), 0xc000_0345);
}

#[test]
fn no_access_uses_a_page_after_its_invalidation_was_waited_for() {
    const PAGES: u64 = 64;
    let rig = legacy(Config::default());
    // Page number n of the device moves on by one each round: what is read tells the round.
    let page = |round: u64| OTHER_PAGE + ((round % PAGES) << 12);
    rig.put(LEAF, page(0) | 3);
    // Rounds that have begun, and rounds whose wait came true.
    let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let oldest = done.load(Ordering::SeqCst);
                    let at = rig.read_at(None, AT).expect("always mapped");
                    let newest = begun.load(Ordering::SeqCst);
                    let allowed = (oldest..=newest).any(|round| page(round) == at);
                    assert!(allowed, "{at:#x} in rounds {oldest} to {newest}");
                }
            });
        }
        for round in 1..2000u64 {
            begun.store(round, Ordering::SeqCst);
            rig.put(LEAF, page(round) | 3);
            let how = [IOTLB, iotlb_domain(5), iotlb_pages(5, AT, 0)];
            let index = usize::try_from(round % 3).expect("below 3");
            rig.submit(&how[index..=index]);
            done.store(round, Ordering::SeqCst);
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_device_that_writes_under_a_guest_that_clears_dirty_flags_loses_none() {
    let rig = scalable(Config::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let write = rig.dma(Some(3), AT, Access::WRITE);
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(rig.access(&write, 1), Ok(vec![(PAGE, 1)]));
            }
        });
        for _ in 0..2000 {
            // As a guest does that writes pages back: clear the flag, then invalidate.
            rig.put(LEAF, PAGE | 0x27);
            rig.submit(&[piotlb_pages(1, 3, AT, 0)]);
        }
        stop.store(true, Ordering::SeqCst);
    });
    let write = rig.dma(Some(3), AT, Access::WRITE);
    assert_eq!(rig.access(&write, 1), Ok(vec![(PAGE, 1)]));
    assert_eq!(rig.get(LEAF), PAGE | 0x67);
}

#[test]
fn translation_off_forgets_everything_where_there_is_scalable_mode() {
    for (scalable_mode, after) in [(true, None), (false, Some(PAGE))] {
        let default = Config::default();
        let rig = legacy(Config {
            scalable: default.scalable.filter(|_| scalable_mode),
            ..default
        });
        assert_eq!(rig.read_at(None, AT), Some(PAGE));
        rig.put(TABLES + 0x3008, 0);
        assert_eq!(rig.read_at(None, AT), Some(PAGE), "stale");
        rig.w32(0x18, 1 << 26);
        rig.w32(0x18, 1 << 31 | 1 << 26);
        assert_eq!(rig.read_at(None, AT), after, "{scalable_mode}");
    }
}

/// Where PASID 3 reads [`AT`] from after its lowest entry was changed, and `act`. First, second and
/// nested stage, by PGTT.
fn after_staged(pgtt: u64, act: impl Fn(&Rig)) -> Option<u64> {
    let rig = scalable(Config::default());
    let bits = if pgtt == 2 { 3 } else { 0x67 };
    rig.page_table(TABLES, PAGE, bits);
    // Under a nested one, a second stage that maps 4 MiB to itself.
    let second = 0x5_0000;
    rig.put(second, (second + 0x1000) | 3);
    rig.put(second + 0x1000, (second + 0x2000) | 3);
    rig.put(second + 0x2000, 1 << 7 | 3);
    rig.put(second + 0x2008, 0x20_0000 | 1 << 7 | 3);
    let (top, first) = match pgtt {
        1 => (0, TABLES),
        2 => (TABLES, 0),
        _ => (second, TABLES),
    };
    rig.pasid_entry(3, pgtt, top, first, 1);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    rig.put(LEAF, OTHER_PAGE | bits);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE), "stale");
    act(&rig);
    rig.read_at(Some(3), AT)
}

#[test]
fn a_pasids_invalidation_covers_it_whatever_its_tables_are() {
    for pgtt in 1..4 {
        let fresh = after_staged(pgtt, |rig| rig.submit(&[piotlb_all(1, 3)]));
        assert_eq!(fresh, Some(OTHER_PAGE), "{pgtt}");
        let stale = after_staged(pgtt, |rig| rig.submit(&[piotlb_all(2, 3)]));
        assert_eq!(stale, Some(PAGE), "{pgtt}");
    }
    // By pages it covers the first stage alone.
    let stale = after_staged(2, |rig| rig.submit(&[piotlb_pages(1, 3, AT, 0)]));
    assert_eq!(stale, Some(PAGE));
}

#[test]
fn a_page_request_invalidates_what_it_is_about() {
    let ask = |rig: &Rig, pasid, addr| {
        let request = PageRequest {
            pasid: Pasid::new(pasid),
            group: GroupIndex(1),
            addr: Iova(addr),
            access: Access::WRITE,
            last: true,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        rig.unit.page_request(DEVICE, &request)
    };
    for pgtt in 1..4 {
        let here = after_staged(pgtt, |rig| {
            assert_eq!(ask(rig, 3, AT), PageRequestOutcome::Queued);
        });
        assert_eq!(here, Some(OTHER_PAGE), "{pgtt}");
        // Through a nested stage the whole domain goes.
        let elsewhere = after_staged(pgtt, |rig| {
            assert_eq!(ask(rig, 3, AT + 0x1000), PageRequestOutcome::Queued);
        });
        let expected = if pgtt == 3 { OTHER_PAGE } else { PAGE };
        assert_eq!(elsewhere, Some(expected), "{pgtt}");
        // One that is refused invalidates nothing.
        let refused = after_staged(pgtt, |rig| {
            assert_ne!(ask(rig, 4, AT), PageRequestOutcome::Queued);
        });
        assert_eq!(refused, Some(PAGE), "{pgtt}");
    }
}

#[test]
fn bits_that_no_domain_and_no_address_has_are_ignored() {
    // Domain IDs of 8 bits, addresses of 48.
    let config = Config {
        domain_bits: 8,
        ..Config::default()
    };
    for descriptor in [
        iotlb_domain(0x105),
        [0x105 << 16 | 3 << 4 | 2, AT],
        [5 << 16 | 3 << 4 | 2, AT | 1 << 50],
    ] {
        let rig = legacy(config);
        assert_eq!(rig.read_at(None, AT), Some(PAGE));
        rig.put(LEAF, OTHER_PAGE | 3);
        rig.submit(&[descriptor]);
        assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE), "{descriptor:x?}");
    }
    for descriptor in [
        [0x105 << 16 | 2 << 4 | 1, 0],
        context_device(0x105, DEVICE, 0),
    ] {
        let rig = legacy(config);
        rig.page_table(OTHER_TABLES, OTHER_PAGE, 3);
        assert_eq!(rig.read_at(None, AT), Some(PAGE));
        rig.legacy_context(OTHER_TABLES, 6);
        rig.submit(&[descriptor]);
        assert_eq!(rig.read_at(None, AT), Some(OTHER_PAGE), "{descriptor:x?}");
    }
    let rig = scalable(config);
    rig.page_table(OTHER_TABLES, OTHER_PAGE, 0x67);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    rig.first_stage(DIRECTORY, 3, OTHER_TABLES, 1);
    rig.submit(&[pasid_cache(0x101, 3), piotlb_all(0x101, 3)]);
    assert_eq!(rig.read_at(Some(3), AT), Some(OTHER_PAGE));
}
