//! Pages that are missing, with and without waiting for them.

use super::*;
use std::time::Duration;
use viommu_api::{AtsCompletion, Invalidation};

fn copy(flags: u32, from: u64, to: u64, size: u32) -> Desc {
    Desc::new(MOVE, CRAV | RCR | flags)
        .first(from)
        .second(to)
        .size(size)
}

#[test]
fn a_copy_that_blocks_asks_for_its_pages_and_goes_on() {
    let bench = Bench::new();
    bench.map(0x1000, Access::READ);
    bench.map(0x2000, Access::READ);
    bench.write(0x1800, &[7; 0x1000]);
    assert_eq!(bench.submit(copy(BOF, 0x1800, 0x8400, 0x1000)), done(0));
    assert_eq!(
        bench.asked(),
        [(0x8000, Access::WRITE), (0x9000, Access::WRITE)],
        "the sources are there"
    );
    bench.map(0x8000, Access::RW);
    bench.map(0x9000, Access::RW);
    bench.answer(0, Response::Success);
    assert_eq!(bench.record(RECORDS), done(1));
    assert_eq!(bench.read(0x8400, 0x1000), [7; 0x1000]);
}

#[test]
fn without_blocking_the_record_says_how_far_it_came_and_where_it_stopped() {
    let bench = Bench::new();
    bench.map(0x1000, Access::READ);
    bench.map(0x8000, Access::RW);
    bench.map(0x9000, Access::READ);
    let source = Record {
        status: 0x03,
        completed: 0x800,
        fault: 0x2000,
        result: 0,
    };
    assert_eq!(bench.submit(copy(0, 0x1800, 0x8400, 0x1000)), source);
    bench.map(0x2000, Access::READ);
    let destination = Record {
        status: 0x83,
        completed: 0xc00,
        fault: 0x9000,
        result: 0,
    };
    assert_eq!(bench.submit(copy(0, 0x1800, 0x8400, 0x1000)), destination);
    assert_eq!(bench.asked(), [], "no page is requested");
}

#[test]
fn an_invalid_answer_names_the_page_and_the_direction() {
    let bench = Bench::new();
    bench.map(0x1000, Access::READ);
    bench.map(0x2000, Access::READ);
    assert_eq!(bench.submit(copy(BOF, 0x1000, 0x8000, 0x2000)), done(0));
    bench.map(0x8000, Access::RW);
    bench.answer(0, Response::Invalid);
    let refused = Record {
        status: 0x84,
        completed: 0x1000,
        fault: 0x9000,
        result: 0,
    };
    assert_eq!(bench.record(RECORDS), refused);
    let read = copy(BOF, 0x3000, 0x8000, 8);
    assert_eq!(bench.submit(read), done(0));
    bench.answer(1, Response::Invalid);
    assert_eq!(bench.record(RECORDS).status, 0x04);
    assert_eq!(bench.error(), None);
}

#[test]
fn twelve_mebibytes_take_groups_of_sixty_four_pages() {
    let bench = Bench::new();
    bench.set(CMD, RESET_WQ | 1);
    bench.run();
    bench.set(WQ_TABLE + 8, 1 | 2 | 5 << 8 | 1 << 28);
    bench.set(WQ_TABLE + 12, 24 | 5 << 5);
    assert_eq!(bench.command(ENABLE_WQ), 0);
    bench.write(RECORDS, &[0; 32]);
    let fill = Desc::new(FILL, CRAV | RCR | BOF)
        .first(0x0101_0101_0101_0101)
        .second(0x10_0000_0000)
        .size(12 << 20)
        .record(RECORDS);
    bench.store(0, &fill);
    bench.run();
    let mut groups = 0;
    while bench.record(RECORDS).status == 0 {
        let asked = bench.asked();
        assert_eq!(asked.len(), 64, "the allocation, in one group");
        for (at, access) in asked {
            assert_eq!(access, Access::WRITE);
            // Physical memory of the bench is smaller: pages share frames.
            let to = Gpa(PHYSICAL + 0x80_0000 + (at & 0x7f_ffff));
            bench.iommu.map(PASID, Iova(at), to, Access::RW);
        }
        bench.answer(groups, Response::Success);
        groups += 1;
    }
    assert_eq!(bench.record(RECORDS), done(1));
    assert_eq!(groups, 48);
    let mut last = [0; 16];
    bench.ram.read(Gpa(PHYSICAL + 0xbf_fff0), &mut last);
    assert_eq!(last, [1; 16]);
}

#[test]
fn the_record_is_waited_for_and_its_page_comes_first() {
    let bench = Bench::new();
    bench.map(0x8000, Access::RW);
    let fill = Desc::new(FILL, CRAV | RCR).first(!0).second(0x8000).size(8);
    bench.store(0, &fill.record(0x5_0020));
    bench.run();
    assert_eq!(bench.asked(), [(0x5_0000, Access::WRITE)]);
    assert_eq!(
        bench.read(0x8000, 8),
        [0; 8],
        "nothing is done before the record is reachable"
    );
    bench.map(0x5_0000, Access::RW);
    bench.answer(0, Response::Success);
    assert_eq!(bench.record(0x5_0020), done(1));
    assert_eq!(bench.read(0x8000, 8), [0xff; 8]);
}

#[test]
fn a_record_that_is_refused_discards_the_descriptor() {
    let bench = Bench::new();
    bench.map(0x8000, Access::RW);
    let fill = Desc::new(FILL, CRAV | RCR).first(!0).second(0x8000).size(8);
    bench.store(0, &fill.record(0x5_0020));
    bench.run();
    bench.answer(0, Response::Invalid);
    assert_eq!(bench.read(0x8000, 8), [0; 8]);
    // PASID 5, operation 4, WQ 0, error 0x1a, write, WQ and descriptor valid
    assert_eq!(bench.get64(SWERROR), 0x0000_0504_0000_1a2d);
    assert_eq!(bench.get64(SWERROR + 16), 0x5_0020);
    assert_eq!(bench.interrupts(), [0]);
}

#[test]
fn translation_errors_are_told_twice() {
    let bench = Bench::new();
    let answers = [
        AtsCompletion::UnsupportedRequest,
        AtsCompletion::CompleterAbort,
    ];
    for answer in answers {
        // The record's translation is in the device TLB already.
        assert_eq!(bench.submit(Desc::new(0, CRAV | RCR)), done(1));
        bench.iommu.complete_next(answer);
        assert_eq!(bench.submit(copy(BOF, 0x1000, 0x2000, 8)), done(0x22));
        assert_eq!(bench.error(), Some(0x22));
    }
    assert_eq!(bench.submit(copy(BOF, 0x1000, 0x2000, 8)), done(0));
    bench.answer(0, Response::Failure);
    assert_eq!(bench.record(RECORDS), done(0x22));
    assert_eq!(bench.error(), Some(0x22));
}

#[test]
fn a_page_request_without_an_answer_ends_in_time() {
    let bench = Bench::new();
    assert_eq!(bench.submit(copy(BOF, 0x1000, 0x2000, 8)), done(0));
    bench.clock.advance(Duration::from_secs(11));
    bench.run();
    assert_eq!(bench.record(RECORDS), done(0x22));
}

#[test]
fn answers_without_effect_end_in_a_refusal() {
    let bench = Bench::new();
    assert_eq!(bench.submit(copy(BOF, 0x1000, 0x2000, 8)), done(0));
    for group in 0..5000 {
        bench.answer(group % 512, Response::Success);
        bench.clock.advance(Duration::from_millis(2));
        bench.run();
        if bench.record(RECORDS).status != 0 {
            break;
        }
    }
    assert_eq!(bench.record(RECORDS).status, 0x04);
    assert_eq!(bench.record(RECORDS).fault, 0x1000);
}

#[test]
fn an_invalidation_makes_the_next_descriptor_ask_again() {
    let bench = Bench::new();
    bench.map(0x1000, Access::RW);
    bench.map(0x2000, Access::RW);
    assert_eq!(bench.submit(copy(0, 0x1000, 0x2000, 8)), done(1));
    bench.iommu.unmap(PASID, Iova(0x2000));
    bench.dsa.invalidate(&Invalidation {
        pasid: PASID,
        global: false,
        addr: Iova(0x2000),
        size_shift: 12,
    });
    assert_eq!(bench.submit(copy(0, 0x1000, 0x2000, 8)).status, 0x83);
}

#[test]
fn a_deaf_device_uses_what_it_was_told_to_forget_until_it_hears_again() {
    let bench = Bench::new();
    bench.map(0x1000, Access::RW);
    bench.map(0x2000, Access::RW);
    bench.dsa.set_deaf(true);
    assert_eq!(bench.submit(copy(0, 0x1000, 0x2000, 8)), done(1));
    bench.iommu.unmap(PASID, Iova(0x2000));
    let page = Invalidation {
        pasid: PASID,
        global: false,
        addr: Iova(0x2000),
        size_shift: 12,
    };
    bench.dsa.invalidate(&page);
    assert_eq!(bench.submit(copy(0, 0x1000, 0x2000, 8)), done(1));
    bench.dsa.set_deaf(false);
    bench.dsa.invalidate(&page);
    assert_eq!(bench.submit(copy(0, 0x1000, 0x2000, 8)).status, 0x83);
}

#[test]
fn a_queue_with_ats_disabled_leaves_translation_to_the_iommu() {
    let bench = Bench::new();
    assert_eq!(bench.command(RESET_WQ | 1), 0);
    bench.set(WQ_TABLE + 8, 1 | 1 << 2 | 5 << 8 | 1 << 28);
    bench.set(WQ_TABLE + 12, 21 | 5 << 5);
    assert_eq!(bench.command(ENABLE_WQ), 0);
    bench.map(0x1000, Access::RW);
    bench.map(0x2000, Access::RW);
    assert_eq!(bench.submit(copy(0, 0x1000, 0x2000, 8)), done(1));
    assert_eq!(bench.iommu.translations(), 0);
    assert_eq!(bench.submit(copy(0, 0x3000, 0x2000, 8)), done(0x20));
    assert_eq!(bench.submit(copy(0, 0x1000, 0x3000, 8)), done(0x21));
    assert_eq!(bench.asked(), []);
}

#[test]
fn block_on_fault_is_refused_where_the_queue_forbids_it() {
    let bench = Bench::new();
    assert_eq!(bench.command(RESET_WQ | 1), 0);
    bench.set(WQ_TABLE + 8, 1 | 5 << 8 | 1 << 28);
    bench.set(WQ_TABLE + 12, 21 | 5 << 5);
    assert_eq!(bench.command(ENABLE_WQ), 0);
    assert_eq!(bench.submit(copy(BOF, 0x1000, 0x2000, 8)).status, 0x11);
    // The record is waited for all the same.
    bench.store(0, &Desc::new(0, CRAV | RCR).record(0x5_0020));
    bench.run();
    assert_eq!(bench.asked(), [(0x5_0000, Access::WRITE)]);
}

#[test]
fn a_record_that_goes_away_meanwhile_is_an_error_at_its_own_address() {
    let bench = Bench::new();
    bench.map(0x1000, Access::READ);
    bench.map(0x5_0000, Access::RW);
    let copy = copy(BOF, 0x1000, 0x8000, 8);
    bench.store(0, &copy.record(0x5_0020));
    bench.run();
    assert_eq!(bench.asked(), [(0x8000, Access::WRITE)]);
    bench.iommu.unmap(PASID, Iova(0x5_0000));
    bench.dsa.invalidate(&Invalidation {
        pasid: PASID,
        global: false,
        addr: Iova(0),
        size_shift: 64,
    });
    bench.map(0x8000, Access::RW);
    bench.answer(0, Response::Success);
    assert_eq!(bench.asked(), [(0x5_0000, Access::WRITE)]);
    bench.answer(1, Response::Invalid);
    assert_eq!(bench.get64(SWERROR + 16), 0x5_0020);
    assert_eq!(bench.error(), Some(0x1a));
}

#[test]
fn a_translation_to_where_no_memory_is_is_a_hardware_error() {
    let bench = Bench::new();
    bench.map(0x1000, Access::RW);
    let beyond = Gpa(1 << 40);
    for page in [0x8000, 0x5_0000] {
        bench.iommu.map(PASID, Iova(page), beyond, Access::RW);
    }
    assert_eq!(bench.submit(copy(0, 0x8000, 0x1000, 8)), done(0x20));
    let fill = Desc::new(FILL, CRAV | RCR).second(0x8000).size(8);
    assert_eq!(bench.submit(fill), done(0x21));
    bench.store(0, &Desc::new(0, CRAV | RCR).record(0x5_0000));
    bench.run();
    assert_eq!(bench.error(), Some(0x21), "nowhere to tell it");
}

#[test]
fn memory_that_is_not_there_says_whether_it_was_read_or_written() {
    let beyond = Gpa(1 << 40);
    for (missing, status) in [(0x1000, 0x20), (0x2000, 0x21)] {
        let bench = Bench::new();
        bench.map(0x1000, Access::RW);
        bench.map(0x2000, Access::RW);
        bench.iommu.map(PASID, Iova(missing), beyond, Access::RW);
        assert_eq!(bench.submit(copy(BOF, 0x1000, 0x2000, 8)), done(status));
    }
}
