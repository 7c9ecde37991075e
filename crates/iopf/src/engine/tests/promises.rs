//! What the default policy promises, whatever comes in.
//!
//! The book-keeper in `script.rs` asserts after every step; a property here names the promise and
//! picks the scripts that put it to the test.

use crate::engine::{
    Attachment, DeviceConfig, DeviceId, DomainId, Engine, Losses, Policy, Reported, Tick,
};
use crate::script::{Play, Step, Takes, play};
use crate::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use core::time::Duration;
use proptest::collection::vec;
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;

fn strict() -> Policy {
    Policy::default().with_timeout(Some(Duration::from_nanos(1000)))
}

fn step() -> impl Strategy<Value = Step> {
    any::<[u8; 4]>().prop_map(Step::from_bytes)
}

/// Three devices with an address space or two, then anything.
fn script(length: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 0..length).prop_map(|tail| {
        let mut steps = Vec::new();
        for device in 0..3 {
            steps.push(Step::Add(device, 5, 1));
            steps.push(Step::Attach(device, None, 1, Takes::Everything));
            steps.push(Step::Attach(device, Some(1), 2, Takes::Everything));
        }
        steps.extend(tail);
        steps
    })
}

/// The transcript without its refusals.
fn accepted(log: &str) -> String {
    let lines = log.lines().filter(|line| !line.contains("refused"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_group_that_asked_gets_exactly_one_answer(steps in script(120)) {
        let mut play = Play::new(strict());
        for (token, step) in steps.iter().enumerate() {
            play.step(token as u64, *step);
        }
        // Removal answers what is left; the book-keeper knows what is owed.
        play.finish();
    }

    #[test]
    fn every_group_is_answered_by_its_deadline(steps in script(120)) {
        let mut play = Play::new(strict());
        for (token, step) in steps.iter().enumerate() {
            play.step(token as u64, *step);
            if matches!(step, Step::Wait(_)) {
                prop_assert!(play.everything_due_is_answered());
            }
        }
    }

    #[test]
    fn a_refusal_changes_nothing(steps in script(120)) {
        let mut all = Play::new(strict());
        let mut kept = Play::new(strict());
        for (token, step) in steps.iter().enumerate() {
            if all.step(token as u64, *step) {
                kept.step(token as u64, *step);
            }
        }
        let (all, kept) = (all.finish(), kept.finish());
        prop_assert_eq!(accepted(&all), accepted(&kept));
        prop_assert!(!kept.contains("refused"), "{}", kept);
    }

    #[test]
    fn a_stale_handle_never_completes_another_group(
        rounds in vec((0u32..2, 0u32..2, any::<bool>()), 1..40)
    ) {
        // The same few groups over and over, so that slots are reused at once.
        let mut steps = Vec::from([Step::Add(0, 2, 1), Step::Attach(0, None, 1, Takes::Everything)]);
        let mut play = Play::new(strict());
        for (nth, (group, before, by_deadline)) in rounds.into_iter().enumerate() {
            steps.push(Step::Last(0, None, group, 0x1000));
            for late in 0..nth {
                steps.push(Step::Answer(late, Response::Success));
            }
            let how = if by_deadline { Step::Wait(1000) } else { Step::Answer(nth, Response::Success) };
            steps.push(Step::Wait(u64::from(before)));
            steps.push(how);
        }
        let rounds = steps.iter().filter(|step| matches!(step, Step::Last(..))).count();
        for (token, step) in steps.iter().enumerate() {
            play.step(token as u64, *step);
        }
        let log = play.finish();
        prop_assert_eq!(log.lines().filter(|line| line.contains("answer #")).count(), rounds);
    }

    #[test]
    fn memory_stays_within_the_credits(
        credits in 0u32..20,
        pages in vec((0u32..4, 0u32..3, any::<bool>()), 0..200)
    ) {
        let mut play = Play::new(strict());
        play.step(0, Step::Add(0, credits, 1));
        play.step(0, Step::Attach(0, None, 1, Takes::Everything));
        play.step(0, Step::Attach(0, Some(1), 1, Takes::Everything));
        for (token, (group, pasid, last)) in pages.into_iter().enumerate() {
            let pasid = (pasid > 0).then_some(1);
            play.step(token as u64, if last {
                Step::Last(0, pasid, group, 0)
            } else {
                Step::Page(0, pasid, group, 0)
            });
            prop_assert!(play.engine.pages_held().0 <= credits as usize);
            prop_assert!(play.engine.pages_held().1 <= 1024);
        }
    }

    #[test]
    fn loss_counts_are_exact(steps in script(200)) {
        let mut play = Play::new(strict());
        for (token, step) in steps.iter().enumerate() {
            // The book-keeper's own counts, from return values alone, equal the engine's.
            play.step(token as u64, *step);
        }
        let lost: u64 = steps.iter().map(|s| if let Step::Lost(_, n) = s { *n } else { 0 }).sum();
        prop_assert_eq!(play.engine.totals().losses.lost, lost);
    }

    #[test]
    fn a_flooding_device_delays_another_by_no_more_than_its_share(
        shares in vec(1u16..4, 2..6),
        flood in 0usize..100,
        mixed in vec((0usize..6, any::<bool>()), 0..200)
    ) {
        let mut play = Play::new(strict());
        let mut token = 0;
        let mut step = |play: &mut Play, step| {
            token += 1;
            play.step(token, step)
        };
        for (device, share) in (0u32..).zip(&shares) {
            step(&mut play, Step::Add(device, 200, *share));
            step(&mut play, Step::Attach(device, None, 1, Takes::Everything));
        }
        for _ in 0..flood {
            step(&mut play, Step::Last(0, None, 0, 0));
        }
        for (device, report) in mixed {
            let device = u32::try_from(device % shares.len()).unwrap();
            // The book-keeper counts who goes before whom.
            step(&mut play, if report { Step::Last(device, None, 0, 0) } else { Step::Deliver });
        }
        let quiet = u32::try_from(shares.len() - 1).unwrap();
        while play.engine.flush(DeviceId(quiet)).unwrap() > 0 {
            step(&mut play, Step::Deliver);
        }
    }

    #[test]
    fn linux_keeps_its_books_as_well(steps in script(200)) {
        let mut play = Play::new(Policy::linux());
        for (token, step) in steps.iter().enumerate() {
            play.step(token as u64, *step);
        }
        play.finish();
    }

    #[test]
    fn any_bytes_are_a_script(data in vec(any::<u8>(), 0..600)) {
        crate::fuzz::engine_steps(&data);
    }
}

#[test]
fn the_quiet_device_is_next_whatever_the_flood() {
    let mut steps = Vec::from([
        Step::Add(1, 512, 1),
        Step::Attach(1, None, 1, Takes::Everything),
        Step::Add(2, 512, 1),
        Step::Attach(2, None, 2, Takes::Everything),
    ]);
    steps.extend((0..500).map(|_| Step::Last(1, None, 1, 0x1000)));
    steps.extend([
        Step::Deliver,
        Step::Last(2, None, 1, 0x2000),
        Step::Deliver,
        Step::Deliver,
    ]);
    let log = play(strict(), &steps);
    assert!(
        log.ends_with(
            "@0 deliver #0 d1 dom1 g1: -:0x1000\n\
             @0 queued #500\n\
             @0 deliver #1 d1 dom1 g1: -:0x1000\n\
             @0 deliver #500 d2 dom2 g1: -:0x2000\n"
        ),
        "{log}"
    );
}

#[test]
fn time_that_runs_backwards_stands_still() {
    let mut play = Play::new(strict());
    play.step(0, Step::Wait(5000));
    play.engine.handle_timeout(Tick(1));
    play.step(1, Step::Add(0, 1, 1));
    play.step(2, Step::Attach(0, None, 1, Takes::Everything));
    play.step(3, Step::Last(0, None, 1, 0));
    play.engine.handle_timeout(Tick(5999));
    assert!(play.engine.poll_answer().is_none());
}

#[test]
fn losses_of_any_size_stop_the_count_at_its_end_and_break_no_books() {
    let mut engine = Engine::new(Policy::default());
    let device = DeviceId(1);
    engine.add_device(device, DeviceConfig::default()).unwrap();
    for id in [Some(device), None] {
        engine.report_lost(id, u64::MAX).unwrap();
        engine.report_lost(id, 2).unwrap();
    }
    assert_eq!(engine.totals().losses.total(), u64::MAX);
    let told: Vec<_> = core::iter::from_fn(|| engine.poll_loss()).collect();
    assert_eq!(told.len(), 2);
    let _ = engine.remove_device(Tick(0), device).unwrap();
    assert_eq!(engine.poll_loss(), None);
    assert_eq!(engine.totals().losses.lost, u64::MAX);
}

#[test]
fn the_end_of_time_answers_everything_and_hangs_nothing() {
    let mut play = Play::new(strict());
    for (token, step) in [
        Step::Add(0, 5, 1),
        Step::Attach(0, None, 1, Takes::Everything),
        Step::Page(0, None, 1, 0),
        Step::Last(0, None, 2, 0),
        Step::Stray(0, None),
        Step::Wait(u64::MAX),
        Step::Last(0, None, 3, 0),
        Step::Wait(0),
    ]
    .into_iter()
    .enumerate()
    {
        play.step(token as u64, step);
    }
    assert_eq!(play.engine.poll_timeout(), None);
    assert_eq!(play.engine.pages_held().0, 0);
    play.finish();
}

#[test]
fn groups_answered_without_being_delivered_leave_nothing_behind() {
    for policy in [strict(), Policy::linux()] {
        let mut play = Play::new(policy);
        play.step(0, Step::Add(0, 5, 1));
        play.step(0, Step::Attach(0, None, 1, Takes::Everything));
        for nth in 0..1000 {
            play.step(nth as u64, Step::Last(0, None, 1, 0));
            play.step(0, Step::Answer(nth, Response::Success));
        }
        assert!(play.engine.order.len() <= 66);
        assert_eq!(play.engine.poll_fault(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The book-keeper fetches after every step; here devices come and go, and places in the table
    /// change hands, while answers, losses and log lines pile up.
    #[test]
    fn what_is_fetched_late_is_complete_all_the_same(
        ops in vec((0u8..12, 0u32..3, 0u32..3, 0u32..3), 0..200),
        fetch_every in 1usize..200
    ) {
        let mut engine = Engine::new(strict());
        let (mut now, mut owed, mut at_once) = (0, 0u64, 0u64);
        let (mut fetched, mut told) = (0u64, Losses::default());
        let mut handles = Vec::new();
        let mut fetch = |engine: &mut Engine| {
            while engine.poll_answer().is_some() {
                fetched += 1;
            }
            while let Some(report) = engine.poll_loss() {
                told += report.losses;
            }
            (fetched, told)
        };
        for (nth, (op, device, group, pasid)) in ops.into_iter().enumerate() {
            let (id, space) = (DeviceId(device), pasid.checked_sub(1).map(Pasid::truncate));
            let page = |last| Fault::PageRequest(PageRequest {
                pasid: space,
                group: GroupIndex(group),
                addr: Iova(0),
                access: Access::READ,
                last,
                response_needs_pasid: false,
                private_data: [0; 2],
            });
            match op {
                0 => {
                    let config = DeviceConfig { credits: 4, ..DeviceConfig::default() };
                    let _ = engine.add_device(id, config);
                }
                1 | 2 => drop(engine.attach(id, space, Attachment::new(DomainId(1)))),
                3 => drop(engine.detach(Tick(now), id, space)),
                4 => drop(engine.remove_device(Tick(now), id)),
                5 | 6 => drop(engine.report(Tick(now), id, &page(false))),
                7 | 8 => match engine.report(Tick(now), id, &page(true)) {
                    Ok(Reported::Queued(handle)) => {
                        owed += 1;
                        handles.push(handle);
                    }
                    Ok(Reported::Answered(..)) => at_once += 1,
                    other => prop_assert!(false, "{:?}", other),
                },
                9 => {
                    now += 400;
                    engine.handle_timeout(Tick(now));
                }
                10 => {
                    for handle in handles.drain(..) {
                        let _ = engine.answer(Tick(now), handle, Response::Success);
                    }
                }
                _ => drop(engine.poll_fault()),
            }
            if nth % fetch_every == 0 {
                fetch(&mut engine);
            }
        }
        for device in 0..3 {
            let _ = engine.remove_device(Tick(now), DeviceId(device));
        }
        let (fetched, told) = fetch(&mut engine);
        prop_assert_eq!(fetched, owed);
        let totals = engine.totals();
        prop_assert_eq!(told, totals.losses);
        prop_assert_eq!(totals.held, 0);
        prop_assert_eq!(totals.reported, totals.completed + totals.losses.total());
        prop_assert!(totals.losses.refused >= at_once);
    }
}
