use super::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn readable(ready: &Ready) -> bool {
    let mut files = [PollFd::from_borrowed_fd(ready.theirs(), PollFlags::IN)];
    poll(&mut files, Some(&Timespec::default())).unwrap() > 0
}

#[test]
fn it_shows_what_it_was_told_last() {
    let mut ready = Ready::new().unwrap();
    for show in [false, true, true, false, false, true] {
        ready.show(show);
        assert_eq!(readable(&ready), show);
    }
}

#[test]
fn what_could_not_be_shown_is_shown_the_next_time() {
    let mut ready = Ready::new().unwrap();
    while send(&ready.ours, &[0; 512], SendFlags::DONTWAIT).is_ok() {}
    // As without memory: nothing goes in.
    ready.show(true);
    while recv(&ready.theirs, &mut [0; 512], RecvFlags::DONTWAIT).is_ok() {}
    ready.show(true);
    assert!(readable(&ready));
}
