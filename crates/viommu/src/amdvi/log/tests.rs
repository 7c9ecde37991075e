use super::*;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryMmap};

type Ram256 = GuestRam<Arc<GuestMemoryMmap<()>>>;

fn ram() -> Ram256 {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
    GuestRam::new(Arc::new(memory))
}

/// A log of 256 entries at 0x1000, running.
fn log() -> Log {
    let mut log = Log::default();
    log.set_base(0x1000 | 8 << 56);
    log.switch(true);
    log
}

#[test]
fn a_line_rises_once_and_again_after_it_fell() {
    let mut line = Line::default();
    assert!(!line.condition(true), "not enabled");
    assert!(line.enable(true, true), "the condition was there");
    assert!(!line.condition(true));
    assert!(!line.enable(true, true));
    assert!(!line.condition(false));
    assert!(line.condition(true));
    assert!(!line.enable(false, true));
    assert!(line.enable(true, true), "the enable bit fell meanwhile");
}

#[test]
fn the_tail_moves_when_the_entry_lies_in_memory() {
    let (ram, mut log) = (ram(), log());
    let entry = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    assert_eq!(log.push(&ram, entry), Logged::Yes(false));
    let mut read = [0; 16];
    ram.read(Gpa(0x1000), &mut read).unwrap();
    assert_eq!(read[..8], entry[0].to_le_bytes());
    assert_eq!(read[8..], entry[1].to_le_bytes());
    assert_eq!(log.tail(), 16);
}

#[test]
fn a_log_that_is_off_or_has_no_memory_takes_nothing() {
    let ram = ram();
    let mut off = Log::default();
    off.set_base(0x1000 | 8 << 56);
    assert_eq!(off.push(&ram, [0; 2]), Logged::Off);
    let mut nowhere = Log::default();
    nowhere.set_base(0x4000 | 8 << 56);
    nowhere.switch(true);
    assert_eq!(nowhere.push(&ram, [0; 2]), Logged::Off);
    assert_eq!(nowhere.tail(), 0);
    assert!(!nowhere.logged() && !nowhere.stalled());
    let mut short = Log::default();
    short.set_base(0x1000 | 7 << 56);
    short.switch(true);
    assert!(!short.running());
}

#[test]
fn a_full_log_stands_still_until_it_is_switched() {
    let (ram, mut log) = (ram(), log());
    assert!(!log.enable_interrupt(true));
    assert_eq!(log.push(&ram, [1; 2]), Logged::Yes(true));
    for _ in 1..255 {
        assert_eq!(log.push(&ram, [1; 2]), Logged::Yes(false));
    }
    assert_eq!(log.push(&ram, [2; 2]), Logged::Overflow(false));
    assert_eq!(log.push(&ram, [2; 2]), Logged::Off);
    assert!(log.overflow() && log.stalled() && !log.running());
    log.clear(true, true);
    log.set_head(0x800);
    assert_eq!(log.push(&ram, [2; 2]), Logged::Overflow(true));
    assert_eq!(log.push(&ram, [2; 2]), Logged::Off, "it was said");
    log.clear(true, true);
    log.switch(true);
    assert!(log.stalled(), "it was on already");
    log.switch(false);
    assert!(!log.stalled());
    log.switch(true);
    assert!(log.running());
    assert_eq!(log.push(&ram, [3; 2]), Logged::Yes(true));
}

#[test]
fn coming_on_ends_an_overflow_that_was_not_cleared() {
    let (ram, mut log) = (ram(), log());
    for _ in 0..256 {
        log.push(&ram, [1; 2]);
    }
    assert!(log.overflow());
    log.switch(false);
    assert!(log.overflow(), "going off does not");
    log.switch(true);
    assert!(!log.overflow());
}
