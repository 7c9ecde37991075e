use super::super::serve;
use super::super::tests::{DEVICE, NOW, engine, report, responses, stray};
use super::{Case, Course, Inspect, StallAndInspect};
use crate::engine::{
    AnswerError, Attachment, Delivery, DeviceConfig, DeviceId, DomainId, Engine, Group, Pages,
    Stray, Tick,
};
use crate::{Access, Iova, LogWhat, Pasid, Response};
use std::vec::Vec;

/// Keeps the addresses, in place of registers.
struct Addresses;

impl Inspect for Addresses {
    type State = Vec<Iova>;

    fn stalled(&mut self, _: &Group, pages: Pages<'_>) -> Vec<Iova> {
        pages.map(|page| page.addr).collect()
    }

    fn passed(&mut self, stray: &Stray) -> Vec<Iova> {
        stray.fault.addr.into_iter().collect()
    }
}

type Stall = StallAndInspect<Addresses>;

fn decide(engine: &mut Engine, stall: &mut Stall, course: Course) -> Vec<Result<(), AnswerError>> {
    let answers = stall.decide(DEVICE, |_| course).into_iter();
    answers
        .map(|(handle, response)| engine.answer(NOW, handle, response))
        .collect()
}

fn states(stall: &mut Stall) -> Vec<Vec<Iova>> {
    core::iter::from_fn(|| stall.poll_case().map(|case| case.state)).collect()
}

#[test]
fn a_stalled_group_is_captured_and_waits_for_the_decision() {
    for (course, expected) in [
        (Course::Resume, Response::Success),
        (Course::Terminate, Response::Invalid),
    ] {
        let mut engine = engine(false, None);
        let mut stall = StallAndInspect::new(Addresses, 4);
        report(&mut engine, 0x1000, Access::READ, None, false);
        report(&mut engine, 0x2000, Access::READ, None, true);
        serve(&mut engine, NOW, &mut stall, 8);
        assert_eq!(responses(&mut engine), []);
        let Case { fault, state } = stall.poll_case().unwrap();
        assert!(matches!(fault, Delivery::Group(group) if group.pages == 2));
        assert_eq!(state, [Iova(0x1000), Iova(0x2000)]);
        assert!(stall.stands(DEVICE));
        assert_eq!(decide(&mut engine, &mut stall, course), [Ok(())]);
        assert_eq!(responses(&mut engine), [expected]);
        assert!(!stall.stands(DEVICE));
    }
}

#[test]
fn what_follows_while_the_device_stands_waits_with_it_and_is_not_captured_again() {
    let mut engine = engine(false, None);
    let mut stall = StallAndInspect::new(Addresses, 4);
    for addr in [0x1000, 0x2000, 0x3000] {
        report(&mut engine, addr, Access::READ, None, true);
    }
    serve(&mut engine, NOW, &mut stall, 8);
    assert_eq!(states(&mut stall), [[Iova(0x1000)]]);
    // Each group is decided about, the oldest first.
    let mut first = true;
    let answers = stall.decide(DEVICE, |_| match core::mem::take(&mut first) {
        true => Course::Terminate,
        false => Course::Resume,
    });
    for (handle, response) in answers {
        engine.answer(NOW, handle, response).unwrap();
    }
    let expected = [Response::Invalid, Response::Success, Response::Success];
    assert_eq!(responses(&mut engine), expected);
    // The stall is over: what comes now is another case.
    report(&mut engine, 0x4000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut stall, 8);
    assert_eq!(states(&mut stall), [[Iova(0x4000)]]);
}

#[test]
fn a_decision_after_the_deadline_changes_nothing() {
    let mut engine = engine(false, None);
    let mut stall = StallAndInspect::new(Addresses, 4);
    report(&mut engine, 0x1000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut stall, 8);
    engine.handle_timeout(Tick(10_000_000_000));
    assert_eq!(responses(&mut engine), [Response::Invalid]);
    let late = decide(&mut engine, &mut stall, Course::Resume);
    assert_eq!(late, [Err(AnswerError::Stale)]);
    assert_eq!(responses(&mut engine), []);
    // What was captured is still worth reading.
    assert_eq!(states(&mut stall), [[Iova(0x1000)]]);
}

#[test]
fn a_device_that_the_deadline_let_go_is_captured_at_its_next_fault() {
    let mut engine = engine(false, None);
    let mut stall = StallAndInspect::new(Addresses, 4);
    report(&mut engine, 0x1000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut stall, 8);
    engine.handle_timeout(Tick(10_000_000_000));
    report(&mut engine, 0x2000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut stall, 8);
    assert_eq!(states(&mut stall), [[Iova(0x1000)], [Iova(0x2000)]]);
    assert_eq!(decide(&mut engine, &mut stall, Course::Resume), [Ok(())]);
}

#[test]
fn an_unrecoverable_fault_is_captured_and_logged() {
    let mut engine = engine(false, None);
    let mut stall = StallAndInspect::new(Addresses, 4);
    stray(&mut engine, Some(0x7000));
    stray(&mut engine, Some(0x8000));
    serve(&mut engine, NOW, &mut stall, 8);
    let case = stall.poll_case().unwrap();
    assert!(matches!(case.fault, Delivery::Stray(_)));
    assert_eq!((case.device(), case.state), (DEVICE, [Iova(0x7000)].into()));
    assert!(!stall.stands(DEVICE), "nothing waits for it");
    assert_eq!(engine.counts(DEVICE).unwrap().verdicts.logged, 2);
    assert!(matches!(engine.poll_log().unwrap().what, LogWhat::Fault(_)));
    // The second one met the first, which nobody had fetched.
    assert_eq!(stall.missed(), 1);
    stray(&mut engine, Some(0x9000));
    serve(&mut engine, NOW, &mut stall, 8);
    assert_eq!(states(&mut stall), [[Iova(0x9000)]]);
}

#[test]
fn a_group_beyond_the_room_for_cases_is_refused_and_counted() {
    let mut engine = engine(false, None);
    let mut stall = StallAndInspect::new(Addresses, 1);
    report(&mut engine, 0x1000, Access::READ, None, true);
    let second = DeviceId(4);
    engine.add_device(second, DeviceConfig::default()).unwrap();
    engine
        .attach(second, None, Attachment::new(DomainId(1)))
        .unwrap();
    serve(&mut engine, NOW, &mut stall, 8);
    let page = crate::PageRequest {
        pasid: None,
        group: crate::GroupIndex(1),
        addr: Iova(0x5000),
        access: Access::READ,
        last: true,
        response_needs_pasid: false,
        private_data: [0; 2],
    };
    let fault = crate::Fault::PageRequest(page);
    let _queued = engine.report(NOW, second, &fault).unwrap();
    serve(&mut engine, NOW, &mut stall, 8);
    let answer = engine.poll_answer().unwrap();
    assert_eq!(
        (answer.device, answer.response),
        (second, Response::Invalid)
    );
    assert_eq!(stall.missed(), 1);
    // The first has left without a decision; its room is given to the next.
    engine.remove_device(NOW, DEVICE).unwrap();
    assert!(stall.poll_case().is_some());
    let _queued = engine.report(NOW, second, &fault).unwrap();
    serve(&mut engine, NOW, &mut stall, 8);
    assert_eq!(stall.poll_case().unwrap().device(), second);
    assert!(!stall.stands(DEVICE));
}

#[test]
fn a_driver_that_never_decides_does_not_fill_memory() {
    let mut engine = engine(false, None);
    let mut stall = StallAndInspect::new(Addresses, 4);
    for round in 0..1000u64 {
        // The deadline lets half of them go each time, so that the device always stands.
        let now = Tick(round * 5_000_000_000);
        engine.handle_timeout(now);
        let page = crate::PageRequest {
            pasid: Pasid::new(5),
            group: crate::GroupIndex(9),
            addr: Iova(0x1000),
            access: Access::READ,
            last: true,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        let fault = crate::Fault::PageRequest(page);
        let _queued = engine.report(now, DEVICE, &fault).unwrap();
        serve(&mut engine, now, &mut stall, 1);
        while engine.poll_answer().is_some() {}
        let held = stall.stalls[&DEVICE].groups.len();
        assert!(held <= 2 * 2 + super::FEW, "{held}");
    }
    assert_eq!(stall.cases.len(), 1);
}
