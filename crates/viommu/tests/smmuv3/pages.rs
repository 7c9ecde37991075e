//! The PRI queue.

use crate::rig::{
    ALL_ON, AT, CR0, DEVICE, GERROR, GERROR_MESSAGE, GERRORN, IRQ_CTRL, PAGE_MESSAGE, PAGES,
    PRIQ_BASE, PRIQ_CONS, PRIQ_PROD, PRIQEN, Rig, SMMUEN, STE, first,
};
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Response};
use viommu::smmuv3::{Ats, Config};
use viommu_api::{PageRequestOutcome, Pri};

const QUEUED: PageRequestOutcome = PageRequestOutcome::Queued;
const DROPPED: PageRequestOutcome = PageRequestOutcome::Dropped;

fn answered(response: Response) -> PageRequestOutcome {
    PageRequestOutcome::Answered(response)
}

fn entry(rig: &Rig, place: u64) -> [u64; 2] {
    [0, 8].map(|word| rig.get(PAGES + place % 8 * 16 + word))
}

#[test]
fn a_page_request_is_what_linux_reads() {
    let rig = first(Config::default());
    assert_eq!(rig.ask(0x7000, 0x1ff, true), QUEUED);
    // arm_smmu_handle_ppr: StreamID, SubstreamID, R, Last, SSV; group, address.
    assert_eq!(
        entry(&rig, 0),
        [0x20 | 3 << 32 | 1 << 60 | 1 << 62 | 1 << 63, 0x7000 | 0x1ff]
    );
    assert_eq!(rig.r32(PRIQ_PROD), 1);
    assert_eq!(rig.raised(), [PAGE_MESSAGE]);
    // Privileged, to execute; not the last.
    let request = PageRequest {
        pasid: Pasid::new(0xf_ffff),
        group: GroupIndex(2),
        addr: Iova(0xffff_ffff_ffff_f000),
        access: Access::WRITE | Access::EXEC | Access::PRIV,
        last: false,
        response_needs_pasid: true,
        private_data: [0; 2],
    };
    assert_eq!(rig.unit.page_request(DEVICE, &request), QUEUED);
    assert_eq!(
        entry(&rig, 1),
        [
            0x20 | 0xf_ffff << 32 | 1 << 58 | 1 << 59 | 1 << 61 | 1 << 63,
            0xffff_ffff_ffff_f000 | 2
        ]
    );
    // Without a substream there is neither.
    let request = PageRequest {
        pasid: None,
        ..request
    };
    assert_eq!(rig.unit.page_request(DEVICE, &request), QUEUED);
    assert_eq!(entry(&rig, 2)[0], 0x20 | 1 << 61);
    assert_eq!(rig.raised(), [], "the queue was not empty");
    let counters = rig.unit.counters();
    assert_eq!(counters.page_requests, 3);
}

#[test]
fn any_stream_may_ask() {
    // "Incoming PRI Page Requests are not affected by SMMU_CR0.ATSCHK or STE.EATS configuration."
    let rig = first(Config::default());
    rig.put(STE, 0);
    assert_eq!(rig.ask(AT, 1, true), QUEUED);
}

#[test]
fn a_full_queue_answers_success_until_the_overflow_is_acknowledged() {
    let rig = first(Config::default());
    for group in 0..8 {
        assert_eq!(rig.ask(0x7000, group, true), QUEUED);
    }
    assert_eq!(rig.raised(), [PAGE_MESSAGE]);
    assert_eq!(rig.ask(0x7000, 8, false), DROPPED);
    assert_eq!(rig.ask(0x7000, 8, true), answered(Response::Success));
    assert_eq!(rig.r32(PRIQ_PROD), 1 << 31 | 8);
    // Room alone is not enough.
    rig.w32(PRIQ_CONS, 8);
    assert_eq!(rig.ask(0x7000, 9, true), answered(Response::Success));
    assert_eq!(rig.r32(PRIQ_PROD), 1 << 31 | 8);
    // arm_smmu_priq_thread acknowledges.
    rig.w32(PRIQ_CONS, 1 << 31 | 8);
    assert_eq!(rig.ask(0x7000, 10, true), QUEUED);
    assert_eq!(rig.r32(PRIQ_PROD), 1 << 31 | 9);
    assert_eq!(rig.raised(), [PAGE_MESSAGE]);
    let counters = rig.unit.counters();
    assert_eq!(counters.page_requests_lost, 3);
    assert_eq!(counters.page_requests_answered, 2);
}

#[test]
fn a_queue_that_is_off_answers_failure() {
    let rig = first(Config::default());
    for off in [PRIQEN, SMMUEN] {
        rig.w32(CR0, ALL_ON & !off);
        assert_eq!(rig.ask(0x7000, 1, true), answered(Response::Failure));
        assert_eq!(rig.ask(0x7000, 1, false), DROPPED);
        assert_eq!(rig.r32(PRIQ_PROD), 0);
    }
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.ask(0x7000, 1, true), QUEUED);
    assert_eq!(rig.unit.counters().page_requests_refused, 4);
}

#[test]
fn a_queue_without_memory_is_a_global_error() {
    let rig = first(Config::default());
    rig.w32(CR0, ALL_ON & !PRIQEN);
    rig.w64(PRIQ_BASE, 0x1000_0000 | 3);
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.ask(0x7000, 1, true), answered(Response::Failure));
    assert_eq!((rig.r32(GERROR), rig.r32(PRIQ_PROD)), (1 << 3, 0));
    assert_eq!(rig.raised(), [GERROR_MESSAGE]);
    rig.w32(CR0, ALL_ON & !PRIQEN);
    rig.w64(PRIQ_BASE, PAGES | 3);
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.ask(0x7000, 1, true), answered(Response::Failure));
    rig.w32(GERRORN, 1 << 3);
    assert_eq!(rig.ask(0x7000, 1, true), QUEUED);
}

#[test]
fn software_may_want_to_hear_of_the_last_of_a_group_alone() {
    let rig = first(Config::default());
    rig.w32(IRQ_CTRL, 0);
    // LO
    rig.w32(0xdc, 1 << 31 | 1);
    assert_eq!(rig.r32(0xdc), 1 << 31 | 1);
    rig.w32(IRQ_CTRL, 7);
    assert_eq!(rig.ask(0x7000, 1, false), QUEUED);
    assert_eq!(rig.raised(), []);
    assert_eq!(rig.ask(0x8000, 1, true), QUEUED);
    assert_eq!(rig.raised(), [PAGE_MESSAGE]);
    assert_eq!(rig.ask(0x7000, 2, true), QUEUED);
    assert_eq!(rig.raised(), [PAGE_MESSAGE]);
    for group in 3..8 {
        assert_eq!(rig.ask(0x7000, group, false), QUEUED);
    }
    // Also when there is no room for it.
    assert_eq!(rig.ask(0x7000, 8, false), DROPPED);
    assert_eq!(rig.raised(), []);
    assert_eq!(rig.ask(0x7000, 8, true), answered(Response::Success));
    assert_eq!(rig.raised(), [PAGE_MESSAGE]);
}

#[test]
fn a_unit_without_a_queue_knows_no_page_requests() {
    let rig = first(Config {
        ats: Some(Ats {
            page_requests: false,
        }),
        ..Config::default()
    });
    assert_eq!(rig.ask(0x7000, 1, true), answered(Response::Invalid));
}

#[test]
fn a_stop_marker_is_queued_and_never_answered() {
    let rig = first(Config::default());
    let marker = PageRequest {
        pasid: Pasid::new(3),
        group: GroupIndex(0),
        addr: Iova(0),
        access: Access::empty(),
        last: true,
        response_needs_pasid: false,
        private_data: [0; 2],
    };
    assert_eq!(rig.unit.page_request(DEVICE, &marker), QUEUED);
    assert_eq!(entry(&rig, 0)[0], 0x20 | 3 << 32 | 1 << 62 | 1 << 63);
    rig.w32(CR0, ALL_ON & !PRIQEN);
    assert_eq!(rig.unit.page_request(DEVICE, &marker), DROPPED);
}
