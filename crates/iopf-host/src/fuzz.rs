//! Plain functions over bytes, for a fuzzer and for the tests over its corpus.

use crate::veventq::{Decoder, Malformed, Record, VeventqKind};

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
