//! ATS, PRI and the messages that endpoints hear.

use crate::bed::Ear;
use crate::rig::{
    AT, CONTEXT, DEVICE, DIRECTORY, Heard, PAGE, PRQ, Rig, SIZE, TABLES, legacy, scalable,
};
use iopf::engine::DeviceId;
use iopf::resolve::{Attempt, Inject, Injected, NotQueued};
use iopf::{Access, Dma, DmaKind, GroupIndex, Iova, PageRequest, Pasid, Response, Rid};
use std::sync::Arc;
use viommu::Injection;
use viommu::vtd::Config;
use viommu_api::{Ats, AtsCompletion, Endpoint, Invalidation, PageRequestOutcome, Pri};

const FRCD: u64 = 0x220;
const EVENT: (u64, u32) = (0xfee0_1000, 0x31);

fn translation(rig: &Rig, pasid: Option<u32>, addr: u64, no_write: bool) -> AtsCompletion {
    rig.unit.translation_request(&Dma {
        kind: DmaKind::Translation { no_write },
        ..rig.dma(pasid, addr, Access::RW)
    })
}

fn granted(completion: AtsCompletion) -> (u64, u8, Access) {
    let AtsCompletion::Success { granted, .. } = completion else {
        panic!("{completion:?}");
    };
    (granted.pa.0, granted.page_shift, granted.perms)
}

fn request(addr: u64, group: u32, last: bool) -> PageRequest {
    PageRequest {
        pasid: Pasid::new(3),
        group: GroupIndex(group),
        addr: Iova(addr),
        access: Access::READ,
        last,
        response_needs_pasid: true,
        private_data: [0; 2],
    }
}

#[test]
fn a_translation_request_gets_the_page_and_its_rights() {
    let rig = scalable(Config::default());
    let whole = granted(translation(&rig, Some(3), AT + 0x123, false));
    assert_eq!(whole, (PAGE + 0x123, 12, Access::RW));
    rig.put(TABLES + 0x3008, PAGE | 0x65);
    let read_only = granted(translation(&rig, Some(3), AT, false));
    assert_eq!(read_only, (PAGE, 12, Access::READ));
    // And the device may now use what it was given.
    let dma = Dma {
        kind: DmaKind::Translated,
        ..rig.dma(None, PAGE, Access::READ)
    };
    assert_eq!(rig.access(&dma, 8), Ok(vec![(PAGE, 8)]));
}

#[test]
fn a_page_that_is_not_there_is_a_success_without_rights_and_without_a_record() {
    let rig = scalable(Config::default());
    let (_, _, rights) = granted(translation(&rig, Some(3), 0x9000, false));
    assert_eq!(rights, Access::empty());
    assert_eq!(rig.r32(0x34), 0);
    assert_eq!(rig.messages(), []);
    assert_eq!(rig.unit.counters().faults, 0);
    // A PASID entry that is not present is recoverable in the same way.
    let (_, _, rights) = granted(translation(&rig, Some(5), AT, false));
    assert_eq!(rights, Access::empty());
    assert_eq!(rig.r32(0x34), 0);
}

#[test]
fn a_device_without_ats_gets_unsupported_request_and_a_record() {
    let rig = scalable(Config::default());
    rig.put(CONTEXT + 0x20 * 32, DIRECTORY | 1 << 3 | 1);
    let answer = translation(&rig, Some(3), AT, false);
    assert_eq!(answer, AtsCompletion::UnsupportedRequest);
    // F, T1, AT=01, PASID 3, reason 0x44.
    assert_eq!(rig.r32(FRCD + 12), 0xd000_0344);
}

#[test]
fn a_malformed_entry_is_a_completer_abort_and_a_record() {
    let rig = legacy(Config::default());
    rig.put(CONTEXT + 0x20 * 16, TABLES | 1 << 2 | 1 << 5 | 1);
    let answer = translation(&rig, None, AT, false);
    assert_eq!(answer, AtsCompletion::CompleterAbort);
    assert_eq!(rig.r32(FRCD + 12), 0xd000_000b);
    // A table outside memory.
    let rig = legacy(Config::default());
    rig.put(CONTEXT + 0x20 * 16, TABLES | 1 << 2 | 1);
    rig.put(TABLES, SIZE | 3);
    assert_eq!(
        translation(&rig, None, AT, false),
        AtsCompletion::CompleterAbort
    );
    assert_eq!(rig.r32(FRCD + 12), 0xd000_0007);
}

#[test]
fn a_unit_without_device_tlbs_supports_no_request() {
    let rig = legacy(Config {
        scalable: None,
        device_tlb: false,
        ..Config::default()
    });
    assert_eq!(
        translation(&rig, None, AT, false),
        AtsCompletion::UnsupportedRequest
    );
}

#[test]
fn a_page_request_goes_round() {
    let rig = scalable(Config::default());
    let request = PageRequest {
        access: Access::READ | Access::WRITE,
        ..request(0x7f12_3456_7000, 0x155, true)
    };
    assert_eq!(
        rig.unit.page_request(DEVICE, &request),
        PageRequestOutcome::Queued
    );
    // page_req_dsc: type 1, PASID present, source 0x20, PASID 3; address, group, last, write, read.
    assert_eq!(rig.get(PRQ), 3 << 32 | 0x20 << 16 | 1 << 8 | 1);
    assert_eq!(rig.get(PRQ + 8), 0x7f12_3456_7000 | 0x155 << 3 | 7);
    assert_eq!((rig.r64(0xc0), rig.r64(0xc8)), (0, 32));
    assert_eq!(rig.r32(0xdc), 1, "PPR");
    assert_eq!(rig.messages(), [EVENT]);
    // prq_event_thread(): clear PPR, read, respond, move the head.
    rig.w32(0xdc, 1);
    assert_eq!(rig.r32(0xdc), 0);
    rig.submit(&[[3 << 32 | 0x20 << 16 | 1 << 4 | 9, 0x155 << 3]]);
    rig.w64(0xc0, 32);
    assert_eq!(
        rig.ear.take(),
        [Heard::Response(
            Pasid::new(3),
            GroupIndex(0x155),
            Response::Success
        )]
    );
    let counters = rig.unit.counters();
    assert_eq!((counters.page_requests, counters.responses), (1, 1));
}

#[test]
fn responses_reach_their_requester_with_their_meaning() {
    let rig = scalable(Config::default());
    let response = |code: u64| [0x20 << 16 | code << 12 | 9, 7 << 3];
    rig.submit(&[response(1), response(2), response(0xf)]);
    let heard = |response| Heard::Response(None, GroupIndex(7), response);
    assert_eq!(
        rig.ear.take(),
        [
            heard(Response::Invalid),
            heard(Response::Failure),
            heard(Response::Failure)
        ]
    );
    // Nobody there: counted, and no reason to stop.
    rig.submit(&[[0x28 << 16 | 9, 0]]);
    assert_eq!(rig.unit.counters().responses_lost, 1);
    assert_eq!(rig.ear.take(), []);
}

#[test]
fn one_event_covers_the_requests_until_software_clears_ppr() {
    let rig = scalable(Config::default());
    for page in 0..3 {
        rig.unit
            .page_request(DEVICE, &request(page << 12, 1, false));
    }
    assert_eq!(rig.messages(), [EVENT]);
    rig.w32(0xdc, 1);
    rig.unit.page_request(DEVICE, &request(0x5000, 1, true));
    assert_eq!(rig.messages(), [EVENT]);
    // Masked, it waits.
    rig.w32(0xdc, 1);
    rig.w32(0xe0, 1 << 31);
    rig.unit.page_request(DEVICE, &request(0x6000, 2, true));
    assert_eq!((rig.messages(), rig.r32(0xe0)), (vec![], 3 << 30));
    rig.w32(0xe0, 0);
    assert_eq!(rig.messages(), [EVENT]);
}

#[test]
fn a_full_queue_overflows_and_asks_for_a_retry() {
    let rig = scalable(Config::default());
    // One page: 128 entries, one of which stays empty.
    for page in 0..127 {
        let outcome = rig
            .unit
            .page_request(DEVICE, &request(page << 12, 1, false));
        assert_eq!(outcome, PageRequestOutcome::Queued);
    }
    assert_eq!(rig.r64(0xc8), 127 * 32);
    let lost = rig.unit.page_request(DEVICE, &request(0x1000, 1, false));
    assert_eq!(lost, PageRequestOutcome::Dropped);
    assert_eq!(rig.r32(0xdc), 3, "PPR and PRO");
    let last = rig.unit.page_request(DEVICE, &request(0x1000, 1, true));
    assert_eq!(last, PageRequestOutcome::Answered(Response::Success));
    // Room alone does not help: PRO has to go.
    rig.w64(0xc0, 127 * 32);
    let still = rig.unit.page_request(DEVICE, &request(0x1000, 1, true));
    assert_eq!(still, PageRequestOutcome::Answered(Response::Success));
    rig.w32(0xdc, 2);
    let queued = rig.unit.page_request(DEVICE, &request(0x1000, 1, true));
    assert_eq!(queued, PageRequestOutcome::Queued);
    assert_eq!(rig.r64(0xc8), 0, "the tail wraps");
    let counters = rig.unit.counters();
    assert_eq!(
        (counters.page_requests, counters.page_requests_lost),
        (128, 3)
    );
    assert_eq!(counters.page_requests_answered, 2);
}

#[test]
fn a_request_that_is_not_allowed_is_invalid_and_recorded() {
    let rig = scalable(Config::default());
    // PRE is clear.
    rig.put(CONTEXT + 0x20 * 32, DIRECTORY | 1 << 3 | 1 << 2 | 1);
    let dropped = rig.unit.page_request(DEVICE, &request(0x7000, 1, false));
    assert_eq!(dropped, PageRequestOutcome::Dropped);
    // F, T2 and not T1: a page request; reason 0x47.
    assert_eq!(rig.r32(FRCD + 12), 0x8000_0347);
    assert_eq!(rig.r32(FRCD + 8), 1 << 31 | 1 << 28 | 0x20);
    let answered = rig.unit.page_request(DEVICE, &request(0x7000, 1, true));
    assert_eq!(answered, PageRequestOutcome::Answered(Response::Invalid));
    // In legacy mode there is no such thing.
    let rig = legacy(Config::default());
    let answered = rig.unit.page_request(DEVICE, &request(0x7000, 1, true));
    assert_eq!(answered, PageRequestOutcome::Answered(Response::Invalid));
    assert_eq!(rig.r32(FRCD + 12) & 0xff, 0x32);
    let counters = rig.unit.counters();
    assert_eq!(counters.page_requests_refused, 1);
    assert_eq!(counters.page_requests_answered, 1);
}

#[test]
fn without_a_pasid_a_page_request_says_nothing_of_privilege_or_execution() {
    let rig = scalable(Config::default());
    // RID_PASID is 0.
    rig.pasid_entry(0, 1, 0, TABLES, 1);
    let request = PageRequest {
        pasid: None,
        access: Access::READ | Access::EXEC | Access::PRIV,
        ..request(0x7000, 1, true)
    };
    let queued = rig.unit.page_request(DEVICE, &request);
    assert_eq!(queued, PageRequestOutcome::Queued);
    assert_eq!(rig.get(PRQ), 0x20 << 16 | 1, "neither EXR nor PMR nor PP");
    assert_eq!(rig.get(PRQ + 8), 0x7000 | 1 << 3 | 1 << 2 | 1);
}

#[test]
fn a_stop_marker_is_queued_and_never_answered() {
    let rig = scalable(Config::default());
    let marker = PageRequest {
        access: Access::empty(),
        ..request(0, 0, true)
    };
    let queued = rig.unit.page_request(DEVICE, &marker);
    assert_eq!(queued, PageRequestOutcome::Queued);
    assert_eq!(rig.get(PRQ + 8), 1 << 2, "last, neither read nor write");
    rig.w64(0xd0, 0);
    let lost = rig.unit.page_request(DEVICE, &marker);
    assert_eq!(lost, PageRequestOutcome::Dropped);
}

#[test]
fn without_a_queue_a_request_is_invalid() {
    let rig = scalable(Config::default());
    rig.w64(0xd0, 0);
    let answered = rig.unit.page_request(DEVICE, &request(0x7000, 1, true));
    assert_eq!(answered, PageRequestOutcome::Answered(Response::Invalid));
    rig.w64(0xd0, SIZE);
    let answered = rig.unit.page_request(DEVICE, &request(0x7000, 1, true));
    assert_eq!(answered, PageRequestOutcome::Answered(Response::Invalid));
    assert_eq!(rig.r32(0xdc), 0);
}

#[test]
fn the_drain_of_linux_comes_true() {
    let rig = scalable(Config::default());
    rig.unit.page_request(DEVICE, &request(0x7000, 1, true));
    // intel_iommu_drain_pasid_prq(): a fenced wait, the PASID's IOTLB, its device-TLB, and a wait
    // with PD.
    rig.put(0x40000, 0);
    rig.queue(&[
        [2 << 32 | 1 << 6 | 5, 0],
        [3 << 32 | 1 << 16 | 2 << 4 | 6, 0],
        [3 << 32 | 0x20 << 16 | 8, 0x7fff_ffff_ffff_f000 | 1 << 11],
        [2 << 32 | 1 << 7 | 1 << 5 | 5, 0x40000],
    ]);
    assert_eq!(rig.get(0x40000), 2);
    assert_eq!(
        rig.ear.take(),
        [Heard::Invalidate(Invalidation {
            pasid: Pasid::new(3),
            global: false,
            addr: Iova(0),
            size_shift: 64,
        })]
    );
}

#[test]
fn device_tlb_invalidations_arrive_in_order_and_with_their_range() {
    let rig = scalable(Config::default());
    rig.submit(&[
        [0x20 << 32 | 3, 0x10000 | 0x3000 | 1],
        [3 << 32 | 0x20 << 16 | 8, 0x7000],
        [3 << 32 | 0x20 << 16 | 8, 0x7000 | 1],
    ]);
    let heard = |pasid, global, addr, size_shift| {
        Heard::Invalidate(Invalidation {
            pasid,
            global,
            addr: Iova(addr),
            size_shift,
        })
    };
    assert_eq!(
        rig.ear.take(),
        [
            heard(None, false, 0x10000, 15),
            heard(Pasid::new(3), false, 0x7000, 12),
            heard(Pasid::new(3), true, 0x7000, 12),
        ]
    );
}

#[test]
fn an_endpoint_that_is_gone_is_no_endpoint() {
    let rig = scalable(Config::default());
    let gone: Arc<dyn Endpoint> = Arc::new(Ear::default());
    rig.unit.attach(Rid(0x20), Arc::downgrade(&gone));
    drop(gone);
    rig.queue(&[[0x20 << 32 | 3, 0]]);
    assert_eq!(rig.r32(0x34), 1 << 6);
    rig.unit.detach(Rid(0x20));
}

#[test]
fn an_injected_fault_gets_the_guests_own_reason_or_vanishes() {
    let rig = scalable(Config::default());
    let mut injection = Injection::new(rig.unit.clone());
    let attempt = |addr| Attempt {
        device: DeviceId(0x20),
        pasid: Pasid::new(3),
        addr: Iova(addr),
        access: Access::WRITE,
    };
    assert_eq!(injection.fault(&attempt(0x9000)), Injected::Told);
    assert_eq!(rig.r32(FRCD + 12), 0x8000_0371);
    assert_eq!(rig.r64(FRCD), 0x9000);
    assert_eq!(injection.fault(&attempt(AT)), Injected::Vanished);
    assert_eq!(rig.unit.counters().vanished, 1);
    // A page request is queued even where the page is there by now.
    let group = GroupIndex(4);
    assert_eq!(injection.page_request(&attempt(AT), group, true), Ok(()));
    assert_eq!(rig.get(PRQ + 8), AT | 4 << 3 | 1 << 2 | 2);
    rig.w64(0xd0, 0);
    assert_eq!(
        injection.page_request(&attempt(AT), group, true),
        Err(NotQueued(Response::Invalid))
    );
}
