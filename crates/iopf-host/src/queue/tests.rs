//! The queue over a file that does as the kernel's, and over one that does not.
//!
//! Numbers in names are those of the edge cases in `docs/host.md`.

use super::*;
use crate::fake::{BadRead, BadWrite, FakeFile};
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid};
use zerocopy::FromBytes;

/// A queue, and the file behind it with device 4 attached.
fn queue(most: usize) -> (FaultQueue<FakeFile>, FakeFile) {
    let file = FakeFile::new();
    file.attach(4, None);
    (FaultQueue::with_max_group(file.clone(), most), file)
}

/// Cookies and page counts of the groups handed out, until there are none.
fn groups(queue: &mut FaultQueue<FakeFile>) -> Vec<(u32, usize)> {
    let mut found = Vec::new();
    while let Some(group) = queue.next_group() {
        found.push(group.map_or((0, 0), |group| (group.cookie(), group.len())));
    }
    found
}

fn read_all(queue: &mut FaultQueue<FakeFile>) -> Vec<(u32, usize)> {
    let mut found = Vec::new();
    while let Read::Pages(_) = queue.read(usize::MAX).unwrap() {
        found.extend(groups(queue));
    }
    found
}

fn raw(cookie: u32, flags: u32) -> RawFault {
    RawFault {
        flags,
        dev_id: 4,
        cookie,
        ..RawFault::default()
    }
}

fn bytes(records: &[RawFault]) -> BadRead {
    BadRead::Bytes(records.as_bytes().to_vec())
}

#[test]
fn case_1_nothing_now_is_not_the_end() {
    let (mut queue, file) = queue(64);
    assert_eq!(queue.read(usize::MAX), Ok(Read::Nothing));
    file.fault(4, None, 1);
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(1)));
    assert_eq!(file.calls().reads, 2);
}

#[test]
fn case_2_the_buffer_grows_to_any_group_and_keeps_its_size() {
    let (mut queue, file) = queue(1024);
    file.fault(4, None, 601);
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(601)));
    assert_eq!(groups(&mut queue), [(1, 601)]);
    assert_eq!(file.calls().reads, 4, "128, 256, 512, 1024");
    file.fault(4, None, 1000);
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(1000)));
    assert_eq!(file.calls().reads, 5);
}

#[test]
fn case_2_a_group_beyond_the_limit_is_an_error_and_no_loop() {
    let (mut queue, file) = queue(300);
    file.fault(4, None, 301);
    for reads in [3, 4] {
        let error = queue.read(usize::MAX).unwrap_err();
        assert_eq!(error, ReadError::GroupTooLarge(300));
        assert_eq!(file.calls().reads, reads);
    }
    // Its detach brings the queue back.
    file.detach(4, None);
    file.attach(4, None);
    file.fault(4, None, 300);
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(300)));
}

#[test]
fn a_group_beyond_the_callers_room_waits_in_the_kernel() {
    let (mut queue, file) = queue(1024);
    file.fault(4, None, 3);
    file.fault(4, None, 3);
    assert_eq!(queue.read(0), Ok(Read::NoRoom));
    assert_eq!(queue.read(2), Ok(Read::NoRoom));
    assert_eq!(queue.read(5), Ok(Read::Pages(3)));
    assert_eq!(groups(&mut queue), [(1, 3)]);
    assert_eq!(queue.read(6), Ok(Read::Pages(3)));
    file.fault(4, None, 200);
    assert_eq!(groups(&mut queue), [(2, 3)]);
    assert_eq!(queue.read(199), Ok(Read::NoRoom));
    assert_eq!(queue.read(200), Ok(Read::Pages(200)));
}

#[test]
fn case_3_a_position_or_size_error_is_told_apart_from_a_group_that_is_too_large() {
    let (mut queue, file) = queue(64);
    file.bad_reads([BadRead::Fail(Errno::SPIPE)]);
    assert_eq!(queue.read(usize::MAX), Err(ReadError::NotRecords));
    file.fault(4, None, 1);
    assert_eq!(read_all(&mut queue), [(1, 1)]);
    queue.answer(1, Response::Success);
    file.bad_writes([BadWrite::Fail(Errno::SPIPE)]);
    assert_eq!(queue.flush(), Err(WriteError::NotRecords));
    assert_eq!((queue.unwritten(), queue.flush()), (1, Ok(())));
}

#[test]
fn case_4_a_group_of_many_pages_has_one_cookie_and_one_answer() {
    let (mut queue, file) = queue(64);
    file.fault(4, None, 5);
    file.fault(4, None, 1);
    assert_eq!(read_all(&mut queue), [(1, 5), (2, 1)]);
    queue.answer(1, Response::Success);
    queue.answer(2, Response::Invalid);
    queue.flush().unwrap();
    let ended = file.ended();
    assert_eq!(ended.len(), 2);
    assert_eq!((ended[0].group, ended[0].response), (0, Response::Success));
    assert_eq!((ended[1].group, ended[1].response), (1, Response::Invalid));
    assert_eq!(file.calls().writes, 1);
    assert_eq!(queue.counts().answered, 2);
}

#[test]
fn case_6_a_partial_write_goes_on_where_it_stopped() {
    let (mut queue, file) = queue(64);
    for _ in 0..6 {
        file.fault(4, None, 1);
    }
    for (cookie, _) in read_all(&mut queue) {
        queue.answer(cookie, Response::Success);
    }
    file.bad_writes([BadWrite::Take(8), BadWrite::Take(24)]);
    queue.flush().unwrap();
    assert_eq!((file.ended().len(), file.calls().writes), (6, 3));
    assert_eq!(queue.counts().answered, 6);
}

#[test]
fn case_6_a_refused_answer_is_skipped_and_counted_wherever_it_stands() {
    for bad in 0..3 {
        let (mut queue, file) = queue(64);
        for _ in 0..2 {
            file.fault(4, None, 1);
        }
        let mut cookies: Vec<_> = read_all(&mut queue)
            .iter()
            .map(|(cookie, _)| *cookie)
            .collect();
        cookies.insert(bad, 99);
        for cookie in cookies {
            queue.answer(cookie, Response::Success);
        }
        queue.flush().unwrap();
        assert_eq!(file.ended().len(), 2);
        assert_eq!((queue.counts().answered, queue.counts().stale), (2, 1));
        assert_eq!(queue.unwritten(), 0);
    }
}

#[test]
fn case_7_failure_goes_out_as_invalid() {
    let (mut queue, file) = queue(64);
    file.fault(4, None, 1);
    read_all(&mut queue);
    queue.answer(1, Response::Failure);
    queue.flush().unwrap();
    assert_eq!(file.ended()[0].response, Response::Invalid);
    assert_eq!(queue.counts().stale, 0);
}

#[test]
fn case_8_each_page_has_its_own_pasid() {
    let (mut queue, file) = queue(64);
    let pasid = Pasid::new(5);
    file.attach(4, pasid);
    let page = |pasid, last| PageRequest {
        pasid,
        group: GroupIndex(8),
        addr: Iova(0x1000),
        access: Access::READ,
        last,
        response_needs_pasid: pasid.is_some(),
        private_data: [0; 2],
    };
    file.page(4, page(pasid, false));
    file.page(4, page(None, false));
    file.page(4, page(None, true));
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(3)));
    let group = queue.next_group().unwrap().unwrap();
    let pages: Vec<_> = group.partial().map(|page| page.pasid).collect();
    assert_eq!(pages, [pasid, None]);
    assert_eq!(group.last([0; 2]).pasid, None);
}

#[test]
fn case_9_bits_that_the_uapi_does_not_name_are_masked_and_counted() {
    let (mut queue, file) = queue(64);
    let odd = RawFault {
        perm: 0x103,
        ..raw(7, 0xffff_fff2)
    };
    file.bad_reads([bytes(&[raw(6, 2), odd])]);
    queue.read(usize::MAX).unwrap();
    assert_eq!(queue.next_group().unwrap().unwrap().cookie(), 6);
    let page = queue.next_group().unwrap().unwrap().last([0; 2]);
    assert_eq!((page.access, page.pasid), (Access::RW, None));
    assert_eq!(queue.counts().unnamed_bits, 1);
}

#[test]
fn case_13_the_same_index_twice_is_two_groups() {
    let (mut queue, file) = queue(64);
    file.bad_reads([bytes(&[raw(3, 0), raw(3, 2), raw(1, 2), raw(2, 2)])]);
    queue.read(usize::MAX).unwrap();
    assert_eq!(groups(&mut queue), [(3, 2), (1, 1), (2, 1)]);
}

#[test]
fn pages_without_a_last_one_are_answered_invalid_and_counted() {
    let (mut queue, file) = queue(64);
    let records = [raw(1, 0), raw(1, 0), raw(2, 2), raw(3, 0)];
    file.bad_reads([bytes(&records)]);
    queue.read(usize::MAX).unwrap();
    let no_group = |cookie, pages| Malformed {
        dev_id: 4,
        pages,
        cookie,
    };
    assert_eq!(queue.next_group().unwrap().unwrap_err(), no_group(1, 2));
    assert_eq!(queue.next_group().unwrap().unwrap().cookie(), 2);
    assert_eq!(queue.next_group().unwrap().unwrap_err(), no_group(3, 1));
    assert!(queue.next_group().is_none());
    assert_eq!(queue.counts().malformed, 3);
    assert_eq!(queue.unwritten(), 2);
}

#[test]
fn pages_of_two_devices_and_a_wide_pasid_are_no_group_and_cookie_0_is_a_cookie() {
    let (mut queue, file) = queue(64);
    let other = RawFault {
        dev_id: 5,
        ..raw(1, 2)
    };
    let wide = RawFault {
        pasid: 1 << 20,
        ..raw(2, 3)
    };
    file.bad_reads([bytes(&[raw(1, 0), other, wide, raw(0, 2), raw(9, 2)])]);
    queue.read(usize::MAX).unwrap();
    let found: Vec<_> = std::iter::from_fn(|| {
        let group = queue.next_group()?;
        Some(group.map(|group| group.cookie()).map_err(|bad| bad.cookie))
    })
    .collect();
    assert_eq!(found, [Err(1), Err(2), Ok(0), Ok(9)]);
    assert_eq!((queue.counts().malformed, queue.unwritten()), (3, 2));
}

#[test]
fn a_torn_record_is_counted_and_the_group_it_belongs_to_answered_invalid() {
    let (mut queue, file) = queue(64);
    file.fault(4, None, 2);
    file.bad_reads([BadRead::Short(1)]);
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(1)));
    assert_eq!(groups(&mut queue), [(0, 0)]);
    queue.flush().unwrap();
    assert_eq!(file.ended()[0].response, Response::Invalid);
    assert_eq!((queue.counts().torn, queue.counts().malformed), (39, 1));
    // Less than a record is nothing.
    file.bad_reads([BadRead::Bytes(vec![0; 39])]);
    assert_eq!(queue.read(usize::MAX), Ok(Read::Nothing));
}

#[test]
fn an_interrupted_call_is_made_again_and_one_that_always_is_ends() {
    let (mut queue, file) = queue(64);
    file.fault(4, None, 1);
    file.bad_reads(vec![BadRead::Fail(Errno::INTR); 16]);
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(1)));
    groups(&mut queue);
    queue.answer(1, Response::Success);
    file.bad_writes([BadWrite::Fail(Errno::INTR)]);
    queue.flush().unwrap();
    file.bad_reads(vec![BadRead::Fail(Errno::INTR); 17]);
    assert_eq!(queue.read(usize::MAX), Err(ReadError::Io(Errno::INTR)));
    queue.answer(1, Response::Success);
    file.bad_writes([BadWrite::Fail(Errno::INTR); 17]);
    assert_eq!(queue.flush(), Err(WriteError::Io(Errno::INTR)));
    assert_eq!(queue.unwritten(), 1);
}

#[test]
fn a_failing_read_loses_no_group_and_a_failing_write_no_answer() {
    for error in [Errno::IO, Errno::NOMEM, Errno::FAULT, Errno::BUSY] {
        let (mut queue, file) = queue(64);
        file.fault(4, None, 1);
        file.bad_reads([BadRead::Fail(error)]);
        assert_eq!(queue.read(usize::MAX), Err(ReadError::Io(error)));
        assert_eq!(read_all(&mut queue), [(1, 1)]);
        queue.answer(1, Response::Success);
        file.bad_writes([BadWrite::Fail(error)]);
        assert_eq!(queue.flush(), Err(WriteError::Io(error)));
        assert_eq!(queue.unwritten(), 1);
        queue.flush().unwrap();
        assert_eq!(file.ended().len(), 1);
    }
}

#[test]
fn a_file_that_lies_about_how_much_it_took_is_found_out() {
    for claim in [0, 3, 12, 4096] {
        let (mut queue, file) = queue(64);
        file.fault(4, None, 1);
        read_all(&mut queue);
        queue.answer(1, Response::Success);
        file.bad_writes([BadWrite::Claim(claim)]);
        assert_eq!(queue.flush(), Err(WriteError::NotRecords));
    }
}

#[test]
fn groups_of_the_last_read_come_before_the_next_read() {
    let (mut queue, file) = queue(64);
    for _ in 0..3 {
        file.fault(4, None, 1);
    }
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(3)));
    assert!(queue.next_group().is_some());
    assert_eq!(queue.read(usize::MAX), Ok(Read::Pages(2)));
    assert_eq!(file.calls().reads, 1);
}

#[test]
fn records_read_from_bytes_of_any_kind_never_panic_and_every_page_is_accounted_for() {
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..500 {
        let (mut queue, file) = queue(64);
        let mut given = vec![0; random.usize(..64 * 40)];
        for word in given.chunks_mut(4) {
            // Small numbers, so that cookies meet.
            word[0] = random.u8(..4);
        }
        let pages = (given.len() / 40) as u64;
        file.bad_reads([BadRead::Bytes(given)]);
        queue.read(usize::MAX).unwrap();
        let mut handed_out = 0;
        while let Some(group) = queue.next_group() {
            handed_out += group.map_or(0, |group| group.raw().count() as u64);
        }
        let counts = queue.counts();
        assert_eq!(counts.pages, pages);
        assert_eq!(counts.pages, handed_out + counts.malformed);
        queue.flush().unwrap();
    }
    assert_eq!(RawFault::read_from_bytes(&[0; 40]), Ok(RawFault::default()));
}
