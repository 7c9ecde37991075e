use super::{NIL, Slab, State};
use crate::engine::Handle;

#[test]
fn a_slot_out_of_generations_is_retired() {
    let mut slab = Slab::new(4);
    let first = slab.take().unwrap();
    slab.at_mut(first).generation = u32::MAX;
    slab.at_mut(first).state = State::Waiting;
    let old = Handle {
        slot: first,
        generation: u32::MAX,
    };
    assert!(slab.waiting(old).is_some());
    slab.put(first);
    let second = slab.take().unwrap();
    assert_ne!(first, second, "the worn slot must not come back");
    assert!(slab.waiting(old).is_none());
    assert_eq!(slab.used(), 1);
}

#[test]
fn the_slab_refuses_beyond_its_limit_and_takes_again_after_a_return() {
    let mut slab = Slab::new(2);
    let (a, b) = (slab.take().unwrap(), slab.take().unwrap());
    assert_eq!(slab.take(), None);
    slab.put(b);
    assert_eq!(slab.take(), Some(b));
    assert_ne!(a, b);
}

#[test]
fn a_handle_beyond_the_slab_is_stale() {
    let slab = Slab::new(2);
    let wild = Handle {
        slot: NIL,
        generation: 0,
    };
    assert!(slab.waiting(wild).is_none());
}
