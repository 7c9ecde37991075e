use super::*;
use crate::capture::SceneMemory;
use crate::explain::{Explanation, Outcome, vtd::Scene};
use iopf::{Access, Dma, Gpa, Iova, Rid};

/// A root and a context entry for 00:05.0, legacy mode, and a second-stage table with one read-only
/// page at 0x1000. Words typed by hand from the specification's tables.
const TABLES: &str = r#"{"iopf_capture":1,"arch":"vtd","requests":[],
    "registers":{"RTADDR_REG":"0x1000"},"memory_limit":"0x10000",
    "memory":[{"addr":"0x1000","words":["0x2001"]},
              {"addr":"0x2280","words":["0x3001","0x1"]},
              {"addr":"0x3000","words":["0x4003"]},{"addr":"0x4000","words":["0x5003"]},
              {"addr":"0x5008","words":["0x8001"]}]}"#;

fn of(dma: Dma, page_request: bool) -> (Capture, vtd::Unit, Diagnostic<vtd::Failure>) {
    let scene = Capture::parse(TABLES.as_bytes()).unwrap();
    let unit = crate::explain::vtd::unit(&scene);
    let memory = SceneMemory::new(&scene);
    let failure = if page_request {
        vtd::page_request(&unit, &memory, dma.requester, dma.pasid, &mut ()).unwrap_err()
    } else {
        vtd::translate(&unit, &memory, &dma, &mut Updates::new(), &mut ()).unwrap_err()
    };
    let fault = Diagnostic {
        dma,
        failure,
        recorded: true,
        page_request,
        stalled: None,
    };
    (scene, unit, fault)
}

fn explained(capture: &Capture) -> Explanation {
    let text = capture.to_text();
    let read = Capture::parse(text.as_bytes()).unwrap();
    assert_eq!(read, *capture, "what is written is what is read");
    Scene::new(&read).next().unwrap()
}

fn dma(kind: DmaKind, addr: u64, access: Access) -> Dma {
    Dma {
        requester: Rid(0x0028),
        pasid: None,
        kind,
        addr: Iova(addr),
        access,
    }
}

#[test]
fn a_capture_of_a_fault_holds_what_the_walk_reads_and_explains_to_the_same_code() {
    // Root and context entry, two tables of a three-level walk, and the read-only leaf.
    let (scene, unit, fault) = of(dma(DmaKind::Untranslated, 0x1234, Access::WRITE), false);
    let capture = vtd_fault(&unit, SceneMemory::new(&scene), &fault, "a test").unwrap();
    let words: usize = capture
        .memory
        .iter()
        .map(|range| range.data.len() / 8)
        .sum();
    assert_eq!(
        words,
        2 + 2 + 3,
        "entries of 128 bits, then one word a level"
    );
    let Outcome::Fault(fault) = explained(&capture).outcome else {
        panic!("it faults")
    };
    assert_eq!(
        fault.code,
        Some(5),
        "LGN.2: write, and the page is read-only"
    );
    assert_eq!(fault.entry_addr, Some(Gpa(0x5008)));
}

#[test]
fn translation_translated_and_page_requests_stay_what_they_were() {
    for (kind, page_request, code) in [
        (DmaKind::Translation { no_write: true }, false, 0x0d),
        (DmaKind::Translated, false, 0x0d),
        (DmaKind::Untranslated, true, 0x32),
    ] {
        let (scene, unit, fault) = of(dma(kind, 0x1234, Access::READ), page_request);
        let capture = vtd_fault(&unit, SceneMemory::new(&scene), &fault, "").unwrap();
        let Outcome::Fault(fault) = explained(&capture).outcome else {
            panic!("it faults")
        };
        assert_eq!(fault.code, Some(code), "{kind:?}");
    }
}

#[test]
fn tables_that_changed_meanwhile_give_no_capture() {
    let (_, unit, fault) = of(dma(DmaKind::Untranslated, 0x1234, Access::WRITE), false);
    let mended = TABLES.replace("0x8001", "0x8003");
    let mended = Capture::parse(mended.as_bytes()).unwrap();
    assert!(vtd_fault(&unit, SceneMemory::new(&mended), &fault, "").is_none());
    let worse = TABLES.replace("0x2001", "0x2000");
    let worse = Capture::parse(worse.as_bytes()).unwrap();
    assert!(vtd_fault(&unit, SceneMemory::new(&worse), &fault, "").is_none());
}

/// AMD-Vi: a device table entry for 00:05.0 in domain 7, and host tables of three levels with one
/// read-only page at 0x1000. Words typed by hand.
const HOST_TABLES: &str = r#"{"iopf_capture":1,"arch":"amdvi","requests":[],
    "registers":{"DEV_TAB_BASE":"0x1000"},"memory_limit":"0x10000",
    "memory":[{"addr":"0x1500","words":["0x6000000000003603","0x7","0x0","0x0"]},
              {"addr":"0x3000","words":["0x6000000000004401"]},
              {"addr":"0x4000","words":["0x6000000000005201"]},
              {"addr":"0x5008","words":["0x2000000000008001"]}]}"#;

fn of_amdvi(dma: Dma, page_request: bool) -> (Capture, amdvi::Unit, Diagnostic<amdvi::Failure>) {
    let scene = Capture::parse(HOST_TABLES.as_bytes()).unwrap();
    let unit = crate::explain::amdvi::unit(&scene);
    let memory = SceneMemory::new(&scene);
    let failure = if page_request {
        amdvi::page_request(&unit, &memory, dma.requester, dma.pasid, &mut ()).unwrap_err()
    } else {
        amdvi::translate(&unit, &memory, &dma, &mut Updates::new(), &mut ()).unwrap_err()
    };
    let fault = Diagnostic {
        dma,
        failure,
        recorded: true,
        page_request,
        stalled: None,
    };
    (scene, unit, fault)
}

#[test]
fn a_capture_of_an_amd_vi_fault_holds_what_the_walk_reads_and_explains_to_the_same_event() {
    for (kind, page_request, code, words, entry) in [
        // The device table entry, then one word a level.
        (DmaKind::Untranslated, false, 2, 4 + 3, 0x5008),
        // Neither I nor PPR is set.
        (DmaKind::Translated, false, 8, 4, 0x1508),
        (DmaKind::Untranslated, true, 9, 4, 0x1500),
    ] {
        let (scene, unit, fault) = of_amdvi(dma(kind, 0x1234, Access::WRITE), page_request);
        let capture = amdvi_fault(&unit, SceneMemory::new(&scene), &fault, "a test").unwrap();
        let held: usize = capture
            .memory
            .iter()
            .map(|range| range.data.len() / 8)
            .sum();
        assert_eq!(held, words, "{kind:?}");
        assert_eq!(capture.registers.get("DEV_TAB_BASE"), Some(0x1000));
        assert_eq!(capture.registers.get("EXCL_BASE"), None);
        let read = Capture::parse(capture.to_text().as_bytes()).unwrap();
        assert_eq!(read, capture, "what is written is what is read");
        assert_eq!(crate::explain::amdvi::unit(&read), unit);
        let explained = crate::explain::amdvi::Scene::new(&read).next().unwrap();
        let Outcome::Fault(found) = explained.outcome else {
            panic!("it faults")
        };
        assert_eq!(
            (found.code, found.entry_addr),
            (Some(code), Some(Gpa(entry)))
        );
        assert!(found.record.is_some());
    }
}

#[test]
fn amd_vi_tables_that_changed_meanwhile_give_no_capture() {
    let (_, unit, fault) = of_amdvi(dma(DmaKind::Untranslated, 0x1234, Access::WRITE), false);
    for (from, to) in [
        ("0x2000000000008001", "0x6000000000008001"),
        ("0x6000000000005201", "0x0"),
    ] {
        assert!(HOST_TABLES.contains(from));
        let changed = Capture::parse(HOST_TABLES.replace(from, to).as_bytes()).unwrap();
        assert!(amdvi_fault(&unit, SceneMemory::new(&changed), &fault, "").is_none());
    }
}

#[test]
fn a_capture_holds_the_exclusion_range_and_the_segments_of_the_device_table() {
    let (scene, unit, fault) = of_amdvi(dma(DmaKind::Untranslated, 0x1234, Access::WRITE), false);
    let unit = unit.with_exclusion(0x9003, 0x9000).with_segment(7, 0xa000);
    let capture = amdvi_fault(&unit, SceneMemory::new(&scene), &fault, "").unwrap();
    assert_eq!(capture.registers.get("EXCL_BASE"), Some(0x9003));
    assert_eq!(capture.registers.get("DEV_TAB_SEG7_BASE"), Some(0xa000));
    assert_eq!(capture.registers.get("DEV_TAB_SEG1_BASE"), None);
    assert_eq!(crate::explain::amdvi::unit(&capture), unit);
}

/// SMMUv3: a stream table entry for stream 0x28, a context descriptor, and tables of three levels with one
/// read-only page at 0x1000. Words typed by hand.
const STREAM_TABLES: &str = r#"{"iopf_capture":1,"arch":"smmuv3","requests":[],
    "registers":{"SMMU_STRTAB_BASE":"0x4000","SMMU_STRTAB_BASE_CFG":"0x6"},"memory_limit":"0x10000",
    "memory":[{"addr":"0x4a00","words":["0x800b","0x100000000000"]},
              {"addr":"0x8000","words":["0x7e205c0003519","0x9000","0x0","0xff"]},
              {"addr":"0x9000","words":["0xa003"]},{"addr":"0xa000","words":["0xb003"]},
              {"addr":"0xb008","words":["0x60000000008fc3"]}]}"#;

fn of_smmuv3(dma: Dma, page_request: bool) -> (Capture, smmuv3::Unit, Diagnostic<smmuv3::Failure>) {
    let scene = Capture::parse(STREAM_TABLES.as_bytes()).unwrap();
    let mut unit = crate::explain::smmuv3::unit(&scene);
    let memory = SceneMemory::new(&scene);
    let failure = if page_request {
        unit = unit.with_control(1, 0);
        smmuv3::page_request(&unit).unwrap_err()
    } else {
        smmuv3::translate(&unit, &memory, &dma, &mut Updates::new(), &mut ()).unwrap_err()
    };
    let fault = Diagnostic {
        dma,
        failure,
        recorded: true,
        page_request,
        stalled: None,
    };
    (scene, unit, fault)
}

#[test]
fn a_capture_of_an_smmuv3_fault_holds_what_the_walk_reads_and_explains_to_the_same_event() {
    for (kind, page_request, code, words, entry) in [
        // A stream table entry and a context descriptor of 8 words, then one a level.
        (
            DmaKind::Untranslated,
            false,
            Some(0x13),
            8 + 8 + 3,
            Some(0xb008),
        ),
        // EATS is 0.
        (DmaKind::Translated, false, Some(0x07), 8, Some(0x4a08)),
        (DmaKind::Untranslated, true, None, 0, None),
    ] {
        let (scene, unit, fault) = of_smmuv3(dma(kind, 0x1234, Access::WRITE), page_request);
        let capture = smmuv3_fault(&unit, SceneMemory::new(&scene), &fault, "a test").unwrap();
        let held: usize = capture
            .memory
            .iter()
            .map(|range| range.data.len() / 8)
            .sum();
        assert_eq!(held, words, "{kind:?}");
        assert_eq!(capture.requests[0].device, Device::Number(0x28));
        let read = Capture::parse(capture.to_text().as_bytes()).unwrap();
        assert_eq!(read, capture, "what is written is what is read");
        assert_eq!(crate::explain::smmuv3::unit(&read), unit);
        let explained = crate::explain::smmuv3::Scene::new(&read).next().unwrap();
        assert_eq!(crate::explain::check(&explained, &read.expect[0]), []);
        let Outcome::Fault(found) = explained.outcome else {
            panic!("it faults")
        };
        assert_eq!((found.code, found.entry_addr), (code, entry.map(Gpa)));
        assert_eq!(found.record.is_some(), code.is_some());
    }
}

#[test]
fn smmuv3_tables_that_changed_meanwhile_give_no_capture() {
    let (_, unit, fault) = of_smmuv3(dma(DmaKind::Untranslated, 0x1234, Access::WRITE), false);
    for (from, to) in [("0x60000000008fc3", "0x60000000008f43"), ("0xa003", "0x0")] {
        assert!(STREAM_TABLES.contains(from));
        let changed = Capture::parse(STREAM_TABLES.replace(from, to).as_bytes()).unwrap();
        assert!(smmuv3_fault(&unit, SceneMemory::new(&changed), &fault, "").is_none());
    }
}
