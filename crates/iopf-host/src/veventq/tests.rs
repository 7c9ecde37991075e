use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// A header, from its two words.
fn header(flags: u32, sequence: u32) -> Vec<u8> {
    [flags.to_ne_bytes(), sequence.to_ne_bytes()].concat()
}

/// A record of the kernel's self-test.
fn event(sequence: u32) -> Vec<u8> {
    [header(0, sequence), b"data".to_vec()].concat()
}

/// What a decoder makes of reads, one record a line.
fn play(reads: &[Vec<u8>]) -> (String, Counts) {
    let mut decoder = Decoder::new(VeventqKind::SELFTEST);
    let mut log = String::new();
    for read in reads {
        let mut rest = read.as_slice();
        while let Some(record) = decoder.decode(&mut rest) {
            log += &match record {
                Ok(Record::Event {
                    sequence,
                    lost,
                    flags,
                    data,
                }) => format!("event {sequence} lost={lost} flags={flags:#x} {data:?}\n"),
                Ok(Record::Lost {
                    sequence,
                    lost,
                    flags,
                }) => format!("lost {lost} up to {sequence} flags={flags:#x}\n"),
                Err(malformed) => format!("{malformed}\n"),
            };
        }
    }
    (log, decoder.counts())
}

/// `struct iommufd_vevent_header` and `struct iommu_vevent_arm_smmuv3` typed from the header, on a
/// little-endian machine: an event of number 0x01020304, then a header of number 0x01020306 with
/// IOMMU_VEVENTQ_FLAG_LOST_EVENTS.
const BYTES: [u8; 48] = [
    0, 0, 0, 0, 0x04, 0x03, 0x02, 0x01, //
    0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, //
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, //
    1, 0, 0, 0, 0x06, 0x03, 0x02, 0x01,
];

#[test]
fn records_are_read_from_literal_bytes() {
    let mut decoder = Decoder::new(VeventqKind::SMMUV3);
    let mut rest = &BYTES[..];
    assert_eq!(
        decoder.decode(&mut rest),
        Some(Ok(Record::Event {
            sequence: 0x0102_0304,
            lost: 0x0102_0304,
            flags: 0,
            data: &BYTES[8..40],
        }))
    );
    assert_eq!(
        decoder.decode(&mut rest),
        Some(Ok(Record::Lost {
            sequence: 0x0102_0306,
            lost: 2,
            flags: 1,
        }))
    );
    assert_eq!(decoder.decode(&mut rest), None);
}

#[test]
fn a_gap_and_a_header_each_count_what_they_stand_for() {
    let (log, counts) = play(&[
        [event(0), event(1)].concat(),
        event(4),     // 2 and 3 are lost
        header(1, 6), // 5 and 6 are lost, and nothing came after them
        header(1, 9), // and three more
        event(10),    // nothing is lost between
        event(12),    // 11
    ]);
    assert_eq!(
        log,
        "event 0 lost=0 flags=0x0 [100, 97, 116, 97]\n\
         event 1 lost=0 flags=0x0 [100, 97, 116, 97]\n\
         event 4 lost=2 flags=0x0 [100, 97, 116, 97]\n\
         lost 2 up to 6 flags=0x1\n\
         lost 3 up to 9 flags=0x1\n\
         event 10 lost=0 flags=0x0 [100, 97, 116, 97]\n\
         event 12 lost=1 flags=0x0 [100, 97, 116, 97]\n"
    );
    assert_eq!(
        counts,
        Counts {
            events: 5,
            lost: 8,
            malformed: 0
        }
    );
}

#[test]
fn the_first_expected_number_is_0() {
    assert!(play(&[event(3)]).0.starts_with("event 3 lost=3"));
    assert!(play(&[header(1, 0)]).0.starts_with("lost 1 up to 0"));
}

#[test]
fn numbers_go_round_after_31_bits() {
    let last = 0x7fff_ffff;
    let (log, counts) = play(&[event(last - 1), event(0), header(1, 1)]);
    let lines: Vec<_> = log.lines().collect();
    assert!(
        lines[0].starts_with("event 2147483646 lost=2147483646"),
        "{log}"
    );
    assert!(lines[1].starts_with("event 0 lost=1"), "{log}");
    assert_eq!(lines[2], "lost 1 up to 1 flags=0x1");
    assert_eq!(counts.lost, u64::from(last) + 1);
}

#[test]
fn a_flag_that_nobody_knows_is_passed_on() {
    let strange = [header(0x8000_0002, 0), b"data".to_vec()].concat();
    let (log, _) = play(&[strange, header(0x8000_0003, 1)]);
    assert_eq!(
        log,
        "event 0 lost=0 flags=0x80000002 [100, 97, 116, 97]\n\
         lost 1 up to 1 flags=0x80000003\n"
    );
}

#[test]
fn a_record_that_is_cut_off_counts_as_lost_with_the_next() {
    let (log, counts) = play(&[
        event(0),
        event(1)[..11].to_vec(),
        event(2)[..7].to_vec(),
        event(3),
    ]);
    assert_eq!(
        log,
        "event 0 lost=0 flags=0x0 [100, 97, 116, 97]\n\
         a record of 12 bytes ends after 11\n\
         a record of 8 bytes ends after 7\n\
         event 3 lost=2 flags=0x0 [100, 97, 116, 97]\n"
    );
    assert_eq!((counts.lost, counts.malformed), (2, 2));
}

#[test]
fn an_event_that_comes_twice_is_no_loss_of_all_numbers() {
    let (log, counts) = play(&[event(0), event(0), event(1)]);
    assert!(log.contains("event number 0 came twice\n"), "{log}");
    assert_eq!((counts.events, counts.lost, counts.malformed), (2, 0, 1));
}

/// Records in order, whole ones only, as the kernel reads them out.
fn kernel(records: &[Vec<u8>]) -> impl FnMut(&mut [u8]) -> Result<usize, Errno> + use<> {
    let mut left: VecDeque<Vec<u8>> = records.to_vec().into();
    move |into: &mut [u8]| {
        let mut done = 0;
        while let Some(record) = left.front() {
            if record.len() > into.len() - done {
                if done == 0 {
                    return Err(Errno::INVAL);
                }
                break;
            }
            into[done..done + record.len()].copy_from_slice(record);
            done += record.len();
            left.pop_front();
        }
        Ok(done)
    }
}

#[test]
fn a_buffer_grows_until_a_record_fits() {
    let mut buffer = Buffer::new(0);
    assert_eq!(buffer.bytes.len(), 8);
    let mut read = kernel(&[event(0), event(1)]);
    assert_eq!(buffer.fill(&mut read), Ok(true));
    assert_eq!((buffer.bytes.len(), buffer.end), (16, 12));
    // What is there is taken first.
    assert_eq!(buffer.fill(|_| panic!("read too early")), Ok(true));
    buffer.start = 12;
    assert_eq!(buffer.fill(&mut read), Ok(true));
    buffer.start = 12;
    assert_eq!(buffer.fill(&mut read), Ok(false));
    // No record is so long.
    let mut reads = 0;
    let error = buffer.fill(|_| {
        reads += 1;
        Err(Errno::INVAL)
    });
    assert_eq!(error, Err(VeventqError::TooLong { room: 1 << 20 }));
    assert_eq!(reads, 17);
    let error = buffer.fill(|_| Err(Errno::NOMEM));
    assert_eq!(error, Err(VeventqError::File(Errno::NOMEM)));
}

#[test]
fn a_read_that_was_interrupted_is_made_again() {
    let mut buffer = Buffer::new(64);
    let mut read = kernel(&[event(0)]);
    let mut times = 0;
    let came = buffer.fill(|into| {
        times += 1;
        if times < 3 {
            Err(Errno::INTR)
        } else {
            read(into)
        }
    });
    assert_eq!((came, times), (Ok(true), 3));
    // But not for ever.
    buffer.start = buffer.end;
    let error = buffer.fill(|_| Err(Errno::INTR));
    assert_eq!(error, Err(VeventqError::File(Errno::INTR)));
}

/// A queue over a pipe in place of the kernel's file: what is written comes out.
#[test]
fn a_queue_gives_every_record_of_a_read_before_it_reads_again() {
    let iommufd = crate::iommufd::tests::none();
    let (near, far) = rustix::pipe::pipe().unwrap();
    let mut queue = Veventq {
        descriptor: near,
        object: iommufd.pretend(1, Vec::new()),
        decoder: Decoder::new(VeventqKind::SELFTEST),
        buffer: Buffer::new(64),
    };
    assert_eq!(queue.wait(Some(Duration::ZERO)), Ok(false));
    rustix::io::write(&far, &[event(0), event(2), vec![9; 3]].concat()).unwrap();
    assert_eq!(queue.wait(None), Ok(true));
    let first = queue.next_record().unwrap().unwrap();
    assert!(matches!(first, Record::Event { sequence: 0, .. }));
    // The pipe is empty, the buffer is not.
    assert_eq!(queue.wait(Some(Duration::ZERO)), Ok(true));
    let second = queue.next_record().unwrap().unwrap();
    assert!(matches!(second, Record::Event { lost: 1, .. }));
    let cut = Malformed::Truncated { have: 3, need: 8 };
    assert_eq!(queue.next_record(), Err(VeventqError::Malformed(cut)));
    drop(far);
    assert_eq!(queue.next_record(), Ok(None));
    let counts = Counts {
        events: 2,
        lost: 1,
        malformed: 1,
    };
    assert_eq!(queue.counts(), counts);
    drop(queue);
    assert_eq!(iommufd.gone(), [1]);
}

proptest! {
    /// A kernel loses what it loses; the reader's two counts are what it made.
    #[test]
    fn every_event_is_counted_once_as_come_or_as_lost(
        kept in proptest::collection::vec(any::<bool>(), 1..200),
        // How often the reader comes, so that headers without events are seen.
        reads in proptest::collection::vec(any::<bool>(), 200),
        first in 0..0x8000_0000_u32,
    ) {
        let number = |index: usize| (first + u32::try_from(index).unwrap()) & 0x7fff_ffff;
        let mut decoder = Decoder::new(VeventqKind::SELFTEST);
        // The reader has seen everything up to `first`.
        let before = header(1, first.wrapping_sub(1) & 0x7fff_ffff);
        decoder.decode(&mut before.as_slice());
        let start = decoder.counts();
        let mut queued = Vec::new();
        let mut marker = None;
        for (index, kept) in kept.iter().enumerate() {
            if *kept {
                queued.extend(event(number(index)));
                marker = None;
            } else {
                marker = Some(header(1, number(index)));
            }
            if reads[index] {
                queued.extend(marker.take().unwrap_or_default());
                let mut rest = queued.as_slice();
                while let Some(record) = decoder.decode(&mut rest) {
                    prop_assert!(record.is_ok(), "{:?}", record);
                }
                queued.clear();
            }
        }
        queued.extend(marker.unwrap_or_default());
        let mut rest = queued.as_slice();
        while decoder.decode(&mut rest).is_some() {}
        let counts = decoder.counts();
        let came = kept.iter().filter(|kept| **kept).count();
        prop_assert_eq!(counts.events - start.events, came as u64);
        prop_assert_eq!(counts.lost - start.lost, (kept.len() - came) as u64);
    }
}
