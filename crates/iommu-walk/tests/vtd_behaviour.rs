//! What a VT-d walk does besides failing: translations, updates, completions, the trail.

mod bed;

use bed::vtd::{ADDR, Bed, at, ats, fetch, pasid5, privileged, read, translated, write};
use iommu_walk::vtd::{
    Applied, Cause, Completion, DomainId, Outcome, Switches, Unit, apply, configure, translate,
    walk,
};
use iommu_walk::{Table, Updates, Verdict};
use iopf::{Access, Dma, DmaKind, Gpa, Pasid};

const RX: Access = Access::READ.union(Access::EXEC);

#[test]
fn a_legacy_page_translates_with_its_offset() {
    let translation = Bed::legacy().passes(&write());
    assert_eq!(translation.pa, Gpa(0x8_0abc));
    assert_eq!(
        (translation.page_shift, translation.rights.user),
        (12, Access::RW)
    );
}

#[test]
fn large_pages_keep_more_of_the_address() {
    let big = Bed::legacy().set(0x1_2008, 0x60_0083).passes(&read());
    assert_eq!((big.pa, big.page_shift), (Gpa(0x60_1abc), 21));
    let huge = Bed::first().set(0x2_1008, 0x4000_00e7).passes(&read());
    assert_eq!((huge.pa, huge.page_shift), (Gpa(0x4020_1abc), 30));
    // A nested page is as large as the smaller of its two.
    let nested = Bed::nested()
        .set(0x2_2008, 0x00_00e7)
        .set(0x1_3008, 0x9_0003);
    let translation = nested.passes(&read());
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x9_0abc), 12)
    );
}

#[test]
fn three_and_five_levels_walk_too() {
    // Three levels: the walk starts at level 3, index 1 of bits 38:30.
    let three = Bed::legacy().set(0x2280, 0x1_1001).set(0x2288, 0x0701);
    assert_eq!(three.passes(&at(0x4020_1abc, read())).pa, Gpa(0x8_0abc));
    // Five: the bed's top table is the fourth level under entry 0 of the fifth.
    let five = Bed::legacy()
        .set(0x2280, 0x6_0001)
        .set(0x2288, 0x0703)
        .set(0x6_0000, 0x1_0003);
    assert_eq!(five.passes(&read()).pa, Gpa(0x8_0abc));
    let five = Bed::first().set(0x5010, 0x6_0007).set(0x6_0000, 0x2_0027);
    assert_eq!(five.passes(&read()).pa, Gpa(0x8_0abc));
}

#[test]
fn every_kind_of_address_space_translates() {
    for bed in [Bed::first(), Bed::second(), Bed::nested()] {
        assert_eq!(bed.passes(&pasid5(write())).pa, Gpa(0x8_0abc));
    }
    assert_eq!(Bed::pass_through().passes(&pasid5(write())).pa, Gpa(ADDR));
    let legacy = Bed::legacy().set(0x2280, 0x1_0009);
    assert_eq!(legacy.passes(&write()).pa, Gpa(ADDR));
}

#[test]
fn an_address_space_holds_all_that_led_to_it() {
    let bed = Bed::first();
    let space = configure(&bed.unit, &bed.mem, &pasid5(read()), &mut ()).unwrap();
    assert_eq!((space.domain, space.pasid), (DomainId(7), Pasid::new(5)));
    let switches = Switches::SCALABLE
        | Switches::DEVICE_TLB
        | Switches::PAGE_REQUESTS
        | Switches::SUPERVISOR
        | Switches::EXECUTE
        | Switches::COHERENT;
    assert_eq!(space.switches, switches);
    // WPE, NXE, SMEP, EAFE; SSADE; RID_PRIV; PGSNP; FPD.
    let bed = Bed::nested()
        .set(0x5140, 0x1_02cb)
        .set(0x5148, 0x180_0007)
        .set(0x5150, 0x2_00f3)
        .set(0x2508, 1 << 20);
    let space = configure(&bed.unit, &bed.mem, &pasid5(read()), &mut ()).unwrap();
    assert_eq!(space.switches, Switches::all());
}

#[test]
fn translation_off_lets_untranslated_requests_through_and_nothing_else() {
    let mut bed = Bed::legacy();
    bed.unit = bed.unit.with_enabled(false);
    assert_eq!(bed.passes(&write()).pa, Gpa(ADDR));
    let failure = bed.failure(&ats());
    assert_eq!(failure.cause, Cause::Disabled);
    assert!(!failure.recorded(ats().kind));
    let answer = failure.cause.completion(ats().kind);
    assert_eq!(answer, Completion::UnsupportedRequest);
}

#[test]
fn a_write_to_the_interrupt_range_is_no_dma() {
    for bed in [Bed::legacy(), Bed::first()] {
        let interrupt = bed.run(&at(0xfee0_0000, write())).0;
        assert_eq!(interrupt, Ok(Outcome::InterruptRange));
        // A zero-length read completes.
        let flush = Dma {
            access: Access::empty(),
            ..at(0xfeef_ffff, read())
        };
        assert_eq!(bed.run(&flush).0, Ok(Outcome::InterruptRange));
    }
    // So is a translation request there.
    assert_eq!(
        Bed::first().run(&at(0xfee0_0000, ats())).0,
        Ok(Outcome::InterruptRange)
    );
    // With a PASID it is an address like any other.
    Bed::first().faults(&pasid5(at(0xfee0_0000, write())), 0x71, "SFL.2");
}

#[test]
fn fpd_hides_qualified_faults_only() {
    let kind = DmaKind::Untranslated;
    // In a legacy context entry, present or not.
    let failure = Bed::legacy()
        .set(0x2280, 0x1_0002)
        .faults(&read(), 0x02, "LCT.2");
    assert!(failure.suppressed() && !failure.recorded(kind));
    let failure = Bed::legacy()
        .set(0x2280, 0x1_0003)
        .set(0x1_3008, 0)
        .failure(&read());
    assert!(!failure.recorded(kind));
    // In each of the three scalable entries.
    for (entry, word) in [(0x2500, 0x401f), (0x4000, 0x5003), (0x5140, 0x43)] {
        let bed = Bed::first().set(entry, word).set(0x2_3008, 0);
        let failure = bed.faults(&pasid5(read()), 0x71, "SFL.2");
        assert!(failure.hidden && !failure.recorded(kind), "{entry:#x}");
    }
    // An unreadable entry is reported all the same.
    let failure = Bed::first()
        .set(0x2500, 0x401f)
        .abort(0x4000)
        .faults(&read(), 0x50, "SPD.1");
    assert!(failure.hidden && failure.recorded(kind));
    assert!(
        Bed::first()
            .set(0x2_3008, 0)
            .failure(&read())
            .recorded(kind)
    );
}

/// The translation-request and translated-request columns of the specification's table.
#[test]
fn completions_follow_the_specification() {
    use Completion::{CompleterAbort, NoAccess, UnsupportedRequest};
    let rows = [
        (Cause::RootUnreadable, CompleterAbort, UnsupportedRequest),
        (
            Cause::RootNotPresent,
            UnsupportedRequest,
            UnsupportedRequest,
        ),
        (Cause::RootReserved, CompleterAbort, UnsupportedRequest),
        (
            Cause::ContextNotPresent,
            UnsupportedRequest,
            UnsupportedRequest,
        ),
        (Cause::ContextType, CompleterAbort, UnsupportedRequest),
        (
            Cause::AddressTypeBlocked,
            UnsupportedRequest,
            UnsupportedRequest,
        ),
        (
            Cause::LegacyEntryReserved,
            CompleterAbort,
            UnsupportedRequest,
        ),
        (
            Cause::LegacyInterruptRange,
            CompleterAbort,
            UnsupportedRequest,
        ),
        (Cause::AbortMode, UnsupportedRequest, UnsupportedRequest),
        (
            Cause::ScalableContextReserved,
            CompleterAbort,
            UnsupportedRequest,
        ),
        (
            Cause::DeviceTlbDisabled,
            UnsupportedRequest,
            UnsupportedRequest,
        ),
        (Cause::DirectoryUnreadable, CompleterAbort, CompleterAbort),
        (Cause::DirectoryNotPresent, NoAccess, UnsupportedRequest),
        (Cause::PasidEntryNotPresent, NoAccess, UnsupportedRequest),
        (Cause::PasidEntryType, CompleterAbort, CompleterAbort),
    ];
    for (cause, translation, translated) in rows {
        let kind = DmaKind::Translation { no_write: false };
        assert_eq!(cause.completion(kind), translation, "{cause:?}");
        assert_eq!(
            cause.completion(DmaKind::Translated),
            translated,
            "{cause:?}"
        );
        assert_eq!(cause.recorded(kind), translation != NoAccess, "{cause:?}");
    }
    // First-stage and general conditions succeed without access; second-stage ones abort, but for
    // the one that is about permissions.
    let kind = DmaKind::Translation { no_write: false };
    for (reason, answer) in [
        (0x70, NoAccess),
        (0x72, NoAccess),
        (0x77, NoAccess),
        (0x78, CompleterAbort),
        (0x79, NoAccess),
        (0x7a, CompleterAbort),
        (0x7b, CompleterAbort),
        (0x7d, CompleterAbort),
        (0x80, NoAccess),
        (0x84, NoAccess),
        (0x87, CompleterAbort),
        (0x89, UnsupportedRequest),
        (0x91, NoAccess),
        (0x04, NoAccess),
        (0x5c, NoAccess),
    ] {
        for cause in Cause::ALL.iter().filter(|c| c.reason().0 == reason) {
            assert_eq!(cause.completion(kind), answer, "{reason:#x}");
            // A failed update is reported although the request succeeds.
            let told = answer != NoAccess || reason == 0x91;
            assert_eq!(cause.recorded(kind), told, "{reason:#x}");
        }
    }
}

#[test]
fn a_translation_request_is_told_what_it_may_do() {
    let read_only = Bed::first().set(0x2_3008, 0x8_0065);
    assert_eq!(read_only.passes(&ats()).perms, Access::READ);
    assert_eq!(Bed::first().passes(&ats()).perms, Access::RW);
    let no_write = Dma {
        kind: DmaKind::Translation { no_write: true },
        ..ats()
    };
    assert_eq!(Bed::first().passes(&no_write).perms, Access::READ);
    // A unit that does not know the flag acts as if it were clear.
    assert_eq!(
        Bed::first().without(0, 1 << 33).passes(&no_write).perms,
        Access::RW
    );
    let write_only = Bed::second().set(0x1_3008, 0x8_0002);
    assert_eq!(write_only.passes(&ats()).perms, Access::WRITE);
    // Nothing at all is a failure, and not recorded.
    for (failure, reason) in [
        (write_only.failure(&no_write), 0x86),
        (Bed::first().set(0x2_3008, 0).failure(&ats()), 0x71),
        (Bed::first().set(0x2_3008, 0x8_0063).failure(&ats()), 0x81),
        (Bed::second().set(0x1_3008, 0).failure(&ats()), 0x79),
    ] {
        assert_eq!(failure.cause.reason().0, reason);
        assert_eq!(failure.cause.completion(ats().kind), Completion::NoAccess);
        assert!(!failure.recorded(ats().kind));
    }
    let execute = Dma {
        access: Access::EXEC,
        ..pasid5(ats())
    };
    assert_eq!(
        Bed::first().passes(&execute).perms,
        Access::RW | Access::EXEC
    );
}

#[test]
fn a_translated_request_needs_its_context_and_no_more() {
    let bed = Bed::first().abort(0x4000);
    assert_eq!(bed.passes(&translated()).pa, Gpa(ADDR));
    assert_eq!(
        Bed::legacy().set(0x2280, 0x1_0005).passes(&translated()).pa,
        Gpa(ADDR)
    );
}

#[test]
fn rights_are_told_for_users_and_supervisors_alike() {
    let rights = |bed: Bed| bed.passes(&pasid5(privileged(read()))).rights;
    // NXE off: nothing forbids to execute.
    let all = Access::RW | Access::EXEC;
    let open = rights(Bed::first());
    assert_eq!((open.user, open.privileged), (all, all));
    // A supervisor's read-only page, with WPE off and on.
    let bed = Bed::first().set(0x2_3008, 0x8_0061);
    let off = rights(bed.clone());
    assert_eq!((off.user, off.privileged), (Access::empty(), all));
    let on = rights(bed.set(0x5150, 0x2_0013));
    assert_eq!((on.user, on.privileged), (Access::empty(), RX));
    // Privileged requests off: a cached copy must not serve them.
    let bed = Bed::first().set(0x5150, 0x2_0002);
    assert_eq!(
        bed.passes(&pasid5(read())).rights.privileged,
        Access::empty()
    );
    // Nested: what both stages grant.
    let bed = Bed::nested().set(0x1_3400, 0x8_0001);
    assert_eq!(bed.passes(&pasid5(read())).rights.user, RX);
}

#[test]
fn a_cached_address_space_still_refuses_what_its_entries_refuse() {
    let bed = Bed::first().set(0x2500, 0x4009).set(0x5150, 0x2_0000);
    let space = configure(&bed.unit, &bed.mem, &pasid5(read()), &mut ()).unwrap();
    let reason = |dma: &Dma| {
        let mut updates = Updates::new();
        let outcome = walk(&bed.unit, &space, &bed.mem, dma, &mut updates, &mut ());
        outcome.map_err(|failure| failure.cause.reason().0)
    };
    assert_eq!(reason(&pasid5(ats())), Err(0x44));
    assert_eq!(reason(&fetch()), Err(0x5c));
    assert_eq!(reason(&pasid5(privileged(read()))), Err(0x5d));
    assert!(reason(&pasid5(read())).is_ok());
}

#[test]
fn first_stage_use_sets_accessed_and_a_write_sets_dirty() {
    let bed = Bed::first().set(0x2_1008, 0x2_2007).set(0x2_3008, 0x8_0007);
    let path = (0x2_1008, 0x2_2007, 0x2_2027);
    assert_eq!(bed.updates(&read()), [path, (0x2_3008, 0x8_0007, 0x8_0027)]);
    assert_eq!(
        bed.updates(&write()),
        [path, (0x2_3008, 0x8_0007, 0x8_0067)]
    );
    assert!(!bed.passes(&read()).dirty && bed.passes(&write()).dirty);
    // A translation request counts as a write unless it says otherwise.
    assert_eq!(bed.updates(&ats()), [path, (0x2_3008, 0x8_0007, 0x8_0067)]);
    let no_write = Dma {
        kind: DmaKind::Translation { no_write: true },
        ..ats()
    };
    assert_eq!(
        bed.updates(&no_write),
        [path, (0x2_3008, 0x8_0007, 0x8_0027)]
    );
    // With EAFE, bit 10 goes along.
    let bed = Bed::first().set(0x5010, 0x2_0083);
    assert_eq!(bed.updates(&read())[0], (0x2_0008, 0x2_1027, 0x2_1427));
    assert_eq!(bed.updates(&read()).len(), 4);
}

#[test]
fn second_stage_bits_are_set_only_where_enabled() {
    assert_eq!(Bed::second().updates(&write()), []);
    assert_eq!(Bed::legacy().updates(&write()), []);
    let bed = Bed::second().set(0x5000, 0x1_0289);
    assert_eq!(
        bed.updates(&write()),
        [
            (0x1_0008, 0x1_1003, 0x1_1103),
            (0x1_1008, 0x1_2003, 0x1_2103),
            (0x1_2008, 0x1_3003, 0x1_3103),
            (0x1_3008, 0x8_0003, 0x8_0303),
        ]
    );
    assert_eq!(bed.updates(&read())[3], (0x1_3008, 0x8_0003, 0x8_0103));
}

#[test]
fn updates_made_before_a_failure_are_told_too() {
    let bed = Bed::first().set(0x2_0008, 0x2_1007).set(0x2_3008, 0);
    bed.faults(&read(), 0x71, "SFL.2");
    assert_eq!(bed.updates(&read()), [(0x2_0008, 0x2_1007, 0x2_1027)]);
    // A page that refuses the request is not marked as used.
    let bed = Bed::first().set(0x2_3008, 0x8_0005);
    bed.faults(&write(), 0x85, "SGN.6");
    assert_eq!(bed.updates(&write()), []);
}

#[test]
fn nested_updates_reach_both_stages() {
    // SSADE; the first-stage leaf lacks D, the second stage lacks everything.
    let bed = Bed::nested().set(0x5000, 0x1_02c9).set(0x2_3008, 0x8_0027);
    let updates = bed.updates(&write());
    let second: Vec<_> = updates.iter().filter(|u| u.0 < 0x2_0000).collect();
    assert_eq!(second.len(), 8, "{updates:x?}");
    // The page holding the last first-stage table is dirty, for its entry was written; the pages of
    // the others were only read.
    assert!(updates.contains(&(0x1_3118, 0x2_3003, 0x2_3303)));
    assert!(updates.contains(&(0x1_3110, 0x2_2003, 0x2_2103)));
    assert!(updates.contains(&(0x1_3400, 0x8_0003, 0x8_0303)));
    assert!(updates.contains(&(0x2_3008, 0x8_0027, 0x8_0067)));
    // Shared upper tables are asked for once.
    assert_eq!(updates.iter().filter(|u| u.0 == 0x1_0000).count(), 1);
}

#[test]
fn applying_the_updates_leaves_none_for_the_next_walk() {
    let bed = Bed::nested()
        .set(0x5000, 0x1_02c9)
        .set(0x2_3008, 0x8_0007)
        .set(0x5010, 0x2_0083);
    let mut updates = Updates::new();
    translate(&bed.unit, &bed.mem, &write(), &mut updates, &mut ()).unwrap();
    assert!(!updates.is_empty());
    assert_eq!(apply(&updates, &bed.mem, false), Applied::Done);
    assert_eq!(bed.updates(&write()), []);
    // Once the guest has changed an entry, the walk is out of date.
    let stale = bed.set(0x2_3008, 0x8_0005);
    assert_eq!(apply(&updates, &stale.mem, false), Applied::Retry);
}

#[test]
fn a_trail_has_every_step_and_ends_at_the_culprit() {
    let bed = Bed::first().set(0x2_2008, 0x2_3026);
    let (outcome, _, trail) = bed.run(&pasid5(read()));
    assert!(outcome.is_err());
    let steps: Vec<_> = trail
        .steps()
        .iter()
        .map(|s| (s.table, s.level, s.index, s.addr.0, s.verdict))
        .collect();
    assert_eq!(
        steps,
        [
            (Table::Root, 0, 0, 0x1000, Verdict::Next),
            (Table::Context, 0, 0x28, 0x2500, Verdict::Next),
            (Table::PasidDirectory, 0, 0, 0x4000, Verdict::Next),
            (Table::PasidTable, 0, 5, 0x5140, Verdict::Next),
            (Table::FirstStage, 4, 1, 0x2_0008, Verdict::Next),
            (Table::FirstStage, 3, 1, 0x2_1008, Verdict::Next),
            (Table::FirstStage, 2, 1, 0x2_2008, Verdict::NotPresent),
        ]
    );
    assert_eq!(
        trail.steps()[3].raw.words(),
        [0x41, 0x80_0007, 0x2_0003, 0, 0, 0, 0, 0]
    );
    assert_eq!(trail.steps()[6].raw.words(), [0x2_3026]);
}

#[test]
fn a_nested_trail_shows_the_second_stage_under_each_table() {
    let (outcome, _, trail) = Bed::nested().run(&read());
    assert!(outcome.is_ok());
    // Four configuration entries, four first-stage entries over four each, and four for the page.
    assert_eq!(trail.steps().len(), 4 + 4 * 5 + 4);
    let first: Vec<_> = trail
        .steps()
        .iter()
        .filter(|s| s.table == Table::FirstStage)
        .collect();
    assert_eq!(first.len(), 4);
    assert_eq!(trail.steps().last().unwrap().verdict, Verdict::Leaf);
}

#[test]
fn io_permissions_take_the_place_of_read_and_write() {
    // SSIRWE in RTADDR_REG, on a unit that has it: bits 61 and 62 count, bits 0 and 1 do not.
    let io = |bed: Bed| {
        let unit = bed.unit;
        let mut bed = bed.rtaddr(0x1480);
        bed.unit = Unit::new(unit.cap(), unit.ecap() | 1 << 57, unit.haw()).with_rtaddr(0x1480);
        bed
    };
    let bed = io(Bed::second());
    bed.faults(&read(), 0x79, "SSL.2");
    let bed = bed
        .set(0x1_0008, 3 << 61 | 0x1_1000)
        .set(0x1_1008, 3 << 61 | 0x1_2000)
        .set(0x1_2008, 3 << 61 | 0x1_3000)
        .set(0x1_3008, 1 << 61 | 0x8_0000);
    assert_eq!(bed.passes(&read()).rights.user, RX);
    bed.faults(&write(), 0x85, "SGN.6");
    // In legacy mode the switch has no place.
    let mut bed = Bed::legacy();
    bed.unit = Unit::new(bed.unit.cap(), bed.unit.ecap() | 1 << 57, 46).with_rtaddr(0x1080);
    bed.faults(&read(), 0x30, "RTA.1");
}
