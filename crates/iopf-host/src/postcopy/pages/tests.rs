use super::{Asked, Next, Pages, RETRY, Status};
use iopf::engine::Handle;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

fn handle(number: u64) -> Handle {
    Handle::from_bits(number)
}

fn ask(pages: &mut Pages, number: u64, of: &[usize]) -> Asked {
    pages.ask(handle(number), of.iter().copied())
}

#[test]
fn a_page_that_many_wait_for_is_fetched_once() {
    let (mut pages, now) = (Pages::new(4, 8), Instant::now());
    assert_eq!(ask(&mut pages, 1, &[2]), Asked::Waits);
    assert_eq!(ask(&mut pages, 2, &[2, 3]), Asked::Waits);
    assert_eq!(pages.touch(2), Status::Queued);
    assert_eq!(pages.next(now), Next::Fetch(2));
    // Somebody comes while it is under way.
    assert_eq!(ask(&mut pages, 3, &[2]), Asked::Waits);
    assert_eq!(pages.touch(2), Status::Fetching);
    assert_eq!(pages.next(now), Next::Fetch(3));
    assert_eq!(pages.next(now), Next::Idle);
    assert_eq!(pages.placed(2), [handle(1), handle(3)]);
    assert_eq!(pages.placed(3), [handle(2)]);
    assert_eq!(ask(&mut pages, 4, &[2, 3]), Asked::Present);
    assert_eq!(pages.touch(2), Status::Present);
    assert_eq!((pages.next(now), pages.missing()), (Next::Idle, 2));
}

#[test]
fn a_failure_is_told_to_groups_and_repeated_for_threads() {
    let (mut pages, now) = (Pages::new(4, 8), Instant::now());
    ask(&mut pages, 1, &[0, 1]);
    ask(&mut pages, 2, &[1]);
    pages.touch(0);
    assert_eq!(pages.next(now), Next::Fetch(0));
    assert_eq!(pages.failed(0, now, false), [handle(1)]);
    // The first is asked for again after a while; the second is waited for by one group still.
    assert_eq!(pages.next(now), Next::Fetch(1));
    assert_eq!(pages.placed(1), [handle(2)]);
    assert_eq!(pages.next(now), Next::At(now + RETRY));
    assert_eq!(pages.next(now + RETRY), Next::Fetch(0));
    assert_eq!(pages.placed(0), []);
    // Nobody touched this one, so it is not asked for again.
    ask(&mut pages, 3, &[3]);
    assert_eq!(pages.next(now), Next::Fetch(3));
    assert_eq!(pages.failed(3, now, false), [handle(3)]);
    assert_eq!(pages.next(now + RETRY), Next::Idle);
    assert_eq!(pages.status(3), Status::Missing);
}

#[test]
fn a_page_that_is_lost_is_not_asked_for_again() {
    let (mut pages, now) = (Pages::new(1, 8), Instant::now());
    ask(&mut pages, 1, &[0]);
    pages.touch(0);
    assert_eq!(pages.next(now), Next::Fetch(0));
    assert_eq!(pages.failed(0, now, true), [handle(1)]);
    assert_eq!(ask(&mut pages, 2, &[0]), Asked::Gone);
    assert_eq!(pages.touch(0), Status::Gone);
    assert_eq!(pages.next(now + RETRY), Next::Idle);
    assert_eq!((pages.missing(), pages.waiting()), (0, 0));
}

#[test]
fn what_nobody_asks_for_comes_last_and_again_after_a_failure() {
    let (mut pages, now) = (Pages::new(3, 8), Instant::now());
    pages.want_rest();
    pages.touch(2);
    assert_eq!(pages.next(now), Next::Fetch(2));
    assert_eq!(pages.next(now), Next::Fetch(0));
    assert_eq!(pages.failed(0, now, false), []);
    assert_eq!(pages.next(now), Next::Fetch(1));
    assert_eq!((pages.placed(2), pages.placed(1)), (vec![], vec![]));
    assert_eq!(pages.next(now), Next::At(now + RETRY));
    assert_eq!(pages.next(now + RETRY), Next::Fetch(0));
    assert_eq!(pages.placed(0), []);
    assert_eq!(pages.next(now + RETRY * 3), Next::Idle);
}

#[test]
fn groups_that_wait_no_more_make_room() {
    let mut pages = Pages::new(4, 2);
    assert_eq!(ask(&mut pages, 1, &[0, 1, 1]), Asked::Waits);
    assert_eq!(ask(&mut pages, 2, &[1]), Asked::Waits);
    assert_eq!(ask(&mut pages, 3, &[2]), Asked::Full);
    pages.prune(|h| h == handle(2));
    assert_eq!(ask(&mut pages, 3, &[2]), Asked::Waits);
    assert_eq!(pages.waiting(), 2);
    let now = Instant::now();
    let order: Vec<_> = (0..3).map(|_| pages.next(now)).collect();
    assert_eq!(order, [Next::Fetch(0), Next::Fetch(1), Next::Fetch(2)]);
    assert_eq!(pages.placed(1), [handle(2)]);
    assert_eq!(pages.close(), [handle(3)]);
}

#[derive(Clone, Debug)]
enum Step {
    Ask(Vec<usize>),
    Touch(usize),
    Next,
    /// The n-th page under way: placed, failed, lost.
    Settle(usize, u8),
    Prune,
    Rest,
    Time,
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..6usize;
    prop_oneof![
        4 => prop::collection::vec(page.clone(), 1..4).prop_map(Step::Ask),
        2 => page.prop_map(Step::Touch),
        4 => Just(Step::Next),
        4 => (any::<usize>(), 0..5u8).prop_map(|(n, how)| Step::Settle(n, how)),
        1 => Just(Step::Prune),
        1 => Just(Step::Rest),
        1 => Just(Step::Time),
    ]
}

proptest! {
    #[test]
    fn each_group_is_given_back_once_and_no_present_page_is_fetched(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let (mut pages, mut now) = (Pages::new(6, 5), Instant::now());
        let (mut asked, mut waiting) = (0, BTreeMap::new());
        let (mut under_way, mut present) = (Vec::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Ask(of) => {
                    asked += 1;
                    match ask(&mut pages, asked, &of) {
                        Asked::Waits => {
                            waiting.insert(handle(asked), of);
                        }
                        Asked::Present => prop_assert!(of.iter().all(|p| present.contains(p))),
                        Asked::Full => prop_assert_eq!(waiting.len(), 5),
                        Asked::Gone => {}
                    }
                }
                Step::Touch(page) => {
                    let there = pages.touch(page) == Status::Present;
                    prop_assert_eq!(there, present.contains(&page));
                }
                Step::Next => if let Next::Fetch(page) = pages.next(now) {
                    prop_assert!(!under_way.contains(&page) && !present.contains(&page));
                    under_way.push(page);
                },
                Step::Settle(n, how) if !under_way.is_empty() => {
                    let page = under_way.swap_remove(n % under_way.len());
                    let done = if how < 3 {
                        present.insert(page);
                        pages.placed(page)
                    } else {
                        pages.failed(page, now, how == 4)
                    };
                    for handle in done {
                        let of = waiting.remove(&handle);
                        prop_assert!(of.is_some(), "given back twice");
                        let of = of.unwrap_or_default();
                        prop_assert!(of.contains(&page));
                        prop_assert!(how >= 3 || of.iter().all(|p| present.contains(p)));
                    }
                }
                Step::Settle(..) => {}
                Step::Prune => {
                    pages.prune(|h| h.to_bits().is_multiple_of(2));
                    waiting.retain(|h, _| h.to_bits().is_multiple_of(2));
                }
                Step::Rest => pages.want_rest(),
                Step::Time => now += RETRY,
            }
            prop_assert_eq!(pages.waiting(), waiting.len());
        }
        let rest: BTreeSet<_> = pages.close().into_iter().collect();
        prop_assert_eq!(rest, waiting.into_keys().collect());
    }
}
