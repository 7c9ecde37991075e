use super::Stalls;
use viommu_api::{Resume, StallTag};

const TAG: StallTag = StallTag(7);

#[test]
fn what_waits_comes_back_once() {
    let mut stalls = Stalls::new();
    assert!(stalls.wait(TAG, 1).is_none());
    assert_eq!(stalls.resume(TAG, Resume::Retry, true), Some(1));
    assert!(stalls.held.is_empty());
}

#[test]
fn a_resume_that_comes_before_the_refusal_is_kept_for_it() {
    let mut stalls = Stalls::new();
    assert_eq!(stalls.resume(TAG, Resume::Abort, true), None);
    assert_eq!(stalls.wait(TAG, 1), Some((1, Resume::Abort)));
    assert!(stalls.held.is_empty());
}

#[test]
fn nobody_is_resumed_for_one_that_gave_up() {
    let mut stalls = Stalls::new();
    assert!(stalls.wait(TAG, 1).is_none());
    assert_eq!(stalls.abandon_all(), [1]);
    assert_eq!(stalls.resume(TAG, Resume::Retry, true), None);
    assert!(stalls.held.is_empty());

    // The tag is another access's now.
    assert!(stalls.wait(TAG, 2).is_none());
    assert_eq!(stalls.resume(TAG, Resume::Ignore, true), Some(2));
}

#[test]
fn a_resume_that_overtook_an_access_that_gave_up_is_forgotten() {
    let mut stalls = Stalls::<u8>::new();
    assert_eq!(stalls.resume(TAG, Resume::Retry, true), None);
    stalls.abandon(TAG);
    assert!(stalls.held.is_empty());
    stalls.abandon(TAG);
    assert_eq!(stalls.resume(TAG, Resume::Retry, true), None);
    assert!(stalls.held.is_empty());
}

#[test]
fn an_access_that_somebody_else_sent_leaves_nothing_behind() {
    let mut stalls = Stalls::new();
    assert_eq!(stalls.resume(TAG, Resume::Abort, false), None);
    assert!(stalls.wait(TAG, 1).is_none());
    assert_eq!(stalls.resume(TAG, Resume::Retry, false), Some(1));
}
