//! Events: what each fault leaves in the queue, bit by bit, and what becomes of the queue.

use crate::rig::{
    A, ALL_ON, AT, CFGI_ALL, CONTEXTS, CR0, CR2, DEVICE, EVENT_MESSAGE, EVENTQ_BASE, EVENTQ_CONS,
    EVENTQ_PROD, EVENTQEN, EVENTS, GERROR, GERROR_MESSAGE, GERRORN, OTHER_PAGE, PAGE, R, RW, RW2,
    Raised, Rig, SMMUEN, STAGE2, STE, STREAMS, STRTAB_BASE, STRTAB_BASE_CFG, TABLES, TLBI_NSNH_ALL,
    first, nested, second,
};
use iopf::{Access, Dma, DmaKind, Iova, Rid};
use viommu::smmuv3::{Config, Wire};
use viommu_api::{Ats, AtsCompletion, Blocked, Ending};

const READ: Access = Access::READ;
const LEAF: u64 = TABLES + 0x3008;
const LEAF2: u64 = STAGE2 + 0x3008;
const SID: u64 = 0x20 << 32;
const NOTHING: u64 = 0x1000_0000;

// The second word: RnW, S2, CLASS.
const RNW: u64 = 1 << 35;
const IND: u64 = 1 << 34;
const PNU: u64 = 1 << 33;
const S2: u64 = 1 << 39;
const TT: u64 = 1 << 40;
const IN: u64 = 2 << 40;

/// The one event of a request that is aborted.
#[track_caller]
fn event(rig: &Rig, pasid: Option<u32>, addr: u64, access: Access) -> [u64; 4] {
    rig.submit(&[CFGI_ALL, TLBI_NSNH_ALL]);
    let dma = rig.dma(pasid, addr, access);
    assert_eq!(rig.access(&dma, 1), Err(Blocked::aborted(Iova(addr))));
    let events = rig.take_events();
    let [event] = events[..] else {
        panic!("{events:x?}");
    };
    event
}

#[test]
fn streams_that_are_not_in_the_table() {
    let rig = first(Config::default());
    let stray = Dma {
        requester: Rid(0x40),
        ..rig.dma(Some(3), AT, READ)
    };
    assert!(rig.access(&stray, 1).is_err());
    // C_BAD_STREAMID, with the substream.
    assert_eq!(
        rig.take_events(),
        [[0x02 | 1 << 11 | 3 << 12 | 0x40 << 32, 0, 0, 0]]
    );
    // Without RECINVSID nobody is told.
    rig.w32(CR0, ALL_ON & !SMMUEN);
    rig.w32(CR2, 0);
    rig.w32(CR0, ALL_ON);
    assert!(rig.access(&stray, 1).is_err());
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0]);
    assert_eq!(rig.unit.counters().suppressed, 1);
}

#[test]
fn stream_table_entries() {
    let rig = first(Config::default());
    rig.put(STE, 0);
    assert_eq!(event(&rig, None, AT, READ), [0x04 | SID, 0, 0, 0]);
    // Config 0: the stream aborts, and nobody is told.
    rig.put(STE, 1);
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(None, AT), None);
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0]);
    // Config 4: it bypasses.
    rig.put(STE, 4 << 1 | 1);
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(None, AT), Some(AT));
    // F_ADDR_SIZE beyond 48 bits.
    assert_eq!(
        event(&rig, None, 1 << 48, READ),
        [0x11 | SID, RNW | IN, 1 << 48, 0]
    );
    // F_STE_FETCH.
    rig.w32(CR0, ALL_ON & !SMMUEN);
    rig.w64(STRTAB_BASE, NOTHING);
    rig.w32(CR0, ALL_ON);
    assert_eq!(
        event(&rig, None, AT, READ),
        [0x03 | SID, 0, 0, NOTHING + 0x20 * 64]
    );
    // A level 1 descriptor.
    rig.w32(CR0, ALL_ON & !SMMUEN);
    rig.w32(STRTAB_BASE_CFG, 1 << 16 | 6 << 6 | 8);
    rig.w32(CR0, ALL_ON);
    assert_eq!(event(&rig, None, AT, READ), [0x03 | SID, 0, 0, NOTHING]);
    rig.w32(CR0, ALL_ON & !SMMUEN);
    rig.w64(STRTAB_BASE, STREAMS);
    rig.put(STREAMS, 0);
    rig.w32(CR0, ALL_ON);
    assert_eq!(event(&rig, None, AT, READ)[0], 0x02 | SID);
}

#[test]
fn substreams_and_context_descriptors() {
    let rig = first(Config::default());
    // Beyond S1CDMax: C_BAD_SUBSTREAMID, without SSV.
    assert_eq!(
        event(&rig, Some(8), AT, READ),
        [0x08 | 8 << 12 | SID, 0, 0, 0]
    );
    // S1DSS 2: substream 0 is that of requests without one. F_STREAM_DISABLED.
    assert_eq!(event(&rig, Some(0), AT, READ), [0x06 | SID, 0, 0, 0]);
    // S1DSS 0: none without.
    rig.put(STE + 8, 1 << 44);
    assert_eq!(event(&rig, None, AT, READ), [0x06 | SID, 0, 0, 0]);
    // S1DSS 1: those bypass stage 1.
    rig.put(STE + 8, 1 << 44 | 1);
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(None, AT), Some(AT));
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    // C_BAD_CD.
    rig.put(CONTEXTS + 3 * 64, 0);
    assert_eq!(
        event(&rig, Some(3), AT, READ),
        [0x0a | 1 << 11 | 3 << 12 | SID, 0, 0, 0]
    );
    // F_CD_FETCH.
    rig.put(STE, 3 << 59 | NOTHING | 5 << 1 | 1);
    assert_eq!(
        event(&rig, Some(3), AT, READ),
        [0x09 | 1 << 11 | 3 << 12 | SID, 0, 0, NOTHING + 3 * 64]
    );
    // Two levels with leaves of 4 KiB: the first entry is not valid.
    rig.put(STE, 10 << 59 | 0x6_0000 | 1 << 4 | 5 << 1 | 1);
    assert_eq!(
        event(&rig, Some(3), AT, READ),
        [0x08 | 3 << 12 | SID, 0, 0, 0]
    );
    rig.context(0x7_0000 + 3 * 64, TABLES, 6, R | A);
    rig.put(0x6_0000, 0x7_0000 | 1);
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
}

#[test]
fn translation_faults_of_stage_1() {
    let rig = first(Config::default());
    let at = AT | 0x123;
    // F_TRANSLATION: below, of the upper half, which is not translated, and in neither.
    rig.put(LEAF, 0);
    assert_eq!(event(&rig, None, at, READ), [0x10 | SID, RNW | IN, at, 0]);
    for addr in [0xffff_ffff_ffff_f000, 1 << 48, 0x00ff_0000_0000_0000] {
        assert_eq!(
            event(&rig, None, addr, Access::WRITE),
            [0x10 | SID, IN, addr, 0]
        );
    }
    // F_ADDR_SIZE: of the page, and of a table; bit 12 of what must be clear is beyond 48 bits of OAS in a
    // unit of 44.
    let narrow = first(Config {
        output_bits: 44,
        ..Config::default()
    });
    narrow.put(LEAF, 1 << 44 | PAGE | RW);
    assert_eq!(
        event(&narrow, None, at, READ),
        [0x11 | SID, RNW | IN, at, 0]
    );
    // F_ACCESS.
    rig.put(LEAF, PAGE | RW & !(1 << 10));
    assert_eq!(event(&rig, None, at, READ), [0x12 | SID, RNW | IN, at, 0]);
    // F_PERMISSION: read-only; privileged; not to execute from.
    rig.put(LEAF, PAGE | RW | 1 << 7);
    assert_eq!(
        event(&rig, None, at, Access::WRITE),
        [0x13 | SID, IN, at, 0]
    );
    // An atomic operation is a write.
    assert_eq!(event(&rig, None, at, Access::RW), [0x13 | SID, IN, at, 0]);
    rig.put(LEAF, PAGE | RW & !(1 << 6));
    assert_eq!(event(&rig, None, at, READ), [0x13 | SID, RNW | IN, at, 0]);
    rig.put(LEAF, PAGE | RW | 1 << 53 | 1 << 54);
    let ssid = 1 << 11 | 3 << 12 | SID;
    assert_eq!(
        event(&rig, Some(3), at, Access::EXEC),
        [0x13 | ssid, RNW | IND | IN, at, 0]
    );
    assert_eq!(
        event(&rig, Some(3), at, Access::EXEC | Access::PRIV),
        [0x13 | ssid, RNW | IND | PNU | IN, at, 0]
    );
    // Without a substream a read is one of data, and not privileged.
    rig.submit(&[CFGI_ALL, TLBI_NSNH_ALL]);
    let dma = rig.dma(None, at, Access::EXEC | Access::PRIV);
    assert_eq!(rig.access(&dma, 1), Ok(vec![(PAGE | 0x123, 1)]));
    // F_WALK_EABT.
    rig.put(TABLES + 0x2000, NOTHING | 3);
    assert_eq!(
        event(&rig, None, at, READ),
        [0x0b | SID, RNW | TT, at, NOTHING + 8]
    );
}

#[test]
fn translation_faults_of_stage_2() {
    let rig = second(Config::default());
    let at = AT | 0x123;
    for (leaf, access, number, bits) in [
        (0, READ, 0x10, RNW),
        (PAGE | RW2 & !(1 << 10), READ, 0x12, RNW),
        (PAGE | RW2 & !(1 << 7), Access::WRITE, 0x13, 0),
        (PAGE | RW2 & !(1 << 6), READ, 0x13, RNW),
    ] {
        rig.put(LEAF2, leaf);
        assert_eq!(
            event(&rig, None, at, access),
            [number | SID, bits | S2 | IN, at, AT],
            "{leaf:#x}"
        );
    }
    rig.put(STAGE2 + 0x2000, NOTHING | 3);
    assert_eq!(
        event(&rig, None, at, READ),
        [0x0b | SID, RNW | S2 | IN, at, NOTHING + 8]
    );
}

#[test]
fn translation_faults_of_stage_2_under_stage_1() {
    let rig = nested(Config::default());
    let at = AT | 0x123;
    assert_eq!(rig.read_at(None, at), Some(PAGE | 0x123));
    // Of the address itself: IPA is what stage 1 made of it.
    rig.put(STAGE2 + 0x4000, 0);
    assert_eq!(
        event(&rig, None, at, READ),
        [0x10 | SID, RNW | S2 | IN, at, OTHER_PAGE]
    );
    rig.put(STAGE2 + 0x4000, PAGE | RW2);
    // Of a table of stage 1: CLASS TT. Of F_PERMISSION, TTRnW says that it was read.
    let table = STAGE2 + 0x3000 + (TABLES + 0x3000) / 0x1000 * 8;
    rig.put(table, 0);
    assert_eq!(
        event(&rig, None, at, Access::WRITE),
        [0x10 | SID, S2 | TT, at, TABLES + 0x3000]
    );
    rig.put(table, (TABLES + 0x3000) | RW2 & !(1 << 6));
    assert_eq!(
        event(&rig, None, at, Access::WRITE),
        [0x13 | SID, S2 | TT | 1 << 44, at, TABLES + 0x3000]
    );
    rig.put(table, (TABLES + 0x3000) | RW2);
    // Of a context descriptor: CLASS CD.
    rig.put(STAGE2 + 0x3000 + CONTEXTS / 0x1000 * 8, 0);
    assert_eq!(
        event(&rig, None, at, READ),
        [0x10 | SID, RNW | S2, at, CONTEXTS]
    );
}

#[test]
fn access_flags_and_dirty_state_are_set_where_hardware_may() {
    let rig = first(Config::default());
    // HA and HD; the page is read-only with DBM, and has no access flag.
    rig.context(CONTEXTS, TABLES, 5, R | A | 3 << 42);
    let page = PAGE | RW & !(1 << 10) | 1 << 7 | 1 << 51;
    rig.put(LEAF, page);
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    assert_eq!(rig.get(LEAF), page | 1 << 10);
    let write = rig.dma(None, AT, Access::WRITE);
    assert_eq!(rig.access(&write, 1), Ok(vec![(PAGE, 1)]));
    assert_eq!(rig.get(LEAF), page & !(1 << 7) | 1 << 10);
    // A context descriptor is read through stage 2, which sets access flags, too (S2HA).
    let rig = nested(Config::default());
    rig.second_words(STAGE2, 7, 1 << 56);
    let entry = STAGE2 + 0x3000 + CONTEXTS / 0x1000 * 8;
    rig.put(entry, rig.get(entry) & !(1 << 10));
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    assert_eq!(rig.get(entry) & 1 << 10, 1 << 10);
}

#[test]
fn a_context_decides_what_is_told_and_how_a_request_ends() {
    let rig = first(Config::default());
    for (bits, told, end) in [
        (R | A, true, Ending::Aborted),
        (A, false, Ending::Aborted),
        // It reads zero, and writes are ignored.
        (R, true, Ending::Ignored),
        (0, false, Ending::Ignored),
    ] {
        rig.context(CONTEXTS, TABLES, 5, bits);
        rig.submit(&[CFGI_ALL]);
        let dma = rig.dma(None, 0x9000, READ);
        let at = Iova(0x9000);
        assert_eq!(rig.access(&dma, 1), Err(Blocked { at, end }));
        assert_eq!(!rig.take_events().is_empty(), told, "{bits:#x}");
    }
    assert_eq!(rig.unit.counters().suppressed, 2);
    // A fault of the configuration is told anyway.
    rig.put(CONTEXTS, 0);
    assert_eq!(event(&rig, None, AT, READ)[0], 0x0a | SID);
    // S2R.
    let rig = second(Config::default());
    rig.put(STE + 16, rig.get(STE + 16) & !(1 << 58));
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0]);
}

#[test]
fn device_tlbs_are_told_of_their_faults_and_software_is_not() {
    let rig = first(Config::default());
    let ask = |rig: &Rig, addr: u64| {
        rig.unit.translation_request(&Dma {
            kind: DmaKind::Translation { no_write: false },
            ..rig.dma(None, addr, Access::RW)
        })
    };
    let AtsCompletion::Success { granted, .. } = ask(&rig, AT) else {
        panic!("it is mapped");
    };
    assert_eq!(
        (granted.pa.0, granted.page_shift, granted.perms),
        (PAGE, 12, Access::RW)
    );
    // A page that is not there is one without rights.
    let AtsCompletion::Success { granted, .. } = ask(&rig, 0x9000) else {
        panic!("it is no error");
    };
    assert_eq!(granted.perms, Access::empty());
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0]);
    // Translated requests pass, beyond physical addresses they do not.
    let translated = |addr| Dma {
        kind: DmaKind::Translated,
        ..rig.dma(None, addr, READ)
    };
    assert_eq!(rig.access(&translated(PAGE), 4), Ok(vec![(PAGE, 4)]));
    assert!(rig.access(&translated(1 << 48), 4).is_err());
    assert_eq!(rig.take_events(), [] as [[u64; 4]; 0]);
    // EATS 0: F_BAD_ATS_TREQ and F_TRANSL_FORBIDDEN.
    rig.put(STE + 8, 1 << 44 | 2);
    rig.submit(&[CFGI_ALL]);
    assert_eq!(ask(&rig, AT), AtsCompletion::UnsupportedRequest);
    assert!(rig.access(&translated(PAGE), 4).is_err());
    let events = rig.take_events();
    assert_eq!(events.len(), 2);
    assert_eq!((events[0][0], events[0][2]), (0x05 | SID, AT));
    assert_eq!(events[1], [0x07 | SID, RNW, PAGE, 0]);
    // Without ATSCHK, what is translated is believed.
    rig.w32(CR0, ALL_ON & !(1 << 4));
    rig.submit(&[CFGI_ALL]);
    assert_eq!(rig.access(&translated(PAGE), 4), Ok(vec![(PAGE, 4)]));
    // With translation off, neither is answered.
    rig.w32(CR0, ALL_ON & !SMMUEN);
    assert_eq!(ask(&rig, AT), AtsCompletion::UnsupportedRequest);
    assert!(rig.access(&translated(PAGE), 4).is_err());
    // A unit without ATS does not know them.
    let rig = first(Config {
        ats: None,
        ..Config::default()
    });
    assert_eq!(ask(&rig, AT), AtsCompletion::UnsupportedRequest);
}

#[test]
fn a_full_queue_loses_events_and_says_so_once() {
    let rig = first(Config::default());
    let fault = || {
        assert_eq!(rig.read_at(None, 0x9000), None);
    };
    for _ in 0..16 {
        fault();
    }
    assert_eq!(rig.raised(), [EVENT_MESSAGE], "it was empty");
    assert_eq!(rig.r32(EVENTQ_PROD), 0x10);
    fault();
    fault();
    assert_eq!(rig.r32(EVENTQ_PROD), 1 << 31 | 0x10);
    assert_eq!(rig.unit.counters().lost, 2);
    // There is room again: events are recorded, whether the overflow is acknowledged or not.
    rig.w32(EVENTQ_CONS, 2);
    fault();
    assert_eq!(rig.r32(EVENTQ_PROD), 1 << 31 | 0x11);
    assert_eq!(rig.raised(), []);
    rig.take_events();
    assert_eq!(rig.r32(EVENTQ_CONS), 1 << 31 | 0x11);
    for _ in 0..17 {
        fault();
    }
    assert_eq!(rig.r32(EVENTQ_PROD), 1, "the next overflow turns it back");
    assert_eq!(rig.raised(), [EVENT_MESSAGE]);
}

#[test]
fn a_queue_without_memory_is_a_global_error() {
    let rig = first(Config::default());
    rig.w32(CR0, ALL_ON & !EVENTQEN);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!((rig.r32(EVENTQ_PROD), rig.r32(GERROR)), (0, 0), "it is off");
    rig.w64(EVENTQ_BASE, NOTHING | 4);
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!((rig.r32(GERROR), rig.r32(EVENTQ_PROD)), (1 << 2, 0));
    assert_eq!(rig.raised(), [GERROR_MESSAGE]);
    assert_eq!(rig.unit.counters().lost, 3);
    // Until it is acknowledged nothing is written.
    rig.w32(CR0, ALL_ON & !EVENTQEN);
    rig.w64(EVENTQ_BASE, EVENTS | 4);
    rig.w32(CR0, ALL_ON);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r32(EVENTQ_PROD), 0);
    rig.w32(GERRORN, 1 << 2);
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.r32(EVENTQ_PROD), 1);
}

#[test]
fn interrupts_are_wires_where_there_are_no_messages() {
    let rig = first(Config {
        messages: false,
        ..Config::default()
    });
    assert_eq!(rig.read_at(None, 0x9000), None);
    assert_eq!(rig.raised(), [Raised::Wire(Wire::EVENTQ.0)]);
    rig.queue(&[[0xff, 0]]);
    assert_eq!(rig.raised(), [Raised::Wire(Wire::GERROR.0)]);
    // Switched off, they are lost: software looks before it waits.
    rig.w32(crate::rig::IRQ_CTRL, 0);
    rig.take_events();
    assert_eq!(rig.read_at(None, 0x9000), None);
    rig.w32(crate::rig::IRQ_CTRL, 7);
    assert_eq!(rig.raised(), []);
}

#[test]
fn each_fault_has_its_diagnostic() {
    let rig = first(Config::default());
    assert_eq!(rig.read_at(None, 0x9000), None);
    let diagnostics = rig.unit.take_diagnostics();
    assert_eq!(diagnostics.len(), 1);
    assert_eq!(diagnostics[0].dma.requester, DEVICE);
    assert_eq!(diagnostics[0].failure.cause.code(), "F_TRANSLATION");
    assert!(diagnostics[0].recorded);
    assert_eq!(diagnostics[0].stalled, None);
}
