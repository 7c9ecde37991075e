use crate::rig::{
    AT, CONTROL, DTE, EVENT_HEAD, EVENT_TAIL, EVENTS, INVALIDATE_ALL, PAGE, RW, Rig, SIZE, STATUS,
    TABLES, guest, host, invalidate_device,
};
use iopf::{Access, Dma, DmaKind, Rid};
use viommu::amdvi::Config;
use viommu_api::{Ats, AtsCompletion};

#[test]
fn a_fault_is_logged_and_announced_as_linux_reads_it() {
    let rig = host(Config::default());
    let dma = rig.dma(None, 0xdead_0123, Access::WRITE);
    assert_eq!(rig.access(&dma, 4).unwrap_err().at.0, 0xdead_0123);
    assert_eq!(rig.interrupts(), 1);
    // IO_PAGE_FAULT, flags RW, domain 5, device 00:04.0; the address.
    assert_eq!(rig.entry(EVENTS, 0), [0x2020_0005_0000_0020, 0xdead_0123]);
    // EventLogInt; the tail has moved.
    assert_eq!(rig.r32(STATUS) & 3, 2);
    assert_eq!(rig.r64(EVENT_TAIL), 16);
    // amd_iommu_int_thread_evtlog
    rig.w32(STATUS, 3);
    rig.w32(EVENT_HEAD, 16);
    assert_eq!(rig.r32(STATUS) & 3, 0);
    assert_eq!(rig.unit.counters().recorded, 1);
}

/// What software does to its tables.
type Change<'a> = &'a dyn Fn(&Rig);

#[test]
fn each_kind_of_fault_has_its_code_and_flags() {
    // A change to the tables, the request's access, and the low word of the event.
    let denied = |rig: &Rig| rig.put(TABLES + 0x3008, PAGE | 1);
    let reserved = |rig: &Rig| rig.put(TABLES + 0x3008, RW | PAGE | 1 << 52 | 1);
    let level = |rig: &Rig| rig.put(TABLES + 0x2000, RW | TABLES | 4 << 9 | 1);
    let no_translation = |rig: &Rig| rig.put(DTE, 1);
    let blocked = |rig: &Rig| rig.put(DTE, 3);
    let malformed = |rig: &Rig| rig.put(DTE, 1 << 63 | 3);
    let mode = |rig: &Rig| rig.put(DTE, RW | 7 << 9 | 3);
    let away = |rig: &Rig| rig.put(DTE, RW | SIZE | 4 << 9 | 3);
    let cases: [(Change<'_>, Access, u64, u64); 9] = [
        (&denied, Access::READ, 0x2050_0005_0000_0020, AT),
        (&denied, Access::WRITE, 0x2070_0005_0000_0020, AT),
        (&reserved, Access::READ, 0x2090_0005_0000_0020, AT),
        (&level, Access::READ, 0x2010_0005_0000_0020, AT),
        (&no_translation, Access::READ, 0x2000_0005_0000_0020, AT),
        (&blocked, Access::READ, 0x2050_0005_0000_0020, AT),
        (&malformed, Access::WRITE, 0x10a0_0000_0000_0020, AT),
        (&mode, Access::READ, 0x1000_0000_0000_0020, AT),
        // PAGE_TAB_HARDWARE_ERROR: the entry's address, a master abort.
        (&away, Access::WRITE, 0x4220_0005_0000_0020, SIZE),
    ];
    for (number, (change, access, low, high)) in cases.into_iter().enumerate() {
        let rig = host(Config::default());
        change(&rig);
        assert!(rig.access(&rig.dma(None, AT, access), 4).is_err());
        assert_eq!(rig.entry(EVENTS, 0), [low, high], "case {number}");
    }
}

#[test]
fn a_fault_in_a_process_names_it() {
    let rig = guest(Config::default());
    let dma = rig.dma(Some(3), 0x7000, Access::READ);
    assert!(rig.access(&dma, 4).is_err());
    // GN and US; PASID 3.
    assert_eq!(rig.entry(EVENTS, 0), [0x2005_0003_0000_0020, 0x7000]);
    // A PASID beyond the table of one level: PASID 0x12345.
    let dma = rig.dma(Some(0x1_2345), 0x7000, Access::READ);
    assert!(rig.access(&dma, 4).is_err());
    assert_eq!(rig.entry(EVENTS, 1), [0x2005_2345_0001_0020, 0x7000]);
}

#[test]
fn a_device_beyond_the_table_is_told_of() {
    let rig = host(Config::default());
    let mut dma = rig.dma(None, AT, Access::READ);
    dma.requester = Rid(0x80);
    assert!(rig.access(&dma, 1).is_err());
    assert_eq!(rig.entry(EVENTS, 0), [0x2000_0000_0000_0080, AT]);
}

#[test]
fn the_log_overflows_one_before_its_head_and_restarts_as_linux_does_it() {
    let rig = host(Config::default());
    for fault in 0..255u64 {
        assert_eq!(rig.read_at(None, 0x10_0000 + fault), None);
    }
    assert_eq!(
        rig.interrupts(),
        1,
        "one for all, until software has seen to it"
    );
    assert_eq!(rig.r32(STATUS) & 9, 8, "it runs, and has not overflowed");
    assert_eq!(rig.read_at(None, 0xaaaa), None);
    assert_eq!(rig.read_at(None, 0xbbbb), None);
    assert_eq!(
        rig.r32(STATUS) & 0xb,
        3,
        "EventOverflow, EventLogInt, no EventLogRun"
    );
    assert_eq!(rig.r64(EVENT_TAIL), 255 * 16);
    assert_eq!(rig.entry(EVENTS, 255), [0, 0]);
    let counters = rig.unit.counters();
    assert_eq!((counters.recorded, counters.lost), (255, 2));
    // amd_iommu_handle_irq: clear both bits, read the log; room alone does not restart it.
    rig.w32(STATUS, 3);
    rig.w32(EVENT_HEAD, 255 * 16);
    assert_eq!(rig.read_at(None, 0xcccc), None);
    assert_eq!(
        rig.r32(STATUS) & 0xb,
        1,
        "the next to be lost says so again"
    );
    assert_eq!(rig.unit.counters().lost, 3);
    assert_eq!(rig.interrupts(), 1);
    // amd_iommu_restart_log
    rig.disable(2);
    rig.disable(3);
    rig.w32(STATUS, 1);
    rig.enable(3);
    rig.enable(2);
    assert_eq!(rig.r32(STATUS) & 0xb, 8);
    assert_eq!(rig.read_at(None, 0xdddd), None);
    assert_eq!(rig.entry(EVENTS, 255), [0x2000_0005_0000_0020, 0xdddd]);
    assert_eq!(rig.r64(EVENT_TAIL), 0, "and round");
    assert_eq!(rig.interrupts(), 1);
}

#[test]
fn an_overflow_is_announced_where_nothing_else_was() {
    let rig = host(Config::default());
    for fault in 0..255u64 {
        assert_eq!(rig.read_at(None, 0x10_0000 + fault), None);
    }
    rig.w32(STATUS, 3);
    rig.interrupts();
    assert_eq!(rig.read_at(None, 0xaaaa), None);
    assert_eq!(rig.r32(STATUS) & 3, 1);
    assert_eq!(rig.interrupts(), 1);
}

#[test]
fn an_interrupt_that_was_not_enabled_comes_when_it_is() {
    let rig = host(Config::default());
    rig.disable(3);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.interrupts(), 0);
    rig.enable(3);
    assert_eq!(rig.interrupts(), 1);
    rig.disable(3);
    rig.w32(STATUS, 2);
    rig.enable(3);
    assert_eq!(rig.interrupts(), 0, "software saw to it");
}

#[test]
fn without_a_log_faults_are_counted() {
    let rig = host(Config::default());
    rig.disable(2);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.unit.counters().lost, 1);
    assert_eq!(rig.r64(EVENT_TAIL), 0);
    // A log without memory.
    rig.w64(0x10, SIZE | 8 << 56);
    rig.enable(2);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.unit.counters().lost, 2);
    assert_eq!(rig.r64(EVENT_TAIL), 0);
}

#[test]
fn se_logs_the_first_fault_of_a_device_until_its_entry_is_invalidated() {
    let rig = host(Config::default());
    rig.put(DTE + 8, 1 << 33 | 1 << 32 | 5);
    for fault in 0..3 {
        assert_eq!(rig.read_at(None, 0x9000 + fault), None);
    }
    assert_eq!(rig.r64(EVENT_TAIL), 16);
    let counters = rig.unit.counters();
    assert_eq!((counters.recorded, counters.suppressed), (1, 2));
    rig.submit(&[invalidate_device(Rid(0x28))]);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r64(EVENT_TAIL), 16);
    rig.submit(&[invalidate_device(Rid(0x20))]);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r64(EVENT_TAIL), 32);
    rig.submit(&[INVALIDATE_ALL]);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r64(EVENT_TAIL), 48);
    // What is no I/O page fault is logged each time.
    rig.put(TABLES, RW | SIZE | 3 << 9 | 1);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r64(EVENT_TAIL), 80);
    // HEV and HEO.
    assert_eq!(rig.r64(0x50), 3);
}

#[test]
fn sa_logs_no_fault_of_a_device() {
    let rig = host(Config::default());
    rig.put(DTE + 8, 1 << 34 | 1 << 32 | 5);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r64(EVENT_TAIL), 0);
    assert_eq!(rig.unit.counters().suppressed, 1);
}

fn translation(rig: &Rig, addr: u64) -> AtsCompletion {
    rig.unit.translation_request(&Dma {
        kind: DmaKind::Translation { no_write: false },
        ..rig.dma(None, addr, Access::RW)
    })
}

#[test]
fn a_translation_request_for_a_page_that_is_not_there_leaves_no_event() {
    let rig = host(Config::default());
    let AtsCompletion::Success { granted, .. } = translation(&rig, 0x9000) else {
        panic!("it succeeds, without rights");
    };
    assert_eq!(granted.perms, Access::empty());
    let AtsCompletion::Success { granted, .. } = translation(&rig, AT) else {
        panic!("it succeeds");
    };
    assert_eq!((granted.pa.0, granted.perms), (PAGE, Access::RW));
    assert_eq!(rig.r64(EVENT_TAIL), 0);
}

#[test]
fn a_device_whose_entry_has_no_i_may_not_ask_for_translations() {
    let rig = host(Config::default());
    rig.put(DTE + 8, 5);
    assert_eq!(translation(&rig, AT), AtsCompletion::UnsupportedRequest);
    // INVALID_DEVICE_REQUEST, TR, type 1.
    assert_eq!(rig.entry(EVENTS, 0), [0x8300_0000_0000_0020, AT]);
    let translated = Dma {
        kind: DmaKind::Translated,
        ..rig.dma(None, PAGE, Access::READ)
    };
    assert!(rig.access(&translated, 1).is_err());
    assert_eq!(rig.entry(EVENTS, 1), [0x8200_0000_0000_0020, PAGE]);
}

#[test]
fn accessed_and_dirty_bits_are_set_where_the_entry_asks_for_them() {
    let rig = host(Config::default());
    // HAD 11b.
    rig.put(DTE, RW | TABLES | 4 << 9 | 3 << 7 | 3);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    assert_eq!(rig.get(TABLES + 0x3008), RW | PAGE | 0x21);
    assert!(rig.access(&rig.dma(None, AT, Access::WRITE), 1).is_ok());
    assert_eq!(rig.get(TABLES + 0x3008), RW | PAGE | 0x61);
}

#[test]
fn the_control_register_is_what_linux_prints_with_a_bad_entry() {
    let rig = host(Config::default());
    rig.put(DTE, 1 << 63 | 3);
    assert_eq!(rig.read_at(None, AT), None);
    assert_eq!(rig.r64(CONTROL) & 1, 1);
    assert_eq!(rig.entry(EVENTS, 0)[0] >> 60, 1);
}
