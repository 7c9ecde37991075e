use super::*;
use crate::codec::{Command, Kind};
use zerocopy::IntoBytes;

const LIMITS: Limits = Limits {
    max_transfer: 4096,
    max_fds: 3,
    max_maps: 8,
    max_version: 64,
    max_pending: 4,
};

/// A message of `size` bytes with its number in every byte of the payload.
fn message(id: u8, size: u32) -> Vec<u8> {
    let header = Header::command(id.into(), Command::REGION_WRITE, size, false);
    let mut bytes = header.encode().as_bytes().to_vec();
    bytes.resize(size as usize, id);
    bytes
}

fn put(
    inbox: &mut Inbox<u32>,
    bytes: &[u8],
    descriptors: &[u32],
) -> Result<(), TooManyDescriptors> {
    inbox.space()[..bytes.len()].copy_from_slice(bytes);
    inbox.filled(bytes.len(), descriptors.iter().copied())
}

/// Everything that is there, as number, size and descriptors.
fn take(inbox: &mut Inbox<u32>) -> Vec<(u16, u32, Vec<u32>)> {
    let mut taken = Vec::new();
    while let Some(message) = inbox.next().unwrap() {
        let Header { id, size, kind, .. } = message.header;
        assert_eq!(kind, Kind::Command { no_reply: false });
        assert_eq!(message.payload.len() + HEADER_SIZE, size as usize);
        assert!(message.payload.iter().all(|byte| u16::from(*byte) == id));
        taken.push((id, size, message.descriptors));
    }
    taken
}

#[test]
fn messages_come_out_whole_however_the_stream_is_cut() {
    let stream: Vec<u8> = [(1, 16), (2, 40), (3, 4000), (4, 17), (5, 16)]
        .into_iter()
        .flat_map(|(id, size)| message(id, size))
        .collect();
    for step in [1, 2, 7, 15, 16, 17, 100, 4089] {
        let mut inbox = Inbox::new(LIMITS);
        let mut taken = Vec::new();
        for chunk in stream.chunks(step) {
            put(&mut inbox, chunk, &[]).unwrap();
            taken.extend(take(&mut inbox).into_iter().map(|(id, size, _)| (id, size)));
        }
        assert_eq!(
            taken,
            [(1, 16), (2, 40), (3, 4000), (4, 17), (5, 16)],
            "{step}"
        );
        assert_eq!(inbox.rest(), 0);
    }
}

#[test]
fn descriptors_belong_to_the_message_that_was_sent_with_them() {
    let mut inbox = Inbox::new(LIMITS);
    // Two plain messages were waiting when the third came with two descriptors.
    let glued = [message(1, 20), message(2, 16), message(3, 48)].concat();
    put(&mut inbox, &glued, &[70, 71]).unwrap();
    put(&mut inbox, &message(4, 16), &[]).unwrap();
    let expected = [
        (1, 20, vec![]),
        (2, 16, vec![]),
        (3, 48, vec![70, 71]),
        (4, 16, vec![]),
    ];
    assert_eq!(take(&mut inbox), expected);
}

#[test]
fn descriptors_stay_with_a_message_that_comes_in_pieces() {
    let mut inbox = Inbox::new(LIMITS);
    let bytes = message(1, 48);
    put(&mut inbox, &bytes[..5], &[70]).unwrap();
    assert_eq!(take(&mut inbox), []);
    put(&mut inbox, &bytes[5..30], &[71]).unwrap();
    assert_eq!(take(&mut inbox), []);
    put(&mut inbox, &bytes[30..], &[]).unwrap();
    assert_eq!(take(&mut inbox), [(1, 48, vec![70, 71])]);
}

#[test]
fn no_message_has_more_descriptors_than_the_limit() {
    let mut inbox = Inbox::new(LIMITS);
    let bytes = message(1, 48);
    put(&mut inbox, &bytes[..5], &[1, 2]).unwrap();
    assert_eq!(
        put(&mut inbox, &bytes[5..], &[3, 4]),
        Err(TooManyDescriptors)
    );
    let mut inbox = Inbox::new(LIMITS);
    assert_eq!(
        put(&mut inbox, &bytes, &[1, 2, 3, 4]),
        Err(TooManyDescriptors)
    );
}

#[test]
fn memory_is_bounded_by_the_longest_message() {
    let mut inbox = Inbox::<u32>::new(LIMITS);
    let longest = LIMITS.max_message();
    for id in 0..100 {
        for chunk in message(id, longest).chunks(1000) {
            put(&mut inbox, chunk, &[]).unwrap();
        }
        assert_eq!(take(&mut inbox), [(id.into(), longest, vec![])]);
    }
    assert!(inbox.bytes.len() <= longest as usize + CHUNK);
    put(&mut inbox, &message(1, longest + 1)[..16], &[]).unwrap();
    assert!(matches!(inbox.next(), Err(HeaderError::Long { .. })));
    assert!(inbox.bytes.len() <= longest as usize + CHUNK);
}
