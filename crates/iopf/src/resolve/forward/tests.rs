use super::{ANSWER, BadAddress, Forward, RECORD, ReadError, WriteError};
use crate::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy, Reported, Tick};
use crate::resolve::serve;
use crate::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use core::time::Duration;
use std::vec;
use std::vec::Vec;

const DEVICE: DeviceId = DeviceId(7);
const NOW: Tick = Tick(0);

/// An engine with one device, attached without a PASID to domain 1 and with PASID 5 to domain 2.
struct Bench {
    engine: Engine,
    forward: Forward,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let mut engine = Engine::new(policy);
        engine.add_device(DEVICE, DeviceConfig::default()).unwrap();
        let attach = |engine: &mut Engine, pasid, domain| {
            let attachment = Attachment::new(DomainId(domain));
            engine.attach(DEVICE, pasid, attachment).unwrap();
        };
        attach(&mut engine, None, 1);
        attach(&mut engine, Pasid::new(5), 2);
        let forward = Forward::new(engine.policy());
        Self { engine, forward }
    }

    /// A group of `pages` pages, delivered.
    fn group(&mut self, index: u32, pasid: Option<u32>, pages: u64) {
        for number in 1..=pages {
            let page = PageRequest {
                pasid: pasid.and_then(Pasid::new),
                group: GroupIndex(index),
                addr: Iova(number << 12),
                access: Access::READ,
                last: number == pages,
                response_needs_pasid: false,
                private_data: [0; 2],
            };
            let reported = self.engine.report(NOW, DEVICE, &Fault::PageRequest(page));
            assert!(matches!(
                reported,
                Ok(Reported::Collected | Reported::Queued(_))
            ));
        }
        assert_eq!(serve(&mut self.engine, NOW, &mut self.forward, 8), 1);
    }

    /// Reads up to `records` records: the group and cookie of each.
    fn read(&mut self, records: usize) -> Result<Vec<(u32, u32)>, ReadError> {
        let mut buffer = vec![0; records * RECORD];
        let bytes = self.forward.read_into(&self.engine, &mut buffer)?;
        let word =
            |record: &[u8], at: usize| u32::from_ne_bytes(record[at..at + 4].try_into().unwrap());
        let records = buffer[..bytes].chunks_exact(RECORD);
        Ok(records.map(|r| (word(r, 12), word(r, 36))).collect())
    }

    fn write(&mut self, answers: &[(u32, u32)]) -> Result<usize, WriteError> {
        let words = answers.iter().flat_map(|(cookie, code)| [*cookie, *code]);
        let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        let Self { engine, forward } = self;
        forward.write_from(NOW, engine, &bytes)
    }

    /// The answers the device got: group and response.
    fn answers(&mut self) -> Vec<(u32, Response)> {
        let answers = core::iter::from_fn(|| self.engine.poll_answer());
        answers.map(|a| (a.group.0, a.response)).collect()
    }
}

#[test]
fn a_record_has_the_bytes_of_the_header() {
    let mut bench = Bench::new(Policy::linux());
    let page = PageRequest {
        pasid: Pasid::new(5),
        group: GroupIndex(0x0102_0304),
        addr: Iova(0x1112_1314_1516_1718),
        access: Access::RW | Access::PRIV,
        last: true,
        response_needs_pasid: true,
        private_data: [1, 2],
    };
    let reported = bench.engine.report(NOW, DEVICE, &Fault::PageRequest(page));
    assert!(matches!(reported, Ok(Reported::Queued(_))));
    assert_eq!(serve(&mut bench.engine, NOW, &mut bench.forward, 8), 1);
    let mut read = [0xee; RECORD];
    let bytes = bench.forward.read_into(&bench.engine, &mut read);
    assert_eq!(bytes, Ok(RECORD));
    let mut record = vec![
        7, 0, 0, 0, // flags: PASID valid, last, answer needs PASID
        7, 0, 0, 0, // device
        5, 0, 0, 0, // PASID
        4, 3, 2, 1, // group
        11, 0, 0, 0, // perm: R, W, PRIV
        0, 0, 0, 0, // reserved
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, // address
        0, 0, 0, 0, // length
        1, 0, 0, 0, // cookie
    ];
    if cfg!(target_endian = "big") {
        record[..24].chunks_exact_mut(4).for_each(<[u8]>::reverse);
        record[24..32].reverse();
        record[32..].chunks_exact_mut(4).for_each(<[u8]>::reverse);
    }
    assert_eq!(read.as_slice(), record);
}

#[test]
fn groups_are_read_whole_or_not_at_all() {
    let mut bench = Bench::new(Policy::linux());
    assert_eq!(bench.read(0), Ok(vec![]));
    assert_eq!(bench.read(3), Ok(vec![]));
    bench.group(1, None, 2);
    bench.group(2, None, 3);
    assert_eq!(bench.read(0), Err(ReadError::TooSmall));
    assert_eq!(bench.read(1), Err(ReadError::TooSmall));
    assert!(bench.forward.is_readable(&bench.engine));
    assert_eq!(bench.read(4), Ok(vec![(1, 1), (1, 1)]));
    assert_eq!(bench.read(2), Err(ReadError::TooSmall));
    assert_eq!(bench.read(3), Ok(vec![(2, 2); 3]));
    assert!(!bench.forward.is_readable(&bench.engine));
    assert_eq!(bench.forward.held(), (0, 2));
}

#[test]
fn a_length_of_no_whole_records_is_refused_before_anything_else() {
    let mut bench = Bench::new(Policy::linux());
    let mut byte = [0; RECORD + 1];
    let read = bench.forward.read_into(&bench.engine, &mut byte);
    assert_eq!(read, Err(ReadError::WrongSize));
    assert_eq!(ReadError::WrongSize.errno(), 29);
    let written = bench
        .forward
        .write_from(NOW, &mut bench.engine, &byte[..ANSWER + 1]);
    assert_eq!(written, Err(WriteError::WrongSize));
    assert_eq!(bench.write(&[]), Ok(0));
}

#[test]
fn a_copy_that_fails_puts_the_group_back_and_frees_its_cookie() {
    let mut bench = Bench::new(Policy::linux());
    bench.group(1, None, 1);
    bench.group(2, None, 3);
    let mut broken_at = |broken: usize| {
        bench.forward.read(&bench.engine, 8 * RECORD, |offset, _| {
            if offset >= broken {
                Err(BadAddress)
            } else {
                Ok(())
            }
        })
    };
    assert_eq!(broken_at(0), Err(ReadError::BadAddress(BadAddress)));
    // The first group was read before the second one's second page failed.
    assert_eq!(broken_at(2 * RECORD), Ok(RECORD));
    assert_eq!(broken_at(RECORD), Err(ReadError::BadAddress(BadAddress)));
    assert_eq!(bench.read(3), Ok(vec![(2, 2); 3]));
}

#[test]
fn answers_are_taken_in_order_up_to_the_first_bad_one() {
    let mut bench = Bench::new(Policy::linux());
    for group in 1..=3 {
        bench.group(group, None, 1);
    }
    assert_eq!(bench.read(3), Ok(vec![(1, 1), (2, 2), (3, 3)]));
    assert_eq!(
        bench.write(&[(9, 0), (1, 0)]),
        Err(WriteError::UnknownCookie)
    );
    // A bad code does not use the cookie up, and FAILURE is one.
    assert_eq!(bench.write(&[(1, 2)]), Err(WriteError::BadCode));
    assert_eq!(bench.write(&[(0, 2)]), Err(WriteError::BadCode));
    assert_eq!(bench.answers(), []);
    assert_eq!(bench.write(&[(3, 1), (3, 1), (1, 0)]), Ok(ANSWER));
    assert_eq!(bench.write(&[(1, 0), (2, 0)]), Ok(2 * ANSWER));
    let answers = [
        (3, Response::Invalid),
        (1, Response::Success),
        (2, Response::Success),
    ];
    assert_eq!(bench.answers(), answers);
    assert_eq!(bench.forward.held(), (0, 0));
}

#[test]
fn an_answer_that_cannot_be_fetched_ends_the_write() {
    let mut bench = Bench::new(Policy::linux());
    bench.group(1, None, 1);
    assert_eq!(bench.read(1), Ok(vec![(1, 1)]));
    let Bench { engine, forward } = &mut bench;
    let mut answer = [0; ANSWER];
    answer[..4].copy_from_slice(&1u32.to_ne_bytes());
    let written = forward.write(NOW, engine, 2 * ANSWER, |_| Err(BadAddress));
    assert_eq!(written, Err(WriteError::BadAddress(BadAddress)));
    let written = forward.write(NOW, engine, 2 * ANSWER, |offset| match offset {
        0 => Ok(answer),
        _ => Err(BadAddress),
    });
    assert_eq!(written, Ok(ANSWER));
    assert_eq!(bench.answers(), [(1, Response::Success)]);
}

#[test]
fn a_detach_denies_what_was_not_read_and_then_what_was() {
    let mut bench = Bench::new(Policy::linux());
    for (group, pasid) in [(1, None), (2, Some(5)), (3, None)] {
        bench.group(group, pasid, 1);
    }
    assert_eq!(bench.read(3), Ok(vec![(1, 1), (2, 2), (3, 3)]));
    bench.group(4, None, 1);
    bench.group(5, Some(5), 1);
    bench.group(6, None, 1);
    let Bench { engine, forward } = &mut bench;
    assert_eq!(engine.detach(NOW, DEVICE, None).unwrap().given_up, 0);
    assert_eq!(forward.detached(NOW, engine, DEVICE, DomainId(1)), 4);
    let denied = |group| (group, Response::Invalid);
    let newest_first = [denied(6), denied(4)];
    let lowest_first = [denied(1), denied(3)];
    assert_eq!(bench.answers(), [newest_first, lowest_first].concat());
    // The lowest free cookie is the next: the kernel's way, under which a late answer to group 1
    // completes group 5.
    assert_eq!(bench.read(1), Ok(vec![(5, 1)]));
    let Bench { engine, forward } = &mut bench;
    assert_eq!(forward.destroyed(NOW, engine), 2);
    assert_eq!(bench.answers(), [denied(5), denied(2)]);
    assert!(!bench.forward.is_readable(&bench.engine));
}

#[test]
fn under_the_stricter_policy_no_late_answer_completes_another_group() {
    let mut bench = Bench::new(Policy::default());
    bench.group(1, None, 1);
    assert_eq!(bench.read(1), Ok(vec![(1, 1)]));
    bench.group(2, None, 1);
    let detached = bench.engine.detach(NOW, DEVICE, None).unwrap();
    assert_eq!(detached.given_up, 2);
    assert_eq!(bench.answers().len(), 2);
    // The engine spoke for both: one is dropped unread, the other's cookie is unknown.
    assert!(!bench.forward.is_readable(&bench.engine));
    bench.group(3, Some(5), 1);
    assert_eq!(bench.read(8), Ok(vec![(3, 2)]));
    assert_eq!(bench.write(&[(1, 0)]), Err(WriteError::UnknownCookie));
    assert_eq!(bench.answers(), []);
    assert_eq!(bench.write(&[(2, 0)]), Ok(ANSWER));
    assert_eq!(bench.answers(), [(3, Response::Success)]);
}

#[test]
fn with_the_kernel_an_answer_to_0_makes_a_cookie_of_it() {
    let mut bench = Bench::new(Policy::linux());
    let unknown = Err(WriteError::UnknownCookie);
    // Nothing is given yet, and nothing comes of it.
    assert_eq!(bench.write(&[(0, 0)]), unknown);
    bench.group(1, None, 1);
    bench.group(2, None, 1);
    assert_eq!(bench.read(1), Ok(vec![(1, 1)]));
    assert_eq!(bench.write(&[(0, 0)]), unknown);
    assert_eq!(bench.read(1), Ok(vec![(2, 0)]));
    assert_eq!(bench.write(&[(0, 0), (1, 0)]), Ok(2 * ANSWER));
    // It stays one.
    bench.group(3, None, 1);
    assert_eq!(bench.read(1), Ok(vec![(3, 0)]));

    let mut bench = Bench::new(Policy::default());
    bench.group(1, None, 1);
    bench.group(2, None, 1);
    assert_eq!(bench.read(1), Ok(vec![(1, 1)]));
    assert_eq!(bench.write(&[(0, 0)]), unknown);
    assert_eq!(bench.read(1), Ok(vec![(2, 2)]));
}

#[test]
fn a_cookie_comes_back_only_after_all_others() {
    let mut bench = Bench::new(Policy::default());
    bench.group(1, None, 1);
    assert_eq!(bench.read(1), Ok(vec![(1, 1)]));
    bench.forward.given.skip_to(u32::MAX);
    bench.group(2, None, 1);
    bench.group(3, None, 1);
    // 0 is no cookie, and 1 is still in use.
    assert_eq!(bench.read(2), Ok(vec![(2, u32::MAX), (3, 2)]));
}

#[test]
fn groups_that_nobody_reads_or_answers_take_no_memory_beyond_the_credits() {
    let second = Some(Duration::from_secs(1));
    let mut bench = Bench::new(Policy::default().with_timeout(second));
    for round in 0..2_000u64 {
        bench.group(1, None, 1);
        if round % 2 == 0 {
            assert_eq!(bench.read(1).unwrap().len(), 1);
        }
        let later = Tick((round + 1) * 1_000_000_000);
        bench.engine.handle_timeout(later);
        assert_eq!(bench.answers(), [(1, Response::Invalid)]);
        let (unread, unanswered) = bench.forward.held();
        assert!(unread <= 65 && unanswered <= 65, "{unread} {unanswered}");
    }
}
