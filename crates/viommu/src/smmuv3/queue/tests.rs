use super::*;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

type Memory = Arc<GuestMemoryMmap<()>>;

fn memory() -> GuestRam<Memory> {
    let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
    GuestRam::new(Arc::new(map))
}

/// A queue of four entries of 32 bytes at 0x1000, on.
fn queue() -> Output<32> {
    let mut queue = Output::new(19);
    queue.set_base(0x1000 | 2);
    queue.switch(true);
    queue
}

fn word(ram: &GuestRam<Memory>, at: u64) -> u64 {
    ram.space().read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn every_entry_of_a_queue_is_used_and_the_wrap_bit_tells_full_from_empty() {
    let (ram, mut queue) = (memory(), queue());
    for number in 0..4u64 {
        let first = number == 0;
        assert_eq!(queue.push(&ram, [number + 1; 4]), Pushed::Yes { first });
        assert_eq!(word(&ram, 0x1000 + number * 32), number + 1);
    }
    assert_eq!(queue.prod(), 4, "index 0, wrapped");
    assert_eq!(queue.push(&ram, [9; 4]), Pushed::Full);
    queue.set_cons(4);
    assert_eq!(queue.push(&ram, [9; 4]), Pushed::Yes { first: true });
    assert_eq!(word(&ram, 0x1000), 9);
    assert_eq!(queue.prod(), 5);
}

#[test]
fn a_loss_is_told_once_until_it_is_acknowledged() {
    let mut queue = queue();
    queue.lose();
    assert!(queue.overflowed());
    assert_eq!(queue.prod(), 1 << 31);
    queue.lose();
    assert_eq!(queue.prod(), 1 << 31);
    queue.set_cons(1 << 31);
    assert!(!queue.overflowed());
    queue.lose();
    assert_eq!(queue.prod(), 0);
    assert!(queue.overflowed());
}

#[test]
fn a_queue_that_is_on_keeps_its_place() {
    let mut queue = queue();
    queue.set_base(0x2000 | 3);
    queue.set_prod(3);
    assert_eq!((queue.base(), queue.prod()), (0x1000 | 2, 0));
    queue.switch(false);
    queue.set_base(u64::MAX);
    // RA, bits 55:5, LOG2SIZE.
    assert_eq!(queue.base(), 0x40ff_ffff_ffff_ffff);
    queue.set_base(0x2000 | 3);
    queue.set_prod(0x7f);
    assert_eq!(queue.prod(), 0xf, "three bits of index and the wrap bit");
    queue.set_base(0x2000 | 1);
    assert_eq!(queue.prod(), 3, "cut to the new size");
}

#[test]
fn a_size_beyond_the_limit_counts_as_the_limit() {
    let ram = memory();
    let mut queue = Output::<32>::new(1);
    queue.set_base(0x1000 | 9);
    queue.switch(true);
    assert_eq!(queue.base(), 0x1000 | 9);
    assert_eq!(queue.push(&ram, [1; 4]), Pushed::Yes { first: true });
    assert_eq!(queue.push(&ram, [1; 4]), Pushed::Yes { first: false });
    assert_eq!(queue.push(&ram, [1; 4]), Pushed::Full);
}

#[test]
fn a_queue_of_one_entry_lies_at_a_multiple_of_32() {
    let ram = memory();
    let mut queue = Output::<16>::new(19);
    queue.set_base(0x1020);
    queue.switch(true);
    assert_eq!(queue.push(&ram, [7, 8]), Pushed::Yes { first: true });
    assert_eq!(word(&ram, 0x1028), 8);
    assert_eq!(queue.push(&ram, [7, 8]), Pushed::Full);
    queue.set_cons(1);
    assert_eq!(queue.push(&ram, [9, 10]), Pushed::Yes { first: true });
    assert_eq!(word(&ram, 0x1020), 9);
}

#[test]
fn indices_that_cannot_be_are_a_full_queue() {
    let ram = memory();
    let mut queue = queue();
    queue.set_cons(1);
    assert!(!queue.writable());
    assert_eq!(queue.push(&ram, [1; 4]), Pushed::Full);
    assert_eq!(word(&ram, 0x1000), 0);
}

#[test]
fn an_entry_that_cannot_be_written_does_not_count() {
    let ram = memory();
    let mut queue = Output::<32>::new(19);
    queue.set_base(0x10_0000 | 2);
    assert_eq!(queue.push(&ram, [1; 4]), Pushed::Off);
    queue.switch(true);
    assert_eq!(queue.push(&ram, [1; 4]), Pushed::Aborted);
    assert_eq!(queue.prod(), 0);
}
