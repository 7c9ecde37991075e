//! Groups that somebody else put together.

use crate::Response;
use crate::engine::Policy;
use crate::script::{Step, Takes, play};

const SETUP: [Step; 3] = [
    Step::Add(1, 4, 1),
    Step::Attach(1, None, 1, Takes::Everything),
    Step::Attach(1, Some(5), 2, Takes::Everything),
];

fn log(policy: Policy, steps: &[Step]) -> std::string::String {
    let mut script = std::vec::Vec::from(SETUP);
    script.extend_from_slice(steps);
    play(policy, &script)
}

#[test]
fn a_whole_group_joins_no_partial_pages_and_leaves_them() {
    // Group index 3, as that of whole groups.
    let log = log(
        Policy::default(),
        &[
            Step::Page(1, None, 3, 0x9000),
            Step::Group(1, None, None, 1),
            Step::Deliver,
            Step::Last(1, None, 3, 0xa000),
            Step::Deliver,
        ],
    );
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 g3: -:0x0 -:0x1000\n\
         @0 queued #1\n\
         @0 deliver #1 d1 dom1 g3: -:0x9000 -:0xa000\n"
    );
}

#[test]
fn a_whole_group_takes_all_of_its_credits_or_none() {
    let log = log(
        Policy::default(),
        &[
            Step::Group(1, None, None, 4),
            Step::Group(1, None, None, 3),
            Step::Group(1, None, None, 0),
        ],
    );
    assert_eq!(
        log,
        "@0 answer d1 Invalid at once: NoRoom\n\
         @0 queued #0\n\
         @0 answer d1 Invalid at once: NoRoom\n"
    );
}

#[test]
fn pages_of_another_pasid_are_left_out_and_need_no_credits() {
    // Pages 0 and 3 name PASID 5; the other four fit.
    let steps = [Step::Group(1, None, Some(5), 5), Step::Deliver];
    assert_eq!(
        log(Policy::default(), &steps),
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 g3: -:0x1000 -:0x2000 -:0x4000 -:0x5000\n"
    );
    // The kernel does not compare, and hands them on.
    assert_eq!(
        log(Policy::linux(), &steps),
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 g3: p5:0x0 -:0x1000 -:0x2000 p5:0x3000 -:0x4000 -:0x5000\n"
    );
}

#[test]
fn a_whole_group_that_nobody_takes_is_answered_at_once() {
    for policy in [Policy::default(), Policy::linux()] {
        let log = log(
            policy,
            &[
                Step::Group(1, Some(9), None, 2),
                Step::Group(2, None, None, 2),
            ],
        );
        assert_eq!(
            log,
            "@0 answer d1 Invalid at once: NoHandler\n\
             @0 answer d2 Invalid at once: NoHandler\n"
        );
    }
}

#[test]
fn without_memory_linux_answers_failure() {
    let log = log(
        Policy::linux().with_max_pages(2),
        &[Step::Group(1, None, None, 2), Step::Group(1, None, None, 1)],
    );
    assert_eq!(log, "@0 answer d1 Failure at once: NoRoom\n@0 queued #0\n");
}

#[test]
fn a_group_decided_at_once_leaves_nothing_behind() {
    let yes = Some(Response::Success);
    let log = log(
        Policy::default(),
        &[
            Step::Resolve(1, None, Some(5), 4, yes),
            Step::Resolve(1, None, None, 3, yes),
            Step::Deliver,
            Step::Resolve(1, None, None, 4, yes),
        ],
    );
    assert_eq!(
        log,
        "@0 answer d1 Success at once: Resolved\n\
         @0 answer d1 Success at once: Resolved\n\
         @0 nothing to deliver\n\
         @0 answer d1 Invalid at once: NoRoom\n"
    );
}

#[test]
fn what_is_decided_later_is_delivered_and_has_its_deadline() {
    let log = log(
        Policy::default(),
        &[
            Step::Resolve(1, None, None, 1, None),
            Step::Deliver,
            Step::Resolve(1, None, None, 0, None),
            Step::Answer(1, Response::Success),
            Step::Wait(10_000_000_000),
        ],
    );
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 nothing to deliver\n\
         @0 queued #1\n\
         @0 answer #1 d1 - g3 Success\n\
         @10000000000 answer #0 d1 - g3 Invalid (late)\n"
    );
}

#[test]
fn nobody_is_decided_before_those_who_wait_to_be_delivered() {
    let yes = Some(Response::Success);
    let log = log(
        Policy::default(),
        &[
            Step::Last(1, Some(5), 1, 0x1000),
            Step::Resolve(1, None, None, 0, yes),
            Step::Deliver,
            Step::Deliver,
            Step::Resolve(1, None, None, 0, yes),
        ],
    );
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 deliver #0 d1 dom2 g1: p5:0x1000\n\
         @0 deliver #1 d1 dom1 g3: -:0x0\n\
         @0 answer d1 Success at once: Resolved\n"
    );
}
