use super::*;

fn user(pasid: u32) -> Space {
    Space {
        pasid: Pasid::new(pasid),
        privileged: false,
    }
}

fn granted(pa: u64, page_shift: u8) -> Granted {
    Granted {
        pa: Gpa(pa),
        page_shift,
        perms: Access::READ,
    }
}

fn range(pasid: u32, addr: u64, size_shift: u8) -> Invalidation {
    Invalidation {
        pasid: Pasid::new(pasid),
        global: false,
        addr: Iova(addr),
        size_shift,
    }
}

fn pa(atc: &Atc, space: Space, at: u64) -> Option<u64> {
    atc.lookup(space, Iova(at)).map(|hit| hit.pa.0)
}

#[test]
fn a_large_page_serves_every_address_in_it() {
    let mut atc = Atc::new(4);
    assert!(atc.insert(0, user(1), Iova(0x20_5000), granted(0x60_5000, 21)));
    assert_eq!(pa(&atc, user(1), 0x20_0000), Some(0x60_0000));
    assert_eq!(pa(&atc, user(1), 0x3f_ffff), Some(0x7f_ffff));
    assert_eq!(pa(&atc, user(1), 0x40_0000), None);
    assert_eq!(pa(&atc, user(2), 0x20_0000), None);
    let hit = atc.lookup(user(1), Iova(0x3f_f000)).map(|h| h.len);
    assert_eq!(hit, Some(0x1000));
}

#[test]
fn an_invalidation_of_one_byte_drops_the_large_page_around_it() {
    let mut atc = Atc::new(4);
    atc.insert(0, user(1), Iova(0x20_0000), granted(0x60_0000, 21));
    atc.invalidate(&range(1, 0x3f_f000, 12));
    assert!(atc.is_empty());
}

#[test]
fn an_invalidation_spares_its_neighbours_and_other_pasids() {
    let mut atc = Atc::new(8);
    for page in 0..4u64 {
        atc.insert(
            0,
            user(1),
            Iova(page << 12),
            granted(0x1_0000 + (page << 12), 12),
        );
    }
    atc.insert(0, user(2), Iova(0x1000), granted(0x9000, 12));
    atc.invalidate(&range(1, 0x1000, 12));
    assert_eq!(pa(&atc, user(1), 0x0000), Some(0x1_0000));
    assert_eq!(pa(&atc, user(1), 0x1000), None);
    assert_eq!(pa(&atc, user(1), 0x2000), Some(0x1_2000));
    assert_eq!(pa(&atc, user(2), 0x1000), Some(0x9000));
    atc.invalidate(&range(1, 0, 64));
    assert_eq!(atc.len(), 1);
}

#[test]
fn the_global_bit_reaches_every_pasid_but_not_requests_without_one() {
    let mut atc = Atc::new(8);
    let none = Space {
        pasid: None,
        privileged: false,
    };
    atc.insert(0, user(1), Iova(0x1000), granted(0x5000, 12));
    atc.insert(0, user(2), Iova(0x1000), granted(0x6000, 12));
    atc.insert(0, none, Iova(0x1000), granted(0x7000, 12));
    let global = Invalidation {
        global: true,
        ..range(1, 0, 64)
    };
    atc.invalidate(&global);
    assert_eq!(pa(&atc, none, 0x1000), Some(0x7000));
    assert_eq!(atc.len(), 1);
}

#[test]
fn a_translation_obtained_before_an_invalidation_is_not_kept_after_it() {
    let mut atc = Atc::new(4);
    let before = atc.epoch();
    atc.invalidate(&range(1, 0x1000, 12));
    assert!(!atc.insert(before, user(1), Iova(0x1000), granted(0x5000, 12)));
    assert!(atc.is_empty());
}

#[test]
fn a_privileged_translation_serves_no_user_request() {
    let mut atc = Atc::new(4);
    let kernel = Space {
        privileged: true,
        ..user(1)
    };
    atc.insert(0, kernel, Iova(0x1000), granted(0x5000, 12));
    assert_eq!(pa(&atc, user(1), 0x1000), None);
    atc.invalidate(&range(1, 0x1000, 12));
    assert_eq!(pa(&atc, kernel, 0x1000), None);
}

#[test]
fn a_full_tlb_makes_room_and_stays_within_its_size() {
    let mut atc = Atc::new(4);
    for page in 0..100u64 {
        atc.insert(0, user(1), Iova(page << 12), granted(page << 12, 12));
        assert!(atc.len() <= 4);
        assert_eq!(pa(&atc, user(1), page << 12), Some(page << 12));
    }
}

#[test]
fn the_top_of_the_address_space_and_odd_sizes_do_no_harm() {
    let mut atc = Atc::new(4);
    atc.insert(0, user(1), Iova(u64::MAX), granted(u64::MAX, 12));
    assert_eq!(pa(&atc, user(1), u64::MAX), Some(u64::MAX));
    atc.insert(0, user(1), Iova(0), granted(0, 200));
    atc.insert(0, user(1), Iova(0), granted(0, 0));
    atc.invalidate(&range(1, u64::MAX, 255));
    assert!(atc.is_empty());
}
