//! What an AMD-Vi walk does besides failing: translations, updates, completions, the trail.

mod bed;

use bed::amdvi::{ADDR, Bed, CONTROL, DTE, EFR, EFR2, RW};
use bed::amdvi::{at, ats, fetch, pasid5, privileged, read, translated, write};
use iommu_walk::amdvi::{
    Applied, Cause, Completion, DomainId, Outcome, Space, Switches, Unit, apply, in_special_range,
    read_space, translate, translated as let_through, walk,
};
use iommu_walk::{Table, Updates, Verdict};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Pasid, Rid};

const RX: Access = Access::READ.union(Access::EXEC);
const RWX: Access = Access::RW.union(Access::EXEC);
/// A page of a size that its address encodes: Next Level 7.
const SIZED: u64 = 7 << 9;

#[test]
fn a_page_of_host_tables_translates_with_its_offset() {
    let translation = Bed::host().passes(&write());
    assert_eq!(translation.pa, Gpa(0x8_0abc));
    assert_eq!(translation.page_shift, 12);
    assert_eq!((translation.rights.user, translation.perms), (RWX, RWX));
    assert!(translation.dirty && !translation.snoop);
    // FC.
    assert!(Bed::host().add(0x1_3008, 1 << 60).passes(&write()).snoop);
}

/// Each Mode, with a chain of tables from its level down; the lowest nine bits of each index are 1.
#[test]
fn one_to_six_levels_translate() {
    for levels in 1..=6_u64 {
        let mut bed = Bed::host().set(DTE, RW | 0x10_0003 | levels << 9);
        let mut addr = 0xabc;
        for level in (1..=levels).rev() {
            addr |= 1 << (3 + 9 * level);
            let next = level - 1;
            let below = if next == 0 {
                0x8_0000
            } else {
                next * 0x1_0000 + 0x10_0000
            };
            let table = if level == levels {
                0x10_0000
            } else {
                level * 0x1_0000 + 0x10_0000
            };
            bed = bed.set(table + 8, RW | below | next << 9 | 1);
        }
        let translation = bed.passes(&at(addr, write()));
        assert_eq!(translation.pa, Gpa(0x8_0abc), "{levels} levels");
    }
    // The seven bits of the sixth level, straight to the first.
    let bed = Bed::host()
        .set(DTE, RW | 0x10_0c03)
        .set(0x10_0000 + 8 * 0x7f, RW | 0x1_3201)
        .set(0x1_3000, RW | 0x7_0001);
    let translation = bed.passes(&at(0xfe00_0000_0000_0abc, read()));
    assert_eq!(translation.pa, Gpa(0x7_0abc));
}

/// Next Level 0 at each level maps a page of that level's size.
#[test]
fn a_page_can_end_the_walk_at_levels_one_to_five() {
    for level in 1..=5_u64 {
        let shift = u8::try_from(3 + 9 * level).unwrap();
        // The third page of the table: the first two of some level reach into a special range.
        let base = 2_u64 << shift;
        let bed = Bed::host()
            .set(DTE, RW | 0x10_0003 | level << 9)
            .set(0x10_0010, RW | base | 1);
        let translation = bed.passes(&at(base | 0xabc, read()));
        assert_eq!(translation.page_shift, shift);
        assert_eq!(translation.pa, Gpa(base | 0xabc));
    }
}

/// Every size of the specification's table of page size encodings, at its level.
#[test]
fn every_encoded_page_size_translates() {
    let mut sizes = 0;
    for level in 1..=5_u32 {
        let own = 3 + 9 * level;
        for shift in (own + 1..own + 9).filter(|shift| *shift <= 53) {
            // The lowest zero of the address is the bit below the size.
            let ones = ((1_u64 << (shift - 13)) - 1) << 12;
            let base = if shift < 51 { 1_u64 << shift } else { 0 };
            let bed = Bed::host()
                .set(DTE, RW | 0x10_0003 | u64::from(level) << 9)
                .set(0x10_0000, RW | base | ones | SIZED | 1);
            // An address whose index is zero, and whose offset goes as high as that allows.
            let addr = (1_u64 << (own - 1)) | 0xabc;
            let translation = bed.passes(&at(addr, read()));
            let clear = if shift < 32 {
                u8::try_from(shift).unwrap()
            } else {
                12
            };
            assert_eq!(translation.page_shift, clear, "level {level}, 2^{shift}");
            assert_eq!(translation.pa, Gpa(base | addr), "level {level}, 2^{shift}");
            sizes += 1;
        }
    }
    assert_eq!(sizes, 37);
    // Entry 3 of four that map one page of 16 KiB.
    let bed = Bed::host().set(0x1_3018, RW | 0x4_1000 | SIZED | 1);
    let translation = bed.passes(&at(0x80_4020_3abc, read()));
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x4_3abc), 14)
    );
}

#[test]
fn levels_are_skipped_where_the_address_allows_it() {
    // From each level above to each below: the address has only the indices of those two.
    for top in 2..=6_u64 {
        for next in 1..top {
            let bed = Bed::host()
                .set(DTE, RW | 0x10_0003 | top << 9)
                .set(0x10_0008, RW | 0x11_0001 | next << 9)
                .set(0x11_0008, RW | 1 | 1 << (3 + 9 * next) & 0xf_ffff_ffff_f000);
            let addr = 1 << (3 + 9 * top) | 1 << (3 + 9 * next) | 0xabc;
            let translation = bed.passes(&at(addr, read()));
            assert_eq!(translation.pa.0 & 0xfff, 0xabc, "{top} to {next}");
            assert_eq!(
                u64::from(translation.page_shift),
                3 + 9 * next,
                "{top} to {next}"
            );
            for skipped in next + 1..top {
                let low = 1_u64 << (3 + 9 * skipped);
                let failure = bed.failure(&at(addr | low, read()));
                assert_eq!(failure.cause, Cause::HostSkippedLevels, "{top} to {next}");
                let high = low << 8;
                let failure = bed.failure(&at(addr | high, read()));
                assert_eq!(failure.cause, Cause::HostSkippedLevels, "{top} to {next}");
            }
        }
    }
}

#[test]
fn rights_are_those_that_every_entry_grants() {
    let only_read = 0x4000_0000_0000_0000;
    for entry in [DTE, 0x1_0008, 0x1_2008, 0x1_3008] {
        let translation = Bed::host().take(entry, only_read).passes(&read());
        assert_eq!(translation.rights.user, RX, "{entry:#x}");
    }
    // One grants read alone, another write alone: together nothing.
    let bed = Bed::host()
        .take(0x1_0008, only_read)
        .take(0x1_3008, 0x2000_0000_0000_0000);
    assert_eq!(bed.failure(&read()).cause, Cause::HostReadDenied);
    assert_eq!(bed.failure(&write()).cause, Cause::HostWriteDenied);
    let translation_request = bed.add(DTE + 8, 1 << 32).failure(&ats());
    assert_eq!(translation_request.cause, Cause::HostWriteDenied);
    assert_eq!(translation_request.entry_addr, Some(Gpa(0x1_0008)));
    // A zero-length read makes do with write.
    let flush = Dma {
        access: Access::empty(),
        ..read()
    };
    Bed::host()
        .take(0x1_3008, 0x2000_0000_0000_0000)
        .passes(&flush);
    Bed::host().take(DTE, 0x2000_0000_0000_0000).passes(&flush);
}

#[test]
fn an_entry_that_says_nothing_lets_everything_pass() {
    let bed = Bed::host().set(DTE, 0).set(DTE + 8, 0);
    let translation = bed.passes(&at(0x1234_5678, write()));
    assert_eq!(translation.pa, Gpa(0x1234_5678));
    assert_eq!((translation.page_shift, translation.rights.user), (30, RWX));
    // IR and IW are nothing to it; the HyperTransport range is.
    assert_eq!(
        bed.failure(&at(0xfd_0000_0000, write())).cause,
        Cause::HypertransportRange
    );
}

#[test]
fn without_host_tables_addresses_stay_as_they_are() {
    let translation = Bed::identity().passes(&at(0x1234_5678, write()));
    assert_eq!(translation.pa, Gpa(0x1234_5678));
    assert_eq!((translation.page_shift, translation.snoop), (30, false));
    // Mode0FC counts with AttrV.
    let coherent = Bed::identity().set(DTE + 24, 0b11 << 54);
    assert!(coherent.passes(&write()).snoop);
    assert!(
        !Bed::identity()
            .set(DTE + 24, 1 << 55)
            .passes(&write())
            .snoop
    );
}

#[test]
fn no_page_reaches_into_a_special_range() {
    let bed = Bed::identity();
    for (addr, shift) in [
        (0xc000_0000, 12), // the gigabyte of the interrupt range
        (0x1_0000_0000, 30),
        (0xfc_c000_0000, 30),
        (0x100_0000_0000, 30),
    ] {
        assert_eq!(bed.passes(&at(addr, read())).page_shift, shift, "{addr:#x}");
    }
    assert!(in_special_range(Iova(0xfee0_0000)) && in_special_range(Iova(0xfeef_ffff)));
    assert!(!in_special_range(Iova(0xfedf_ffff)) && !in_special_range(Iova(0xfef0_0000)));
    // A 2 MiB page beside the range, and one around it.
    let page = |addr: u64| {
        let bed = Bed::host()
            .set(DTE, RW | 0x10_0603)
            .set(0x10_0018, RW | 0x11_0401)
            .set(0x11_0000 + 8 * (addr >> 21 & 0x1ff), RW | 0x20_0001);
        bed.passes(&at(addr, read())).page_shift
    };
    assert_eq!((page(0xfec0_0000), page(0xfef0_0000)), (21, 12));
}

#[test]
fn an_interrupt_is_not_translated() {
    let bed = Bed::host();
    let (message, request) = (at(0xfee0_1000, write()), at(0xfee0_1000, ats()));
    assert_eq!(bed.run(&message).0, Ok(Outcome::InterruptRange));
    // Whether a device may ask for translations at all is looked at first.
    assert_eq!(bed.failure(&request).cause, Cause::DeviceTlbDisabled);
    let allowed = bed.clone().add(DTE + 8, 1 << 32);
    assert_eq!(allowed.run(&request).0, Ok(Outcome::InterruptRange));
    // Whatever the device table has, and without looking there.
    let bed = bed.abort(DTE);
    assert_eq!(bed.run(&message).0, Ok(Outcome::InterruptRange));
}

#[test]
fn the_exclusion_range_passes_untranslated() {
    // Allow: all devices.
    let (from, to) = (0x80_4020_1000, 0x80_4020_2000);
    let bed = Bed::host().exclusion(from | 0b11, to);
    for addr in [ADDR, 0x80_4020_2fff] {
        let translation = bed.passes(&at(addr, write()));
        assert_eq!((translation.pa, translation.page_shift), (Gpa(addr), 12));
    }
    assert_eq!(
        bed.failure(&at(0x80_4020_3000, write())).cause,
        Cause::HostEntryNotPresent
    );
    assert_eq!(
        bed.failure(&at(0x80_4020_0fff, write())).cause,
        Cause::HostEntryNotPresent
    );
    // Rights are no matter.
    assert_eq!(bed.clone().take(DTE, RW).passes(&write()).pa, Gpa(ADDR));
    // Without Allow, those with EX.
    let some = Bed::host().exclusion(from | 0b01, to);
    assert_eq!(some.passes(&write()).pa, Gpa(0x8_0abc));
    let chosen = some.add(DTE + 8, 1 << 39);
    assert_eq!(chosen.passes(&write()).pa, Gpa(ADDR));
    // Off.
    let off = Bed::host().exclusion(from | 0b10, to);
    assert_eq!(off.passes(&write()).pa, Gpa(0x8_0abc));
    // It is about guest physical addresses.
    let guest = Bed::guest().exclusion(from | 0b11, to);
    assert_eq!(guest.passes(&pasid5(write())).pa, Gpa(0x8_0abc));
    // A page that reaches into the range is cut.
    let large = Bed::host()
        .set(0x1_2008, RW | 0x20_0001)
        .exclusion(0x80_403f_f003, 0x80_403f_f000);
    let translation = large.passes(&read());
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x20_1abc), 12)
    );
    assert_eq!(
        large
            .exclusion(0x80_4040_0003, 0x80_4040_0000)
            .passes(&read())
            .page_shift,
        21
    );
}

#[test]
fn guest_tables_translate_the_addresses_of_a_pasid() {
    let translation = Bed::guest().passes(&pasid5(write()));
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x8_0abc), 12)
    );
    assert_eq!(translation.rights.user, RWX);
    assert_eq!(translation.rights.privileged, RWX);
    // Without a PASID, the host tables; there are none.
    assert_eq!(Bed::guest().passes(&write()).pa, Gpa(ADDR));
    // GIoV: PASID 0.
    let guest_io = Bed::guest().add(DTE, 1 << 54);
    assert_eq!(guest_io.passes(&write()).pa, Gpa(0x8_0abc));
    let failure = guest_io.set(0x4000, 0).failure(&write());
    assert_eq!(
        (failure.cause, failure.detail.pasid),
        (Cause::GuestCr3NotPresent, Pasid::new(0))
    );
}

#[test]
fn guest_cr3_tables_have_one_to_three_levels() {
    let pasid = |value| Dma {
        pasid: Pasid::new(value),
        ..write()
    };
    let two = Bed::guest()
        .add(DTE, 1 << 56)
        .set(0x4008, 0x5001)
        .set(0x5010, 0x2_0001);
    assert_eq!(two.passes(&pasid(0x202)).pa, Gpa(0x8_0abc));
    assert_eq!(two.failure(&pasid(0x201)).cause, Cause::GuestCr3NotPresent);
    assert_eq!(
        two.failure(&pasid(0x4_0000)).cause,
        Cause::PasidOutsideTable
    );
    let three = Bed::guest()
        .add(DTE, 2 << 56)
        .set(0x4008, 0x5001)
        .set(0x5010, 0x6001)
        .set(0x6018, 0x2_0001);
    assert_eq!(three.passes(&pasid(0x4_0403)).pa, Gpa(0x8_0abc));
    let trail = three.run(&pasid(0x4_0403)).2;
    let steps: Vec<_> = trail.steps().iter().map(|s| (s.table, s.index)).collect();
    assert_eq!(
        steps[..4],
        [
            (Table::DeviceTable, 0x28),
            (Table::GuestCr3, 1),
            (Table::GuestCr3, 2),
            (Table::GuestCr3, 3)
        ]
    );
}

#[test]
fn guest_tables_have_four_or_five_levels_and_large_pages() {
    let five = Bed::guest()
        .set(DTE + 16, 1 << 54)
        .set(0x4028, 0x3_0001)
        .set(0x3_0000, 0x2_0027);
    assert_eq!(five.passes(&pasid5(write())).pa, Gpa(0x8_0abc));
    let big = Bed::guest()
        .set(0x2_2008, 0x60_00e7)
        .passes(&pasid5(write()));
    assert_eq!((big.pa, big.page_shift), (Gpa(0x60_1abc), 21));
    let huge = Bed::guest()
        .set(0x2_1008, 0x4000_00e7)
        .passes(&pasid5(write()));
    assert_eq!((huge.pa, huge.page_shift), (Gpa(0x4020_1abc), 30));
}

#[test]
fn guest_rights_follow_the_table_and_the_device() {
    let rights = |bed: Bed| bed.passes(&pasid5(read())).rights;
    assert_eq!(rights(Bed::guest().set(0x2_2008, 0x2_3025)).user, RX);
    assert_eq!(rights(Bed::guest().add(0x2_0008, 1 << 63)).user, Access::RW);
    // IW of the device table entry.
    assert_eq!(rights(Bed::guest().take(DTE, 1 << 62)).user, RX);
    let supervisor = Bed::guest().set(0x2_3008, 0x8_0063);
    let rights = supervisor.passes(&privileged(pasid5(read()))).rights;
    assert_eq!((rights.user, rights.privileged), (Access::empty(), RWX));
    Bed::guest().passes(&fetch());
}

#[test]
fn guest_tables_over_host_tables_translate() {
    let translation = Bed::nested().passes(&pasid5(write()));
    assert_eq!(
        (translation.pa, translation.page_shift),
        (Gpa(0x8_0abc), 12)
    );
    // Elsewhere, and only to read.
    let bed = Bed::nested().set(0x1_3400, 0x2000_0000_0009_0001);
    let translation = bed.passes(&pasid5(read()));
    assert_eq!(
        (translation.pa, translation.rights.user),
        (Gpa(0x9_0abc), RX)
    );
    let failure = bed.failure(&pasid5(write()));
    assert_eq!(
        (failure.cause, failure.stage),
        (Cause::HostWriteDenied, Some(iommu_walk::Stage::Second))
    );
    assert_eq!(
        (failure.guest_addr, failure.detail.pasid),
        (Some(Gpa(0x8_0abc)), None)
    );
    assert_eq!(
        (failure.detail.domain, failure.address(&pasid5(write()))),
        (DomainId(7), 0x8_0abc)
    );
    // A request without a PASID goes through the host tables alone.
    assert_eq!(
        Bed::nested().passes(&at(0x8_0abc, write())).pa,
        Gpa(0x8_0abc)
    );
    // A missing host page of a guest table.
    let failure = Bed::nested().set(0x1_3110, 0).failure(&pasid5(read()));
    assert_eq!(
        (failure.cause, failure.guest_addr),
        (Cause::HostEntryNotPresent, Some(Gpa(0x2_2008)))
    );
}

#[test]
fn the_guest_cr3_table_pointer_is_physical_unless_the_unit_is_told() {
    // The host maps 0x4000 to 0x6000, where the same table is empty.
    let bed = Bed::nested().set(0x1_3020, RW | 0x6001);
    assert_eq!(bed.passes(&pasid5(read())).pa, Gpa(0x8_0abc));
    let told = bed.control(CONTROL | 1 << 58);
    let failure = told.failure(&pasid5(read()));
    assert_eq!(
        (failure.cause, failure.entry_addr),
        (Cause::GuestCr3NotPresent, Some(Gpa(0x6028)))
    );
    // Not a unit that does not have it.
    assert_eq!(
        told.features(EFR, 0).passes(&pasid5(read())).pa,
        Gpa(0x8_0abc)
    );
    // Lower tables always go through the host's.
    let two = Bed::nested()
        .add(DTE, 1 << 56)
        .set(0x4000, 0x5001)
        .set(0x1_3028, RW | 0x7001)
        .set(0x7028, 0x2_0001);
    assert_eq!(two.passes(&pasid5(read())).pa, Gpa(0x8_0abc));
}

#[test]
fn host_accessed_and_dirty_bits_follow_had() {
    assert_eq!(Bed::host().updates(&write()), []);
    let accessed = Bed::host().add(DTE, 1 << 7);
    let all = |leaf: u64| {
        vec![
            (0x1_0008, RW | 0x1_1601, RW | 0x1_1621),
            (0x1_1008, RW | 0x1_2401, RW | 0x1_2421),
            (0x1_2008, RW | 0x1_3201, RW | 0x1_3221),
            (0x1_3008, RW | 0x8_0001, RW | 0x8_0001 | leaf),
        ]
    };
    assert_eq!(accessed.updates(&write()), all(0x20));
    assert!(accessed.passes(&read()).dirty);
    let both = Bed::host().add(DTE, 3 << 7);
    assert_eq!(both.updates(&read()), all(0x20));
    assert_eq!(both.updates(&write()), all(0x60));
    assert!(both.passes(&write()).dirty && !both.passes(&read()).dirty);
    // Once set, nothing is due.
    let done = both
        .add(0x1_0008, 0x20)
        .add(0x1_1008, 0x20)
        .add(0x1_2008, 0x20)
        .add(0x1_3008, 0x60);
    assert_eq!(done.updates(&write()), []);
    assert!(done.passes(&read()).dirty);
}

#[test]
fn an_entry_that_does_not_lead_down_gets_no_accessed_bit() {
    let accessed = Bed::host().add(DTE, 1 << 7);
    // Of level 3: Next Level 3, and 1, which skips an index that is not zero.
    for (entry, cause) in [
        (RW | 0x1_2601, Cause::HostLevel),
        (RW | 0x1_2201, Cause::HostSkippedLevels),
    ] {
        let bed = accessed.clone().set(0x1_1008, entry);
        assert_eq!(bed.failure(&write()).cause, cause);
        assert_eq!(
            bed.updates(&write()),
            [(0x1_0008, RW | 0x1_1601, RW | 0x1_1621)]
        );
    }
}

#[test]
fn guest_accessed_and_dirty_bits_are_set() {
    let bed = Bed::guest().set(0x2_2008, 0x2_3007).set(0x2_3008, 0x8_0007);
    assert_eq!(
        bed.updates(&pasid5(read())),
        [
            (0x2_2008, 0x2_3007, 0x2_3027),
            (0x2_3008, 0x8_0007, 0x8_0027)
        ]
    );
    assert_eq!(
        bed.updates(&pasid5(write()))[1],
        (0x2_3008, 0x8_0007, 0x8_0067)
    );
    // GDUpdateDis, and GAUpdateDis with it.
    let no_dirty = bed.clone().control(CONTROL | 1 << 48);
    assert_eq!(
        no_dirty.updates(&pasid5(write()))[1],
        (0x2_3008, 0x8_0007, 0x8_0027)
    );
    assert!(no_dirty.passes(&pasid5(read())).dirty);
    let none = bed.control(CONTROL | 1 << 48 | 1 << 54);
    assert_eq!(none.updates(&pasid5(write())), []);
    // Over host tables, setting one is a write to the guest's table.
    let nested = Bed::nested().add(DTE, 3 << 7).set(0x2_3008, 0x8_0007);
    let updates = nested.updates(&pasid5(write()));
    assert!(updates.contains(&(0x1_3118, RW | 0x2_3001, RW | 0x2_3061)));
    assert!(updates.contains(&(0x2_3008, 0x8_0007, 0x8_0067)));
}

#[test]
fn applied_updates_leave_nothing_to_do() {
    let bed = Bed::nested().add(DTE, 3 << 7).set(0x2_3008, 0x8_0007);
    let mut updates = Updates::new();
    translate(&bed.unit, &bed.mem, &pasid5(write()), &mut updates, &mut ()).unwrap();
    let space = read_space(&bed.unit, &bed.mem, &write(), &mut ()).unwrap();
    let detail = space.detail(Pasid::new(5));
    assert_eq!(apply(&updates, &bed.mem, detail, false), Applied::Done);
    assert_eq!(bed.updates(&pasid5(write())), []);
    // An entry that has changed meanwhile is not touched.
    assert_eq!(apply(&updates, &bed.mem, detail, false), Applied::Retry);
}

#[test]
fn a_translation_request_gets_what_is_there() {
    let allowed = |bed: Bed| bed.add(DTE + 8, 1 << 32);
    let translation = allowed(Bed::host()).passes(&ats());
    assert_eq!(
        (translation.pa, translation.perms),
        (Gpa(0x8_0abc), Access::RW)
    );
    let no_write = Dma {
        kind: DmaKind::Translation { no_write: true },
        ..read()
    };
    assert_eq!(allowed(Bed::host()).passes(&no_write).perms, Access::READ);
    let only_read = allowed(Bed::host()).take(0x1_3008, 1 << 62);
    assert_eq!(only_read.passes(&ats()).perms, Access::READ);
    // Nothing there: success without rights, and no event.
    let failure = allowed(Bed::host()).set(0x1_3008, 0).failure(&ats());
    assert_eq!(failure.cause.completion(ats().kind), Completion::NoAccess);
    assert!(!failure.recorded(ats().kind));
    let translation = allowed(Bed::guest()).passes(&pasid5(ats()));
    assert_eq!(
        (translation.pa, translation.perms),
        (Gpa(0x8_0abc), Access::RW)
    );
    assert_eq!(
        allowed(Bed::identity()).passes(&no_write).perms,
        Access::READ
    );
    let excluded = allowed(Bed::host()).exclusion(3, 0xff_ffff_f000);
    assert_eq!(excluded.passes(&at(0x1000, no_write)).perms, Access::READ);
}

#[test]
fn a_translated_request_passes_with_the_devices_permission() {
    let bed = Bed::host().add(DTE + 8, 1 << 32);
    assert_eq!(bed.passes(&translated()).pa, Gpa(ADDR));
    let space = read_space(&bed.unit, &bed.mem, &translated(), &mut ()).unwrap();
    assert_eq!(
        let_through(&bed.unit, &space, &translated()).unwrap().pa,
        Gpa(ADDR)
    );
    let failure = let_through(&bed.unit, &Space::PASS_THROUGH, &translated()).unwrap_err();
    assert_eq!(failure.cause, Cause::DeviceTlbDisabled);
}

#[test]
fn sa_hides_page_faults_and_se_all_but_the_first() {
    let bed = Bed::host().set(0x1_3008, 0);
    let plain = bed.failure(&write());
    assert!(plain.recorded(write().kind) && !plain.only_once());
    let once = bed.clone().add(DTE + 8, 1 << 33).failure(&write());
    assert!(once.recorded(write().kind) && once.only_once() && once.detail.once);
    let never = bed.clone().add(DTE + 8, 1 << 34).failure(&write());
    assert!(never.hidden && never.suppressed() && !never.recorded(write().kind));
    // No other event.
    let hardware = bed.abort(0x1_3008).add(DTE + 8, 3 << 33).failure(&write());
    assert_eq!(hardware.cause, Cause::HostEntryUnreadable);
    assert!(hardware.recorded(write().kind) && !hardware.only_once());
}

#[test]
fn the_device_table_can_have_segments() {
    // Two segments: the highest bit of the requester chooses.
    let unit = Unit::new(EFR, EFR2)
        .with_control(CONTROL | 1 << 34)
        .with_device_table(0x1000)
        .with_segment(1, 0x9000);
    let bed = Bed::host().set(0x9500, RW | 0x1_0803).set(0x9508, 0x0009);
    let dma = Dma {
        requester: Rid(0x8028),
        ..write()
    };
    let space = read_space(&unit, &bed.mem, &dma, &mut ()).unwrap();
    assert_eq!(space.domain(), DomainId(9));
    let space = read_space(&unit, &bed.mem, &write(), &mut ()).unwrap();
    assert_eq!(space.domain(), DomainId(7));
    // One segment of the largest size has room for all.
    let unit = Unit::new(EFR, EFR2)
        .with_control(CONTROL)
        .with_device_table(0x10_01ff);
    let dma = Dma {
        requester: Rid(0xffff),
        ..write()
    };
    let bed = Bed::host().set(0x10_0000 + 0xffff * 32, RW | 3);
    let space = read_space(&unit, &bed.mem, &dma, &mut ()).unwrap();
    assert!(space.switches().contains(Switches::TRANSLATING));
}

#[test]
fn a_space_can_be_walked_again_without_its_entry() {
    let bed = Bed::host().add(DTE + 8, 1 << 32 | 1 << 39);
    let space = read_space(&bed.unit, &bed.mem, &read(), &mut ()).unwrap();
    assert_eq!(space.domain(), DomainId(7));
    let host = space.host().unwrap();
    assert_eq!((host.root, host.levels), (Gpa(0x1_0000), 4));
    let switches = Switches::READ
        | Switches::WRITE
        | Switches::VALID
        | Switches::TRANSLATING
        | Switches::DEVICE_TLB
        | Switches::EXCLUSION;
    assert_eq!((space.switches(), space.guest()), (switches, None));
    let bed = bed.abort(DTE);
    let mut updates = Updates::new();
    let outcome = walk(&bed.unit, &space, &bed.mem, &write(), &mut updates, &mut ());
    assert!(matches!(outcome, Ok(Outcome::Memory(t)) if t.pa == Gpa(0x8_0abc)));
}

#[test]
fn the_trail_has_every_entry_of_the_way() {
    let trail = Bed::nested().run(&pasid5(write())).2;
    let steps = trail.steps();
    // The device table, the guest CR3, four guest entries behind four host entries each, the page.
    assert_eq!(steps.len(), 1 + 1 + 4 * 5 + 4);
    assert_eq!(
        (steps[0].table, steps[0].addr, steps[0].index),
        (Table::DeviceTable, Gpa(DTE), 0x28)
    );
    assert_eq!(
        (steps[1].table, steps[1].addr),
        (Table::GuestCr3, Gpa(0x4028))
    );
    assert_eq!((steps[2].table, steps[2].level), (Table::SecondStage, 4));
    assert_eq!(
        (steps[6].table, steps[6].level, steps[6].index),
        (Table::FirstStage, 4, 1)
    );
    assert_eq!(steps[25].verdict, Verdict::Leaf);
    // A refusal names the entry.
    let refused = Bed::host().take(0x1_1008, 1 << 62).run(&write()).2;
    let last = refused.steps().last().unwrap();
    assert_eq!((last.level, last.verdict), (3, Verdict::Refused));
}
