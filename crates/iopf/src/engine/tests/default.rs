//! The default policy, branch by branch: where it is stricter than the kernel.
//!
//! The scripts are those of `linux.rs` where there is a counterpart.

use crate::Response::{Failure, Invalid, Success};
use crate::engine::{Policy, Verdict};
use crate::script::Step::{
    Add, AddNested, Answer, Attach, Deliver, Dequeue, Detach, DiscardPartial, Judge, Last, Page,
    Refuse, Remove, Replace, Stray, Wait,
};
use crate::script::Takes::{Everything, Nested, Nothing};
use crate::script::{Step, play};
use core::time::Duration;
use std::string::String;

fn strict(steps: &[Step]) -> String {
    play(
        Policy::default().with_timeout(Some(Duration::from_nanos(1000))),
        steps,
    )
}

#[test]
fn a_partial_page_nobody_handles_is_refused_and_only_a_last_one_is_answered() {
    let log = strict(&[
        Page(1, None, 8, 0x1000),
        Last(1, None, 8, 0x1000),
        Add(1, 9, 1),
        Page(1, Some(5), 8, 0x1000),
        Last(1, Some(5), 8, 0x2000),
    ]);
    assert_eq!(
        log,
        "@0 refused: device DeviceId(1) is not on the queue\n\
         @0 answer d1 - g8 Invalid at once: NoHandler\n\
         @0 refused: nothing is attached that takes page requests\n\
         @0 answer d1 p5 g8 Invalid at once: NoHandler\n"
    );
}

#[test]
fn pages_of_another_pasid_do_not_join_a_group() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Attach(1, Some(5), 2, Everything),
        Page(1, Some(5), 8, 0x1000),
        Page(1, None, 8, 0x2000),
        Last(1, None, 8, 0x3000),
        Last(1, Some(5), 8, 0x4000),
        Deliver,
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 deliver #0 d1 dom1 g8: -:0x2000 -:0x3000\n\
         @0 deliver #1 d1 dom2 g8: p5:0x1000 p5:0x4000\n"
    );
}

#[test]
fn pasid_0_is_an_address_space_of_its_own() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Last(1, Some(0), 8, 0x1000),
        Attach(1, Some(0), 2, Everything),
        Last(1, Some(0), 8, 0x1000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 answer d1 p0 g8 Invalid at once: NoHandler\n\
         @0 queued #0\n\
         @0 deliver #0 d1 dom2 g8: p0:0x1000\n"
    );
}

#[test]
fn what_waits_for_an_attachment_ends_with_it_and_nothing_else_does() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Attach(1, Some(5), 2, Everything),
        Page(1, Some(5), 8, 0x1000),
        Page(1, None, 8, 0x2000),
        Last(1, Some(5), 7, 0x3000),
        Last(1, None, 7, 0x4000),
        Stray(1, Some(5)),
        Detach(1, Some(5)),
        Attach(1, Some(5), 3, Everything),
        Last(1, Some(5), 8, 0x5000),
        Last(1, None, 8, 0x6000),
        Deliver,
        Deliver,
        Deliver,
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 queued #2\n\
         @0 answer #0 d1 p5 g7 Invalid (gone)\n\
         @0 queued #3\n\
         @0 queued #4\n\
         @0 deliver #1 d1 dom1 g7: -:0x4000\n\
         @0 deliver #3 d1 dom3 g8: p5:0x5000\n\
         @0 deliver #4 d1 dom1 g8: -:0x2000 -:0x6000\n\
         @0 nothing to deliver\n"
    );
}

#[test]
fn a_replacement_ends_what_waits_and_replacing_by_the_same_does_not() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Page(1, None, 8, 0x1000),
        Last(1, None, 7, 0x2000),
        Replace(1, None, 1, Everything),
        Last(1, None, 8, 0x3000),
        Replace(1, None, 2, Everything),
        Deliver,
        Answer(0, Success),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 answer #0 d1 - g7 Invalid (gone)\n\
         @0 answer #1 d1 - g8 Invalid (gone)\n\
         @0 nothing to deliver\n\
         @0 refused: nothing waits under this handle\n"
    );
}

#[test]
fn an_unanswered_group_is_answered_invalid_at_its_deadline_and_late_answers_are_refused() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Last(1, None, 7, 0x1000),
        Wait(999),
        Last(1, None, 8, 0x2000),
        Wait(1),
        Answer(0, Success),
        Answer(1, Success),
        Wait(5000),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @999 queued #1\n\
         @1000 answer #0 d1 - g7 Invalid (late)\n\
         @1000 refused: nothing waits under this handle\n\
         @1000 answer #1 d1 - g8 Success\n"
    );
}

#[test]
fn partial_pages_whose_last_page_does_not_come_give_their_credits_back() {
    let log = strict(&[
        Add(1, 2, 1),
        Attach(1, None, 1, Everything),
        Page(1, None, 7, 0x1000),
        Page(1, None, 7, 0x2000),
        Page(1, None, 7, 0x3000),
        Wait(1000),
        Page(1, None, 7, 0x4000),
        Last(1, None, 7, 0x5000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 refused: no room for another page of the device beyond 2\n\
         @1000 queued #0\n\
         @1000 deliver #0 d1 dom1 g7: -:0x4000 -:0x5000\n"
    );
}

#[test]
fn a_last_page_without_credit_is_answered_and_its_partial_pages_go() {
    let log = strict(&[
        Add(1, 1, 1),
        Attach(1, None, 1, Everything),
        Page(1, None, 7, 0x1000),
        Last(1, None, 7, 0x2000),
        Last(1, None, 7, 0x3000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 answer d1 - g7 Invalid at once: NoRoom\n\
         @0 queued #0\n\
         @0 deliver #0 d1 dom1 g7: -:0x3000\n"
    );
}

#[test]
fn one_device_out_of_credit_leaves_the_other_its_own() {
    let log = strict(&[
        Add(1, 1, 1),
        Attach(1, None, 1, Everything),
        Add(2, 1, 1),
        Attach(2, None, 2, Everything),
        Last(1, None, 1, 0x1000),
        Last(1, None, 2, 0x2000),
        Last(2, None, 3, 0x3000),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 answer d1 - g2 Invalid at once: NoRoom\n\
         @0 queued #1\n"
    );
}

#[test]
fn failure_is_refused_where_the_wire_cannot_say_it() {
    let log = strict(&[
        AddNested(1),
        Attach(1, None, 1, Everything),
        Last(1, None, 7, 0x1000),
        Answer(0, Failure),
        Answer(0, Invalid),
        Add(2, 9, 1),
        Attach(2, None, 2, Everything),
        Last(2, None, 7, 0x1000),
        Answer(1, Failure),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 refused: the way back to the device cannot say Failure\n\
         @0 answer #0 d1 - g7 Invalid\n\
         @0 queued #1\n\
         @0 answer #1 d2 - g7 Failure\n"
    );
}

#[test]
fn a_resolver_that_takes_no_more_has_the_group_answered_invalid() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Last(1, None, 8, 0x1000),
        Refuse(0),
    ]);
    assert_eq!(log, "@0 queued #0\n@0 answer #0 d1 - g8 Invalid\n");
}

#[test]
fn removing_a_device_answers_everything_oldest_first_dequeued_or_not() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Last(1, None, 1, 0x1000),
        Last(1, None, 2, 0x2000),
        Stray(1, None),
        Page(1, None, 3, 0x3000),
        Dequeue(0),
        Remove(1),
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Last(1, None, 3, 0x4000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 queued #2\n\
         @0 answer #0 d1 - g1 Invalid (gone)\n\
         @0 answer #1 d1 - g2 Invalid (gone)\n\
         @0 queued #3\n\
         @0 deliver #3 d1 dom1 g3: -:0x4000\n"
    );
}

#[test]
fn discarding_drops_the_partial_pages_of_every_device_and_answers_nothing() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Add(2, 9, 1),
        Attach(2, None, 2, Everything),
        Page(1, None, 8, 0x1000),
        Page(2, None, 8, 0x1000),
        DiscardPartial,
        Last(2, None, 8, 0x2000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 discarded 2\n@0 queued #0\n@0 deliver #0 d2 dom2 g8: -:0x2000\n"
    );
}

#[test]
fn an_unrecoverable_fault_of_a_foreign_pasid_goes_to_the_functions_own_attachment() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Attach(1, Some(5), 2, Nothing),
        Stray(1, Some(5)),
        Stray(1, Some(6)),
        Deliver,
        Deliver,
        Judge(0, Verdict::Logged),
        Judge(1, Verdict::Vanished),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 deliver #0 d1 dom1 stray p5 reason 0x5a\n\
         @0 deliver #1 d1 dom1 stray p6 reason 0x5a\n"
    );
}

#[test]
fn a_group_takes_no_verdict_and_an_unrecoverable_fault_no_answer() {
    let log = strict(&[
        Add(1, 9, 1),
        Attach(1, None, 1, Everything),
        Last(1, None, 7, 0x1000),
        Stray(1, None),
        Judge(0, Verdict::Ignored),
        Answer(1, Success),
        Refuse(1),
        Judge(1, Verdict::Ignored),
        Answer(0, Success),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 refused: a page request group takes no verdict\n\
         @0 refused: an unrecoverable fault takes no answer\n\
         @0 refused: an unrecoverable fault takes no answer\n\
         @0 answer #0 d1 - g7 Success\n"
    );
}

#[test]
fn a_page_that_fell_back_does_not_join_a_group_of_the_pasids_own_attachment() {
    let log = strict(&[
        AddNested(1),
        Attach(1, None, 1, Nested),
        Page(1, Some(5), 8, 0x1000),
        Attach(1, Some(5), 2, Everything),
        Last(1, Some(5), 8, 0x2000),
        Deliver,
    ]);
    assert_eq!(log, "@0 queued #0\n@0 deliver #0 d1 dom2 g8: p5:0x2000\n");
}

#[test]
fn a_share_of_two_delivers_two_in_a_row() {
    let mut steps = std::vec::Vec::from([
        Add(1, 9, 2),
        Attach(1, None, 1, Everything),
        Add(2, 9, 1),
        Attach(2, None, 2, Everything),
    ]);
    steps.extend([1, 1, 1, 2, 2].map(|device| Last(device, None, 7, 0x1000)));
    steps.extend([Deliver; 5]);
    let log = strict(&steps);
    let order: std::vec::Vec<&str> = log
        .lines()
        .filter(|line| line.contains("deliver"))
        .filter_map(|line| line.split(' ').nth(3))
        .collect();
    assert_eq!(order, ["d1", "d1", "d2", "d1", "d2"]);
}
