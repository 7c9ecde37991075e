//! Each operation, and what its completion says.

use super::*;

fn mapped() -> Bench {
    let bench = Bench::new();
    for page in 1..=8 {
        bench.map(page << 12, Access::RW);
    }
    bench
}

#[test]
fn a_noop_completes() {
    let bench = mapped();
    assert_eq!(bench.submit(Desc::new(0, CRAV | RCR)), done(1));
    assert!(bench.wakes.load(Ordering::SeqCst) > 0);
}

#[test]
fn success_without_a_request_writes_no_record_and_a_failure_does() {
    let bench = mapped();
    assert_eq!(bench.submit(Desc::new(0, CRAV)), done(0));
    assert_eq!(bench.submit(Desc::new(99, CRAV)), done(0x10));
    assert_eq!(bench.error(), None);
}

#[test]
fn a_fill_repeats_its_pattern_and_keeps_to_its_size() {
    let bench = mapped();
    let fill = Desc::new(FILL, CRAV | RCR)
        .first(u64::from_le_bytes(*b"abcdefgh"))
        .second(0x1ffd)
        .size(0x100b);
    assert_eq!(bench.submit(fill), done(1));
    let mut expected: Vec<u8> = b"abcdefgh".iter().copied().cycle().take(0x100b).collect();
    expected.push(0);
    assert_eq!(bench.read(0x1ffd, 0x100c), expected);
}

#[test]
fn a_transfer_of_many_chunks_moves_every_byte() {
    let bench = Bench::new();
    for page in 0..0x200 {
        bench.map(0x40_0000 + (page << 12), Access::RW);
        bench.map(0x80_0000 + (page << 12), Access::RW);
    }
    let bytes: Vec<u8> = (0..0x1f_fff0u32)
        .map(|i| i.to_le_bytes()[i as usize % 3])
        .collect();
    bench.write(0x40_0008, &bytes);
    let copy = Desc::new(MOVE, CRAV | RCR)
        .first(0x40_0008)
        .second(0x80_0003)
        .size(0x1f_fff0);
    assert_eq!(bench.submit(copy), done(1));
    assert_eq!(bench.read(0x80_0003, bytes.len()), bytes);
}

#[test]
fn a_comparison_finds_the_first_difference() {
    let bench = mapped();
    bench.write(0x1000, &[7; 0x2000]);
    bench.write(0x4000, &[7; 0x2000]);
    let compare = Desc::new(COMPARE, CRAV | RCR)
        .first(0x1000)
        .second(0x4000)
        .size(0x2000);
    assert_eq!(bench.submit(compare), done(1));
    bench.write(0x5234, &[8]);
    let different = Record {
        result: 1,
        completed: 0x1234,
        ..done(1)
    };
    assert_eq!(bench.submit(compare), different);
    // Check Result, with Expected Result 0 and then 1.
    let checked = Desc::new(COMPARE, CRAV | RCR | CR)
        .first(0x1000)
        .second(0x4000)
        .size(0x2000);
    assert_eq!(bench.submit(checked).status, 2);
    assert_eq!(bench.submit(checked.put(40, &[1])).status, 1);
    assert_eq!(bench.submit(checked.put(40, &[1]).size(0x100)).status, 2);
}

#[test]
fn a_comparison_with_a_pattern_begins_at_its_first_byte() {
    let bench = mapped();
    let pattern = *b"abcdefgh";
    let buffer: Vec<u8> = pattern.iter().copied().cycle().take(0x1801).collect();
    bench.write(0x1003, &buffer);
    let compare = Desc::new(COMPARE_PATTERN, CRAV | RCR)
        .first(0x1003)
        .second(u64::from_le_bytes(pattern))
        .size(0x1801);
    assert_eq!(bench.submit(compare), done(1));
    bench.write(0x1003 + 0x1800, b"x");
    let record = bench.submit(compare);
    assert_eq!(
        (record.status, record.result, record.completed),
        (1, 1, 0x1800)
    );
}

#[test]
fn a_difference_before_a_fault_is_reported_instead_of_it() {
    let bench = mapped();
    bench.write(0x8f00, &[7; 0x100]);
    bench.write(0x1000, &[7; 0x200]);
    // The first buffer ends in a page that is not there.
    let compare = Desc::new(COMPARE, CRAV | RCR)
        .first(0x8f00)
        .second(0x1000)
        .size(0x180);
    let fault = Record {
        status: 0x03,
        completed: 0x100,
        fault: 0x9000,
        result: 0,
    };
    assert_eq!(bench.submit(compare), fault);
    bench.write(0x10ff, &[8]);
    let record = bench.submit(compare);
    assert_eq!(
        (record.status, record.result, record.completed),
        (1, 1, 0xff)
    );
}

#[test]
fn bad_descriptors_end_with_the_status_of_their_mistake() {
    let bench = mapped();
    let base = Desc::new(MOVE, CRAV | RCR)
        .first(0x1000)
        .second(0x2000)
        .size(64);
    let compare = Desc::new(COMPARE, CRAV)
        .first(0x1000)
        .second(0x2000)
        .size(64);
    let cases: [(&str, Desc, u8); 20] = [
        ("unknown operation", Desc::new(0x42, CRAV | RCR), 0x10),
        (
            "an operation of real devices only",
            Desc::new(9, CRAV | RCR),
            0x10,
        ),
        (
            "fence outside of a batch",
            Desc::new(0, CRAV | RCR | FENCE),
            0x11,
        ),
        (
            "block on fault for a no-op",
            Desc::new(0, CRAV | RCR | BOF),
            0x11,
        ),
        ("interrupt for a user", Desc::new(0, CRAV | RCR | RCI), 0x11),
        ("reserved flag", Desc::new(MOVE, CRAV | RCR | 0x40), 0x11),
        (
            "readback, not a capability here",
            Desc::new(MOVE, CRAV | RCR | 0x4000),
            0x11,
        ),
        ("a comparison nobody hears of", compare, 0x11),
        (
            "check result of a copy",
            Desc::new(MOVE, CRAV | RCR | CR),
            0x11,
        ),
        ("a drain nobody hears of", Desc::new(2, CRAV), 0x11),
        ("source of a no-op", Desc::new(0, CRAV | RCR).first(1), 0x12),
        (
            "handle without an interrupt",
            Desc::new(0, CRAV | RCR).handle(1),
            0x12,
        ),
        (
            "pattern of 16 bytes",
            Desc::new(FILL, CRAV | RCR)
                .second(0x2000)
                .size(8)
                .put(40, &[1]),
            0x12,
        ),
        ("last reserved byte", base.put(63, &[1]), 0x12),
        ("nothing to move", base.size(0), 0x13),
        (
            "more than the work queue allows",
            base.size((2 << 20) + 1),
            0x13,
        ),
        (
            "the end of the address space",
            base.first(u64::MAX - 62),
            0x13,
        ),
        ("overlap", base.second(0x103f), 0x16),
        ("overlap from below", base.first(0x203f), 0x16),
        (
            "a batch of one",
            Desc::new(1, CRAV | RCR).first(0x1000).size(1),
            0x14,
        ),
    ];
    for (name, desc, status) in cases {
        let record = bench.submit(desc);
        assert_eq!(record.status, status, "{name}");
        assert_eq!(bench.error(), None, "{name}");
    }
    assert_eq!(
        bench.submit(base.second(0x1040)).status,
        1,
        "next to each other"
    );
    assert_eq!(
        bench.submit(base.first(u64::MAX - 63)).status,
        0x03,
        "up to the end is no wrap"
    );
}

#[test]
fn a_flag_that_is_invalid_is_named() {
    let bench = mapped();
    bench.submit(Desc::new(0, CRAV | RCR | FENCE | BOF));
    assert_eq!(bench.read(RECORDS + 16, 4), [0x03, 0, 0, 0]);
    bench.submit(
        Desc::new(COMPARE, CRAV)
            .first(0x1000)
            .second(0x2000)
            .size(1),
    );
    assert_eq!(
        bench.read(RECORDS + 16, 4),
        [0x08, 0, 0, 0],
        "the one that is missing"
    );
}

#[test]
fn what_no_record_can_tell_is_a_software_error() {
    let bench = mapped();
    bench.store(0, &Desc::new(0x42, 0));
    bench.run();
    // operation 0x42, PASID 5, WQ 0, error 0x10, WQ and descriptor valid
    assert_eq!(bench.get64(SWERROR), 0x0000_0542_0000_100d);
    assert_eq!(bench.interrupts(), [0]);
    assert_eq!(bench.get(INTCAUSE), 1);
    assert_eq!(bench.error(), Some(0x10));
    bench.store(0, &Desc::new(0, CRAV | RCR).record(RECORDS + 16));
    bench.run();
    assert_eq!(bench.error(), Some(0x1b), "misaligned");
    bench.store(0, &Desc::new(0, 0).record(RECORDS));
    bench.run();
    assert_eq!(bench.error(), Some(0x12), "an address that is not valid");
    bench.store(0, &Desc::new(0, RCR));
    bench.run();
    assert_eq!(
        bench.get64(SWERROR + 8),
        0x8_0000_0000,
        "the flag that was invalid"
    );
    assert_eq!(bench.error(), Some(0x11));
}

#[test]
fn completion_interrupts_need_permission_and_follow_the_record() {
    let bench = mapped();
    let noop = |handle| Desc::new(0, CRAV | RCR | RCI).handle(handle);
    // User-mode interrupts are enabled while the device is disabled.
    assert_eq!(bench.command(DISABLE_DEVICE), 0);
    bench.set(GENCFG, 1 << 12);
    assert_eq!(bench.command(ENABLE_DEVICE), 0);
    assert_eq!(bench.command(ENABLE_WQ), 0);
    assert_eq!(bench.submit(noop(1)).status, 0x19, "the entry has no PASID");
    assert_eq!(bench.error(), Some(0x19));
    let _ = bench.interrupts();
    bench.set(PERMISSIONS + 8, 5 << 12 | 1 << 3);
    assert_eq!(bench.submit(noop(1)).status, 1);
    assert_eq!(bench.interrupts(), [1]);
    bench.set(PERMISSIONS + 8, 6 << 12 | 1 << 3);
    assert_eq!(bench.submit(noop(1)).status, 0x19, "somebody else's entry");
    assert_eq!(bench.submit(noop(9)).status, 0x19, "there are nine");
    assert_eq!(bench.submit(noop(0xffff)).status, 0x19);
    let _ = bench.interrupts();
    bench.set(PERMISSIONS + 8, 5 << 12 | 1 << 3 | 1 << 2);
    assert_eq!(bench.submit(noop(1)).status, 1);
    assert_eq!(bench.interrupts(), [0u16; 0], "ignored");
}

#[test]
fn a_full_work_queue_drops_the_descriptor_and_says_so() {
    let bench = mapped();
    // Four engines and sixteen entries: the device is not stepped meanwhile.
    for _ in 0..16 {
        bench.store(0, &Desc::new(0, 0));
    }
    assert_eq!(bench.get(WQ_TABLE + 24) & 0xffff, 16, "occupancy");
    assert_eq!(bench.error(), None);
    bench.store(0, &Desc::new(0, 0));
    assert_eq!(
        bench.get64(SWERROR) & 0xff_ffff,
        0x00_5309,
        "no descriptor, WQ 0"
    );
    assert_eq!(bench.interrupts(), [0]);
    bench.run();
    assert_eq!(bench.get(WQ_TABLE + 24) & 0xffff, 0);
}

#[test]
fn a_queue_without_a_pasid_uses_the_functions_own_address_space() {
    let bench = Bench::new();
    assert_eq!(bench.command(RESET_WQ | 1), 0);
    bench.set(WQ_TABLE + 8, 1);
    bench.set(WQ_TABLE + 12, 21 | 5 << 5);
    assert_eq!(bench.command(ENABLE_WQ), 0);
    bench
        .iommu
        .map(None, Iova(RECORDS), Bench::physical(RECORDS), Access::RW);
    assert_eq!(bench.submit(Desc::new(0, CRAV | RCR)), done(1));
    // Without a PASID an interrupt needs no user-mode enable: the entry has no PASID either.
    assert_eq!(
        bench.submit(Desc::new(0, CRAV | RCR | RCI).handle(2)),
        done(1)
    );
    assert_eq!(bench.interrupts(), [2]);
}

#[test]
fn a_drain_descriptor_completes_after_what_is_before_it() {
    let bench = mapped();
    // Both engines in group 0, so that the drain overtakes the copy unless it waits.
    assert_eq!(bench.command(DISABLE_DEVICE), 0);
    bench.set64(GROUP_TABLE + 32, 3);
    assert_eq!(bench.command(ENABLE_DEVICE), 0);
    assert_eq!(bench.command(ENABLE_WQ), 0);
    let copy = Desc::new(MOVE, CRAV | RCR | BOF)
        .first(0x1000)
        .second(0x9000)
        .size(8);
    bench.store(0, &copy.record(RECORDS));
    bench.store(0, &Desc::new(2, CRAV | RCR).record(RECORDS + 32));
    bench.store(0, &Desc::new(0, CRAV | RCR).record(RECORDS + 64));
    bench.run();
    assert_eq!(
        bench.record(RECORDS + 32).status,
        0,
        "the copy waits for a page"
    );
    assert_eq!(bench.record(RECORDS + 64).status, 0, "behind the drain");
    bench.map(0x9000, Access::RW);
    bench.answer(0, Response::Success);
    for n in 0..3 {
        assert_eq!(bench.record(RECORDS + 32 * n), done(1));
    }
}
