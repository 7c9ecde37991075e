use super::entry::RWX;
use super::*;
use iopf::{Access, Gpa};
use std::sync::atomic::AtomicBool;
use std::thread;

const NIC: Rid = Rid(0x0100);
const DISK: Rid = Rid(0x0208);

fn pasid(value: u32) -> Pasid {
    Pasid::truncate(value)
}

fn second(domain: u16) -> Tag {
    Tag::new(domain, None, Stage::Second)
}

fn first(domain: u16, of: u32) -> Tag {
    Tag::new(domain, Some(pasid(of)), Stage::First)
}

fn nested(domain: u16, of: u32) -> Tag {
    Tag::new(domain, Some(pasid(of)), Stage::Nested)
}

fn page(at: u64, shift: u8) -> Mapping {
    Mapping {
        page: Gpa(at),
        page_shift: shift,
        user: Access::RW,
        supervisor: Access::RW,
        dirty: true,
    }
}

fn full(tag: Tag) -> Source {
    Source {
        tag,
        user: RWX,
        supervisor: RWX,
        habits: Habits::empty(),
    }
}

/// A cache with these translations.
fn with(entries: &[(Tag, u64, Mapping)]) -> Iotlb {
    let tlb = Iotlb::new(256);
    for (tag, at, mapping) in entries {
        assert!(tlb.insert(tlb.epoch(), *tag, Iova(*at), mapping));
    }
    tlb
}

fn left(tlb: &Iotlb, entries: &[(Tag, u64, Mapping)]) -> Vec<bool> {
    let there = |(tag, at, _): &(Tag, u64, Mapping)| tlb.lookup_tag(*tag, Iova(*at)).is_some();
    entries.iter().map(there).collect()
}

#[test]
fn a_page_beyond_52_bits_is_not_cached() {
    let iotlb = Iotlb::new(64);
    let (inside, beyond) = (
        page(0x000f_ffff_ffff_f000, 12),
        page(0x0010_0000_0000_0000, 12),
    );
    assert!(!iotlb.insert(iotlb.epoch(), second(1), Iova(0x1000), &beyond));
    assert_eq!(iotlb.lookup_tag(second(1), Iova(0x1000)), None);
    assert!(iotlb.insert(iotlb.epoch(), second(1), Iova(0x1000), &inside));
    let hit = iotlb.lookup_tag(second(1), Iova(0x1000)).unwrap();
    assert_eq!(hit.mapping(), inside);
}

#[test]
fn a_page_of_each_size_is_found_at_any_address_in_it() {
    for (shift, inside, output) in [
        (12, 0x7f_ffff_f123, 0x9_8000_0123),
        (21, 0x7f_ffff_f123, 0x9_801f_f123),
        (30, 0x7f_ffff_f123, 0x9_bfff_f123),
        // AMD-Vi has every size.
        (13, 0x7f_ffff_f123, 0x9_8000_1123),
        (16, 0x7f_ffff_f123, 0x9_8000_f123),
        (29, 0x7f_ffff_f123, 0x9_9fff_f123),
    ] {
        let tag = first(9, 4);
        let tlb = with(&[(tag, inside, page(0x9_8000_0000, shift))]);
        assert!(tlb.insert_source(tlb.epoch(), NIC, Some(pasid(4)), &full(tag)));
        for _ in ["joined", "remembered"] {
            let hit = tlb.lookup(NIC, Some(pasid(4)), Iova(inside)).unwrap();
            assert_eq!(hit.output(Iova(inside)), Gpa(output));
            assert_eq!(hit.page_shift(), shift);
            assert_eq!(hit.mapping(), page(0x9_8000_0000, shift));
        }
        let beyond = Iova(inside + (1 << shift));
        assert_eq!(tlb.lookup(NIC, Some(pasid(4)), beyond), None);
        assert_eq!(tlb.lookup(NIC, None, Iova(inside)), None);
        assert_eq!(tlb.lookup(DISK, Some(pasid(4)), Iova(inside)), None);
    }
}

#[test]
fn an_invalidation_of_a_part_of_a_page_takes_the_page() {
    for shift in 12..=43 {
        let last = (1u64 << shift) - 0x1000;
        let tlb = with(&[
            (second(1), 0, page(0, shift)),
            (second(1), 1 << shift, page(1 << shift, shift)),
            (second(2), 0, page(0, shift)),
        ]);
        assert_eq!(
            tlb.lookup_tag(second(1), Iova(last)).map(Hit::page_shift),
            Some(shift)
        );
        let pages = Pages {
            addr: Iova(last),
            size_shift: 12,
        };
        tlb.invalidate(Scope::DomainPages(1, pages));
        assert_eq!(tlb.lookup_tag(second(1), Iova(0)), None);
        assert!(tlb.lookup_tag(second(1), Iova(1 << shift)).is_some());
        assert!(tlb.lookup_tag(second(2), Iova(0)).is_some());
    }
}

#[test]
fn other_page_sizes_are_not_cached() {
    let tlb = Iotlb::new(64);
    for shift in [0, 11, 44, 57, 64] {
        assert!(!tlb.insert(tlb.epoch(), second(1), Iova(0), &page(0, shift)));
    }
}

#[test]
fn a_source_takes_rights_away_from_a_translation_it_shares() {
    let tag = first(1, 2);
    let tlb = with(&[(tag, 0x1000, page(0x5000, 12))]);
    let limited = Source {
        tag,
        user: Access::READ,
        supervisor: Access::empty(),
        habits: Habits::empty(),
    };
    assert!(tlb.insert_source(tlb.epoch(), NIC, None, &limited));
    assert!(tlb.insert_source(tlb.epoch(), DISK, None, &full(tag)));
    for _ in ["joined", "remembered"] {
        let nic = tlb.lookup(NIC, None, Iova(0x1000)).unwrap();
        assert!(nic.serves(Access::READ));
        assert!(!nic.serves(Access::WRITE));
        assert!(!nic.serves(Access::READ | Access::PRIV));
        let disk = tlb.lookup(DISK, None, Iova(0x1000)).unwrap();
        assert!(disk.serves(Access::RW));
        assert!(disk.serves(Access::RW | Access::PRIV));
        assert!(!disk.serves(Access::EXEC));
    }
}

#[test]
fn a_clean_page_serves_reads_only() {
    let mapping = Mapping {
        dirty: false,
        ..page(0x5000, 12)
    };
    let tlb = with(&[(second(1), 0x1000, mapping)]);
    let hit = tlb.lookup_tag(second(1), Iova(0x1000)).unwrap();
    assert!(hit.serves(Access::READ));
    assert!(!hit.serves(Access::WRITE));
    assert!(hit.mapping().user.contains(Access::WRITE));
}

/// One entry of every kind, and which of them each scope leaves.
#[test]
fn a_page_that_gains_a_right_or_turns_dirty_is_found_with_it() {
    let tag = first(1, 2);
    let clean = Mapping {
        dirty: false,
        ..page(0x5000, 12)
    };
    let tlb = with(&[(tag, 0x1000, clean)]);
    assert!(tlb.insert_source(tlb.epoch(), NIC, None, &full(tag)));
    let aim = tlb.aim(NIC, None, Iova(0x1000));
    let (read, write) = (Need::new(Access::READ), Need::new(Access::WRITE));
    assert!(aim.look_for(read).is_some());
    assert_eq!(aim.look_for(write), None);
    // The walk that a write takes then sets the dirty bit.
    assert!(tlb.insert(tlb.epoch(), tag, Iova(0x1000), &page(0x5000, 12)));
    for _ in ["joined again", "remembered"] {
        assert!(aim.look_for(write).is_some());
    }
    assert!(tlb.lookup(NIC, None, Iova(0x1000)).unwrap().meets(write));
}

#[test]
fn each_scope_removes_what_it_names_and_nothing_else() {
    let entries = [
        (second(1), 0x1000, page(0x10_0000, 12)),
        (second(1), 0x2000, page(0x10_1000, 12)),
        (second(1), 0x20_0000, page(0x20_0000, 21)),
        (second(2), 0x1000, page(0x10_2000, 12)),
        (first(1, 7), 0x1000, page(0x10_3000, 12)),
        (first(1, 7), 0x4000_0000, page(0x4000_0000, 30)),
        (first(1, 8), 0x1000, page(0x10_4000, 12)),
        (nested(1, 7), 0x1000, page(0x10_5000, 12)),
        (nested(2, 7), 0x1000, page(0x10_6000, 12)),
    ];
    let range = |addr, size_shift| Pages {
        addr: Iova(addr),
        size_shift,
    };
    let rows = [
        (Scope::Global, ". . . . . . . . ."),
        (Scope::Domain(1), ". . . x . . . . x"),
        (Scope::Domain(3), "x x x x x x x x x"),
        // First-stage and nested entries of the domain go too; QEMU's vtd_hash_remove_by_page
        // reads the specification the same way.
        (
            Scope::DomainPages(1, range(0x1fff, 12)),
            ". x x x . . . . x",
        ),
        (
            Scope::DomainPages(1, range(0x3000, 14)),
            ". . x x . . . . x",
        ),
        (
            Scope::DomainPages(1, range(0x3f_f000, 12)),
            "x x . x . . . . x",
        ),
        (Scope::DomainPages(1, range(0, 64)), ". . . x . . . . x"),
        // Second-stage entries bear no PASID, so all of the domain's go.
        (Scope::Pasid(1, pasid(7)), ". . . x . . x . x"),
        (
            Scope::PasidPages(1, pasid(7), range(0x1000, 12)),
            "x x x x . x x . x",
        ),
        (
            Scope::PasidPages(1, pasid(7), range(0x7fff_f000, 12)),
            "x x x x x . x x x",
        ),
        (
            Scope::PasidPages(1, pasid(7), range(0, 60)),
            "x x x x . . x . x",
        ),
    ];
    for (scope, expected) in rows {
        let tlb = with(&entries);
        tlb.invalidate(scope);
        let marks = left(&tlb, &entries).into_iter();
        let text: Vec<_> = marks.map(|there| if there { "x" } else { "." }).collect();
        assert_eq!(text.join(" "), expected, "{scope:?}");
    }
}

#[test]
fn a_hit_does_not_outlive_its_translation_or_its_source() {
    let tag = second(1);
    let tlb = with(&[(tag, 0x1000, page(0x5000, 12))]);
    assert!(tlb.insert_source(tlb.epoch(), NIC, None, &full(tag)));
    assert!(tlb.lookup(NIC, None, Iova(0x1000)).is_some());
    tlb.clear_sources();
    assert_eq!(tlb.lookup(NIC, None, Iova(0x1000)), None);
    assert!(tlb.lookup_tag(tag, Iova(0x1000)).is_some());

    assert!(tlb.insert_source(tlb.epoch(), NIC, None, &full(tag)));
    assert!(tlb.lookup(NIC, None, Iova(0x1000)).is_some());
    tlb.invalidate(Scope::Domain(1));
    assert_eq!(tlb.lookup(NIC, None, Iova(0x1000)), None);
}

#[test]
fn a_fill_is_refused_when_its_domain_was_invalidated_meanwhile() {
    let tlb = Iotlb::new(64);
    let before = tlb.epoch();
    tlb.invalidate(Scope::Domain(1));
    assert!(!tlb.insert(before, second(1), Iova(0), &page(0, 12)));
    assert!(tlb.insert(before, second(2), Iova(0), &page(0, 12)));
    assert!(tlb.insert(tlb.epoch(), second(1), Iova(0), &page(0, 12)));
    tlb.invalidate(Scope::Global);
    assert!(!tlb.insert(before, second(2), Iova(0), &page(0, 12)));
}

#[test]
fn a_source_is_refused_only_when_sources_were_cleared_meanwhile() {
    let tlb = Iotlb::new(64);
    let before = tlb.epoch();
    tlb.invalidate(Scope::Global);
    assert!(tlb.insert_source(before, NIC, None, &full(second(1))));
    tlb.clear_sources();
    assert!(!tlb.insert_source(before, NIC, None, &full(second(1))));
    assert!(!tlb.insert(before, second(1), Iova(0), &page(0, 12)));
}

#[test]
fn a_fill_that_slept_through_many_invalidations_is_refused() {
    let tlb = Iotlb::new(64);
    let before = tlb.epoch();
    for _ in 0..32 {
        tlb.invalidate(Scope::Domain(1));
    }
    assert!(tlb.insert(before, second(2), Iova(0), &page(0, 12)));
    tlb.invalidate(Scope::Domain(1));
    assert!(!tlb.insert(before, second(2), Iova(0), &page(0, 12)));
}

#[test]
fn more_pages_than_room_replace_others_and_stay_right() {
    let tlb = Iotlb::new(64);
    let tag = second(1);
    for n in 0..10_000u64 {
        let at = n << 12;
        assert!(tlb.insert(tlb.epoch(), tag, Iova(at), &page(at + 0x1_0000_0000, 12)));
    }
    let found: Vec<_> = (0..10_000u64)
        .filter_map(|n| Some((n, tlb.lookup_tag(tag, Iova(n << 12))?)))
        .collect();
    assert!((32..=160).contains(&found.len()), "{}", found.len());
    for (n, hit) in found {
        assert_eq!(hit.output(Iova(n << 12)), Gpa((n << 12) + 0x1_0000_0000));
    }
}

#[test]
fn readers_never_see_a_torn_entry() {
    let (tlb, stop) = (Iotlb::new(10), AtomicBool::new(false));
    let tag = second(1);
    // Every field follows from the address, so a mixture of two entries shows.
    let mapping = |n: u64| Mapping {
        user: Access::from_bits_truncate(1 + (n % 3) as u8),
        ..page((n << 12) * 3, 12)
    };
    assert!(tlb.insert_source(tlb.epoch(), NIC, None, &full(tag)));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut n = 0u64;
                while !stop.load(Relaxed) {
                    n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let n = n >> 58;
                    if let Some(hit) = tlb.lookup(NIC, None, Iova(n << 12)) {
                        assert_eq!(hit.mapping(), mapping(n));
                    }
                }
            });
        }
        for n in 0..if cfg!(miri) { 300 } else { 200_000u64 } {
            let _ = tlb.insert(tlb.epoch(), tag, Iova((n % 64) << 12), &mapping(n % 64));
            if n % 97 == 0 {
                let pages = Pages {
                    addr: Iova((n % 64) << 12),
                    size_shift: 14,
                };
                tlb.invalidate(Scope::DomainPages(1, pages));
            }
        }
        stop.store(true, Relaxed);
    });
}

#[test]
fn page_selective_invalidation_of_a_legacy_domain_leaves_its_neighbours() {
    // No first-stage entry anywhere: the invalidation probes instead of scanning.
    let entries = [
        (second(1), 0x1000, page(0x10_0000, 12)),
        (second(1), 0x2000, page(0x10_1000, 12)),
        (second(1), 0x20_0000, page(0x20_0000, 21)),
        (second(1), 0x4000_0000, page(0x4000_0000, 30)),
        (second(2), 0x1000, page(0x10_2000, 12)),
    ];
    for (addr, size_shift, expected) in [
        (0x1fff, 12, [false, true, true, true, true]),
        (0x2000, 13, [true, false, true, true, true]),
        (0x3f_f000, 12, [true, true, false, true, true]),
        (0x7000_0000, 12, [true, true, true, false, true]),
        (0, 22, [false, false, false, true, true]),
        (0, 40, [false, false, false, false, true]),
    ] {
        let tlb = with(&entries);
        let pages = Pages {
            addr: Iova(addr),
            size_shift,
        };
        tlb.invalidate(Scope::DomainPages(1, pages));
        assert_eq!(left(&tlb, &entries), expected, "{pages:?}");
    }
}

#[test]
fn a_hit_from_long_ago_is_not_found_when_the_stamps_come_round() {
    let tlb = with(&[(second(1), 0x1000, page(0x5000, 12))]);
    // At the very first count everything is looked at anyway.
    tlb.invalidate(Scope::Domain(3));
    assert!(tlb.insert_source(tlb.epoch(), NIC, None, &full(second(1))));
    assert!(tlb.lookup(NIC, None, Iova(0x1000)).is_some());
    tlb.invalidate(Scope::Domain(1));
    // Of another domain, so that nothing but the stamp keeps the old hit from being found.
    for count in 0..3 << STAMP_BITS {
        assert_eq!(tlb.lookup(NIC, None, Iova(0x1000)), None, "{count}");
        tlb.invalidate(Scope::DomainPages(
            2,
            Pages {
                addr: Iova(0),
                size_shift: 12,
            },
        ));
    }
}

#[test]
fn requesters_that_differ_in_any_bit_are_different() {
    let tlb = with(&[(second(1), 0x1000, page(0x5000, 12))]);
    assert!(tlb.insert_source(tlb.epoch(), NIC, None, &full(second(1))));
    assert!(tlb.lookup(NIC, None, Iova(0x1000)).is_some());
    for bit in 0..32 {
        let other = Rid(NIC.0 ^ 1 << bit);
        assert_eq!(tlb.lookup(other, None, Iova(0x1000)), None, "{other}");
    }
}

fn global(domain: u16, set: bool, stage: Stage) -> Tag {
    Tag::global(domain, set, stage)
}

#[test]
fn scopes_of_the_first_stage_tell_whose_and_where() {
    let entries = [
        (first(1, 7), 0x1000, page(0x10000, 12)),
        (first(1, 8), 0x1000, page(0x20000, 12)),
        (nested(1, 7), 0x1000, page(0x30000, 12)),
        (global(1, false, Stage::First), 0x1000, page(0x40000, 12)),
        (global(1, true, Stage::Nested), 0x1000, page(0x50000, 12)),
        (second(1), 0x1000, page(0x60000, 12)),
        (first(2, 7), 0x1000, page(0x70000, 12)),
        (first(1, 7), 0x20_0000, page(0x80_0000, 21)),
    ];
    let here = Span {
        first: 0x1fff,
        last: 0x1fff,
    };
    let there = Span {
        first: 0x2000,
        last: 0x3f_ffff,
    };
    let (all, one, shared) = (
        Whose::All,
        Whose::Pasid(pasid(7)),
        Whose::PasidAndGlobal(pasid(7)),
    );
    let [o, x] = [true, false];
    for (scope, expected) in [
        (Scope::FirstStage(1, one, here), [x, o, x, o, o, o, o, o]),
        (Scope::FirstStage(1, shared, here), [x, o, x, x, x, o, o, o]),
        (Scope::FirstStage(1, all, here), [x, x, x, x, x, o, o, o]),
        (Scope::FirstStage(1, one, there), [o, o, o, o, o, o, o, x]),
        (
            Scope::FirstStage(1, one, Span::ALL),
            [x, o, x, o, o, o, o, x],
        ),
        (
            Scope::FirstStage(1, all, Span::ALL),
            [x, x, x, x, x, o, o, x],
        ),
        (Scope::SecondStage(1, here), [o, o, o, o, o, x, o, o]),
        (Scope::SecondStage(1, Span::ALL), [o, o, o, o, o, x, o, o]),
        (Scope::SecondStage(1, there), [o; 8]),
        (Scope::FirstStage(3, all, Span::ALL), [o; 8]),
    ] {
        let tlb = with(&entries);
        tlb.invalidate(scope);
        assert_eq!(left(&tlb, &entries), expected, "{scope:?}");
    }
}

#[test]
fn a_span_that_ends_before_it_begins_holds_nothing() {
    let entries = [(first(1, 7), 0x1000, page(0x10000, 12))];
    let tlb = with(&entries);
    let span = Span {
        first: 0x1000,
        last: 0xfff,
    };
    tlb.invalidate(Scope::FirstStage(1, Whose::Pasid(pasid(7)), span));
    assert_eq!(left(&tlb, &entries), [true]);
}

#[test]
fn global_translations_serve_every_pasid_that_looks_for_them() {
    let tlb = with(&[(global(1, true, Stage::First), 0x1000, page(0x5000, 12))]);
    let mut source = full(first(1, 7));
    for (habits, found) in [
        (Habits::empty(), None),
        (Habits::GLOBAL, None),
        (Habits::GLOBAL | Habits::GLOBAL_SET, Some(Gpa(0x5008))),
    ] {
        source.habits = habits;
        assert!(tlb.insert_source(tlb.epoch(), NIC, None, &source));
        let hit = tlb.lookup(NIC, None, Iova(0x1008));
        assert_eq!(hit.map(|hit| hit.output(Iova(0x1008))), found, "{habits:?}");
        tlb.clear_sources();
    }
    assert_eq!(global(1, true, Stage::First).pasid(), None);
}

#[test]
fn the_top_byte_does_not_count_where_the_source_says_so() {
    let upper = 0xffff_8000_0000_1000;
    let tlb = with(&[
        (first(1, 7), 0x1000, page(0x5000, 12)),
        (first(1, 7), upper, page(0x6000, 12)),
    ]);
    let tagged = |at: u64| at & !(0xff << 56) | 0xab << 56;
    let mut source = full(first(1, 7));
    for (habits, lower_found, upper_found) in [
        (Habits::empty(), false, false),
        (Habits::LOWER_TAGS, true, false),
        (Habits::UPPER_TAGS, false, true),
        (Habits::LOWER_TAGS | Habits::UPPER_TAGS, true, true),
    ] {
        source.habits = habits;
        assert!(tlb.insert_source(tlb.epoch(), NIC, None, &source));
        let found = |at| tlb.lookup(NIC, None, Iova(at)).is_some();
        assert_eq!(found(tagged(0x1000)), lower_found, "{habits:?}");
        assert_eq!(found(tagged(upper)), upper_found, "{habits:?}");
        assert!(found(0x1000) && found(upper));
        tlb.clear_sources();
    }
}

#[test]
fn overrides_change_which_rights_count() {
    let mut entry = page(0x5000, 12);
    entry.user = Access::READ;
    entry.supervisor = Access::RW | Access::EXEC;
    let tlb = with(&[(first(1, 7), 0x1000, entry)]);
    let mut source = full(first(1, 7));
    let mut serves = |habits, access| {
        source.habits = habits;
        assert!(tlb.insert_source(tlb.epoch(), NIC, None, &source));
        let hit = tlb.lookup(NIC, None, Iova(0x1000)).unwrap();
        tlb.clear_sources();
        hit.serves(access)
    };
    let (user, privileged) = (Habits::USER, Habits::PRIVILEGED);
    assert!(!serves(Habits::empty(), Access::WRITE));
    assert!(serves(privileged, Access::WRITE));
    assert!(serves(privileged, Access::EXEC));
    assert!(!serves(user, Access::WRITE | Access::PRIV));
    assert!(serves(user, Access::READ | Access::PRIV));
    // Data: what may be read may be fetched. Instructions: what may be fetched may be read.
    assert!(serves(Habits::DATA, Access::EXEC));
    assert!(!serves(Habits::INSTRUCTION, Access::READ));
    assert!(serves(Habits::INSTRUCTION | privileged, Access::READ));
    assert!(serves(Habits::INSTRUCTION | privileged, Access::WRITE));
}

#[test]
fn a_source_comes_back_as_it_was_cached() {
    for bits in 0..=u8::MAX {
        let source = Source {
            tag: Tag::new(0xffff, Some(Pasid::MAX), Stage::Nested),
            user: Access::READ,
            supervisor: Access::RW | Access::EXEC,
            habits: Habits::from_bits_retain(bits),
        };
        assert_eq!(Source::of(source.word()), source);
    }
    let tag = global(0xffff, true, Stage::Nested);
    assert_eq!(Source::of(full(tag).word()).tag, tag);
}
