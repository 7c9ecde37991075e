use super::*;
use proptest::prelude::*;
use zerocopy::IntoBytes;

fn stores(portals: &mut Portals, writes: &[(u64, &[u8])]) -> Vec<(usize, Vec<u8>)> {
    let mut out = Vec::new();
    for (at, data) in writes {
        portals.write(*at, data, &mut |wq, raw| {
            out.push((wq, raw.as_bytes().to_vec()))
        });
    }
    out
}

fn bytes() -> [u8; 64] {
    std::array::from_fn(|i| u8::try_from(i).unwrap())
}

#[test]
fn eight_stores_of_eight_bytes_make_a_descriptor() {
    let bytes = bytes();
    let mut portals = Portals::default();
    // The limited portal of work queue 1, third slot of its page.
    let base = 4 * 4096 + 4096 + 128;
    let writes: Vec<(u64, &[u8])> = (0..8)
        .map(|i| (base + i * 8, &bytes[usize::try_from(i).unwrap() * 8..][..8]))
        .collect();
    assert_eq!(stores(&mut portals, &writes[..7]), []);
    assert_eq!(stores(&mut portals, &writes[7..]), [(1, bytes.to_vec())]);
    assert!(portals.slots.is_empty());
}

#[test]
fn one_store_of_64_bytes_makes_a_descriptor() {
    let bytes = bytes();
    assert_eq!(
        stores(&mut Portals::default(), &[(0, &bytes)]),
        [(0, bytes.to_vec())]
    );
}

#[test]
fn a_slot_with_a_gap_is_discarded() {
    let mut portals = Portals::default();
    let bytes = bytes();
    assert_eq!(
        stores(&mut portals, &[(0, &bytes[..8]), (16, &bytes[16..])]),
        []
    );
    assert!(portals.slots.is_empty());
    assert_eq!(stores(&mut portals, &[(0, &bytes)]).len(), 1);
}

#[test]
fn portals_for_interrupt_message_storage_do_not_exist() {
    let bytes = bytes();
    let writes: [(u64, &[u8]); 2] = [(2 * 4096, &bytes), (3 * 4096, &bytes)];
    assert_eq!(stores(&mut Portals::default(), &writes), []);
}

proptest! {
    #[test]
    fn any_store_is_taken_and_memory_is_bounded(
        writes in prop::collection::vec((0..SIZE + 100, prop::collection::vec(any::<u8>(), 0..200)), 0..60),
    ) {
        let mut portals = Portals::default();
        for (at, data) in &writes {
            portals.write(*at, data, &mut |wq, _| assert!(wq < WQS));
        }
        prop_assert!(portals.slots.len() as u64 <= SIZE / 64 / 2);
    }
}
