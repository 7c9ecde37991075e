//! `Policy::linux()` against Linux 7.3.4 `drivers/iommu/io-pgfault.c`, a test for each branch.
//!
//! The expectations were typed from the kernel's source; `[M]` marks what was also measured on a
//! booted kernel. The functions named are the kernel's.

use crate::Response::{Failure, Invalid, Success};
use crate::engine::{Policy, Verdict};
use crate::script::Step::{
    Add, AddNested, Answer, Attach, Deliver, Dequeue, Detach, DiscardPartial, Flush, Judge, Last,
    Page, Refuse, Remove, Replace, Stray, Wait,
};
use crate::script::Takes::{Everything, Nested, Nothing};
use crate::script::{Step, play};
use std::string::String;
use std::vec::Vec;

fn linux(steps: &[Step]) -> String {
    play(Policy::linux(), steps)
}

// find_fault_handler

#[test]
fn a_pasid_without_a_handle_is_answered_invalid_at_once() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, Some(5), 8, 0x1000),
    ]);
    assert_eq!(log, "@0 answer d1 p5 g8 Invalid at once: NoHandler\n");
}

#[test]
fn the_handler_is_looked_up_for_partial_pages_too_and_they_are_answered() {
    // [M]: INVALID for a page that is not the last.
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Page(1, Some(5), 8, 0x1000),
    ]);
    assert_eq!(log, "@0 answer d1 p5 g8 Invalid at once: NoHandler\n");
}

#[test]
fn without_a_pasid_the_functions_own_attachment_handles_of_any_type() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Nested),
        Last(1, None, 8, 0x1000),
        Deliver,
        Detach(1, None),
        Attach(1, None, 2, Everything),
        Last(1, None, 8, 0x2000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 g8: -:0x1000\n\
         @0 answer #0 d1 - g8 Invalid (gone)\n\
         @0 queued #1\n\
         @0 deliver #1 d1 dom2 g8: -:0x2000\n"
    );
}

#[test]
fn pasid_0_is_the_functions_own_because_iommu_no_pasid_is_0() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, Some(0), 8, 0x1000),
        Deliver,
        Attach(1, Some(0), 2, Everything),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 g8: p0:0x1000\n\
         @0 refused: already attached\n"
    );
}

#[test]
fn a_user_pasid_table_falls_back_to_the_functions_nested_attachment() {
    let log = linux(&[
        AddNested(1),
        Attach(1, None, 1, Nested),
        Last(1, Some(5), 8, 0x1000),
        Deliver,
    ]);
    assert_eq!(log, "@0 queued #0\n@0 deliver #0 d1 dom1 g8: p5:0x1000\n");
}

#[test]
fn a_user_pasid_table_does_not_fall_back_to_an_attachment_that_is_not_nested() {
    let log = linux(&[
        AddNested(1),
        Attach(1, None, 1, Everything),
        Last(1, Some(5), 8, 0x1000),
    ]);
    assert_eq!(log, "@0 answer d1 p5 g8 Invalid at once: NoHandler\n");
}

#[test]
fn an_attached_pasid_without_a_handler_does_not_fall_back() {
    let log = linux(&[
        AddNested(1),
        Attach(1, None, 1, Nested),
        Attach(1, Some(5), 2, Nothing),
        Last(1, Some(5), 8, 0x1000),
    ]);
    assert_eq!(log, "@0 answer d1 p5 g8 Invalid at once: NoHandler\n");
}

#[test]
fn an_attachment_without_a_handler_does_not_handle() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Nothing),
        Last(1, None, 8, 0x1000),
    ]);
    assert_eq!(log, "@0 answer d1 - g8 Invalid at once: NoHandler\n");
}

// iommu_report_device_fault, err_bad_iopf

#[test]
fn a_device_without_fault_parameters_is_answered_invalid_last_or_not() {
    let log = linux(&[Page(1, None, 8, 0x1000), Last(1, None, 8, 0x2000)]);
    assert_eq!(
        log,
        "@0 answer d1 - g8 Invalid at once: NoHandler\n\
         @0 answer d1 - g8 Invalid at once: NoHandler\n"
    );
}

#[test]
fn a_failed_last_page_leaves_its_partial_pages_and_they_join_another_group() {
    // [M]: a stale page of PASID 5 came back in a later group of PASID 0.
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Attach(1, Some(5), 2, Everything),
        Page(1, Some(5), 8, 0x1000),
        Detach(1, Some(5)),
        Last(1, Some(5), 8, 0x2000),
        Last(1, None, 8, 0x3000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 answer d1 p5 g8 Invalid at once: NoHandler\n\
         @0 queued #0\n\
         @0 deliver #0 d1 dom1 g8: p5:0x1000 -:0x3000\n"
    );
}

// report_partial_fault

#[test]
fn partial_pages_have_no_limit_but_memory() {
    let mut steps = Vec::from([Add(1, 0, 0), Attach(1, None, 1, Everything)]);
    steps.extend((0..2000).map(|page| Page(1, None, 8, page << 12)));
    steps.push(Last(1, None, 8, 0));
    assert_eq!(linux(&steps), "@0 queued #0\n");
}

#[test]
fn a_partial_page_without_memory_is_refused_without_an_answer() {
    let policy = Policy::linux().with_max_pages(2);
    let log = play(
        policy,
        &[
            Add(1, 0, 0),
            Attach(1, None, 1, Everything),
            Page(1, None, 8, 0x1000),
            Page(1, None, 8, 0x2000),
            Page(1, None, 8, 0x3000),
        ],
    );
    assert_eq!(
        log,
        "@0 refused: no room for another page of the device beyond 2\n"
    );
}

// iopf_group_alloc

#[test]
fn pages_join_a_group_by_index_alone_in_the_order_they_came() {
    // [M]: PASID 5, group 8 merged into PASID 0, group 8; the last page at the end.
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Attach(1, Some(5), 2, Everything),
        Page(1, Some(5), 8, 0x1000),
        Page(1, None, 9, 0x9000),
        Page(1, None, 8, 0x2000),
        Page(1, Some(5), 8, 0x3000),
        Last(1, None, 8, 0x4000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 g8: p5:0x1000 -:0x2000 p5:0x3000 -:0x4000\n"
    );
}

#[test]
fn pages_of_another_device_do_not_join() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Add(2, 0, 0),
        Attach(2, None, 2, Everything),
        Page(1, None, 8, 0x1000),
        Last(2, None, 8, 0x2000),
        Deliver,
    ]);
    assert_eq!(log, "@0 queued #0\n@0 deliver #0 d2 dom2 g8: -:0x2000\n");
}

#[test]
fn a_last_page_without_memory_frees_its_partial_pages_and_is_answered_failure() {
    let policy = Policy::linux().with_max_pages(2);
    let log = play(
        policy,
        &[
            Add(1, 0, 0),
            Attach(1, None, 1, Everything),
            Page(1, None, 8, 0x1000),
            Page(1, None, 8, 0x2000),
            Last(1, None, 8, 0x3000),
            Last(1, None, 8, 0x4000),
            Deliver,
        ],
    );
    assert_eq!(
        log,
        "@0 answer d1 - g8 Failure at once: NoRoom\n\
         @0 queued #0\n\
         @0 deliver #0 d1 dom1 g8: -:0x4000\n"
    );
}

#[test]
fn a_handler_that_fails_has_the_group_answered_failure() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, None, 8, 0x1000),
        Deliver,
        Refuse(0),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 g8: -:0x1000\n\
         @0 answer #0 d1 - g8 Failure\n"
    );
}

// iopf_group_response

#[test]
fn a_group_gets_one_answer_made_from_its_last_page() {
    // [M]: one response a group, whatever PASIDs its pages have.
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Attach(1, Some(5), 2, Everything),
        Page(1, None, 8, 0x1000),
        Last(1, Some(5), 8, 0x2000),
        Answer(0, Success),
        Answer(0, Success),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 answer #0 d1 p5 g8 Success\n\
         @0 refused: nothing waits under this handle\n"
    );
}

#[test]
fn the_core_passes_failure_on_whatever_the_wire() {
    let log = linux(&[
        AddNested(1),
        Attach(1, None, 1, Everything),
        Last(1, None, 8, 0x1000),
        Answer(0, Failure),
    ]);
    assert_eq!(log, "@0 queued #0\n@0 answer #0 d1 - g8 Failure\n");
}

#[test]
fn two_groups_of_one_index_may_wait_at_once() {
    // [M]: the index is no key.
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, None, 8, 0x1000),
        Last(1, None, 8, 0x2000),
        Answer(1, Success),
        Answer(0, Invalid),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 answer #1 d1 - g8 Success\n\
         @0 answer #0 d1 - g8 Invalid\n"
    );
}

#[test]
fn there_is_no_deadline() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, None, 8, 0x1000),
        Wait(1 << 62),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n@4611686018427387904 deliver #0 d1 dom1 g8: -:0x1000\n"
    );
}

#[test]
fn groups_are_handed_over_as_they_came_whoever_floods() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Add(2, 0, 0),
        Attach(2, None, 2, Everything),
        Last(1, None, 1, 0x1000),
        Last(1, None, 2, 0x2000),
        Last(2, None, 3, 0x3000),
        Deliver,
        Deliver,
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 queued #2\n\
         @0 deliver #0 d1 dom1 g1: -:0x1000\n\
         @0 deliver #1 d1 dom1 g2: -:0x2000\n\
         @0 deliver #2 d2 dom2 g3: -:0x3000\n"
    );
}

// Stale partial pages: what keeps them, what drops them.

#[test]
fn partial_pages_survive_replacing_one_fault_domain_by_another() {
    // [M]: a partial page sent under domain 1 was delivered under domain 2.
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Page(1, None, 8, 0x1000),
        Replace(1, None, 2, Everything),
        Last(1, None, 8, 0x2000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n@0 deliver #0 d1 dom2 g8: -:0x1000 -:0x2000\n"
    );
}

#[test]
fn partial_pages_are_dropped_when_the_last_fault_domain_goes() {
    // [M]: fault domain replaced by one without faults, and back.
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Page(1, None, 8, 0x1000),
        Replace(1, None, 2, Nothing),
        Replace(1, None, 1, Everything),
        Last(1, None, 8, 0x2000),
        Deliver,
    ]);
    assert_eq!(log, "@0 queued #0\n@0 deliver #0 d1 dom1 g8: -:0x2000\n");
}

#[test]
fn partial_pages_survive_while_a_pasid_still_takes_faults() {
    // The driver counts its users of page requests (mock: iopf_refcount in selftest.c).
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Attach(1, Some(5), 2, Everything),
        Page(1, None, 8, 0x1000),
        Replace(1, None, 3, Nothing),
        Last(1, Some(5), 8, 0x2000),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n@0 deliver #0 d1 dom2 g8: -:0x1000 p5:0x2000\n"
    );
}

#[test]
fn waiting_groups_survive_a_replacement() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, None, 8, 0x1000),
        Replace(1, None, 2, Everything),
        Deliver,
        Answer(0, Success),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 g8: -:0x1000\n\
         @0 answer #0 d1 - g8 Success\n"
    );
}

// iopf_queue_discard_partial, iopf_queue_flush_dev

#[test]
fn discarding_drops_the_partial_pages_of_every_device_and_answers_nothing() {
    // [M]
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Add(2, 0, 0),
        Attach(2, None, 2, Everything),
        Page(1, None, 8, 0x1000),
        Page(1, None, 9, 0x1000),
        Page(2, None, 8, 0x1000),
        Last(2, None, 7, 0x7000),
        DiscardPartial,
        Last(1, None, 8, 0x2000),
        Deliver,
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 discarded 3\n\
         @0 queued #1\n\
         @0 deliver #0 d2 dom2 g7: -:0x7000\n\
         @0 deliver #1 d1 dom1 g8: -:0x2000\n"
    );
}

#[test]
fn flushing_waits_for_handlers_and_not_for_answers() {
    let log = linux(&[
        Flush(1),
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, None, 8, 0x1000),
        Flush(1),
        Deliver,
        Flush(1),
    ]);
    assert_eq!(
        log,
        "@0 refused: device DeviceId(1) is not on the queue\n\
         @0 queued #0\n\
         @0 1 to deliver\n\
         @0 deliver #0 d1 dom1 g8: -:0x1000\n\
         @0 0 to deliver\n"
    );
}

// iopf_queue_add_device, iopf_queue_remove_device, iopf_group_dequeue

#[test]
fn a_device_is_on_a_queue_once() {
    let log = linux(&[Add(1, 0, 0), Add(1, 0, 0)]);
    assert_eq!(
        log,
        "@0 refused: device DeviceId(1) is on the queue already\n"
    );
}

#[test]
fn removing_a_device_that_is_not_there_does_nothing() {
    let log = linux(&[Remove(1)]);
    assert_eq!(log, "@0 refused: device DeviceId(1) is not on the queue\n");
}

#[test]
fn removing_a_device_answers_its_groups_newest_first_and_frees_partial_pages_silently() {
    // list_add puts a group at the head of the list that removal walks.
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, None, 1, 0x1000),
        Last(1, None, 2, 0x2000),
        Page(1, None, 3, 0x3000),
        Remove(1),
        Answer(0, Success),
        Deliver,
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 answer #1 d1 - g2 Invalid (gone)\n\
         @0 answer #0 d1 - g1 Invalid (gone)\n\
         @0 refused: nothing waits under this handle\n\
         @0 nothing to deliver\n"
    );
}

#[test]
fn a_dequeued_group_survives_its_device_and_is_answered_by_its_handler() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Last(1, None, 1, 0x1000),
        Last(1, None, 2, 0x2000),
        Dequeue(0),
        Remove(1),
        Answer(0, Success),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 queued #1\n\
         @0 answer #1 d1 - g2 Invalid (gone)\n\
         @0 answer #0 d1 - g1 Success\n"
    );
}

// report_iommu_fault

#[test]
fn an_unrecoverable_fault_without_a_handler_is_unhandled() {
    let log = linux(&[Add(1, 0, 0), Attach(1, None, 1, Nothing), Stray(1, None)]);
    assert_eq!(log, "@0 judged Unhandled\n");
}

#[test]
fn an_unrecoverable_fault_gets_what_its_handler_says_and_no_answer() {
    let log = linux(&[
        Add(1, 0, 0),
        Attach(1, None, 1, Everything),
        Stray(1, None),
        Deliver,
        Answer(0, Success),
        Judge(0, Verdict::Recovered),
        Judge(0, Verdict::Recovered),
    ]);
    assert_eq!(
        log,
        "@0 queued #0\n\
         @0 deliver #0 d1 dom1 stray - reason 0x5a\n\
         @0 refused: an unrecoverable fault takes no answer\n\
         @0 refused: nothing waits under this handle\n"
    );
}
