use super::{
    AddressSpace, Attempt, Inject, Injected, Injector, LogAndDeny, Mappings, NotQueued, Recover,
    Unmappable, serve,
};
use crate::engine::{
    AnswerError, Attachment, DeviceConfig, DeviceId, DomainId, Engine, GuestId, Policy, Reported,
    Tick,
};
use crate::{
    Access, Fault, Gpa, GroupIndex, Iova, Level, LogWhat, PageRequest, Pasid, Reason, Response,
    Unrecoverable,
};
use std::vec::Vec;

pub(super) const DEVICE: DeviceId = DeviceId(3);
pub(super) const NOW: Tick = Tick(0);

fn pasid(number: u32) -> Option<Pasid> {
    Pasid::new(number)
}

pub(super) fn engine(nested: bool, guest: Option<GuestId>) -> Engine {
    let mut engine = Engine::new(Policy::default());
    let config = DeviceConfig {
        guest,
        ..DeviceConfig::default()
    };
    engine.add_device(DEVICE, config).unwrap();
    let attachment = Attachment {
        nested,
        ..Attachment::new(DomainId(1))
    };
    engine.attach(DEVICE, None, attachment).unwrap();
    engine.attach(DEVICE, pasid(5), attachment).unwrap();
    engine
}

pub(super) fn report(
    engine: &mut Engine,
    addr: u64,
    access: Access,
    space: Option<Pasid>,
    last: bool,
) {
    let page = PageRequest {
        pasid: space,
        group: GroupIndex(9),
        addr: Iova(addr),
        access,
        last,
        response_needs_pasid: space.is_some(),
        private_data: [0; 2],
    };
    let reported = engine
        .report(NOW, DEVICE, &Fault::PageRequest(page))
        .unwrap();
    assert!(matches!(
        reported,
        Reported::Collected | Reported::Queued(_)
    ));
}

pub(super) fn stray(engine: &mut Engine, addr: Option<u64>) {
    let fault = Unrecoverable {
        reason: Reason(0x23),
        pasid: None,
        access: Access::WRITE,
        addr: addr.map(Iova),
        fetch_addr: Some(Gpa(0x9000)),
    };
    let reported = engine
        .report(NOW, DEVICE, &Fault::Unrecoverable(fault))
        .unwrap();
    assert!(matches!(reported, Reported::Queued(_)));
}

pub(super) fn responses(engine: &mut Engine) -> Vec<Response> {
    core::iter::from_fn(|| engine.poll_answer().map(|answer| answer.response)).collect()
}

#[test]
fn log_and_deny_denies_and_logs() {
    let mut engine = engine(false, None);
    report(&mut engine, 0x1000, Access::READ, None, true);
    stray(&mut engine, Some(0x2000));
    assert_eq!(serve(&mut engine, NOW, &mut LogAndDeny, 8), 2);
    assert_eq!(responses(&mut engine), [Response::Invalid]);
    let line = engine.poll_log().unwrap();
    assert_eq!((line.level, line.device), (Level::Warning, DEVICE));
    assert!(matches!(line.what, LogWhat::Fault(f) if f.reason == Reason(0x23)));
    assert_eq!(engine.counts(DEVICE).unwrap().verdicts.logged, 1);
}

#[test]
fn a_crash_starts_one_recovery_however_many_faults_it_throws() {
    let mut engine = engine(false, None);
    let mut started = 0;
    let mut recover = Recover::new(|_: &_| started += 1);
    for _ in 0..3 {
        stray(&mut engine, Some(0x2000));
    }
    serve(&mut engine, NOW, &mut recover, 8);
    recover.recovered(DEVICE);
    stray(&mut engine, Some(0x2000));
    serve(&mut engine, NOW, &mut recover, 8);
    assert_eq!(started, 2);
    assert_eq!(engine.counts(DEVICE).unwrap().verdicts.recovered, 4);
}

/// 0x1000–0x1fff read-only, 0x2000–0x2fff read-write, nothing to be had at 0x3000.
#[derive(Default)]
struct Process {
    populated: Vec<u64>,
}

impl Mappings for Process {
    fn rights(&self, _: Pasid, addr: Iova) -> Option<Access> {
        match addr.0 >> 12 {
            1 => Some(Access::READ),
            2 | 3 => Some(Access::RW),
            _ => None,
        }
    }

    fn populate(&mut self, _: Pasid, addr: Iova, _: Access) -> Result<(), Unmappable> {
        if addr.0 >> 12 == 3 {
            return Err(Unmappable(addr));
        }
        self.populated.push(addr.0);
        Ok(())
    }
}

#[test]
fn an_address_space_follows_the_rules_of_linux_sva() {
    // drivers/iommu/iommu-sva.c: each row is one of its branches.
    let rows = [
        (0x1000, Access::READ, pasid(5), Response::Success),
        (0x1000, Access::READ, None, Response::Invalid),
        (0x9000, Access::READ, pasid(5), Response::Invalid),
        (0x1000, Access::WRITE, pasid(5), Response::Invalid),
        (0x2000, Access::RW, pasid(5), Response::Success),
        (0x2000, Access::EXEC, pasid(5), Response::Invalid),
        (
            0x2000,
            Access::READ | Access::PRIV,
            pasid(5),
            Response::Success,
        ),
        (0x3000, Access::READ, pasid(5), Response::Invalid),
    ];
    for (addr, access, space, expected) in rows {
        let mut engine = engine(false, None);
        report(&mut engine, addr, access, space, true);
        serve(&mut engine, NOW, &mut AddressSpace(Process::default()), 8);
        assert_eq!(responses(&mut engine), [expected], "{addr:#x} {access}");
    }
}

#[test]
fn the_first_error_of_a_group_is_its_answer_and_skips_the_rest() {
    let mut engine = engine(false, None);
    report(&mut engine, 0x2000, Access::READ, pasid(5), false);
    report(&mut engine, 0x9000, Access::READ, pasid(5), false);
    report(&mut engine, 0x1000, Access::READ, pasid(5), true);
    let mut space = AddressSpace(Process::default());
    serve(&mut engine, NOW, &mut space, 8);
    assert_eq!(responses(&mut engine), [Response::Invalid]);
    assert_eq!(space.0.populated, [0x2000]);
}

/// A virtual IOMMU whose guest maps 0x1000–0x1fff, with room for two page requests.
#[derive(Default)]
struct Guest {
    told: Vec<Attempt>,
    queue: Vec<(Iova, bool)>,
    roomy: bool,
}

impl Inject for Guest {
    fn fault(&mut self, attempt: &Attempt) -> Injected {
        if attempt.addr.0 >> 12 == 1 {
            return Injected::Vanished;
        }
        self.told.push(*attempt);
        Injected::Told
    }

    fn page_request(
        &mut self,
        attempt: &Attempt,
        _: GroupIndex,
        last: bool,
    ) -> Result<(), NotQueued> {
        if self.queue.len() == 2 && !self.roomy {
            return Err(NotQueued(Response::Success));
        }
        self.queue.push((attempt.addr, last));
        Ok(())
    }
}

#[test]
fn a_guest_is_told_the_fact_and_never_the_hosts_reason() {
    let mut engine = engine(true, Some(GuestId(1)));
    stray(&mut engine, Some(0x7000));
    let mut injector = Injector::new(Guest::default());
    serve(&mut engine, NOW, &mut injector, 8);
    let told = Attempt {
        device: DEVICE,
        pasid: None,
        addr: Iova(0x7000),
        access: Access::WRITE,
    };
    assert_eq!(injector.guest().told, [told]);
    assert_eq!(engine.counts(DEVICE).unwrap().verdicts.injected, 1);
    assert!(
        engine.poll_log().is_none(),
        "a guest's fault is not the host's news"
    );
}

#[test]
fn a_fault_that_the_guests_tables_translate_by_now_is_counted_as_vanished() {
    let mut engine = engine(true, Some(GuestId(1)));
    stray(&mut engine, Some(0x1000));
    let mut injector = Injector::new(Guest::default());
    serve(&mut engine, NOW, &mut injector, 8);
    assert!(injector.guest().told.is_empty());
    assert_eq!(engine.poll_loss().unwrap().losses.vanished, 1);
    assert!(engine.poll_loss().is_none());
}

#[test]
fn the_guests_answer_finds_its_group() {
    let mut engine = engine(true, Some(GuestId(1)));
    // Mapped by now, and queued all the same: the device waits.
    report(&mut engine, 0x1000, Access::READ, pasid(5), false);
    report(&mut engine, 0x4000, Access::READ, pasid(5), true);
    let mut injector = Injector::new(Guest::default());
    serve(&mut engine, NOW, &mut injector, 8);
    assert_eq!(responses(&mut engine), []);
    assert_eq!(
        injector.guest().queue,
        [(Iova(0x1000), false), (Iova(0x4000), true)]
    );
    assert_eq!(injector.answered(DEVICE, None, GroupIndex(9)), None);
    let handle = injector.answered(DEVICE, pasid(5), GroupIndex(9)).unwrap();
    engine.answer(NOW, handle, Response::Success).unwrap();
    assert_eq!(responses(&mut engine), [Response::Success]);
    assert_eq!(injector.answered(DEVICE, pasid(5), GroupIndex(9)), None);
}

#[test]
fn a_full_guest_queue_has_the_group_answered_at_once_as_the_virtual_iommu_says() {
    let mut engine = engine(true, Some(GuestId(1)));
    for (addr, last) in [(0x4000, false), (0x5000, false), (0x6000, true)] {
        report(&mut engine, addr, Access::READ, None, last);
    }
    let mut injector = Injector::new(Guest::default());
    serve(&mut engine, NOW, &mut injector, 8);
    // An overflow: the device is to ask again.
    assert_eq!(responses(&mut engine), [Response::Success]);
    assert_eq!(injector.answered(DEVICE, None, GroupIndex(9)), None);
}

#[test]
fn a_second_group_of_an_index_that_waits_is_refused() {
    let mut engine = engine(true, Some(GuestId(1)));
    let mut injector = Injector::new(Guest::default());
    report(&mut engine, 0x4000, Access::READ, None, true);
    report(&mut engine, 0x5000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut injector, 8);
    assert_eq!(responses(&mut engine), [Response::Invalid]);
    let first = injector.answered(DEVICE, None, GroupIndex(9)).unwrap();
    engine.answer(NOW, first, Response::Success).unwrap();
    assert_eq!(responses(&mut engine), [Response::Success]);
}

#[test]
fn a_guests_late_answer_does_not_complete_the_next_group_of_that_index() {
    let mut engine = engine(true, Some(GuestId(1)));
    let mut injector = Injector::new(Guest::default());
    report(&mut engine, 0x4000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut injector, 8);
    engine.handle_timeout(Tick(10_000_000_000));
    assert_eq!(responses(&mut engine), [Response::Invalid], "the deadline");

    report(&mut engine, 0x5000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut injector, 8);
    assert_eq!(responses(&mut engine), [Response::Invalid], "refused");
    let late = injector.answered(DEVICE, None, GroupIndex(9)).unwrap();
    assert_eq!(
        engine.answer(NOW, late, Response::Success),
        Err(AnswerError::Stale)
    );

    report(&mut engine, 0x6000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut injector, 8);
    let handle = injector.answered(DEVICE, None, GroupIndex(9)).unwrap();
    engine.answer(NOW, handle, Response::Success).unwrap();
    assert_eq!(responses(&mut engine), [Response::Success]);
    assert_eq!(
        injector.guest().queue,
        [(Iova(0x4000), true), (Iova(0x6000), true)]
    );
}

#[test]
fn a_guest_that_was_reset_owes_nothing() {
    let mut engine = engine(true, Some(GuestId(1)));
    let mut injector = Injector::new(Guest::default());
    report(&mut engine, 0x4000, Access::READ, None, true);
    serve(&mut engine, NOW, &mut injector, 8);
    engine.remove_device(NOW, DEVICE).unwrap();
    injector.forget(DEVICE);
    assert_eq!(injector.answered(DEVICE, None, GroupIndex(9)), None);
}

#[test]
fn a_guest_that_never_answers_does_not_fill_the_hosts_memory() {
    let mut engine = engine(true, Some(GuestId(1)));
    let guest = Guest {
        roomy: true,
        ..Guest::default()
    };
    let mut injector = Injector::new(guest);
    for round in 0..1000u32 {
        let now = Tick(u64::from(round) * 20_000_000_000);
        let page = PageRequest {
            pasid: None,
            group: GroupIndex(round),
            addr: Iova(0x4000),
            access: Access::READ,
            last: true,
            response_needs_pasid: false,
            private_data: [0; 2],
        };
        engine.handle_timeout(now);
        let _ = engine
            .report(now, DEVICE, &Fault::PageRequest(page))
            .unwrap();
        serve(&mut engine, now, &mut injector, 1);
        while engine.poll_answer().is_some() {}
        assert!(injector.waiting.len() <= 66);
    }
}

#[test]
fn faults_of_the_hosts_own_stage_stay_with_the_host() {
    let mut engine = engine(false, Some(GuestId(1)));
    report(&mut engine, 0x4000, Access::READ, None, true);
    stray(&mut engine, Some(0x7000));
    stray(&mut engine, None);
    let mut injector = Injector::new(Guest::default());
    assert_eq!(serve(&mut engine, NOW, &mut injector, 8), 3);
    assert!(injector.guest().told.is_empty() && injector.guest().queue.is_empty());
    assert_eq!(responses(&mut engine), [Response::Invalid]);
    assert_eq!(engine.poll_log().unwrap().level, Level::Debug);
}

#[test]
fn serving_stops_at_the_given_number() {
    let mut engine = engine(false, None);
    for _ in 0..5 {
        report(&mut engine, 0x1000, Access::READ, None, true);
    }
    assert_eq!(serve(&mut engine, NOW, &mut LogAndDeny, 3), 3);
    assert_eq!(engine.flush(DEVICE), Ok(2));
}
