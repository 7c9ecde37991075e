//! Plain functions over bytes, for a fuzzer and for the tests over its corpus.

use crate::FaultQueue;
use crate::fake::{BadRead, BadWrite, FakeFile};
use crate::queue::Read;
use crate::veventq::{Decoder, Malformed, Record, VeventqKind};
use iopf::Response;
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Reads of a vEVENTQ. The first byte says how long an event is, and each further read is two bytes
/// of length, little-endian, and that many bytes, or what is left.
///
/// # Panics
/// When the decoder does not keep its promise.
pub fn veventq(bytes: &[u8]) {
    let Some((&first, mut script)) = bytes.split_first() else {
        return;
    };
    let payload = u16::from(first) % 40;
    let mut decoder = Decoder::new(VeventqKind::new(1, payload));
    // What the numbers say, kept by a second hand: how far it is from the start to the last one.
    let (mut last, mut passed, mut repeated) = (-1_i64, 0_u64, 0);
    while let Some((len, rest)) = script.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (mut read, rest) = rest.split_at(len);
        script = rest;
        loop {
            let before = read.len();
            let Some(record) = decoder.decode(&mut read) else {
                assert_eq!(before, 0, "nothing is left");
                break;
            };
            assert!(read.len() < before, "something was taken");
            let (sequence, lost) = match record {
                Ok(Record::Event {
                    sequence,
                    lost,
                    data,
                    flags,
                }) => {
                    assert_eq!((data.len(), flags & 1), (payload.into(), 0));
                    (sequence, u64::from(lost) + 1)
                }
                Ok(Record::Lost {
                    sequence,
                    lost,
                    flags,
                }) => {
                    assert_eq!(flags & 1, 1);
                    (sequence, lost.into())
                }
                Err(Malformed::Truncated { have, need }) => {
                    assert!(have < need && read.is_empty(), "{have} of {need}");
                    continue;
                }
                Err(Malformed::Repeated { sequence }) => {
                    assert_eq!(i64::from(sequence), last.rem_euclid(1 << 31));
                    repeated += 1;
                    continue;
                }
            };
            let way = (i64::from(sequence) - last).rem_euclid(1 << 31);
            assert_eq!(lost, u64::try_from(way).unwrap_or(u64::MAX), "{record:?}");
            (last, passed) = (sequence.into(), passed + lost);
        }
    }
    let counts = decoder.counts();
    assert_eq!(counts.events + counts.lost, passed);
    assert!(counts.malformed >= repeated, "{counts:?}");
}

/// Reads of a fault queue. The first byte says how the file takes answers, and each read is two bytes
/// of length, little-endian, and that many bytes, or what is left.
///
/// # Panics
/// When the queue does not keep its promise.
pub fn fault_queue(bytes: &[u8]) {
    let Some((&how, mut script)) = bytes.split_first() else {
        return;
    };
    let file = FakeFile::new();
    let mut queue = FaultQueue::new(file.clone());
    let (mut pages, mut torn, mut handed_out, mut owed) = (0, 0, 0, 0);
    while let Some((len, rest)) = script.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (read, rest) = rest.split_at(len);
        script = rest;
        // The buffer has room for so many pages, and grows only when it is told to.
        let fits = &read[..len.min(128 * 40)];
        file.bad_reads([BadRead::Bytes(fits.to_vec())]);
        let expected = match fits.len() / 40 {
            0 => Read::Nothing,
            pages => Read::Pages(pages),
        };
        assert_eq!(queue.read(usize::MAX), Ok(expected));
        pages += fits.len() / 40;
        torn += fits.len() % 40;
        // Groups and what is none, in the order of the pages.
        let mut at = 0;
        while let Some(group) = queue.next_group() {
            let record = |nth: usize| &fits[nth * 40..][..40];
            let cookie = &record(at)[36..];
            match group {
                Ok(group) => {
                    let len = group.len();
                    assert_eq!(group.cookie().to_ne_bytes(), cookie);
                    assert_eq!(group.partial().len() + 1, len);
                    assert!(group.last([0; 2]).last);
                    assert!(group.partial().all(|page| !page.last));
                    for (nth, raw) in group.raw().enumerate() {
                        assert_eq!(zerocopy::IntoBytes::as_bytes(raw), record(at + nth));
                        assert_eq!(raw.dev_id, group.dev_id());
                    }
                    at += len;
                    handed_out += len;
                    let cookie = group.cookie();
                    queue.answer(cookie, Response::Success);
                    owed += 1;
                }
                Err(malformed) => {
                    assert_eq!(malformed.cookie.to_ne_bytes(), cookie);
                    assert!(malformed.pages > 0);
                    at += malformed.pages;
                    owed += 1;
                }
            }
        }
        assert_eq!(at, fits.len() / 40, "every page is in one group or in none");
    }
    let counts = queue.counts();
    assert_eq!(counts.pages, pages as u64);
    assert_eq!(counts.torn, torn as u64);
    assert_eq!(counts.malformed, (pages - handed_out) as u64);
    // The file knows none of these cookies. What it takes of them all the same, it takes once.
    let takes = BTreeMap::from([(1, 8), (2, 16), (3, 0), (4, 12)]);
    if let Some(bytes) = takes.get(&how) {
        file.bad_writes([BadWrite::Claim(*bytes)]);
    }
    while queue.unwritten() > 0 {
        let before = queue.unwritten();
        let lies = queue.flush().is_err();
        assert!(lies || queue.unwritten() == 0);
        assert!(before > queue.unwritten() || lies);
    }
    let counts = queue.counts();
    assert!(counts.answered + counts.stale <= owed);
    assert!(counts.answered + counts.stale + 2 >= owed);
}
