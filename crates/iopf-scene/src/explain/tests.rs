use super::*;
use crate::capture::Capture;
use iommu_walk::Verdict;

/// A legacy second stage that maps 0x7f001000 for reading; `requests` is JSON.
fn legacy(requests: &str, rest: &str) -> Capture {
    let text = format!(
        r#"{{"iopf_capture":1,"arch":"vtd","registers":{{"RTADDR_REG":"0x10000"}},
        "memory_limit":"0x1000000","memory":[
        {{"addr":"0x10000","words":["0x11001","0x0"]}},
        {{"addr":"0x11280","words":["0x12001","0x502"]}},
        {{"addr":"0x12000","words":["0x13003"]}},{{"addr":"0x13008","words":["0x14003"]}},
        {{"addr":"0x14fc0","words":["0x15003"]}},{{"addr":"0x15008","words":["0x200001"]}}],
        "requests":[{requests}]{rest}}}"#
    );
    Capture::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

fn only(capture: &Capture) -> Explanation {
    let mut all = explain(capture).unwrap();
    let one = all.next().unwrap();
    assert_eq!(all.next(), None);
    one
}

const WRITE: &str = r#"{"device":"0000:00:05.0","addr":"0x7f001000","access":"w"}"#;

#[test]
fn the_json_of_a_fault_has_the_keys_of_the_format_in_their_order() {
    let one = only(&legacy(WRITE, ""));
    let text = serde_json::to_string(&one).unwrap();
    assert!(
        text.starts_with(
            r#"{"request":0,"outcome":"fault","code":5,"name":"LGN.2","recoverable":false,"stage":2,"level":1,"entry_addr":"0x15008","entry":"0x200001","record":"0010007f000000002800000005000080","response":null,"text":"0000:00:05.0 tried to write 0x7f001000: "#
        ),
        "{text}"
    );
    assert!(
        text.ends_with(
            r#"{"table":"second stage","level":1,"index":1,"addr":"0x15008","raw":"0x200001","verdict":"refused"}],"writes":[]}"#
        ),
        "{text}"
    );
}

#[test]
fn the_json_of_a_translation_has_the_keys_of_the_format_in_their_order() {
    let read = r#"{"device":"0000:00:05.0","addr":"0x7f001abc","access":"r"}"#;
    let text = serde_json::to_string(&only(&legacy(read, ""))).unwrap();
    assert!(
        text.starts_with(
            r#"{"request":0,"outcome":"translated","pa":"0x200abc","perms":"r","page":"0x1000","response":null,"trail":[{"table":"root","index":0,"addr":"0x10000","raw":"0x11001","verdict":"ok"},"#
        ),
        "{text}"
    );
}

#[test]
fn the_entry_that_refuses_is_marked_so() {
    let one = only(&legacy(WRITE, ""));
    let (step, word) = one.blamed().unwrap();
    assert_eq!((step.addr, word), (iopf::Gpa(0x15008), 0));
    assert_eq!(step.verdict, Verdict::Refused);
}

#[test]
fn every_differing_key_is_told_and_absent_keys_are_not_compared() {
    let capture = legacy(
        WRITE,
        r#","expect":[{"outcome":"fault","code":[6,7],"level":2,"stage":2,"record":"ff10007f000000002800000006000080","record_mask":"00"}]"#,
    );
    let differences = check(&only(&capture), &capture.expect[0]);
    let told: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "code: expected [6,7], found 5",
            "level: expected 2, found 1",
            "record: expected \"ff10007f000000002800000006000080\" under mask 00, found \
             \"0010007f000000002800000005000080\"",
        ]
    );
}

#[test]
fn what_is_as_expected_has_no_differences() {
    for expect in [
        r#"{}"#,
        r#"{"code":5}"#,
        r#"{"code":[1,5]}"#,
        r#"{"record":"aa10007f00000000280000ff05000080","record_mask":"00ffffffffffffffffffff00ffffffff"}"#,
        r#"{"entry_addr":"0x0000000000015008","response":null,"writes":[],"recoverable":false}"#,
        r#"{"trail":[{"table":"root"},{},{"level":4},{},{"raw":"0x15003"},{"verdict":"refused"}]}"#,
    ] {
        let capture = legacy(WRITE, &format!(r#","expect":[{expect}]"#));
        assert_eq!(check(&only(&capture), &capture.expect[0]), [], "{expect}");
    }
    for expect in [
        r#"{"outcome":"translated"}"#,
        r#"{"code":null}"#,
        r#"{"record":null}"#,
        r#"{"pa":"0x0"}"#,
        r#"{"trail":[]}"#,
        r#"{"writes":[{}]}"#,
        r#"{"perms":"r"}"#,
    ] {
        let capture = legacy(WRITE, &format!(r#","expect":[{expect}]"#));
        assert_eq!(
            check(&only(&capture), &capture.expect[0]).len(),
            1,
            "{expect}"
        );
    }
}

#[test]
fn captures_of_other_architectures_say_that_they_are_not_built_in_yet() {
    let text = r#"{"iopf_capture":1,"arch":"riscv","registers":{"ddtp":"0x2"},"requests":[{"device":7,"addr":"0x0"}]}"#;
    let capture = Capture::parse(text.as_bytes()).unwrap();
    let error = explain(&capture).err().unwrap().to_string();
    assert_eq!(
        error,
        "captures of riscv are read but their walks are not built in yet; built in: vtd, amdvi, smmuv3"
    );
}

#[test]
fn a_capture_without_registers_is_a_unit_with_everything_and_translation_on() {
    let text = r#"{"iopf_capture":1,"arch":"vtd","requests":[]}"#;
    let unit = vtd::unit(&Capture::parse(text.as_bytes()).unwrap());
    assert!(unit.enabled());
    assert_eq!(unit.haw(), 52);
    assert_eq!(unit.rtaddr(), 0);
    assert_eq!(unit.mgaw(), 57);
    // Typed from the bit numbers of the specification's register tables.
    assert_eq!(unit.cap(), 0x11d2_008c_0078_0e06);
    assert_eq!(unit.ecap(), 0x0333_e99e_e600_00c7);
}

#[test]
fn an_amd_vi_capture_without_registers_is_a_unit_with_everything_and_translation_on() {
    let text = r#"{"iopf_capture":1,"arch":"amdvi","requests":[]}"#;
    let unit = amdvi::unit(&Capture::parse(text.as_bytes()).unwrap());
    assert!(unit.enabled() && unit.guest_enabled() && unit.page_requests_enabled());
    // Typed from the bit numbers of the specification's register tables.
    assert_eq!(unit.efr(), 0x0017_00f3_0000_981a);
    assert_eq!(unit.efr2(), 0x8);
    assert_eq!(unit.control(), 0x1_8001);
    assert_eq!((unit.device_table(0), unit.exclusion()), (0, [0, 0]));
}

#[test]
fn an_amd_vi_record_is_laid_out_as_linux_takes_it_apart() {
    // A device table entry in bytes 0x1500: valid, SA and SE clear, domain 0x1234, IR and IW clear.
    let text = r#"{"iopf_capture":1,"arch":"amdvi","registers":{"DEV_TAB_BASE":"0x1000"},
        "memory":[{"addr":"0x1500","words":["0x3","0x1234","0x0","0x0"]}],
        "requests":[{"device":"0000:00:05.0","addr":"0x123456789abc","access":"w"}]}"#;
    let capture = Capture::parse(text.as_bytes()).unwrap();
    let one = only(&capture);
    let Outcome::Fault(fault) = one.outcome else {
        panic!("it faults")
    };
    let record = fault.record.unwrap();
    let dword = |nth: usize| u32::from_le_bytes(record[4 * nth..][..4].try_into().unwrap());
    // drivers/iommu/amd/amd_iommu_types.h: EVENT_TYPE_SHIFT 28, EVENT_DEVID_MASK 0xffff,
    // EVENT_DOMID_MASK_LO 0xffff, EVENT_FLAGS_SHIFT 16 and mask 0xfff.
    assert_eq!(dword(1) >> 28 & 0xf, 2);
    assert_eq!(dword(0) & 0xffff, 0x28);
    assert_eq!(dword(1) & 0xffff, 0x1234);
    assert_eq!(dword(1) >> 16 & 0xfff, 0x070, "PR RW PE");
    assert_eq!((dword(3), dword(2)), (0x1234, 0x5678_9abc));
}

#[test]
fn an_smmuv3_capture_without_registers_is_a_unit_with_everything_and_translation_on() {
    let text = r#"{"iopf_capture":1,"arch":"smmuv3","requests":[]}"#;
    let unit = smmuv3::unit(&Capture::parse(text.as_bytes()).unwrap());
    assert!(unit.enabled() && unit.page_requests_enabled() && unit.checks_translated());
    assert!(!unit.records_stream_ids() && !unit.aborts());
    assert_eq!((unit.substream_bits(), unit.output_bits()), (20, 48));
    // Typed from the bit numbers of the specification's register tables.
    let features = unit.features();
    assert_eq!(features.idr0, 0x080d_3c9b);
    assert_eq!(features.idr1, 0x0400_0520);
    assert_eq!(features.idr3, 0x0002_2214);
    assert_eq!(features.idr5, 0x0000_0075);
    assert_eq!(unit.control(), (0x1f, 0));
    assert_eq!(unit.stream_table(), (0, 0));
}

#[test]
fn an_smmuv3_record_is_laid_out_as_linux_takes_it_apart() {
    // A stalled privileged write of stream 0x128 in substream 5, of which stage 1 maps nothing.
    let text = r#"{"iopf_capture":1,"arch":"smmuv3","memory_limit":"0x1000000",
        "registers":{"SMMU_STRTAB_BASE":"0x40000","SMMU_STRTAB_BASE_CFG":"0xa"},
        "memory":[{"addr":"0x44a00","words":["0x280000000002000b","0x100000000002"]},
            {"addr":"0x20140","words":["0x9f205c0003519","0x30000"]}],
        "requests":[{"device":296,"pasid":5,"addr":"0x7f001234","access":"wp"}]}"#;
    let one = only(&Capture::parse(text.as_bytes()).unwrap());
    let Outcome::Fault(fault) = one.outcome else {
        panic!("it faults")
    };
    let record = fault.record.unwrap();
    let words: Vec<u64> = record
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .collect();
    // EVTQ_0_… to EVTQ_3_… of drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.h.
    assert_eq!(words[0] & 0xff, 0x10, "ID");
    assert_eq!(words[0] >> 11 & 1, 1, "SSV");
    assert_eq!(words[0] >> 12 & 0xf_ffff, 5, "SSID");
    assert_eq!(words[0] >> 32, 0x128, "SID");
    assert_eq!(words[1] >> 31 & 1, 1, "STALL");
    assert_eq!(words[1] >> 33 & 1, 1, "PnU");
    assert_eq!(words[1] >> 34 & 1, 0, "InD");
    assert_eq!(words[1] >> 35 & 1, 0, "RnW");
    assert_eq!(words[1] >> 39 & 1, 0, "S2");
    assert_eq!(words[1] >> 40 & 3, 2, "CLASS");
    assert_eq!(words[2], 0x7f00_1234);
    assert_eq!((words.len(), fault.recoverable), (4, true));
}

#[test]
fn sentences_of_smmuv3_say_what_becomes_of_the_request() {
    let said = |context: &str| {
        let text = format!(
            r#"{{"iopf_capture":1,"arch":"smmuv3","memory_limit":"0x1000000",
            "registers":{{"SMMU_STRTAB_BASE":"0x40000"}},
            "memory":[{{"addr":"0x40000","words":["0x2000b"]}},
                {{"addr":"0x20000","words":["{context}","0x30000"]}}],
            "requests":[{{"device":0,"addr":"0x7f001234","access":"r"}}]}}"#
        );
        match only(&Capture::parse(text.as_bytes()).unwrap()).outcome {
            Outcome::Fault(fault) => fault.text,
            other => panic!("{other:?}"),
        }
    };
    for (context, end) in [
        ("0x7e205c0003519", "mapped on demand."),
        (
            "0x7f205c0003519",
            " (the request is stalled: it waits until software retries or terminates it with CMD_RESUME).",
        ),
        (
            "0x7a205c0003519",
            " (as A is clear in the context descriptor, the request is not aborted: it reads zero, and what it writes is dropped).",
        ),
        (
            "0x7c205c0003519",
            " (no fault is recorded, as R is clear in the context descriptor).",
        ),
    ] {
        let text = said(context);
        assert!(text.ends_with(end), "{text}");
        assert!(
            text.starts_with("StreamID 0x0 tried to read 0x7f001234: the level-1 stage-1 entry 1 at 0x30008 is 0x0, not valid"),
            "{text}"
        );
    }
}
