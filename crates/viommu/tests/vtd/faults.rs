use crate::rig::{AT, CONTEXT, DEVICE, PAGE, TABLES, legacy, scalable};
use iommu_walk::vtd::Cause;
use iommu_wire::vtd::event::FaultReason;
use iopf::{Access, Dma};
use viommu::vtd::Config;

const FRCD: u64 = 0x220;
const MESSAGE: (u64, u32) = (0xfee0_1000, 0x30);

#[test]
fn a_fault_is_recorded_and_announced_as_linux_reads_it() {
    let rig = legacy(Config::default());
    let dma = rig.dma(None, 0xdea_d123, Access::WRITE);
    assert_eq!(rig.access(&dma, 4).unwrap_err().at.0, 0xdea_d123);
    assert_eq!(rig.messages(), [MESSAGE]);
    // dmar_fault(): PPF, index 0; F, reason 5, a write; source 00:04.0; the page.
    assert_eq!(rig.r32(0x34), 2);
    assert_eq!(rig.r32(FRCD + 12), 0x8000_0005);
    assert_eq!(rig.r32(FRCD + 8), 0x0000_0020);
    assert_eq!(rig.r64(FRCD), 0xdea_d000);
    rig.w32(FRCD + 12, 1 << 31);
    assert_eq!(rig.r32(FRCD + 12), 0x0000_0005, "only F is cleared");
    assert_eq!(rig.r32(0x34), 0, "PPF goes with the last F");
    rig.w32(0x34, 1 | 2 | 1 << 7);
    assert_eq!(rig.unit.counters().recorded, 1);
}

#[test]
fn a_read_with_a_pasid_says_so() {
    let rig = scalable(Config::default());
    let dma = rig.dma(Some(3), 0x7000, Access::READ);
    assert!(rig.access(&dma, 4).is_err());
    // F, T1 (read), PASID 3, reason 0x71; PP and the source.
    assert_eq!(rig.r32(FRCD + 12), 0xc000_0371);
    assert_eq!(rig.r32(FRCD + 8), 0x8000_0020);
    let dma = rig.dma(Some(0x12345), 0x7000, Access::RW);
    rig.w32(FRCD + 12, 1 << 31);
    assert!(rig.access(&dma, 4).is_err());
    // PASID 0x12345 is beyond 2^13: reason 0x46; an atomic operation has T1 and T2.
    assert_eq!(rig.r32(FRCD + 12), 0xc123_4546);
    assert_eq!(rig.r32(FRCD + 8), 0x9000_0020);
}

#[test]
fn a_masked_event_waits_and_is_sent_when_unmasked() {
    let rig = legacy(Config::default());
    rig.w32(0x38, 1 << 31);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.messages(), []);
    assert_eq!(rig.r32(0x38), 3 << 30, "masked and pending");
    rig.w32(0x38, 0);
    assert_eq!(rig.messages(), [MESSAGE]);
    assert_eq!(rig.r32(0x38), 0);
    rig.w32(0x38, 1 << 31);
    rig.w32(0x38, 0);
    assert_eq!(rig.messages(), [], "it is sent once");
}

#[test]
fn a_pending_event_is_dropped_once_software_saw_to_the_fault() {
    let rig = legacy(Config::default());
    rig.w32(0x38, 1 << 31);
    assert_eq!(rig.read_at(None, 0x9000), None);
    rig.w32(FRCD + 12, 1 << 31);
    assert_eq!(rig.r32(0x38), 1 << 31);
    rig.w32(0x38, 0);
    assert_eq!(rig.messages(), []);
}

#[test]
fn a_fault_without_room_sets_overflow_and_is_counted() {
    let rig = legacy(Config::default());
    for page in 0x10..0x15u64 {
        assert_eq!(rig.read_at(None, page << 12), None);
    }
    assert_eq!(rig.messages(), [MESSAGE], "one event for all of them");
    assert_eq!(rig.r32(0x34), 3, "PPF and PFO");
    assert_eq!(rig.r64(FRCD), 0x1_0000, "the first one is kept");
    let counters = rig.unit.counters();
    assert_eq!(
        (counters.faults, counters.recorded, counters.lost),
        (5, 1, 4)
    );
    // The register is free again, but PFO still stands.
    rig.w32(FRCD + 12, 1 << 31);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r32(FRCD + 12) >> 31, 0);
    assert_eq!(rig.unit.counters().lost, 5);
    rig.w32(0x34, 1);
    assert_eq!(rig.r32(0x34), 0);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r32(0x34), 2);
    assert_eq!(rig.messages(), [MESSAGE]);
}

#[test]
fn registers_are_filled_in_a_ring_and_the_index_is_that_of_the_first() {
    let rig = legacy(Config {
        fault_records: 4,
        ..Config::default()
    });
    let fault = |page: u64| assert_eq!(rig.read_at(None, page << 12), None);
    let clear = |index: u64| rig.w32(FRCD + index * 16 + 12, 1 << 31);
    fault(0x10);
    fault(0x11);
    fault(0x12);
    assert_eq!(rig.r32(0x34), 2, "PPF, index 0");
    clear(0);
    clear(1);
    clear(2);
    assert_eq!(rig.r32(0x34) & 3, 0);
    fault(0x13);
    fault(0x14);
    assert_eq!(rig.r32(0x34), 3 << 8 | 2, "PPF, index 3");
    assert_eq!(rig.r64(FRCD + 48), 0x1_3000);
    assert_eq!(rig.r64(FRCD), 0x1_4000, "and round to 0");
    fault(0x15);
    fault(0x16);
    fault(0x17);
    assert_eq!(rig.r32(0x34) & 3, 3, "the fifth found register 3 in use");
    assert_eq!(rig.unit.counters().lost, 1);
    assert_eq!(rig.messages(), [MESSAGE; 2]);
}

#[test]
fn fault_processing_disable_keeps_qualified_faults_from_the_guest() {
    let rig = legacy(Config::default());
    let entry = CONTEXT + 0x20 * 16;
    rig.put(entry, TABLES | 2 | 1);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r32(0x34), 0);
    assert_eq!(rig.messages(), []);
    let counters = rig.unit.counters();
    assert_eq!((counters.faults, counters.suppressed), (1, 1));
    // The root entry is not the context's business.
    rig.put(0x1000, 0);
    rig.submit(&[[1 << 4 | 1, 0]]);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r32(FRCD + 12), 0xc000_0001);
}

#[test]
fn the_host_keeps_a_bounded_ring_and_exact_counts() {
    let rig = legacy(Config::default());
    for page in 0..300u64 {
        assert_eq!(rig.read_at(None, 0x10_0000 + (page << 12)), None);
    }
    let kept = rig.unit.take_diagnostics();
    assert_eq!(kept.len(), 256);
    assert_eq!(kept[0].dma.addr.0, 0x10_0000 + (44 << 12));
    assert!(!kept[0].recorded);
    assert_eq!(kept[0].failure.cause, Cause::LegacyReadDenied);
    let counters = rig.unit.counters();
    assert_eq!((counters.faults, counters.forgotten), (300, 44));
    assert_eq!(rig.unit.take_diagnostics(), []);
}

#[test]
fn with_translation_off_nothing_is_recorded() {
    let rig = legacy(Config::default());
    rig.w32(0x18, 1 << 26);
    let dma = Dma {
        kind: iopf::DmaKind::Translated,
        ..rig.dma(None, AT, Access::READ)
    };
    assert!(rig.access(&dma, 1).is_err());
    assert_eq!(rig.r32(0x34), 0);
    assert_eq!(rig.messages(), []);
}

#[test]
fn a_write_into_the_interrupt_range_is_a_message_and_a_read_is_a_fault() {
    let rig = legacy(Config::default());
    let write = rig.dma(None, 0xfee0_2000, Access::WRITE);
    assert_eq!(rig.access(&write, 4), Ok(vec![(0xfee0_2000, 4)]));
    let read = rig.dma(None, 0xfee0_2000, Access::READ);
    assert!(rig.access(&read, 4).is_err());
    assert_eq!(rig.r32(FRCD + 12), 0xc000_000e);
}

#[test]
fn an_access_that_runs_into_the_interrupt_range_within_one_page_is_split_there() {
    let rig = legacy(Config::default());
    // The fourth GiB is one page, which holds the range: 0x4000_0000, writable, readable.
    rig.put(TABLES + 0x1000 + 3 * 8, 0x4000_0083);
    let write = rig.dma(None, 0xfedf_f000, Access::WRITE);
    for _ in ["walked", "cached"] {
        assert_eq!(
            rig.access(&write, 0x1800),
            Ok(vec![(0x7edf_f000, 0x1000), (0xfee0_0000, 0x800)])
        );
    }
    let read = rig.dma(None, 0xfedf_f000, Access::READ);
    assert!(rig.access(&read, 0x1800).is_err());
}

#[test]
fn accessed_and_dirty_flags_are_set_in_guest_memory() {
    let rig = scalable(Config::default());
    rig.page_table(TABLES, PAGE, 7);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    for level in 0..3 {
        assert_eq!(rig.get(TABLES + level * 0x1000) & 0x60, 0x20, "accessed");
    }
    assert_eq!(rig.get(TABLES + 0x3008), PAGE | 0x27);
    // The cached page is clean, so a write walks again.
    let write = rig.dma(Some(3), AT, Access::WRITE);
    assert_eq!(rig.access(&write, 1), Ok(vec![(PAGE, 1)]));
    assert_eq!(rig.get(TABLES + 0x3008), PAGE | 0x67);
}

#[test]
fn entries_used_before_a_fault_are_marked_accessed() {
    let rig = scalable(Config::default());
    // The lowest table lies outside memory: a read finds that out first.
    rig.put(TABLES + 0x2000, crate::rig::SIZE | 7);
    assert_eq!(rig.read_at(Some(3), AT), None);
    assert_eq!(rig.r32(FRCD + 12), 0xc000_0370);
    assert_eq!(
        rig.get(TABLES + 0x2000),
        crate::rig::SIZE | 0x27,
        "used, so accessed"
    );
}

#[test]
fn the_walkers_conditions_and_the_records_reasons_agree() {
    for cause in Cause::ALL {
        let number = u8::try_from(cause.reason().0).unwrap();
        if number == 0 {
            continue;
        }
        let reason = FaultReason(number);
        assert_eq!(reason.qualified(), cause.qualified(), "{cause:?}");
        assert_eq!(reason.name(), cause.code(), "{cause:?}");
    }
    assert_eq!(DEVICE.to_string(), "00:04.0");
}

#[test]
fn translation_off_returns_the_index_to_the_first_register() {
    let rig = legacy(Config {
        fault_records: 4,
        ..Config::default()
    });
    assert_eq!(rig.read_at(None, 0x1_0000), None);
    rig.w32(FRCD + 12, 1 << 31);
    rig.w32(0x18, 1 << 26);
    rig.w32(0x18, 1 << 31 | 1 << 26);
    assert_eq!(rig.read_at(None, 0x1_1000), None);
    assert_eq!(rig.r32(0x34), 2, "PPF, index 0");
    assert_eq!(rig.r64(FRCD), 0x1_1000);
}

#[test]
fn a_record_has_no_field_that_the_unit_has_no_use_for() {
    let rig = legacy(Config {
        scalable: None,
        device_tlb: false,
        ..Config::default()
    });
    let dma = Dma {
        kind: iopf::DmaKind::Translated,
        ..rig.dma(Some(3), AT, Access::READ | Access::PRIV)
    };
    assert!(rig.access(&dma, 4).is_err());
    // F, T1 and the reason; the source. No AT, no PP, PV, PRIV.
    assert_eq!(rig.r32(FRCD + 12) & !0xff, 0xc000_0000);
    assert_eq!(rig.r32(FRCD + 8), 0x20);
}
