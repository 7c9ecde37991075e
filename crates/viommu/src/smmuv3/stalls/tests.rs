use super::*;
use iommu_wire::smmuv3::event::EventNumber;

const ONE: Rid = Rid(1);
const TWO: Rid = Rid(2);

fn record(number: u8) -> RawEvent {
    RawEvent::new(EventNumber(number))
}

fn take(stalls: &mut Stalls) -> Option<Waiting> {
    let first = stalls.first_waiting();
    stalls.settle();
    first
}

#[test]
fn there_are_as_many_places_as_were_asked_for() {
    let mut stalls = Stalls::new(2);
    assert_eq!(stalls.hold(ONE), Some(StallTag(0)));
    assert_eq!(stalls.hold(ONE), Some(StallTag(1)));
    assert_eq!(stalls.hold(TWO), None);
    assert!(stalls.resume(ONE, 0));
    assert_eq!(stalls.hold(TWO), Some(StallTag(0)));
    assert_eq!(Stalls::new(0).hold(ONE), None);
}

#[test]
fn a_tag_is_not_used_again_at_once() {
    let mut stalls = Stalls::new(3);
    for tag in [0, 1, 2, 0] {
        assert_eq!(stalls.hold(ONE), Some(StallTag(tag)));
        assert!(stalls.resume(ONE, tag));
    }
}

#[test]
fn only_the_stream_of_a_transaction_names_it_and_only_once() {
    let mut stalls = Stalls::new(4);
    stalls.hold(ONE);
    assert!(!stalls.resume(TWO, 0));
    assert!(!stalls.resume(ONE, 1));
    assert!(!stalls.resume(ONE, 0xffff));
    assert!(stalls.resume(ONE, 0));
    assert!(!stalls.resume(ONE, 0));
}

#[test]
fn records_wait_in_the_order_of_the_faults() {
    let mut stalls = Stalls::new(4);
    for number in 1..=3 {
        let tag = stalls.hold(ONE).unwrap();
        stalls.wait(tag, record(number));
    }
    assert!(stalls.any_waits());
    assert!(!stalls.resume(ONE, 0), "software cannot know of it");
    for number in 1..=3 {
        assert_eq!(take(&mut stalls), Some(Waiting::Record(record(number))));
    }
    assert_eq!(take(&mut stalls), None);
    assert!(!stalls.any_waits());
    assert!(stalls.resume(ONE, 0), "now it does");
}

#[test]
fn what_waited_over_a_sync_is_retried() {
    let mut stalls = Stalls::new(4);
    let old = stalls.hold(ONE).unwrap();
    stalls.wait(old, record(1));
    stalls.sync();
    let new = stalls.hold(TWO).unwrap();
    stalls.wait(new, record(2));
    assert_eq!(take(&mut stalls), Some(Waiting::Retry(ONE, old)));
    assert_eq!(take(&mut stalls), Some(Waiting::Record(record(2))));
    assert!(!stalls.resume(ONE, old.0), "it is gone");
}

#[test]
fn a_release_takes_what_waits_too() {
    let mut stalls = Stalls::new(4);
    let first = stalls.hold(ONE).unwrap();
    let second = stalls.hold(TWO).unwrap();
    let third = stalls.hold(ONE).unwrap();
    stalls.wait(second, record(2));
    stalls.wait(third, record(3));
    assert_eq!(stalls.release(Some(ONE)), [(ONE, first), (ONE, third)]);
    assert_eq!(take(&mut stalls), Some(Waiting::Record(record(2))));
    assert_eq!(stalls.release(None), [(TWO, second)]);
    assert_eq!(stalls.release(None), []);
}
