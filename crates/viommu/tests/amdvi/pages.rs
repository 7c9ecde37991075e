use crate::rig::{
    CONTROL, DTE, EVENT_TAIL, EVENTS, Heard, PAGES, PPR_HEAD, PPR_TAIL, SIZE, STATUS, guest, host,
};
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Response};
use viommu::amdvi::Config;
use viommu_api::{PageRequestOutcome, Pri};

#[test]
fn a_page_request_is_logged_and_answered_as_linux_does_it() {
    let rig = guest(Config::default());
    assert_eq!(
        rig.ask(0x7f_0000_7000, 0x181, true),
        PageRequestOutcome::Queued
    );
    assert_eq!(rig.interrupts(), 1);
    // PAGE_SERVICE_REQUEST; GN, US, READ; last, tag 0x181; PASID 3; device 00:04.0.
    assert_eq!(rig.entry(PAGES, 0), [0x1144_0381_0003_0020, 0x7f_0000_7000]);
    assert_eq!(rig.r32(STATUS) & 0x60, 0x40);
    assert_eq!(rig.r64(PPR_TAIL), 16);
    // amd_iommu_poll_ppr_log, amd_iommu_complete_ppr
    rig.w32(STATUS, 0x60);
    rig.w32(PPR_HEAD, 16);
    rig.submit(&[[7 << 60 | 3 << 32 | 0x20, 0x181 << 32 | 4]]);
    assert_eq!(
        rig.ear.take(),
        [Heard::Response(
            Pasid::new(3),
            GroupIndex(0x181),
            Response::Success
        )]
    );
    assert_eq!(rig.unit.counters().page_requests, 1);
}

#[test]
fn what_a_request_asks_for_is_in_its_flags() {
    let rig = guest(Config::default());
    let request = PageRequest {
        pasid: Pasid::new(3),
        group: GroupIndex(1),
        addr: Iova(0x7000),
        access: Access::RW | Access::EXEC | Access::PRIV,
        last: false,
        response_needs_pasid: true,
        private_data: [0; 2],
    };
    let ask = |request| rig.unit.page_request(crate::rig::DEVICE, &request);
    ask(request);
    // EXEC 0x002, READ 0x004, WRITE 0x020, GN 0x100; no US.
    assert_eq!(rig.entry(PAGES, 0), [0x1126_0001_0003_0020, 0x7000]);
    // Without a PASID there is neither execution nor privilege.
    ask(PageRequest {
        pasid: None,
        ..request
    });
    assert_eq!(rig.entry(PAGES, 1), [0x1064_0001_0000_0020, 0x7000]);
}

/// Fills the log of 256 entries up to the one that stays free.
fn full(config: Config) -> crate::rig::Rig {
    let rig = guest(config);
    for group in 0..255 {
        assert_eq!(rig.ask(0x7000, group, true), PageRequestOutcome::Queued);
    }
    rig
}

#[test]
fn a_request_that_finds_the_log_full_is_dropped() {
    let rig = full(Config::default());
    assert_eq!(rig.interrupts(), 1);
    assert_eq!(rig.r32(STATUS) & 0xa0, 0x80);
    assert_eq!(rig.ask(0x7000, 300, true), PageRequestOutcome::Dropped);
    assert_eq!(
        rig.r32(STATUS) & 0xe0,
        0x60,
        "PprOverflow, PprInt, no PprLogRun"
    );
    // Room alone does not restart it.
    rig.w32(STATUS, 0x60);
    rig.w32(PPR_HEAD, 255 * 16);
    assert_eq!(rig.ask(0x7000, 301, true), PageRequestOutcome::Dropped);
    // amd_iommu_restart_log
    rig.disable(13);
    rig.disable(14);
    rig.w32(STATUS, 0x20);
    rig.enable(14);
    rig.enable(13);
    assert_eq!(rig.r32(STATUS) & 0xe0, 0x80);
    rig.interrupts();
    assert_eq!(rig.ask(0x7000, 302, true), PageRequestOutcome::Queued);
    assert_eq!(rig.interrupts(), 1);
    let counters = rig.unit.counters();
    assert_eq!(
        (counters.page_requests, counters.page_requests_lost),
        (256, 2)
    );
}

#[test]
fn with_automatic_responses_it_is_answered() {
    for (code, response) in [
        (0, Response::Success),
        (1, Response::Invalid),
        (0xf, Response::Failure),
    ] {
        let rig = full(Config::default());
        rig.w64(0x2080, code);
        rig.enable(39);
        assert_eq!(
            rig.ask(0x7000, 300, true),
            PageRequestOutcome::Answered(response)
        );
        // The others of a group are never answered.
        assert_eq!(rig.ask(0x7000, 300, false), PageRequestOutcome::Dropped);
        assert_eq!(rig.unit.counters().page_requests_answered, 1);
    }
}

#[test]
fn always_on_automatic_responses_log_nothing() {
    let rig = guest(Config::default());
    rig.w64(0x2080, 1);
    rig.w64(CONTROL, rig.r64(CONTROL) | 1 << 39 | 1 << 42);
    let answered = PageRequestOutcome::Answered(Response::Invalid);
    assert_eq!(rig.ask(0x7000, 1, true), answered);
    assert_eq!(rig.r64(PPR_TAIL), 0);
    // Without PprAutoRspEn the other bit says nothing.
    rig.disable(39);
    assert_eq!(rig.ask(0x7000, 1, true), PageRequestOutcome::Queued);
}

#[test]
fn automatic_responses_need_their_feature() {
    let mut config = Config::default();
    if let Some(pages) = &mut config.page_requests {
        pages.auto_response = false;
    }
    let rig = full(config);
    rig.enable(39);
    rig.w64(0x2080, 1);
    assert_eq!((rig.r64(CONTROL) >> 39 & 1, rig.r64(0x2080)), (0, 0));
    assert_eq!(rig.ask(0x7000, 300, true), PageRequestOutcome::Dropped);
}

#[test]
fn without_a_log_a_request_is_invalid() {
    let rig = guest(Config::default());
    rig.disable(13);
    let invalid = PageRequestOutcome::Answered(Response::Invalid);
    assert_eq!(rig.ask(0x7000, 1, true), invalid);
    rig.w64(0x38, SIZE | 8 << 56);
    rig.enable(13);
    assert_eq!(
        rig.ask(0x7000, 1, true),
        invalid,
        "there is no memory behind it"
    );
    assert_eq!(rig.r64(PPR_TAIL), 0);
    assert_eq!(rig.r64(EVENT_TAIL), 0);
}

#[test]
fn a_device_that_may_not_ask_is_told_of() {
    let rig = guest(Config::default());
    rig.put(DTE, rig.get(DTE) & !(1 << 52));
    let invalid = PageRequestOutcome::Answered(Response::Invalid);
    assert_eq!(rig.ask(0x7000, 0x181, true), invalid);
    // INVALID_PPR_REQUEST, laid out as a request: RX and GN; last, tag 0x181; PASID 3.
    assert_eq!(rig.entry(EVENTS, 0), [0x9201_0381_0003_0020, 0x7000]);
    assert_eq!(rig.r64(PPR_TAIL), 0);
    // Host tables alone have no PASIDs.
    let rig = host(Config::default());
    assert_eq!(rig.ask(0x7000, 2, true), invalid);
    assert_eq!(rig.entry(EVENTS, 0)[0] >> 60, 9);
    // PPREn off.
    let rig = guest(Config::default());
    rig.disable(15);
    assert_eq!(rig.ask(0x7000, 2, true), invalid);
}

#[test]
fn a_unit_that_is_off_takes_no_requests() {
    let rig = guest(Config::default());
    rig.disable(0);
    assert_eq!(
        rig.ask(0x7000, 1, true),
        PageRequestOutcome::Answered(Response::Invalid)
    );
    assert_eq!(rig.r64(EVENT_TAIL), 0);
}
