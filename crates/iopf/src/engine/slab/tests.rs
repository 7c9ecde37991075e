use super::{NIL, Slab, State};
use crate::engine::Handle;
use alloc::vec::Vec;

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

#[test]
fn what_was_looked_at_and_skipped_is_stale_and_never_comes_back() {
    let mut slab = Slab::new(2);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let next = slab.peek().unwrap();
        assert!(slab.is_next(next) && !seen.contains(&next));
        assert_eq!((slab.used(), slab.peek()), (0, Some(next)));
        slab.skip();
        seen.push(next);
    }
    let next = slab.peek().unwrap();
    let taken = slab.take().unwrap();
    slab.at_mut(taken).state = State::Waiting;
    assert_eq!(taken, next.slot);
    assert!(slab.waiting(next).is_some());
    assert!(seen.iter().all(|old| slab.waiting(*old).is_none()));
    slab.put(taken);
    assert!(slab.waiting(next).is_none());
    assert!(!seen.contains(&slab.peek().unwrap()));
}

#[test]
fn a_slot_that_is_skipped_out_of_generations_is_retired() {
    let mut slab = Slab::new(2);
    let first = slab.take().unwrap();
    slab.at_mut(first).generation = u32::MAX - 1;
    slab.put(first);
    let last = slab.peek().unwrap();
    assert_eq!((last.slot, last.generation), (first, u32::MAX));
    slab.skip();
    assert_ne!(slab.peek().unwrap().slot, first);
    let others = [slab.take().unwrap(), slab.take().unwrap()];
    assert!(!others.contains(&first));
    assert!(slab.peek().is_none(), "the limit is reached");
}
