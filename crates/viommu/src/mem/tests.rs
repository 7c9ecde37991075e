use super::*;
use std::sync::Arc;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// Two regions with a hole of one page between them.
fn ram() -> GuestRam<Arc<GuestMemoryMmap>> {
    let regions = [
        (GuestAddress(0x1000), 0x2000),
        (GuestAddress(0x4000), 0x1000),
    ];
    GuestRam::new(Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap()))
}

#[test]
fn words_are_little_endian_in_memory() {
    let ram = ram();
    ram.write(
        Gpa(0x2ff0),
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 0, 0, 0x80],
    )
    .unwrap();
    ram.view(|view| {
        assert_eq!(view.load(Gpa(0x2ff0)), Ok(0x0807_0605_0403_0201));
        assert_eq!(
            view.load_words(Gpa(0x2ff0)),
            Ok([0x0807_0605_0403_0201, 0x8000_0000_0000_0009])
        );
    });
}

#[test]
fn an_entry_that_no_memory_backs_in_full_is_unreachable() {
    let ram = ram();
    ram.view(|view| {
        for at in [0, 0xff8, 0x3000, 0x3ff8, 0x5000, u64::MAX - 7] {
            let at = Gpa(at);
            assert_eq!(view.load(at), Err(Unreachable(at)));
            assert_eq!(view.compare_exchange(at, 0, 1), Err(Unreachable(at)));
        }
        let last = Gpa(0x2ff8);
        assert_eq!(view.load(last), Ok(0));
        assert_eq!(view.load_words::<2>(last), Err(Unreachable(last)));
        // The other region, then back.
        assert_eq!(view.load(Gpa(0x4ff8)), Ok(0));
        assert_eq!(view.load(last), Ok(0));
    });
    let hole = Gpa(0x2ff9);
    assert_eq!(ram.read(hole, &mut [0; 8]), Err(Unreachable(hole)));
    assert_eq!(ram.write(hole, &[0; 8]), Err(Unreachable(hole)));
}

#[test]
fn an_unaligned_word_is_unreachable_rather_than_two_accesses() {
    ram().view(|view| {
        assert_eq!(view.load(Gpa(0x1004)), Err(Unreachable(Gpa(0x1004))));
        let swap = view.compare_exchange(Gpa(0x1001), 0, 1);
        assert_eq!(swap, Err(Unreachable(Gpa(0x1001))));
    });
}

#[test]
fn an_exchange_takes_place_only_while_the_word_is_what_it_was() {
    let ram = ram();
    ram.write(Gpa(0x1008), &0x27u64.to_le_bytes()).unwrap();
    ram.view(|view| {
        assert_eq!(view.compare_exchange(Gpa(0x1008), 0x27, 0x67), Ok(true));
        assert_eq!(view.compare_exchange(Gpa(0x1008), 0x27, 0xff), Ok(false));
    });
    let mut bytes = [0; 8];
    ram.read(Gpa(0x1008), &mut bytes).unwrap();
    assert_eq!(bytes, [0x67, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_exchange_marks_its_page_dirty() {
    type Tracked = GuestMemoryMmap<AtomicBitmap>;
    let memory = Arc::new(Tracked::from_ranges(&[(GuestAddress(0x1000), 0x10000)]).unwrap());
    let ram = GuestRam::new(Arc::clone(&memory));
    let dirty = |at: usize| {
        let region = memory.iter().next().unwrap();
        region.bitmap().dirty_at(at)
    };
    ram.view(|view| view.compare_exchange(Gpa(0x3008), 1, 2))
        .unwrap();
    assert!(!dirty(0x2008));
    ram.view(|view| view.compare_exchange(Gpa(0x3008), 0, 2))
        .unwrap();
    assert!(dirty(0x2008));
    assert!(!dirty(0x1008));
}

#[test]
fn whole_words_are_stored_or_none_and_mark_their_page_dirty() {
    type Tracked = GuestMemoryMmap<AtomicBitmap>;
    let memory = Arc::new(Tracked::from_ranges(&[(GuestAddress(0x1000), 0x10000)]).unwrap());
    let ram = GuestRam::new(Arc::clone(&memory));
    for at in [0xff8, 0x10ff8, 0x11000, 0x3004, u64::MAX - 7] {
        let at = Gpa(at);
        assert_eq!(ram.store_words(at, [1, 2]), Err(Unreachable(at)));
    }
    let dirty = |at: usize| memory.iter().next().unwrap().bitmap().dirty_at(at);
    assert!(!dirty(0x2000) && !dirty(0xfff8));
    ram.store_words(Gpa(0x3ff8), [1, 0x0807_0605_0403_0201])
        .unwrap();
    ram.view(|view| {
        assert_eq!(view.load_words(Gpa(0x3ff8)), Ok([1, 0x0807_0605_0403_0201]));
    });
    assert!(dirty(0x2ff8) && dirty(0x3000));
}

#[test]
fn a_new_map_is_used_from_the_next_view_on() {
    let map = |base| GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(base), 0x1000)]).unwrap();
    let space = GuestMemoryAtomic::new(map(0x1000));
    let ram = GuestRam::new(space.clone());
    ram.view(|old| {
        assert_eq!(old.load(Gpa(0x1000)), Ok(0));
        space.lock().unwrap().replace(map(0x8000));
        assert_eq!(old.load(Gpa(0x1000)), Ok(0));
        assert_eq!(old.load(Gpa(0x8000)), Err(Unreachable(Gpa(0x8000))));
    });
    ram.view(|new| {
        assert_eq!(new.load(Gpa(0x1000)), Err(Unreachable(Gpa(0x1000))));
        assert_eq!(new.load(Gpa(0x8000)), Ok(0));
    });
}
